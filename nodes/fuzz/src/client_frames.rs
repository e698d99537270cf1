//! Messages of clients and to clients.

use rabia_bank_messages::codec::Encoding;

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

/// What is taken says the same in both encodings, and is encoded in one way.
pub fn check(input: &[u8]) {
    for encoding in ENCODINGS {
        match encoding.decode_client(input) {
            Ok(message) => {
                for other in ENCODINGS {
                    let again = other.encode(&message);
                    let decoded = other.decode_client(&again);
                    assert_eq!(decoded.as_ref(), Ok(&message), "{other:?}");
                    assert_eq!(other.encode(&message), again);
                }
            }
            Err(error) => assert!(error.message.chars().count() <= 200, "{error:?}"),
        }
        match encoding.decode_server(input) {
            Ok(message) => {
                for other in ENCODINGS {
                    assert_eq!(other.decode_server(&other.encode(&message)).as_ref(), Ok(&message), "{other:?}");
                }
            }
            Err(error) => assert!(error.message.chars().count() <= 200, "{error:?}"),
        }
    }
}

/// A message of each kind, in both encodings.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"hello":{"version":2,"open":{"key":"00112233445566778899aabbccddeeff"}}}"#,
        r#"{"hello":{"version":2,"session":{"number":3,"key":"00112233445566778899aabbccddeeff"}}}"#,
        r#"{"request":1,"command":{"create_account":{"account_id":"alice","initial_balance":100}}}"#,
        r#"{"request":2,"command":{"transfer":{"from_account":"alice","to_account":"bob","amount":5.0}},"acknowledged":1}"#,
        r#"{"request":3,"command":{"bulk":{"commands":[{"deposit":{"account_id":"a","amount":1}},{"withdraw":{"account_id":"a","amount":1}}],"atomic":true}}}"#,
        r#"{"request":4,"query":{"get_transaction_history":{"account_id":"a","type":"transfer","from_time":1,"to_time":2,"before":3,"limit":4}},"read":{"at_least":9}}"#,
        r#"{"request":5,"query":{"get_statistics":{"large_amount":7}},"read":"local"}"#,
        r#"{"request":6,"query":{"list_accounts":{"after":"a","limit":2}}}"#,
        r#"{"request":7,"subscribe":{"account_id":"a","min_amount":3,"from":1}}"#,
        r#"{"unsubscribe":7}"#,
        r#"{"goodbye":{}}"#,
    ];
    let messages = texts.map(|text| Encoding::Json.decode_client(text.as_bytes()));
    let packed = messages.iter().flatten().map(|message| Encoding::MessagePack.encode(message));
    let packed = packed.collect::<Vec<_>>();
    assert_eq!(packed.len(), texts.len(), "all seeds are messages: {messages:?}");
    texts.iter().map(|text| text.as_bytes().to_vec()).chain(packed).collect()
}
