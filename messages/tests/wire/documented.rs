//! The page that describes the client protocol is true: its examples are understood, its tables complete.

use rabia_bank_messages::bank::{
    DEFAULT_PAGE, ErrorCode, MAX_ACCOUNT_ID, MAX_BULK, MAX_PAGE, OperationKind, Transaction, TransactionType,
};
use rabia_bank_messages::client::{CLIENT_PATH, CLIENT_VERSION, MAX_CLIENT_MESSAGE};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::Digest;
use rabia_bank_messages::msgpack::MAX_DEPTH;

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
fn every_command_has_its_row_and_every_type_its_word() {
    for name in OperationKind::ALL.map(OperationKind::name) {
        let rows = PAGE.lines().filter(|line| line.starts_with(&format!("| `{name}` |"))).count();
        assert_eq!(rows, 1, "{name}");
    }
    for name in TransactionType::ALL.map(TransactionType::name) {
        assert!(PAGE.contains(&format!("`{name}`")), "nothing is said of {name}");
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
        format!("| an account id, in characters | 1 | {MAX_ACCOUNT_ID} |"),
        format!("| the commands of a bulk | 1 | {} |", grouped(MAX_BULK as u64)),
        format!("| the records of a page | 1 | {} |", grouped(u64::from(MAX_PAGE))),
        format!("| containers that nest, the message counted | | {MAX_DEPTH} |"),
        format!("| a message, in bytes | | {},", grouped(MAX_CLIENT_MESSAGE as u64)),
        format!("`limit` is 1 to {}, and {DEFAULT_PAGE} where absent", grouped(u64::from(MAX_PAGE))),
    ] {
        assert!(PAGE.contains(&fact), "the page does not say {fact}");
    }
}

/// A number as people write it, with commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

/// The fenced blocks of a section, each with its lines joined.
fn blocks(heading: &str) -> Vec<String> {
    let section = PAGE.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    section.split("```").skip(1).step_by(2).map(|block| block.trim_start_matches("text\n").to_owned()).collect()
}

/// The bytes that a hash is over, put together as the page says and by nothing else.
fn hashed(before: Digest, transaction: &Transaction) -> Vec<u8> {
    let Transaction { transaction_id, amount, timestamp, slot, .. } = transaction;
    let mut bytes = before.0.to_vec();
    for number in [transaction_id, amount, timestamp, slot] {
        bytes.extend(number.to_be_bytes());
    }
    let types = ["", "opening", "deposit", "withdrawal", "transfer"];
    let number = types.iter().position(|name| *name == transaction.transaction_type.name()).unwrap();
    bytes.push(u8::try_from(number).unwrap());
    for (account, balance) in
        [(&transaction.from_account, transaction.from_balance), (&transaction.to_account, transaction.to_balance)]
    {
        let account = account.as_deref().unwrap_or("");
        bytes.push(u8::try_from(account.len()).unwrap());
        bytes.extend(account.as_bytes());
        bytes.extend(balance.iter().flat_map(|balance| balance.to_be_bytes()));
    }
    bytes
}

#[test]
fn the_test_vector_of_the_hashes_is_what_the_page_says() {
    let blocks = blocks("The chain of hashes");
    let [_, vector, bytes] = &blocks[..] else { panic!("{blocks:?}") };
    let transactions = serde_json::Deserializer::from_str(vector).into_iter::<Transaction>();
    let (mut before, mut seen) = (Digest::ZERO, Vec::new());
    for transaction in transactions.map(Result::unwrap) {
        seen.push(hashed(before, &transaction));
        before = Digest::of(&seen[seen.len() - 1]);
        assert_eq!(transaction.hash, before, "{transaction:?}");
    }
    assert_eq!(seen.len(), 5);
    assert_eq!(hex::encode(&seen[3]), bytes.split_whitespace().collect::<String>());
    assert!(PAGE.contains(&format!("The {} bytes that", seen[3].len())));
}
