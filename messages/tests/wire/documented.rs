//! The page that describes the client protocol is true: its examples are understood, its tables complete.

use rabia_bank_messages::bank::ErrorCode;
use rabia_bank_messages::client::{CLIENT_PATH, CLIENT_VERSION, MAX_CLIENT_MESSAGE};
use rabia_bank_messages::codec::{Encoding, MAX_DEPTH};

const PAGE: &str = include_str!("../../WIRE.md");

/// The messages that a client (`→`) or a node (`←`) says in the examples. A message goes on in lines that are indented.
fn examples(arrow: char) -> Vec<String> {
    let mut examples: Vec<String> = Vec::new();
    let mut ours = false;
    for line in PAGE.lines() {
        match line.chars().next() {
            Some(first @ ('→' | '←')) => {
                ours = first == arrow;
                if ours {
                    examples.push(line[arrow.len_utf8()..].to_owned());
                }
            }
            Some(' ') if ours => examples.last_mut().unwrap().push_str(line),
            _ => ours = false,
        }
    }
    examples
}

#[test]
fn every_example_of_a_client_is_understood() {
    let examples = examples('→');
    assert!(examples.len() > 15, "only {} examples found", examples.len());
    for example in examples {
        let message = Encoding::Json.decode_client(example.as_bytes()).unwrap_or_else(|e| panic!("{example}: {e}"));
        let packed = Encoding::MessagePack.encode(&message);
        assert_eq!(Encoding::MessagePack.decode_client(&packed), Ok(message));
    }
}

#[test]
fn every_example_of_a_node_is_what_nodes_say() {
    let examples = examples('←');
    assert!(examples.len() > 12, "only {} examples found", examples.len());
    for example in examples {
        let message = Encoding::Json.decode_server(example.as_bytes()).unwrap_or_else(|e| panic!("{example}: {e}"));
        let said: serde_json::Value = serde_json::from_slice(&Encoding::Json.encode(&message)).unwrap();
        let shown: serde_json::Value = serde_json::from_str(&example).unwrap();
        assert_eq!(said, shown);
    }
}

#[test]
fn every_error_code_has_its_row() {
    for code in ErrorCode::ALL {
        let rows = PAGE.lines().filter(|line| line.starts_with(&format!("| `{code}` |"))).count();
        assert_eq!(rows, 1, "{code}");
    }
}

#[test]
fn the_limits_are_the_ones_of_the_code() {
    for fact in [
        format!("`{CLIENT_PATH}`"),
        format!("\"version\": {CLIENT_VERSION}"),
        format!("{MAX_DEPTH} containers"),
        format!("{} MiB", MAX_CLIENT_MESSAGE >> 20),
    ] {
        assert!(PAGE.contains(&fact), "the page does not say {fact}");
    }
}
