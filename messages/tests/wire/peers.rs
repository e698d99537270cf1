//! Frames between nodes.

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::codec::{self, BadFrame, MAX_PEER_FRAME};
use rabia_bank_messages::ids::{BatchId, Digest, NodeId};
use rabia_bank_messages::peer::{Entry, PROTOCOL_VERSION, PeerMessage};

fn id() -> BatchId {
    BatchId { origin: NodeId::new(1).unwrap(), incarnation: 1, sequence: 1, digest: Digest::of(b"") }
}

fn frame(messages: &[PeerMessage]) -> Vec<u8> {
    let mut frame = codec::start_frame();
    messages.iter().for_each(|message| codec::encode_message(&mut frame, message));
    frame
}

#[test]
fn a_payload_travels_as_it_is() {
    let payload = Payload::new(vec![0xff; 100_000]);
    let entry = |slot| Entry { slot, batch: Some((id(), payload.clone())) };
    let messages = [
        PeerMessage::Proposal { slot: 1, value: Some(id()), payload: Some(payload.clone()) },
        PeerMessage::Batch { id: id(), payload: payload.clone() },
        PeerMessage::Entries { before: Digest::ZERO, entries: vec![entry(1), entry(2)], decided: 2 },
    ];
    let frame = frame(&messages);
    assert!(frame.len() < 4 * payload.len() + 400, "{} bytes for four payloads of {}", frame.len(), payload.len());
    assert_eq!(codec::decode_frame(&frame), Ok(messages.to_vec()));
}

#[test]
fn the_messages_of_a_slot_are_small() {
    let state = rabia_bank_messages::peer::State::One(id());
    let frame = frame(&[PeerMessage::State { slot: 1_000_000, phase: 1, state }]);
    assert!(frame.len() < 70, "{} bytes", frame.len());
}

#[test]
fn other_versions_and_empty_frames_are_refused() {
    for version in (0..=u8::MAX).filter(|version| *version != PROTOCOL_VERSION) {
        assert_eq!(codec::decode_frame(&[version, 0]), Err(BadFrame::Version(version)));
        assert_eq!(codec::decode_opening(&[version]), Err(BadFrame::Version(version)));
    }
    assert!(matches!(codec::decode_frame(&[]), Err(BadFrame::Damaged(_))));
    assert_eq!(codec::decode_frame(&[PROTOCOL_VERSION]), Ok(vec![]));
    assert!(matches!(codec::decode_opening(&[PROTOCOL_VERSION]), Err(BadFrame::Damaged(_))));
}

#[test]
fn a_length_that_is_not_there_costs_nothing() {
    // Of 4,294,967,295 entries, bytes, or fields, none is there.
    for marker in [0xdd, 0xc6, 0xdb, 0xdf, 0xc9] {
        let mut frame = vec![PROTOCOL_VERSION, 0x81, 0xa7];
        frame.extend_from_slice(b"Entries");
        frame.extend_from_slice(&[0x92, marker, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(codec::decode_frame(&frame), Err(BadFrame::Damaged("it ends too early".into())));
    }
}

#[test]
fn a_frame_of_ones_is_refused_at_its_first_byte() {
    // The cheapest bytes for whoever sends them: each would be a value of its own.
    let mut frame = vec![1; MAX_PEER_FRAME];
    frame[0] = PROTOCOL_VERSION;
    assert!(matches!(codec::decode_frame(&frame), Err(BadFrame::Damaged(_))));
}

#[test]
fn nothing_follows_an_opening() {
    let hello = rabia_bank_messages::peer::HelloRefused {
        reason: rabia_bank_messages::peer::RefusalReason::NoHello,
        message: "that was no hello".into(),
        evidence: None,
    };
    let mut frame = codec::encode_opening(&rabia_bank_messages::peer::Opening::Refused(hello));
    assert!(codec::decode_opening(&frame).is_ok());
    frame.push(0xc0);
    assert!(matches!(codec::decode_opening(&frame), Err(BadFrame::Damaged(_))));
}
