//! What older versions left: a backup becomes a cluster of this version with equal accounts, history and hashes, which goes on. A store is
//! refused with the advice to restore a backup.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Connection, Node, PATIENCE, audited, free_base_port, program, wait_until};
use rabia_bank::config::NodeConfig;
use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/backup-0.1.0").join(file)
}

fn read(file: &str) -> Value {
    serde_json::from_slice(&fs::read(data(file)).unwrap()).unwrap()
}

/// Every field of `old` with its value, records in lists likewise; newer versions may answer more.
fn assert_has(new: &Value, old: &Value) {
    match (new, old) {
        (Value::Object(_), Value::Object(fields)) => {
            fields.iter().for_each(|(name, value)| assert_has(&new[name], value))
        }
        (Value::Array(new), Value::Array(old)) => {
            assert_eq!(new.len(), old.len(), "{old:?}, which is {new:?} now");
            new.iter().zip(old).for_each(|(new, old)| assert_has(new, old));
        }
        _ => assert_eq!(new, old),
    }
}

fn accounts(connection: &mut Connection) -> Vec<Value> {
    let answer = connection.query(json!({"list_accounts": {"limit": 1000}}));
    answer["ok"]["accounts"].as_array().unwrap().clone()
}

/// Oldest first.
fn history(connection: &mut Connection) -> Vec<Value> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let answer = connection.query(json!({"get_transaction_history": {"limit": 1000, "before": before}}));
        let page = answer["ok"]["transactions"].as_array().unwrap().clone();
        let Some(last) = page.last() else { break };
        before = last["transaction_id"].as_u64();
        found.extend(page);
    }
    found.reverse();
    // What came with the backup had no tokens; that the test was given one stands behind it.
    let made = found.pop().unwrap();
    assert_eq!(made["type"], "admin", "{made}");
    found
}

/// The figures without the one transaction by which the test was given a token.
fn without_the_token(mut statistics: Value) -> Value {
    let count = statistics["transactions"]["count"].as_u64().unwrap();
    statistics["transactions"]["count"] = (count - 1).into();
    let made = statistics["by_type"].as_object_mut().unwrap().remove("admin").unwrap();
    assert_eq!(made, json!({"count": 1, "volume": 0}));
    let hours = statistics["by_hour"].as_array_mut().unwrap();
    let newest = hours.last_mut().unwrap();
    if newest["count"] == 1 {
        hours.pop();
    } else {
        newest["count"] = (newest["count"].as_u64().unwrap() - 1).into();
    }
    statistics
}

#[test]
fn a_backup_of_0_1_0_becomes_a_cluster_with_equal_books() {
    let dir = tempfile::tempdir().unwrap();
    let restored = dir.path().join("restored");
    let port = free_base_port(1).to_string();
    let mut restore = program(["restore", "--nodes", "1", "--base-port", &port, "--data-dir"]);
    let output = restore.arg(&restored).arg(data("bank.backup")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let config_path = restored.join("node-1/node.toml");
    let config = NodeConfig::load(&config_path).unwrap();
    let mut node = Node::at(config, config_path, dir.path().join("log"));
    assert_eq!(audited(&node)["chain_head"], read("digest.json")["chain_head"]);

    node.start();
    wait_until("the restored node serves", PATIENCE, || node.status().is_some());
    let mut connection = node.connect(Encoding::Json);
    for (new, old) in [
        (accounts(&mut connection), read("accounts.json")),
        (history(&mut connection), read("history.json")),
        (
            vec![without_the_token(connection.query(json!({"get_statistics": {}}))["ok"]["statistics"].clone())],
            json!([read("statistics.json")["statistics"]]),
        ),
    ] {
        let old = old.as_array().unwrap();
        assert_eq!(new.len(), old.len());
        new.iter().zip(old).for_each(|(new, old)| assert_has(new, old));
    }

    // The chain goes on where it ended, also over a restart.
    let answer = connection.command(json!({"deposit": {"account_id": "alice", "amount": 7}}));
    let made = &answer["ok"]["transaction"];
    assert_eq!(made["transaction_id"], read("history.json").as_array().unwrap().len() as u64 + 2, "{answer}");
    node.kill();
    node.start();
    wait_until("the restarted node serves", PATIENCE, || node.status().is_some());
    let query = json!({"get_transaction": {"transaction_id": made["transaction_id"]}});
    assert_eq!(node.connect(Encoding::Json).query(query)["ok"]["transaction"], *made);
}

#[test]
fn a_store_of_0_1_0_is_refused_with_the_advice_to_restore_its_backup() {
    let dir = tempfile::tempdir().unwrap();
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store-0.1.0");
    let names = ["node.toml", "log.redb", "books.redb"];
    for name in names {
        fs::copy(stored.join(name), dir.path().join(name)).unwrap();
    }
    let config = dir.path().join("node.toml");
    let folder = dir.path().as_os_str();
    let node = ["node".as_ref(), "--config".as_ref(), config.as_os_str()];
    let audit = ["audit".as_ref(), "verify".as_ref(), "--data-dir".as_ref(), folder];
    let replace = ["replace".as_ref(), "--config".as_ref(), config.as_os_str()];
    for line in [&node[..], &audit, &replace] {
        let output = program(line).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{line:?}: {said}");
        assert!(said.contains("format version 4") && said.contains("rabia-bank restore --help"), "{line:?}: {said}");
    }
    for name in names {
        assert!(fs::read(stored.join(name)).unwrap() == fs::read(dir.path().join(name)).unwrap(), "{name} was changed");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), names.len(), "something was left beside it");
}
