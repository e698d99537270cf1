//! Commands: each is known by one name alone, in a bulk and in a batch, and stands in a batch in one encoding.

use rabia_bank_messages::bank::{
    AccountStatus, Amount, Bound, Bulk, Command, CreateAccount, CreateAsset, Operation, OperationKind, SetAccount,
};
use rabia_bank_messages::batch::{Action, BatchBuilder, Batched, Payload, RequestHeader};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::{NodeId, SessionKey};
use serde::{Deserialize, Serialize};

fn operation(kind: OperationKind) -> Operation {
    let (account_id, amount) = (|| "a".into(), Amount::new(300));
    let (code, name) = (|| Some("customer".into()), || Some("Ann B.".into()));
    match kind {
        OperationKind::SetAccount => Operation::SetAccount(Box::new(SetAccount {
            account_id: account_id(),
            min_balance: Some(Bound::At(-33)),
            max_balance: Some(Bound::None),
            status: Some(AccountStatus::NoDebits),
            code: code(),
            name: name(),
        })),
        OperationKind::CreateAsset => Operation::CreateAsset(CreateAsset { asset: "EUR".into(), scale: 2, limit: 7 }),
        OperationKind::CreateAccount => Operation::create_account(account_id(), amount),
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
            let action = Action::Command(command);
            assert_eq!(actions(&payload([action.clone()])), [action]);
        }
    }
}

/// What is not said takes no room in a batch, and each number has one encoding.
#[test]
fn settings_of_an_account_stand_in_a_batch_as_they_were_said() {
    let bounds = [0, 1, 127, 128, 1 << 40, -1, -32, -33, -128, -129, -(1 << 15), -(1 << 15) - 1, -(1 << 40), i64::MIN];
    let bounds = bounds.map(Bound::At).into_iter().chain([Bound::None]).map(Some).chain([None]);
    for (number, min_balance) in (0..).zip(bounds) {
        let said = |bit: u32| number & bit == bit;
        let create = CreateAccount {
            asset: said(1).then(|| "EUR".into()),
            min_balance,
            max_balance: said(2).then_some(Bound::At(5)),
            code: said(4).then(|| "c".into()),
            name: said(8).then(|| "".into()),
            ..CreateAccount::new("a", Amount::new(3))
        };
        let change =
            SetAccount { min_balance, status: said(1).then_some(AccountStatus::Closed), ..SetAccount::new("a") };
        for operation in [Operation::CreateAccount(Box::new(create)), Operation::SetAccount(Box::new(change))] {
            let command = Command::One(operation);
            let mut bytes = Vec::new();
            command.write(&mut bytes);
            let mut rest = &bytes[..];
            assert_eq!(Command::skip(&mut rest), Ok(1));
            assert!(rest.is_empty(), "{rest:?}");
            assert_eq!(Command::read(&mut &bytes[..]), Ok(command));
        }
    }
    let usual = Command::One(Operation::create_account("a", Amount::new(3)));
    let (mut bytes, mut more) = (Vec::new(), b"\x81\xaecreate_account\x93\xa1a\x03".to_vec());
    usual.write(&mut bytes);
    assert_eq!(bytes, b"\x81\xaecreate_account\x92\xa1a\x03");
    // Nothing said in more words, a status, another order, a number that is not in its shortest form, and one setting twice.
    for settings in
        [&b"\x80"[..], b"\x81\x04\xa4open", b"\x82\x05\xa1c\x02\x01", b"\x81\x02\xd0\xff", b"\x82\x05\xa1c\x05\xa1c"]
    {
        let length = more.len();
        more.extend_from_slice(settings);
        assert!(Command::read(&mut &more[..]).is_err(), "{settings:?}");
        more.truncate(length);
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
