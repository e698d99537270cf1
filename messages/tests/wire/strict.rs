//! What is refused in a client's message, and what is not.

use rabia_bank_messages::bank::{Amount, Command, Operation, Query, ReadLevel};
use rabia_bank_messages::client::{ClientMessage, MAX_REQUEST};
use rabia_bank_messages::codec::{Encoding, Malformed};
use rabia_bank_messages::msgpack::MAX_DEPTH;
use serde_json::{Value, json};

/// JSON in both encodings: what one refuses, the other must.
fn both(message: &Value) -> [(Encoding, Vec<u8>); 2] {
    [
        (Encoding::Json, serde_json::to_vec(message).unwrap()),
        (Encoding::MessagePack, rmp_serde::to_vec_named(message).unwrap()),
    ]
}

#[track_caller]
fn accepted(message: Value) -> ClientMessage {
    let [json, packed] = both(&message).map(|(encoding, bytes)| encoding.decode_client(&bytes));
    assert_eq!(json, packed, "{message}");
    json.unwrap_or_else(|e| panic!("{message}: {e}"))
}

#[track_caller]
fn refused(message: Value) {
    for (encoding, bytes) in both(&message) {
        let decoded = encoding.decode_client(&bytes);
        let Err(Malformed { request, .. }) = decoded else { panic!("{encoding:?} took {message} as {decoded:?}") };
        assert_eq!(request, message["request"].as_u64(), "{encoding:?}: {message}");
    }
}

fn deposit(amount: Value) -> Value {
    json!({"request": 7, "command": {"deposit": {"account_id": "alice", "amount": amount}}})
}

fn amount_of(message: ClientMessage) -> Amount {
    match message {
        ClientMessage::Command { command: Command::One(Operation::Deposit { amount, .. }), .. } => amount,
        other => panic!("{other:?}"),
    }
}

/// A map with one entry in MessagePack.
fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x81, 0xa0 | key.len() as u8];
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(value);
    bytes
}

/// `{"request": 7, …}` with an entry in place of the dots.
fn with_request(key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x82\xa7request\x07".to_vec();
    bytes.extend_from_slice(&entry(key, value)[1..]);
    bytes
}

#[test]
fn sixteen_containers_nest_and_seventeen_do_not() {
    // In a field of a hello that is ignored, as in any other; arrays, maps, and both in turn.
    let shells: [(&str, &str); 2] = [("[", "]"), ("{\"a\":", "}")];
    for pick in [[0, 0], [1, 1], [0, 1], [1, 0]] {
        for (inner, fits) in [(MAX_DEPTH - 2, true), (MAX_DEPTH - 1, false), (MAX_DEPTH, false), (100_000, false)] {
            let shell = |level: usize| shells[pick[level % 2]];
            let opening: String = (0..inner).map(|level| shell(level).0).collect();
            let closing: String = (0..inner).rev().map(|level| shell(level).1).collect();
            let text = format!("{{\"hello\":{{\"version\":1,\"more\":{opening}0{closing}}}}}");
            let decoded = Encoding::Json.decode_client(text.as_bytes());
            assert_eq!(decoded.is_ok(), fits, "{inner} in JSON: {decoded:?}");

            let mut packed = b"\x81\xa5hello\x82\xa7version\x01\xa4more".to_vec();
            for level in 0..inner {
                packed.extend_from_slice(if pick[level % 2] == 0 { b"\x91" } else { b"\x81\xa1a" });
            }
            packed.push(0);
            let decoded = Encoding::MessagePack.decode_client(&packed);
            assert_eq!(decoded.is_ok(), fits, "{inner} in MessagePack: {decoded:?}");
        }
    }
}

#[test]
fn brackets_in_texts_do_not_nest() {
    let name = "[{\\\"".repeat(50);
    let text = format!("{{\"request\":1,\"command\":{{\"deposit\":{{\"account_id\":\"{name}\",\"amount\":1}}}}}}");
    assert!(Encoding::Json.decode_client(text.as_bytes()).is_ok());
    // Many side by side are not deep either.
    assert!(
        Encoding::Json
            .decode_client(format!("{{\"hello\":{{\"version\":1,\"a\":[{}]}}}}", "[],".repeat(99) + "[]").as_bytes())
            .is_ok()
    );
}

#[test]
fn nothing_may_follow_a_message() {
    let goodbye = json!({"goodbye": {}});
    for (encoding, bytes) in both(&goodbye) {
        for more in [&b"\0"[..], b"{}", b"x", &bytes[..]] {
            assert!(encoding.decode_client(&[&bytes[..], more].concat()).is_err(), "{encoding:?} {more:?}");
        }
    }
    assert!(Encoding::Json.decode_client(b" {\"goodbye\": {}} \r\n\t").is_ok(), "white space is JSON's own");
}

#[test]
fn a_message_is_of_one_kind() {
    let transfer = json!({"from_account": "a", "to_account": "b", "amount": 1});
    let one = json!({"account_id": "a", "amount": 1});
    for message in [
        json!({}),
        json!({"request": 7}),
        json!({"request": 7, "command": {}}),
        json!({"request": 7, "command": {"transfer": transfer, "deposit": one}}),
        json!({"request": 7, "command": {"deposit": one}, "query": {"get_status": {}}}),
        json!({"request": 7, "command": {"deposit": one}, "goodbye": {}}),
        json!({"hello": {"version": 2}, "goodbye": {}}),
        json!({"request": 7, "command": {"deposit": one}, "read": "local"}),
        json!({"request": 7, "command": {"steal": one}}),
        json!({"request": 7, "command": "deposit"}),
        json!({"request": 7, "command": ["deposit", one]}),
        json!({"request": 7, "query": "get_status"}),
        json!({"request": 7, "query": {"get_status": null}}),
        json!({"request": 7, "query": {}}),
        json!({"subscribe": {}}),
        json!({"request": 7, "subscribe": {}, "unsubscribe": 6}),
        json!({"request": 7, "subscribe": {"filter": "all"}}),
        json!({"request": 7, "subscribe": {}, "query": {"get_status": {}}}),
        json!({"hello": {}}),
        json!({"hello": {"version": 2, "session": {"number": 1}}}),
        json!({"hello": {"version": 2, "open": {"key": "short"}}}),
        json!({"hello": {"version": 2, "open": {"key": "zz".repeat(16)}}}),
        json!({"hello": {"version": 2, "open": {"key": "00".repeat(16)},
            "session": {"number": 1, "key": "00".repeat(16)}}}),
        json!([]),
        json!(7),
        json!(null),
    ] {
        refused(message);
    }
}

#[test]
fn request_numbers_are_from_one_to_the_largest_exact_number() {
    let query = |request: Value| json!({"request": request, "query": {"get_status": {}}});
    accepted(query(json!(1)));
    accepted(query(json!(MAX_REQUEST)));
    for number in [json!(0), json!(MAX_REQUEST + 1), json!(u64::MAX)] {
        refused(query(number));
    }
    for no_number in [json!("7"), json!(null), json!(-1), json!(1.5), json!([7]), json!({"a": 7}), json!(true)] {
        refused(query(no_number));
    }
    refused(json!({"query": {"get_status": {}}}));
}

#[test]
fn unknown_fields_are_refused_everywhere_but_in_a_hello() {
    let fields = [
        ("command", "create_account", json!({"account_id": "a", "initial_balance": 0})),
        ("command", "deposit", json!({"account_id": "a", "amount": 1})),
        ("command", "withdraw", json!({"account_id": "a", "amount": 1})),
        ("command", "transfer", json!({"from_account": "a", "to_account": "b", "amount": 1})),
        ("command", "bulk", json!({"commands": [], "atomic": true})),
        ("query", "get_account", json!({"account_id": "a"})),
        ("query", "get_balance", json!({"account_id": "a"})),
        ("query", "list_accounts", json!({})),
        ("query", "get_transaction_history", json!({})),
        ("query", "get_transaction", json!({"transaction_id": 1})),
        ("query", "get_statistics", json!({})),
        ("query", "get_status", json!({})),
    ];
    for (kind, name, body) in fields {
        let message = |body: &Value| json!({"request": 7, kind: {name: body}});
        accepted(message(&body));
        let mut more = body.clone();
        more["more"] = json!(1);
        refused(message(&more));
        // Each field is there because it is needed.
        if let Some((first, _)) = body.as_object().and_then(|fields| fields.iter().next()) {
            let mut less = body.clone();
            less.as_object_mut().unwrap().remove(first);
            refused(message(&less));
        }
        let mut outside = message(&body);
        outside["more"] = json!({"commands": [1, 2, 3]});
        refused(outside);
    }
    let bulk = |commands: Value| json!({"request": 7, "command": {"bulk": {"commands": commands, "atomic": false}}});
    accepted(bulk(json!([{"deposit": {"account_id": "a", "amount": 1}}])));
    refused(bulk(json!([{"deposit": {"account_id": "a", "amount": 1, "more": 1}}])));
    refused(bulk(json!([{"deposit": {"account_id": "a", "amount": 1}, "more": {}}])));
    let key = "0".repeat(32);
    accepted(json!({"hello": {"version": 2, "more": 1, "session": {"number": 3, "key": key, "more": 1}}}));
    accepted(json!({"hello": {"version": 2, "open": {"key": key, "more": [1]}}}));
    for message in [
        json!({"hello": {"version": 2}, "more": null}),
        json!({"goodbye": {"more": 1}}),
        json!({"goodbye": {}, "more": 1}),
        json!({"unsubscribe": 6, "more": 1}),
        json!({"request": 7, "subscribe": {}, "more": 1}),
    ] {
        refused(message);
    }
}

#[test]
fn a_bulk_says_whether_it_is_atomic_and_holds_no_bulk() {
    let bulk = |body: Value| json!({"request": 7, "command": {"bulk": body}});
    accepted(bulk(json!({"commands": [], "atomic": true})));
    refused(bulk(json!({"commands": []})));
    refused(bulk(json!({"commands": [], "atomic": null})));
    refused(bulk(json!({"commands": [], "atomic": 1})));
    refused(bulk(json!({"commands": [], "atomic": true, "atomics": true})));
    refused(bulk(json!({"commands": [{"bulk": {"commands": [], "atomic": true}}], "atomic": true})));
    refused(bulk(json!({"commands": {}, "atomic": true})));
}

#[test]
fn a_field_is_said_once() {
    for text in [
        r#"{"request":1,"request":1,"query":{"get_status":{}}}"#,
        r#"{"request":1,"query":{"get_status":{}},"query":{"get_status":{}}}"#,
        r#"{"request":1,"command":{"deposit":{"account_id":"a","amount":1,"amount":2}}}"#,
        r#"{"request":1,"command":{"deposit":{"account_id":"a","amount":1},"deposit":{"account_id":"a","amount":1}}}"#,
        r#"{"request":1,"command":{"bulk":{"commands":[],"atomic":true,"atomic":false}}}"#,
        r#"{"request":1,"query":{"get_transaction_history":{"limit":1,"limit":2}}}"#,
        r#"{"hello":{"version":2,"version":2}}"#,
    ] {
        assert!(Encoding::Json.decode_client(text.as_bytes()).is_err(), "{text}");
    }
    let twice = b"\x82\xaaaccount_id\xa1a\xaaaccount_id\xa1b";
    assert!(Encoding::MessagePack.decode_client(&with_request("query", &entry("get_account", twice))).is_err());
}

#[test]
fn any_number_is_an_amount_and_nothing_else_is() {
    let amount = |value| amount_of(accepted(deposit(value)));
    for (value, number) in
        [(json!(0), 0), (json!(5), 5), (json!(5.0), 5), (json!(-0.0), 0), (json!(1e15), 10u64.pow(15))]
    {
        assert_eq!(amount(value), Amount::new(number));
    }
    for number in [1 << 53, u64::MAX] {
        assert_eq!(amount(json!(number)), Amount::new(number), "above every limit, so the ledger refuses it");
    }
    for value in [json!(-1), json!(i64::MIN), json!(1.5), json!(-0.5), json!(1e30), json!((1u64 << 53) as f64)] {
        assert_eq!(amount(value), Amount::INVALID);
    }
    for value in [json!("5"), json!(""), json!(null), json!(true), json!([5]), json!({"a": 5})] {
        refused(deposit(value));
    }
    // 2^64 is an integer in JSON's grammar, and a number of JSON is its text, whatever floats hold.
    let text = |amount| format!(r#"{{"request":7,"command":{{"deposit":{{"account_id":"a","amount":{amount}}}}}}}"#);
    let decoded = Encoding::Json.decode_client(text("18446744073709551616").as_bytes()).unwrap();
    assert_eq!(amount_of(decoded), Amount::INVALID);
    for number in ["1e400", "0.99999999999999999", "1000000000.0000000001", "1e-400", "5e-1"] {
        let decoded = Encoding::Json.decode_client(text(number).as_bytes()).unwrap();
        assert_eq!(amount_of(decoded), Amount::INVALID, "{number}");
    }
    for (number, amount) in [("50e-1", 5), ("0.5e1", 5), ("5.000", 5)] {
        let decoded = Encoding::Json.decode_client(text(number).as_bytes()).unwrap();
        assert_eq!(amount_of(decoded), Amount::new(amount), "{number}");
    }
    for number in ["NaN", "5.", "05.0", "5e", ".5", "+5.0"] {
        assert!(Encoding::Json.decode_client(text(number).as_bytes()).is_err(), "{number}");
    }
    // The same holds for all numbers, and one that is none names no request.
    let query = |request| format!(r#"{{"request":{request},"query":{{"get_status":{{}}}}}}"#);
    assert!(Encoding::Json.decode_client(query("7.0").as_bytes()).is_ok());
    assert_eq!(Encoding::Json.decode_client(query("0.99999999999999999").as_bytes()).unwrap_err().request, None);
}

#[test]
fn floats_of_messagepack_are_numbers() {
    let packed = |amount: &[u8]| {
        let fields = [&b"\x82\xaaaccount_id\xa1a\xa6amount"[..], amount].concat();
        let message = with_request("command", &entry("deposit", &fields));
        amount_of(Encoding::MessagePack.decode_client(&message).unwrap())
    };
    let double = |number: f64| [&[0xcb][..], &number.to_be_bytes()].concat();
    let single = |number: f32| [&[0xca][..], &number.to_be_bytes()].concat();
    assert_eq!(packed(&double(300.0)), Amount::new(300));
    assert_eq!(packed(&single(300.0)), Amount::new(300));
    assert_eq!(packed(&double(((1u64 << 53) - 1) as f64)), Amount::new((1 << 53) - 1));
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.1, 1e300, f64::MIN_POSITIVE] {
        assert_eq!(packed(&double(number)), Amount::INVALID, "{number}");
    }
    assert_eq!(packed(&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Amount::INVALID);
    assert_eq!(packed(&[0xff]), Amount::INVALID, "minus one");
}

#[test]
fn whole_floats_are_taken_wherever_a_number_is() {
    let key = "0".repeat(32);
    accepted(json!({"hello": {"version": 2.0, "session": {"number": 3.0, "key": key}}}));
    let history = json!({"from_time": 1.76e12, "to_time": 1.77e12, "before": 9.0, "limit": 10.0});
    let message =
        accepted(json!({"request": 8.0, "query": {"get_transaction_history": history}, "read": {"at_least": 901.0}}));
    let ClientMessage::Query { request: 8, query: Query::GetTransactionHistory(filter), read } = message else {
        panic!("{message:?}")
    };
    assert_eq!(read, ReadLevel::AtLeast(901));
    assert_eq!((filter.from_time, filter.limit), (Some(1_760_000_000_000), Some(10)));
    for query in [
        json!({"get_transaction": {"transaction_id": 1.5}}),
        json!({"get_transaction": {"transaction_id": -1}}),
        json!({"list_accounts": {"limit": 4_294_967_296u64}}),
        json!({"get_statistics": {"large_amount": 1e300}}),
    ] {
        refused(json!({"request": 8, "query": query}));
    }
}

#[test]
fn null_is_an_absent_field() {
    let with =
        accepted(json!({"request": 8, "query": {"list_accounts": {"after": null, "limit": null}}, "read": null}));
    assert_eq!(with, accepted(json!({"request": 8, "query": {"list_accounts": {}}})));
}

#[test]
fn fields_and_kinds_go_by_their_names() {
    let status = entry("get_status", b"\x80");
    assert!(Encoding::MessagePack.decode_client(&with_request("query", &status)).is_ok());
    // A number in place of a name: of a field, of a command, of a query.
    assert!(Encoding::MessagePack.decode_client(&[&b"\x82\x01\x07\xa5query"[..], &status].concat()).is_err());
    assert!(Encoding::MessagePack.decode_client(&with_request("query", b"\x81\x06\x80")).is_err());
    assert!(Encoding::MessagePack.decode_client(&with_request("query", b"\x06")).is_err());
    assert!(Encoding::MessagePack.decode_client(&with_request("command", b"\x81\x00\x92\xa1a\x05")).is_err());
    // Keys of ignored maps are text too.
    assert!(Encoding::MessagePack.decode_client(b"\x82\xa7goodbye\x80\xa1x\x81\xc0\xc0").is_err());
}

/// serde takes an array with a map's values in order for the map. The page tells clients not to rely on it; what
/// matters is that nothing is lost or left over that way.
#[test]
fn an_array_in_place_of_a_map_has_every_value() {
    let transfer = |fields: Value| json!({"request": 7, "command": {"transfer": fields}});
    let named = accepted(transfer(json!({"from_account": "a", "to_account": "b", "amount": 1})));
    assert_eq!(accepted(transfer(json!(["a", "b", 1]))), named);
    refused(transfer(json!(["a", "b"])));
    refused(transfer(json!(["a", "b", 1, 1])));
    refused(transfer(json!([1, "a", "b"])));
    refused(json!({"request": 7, "command": {"bulk": [[]]}}));
}

#[test]
fn lengths_that_are_not_there_cost_nothing() {
    for marker in [0xdd, 0xdf, 0xdb, 0xc6, 0xc9] {
        let huge = [marker, 0xff, 0xff, 0xff, 0xff];
        let commands = [&b"\x82\xa8commands"[..], &huge].concat();
        for message in [huge.to_vec(), entry("more", &huge), with_request("command", &entry("bulk", &commands))] {
            let error = Encoding::MessagePack.decode_client(&message).unwrap_err();
            assert_eq!(error.message, "it ends too early");
        }
    }
    assert!(Encoding::MessagePack.decode_client(&[0xc1]).is_err(), "the byte that MessagePack does not use");
}

#[test]
fn errors_are_short() {
    let message = json!({"request": 7, "command": {"é".repeat(100_000): {}}});
    for (encoding, bytes) in both(&message) {
        let error = encoding.decode_client(&bytes).unwrap_err();
        assert!(error.message.chars().count() <= 200, "{} characters", error.message.chars().count());
        assert_eq!(error.request, Some(7));
    }
}

#[test]
fn text_is_utf8() {
    let message = b"{\"request\":7,\"query\":{\"get_account\":{\"account_id\":\"\xff\"}}}";
    assert!(Encoding::Json.decode_client(message).is_err());
    let body = b"\x81\xaaaccount_id\xa1\xff";
    assert!(Encoding::MessagePack.decode_client(&with_request("query", &entry("get_account", body))).is_err());
}

/// The walk over MessagePack agrees with the decoder about where values end, for any value at all.
#[test]
fn extensions_and_all_widths_are_skipped() {
    let mut values: Vec<Vec<u8>> =
        vec![vec![0xd4, 1, 0], vec![0xd5, 1, 0, 0], vec![0xc7, 1, 9, 9], vec![0xc8, 0, 1, 9, 9]];
    values.push([&[0xc9, 0, 0, 0, 1, 9][..], &[9]].concat());
    for (marker, length) in [(0xd6u8, 4usize), (0xd7, 8), (0xd8, 16)] {
        values.push([vec![marker, 1], vec![0; length]].concat());
    }
    for (marker, width) in
        [(0xccu8, 1usize), (0xcd, 2), (0xce, 4), (0xcf, 8), (0xd0, 1), (0xd1, 2), (0xd2, 4), (0xd3, 8)]
    {
        values.push([vec![marker], vec![0x7f; width]].concat());
    }
    values.extend([vec![0xca, 0, 0, 0, 0], vec![0xc4, 2, 1, 1], vec![0xc5, 0, 2, 1, 1], vec![0xc6, 0, 0, 0, 1, 1]]);
    values.extend([vec![0xd9, 1, b'a'], vec![0xda, 0, 1, b'a'], vec![0xdb, 0, 0, 0, 1, b'a']]);
    values.extend([vec![0xdc, 0, 1, 0], vec![0xdd, 0, 0, 0, 1, 0], vec![0xde, 0, 1, 0xa1, b'a', 0]]);
    values.extend([vec![0xdf, 0, 0, 0, 1, 0xa1, b'a', 0], vec![0xc0], vec![0xc2], vec![0xc3], vec![0xe0]]);
    for value in values {
        let message = [&b"\x81\xa5hello\x82\xa7version\x01\xa4more"[..], &value].concat();
        let decoded = Encoding::MessagePack.decode_client(&message);
        assert!(decoded.is_ok(), "{value:x?}: {decoded:?}");
        // As a request number it is refused, with the number where it is one.
        let message = [&b"\x81\xa7request"[..], &value].concat();
        assert!(Encoding::MessagePack.decode_client(&message).is_err());
    }
}
