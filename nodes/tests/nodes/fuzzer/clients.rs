//! Attacks on the port for clients: by what is said, and by how.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use fastrand::Rng;
use rabia_bank::member_key::MemberKey;
use rabia_bank_messages::client::CLIENT_PATH;
use rabia_bank_messages::msgpack;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::{Attack, Counts, addresses, mutate};
use crate::support::open_socket;
use crate::support::wire::{PEER_PATH, Wire, open_peer};
use crate::targets::client_frames;

/// What is done to both ports.
pub const KINDS: &[&str] = &[
    "client frames",
    "garbage in place of a handshake",
    "handshakes that are not finished",
    "connections that are closed at once",
    "messages that are not finished",
    "frames that can't be",
    "messages that are too large",
    "pings of who never reads",
    "questions of who never reads",
    "one half closed",
];
/// How long an attacker waits for an answer that it does not need.
const GLANCE: Duration = Duration::from_millis(20);
/// Connections that an attacker holds and leaves alone.
const HELD: usize = 60;

/// Those who say what clients say, a little altered.
pub fn spawn_speakers(attack: &Attack, mut random: Rng, counts: &'static Counts) {
    let nodes = addresses(attack, |config| config.client_listen);
    let (texts, binaries): (Vec<_>, Vec<_>) =
        client_frames::seeds().into_iter().partition(|seed| seed.first() == Some(&b'{'));
    let texts: Vec<Value> = texts.iter().map(|text| serde_json::from_slice(text).unwrap()).collect();
    std::thread::spawn(move || {
        loop {
            let address = nodes[random.usize(..nodes.len())];
            let Some(mut socket) = open(address, CLIENT_PATH) else { continue };
            // Most have a token: those without get no further than the door.
            if random.u32(..4) > 0
                && let Some(token) = crate::support::token_of(address)
            {
                let hello = json!({"hello": {"version": 2, "token": token}});
                let _ = socket.send(Message::text(hello.to_string()));
            }
            for _ in 0..random.usize(1..60) {
                let frame = if random.bool() {
                    altered_text(&texts, &mut random)
                } else {
                    altered_binary(&binaries, &texts, &mut random)
                };
                counts.add("client frames");
                if socket.send(frame).is_err() {
                    break;
                }
                if random.u32(..4) == 0 {
                    let _ = socket.read();
                }
            }
            if random.bool() {
                let _ = socket.close(None);
            }
        }
    });
}

fn altered_value(messages: &[Value], random: &mut Rng) -> Value {
    let mut message = messages[random.usize(..messages.len())].clone();
    for _ in 0..random.usize(..3) {
        mutate::value(&mut message, random);
    }
    message
}

fn altered_text(messages: &[Value], random: &mut Rng) -> Message {
    let mut text = altered_value(messages, random).to_string();
    if random.u32(..4) == 0 {
        let mut bytes = text.into_bytes();
        mutate::bytes(&mut bytes, random);
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    Message::text(text)
}

fn altered_binary(seeds: &[Vec<u8>], messages: &[Value], random: &mut Rng) -> Message {
    if random.bool() {
        return Message::binary(msgpack::encode_named(&altered_value(messages, random)));
    }
    let mut bytes = seeds[random.usize(..seeds.len())].clone();
    mutate::bytes(&mut bytes, random);
    Message::binary(bytes)
}

/// A WebSocket to the port for clients that does not wait long for anything.
pub fn open(address: SocketAddr, path: &str) -> Option<WebSocket<Wire>> {
    impatient(open_socket(address, path, &[]).ok()?)
}

/// The same to the port for peers, of somebody who has this key.
pub fn open_with(address: SocketAddr, key: &MemberKey) -> Option<WebSocket<Wire>> {
    impatient(open_peer(address, key, PEER_PATH, &[]).ok()?)
}

fn impatient(socket: WebSocket<Wire>) -> Option<WebSocket<Wire>> {
    socket.get_ref().set_read_timeout(Some(GLANCE)).ok()?;
    socket.get_ref().set_write_timeout(Some(Duration::from_secs(1))).ok()?;
    Some(socket)
}

/// Those who break the rules of WebSockets and below, on both ports.
pub fn spawn_breakers(attack: &Attack, mut random: Rng, counts: &'static Counts) {
    let clients = addresses(attack, |config| config.client_listen);
    let peers = addresses(attack, |config| config.peer_listen);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        loop {
            let (address, path) = match random.bool() {
                true => (clients[random.usize(..clients.len())], CLIENT_PATH),
                false => (peers[random.usize(..peers.len())], PEER_PATH),
            };
            let kind = random.usize(1..KINDS.len());
            counts.add(KINDS[kind]);
            let left = match kind {
                1..=3 => before_handshake(kind, address, path, &mut random),
                _ => after_handshake(kind, address, path, &mut random),
            };
            held.extend(left);
            if held.len() > HELD {
                held.swap_remove(random.usize(..held.len()));
            }
        }
    });
}

fn before_handshake(kind: usize, address: SocketAddr, path: &str, random: &mut Rng) -> Option<Wire> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(1))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    let bytes = match kind {
        1 => match random.bool() {
            true => (0..random.usize(1..50_000)).map(|_| random.u8(..)).collect(),
            false => format!("{request}{}", "X: y\r\n".repeat(random.usize(1..20_000))).into_bytes(),
        },
        2 => request.as_bytes()[..random.usize(1..request.len())].to_vec(),
        _ => Vec::new(),
    };
    // It may be closed before all of it is written.
    let _ = stream.write_all(&bytes);
    (kind == 2).then_some(Wire::Plain(stream))
}

fn after_handshake(kind: usize, address: SocketAddr, path: &str, random: &mut Rng) -> Option<Wire> {
    let socket = match path {
        PEER_PATH => open_with(address, &MemberKey::draw())?,
        _ => open(address, path)?,
    };
    let mut stream = socket.into_inner();
    match KINDS[kind] {
        "messages that are not finished" => {
            let piece = vec![b' '; random.usize(1..60_000)];
            let mut sent = write_frame(&mut stream, 0x01, piece.len() as u64, &piece);
            for _ in 0..random.usize(..100) {
                sent = sent
                    .and_then(|()| write_frame(&mut stream, 0x89, 3, b"yes"))
                    .and_then(|()| write_frame(&mut stream, 0x00, piece.len() as u64, &piece));
            }
            return sent.is_ok().then_some(stream);
        }
        "frames that can't be" => {
            let first = [0x83, 0xf1, 0x80, 0x09, 0xff, 0x88, 0x0f][random.usize(..7)];
            let payload: Vec<u8> = (0..random.usize(..130)).map(|_| random.u8(..)).collect();
            let _ = match random.bool() {
                true => write_frame(&mut stream, first, payload.len() as u64, &payload),
                // Not masked.
                false => stream.write_all(&[first, payload.len().min(125) as u8]),
            };
        }
        "messages that are too large" => {
            let declared = [1 << 23, 1 << 32, 1 << 62, u64::MAX][random.usize(..4)];
            let piece = vec![b'x'; 50_000];
            let mut sent = write_frame(&mut stream, 0x81, declared, &piece);
            for _ in 0..random.usize(..200) {
                sent = sent.and_then(|()| stream.write_all(&piece));
            }
        }
        "pings of who never reads" => {
            let mut sent = Ok(());
            for _ in 0..2_000 {
                sent = sent.and_then(|()| write_frame(&mut stream, 0x89, 125, &[7; 125]));
            }
            return Some(stream);
        }
        "questions of who never reads" => {
            let question = br#"{"request":9,"query":{"list_accounts":{"limit":1000}}}"#;
            let mut sent = Ok(());
            for _ in 0..2_000 {
                sent = sent.and_then(|()| write_frame(&mut stream, 0x81, question.len() as u64, question));
            }
            return Some(stream);
        }
        _ => {
            let _ = stream.shutdown(if random.bool() { Shutdown::Write } else { Shutdown::Read });
            let _ = stream.read(&mut [0; 100]);
        }
    }
    None
}

/// A masked frame that declares this length.
fn write_frame(stream: &mut impl Write, first: u8, declared: u64, payload: &[u8]) -> std::io::Result<()> {
    let mut frame = vec![first];
    match declared {
        0..126 => frame.push(0x80 | declared as u8),
        126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((declared as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend(declared.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    stream.write_all(&frame)
}
