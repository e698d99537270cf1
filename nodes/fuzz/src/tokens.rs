//! Texts that are shown for tokens, and the commands that put and revoke them.

use rabia_bank_messages::principal::{Admin, PutToken};
use rabia_bank_messages::token::Token;
use rabia_bank_messages::{codec::Encoding, msgpack};

/// A text is the token that it was hashed as, and no other; a command says the same in both encodings.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (first, second) = text.split_once('\n').unwrap_or((&text, ""));
    let (one, other) = (Token::from(first), Token::from(second));
    assert_eq!(one.matches(&other.hash()), first == second, "{first:?} {second:?}");
    assert!(one.matches(&one.hash()));
    assert_eq!(format!("{one:?}"), "Token(…)");
    if let Some(id) = one.id() {
        let digits = first.get(3..19).unwrap_or_default();
        assert_eq!(id.to_string(), digits.to_ascii_lowercase(), "{first:?}");
    }
    let json: Result<Admin, _> = serde_json::from_slice(input);
    let packed: Option<Admin> = msgpack::decode(input).ok();
    for admin in json.ok().into_iter().chain(packed) {
        let again: Option<Admin> = msgpack::decode(&msgpack::encode_named(&admin)).ok();
        assert_eq!(again.as_ref(), Some(&admin));
        if let Admin::PutToken(PutToken { token_id, .. }) = admin {
            assert_eq!(token_id.to_string().len(), 16);
        }
    }
    // As part of a client's message, too.
    let _ = Encoding::Json.decode_client(input);
}

/// Tokens, halves of them, and commands.
pub fn seeds() -> Vec<Vec<u8>> {
    let token = "rb_0123456789abcdefAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    let texts = [
        token.to_owned(),
        format!("{token}\n{token}"),
        format!("{token}\n{}", &token[..61]),
        "rb_0123456789ABCDEF".to_owned(),
        format!(
            r#"{{"put_token":{{"principal":"shop","token_id":"0123456789abcdef","token_hash":"{}","expires_at":1900000000000}}}}"#,
            "5a".repeat(32)
        ),
        format!(
            r#"{{"put_token":{{"principal":"shop","certificate":"{}","expires_at":1900000000000}}}}"#,
            "5a".repeat(32)
        ),
        r#"{"revoke_token":{"token_id":"0123456789abcdef"}}"#.to_owned(),
        r#"{"raise_level":{"level":2}}"#.to_owned(),
    ];
    let commands = texts.iter().filter_map(|text| serde_json::from_str::<Admin>(text).ok());
    let packed: Vec<Vec<u8>> = commands.map(|admin| msgpack::encode_named(&admin)).collect();
    assert_eq!(packed.len(), 4);
    texts.iter().map(|text| text.as_bytes().to_vec()).chain(packed).collect()
}
