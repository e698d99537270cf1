//! What encoding and decoding cost: `cargo test --release -p rabia-bank-messages speed -- --ignored --nocapture`.

use std::hint::black_box;
use std::time::Instant;

use rabia_bank_messages::bank::{
    Amount, Command, Operation, OtherFields, SideProofs, Success, Transaction, TransactionType,
};
use rabia_bank_messages::batch::{Action, BatchBuilder, RequestHeader};
use rabia_bank_messages::client::{Answer, AnswerResult, ClientMessage, ServerMessage};
use rabia_bank_messages::codec::{self, Encoding};
use rabia_bank_messages::ids::{Digest, NodeId, Salt, SessionKey};
use rabia_bank_messages::peer::PeerMessage;

/// The best of several rounds, in ns for each of `per_call` things that `work` does.
fn measure(name: &str, per_call: u32, mut work: impl FnMut()) {
    let calls = 400_000 / per_call;
    let round = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..calls).for_each(|_| work());
        start.elapsed().as_nanos() as f64 / f64::from(calls * per_call)
    };
    let best = (0..7).map(|_| round(&mut work)).fold(f64::INFINITY, f64::min);
    println!("{name:<44} {best:8.1} ns");
}

fn transfer() -> Command {
    Command::One(Operation::Transfer {
        from_account: "customer-000017".into(),
        to_account: "customer-004711".into(),
        amount: Amount::new(12_345),
    })
}

fn answer() -> ServerMessage {
    let transaction = Transaction {
        transaction_id: 1_234_567,
        transaction_type: TransactionType::Transfer.into(),
        from_account: Some("customer-000017".into()),
        to_account: Some("customer-004711".into()),
        amount: 12_345,
        asset: None,
        from_balance: Some(987_655),
        to_balance: Some(1_012_345),
        settings: None,
        timestamp: 1_760_000_000_000,
        slot: 90_001,
        principal: Some(2),
        proofs: SideProofs::of_salts(Some(Salt([3; 16])), Some(Salt([4; 16]))),
        act: None,
        hash: Digest::of(b"hash"),
        other: OtherFields::default(),
    };
    let result = AnswerResult::Ok(Success::Transaction { transaction });
    ServerMessage::Answer(Box::new(Answer {
        request: 7,
        slot: Some(90_001),
        index: Some(17),
        session: None,
        result,
        replayed: Some(false),
    }))
}

#[test]
#[ignore = "a measurement, to be run in release"]
fn batches() {
    const COUNT: u32 = 100;
    let header =
        RequestHeader { session: 812, key: SessionKey([7; 16]), number: 1_000_000, acknowledged: 999_990, token: 0 };
    let action = Action::Command(transfer());
    let node = NodeId::new(1).unwrap();
    let build = || {
        let mut builder = BatchBuilder::default();
        (0..COUNT).for_each(|_| builder.push(&header, &action));
        builder
    };
    measure("batch: encode a transfer", COUNT, || {
        black_box(build());
    });
    measure("batch: encode and hash a transfer", COUNT, || {
        black_box(build().finish(node, 1, 1, 1_760_000_000_000));
    });
    let (id, payload) = build().finish(node, 1, 1, 1_760_000_000_000);
    println!("{:<44} {:8} bytes", "batch: a transfer", payload.len() / COUNT as usize);
    measure("batch: decode a transfer", COUNT, || {
        payload.requests::<Command>().unwrap().for_each(|request| {
            black_box(request.unwrap());
        });
    });
    measure("batch: check a transfer", COUNT, || black_box(payload.check::<Command>()).unwrap());
    let mut frame = codec::start_frame();
    measure("peer: encode a batch of 100 transfers", 1, || {
        frame.truncate(1);
        codec::encode_message(&mut frame, &PeerMessage::Batch { id, payload: payload.clone() });
    });
    measure("peer: decode a batch of 100 transfers", 1, || {
        black_box(codec::decode_frame(&frame).unwrap());
    });
}

#[test]
#[ignore = "a measurement, to be run in release"]
fn clients() {
    let question = ClientMessage::Command { request: 1_000_000, command: transfer(), acknowledged: 999_990 };
    let answer = answer();
    for encoding in [Encoding::MessagePack, Encoding::Json] {
        let (asked, answered) = (encoding.encode(&question), encoding.encode(&answer));
        println!("{:<44} {:8} bytes", format!("{encoding:?}: a transfer"), asked.len());
        measure(&format!("{encoding:?}: encode a transfer"), 1, || {
            black_box(encoding.encode(&question));
        });
        measure(&format!("{encoding:?}: decode a transfer"), 1, || {
            black_box(encoding.decode_client(&asked).unwrap());
        });
        measure(&format!("{encoding:?}: encode its answer"), 1, || {
            black_box(encoding.encode(&answer));
        });
        measure(&format!("{encoding:?}: decode its answer"), 1, || {
            black_box(encoding.decode_server(&answered).unwrap());
        });
    }
}
