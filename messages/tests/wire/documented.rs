//! The page that describes the client protocol is true: its examples are understood, its tables complete.

use rabia_bank_messages::bank::{
    AccountId, DEFAULT_PAGE, ErrorCode, MAX_ACCOUNT_ID, MAX_BULK, MAX_PAGE, OperationKind, SideProofs, Transaction,
    TransactionType,
};
use rabia_bank_messages::client::{CLIENT_PATH, CLIENT_VERSION, MAX_CLIENT_MESSAGE};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::{Digest, Salt};
use rabia_bank_messages::msgpack::MAX_DEPTH;
use rabia_bank_messages::principal::AdminKind;

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
    for name in AdminKind::ALL.map(AdminKind::name) {
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

/// The bytes that a hash of 0.1.0 is over, put together as the page says and by nothing else.
fn hashed_plain(before: Digest, transaction: &Transaction) -> Vec<u8> {
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

/// The bytes that the hash of a side is over, put together as the page says and by nothing else.
fn side(salt: Salt, account: &str, balance: i64, settings: Option<&str>) -> Vec<u8> {
    let mut bytes = salt.0.to_vec();
    bytes.push(u8::try_from(account.len()).unwrap());
    bytes.extend(account.as_bytes());
    bytes.extend(balance.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(settings.unwrap_or("").as_bytes());
    bytes
}

/// A number as the page says that varints are written.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let seven = u8::try_from(number % 128).unwrap();
        number /= 128;
        if number == 0 {
            bytes.push(seven);
            return bytes;
        }
        bytes.push(seven | 0x80);
    }
}

/// The same of a transaction.
fn hashed(before: Digest, transaction: &Transaction) -> Vec<u8> {
    let Transaction { transaction_id, amount, timestamp, slot, .. } = transaction;
    let mut bytes = before.0.to_vec();
    bytes.push(match transaction.transaction_type.name() {
        "opening" => 5,
        "deposit" => 6,
        "withdrawal" => 7,
        "transfer" => 8,
        "account_change" => 15,
        "asset" => 16,
        "admin" => 17,
        other => panic!("{other}"),
    });
    let mut parts = 4 * u64::from(transaction.act.is_some()) + 128 * u64::from(transaction.asset.is_some());
    parts += u64::from(transaction.from_account.is_some() || transaction.proofs().from_hash.is_some());
    parts += 2 * u64::from(transaction.to_account.is_some() || transaction.proofs().to_hash.is_some());
    bytes.extend(varint(parts));
    for number in [*transaction_id, *amount, *timestamp, *slot, transaction.principal.unwrap().into()] {
        bytes.extend(varint(number));
    }
    if let Some(asset) = &transaction.asset {
        bytes.push(u8::try_from(asset.len()).unwrap());
        bytes.extend(asset.as_bytes());
    }
    let Transaction { from_account, from_balance, to_account, to_balance, settings, .. } = transaction;
    let SideProofs { from_salt, to_salt, from_hash, to_hash } = transaction.proofs();
    let from = (from_account, from_balance, from_salt, from_hash, None);
    let to = (to_account, to_balance, to_salt, to_hash, settings.as_deref());
    for (account, balance, salt, hash, settings) in [from, to] {
        let bytes_of = |account: &AccountId| side(salt.unwrap(), account, balance.unwrap(), settings);
        let shown = account.as_ref().map(|account| Digest::of(&bytes_of(account)));
        bytes.extend(shown.or(hash).iter().flat_map(|hash| hash.0));
    }
    if let Some(act) = &transaction.act {
        bytes.extend(varint(act.len() as u64));
        bytes.extend(act.as_bytes());
    }
    bytes
}

#[test]
fn the_test_vectors_of_the_hashes_are_what_the_page_says() {
    let blocks = blocks("The chain of hashes");
    let [_, _, vector, side_bytes, bytes, _, old, old_bytes] = &blocks[..] else { panic!("{blocks:?}") };
    let read = |vector: &str| {
        let transactions = serde_json::Deserializer::from_str(vector).into_iter::<Transaction>();
        transactions.map(Result::unwrap).collect::<Vec<_>>()
    };
    let text = |shown: &str| shown.split_whitespace().collect::<String>();
    type Hashed = fn(Digest, &Transaction) -> Vec<u8>;
    for (vector, hashed, place, bytes) in
        [(vector, hashed as Hashed, 2, bytes), (old, hashed_plain as Hashed, 3, old_bytes)]
    {
        let (mut before, mut seen) = (Digest::ZERO, Vec::new());
        for transaction in read(vector) {
            seen.push(hashed(before, &transaction));
            before = Digest::of(&seen[seen.len() - 1]);
            assert_eq!(transaction.hash, before, "{transaction:?}");
        }
        assert!(seen.len() >= 5, "{} transactions", seen.len());
        assert_eq!(hex::encode(&seen[place]), text(bytes));
    }
    let third = read(vector).remove(2);
    let (salt, account) = (third.proofs().to_salt.unwrap(), third.to_account.unwrap());
    assert_eq!(hex::encode(side(salt, &account, third.to_balance.unwrap(), None)), text(side_bytes));
}

/// Prints the vectors for the page: the hashes in it are computed anew.
#[test]
#[ignore = "a tool for whoever changes the page"]
fn print_the_test_vectors() {
    let act = r#"{"revoke_token":{"token_id":"0123456789abcdef"}}"#;
    let lines = [
        serde_json::json!({"transaction_id": 1, "type": "opening", "to_account": "alice", "amount": 1000, "to_balance": 1000,
            "timestamp": 1_760_000_000_000u64, "slot": 901, "principal": 2, "to_salt": "11".repeat(16)}),
        serde_json::json!({"transaction_id": 2, "type": "opening", "to_account": "b:1_2.3-4", "amount": 1, "to_balance": 1,
            "timestamp": 1_760_000_000_250u64, "slot": 903, "principal": 2, "to_salt": "22".repeat(16)}),
        serde_json::json!({"transaction_id": 3, "type": "transfer", "from_account": "alice", "to_account": "b:1_2.3-4",
            "amount": 300, "from_balance": 700, "to_balance": 301, "timestamp": 1_760_000_003_000u64, "slot": 905,
            "principal": 4, "from_salt": "33".repeat(16), "to_salt": "44".repeat(16)}),
        serde_json::json!({"transaction_id": 4, "type": "transfer", "to_account": "b:1_2.3-4", "amount": 1, "to_balance": 302,
            "timestamp": 1_760_000_003_000u64, "slot": 906, "principal": 3, "from_hash": "55".repeat(32),
            "to_salt": "66".repeat(16)}),
        serde_json::json!({"transaction_id": 5, "type": "asset", "timestamp": 1_760_000_003_000u64, "slot": 907, "principal": 2,
            "act": r#"{"asset":"EUR","scale":2,"limit":1000000}"#}),
        serde_json::json!({"transaction_id": 6, "type": "opening", "to_account": "zoe", "asset": "EUR", "amount": 0,
            "to_balance": 0, "settings": r#"{"min_balance":-5000,"name":"Zo\u00eb"}"#, "timestamp": 1_760_000_003_000u64,
            "slot": 908, "principal": 2, "to_salt": "77".repeat(16)}),
        serde_json::json!({"transaction_id": 7, "type": "withdrawal", "from_account": "zoe", "asset": "EUR", "amount": 300,
            "from_balance": -300, "timestamp": 1_760_000_003_000u64, "slot": 909, "principal": 2,
            "from_salt": "88".repeat(16)}),
        serde_json::json!({"transaction_id": 8, "type": "account_change", "to_account": "zoe", "asset": "EUR",
            "to_balance": -300, "settings": r#"{"status":"frozen"}"#, "timestamp": 1_760_000_003_000u64, "slot": 910,
            "principal": 2, "to_salt": "99".repeat(16)}),
        serde_json::json!({"transaction_id": 9, "type": "admin", "timestamp": 1_760_000_003_000u64,
            "slot": 9_007_199_254_740_991u64, "principal": 1, "act": act}),
    ];
    let mut before = Digest::ZERO;
    for mut line in lines {
        line["hash"] = "00".repeat(32).into();
        let mut transaction: Transaction = serde_json::from_value(line).unwrap();
        let bytes = hashed(before, &transaction);
        transaction.hash = Digest::of(&bytes);
        before = transaction.hash;
        eprintln!("{}", String::from_utf8(Encoding::Json.encode(&transaction)).unwrap());
        if transaction.transaction_id == 3 {
            let (salt, account) = (transaction.proofs().to_salt.unwrap(), transaction.to_account.as_deref().unwrap());
            eprintln!("SIDE {}", hex::encode(side(salt, account, transaction.to_balance.unwrap(), None)));
            eprintln!("BYTES {}", hex::encode(&bytes));
        }
    }
}
