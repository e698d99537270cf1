//! The payload of a batch.

use rabia_bank_messages::bank::{Amount, Bulk, Command, MAX_BULK, Operation};
use rabia_bank_messages::batch::{
    Action, BatchBuilder, Contents, EncodedRequest, FULL_BATCH_BYTES, MAX_BATCH_BYTES, MAX_BATCH_REQUESTS, MAX_STAMP,
    Payload, RequestHeader,
};
use rabia_bank_messages::client::{ClientMessage, MAX_CLIENT_MESSAGE};
use rabia_bank_messages::codec::{Encoding, MAX_PEER_FRAME};
use rabia_bank_messages::ids::{NodeId, SessionKey, StoreId};
use rabia_bank_messages::level::{MAX_LEVEL, NOTES, ProgramOf};
use rabia_bank_messages::principal::{Admin, Note};

const HEADER: RequestHeader =
    RequestHeader { session: 5, key: SessionKey([9; 16]), number: 1, acknowledged: 0, token: 0 };

fn node() -> NodeId {
    NodeId::new(2).unwrap()
}

#[test]
fn the_layout_is_the_documented_one() {
    let mut builder = BatchBuilder::default();
    builder.push(&HEADER, &Action::<Command>::Open);
    let deposit = Operation::Deposit { account_id: "al".into(), amount: Amount::new(3) };
    builder.push(&HEADER, &Action::Command(Command::One(deposit)));
    let (_, payload) = builder.finish(node(), 1, 1, 0x0102);

    let mut expected = vec![3, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 2];
    let mut header = vec![0x95, 5, 0xc4, 16];
    header.extend_from_slice(&[9; 16]);
    header.extend_from_slice(&[1, 0, 0]);
    expected.extend_from_slice(&header);
    expected.extend_from_slice(b"\xa4Open");
    expected.extend_from_slice(&header);
    expected.extend_from_slice(b"\x81\xa7Command\x81\xa7deposit\x92\xa2al\x03");
    assert_eq!(payload.bytes()[..], expected);
}

#[test]
fn a_batch_without_requests_is_a_batch() {
    let (id, payload) = BatchBuilder::default().finish(node(), 1, 1, 77);
    assert!(payload.matches(&id));
    assert_eq!((payload.stamp(), payload.count()), (Ok(77), Ok(0)));
    assert_eq!(payload.requests::<Command>().unwrap().count(), 0);
}

#[test]
fn a_builder_starts_anew_after_each_batch() {
    let mut builder = BatchBuilder::default();
    builder.push(&HEADER, &Action::<Command>::Open);
    let first = builder.finish(node(), 1, 1, 1);
    assert!(builder.is_empty(), "{} bytes", builder.len());
    builder.push(&HEADER, &Action::<Command>::Open);
    assert_eq!(builder.finish(node(), 1, 1, 1), first);
}

#[test]
fn it_is_full_by_count_and_by_size() {
    let mut builder = BatchBuilder::default();
    while !builder.is_full() {
        builder.push(&HEADER, &Action::<Command>::Close);
    }
    assert!(builder.count() == MAX_BATCH_REQUESTS || builder.len() >= FULL_BATCH_BYTES);
    let mut builder = BatchBuilder::default();
    let account_id = "x".repeat(FULL_BATCH_BYTES).into();
    builder.push(&HEADER, &Action::Command(Command::One(Operation::Deposit { account_id, amount: Amount::new(1) })));
    assert!(builder.is_full());
}

#[test]
fn the_largest_bulk_fits_everywhere() {
    let account = |c: &str| c.repeat(50).into();
    let transfer = Operation::Transfer {
        from_account: account("a"),
        to_account: account("b"),
        amount: Amount::new(1_000_000_000),
    };
    let command = Command::Bulk(Bulk { commands: vec![transfer; MAX_BULK], atomic: true });
    let message = ClientMessage::Command { request: 1, command: command.clone(), acknowledged: 0 };
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let bytes = encoding.encode(&message);
        assert!(bytes.len() < MAX_CLIENT_MESSAGE, "{encoding:?}: {} bytes", bytes.len());
        assert_eq!(encoding.decode_client(&bytes).as_ref(), Ok(&message));
    }
    // Full but for a byte, then the longest request that a client may send: what is added is its header.
    const { assert!(FULL_BATCH_BYTES + MAX_CLIENT_MESSAGE + 1024 < MAX_PEER_FRAME) };
}

#[test]
fn a_damaged_payload_says_so_once() {
    let mut builder = BatchBuilder::default();
    builder.push(&HEADER, &Action::<Command>::Open);
    builder.push(&HEADER, &Action::<Command>::Close);
    let whole = builder.finish(node(), 1, 1, 1).1.bytes().to_vec();
    for end in 0..whole.len() {
        match Payload::new(whole[..end].to_vec()).requests::<Command>() {
            Err(_) => assert!(end < 13),
            Ok(requests) => {
                let results: Vec<_> = requests.collect();
                assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
                assert!(results.last().is_some_and(Result::is_err));
            }
        }
    }
    let longer = [&whole[..], &[0xc0]].concat();
    assert!(Payload::new(longer).requests::<Command>().unwrap().last().is_some_and(|result| result.is_err()));
    let other_version = [&[1], &whole[1..]].concat();
    assert!(Payload::new(other_version).stamp().is_err());
}

/// What is checked before a node holds what a peer sent: each limit, and that all of it can be applied.
#[test]
fn what_no_honest_node_makes_does_not_pass() {
    let build = |requests: u32| {
        let mut builder = BatchBuilder::default();
        (0..requests).for_each(|_| builder.push(&HEADER, &Action::<Command>::Open));
        builder.finish(node(), 1, 1, MAX_STAMP).1
    };
    assert_eq!(build(MAX_BATCH_REQUESTS).check::<Command>(), Ok(()));
    let fails = |payload: &Payload, why: &str| {
        let said = payload.check::<Command>().unwrap_err();
        assert!(said.to_string().contains(why), "{said}");
        assert_eq!(payload.contents::<Command>(1), Err(said));
    };
    fails(&build(MAX_BATCH_REQUESTS + 1), "8193 requests, 8192 are the most");
    let stamped = |stamp: u64| {
        let mut bytes = build(1).bytes().to_vec();
        bytes[1..9].copy_from_slice(&stamp.to_be_bytes());
        Payload::new(bytes)
    };
    assert_eq!(stamped(MAX_STAMP).check::<Command>(), Ok(()));
    fails(&stamped(MAX_STAMP + 1), "the latest");
    fails(&stamped(u64::MAX), "the latest");
    fails(&Payload::new(vec![0; MAX_BATCH_BYTES + 1]), "are the most");
    fails(&Payload::new(vec![3; 5]), "only 5 bytes");
    // A declared length is no reason to reserve memory.
    let bulk = |length: &[u8]| [&build(1).bytes()[..13 + 23], b"\x81\xa7Command\x81\xa4bulk\x92", length].concat();
    fails(&Payload::new(bulk(&[0xdd, 0xff, 0xff, 0xff, 0xff])), "a command of another kind");
    fails(&Payload::new(bulk(&[0xdc, 0, 1])), "shortest");
    // A command that this program does not know, and one with a number in a longer form than it needs.
    let deposit = |amount: &[u8]| {
        let bytes = [&build(1).bytes()[..13 + 23], b"\x81\xa7Command\x81\xa7deposit\x92\xa2al", amount].concat();
        Payload::new(bytes)
    };
    assert_eq!(deposit(&[3]).check::<Command>(), Ok(()));
    fails(&deposit(&[0xcc, 3]), "shortest");
    fails(&deposit(&[0xc0]), "no number");
    fails(&deposit(&[3, 3]), "1 bytes after the last request");
    let unknown = [&build(1).bytes()[..13 + 23], b"\x81\xa7Command\x81\xa7destroy\x92\xa2al\x03"].concat();
    fails(&Payload::new(unknown), "request 1: a command of another kind");
    let kind = [&build(1).bytes()[..13 + 23], b"\xa5Shout"].concat();
    fails(&Payload::new(kind), "request 1: an action of another kind");
}

/// The longest command that a node can be set up to take, in the shortest form that clients have for it, behind a batch that
/// is full but for a byte.
#[test]
fn the_longest_request_passes() {
    let command = |name: &str| {
        // An array of the fields, and −1, which is no amount and has nine bytes in a batch.
        let named = [&[0x81, 0xa0 | name.len() as u8], name.as_bytes(), &[0x92, 0xa0, 0xff]].concat();
        named.len()
    };
    let longest = 8 << 20;
    let batch = command("deposit") + 8;
    assert!(FULL_BATCH_BYTES + longest * batch / command("deposit") < MAX_BATCH_BYTES);
    const { assert!(MAX_BATCH_BYTES + 1024 < MAX_PEER_FRAME) };
}

#[test]
fn a_store_is_replaced_by_a_payload_of_its_own() {
    let payload = Payload::replacing(node(), StoreId([7; 16]), 0x0102);
    let expected = [&[2, 0, 0, 0, 0, 0, 0, 1, 2, 2][..], &[7; 16]].concat();
    assert_eq!(payload.bytes()[..], expected);
    assert_eq!(payload.replacement(), Ok(Some((node(), StoreId([7; 16])))));
    assert_eq!((payload.stamp(), payload.count()), (Ok(0x0102), Ok(0)));
    assert!(payload.requests::<Command>().is_err());
    assert_eq!(BatchBuilder::default().finish(node(), 1, 1, 77).1.replacement(), Ok(None));
    for damaged in [&expected[..25], &[&expected[..], &[0]].concat()] {
        assert!(Payload::new(damaged.to_vec()).replacement().is_err());
    }
    let nobody = [&expected[..9], &[8], &expected[10..]].concat();
    assert!(Payload::new(nobody).replacement().is_err());
}

/// What a program can is said by a payload of its own.
#[test]
fn a_program_says_in_a_payload_of_its_own_which_levels_it_knows() {
    let payload = Payload::can(258, 0x0102);
    let expected = [4, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 1, 2];
    assert_eq!(payload.bytes()[..], expected);
    assert_eq!(payload.contents::<Command>(1), Ok(Contents::Can(258)));
    assert_eq!((payload.check::<Command>(), payload.stamp(), payload.count()), (Ok(()), Ok(0x0102), Ok(0)));
    assert!(payload.requests::<Command>().is_err());
    let damaged = |bytes: &[u8]| Payload::new(bytes.to_vec()).check::<Command>().is_err();
    assert!(damaged(&expected[..12]) && damaged(&[&expected[..], &[0]].concat()));
    for level in [0, MAX_LEVEL + 1, u32::MAX] {
        assert!(damaged(&[&expected[..9], &level.to_be_bytes()].concat()), "{level}");
    }
    assert!(damaged(&[&[4][..], &u64::MAX.to_be_bytes(), &[0, 0, 0, 1]].concat()), "it is stamped too late");
}

/// A command of a later level makes its batch one of that level's format. All others stay what they were.
#[test]
fn a_format_says_the_lowest_level_that_has_all_of_it() {
    let note = |text: &str| Action::<Command>::Admin(Box::new(Admin::Note(Note { text: text.into() })));
    let build = |actions: &[Action]| {
        let mut builder = BatchBuilder::default();
        actions.iter().for_each(|action| builder.push(&HEADER, action));
        let pushed = builder.finish(node(), 1, 1, 0x0102);
        let encoded: Vec<_> = actions.iter().map(|action| EncodedRequest::new(&HEADER, action)).collect();
        encoded.iter().for_each(|request| builder.push_encoded(request));
        assert_eq!(builder.finish(node(), 1, 1, 0x0102), pushed);
        pushed.1
    };
    let plain = build(&[Action::Open]);
    let payload = build(&[Action::Open, note("hi")]);
    let mut expected = vec![5, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 2, 0, 0, 0, 2];
    expected.extend_from_slice(&plain.bytes()[13..]);
    expected.extend_from_slice(&plain.bytes()[13..13 + 23]);
    expected.extend_from_slice(b"\x81\xa5Admin\x81\xa4note\x91\xa2hi");
    assert_eq!(payload.bytes()[..], expected);
    assert_eq!((payload.stamp(), payload.count()), (Ok(0x0102), Ok(2)));
    // A program of level 1 can't hold it, and nobody applies it at level 1.
    let fails = |payload: &Payload, level: u32, why: &str| {
        let said = payload.contents::<Command>(level).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    };
    assert!(payload.check::<Command>().is_err());
    let _program = ProgramOf::level(NOTES);
    assert_eq!(payload.check::<Command>(), Ok(()));
    fails(&payload, 1, "its format is of level 2, where formats up to level 1 count");
    assert!(matches!(payload.contents::<Command>(NOTES), Ok(Contents::Requests(requests)) if requests.len() == 2));
    assert_eq!(plain.contents::<Command>(1), plain.contents::<Command>(NOTES));
    // One encoding for one batch: neither a higher format than needed, nor a lower one.
    let mut higher = build(&[note("hi")]).bytes().to_vec();
    higher.truncate(17);
    higher.extend_from_slice(&plain.bytes()[13..]);
    fails(&Payload::new(higher), NOTES, "a format of level 2, where level 1 has all of it");
    let lower = [&[3][..], &payload.bytes()[1..9], &payload.bytes()[13..]].concat();
    fails(&Payload::new(lower), NOTES, "request 2: it is of level 2, in a format of level 1");
    for level in [0, 1, MAX_LEVEL + 1] {
        let mut bytes = payload.bytes().to_vec();
        bytes[9..13].copy_from_slice(&u32::to_be_bytes(level));
        let other = Payload::new(bytes);
        assert_eq!(other.check::<Command>().is_err(), other.contents::<Command>(u32::MAX).is_err());
        fails(&other, u32::MAX, "such are of 2 to");
    }
    for end in 0..payload.len() {
        assert!(Payload::new(payload.bytes()[..end].to_vec()).check::<Command>().is_err());
    }
}

/// A client that speaks to a program of level 1 is told that there is no such command.
#[test]
fn what_only_tests_know_is_no_command_of_this_version() {
    let message = br#"{"request": 1, "command": {"note": {"text": "hi"}}}"#;
    let refused = Encoding::Json.decode_client(message).unwrap_err();
    assert_eq!(refused.request, Some(1));
    let _program = ProgramOf::level(NOTES);
    assert!(matches!(Encoding::Json.decode_client(message), Ok(ClientMessage::Admin { .. })));
}
