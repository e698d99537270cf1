//! Scopes of principals: which accounts they have, said once more in other words, and the commands that put them.

use rabia_bank_messages::bank::is_valid_account_id;
use rabia_bank_messages::msgpack;
use rabia_bank_messages::principal::{Admin, MAX_SCOPES, Scope, Scopes};

/// Whether a scope with this text has this account, by its letters.
fn has(scope: &str, account: &str) -> bool {
    let (mut scoped, mut named) = (scope.chars(), account.chars());
    if scope == "*" {
        return true;
    }
    loop {
        match (scoped.next(), named.next()) {
            (None, None) => return true,
            (None, Some(_)) => return scope.ends_with(':'),
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// A scope has what its text says; a command with scopes says the same in both encodings, and has no more than may be.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (scope, account) = text.split_once('\n').unwrap_or((&text, ""));
    match scope.parse::<Scope>() {
        Ok(parsed) => {
            assert!(scope == "*" || is_valid_account_id(scope), "{scope:?}");
            assert_eq!(parsed.has(account), has(scope, account), "{scope:?} {account:?}");
            assert!(parsed.has(scope), "{scope:?} has its own text");
        }
        Err(_) => assert!(scope != "*" && !is_valid_account_id(scope), "{scope:?}"),
    }
    let json: Result<Admin, _> = serde_json::from_slice(input);
    for admin in json.ok().into_iter().chain(msgpack::decode(input).ok()) {
        if let Admin::PutPrincipal(put) = &admin {
            let Scopes { read, debit, credit } = &put.scopes;
            assert!([read, debit, credit].iter().all(|scopes| scopes.len() <= MAX_SCOPES));
        }
        let again: Option<Admin> = msgpack::decode(&msgpack::encode_named(&admin)).ok();
        assert_eq!(again, Some(admin));
    }
}

/// Pairs of a scope and an account at its border, and commands.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "shop:\nshop:till",
        "shop:\nshop",
        "shop\nshop:",
        "shop\nshop",
        "*\nany",
        ":\n:a",
        r#"{"put_principal":{"principal":"shop","roles":["teller","reader"],"scopes":{"read":["shop:"],"debit":["shop:till"],"credit":["*"]},"limits":{"per_day":100}}}"#,
        r#"{"remove_principal":{"principal":"shop"}}"#,
    ];
    let commands = texts.iter().filter_map(|text| serde_json::from_str::<Admin>(text).ok());
    let packed: Vec<Vec<u8>> = commands.map(|admin| msgpack::encode_named(&admin)).collect();
    assert_eq!(packed.len(), 2);
    texts.iter().map(|text| text.as_bytes().to_vec()).chain(packed).collect()
}
