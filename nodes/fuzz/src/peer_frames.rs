//! Frames between nodes, and the payloads in them.

use rabia_bank_messages::bank::Command;
use rabia_bank_messages::batch::{Action, BatchBuilder, Payload, RequestHeader};
use rabia_bank_messages::client::ClientMessage;
use rabia_bank_messages::codec::{self, Encoding};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, ClusterId, Digest, NodeId, Proof, RunId, SessionKey, StoreId};
use rabia_bank_messages::lineage::{Memory, Run};
use rabia_bank_messages::peer::{Entry, Hello, Opening, PeerMessage, State, Vote};

use super::client_frames;

/// What is taken is encoded in one way, and all of it is.
pub fn check(input: &[u8]) {
    if let Ok(messages) = codec::decode_frame(input) {
        let mut again = codec::start_frame();
        messages.iter().for_each(|message| codec::encode_message(&mut again, message));
        assert_eq!(codec::decode_frame(&again), Ok(messages));
    }
    if let Ok(opening) = codec::decode_opening(input) {
        assert_eq!(codec::decode_opening(&codec::encode_opening(&opening)), Ok(opening));
    }
    check_payload(input);
}

/// Requests that can be read can be written again, and say the same then.
fn check_payload(input: &[u8]) {
    let payload = Payload::new(input.to_vec());
    let (Ok(requests), Ok(stamp)) = (payload.requests::<Command>(), payload.stamp()) else { return };
    let Ok(requests) = requests.map(|request| request.map(|r| (r.header, r.action))).collect::<Result<Vec<_>, _>>()
    else {
        return;
    };
    let mut builder = BatchBuilder::default();
    requests.iter().for_each(|(header, action)| builder.push(header, action));
    let Some(node) = NodeId::new(1) else { return };
    let (id, again) = builder.finish(node, 1, 1, stamp);
    assert!(again.matches(&id));
    let decoded =
        again.requests::<Command>().map(|requests| requests.map(|request| request.map(|r| (r.header, r.action))));
    let decoded: Vec<_> = decoded.into_iter().flatten().flatten().collect();
    assert_eq!(decoded, requests);
}

/// A frame with messages of most kinds, an opening, a payload.
pub fn seeds() -> Vec<Vec<u8>> {
    let Some(node) = NodeId::new(2) else { return Vec::new() };
    let payload = payload(node);
    let id = payload.0;
    let (before, proof) = (Digest([3; 32]), Proof([4; 16]));
    let messages = [
        PeerMessage::Proposal { slot: 7, value: Some(id), payload: Some(payload.1.clone()) },
        PeerMessage::Proposal { slot: 8, value: None, payload: None },
        PeerMessage::State { slot: 7, phase: 1, state: State::One(id) },
        PeerMessage::State { slot: 7, phase: 1, state: State::Abstain },
        PeerMessage::Vote { slot: 7, phase: 1, vote: Vote::One(id) },
        PeerMessage::Vote { slot: 7, phase: 2, vote: Vote::Undecided },
        PeerMessage::Decide { slot: 7, value: Some(id) },
        PeerMessage::Batch { id, payload: payload.1.clone() },
        PeerMessage::Fetch { id },
        PeerMessage::ReadIndex { starts: 1, round: 2 },
        PeerMessage::ReadIndexAnswer { starts: 1, round: 2, slot: 3 },
        PeerMessage::CatchUp { from: 3 },
        PeerMessage::Entries {
            before,
            entries: vec![Entry { slot: 3, batch: Some((id, payload.1.clone())) }],
            decided: 9,
        },
        PeerMessage::Alive { decided: 9, hash: before, durable: 8 },
        PeerMessage::GetHash { slot: 9 },
        PeerMessage::LogHash { slot: 9, hash: before },
        PeerMessage::Promised { count: 9, proof },
        PeerMessage::Clock { wall: 9, confirmed: Some(8), refuses: true },
        PeerMessage::Compacted { log_from: 5 },
    ];
    let mut all = codec::start_frame();
    let mut seeds = Vec::new();
    for message in &messages {
        codec::encode_message(&mut all, message);
        let mut one = codec::start_frame();
        codec::encode_message(&mut one, message);
        seeds.push(one);
    }
    let store = StoreId([2; 16]);
    let genesis = Genesis::new(ClusterId([9; 16]), vec![store]).digest();
    let (cluster, run) = (ClusterId([9; 16]), Run { run: RunId([7; 16]), promises: 4 });
    let remembers = Some(Memory { store, run: run.run, promises: 3, proof });
    let (former, disputes, log_hash) = (vec![Run { run: RunId([6; 16]), promises: 2 }], None, before);
    let joined = Some(5);
    let hello = Hello {
        cluster,
        genesis,
        node,
        to: node,
        store,
        joined,
        run,
        proof,
        former,
        remembers,
        disputes,
        decided: 9,
        log_hash,
    };
    seeds.extend([all, payload.1.bytes().to_vec(), codec::encode_opening(&Opening::Hello(hello))]);
    seeds
}

/// A batch of what clients ask.
pub fn payload(origin: NodeId) -> (BatchId, Payload) {
    let key = SessionKey([7; 16]);
    let mut builder = BatchBuilder::default();
    builder.push(&RequestHeader { session: 0, key, number: 0, acknowledged: 0, token: 0 }, &Action::<Command>::Open);
    let messages = client_frames::seeds();
    let commands = messages.iter().filter_map(|seed| match Encoding::Json.decode_client(seed) {
        Ok(ClientMessage::Command { command, .. }) => Some(command),
        _ => None,
    });
    for (number, command) in (1..).zip(commands) {
        builder.push(&RequestHeader { session: 1, key, number, acknowledged: 0, token: 0 }, &Action::Command(command));
    }
    builder.finish(origin, 1, 1, 1_000)
}
