//! Attacks on the port for peers: before a hello, from a stranger's store, and from a member's own.
//!
//! Whoever speaks in a member's name takes no part in the protocol, and keeps to the line that
//! [`rabia_bank_simulator::nonsense`] draws.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rabia_bank::config::NodeConfig;
use rabia_bank::member_key::MemberKey;
use rabia_bank_actors::consensus::agreement::Agreement;
use rabia_bank_actors::consensus::handshake::Handshake;
use rabia_bank_messages::codec::{decode_frame, decode_opening, encode_message, encode_opening, start_frame};
use rabia_bank_messages::genesis::Replacements;
use rabia_bank_messages::ids::{Digest, NodeId, Proof, RunId, StoreId};
use rabia_bank_messages::lineage::Run;
use rabia_bank_messages::peer::{Hello, Opening, PeerMessage};
use rabia_bank_messages::promise::{Identity, Recovered};
use rabia_bank_simulator::nonsense::{Hearer, altered, batch, made_up};
use rabia_bank_storage::{BooksStore, LogStore};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::clients::open_with;
use super::{Attack, Counts, addresses, mutate};
use crate::support::wire::{Wire, answer_peer};
use crate::targets::peer_frames;

/// What is done to the port for peers.
pub const KINDS: &[&str] = &[
    "frames before a hello",
    "hellos that are altered",
    "hellos from a stranger's store",
    "hellos from a member's store",
    "nonsense in a member's name",
    "altered frames in a member's name",
    "calls to a member that is away",
];
/// How long a member speaks over one link at most.
const SPEAKS: Duration = Duration::from_secs(3);

fn random_bytes<const N: usize>(random: &mut Rng) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}

fn hello(config: &NodeConfig, random: &mut Rng) -> Hello {
    let others: Vec<NodeId> = config.genesis().nodes().filter(|node| *node != config.node).collect();
    let node = others[random.usize(..others.len())];
    let genesis = config.genesis();
    let run = Run { run: RunId(random_bytes(random)), promises: random.u64(..) };
    Hello {
        cluster: config.cluster,
        genesis: genesis.digest(),
        node,
        to: config.node,
        store: StoreId(random_bytes(random)),
        joined: random.bool().then(|| random.u64(..)),
        run,
        proof: Proof(random_bytes(random)),
        former: Vec::new(),
        remembers: None,
        disputes: None,
        decided: random.u64(..),
        log_hash: Digest(random_bytes(random)),
    }
}

/// Those who have no store of a member.
pub fn spawn_strangers(attack: &Attack, mut random: Rng, counts: &'static Counts) {
    let configs: Vec<NodeConfig> = attack.nodes.iter().map(|path| NodeConfig::load(path).unwrap()).collect();
    let (seeds, key) = (peer_frames::seeds(), MemberKey::draw());
    std::thread::spawn(move || {
        loop {
            let config = &configs[random.usize(..configs.len())];
            let Some(mut socket) = open_with(config.peer_listen, &key) else { continue };
            let first = match random.u32(..3) {
                0 => {
                    counts.add("frames before a hello");
                    let mut frame = seeds[random.usize(..seeds.len())].clone();
                    if random.bool() {
                        mutate::bytes(&mut frame, &mut random);
                    }
                    if random.u32(..8) == 0 {
                        frame.resize(random.usize(..2_000_000), 0);
                    }
                    frame
                }
                1 => {
                    counts.add("hellos that are altered");
                    let mut frame = encode_opening(&Opening::Hello(hello(config, &mut random)));
                    mutate::bytes(&mut frame, &mut random);
                    frame
                }
                _ => {
                    counts.add("hellos from a stranger's store");
                    let said = hello(config, &mut random);
                    let store = if random.bool() { key.store() } else { said.store };
                    encode_opening(&Opening::Hello(Hello { store, ..said }))
                }
            };
            if socket.send(Message::binary(first)).is_err() {
                continue;
            }
            // Whether it was taken or not.
            let _ = socket.read();
            for _ in 0..random.usize(..20) {
                let hearer = Hearer { members: configs.len(), decided: 0, next: None };
                if say(&mut socket, &[made_up(&hearer, &mut random)]).is_err() {
                    break;
                }
            }
        }
    });
}

fn say(socket: &mut WebSocket<Wire>, messages: &[PeerMessage]) -> Result<(), tungstenite::Error> {
    let mut frame = start_frame();
    messages.iter().for_each(|message| encode_message(&mut frame, message));
    socket.send(Message::binary(frame))
}

/// What a member says of itself.
struct Member {
    handshake: Handshake,
    config: NodeConfig,
    recovered: Recovered,
    key: MemberKey,
}

impl Member {
    /// Starts from the member's own store.
    fn start(config: &NodeConfig, random: &mut Rng) -> Member {
        let identity = Identity { genesis: config.genesis(), node: config.node };
        let books = BooksStore::open(&config.books_path(), &identity).unwrap();
        let (mut log, mut recovered) = LogStore::open(&config.log_path(), &identity, || Ok(books.slot())).unwrap();
        let began = log.begin_run(RunId(random_bytes(random)), &recovered).unwrap();
        recovered.runs.push(began);
        Member {
            handshake: Handshake::new(config.genesis(), config.node, recovered.store),
            config: config.clone(),
            recovered,
            key: MemberKey::load(&config.key_path()).unwrap(),
        }
    }

    fn hello(&self, to: NodeId) -> Vec<u8> {
        let (genesis, none) = (self.config.genesis(), Replacements::default());
        let store = genesis.stores[to.index()];
        let core = Agreement::new(genesis, self.config.node, &self.recovered, &none, &mut Vec::new());
        encode_opening(&Opening::Hello(self.handshake.introduce(to, store, &core)))
    }
}

/// Those who speak from the store of a member that is stopped: they call the others, and are called by them.
pub fn spawn_member(attack: &Attack, mut random: Rng, counts: &'static Counts) {
    let config = NodeConfig::load(attack.member.as_ref().unwrap()).unwrap();
    let member: &'static Member = Box::leak(Box::new(Member::start(&config, &mut random)));
    let members = config.members.len();
    for address in addresses(attack, |config| config.peer_listen) {
        let to = config.members.iter().find(|other| other.address == address.to_string()).unwrap().node;
        let mut random = random.fork();
        std::thread::spawn(move || {
            loop {
                let Some(mut socket) = open_with(address, &member.key) else { continue };
                counts.add("hellos from a member's store");
                if socket.send(Message::binary(member.hello(to))).is_ok() && is_taken(&mut socket) {
                    babble(&mut socket, members, &mut random, counts);
                }
            }
        });
    }
    let listener = TcpListener::bind(config.peer_listen).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counts.add("calls to a member that is away");
            let _ = answer_call(stream, member, members, &mut random, counts);
        }
    });
}

/// A frame of questions, which mean no harm whatever becomes of them.
fn altered_frame(hearer: &Hearer, random: &mut Rng) -> Vec<u8> {
    let mut frame = start_frame();
    let (id, payload) = batch(hearer, random);
    encode_message(&mut frame, &PeerMessage::Fetch { id });
    encode_message(&mut frame, &PeerMessage::Batch { id, payload });
    encode_message(&mut frame, &PeerMessage::CatchUp { from: hearer.decided });
    mutate::bytes(&mut frame, random);
    frame
}

/// Waits for the answer to a hello. True if it is one.
fn is_taken(socket: &mut WebSocket<Wire>) -> bool {
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        match socket.read() {
            Ok(Message::Binary(bytes)) => return matches!(decode_opening(&bytes), Ok(Opening::Hello(_))),
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(_) => return false,
        }
    }
    false
}

fn is_timeout(error: &tungstenite::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error, tungstenite::Error::Io(error) if matches!(error.kind(), WouldBlock | TimedOut))
}

fn answer_call(stream: TcpStream, member: &Member, members: usize, random: &mut Rng, counts: &Counts) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let mut socket = answer_peer(stream, &member.key)?;
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(20))).ok()?;
    let Ok(Message::Binary(bytes)) = socket.read() else { return None };
    let Ok(Opening::Hello(theirs)) = decode_opening(&bytes) else { return None };
    match random.u32(..4) {
        // It may say what it likes of the caller's store: the caller knows better.
        0 => {
            let mut answer = member.hello(theirs.node);
            mutate::bytes(&mut answer, random);
            socket.send(Message::binary(answer)).ok()?;
        }
        _ => socket.send(Message::binary(member.hello(theirs.node))).ok()?,
    }
    babble(&mut socket, members, random, counts);
    Some(())
}

/// Says nonsense until the link is broken, or for a while.
fn babble(socket: &mut WebSocket<Wire>, members: usize, random: &mut Rng, counts: &Counts) {
    let until = Instant::now() + SPEAKS;
    let mut hearer = Hearer { members, decided: 0, next: None };
    while Instant::now() < until {
        let mut nonsense = vec![made_up(&hearer, random)];
        match socket.read() {
            Ok(Message::Binary(bytes)) => {
                for message in decode_frame(&bytes).unwrap_or_default() {
                    if let PeerMessage::Alive { decided, .. } = message {
                        hearer.decided = decided.max(hearer.decided);
                    }
                    nonsense.push(altered(message, &hearer, random));
                }
            }
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(_) => return,
        }
        counts.add("nonsense in a member's name");
        if say(socket, &nonsense).is_err() {
            return;
        }
        if random.u32(..50) == 0 {
            counts.add("altered frames in a member's name");
            if socket.send(Message::binary(altered_frame(&hearer, random))).is_err() {
                return;
            }
        }
    }
}
