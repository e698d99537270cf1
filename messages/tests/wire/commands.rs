//! Commands: each is known by one name alone, in a bulk and in a batch, and stands in a batch in one encoding.

use rabia_bank_messages::bank::{Amount, Bulk, Command, Operation, OperationKind};
use rabia_bank_messages::batch::{Action, BatchBuilder, Batched, Payload, RequestHeader};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::{NodeId, SessionKey};
use rabia_bank_messages::msgpack;
use serde::{Deserialize, Serialize};

fn operation(kind: OperationKind) -> Operation {
    let (account_id, amount) = (|| "a".into(), Amount::new(300));
    match kind {
        OperationKind::CreateAccount => Operation::CreateAccount { account_id: account_id(), initial_balance: amount },
        OperationKind::Deposit => Operation::Deposit { account_id: account_id(), amount },
        OperationKind::Withdraw => Operation::Withdraw { account_id: account_id(), amount },
        OperationKind::Transfer => Operation::Transfer { from_account: account_id(), to_account: "b".into(), amount },
    }
}

fn payload<C: Batched>(actions: impl IntoIterator<Item = Action<C>>) -> Payload {
    let mut builder = BatchBuilder::default();
    for (action, number) in actions.into_iter().zip(1..) {
        let header = RequestHeader { session: 1, key: SessionKey([7; 16]), number, acknowledged: 0, token: 0 };
        builder.push(&header, &action);
    }
    builder.finish(NodeId::new(1).unwrap(), 1, 1, 1).1
}

fn actions<C: Batched>(payload: &Payload) -> Vec<Action<C>> {
    assert_eq!(payload.check::<C>(), Ok(()));
    payload.requests().unwrap().map(|request| request.unwrap().action).collect()
}

/// What can be said in a bulk can be said alone, under the same name and with the same fields, wherever it is said.
#[test]
fn every_operation_is_known_alone_in_a_bulk_and_in_a_batch() {
    for kind in OperationKind::ALL {
        let operation = operation(kind);
        assert_eq!(operation.kind(), kind);
        assert_eq!(OperationKind::named(kind.name()), Some(kind));
        let json = serde_json::to_value(&operation).unwrap();
        assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), [kind.name()]);
        let alone = Command::One(operation.clone());
        let bulk = Command::Bulk(Bulk { commands: vec![operation], atomic: true });
        for command in [alone, bulk] {
            for encoding in [Encoding::Json, Encoding::MessagePack] {
                let bytes = encoding.encode(&command);
                assert_eq!(encoding.decode::<Command>(&bytes), Ok(command.clone()), "{encoding:?}");
            }
            assert_eq!(msgpack::decode::<Command>(&msgpack::encode(&command)), Ok(command.clone()));
            let action = Action::Command(command);
            assert_eq!(actions(&payload([action.clone()])), [action]);
        }
    }
}

#[test]
fn an_unknown_command_is_told_which_there_are() {
    let unknown = Encoding::Json.decode::<Command>(br#"{"stop":{"account_id":"a"}}"#).unwrap_err().to_string();
    for name in OperationKind::ALL.map(OperationKind::name).into_iter().chain(["bulk"]) {
        assert!(unknown.contains(name), "{unknown}");
    }
}

/// A command of something else than the bank.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Put {
    Nothing,
    Value { key: String, value: u64 },
}

impl Batched for Put {}

#[test]
fn any_command_that_serde_can_write_has_one_encoding() {
    let puts = [Put::Nothing, Put::Value { key: "k".into(), value: 5 }, Put::Value { key: "k".into(), value: 1 << 40 }];
    let puts = [Action::Open, Action::Close].into_iter().chain(puts.map(Action::Command));
    let puts: Vec<_> = puts.collect();
    let whole = payload(puts.clone());
    assert_eq!(actions::<Put>(&whole), puts);
    assert!(whole.check::<Command>().is_err(), "it is no batch for a bank");

    // The same values otherwise: 5 in two bytes, the names of the fields, an array for a name.
    let bytes = payload([Action::Command(puts_value(5))]).bytes().to_vec();
    let compact = b"\x81\xa5Value\x92\xa1k\x05";
    let start = bytes.len() - compact.len();
    assert_eq!(&bytes[start..], compact);
    for other in
        [&b"\x81\xa5Value\x92\xa1k\xcc\x05"[..], b"\x81\xa5Value\x82\xa3key\xa1k\xa5value\x05", b"\x81\xa5Other\xc0"]
    {
        let other = Payload::new([&bytes[..start], other].concat());
        let refused = other.check::<Put>();
        assert!(refused.is_err());
        assert_eq!(other.contents::<Put>(1).map(|_| ()), refused);
    }
    for end in 0..compact.len() {
        assert!(Payload::new(bytes[..start + end].to_vec()).check::<Put>().is_err());
    }
}

fn puts_value(value: u64) -> Put {
    Put::Value { key: "k".into(), value }
}
