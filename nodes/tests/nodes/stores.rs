//! What a person can do wrong with the data of a node, and what a disk can do to it: the node says so and ends, its files
//! stay as they are, the others go on, and once the cause is gone the node comes back and catches up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::books::{Books, Writing};
use crate::support::{Cluster, Node, PATIENCE, PROGRAM, file_size, program, wait_until};
use rabia_bank::client::NodeUrl;
use rabia_bank::config::{BOOKS_FILE, LOG_FILE};

/// The exit code of a node that refuses to start.
const REFUSED: i32 = 3;
/// The exit code of a node whose files are damaged.
const DAMAGED: i32 = 7;

fn urls(nodes: &[Node]) -> Vec<NodeUrl> {
    nodes.iter().map(|node| node.url().parse().unwrap()).collect()
}

fn store(node: &Node) -> PathBuf {
    node.config.log_path()
}

/// Writes through these nodes for a while, and waits until they have the same state.
fn write_some(books: &mut Books, nodes: &[Node]) {
    let all = urls(nodes);
    let writers: Vec<_> = all.iter().map(|url| vec![url.clone()]).collect();
    let load = books.write(&writers, &Writing::default());
    wait_until("all clients are served", PATIENCE, || load.per_writer().iter().all(|count| *count >= 30));
    books.stop(load);
}

/// Starts a node that must refuse to, and say so with all of these words.
fn assert_refuses(node: &mut Node, words: &[&str]) {
    assert_ends(node, REFUSED, words);
}

/// Starts a node that must end with this exit code, and say all of these words.
fn assert_ends(node: &mut Node, code: i32, words: &[&str]) {
    let said = node.log().len();
    node.start();
    let status = node.wait();
    let log = node.log().split_off(said);
    assert_eq!(status.code(), Some(code), "{status}: {log}");
    for word in words {
        assert!(log.contains(word), "\"{word}\" is missing in: {log}");
    }
}

/// Starts a node that must come back, and waits until it has what the others have.
fn assert_returns(cluster: &mut Cluster, books: &Books, index: usize) {
    cluster.nodes[index].start();
    cluster.wait_ready();
    books.check(&urls(&cluster.nodes));
}

fn three_with_some_data() -> (Cluster, Books) {
    let cluster = Cluster::start(3);
    let mut books = Books::open(&urls(&cluster.nodes));
    write_some(&mut books, &cluster.nodes);
    (cluster, books)
}

#[test]
fn a_data_directory_is_in_use() {
    let (cluster, mut books) = three_with_some_data();
    let second = program(["node", "--config"]).arg(&cluster.nodes[1].config_path).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(REFUSED), "{said}");
    assert!(said.contains("in use by another process") && said.contains(LOG_FILE), "{said}");
    write_some(&mut books, &cluster.nodes);
    books.check(&urls(&cluster.nodes));
}

#[test]
fn stores_are_swapped() {
    let (mut cluster, mut books) = three_with_some_data();
    let other_cluster = Cluster::create(3);
    let [_, second, third] = &mut cluster.nodes[..] else { panic!("three nodes") };
    third.kill();
    // Another cluster's.
    let kept = cluster.dir.path().join("kept");
    fs::rename(store(third), &kept).unwrap();
    fs::copy(store(&other_cluster.nodes[2]), store(third)).unwrap();
    assert_refuses(third, &["belongs to cluster", &other_cluster.nodes[2].config.cluster.to_string(), LOG_FILE]);
    // Another node's, of this cluster.
    second.kill();
    fs::copy(store(second), store(third)).unwrap();
    assert_refuses(third, &["belongs to node 2, but this is node 3", LOG_FILE]);
    second.start();
    fs::rename(&kept, store(third)).unwrap();
    wait_until("node 2 is back", PATIENCE, || cluster.nodes[1].status().is_some());
    write_some(&mut books, &cluster.nodes[..2]);
    assert_returns(&mut cluster, &books, 2);
}

#[test]
fn a_node_of_another_cluster_calls() {
    let (cluster, mut books) = three_with_some_data();
    let mut stranger = Cluster::create(3);
    let node = &mut stranger.nodes[0];
    for (member, known) in node.config.members.iter_mut().zip(&cluster.nodes).skip(1) {
        member.address = known.peer_address().to_string();
    }
    fs::write(&node.config_path, node.config.to_toml()).unwrap();
    node.start();
    let reason =
        format!("this is cluster {}, you are of cluster {}", cluster.nodes[0].config.cluster, node.config.cluster);
    wait_until("the stranger is told why", PATIENCE, || node.log().matches(&reason).count() >= 2);
    write_some(&mut books, &cluster.nodes);
    books.check(&urls(&cluster.nodes));
}

#[test]
fn a_store_is_gone() {
    let (mut cluster, mut books) = three_with_some_data();
    let third = &mut cluster.nodes[2];
    third.kill();
    let [kept, kept_books, kept_key] = ["kept", "kept-books", "kept-key"].map(|name| cluster.dir.path().join(name));
    fs::rename(third.config.key_path(), &kept_key).unwrap();
    fs::rename(store(third), &kept).unwrap();
    fs::rename(third.config.books_path(), &kept_books).unwrap();
    for entry in fs::read_dir(&third.config.data_dir).unwrap() {
        let path = entry.unwrap().path();
        if path != third.config_path {
            fs::remove_file(path).unwrap();
        }
    }
    assert_refuses(third, &["there is no store at", LOG_FILE, "rabia-bank replace"]);
    assert!(!store(third).exists());
    fs::rename(&kept_key, third.config.key_path()).unwrap();
    // A new directory, made by `create` for another cluster, with the configuration of this one.
    let other_cluster = Cluster::create(3);
    fs::copy(store(&other_cluster.nodes[2]), store(third)).unwrap();
    assert_refuses(third, &["belongs to cluster"]);
    fs::rename(&kept, store(third)).unwrap();
    assert_refuses(third, &["there is no store at", BOOKS_FILE]);
    fs::copy(other_cluster.nodes[2].config.books_path(), third.config.books_path()).unwrap();
    assert_refuses(third, &["belongs to cluster", BOOKS_FILE]);
    fs::rename(&kept_books, third.config.books_path()).unwrap();
    write_some(&mut books, &cluster.nodes[..2]);
    assert_returns(&mut cluster, &books, 2);
}

/// Neither the first start of an old copy nor a later one may speak.
#[test]
fn an_old_copy_of_a_store_is_put_back() {
    let (mut cluster, mut books) = three_with_some_data();
    let third = &mut cluster.nodes[2];
    third.stop();
    let (old, current) = (cluster.dir.path().join("old"), cluster.dir.path().join("current"));
    fs::copy(store(third), &old).unwrap();
    assert_returns(&mut cluster, &books, 2);
    write_some(&mut books, &cluster.nodes);
    books.check(&urls(&cluster.nodes));
    cluster.nodes[2].stop();
    fs::rename(store(&cluster.nodes[2]), &current).unwrap();
    fs::copy(&old, store(&cluster.nodes[2])).unwrap();
    for _ in 1..=4 {
        assert_refuses(&mut cluster.nodes[2], &["is an old copy", "rabia-bank replace"]);
        write_some(&mut books, &cluster.nodes[..2]);
        books.check(&urls(&cluster.nodes[..2]));
    }
    fs::rename(&current, store(&cluster.nodes[2])).unwrap();
    assert_returns(&mut cluster, &books, 2);
}

/// The bytes with every place altered that holds `pattern`: some may be on pages that are not in use.
fn flip(bytes: &[u8], pattern: &[u8]) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    let places = bytes.windows(pattern.len()).enumerate().filter(|(_, window)| *window == pattern);
    for (at, _) in places {
        flipped[at] ^= 1;
    }
    assert!(flipped != bytes, "there is no {pattern:?}");
    flipped
}

#[test]
fn a_database_file_is_damaged() {
    let (mut cluster, mut books) = three_with_some_data();
    cluster.nodes[2].kill();
    let whole = fs::read(store(&cluster.nodes[2])).unwrap();
    let garbage: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(whole.len()).collect();
    let damages = [
        ("the header", flip(&whole, &whole[..9])),
        ("the identity", flip(&whole, &cluster.nodes[2].config.cluster.0)),
        ("some payloads", flip(&whole, b"account-05")),
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("truncated to the header", whole[..4096].to_vec()),
        ("empty", Vec::new()),
        ("garbage", garbage),
        ("zeroed", vec![0; whole.len()]),
    ];
    for (what, bytes) in damages {
        println!("damage: {what}");
        fs::write(store(&cluster.nodes[2]), &bytes).unwrap();
        assert_ends(&mut cluster.nodes[2], DAMAGED, &["is damaged", LOG_FILE, "the other members go on without it"]);
        let after = fs::read(store(&cluster.nodes[2])).unwrap();
        let changed = after.iter().zip(&bytes).position(|(now, then)| now != then);
        assert!(
            after == bytes,
            "{what}: the node has changed a file that it refuses: {} bytes instead of {}, first at {changed:?}",
            after.len(),
            bytes.len()
        );
    }
    write_some(&mut books, &cluster.nodes[..2]);
    fs::write(store(&cluster.nodes[2]), &whole).unwrap();
    assert_returns(&mut cluster, &books, 2);
}

/// The node under a limit of the size of its files, as a disk that is full has one. SIGXFSZ is ignored, so that writing
/// fails instead.
fn on_a_full_disk(config: &Path, limit: u64) -> Command {
    let mut command = Command::new("bash");
    command.arg("-c").arg("trap '' XFSZ; ulimit -f \"$1\"; exec \"$0\" node --stop-with-parent --config \"$2\"");
    command.arg(PROGRAM).arg(limit.to_string()).arg(config);
    command
}

#[test]
fn a_disk_is_full() {
    let (mut cluster, mut books) = three_with_some_data();
    cluster.nodes[2].stop();
    let size = file_size(&store(&cluster.nodes[2]));
    // Full from the start, and after a while.
    for room in [0, 1 << 20] {
        let said = cluster.nodes[2].log().len();
        // In units of 1,024 bytes.
        let limit = (size + room) / 1024;
        let command = on_a_full_disk(&cluster.nodes[2].config_path, limit);
        cluster.nodes[2].start_as(command);
        let all = urls(&cluster.nodes[..2]);
        let load = books.write(
            &[vec![all[0].clone()], vec![all[1].clone()]],
            &Writing { pace: Duration::from_millis(1), ..Writing::default() },
        );
        wait_until("the node ends", 4 * PATIENCE, || cluster.nodes[2].ended().is_some());
        let status = cluster.nodes[2].wait();
        let log = cluster.nodes[2].log().split_off(said);
        assert!(status.code().is_some_and(|code| code != 0), "{status}: {log}");
        assert!(log.contains("no space left to write") && log.contains(LOG_FILE), "{status}: {log}");
        let before = load.per_writer();
        wait_until("the others go on", PATIENCE, || {
            load.per_writer().iter().zip(&before).all(|(now, then)| *now > then + 20)
        });
        books.stop(load);
        assert!(file_size(&store(&cluster.nodes[2])) <= size + room);
        assert_returns(&mut cluster, &books, 2);
        cluster.nodes[2].stop();
    }
}
