//! The shapes on the wire, in places where the code does not spell them out.

use rabia_bank_messages::bank::*;
use rabia_bank_messages::client::{Answer, AnswerResult, ClientMessage, ServerMessage, SessionName};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::SessionKey;
use serde_json::{Value, json};

/// What a message looks like, checked to be the same in both encodings.
fn shape(message: &impl serde::Serialize) -> Value {
    let json: Value = serde_json::from_slice(&Encoding::Json.encode(message)).unwrap();
    let packed: Value = rmp_serde::from_slice(&Encoding::MessagePack.encode(message)).unwrap();
    assert_eq!(json, packed);
    json
}

#[test]
fn names_are_the_ones_on_the_wire() {
    for code in ErrorCode::ALL {
        assert_eq!(shape(&code), json!(code.name()));
    }
    let mut all = ErrorCode::ALL.to_vec();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), ErrorCode::ALL.len());
    for kind in TransactionType::ALL {
        assert_eq!(shape(&kind), json!(kind.name()));
        assert_eq!(shape(&TypeName::from(kind)), json!(kind.name()));
    }
    assert_eq!(shape(&ReadLevel::AtLeast(901)), json!({"at_least": 901}));
    assert_eq!(shape(&ReadLevel::Local), json!("local"));
}

#[test]
fn an_answer_is_one_map() {
    let refusal = Refusal { index: Some(3), ..Refusal::refused(ErrorCode::InsufficientFunds, "too little") };
    let answer = Answer {
        request: 7,
        slot: Some(901),
        index: Some(2),
        session: Some(SessionName { number: 812, key: SessionKey([0xab; 16]) }),
        result: AnswerResult::Error(refusal),
        replayed: Some(true),
    };
    let expected = json!({
        "request": 7, "slot": 901, "index": 2, "session": {"number": 812, "key": "ab".repeat(16)}, "replayed": true,
        "error": {"code": "insufficient_funds", "message": "too little", "outcome": "refused", "index": 3},
    });
    assert_eq!(shape(&ServerMessage::Answer(Box::new(answer))), expected);
    let answer = Answer {
        request: 8,
        slot: None,
        index: None,
        session: None,
        result: AnswerResult::Ok(Success::Balance { balance: 700 }),
        replayed: None,
    };
    assert_eq!(shape(&ServerMessage::Answer(Box::new(answer))), json!({"request": 8, "ok": {"balance": 700}}));
}

#[test]
fn an_hour_is_one_map() {
    let hour = HourVolume { hour: 3_600_000, total: Volume { count: 2, volume: 30 } };
    assert_eq!(shape(&hour), json!({"hour": 3_600_000, "count": 2, "volume": 30}));
}

#[test]
fn a_status_query_is_a_map() {
    let message = ClientMessage::Query { request: 8, query: Query::GetStatus {}, read: ReadLevel::Local };
    assert_eq!(shape(&message), json!({"request": 8, "query": {"get_status": {}}, "read": "local"}));
    assert_eq!(shape(&ClientMessage::Goodbye), json!({"goodbye": {}}));
}

/// A message of a node of a later version, which must come out as it went in, in both encodings.
fn kept(message: &Value) -> ServerMessage {
    let (json, packed) = (serde_json::to_vec(message).unwrap(), rmp_serde::to_vec_named(message).unwrap());
    let read = Encoding::Json.decode_server(&json).unwrap_or_else(|e| panic!("{message}: {e}"));
    assert_eq!(Encoding::MessagePack.decode_server(&packed), Ok(read.clone()));
    assert_eq!(shape(&read), *message);
    read
}

#[test]
fn words_and_fields_of_the_future_are_kept() {
    let account = json!({"account_id": "a", "asset": "XXX", "balance": 5, "min_balance": 0, "max_balance": "none",
        "status": "open", "created_at": 1, "transaction_count": 0, "version": 0, "held": -3, "bounds": {"min": "none", "max": [1, null, true, 0.5]}});
    let hash = "ab".repeat(32);
    let transaction = json!({"transaction_id": 7, "type": "capture", "amount": 5, "timestamp": 1, "slot": 2,
        "hash": hash, "reference": "auth-9", "legs": [{"account_id": "a", "amount": -5}]});
    let error = json!({"code": "condition_failed", "message": "no", "outcome": "refused", "condition": 2});
    kept(&json!({"request": 1, "slot": 9, "ok": {"account": account, "transaction": transaction}}));
    kept(&json!({"request": 1, "slot": 9, "ok": {"accounts": [account], "next": "a"}}));
    kept(&json!({"subscription": 1, "transaction": transaction}));
    let results = json!([{"ok": {"transaction": transaction}}, {"error": error}]);
    kept(&json!({"request": 1, "slot": 9, "ok": {"results": results}}));
    let ServerMessage::Answer(answer) = kept(&json!({"request": 1, "slot": 9, "error": error})) else { panic!() };
    let AnswerResult::Error(refusal) = answer.result else { panic!() };
    assert_eq!((refusal.code.name(), refusal.outcome), ("condition_failed", Outcome::Refused));
    assert_eq!(refusal.other.get("condition"), Some(&json!(2)));
    let holds = json!({"holds": [{"hold_id": 77}], "next": 78.5});
    let ServerMessage::Answer(answer) = kept(&json!({"request": 1, "ok": {"holds": holds}})) else { panic!() };
    let AnswerResult::Ok(Success::Other(fields)) = answer.result else { panic!() };
    assert_eq!(fields.get("holds"), Some(&holds));
    // A record that moves nothing has no amount, and a result may say more than what came of it.
    let change = json!({"transaction_id": 8, "type": "note", "timestamp": 1, "slot": 2, "hash": hash});
    let text =
        json!({"request": 1, "ok": {"results": [{"ok": {"transaction": change}, "replayed": true}]}}).to_string();
    let ServerMessage::Answer(answer) = Encoding::Json.decode_server(text.as_bytes()).unwrap() else { panic!() };
    let AnswerResult::Ok(Success::Results { results }) = answer.result else { panic!() };
    let [ItemResult::Ok(Success::Transaction { transaction })] = &results[..] else { panic!("{results:?}") };
    assert_eq!((transaction.transaction_type.known(), transaction.amount), (None, 0));
    // What MessagePack has and JSON has not.
    let bytes = b"\x82\xa7request\x01\xa2ok\x81\xa3new\x92\xc4\x02\xab\xcd\xcb\x7f\xf8\0\0\0\0\0\0";
    let ServerMessage::Answer(answer) = Encoding::MessagePack.decode_server(bytes).unwrap() else { panic!() };
    let AnswerResult::Ok(Success::Other(fields)) = answer.result else { panic!() };
    let new = fields.get("new").unwrap();
    assert_eq!((&new[0], &new[1]), (&json!("abcd"), &Value::Null));
}

#[test]
fn nodes_of_the_future_are_understood() {
    // Fields may be added to what nodes say; clients of this version pass over them.
    let text = r#"{"request":8,"ok":{"balance":700,"currency":"EUR"},"slot":9,"trace":[1]}"#;
    let ServerMessage::Answer(answer) = Encoding::Json.decode_server(text.as_bytes()).unwrap() else { panic!() };
    assert_eq!(answer.result, AnswerResult::Ok(Success::Balance { balance: 700 }));
    for nonsense in [r#"{"request":8}"#, r#"{"ok":{"balance":1}}"#, r#"{"request":8,"ok":{}}"#, "{}", "[]", "7"] {
        assert!(Encoding::Json.decode_server(nonsense.as_bytes()).is_err(), "{nonsense}");
    }
}
