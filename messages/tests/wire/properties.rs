//! What holds for every message: it survives the journey, and damage on the way is an error and nothing worse.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rabia_bank_messages::bank::Command;
use rabia_bank_messages::batch::{BatchBuilder, Contents, MAX_STAMP, Payload};
use rabia_bank_messages::codec::{self, Encoding};
use rabia_bank_messages::level;

use crate::strategies::{client_message, node, opening, peer_message, request, server_message};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

/// Tries every decoder; that none panics is the check.
fn decode_as_anything(bytes: &[u8]) {
    for encoding in ENCODINGS {
        let _ = encoding.decode_client(bytes);
        let _ = encoding.decode_server(bytes);
    }
    let _ = codec::decode_frame(bytes);
    let _ = codec::decode_opening(bytes);
    check_payload(&Payload::new(bytes.to_vec()));
}

/// What passes the check can be read, and is written again as the same bytes; what does not can't be read.
fn check_payload(payload: &Payload) {
    let contents = payload.contents::<Command>(level::highest());
    assert_eq!(payload.check::<Command>(), contents.as_ref().map(|_| ()).map_err(Clone::clone));
    let again = match (contents, payload.stamp()) {
        (Ok(Contents::Replacement(node, store)), Ok(stamp)) => Payload::replacing(node, store, stamp),
        (Ok(Contents::Can(level)), Ok(stamp)) => Payload::can(level, stamp),
        (Ok(Contents::Requests(requests)), Ok(stamp)) => {
            let mut builder = BatchBuilder::default();
            requests.iter().for_each(|request| builder.push(&request.header, &request.action));
            builder.finish(rabia_bank_messages::ids::NodeId::new(1).unwrap(), 1, 1, stamp).1
        }
        _ => return,
    };
    assert_eq!(again.bytes(), payload.bytes());
}

/// One valid message of any kind, encoded.
fn encoded() -> impl Strategy<Value = Vec<u8>> {
    let encoding = prop_oneof![Just(Encoding::Json), Just(Encoding::MessagePack)];
    prop_oneof![
        (client_message(), encoding.clone()).prop_map(|(message, encoding)| encoding.encode(&message)),
        (server_message(), encoding).prop_map(|(message, encoding)| encoding.encode(&message)),
        opening().prop_map(|opening| codec::encode_opening(&opening)),
        peer_message().prop_map(|message| {
            let mut frame = codec::start_frame();
            codec::encode_message(&mut frame, &message);
            frame
        }),
        vec(request(), 1..4).prop_map(|requests| {
            let mut builder = BatchBuilder::default();
            requests.iter().for_each(|(header, action)| builder.push(header, action));
            let node = rabia_bank_messages::ids::NodeId::new(1).unwrap();
            builder.finish(node, 1, 1, 1).1.bytes().to_vec()
        }),
    ]
}

proptest! {
    #[test]
    fn clients_are_understood(message in client_message()) {
        for encoding in ENCODINGS {
            let bytes = encoding.encode(&message);
            prop_assert_eq!(encoding.decode_client(&bytes), Ok(message.clone()));
        }
    }

    #[test]
    fn nodes_are_understood_by_clients(message in server_message()) {
        for encoding in ENCODINGS {
            let bytes = encoding.encode(&message);
            prop_assert_eq!(encoding.decode_server(&bytes), Ok(message.clone()));
        }
    }

    #[test]
    fn nodes_are_understood_by_nodes(messages in vec(peer_message(), 0..8)) {
        let mut frame = codec::start_frame();
        messages.iter().for_each(|message| codec::encode_message(&mut frame, message));
        prop_assert_eq!(codec::decode_frame(&frame), Ok(messages));
    }

    #[test]
    fn openings_are_understood(opening in opening()) {
        prop_assert_eq!(codec::decode_opening(&codec::encode_opening(&opening)), Ok(opening));
    }

    #[test]
    fn batches_are_canonical(requests in vec(request(), 0..8), origin in node(), stamp in 0..=MAX_STAMP) {
        let build = |requests: &[_]| {
            let mut builder = BatchBuilder::default();
            requests.iter().for_each(|(header, action)| builder.push(header, action));
            builder.finish(origin, 3, 4, stamp)
        };
        let (id, payload) = build(&requests);
        prop_assert!(payload.matches(&id));
        prop_assert_eq!((payload.stamp(), payload.count()), (Ok(stamp), Ok(requests.len() as u32)));
        let decoded: Vec<_> = payload
            .requests::<Command>()
            .unwrap()
            .map(|request| request.map(|request| (request.header, request.action)).unwrap())
            .collect();
        prop_assert_eq!(&decoded, &requests);
        check_payload(&payload);
        prop_assert_eq!(payload.check::<Command>(), Ok(()));
        prop_assert_eq!(build(&decoded), (id, payload));
    }

    #[test]
    fn action_bytes_are_equal_exactly_if_actions_are(a in request(), b in request()) {
        let mut builder = BatchBuilder::default();
        for (header, action) in [&a, &b, &(a.0, b.1.clone())] {
            builder.push(header, action);
        }
        let (_, payload) = builder.finish(rabia_bank_messages::ids::NodeId::new(1).unwrap(), 1, 1, 1);
        let bytes: Vec<_> = payload.requests::<Command>().unwrap().map(|request| request.unwrap().action_bytes).collect();
        prop_assert_eq!(bytes[0] == bytes[1], a.1 == b.1);
        prop_assert_eq!(bytes[1], bytes[2]);
    }

    #[test]
    fn damaged_batches_are_checked_as_they_are_read(
        requests in vec(request(), 0..4),
        changes in vec((any::<Index>(), any::<u8>()), 1..3),
    ) {
        let mut builder = BatchBuilder::default();
        requests.iter().for_each(|(header, action)| builder.push(header, action));
        let node = rabia_bank_messages::ids::NodeId::new(1).unwrap();
        let mut bytes = builder.finish(node, 1, 1, 1).1.bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check_payload(&Payload::new(bytes));
    }

    #[test]
    fn noise_is_refused_quietly(mut bytes in vec(any::<u8>(), 0..200), with_version: bool) {
        if with_version {
            bytes.insert(0, 1);
        }
        decode_as_anything(&bytes);
    }

    #[test]
    fn damage_is_refused_quietly(
        mut bytes in encoded(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<Index>()),
    ) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        decode_as_anything(&bytes);
    }
}

proptest! {
    // Every prefix of every message: fewer messages are enough.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cut_short_it_is_no_message(message in client_message(), answer in server_message(), peer in peer_message()) {
        for encoding in ENCODINGS {
            let bytes = encoding.encode(&message);
            for end in 0..bytes.len() {
                prop_assert!(encoding.decode_client(&bytes[..end]).is_err(), "{} of {}", end, bytes.len());
            }
            let bytes = encoding.encode(&answer);
            for end in 0..bytes.len() {
                prop_assert!(encoding.decode_server(&bytes[..end]).is_err(), "{} of {}", end, bytes.len());
            }
        }
        let mut frame = codec::start_frame();
        codec::encode_message(&mut frame, &peer);
        for end in 2..frame.len() {
            prop_assert!(codec::decode_frame(&frame[..end]).is_err(), "{} of {}", end, frame.len());
        }
    }
}
