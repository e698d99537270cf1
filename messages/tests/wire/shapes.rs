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
