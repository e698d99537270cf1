//! Principals: who may do what. They and their tokens are state of the ledger, like accounts, and change by commands in the log.
//!
//! A principal has roles, which say what kinds of things it may do, scopes, which say with which accounts, and limits, which say how
//! much. Its number is given in the order of making and stays, also over a removal and another making under the same name: each
//! transaction names the number of who asked for it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bank::{MAX_ACCOUNT_ID, MAX_BALANCE, is_valid_account_id};
use crate::batched::Batched;
use crate::ids::{self, Digest, Millis, TokenId};
use crate::level;
use crate::named::named;
use crate::number;

/// The number of a principal, from 1. In a transaction 0 is the owner of a node's folder.
pub type PrincipalNumber = u32;

/// The administrator of a new cluster.
pub const ADMIN: PrincipalNumber = 1;
/// Who does the daily business in a new cluster.
pub const DAILY: PrincipalNumber = 2;
/// The program that a node lives in.
pub const HOST: PrincipalNumber = 3;

/// Stands in the place of a token's number where the program asks that the node lives in: it needs none.
pub const NO_TOKEN: u64 = 0;
/// The number of the first token. Those below stand for the owner of the folder of the node with that number, who may put a token for
/// an administrator, and nothing else.
pub const FIRST_TOKEN: u64 = 8;

/// The most that all principals take, in bytes as they are kept: it goes into every snapshot's first row.
pub const MAX_PRINCIPALS_BYTES: usize = 256 << 10;
/// The most tokens that are kept at a time, expired ones counted until one is put in their place.
pub const MAX_TOKENS: usize = 4_096;
/// The most scopes of one kind that a principal has: all are looked at for each command.
pub const MAX_SCOPES: usize = 32;
/// How long a token is in force where nobody says otherwise, in milliseconds: 90 days.
pub const DEFAULT_TOKEN_LIFE: Millis = 90 * 24 * 60 * 60 * 1_000;

/// What kind of things a principal may do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Queries and feeds, within its scopes.
    Reader,
    /// Moves money between accounts.
    Teller,
    /// Brings money in and takes it out.
    Minter,
    /// Opens accounts.
    Manager,
    /// Reads everything: accounts, principals, statistics.
    Auditor,
    /// Looks after nodes; no money.
    Operator,
    /// Puts principals and tokens; no money.
    Admin,
}

named!(Role {
    Reader = "reader",
    Teller = "teller",
    Minter = "minter",
    Manager = "manager",
    Auditor = "auditor",
    Operator = "operator",
    Admin = "admin",
});

/// A set of roles: on the wire a list of their names.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

impl Roles {
    /// All of them.
    pub fn all() -> Roles {
        Role::ALL.into_iter().collect()
    }

    /// Whether this one is among them.
    pub fn has(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// Whether one of these is among them.
    pub fn has_any(self, roles: impl IntoIterator<Item = Role>) -> bool {
        roles.into_iter().any(|role| self.has(role))
    }

    /// In a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Roles {
        Roles(roles.into_iter().fold(0, |set, role| set | 1 << role as u8))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for Roles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.iter().collect::<Vec<Role>>().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Roles, D::Error> {
        Ok(Vec::<Role>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// A text that is no name of a principal, or no scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a {what} is 1 to {MAX_ACCOUNT_ID} characters of A–Z a–z 0–9 _ - . :{or}")]
pub struct BadText {
    what: &'static str,
    or: &'static str,
}

/// Gives a checked text its conversions.
macro_rules! checked_text {
    ($type:ident, $what:literal, $or:literal, $check:expr) => {
        impl FromStr for $type {
            type Err = BadText;

            fn from_str(text: &str) -> Result<$type, BadText> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok($type(text.into())) } else { Err(BadText { what: $what, or: $or }) }
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadText;

            fn try_from(text: String) -> Result<$type, BadText> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(text: $type) -> String {
                text.0.into()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// The name of a principal: of the characters of an account's name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrincipalName(Box<str>);

checked_text!(PrincipalName, "name of a principal", "", is_valid_account_id);

/// Some accounts: one by its name, all whose names begin alike up to a `:`, or all.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(Box<str>);

checked_text!(Scope, "scope", ", a name or what names begin with up to a `:`; or *", |text| text == "*"
    || is_valid_account_id(text));

impl Scope {
    /// All accounts.
    pub fn all() -> Scope {
        Scope("*".into())
    }

    /// Whether it is all accounts.
    pub fn is_all(&self) -> bool {
        *self.0 == *"*"
    }

    /// Whether it has this account. `shop:` has `shop:till` and `shop:`, and not `shop`.
    pub fn has(&self, account: &str) -> bool {
        self.is_all() || if self.0.ends_with(':') { account.starts_with(&*self.0) } else { *self.0 == *account }
    }
}

/// With which accounts a principal may do what.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scopes {
    /// Which it may look at.
    #[serde(deserialize_with = "scopes")]
    pub read: Vec<Scope>,
    /// Which it may take money from.
    #[serde(deserialize_with = "scopes")]
    pub debit: Vec<Scope>,
    /// Which it may bring money to, and open.
    #[serde(deserialize_with = "scopes")]
    pub credit: Vec<Scope>,
}

fn scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Scope>, D::Error> {
    let scopes = Vec::<Scope>::deserialize(deserializer)?;
    if scopes.len() > MAX_SCOPES {
        return Err(serde::de::Error::custom(format_args!("{} scopes, {MAX_SCOPES} are the most", scopes.len())));
    }
    Ok(scopes)
}

impl Scopes {
    /// Everything with all accounts.
    pub fn all() -> Scopes {
        let [read, debit, credit] = [(); 3].map(|()| vec![Scope::all()]);
        Scopes { read, debit, credit }
    }
}

/// How much a principal may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpendLimits {
    /// By one transaction, in minor units; none: as much as anybody.
    #[serde(deserialize_with = "amount")]
    pub per_transaction: Option<u64>,
    /// Out of accounts on one day of log time, in minor units; none: any amount. A day is ⌊log time / 86,400,000⌋.
    #[serde(deserialize_with = "amount")]
    pub per_day: Option<u64>,
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let amount = number::optional(deserializer)?;
    if amount.is_some_and(|amount: u64| amount > MAX_BALANCE) {
        return Err(serde::de::Error::custom("a limit is a whole number of minor units, 2^53 - 1 at most"));
    }
    Ok(amount)
}

/// A principal as it is put: all of it, also where it exists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutPrincipal {
    /// Its name.
    pub principal: PrincipalName,
    /// What kind of things it may do.
    pub roles: Roles,
    /// With which accounts.
    #[serde(default)]
    pub scopes: Scopes,
    /// How much.
    #[serde(default)]
    pub limits: SpendLimits,
    /// In whose references its own are unique: its name where absent.
    #[serde(default)]
    pub namespace: Option<PrincipalName>,
}

/// A token as it is put. What is kept of it is a hash. A client's certificate is put like one: as `certificate` on the wire, in the place
/// of `token_id` and `token_hash`. (No token is a public key: it begins otherwise.)
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "PutTokenFields")]
pub struct PutToken {
    /// Who asks with it.
    pub principal: PrincipalName,
    /// The part of the token that is no secret. Of a certificate: see [`certificate_id`].
    #[serde(with = "ids::text")]
    pub token_id: TokenId,
    /// BLAKE3 of the whole token, as text. Of a certificate: that of its public key, as in the certificate (SubjectPublicKeyInfo).
    #[serde(with = "ids::text")]
    pub token_hash: Digest,
    /// From this log time on it is not in force.
    pub expires_at: Millis,
}

/// The id of a certificate whose public key has this hash: the hash's first 8 bytes.
pub fn certificate_id(key_hash: &Digest) -> TokenId {
    let (id, _) = key_hash.0.as_chunks::<8>();
    TokenId(id[0])
}

/// All fields that say what is put. In the log they have no names, and the last one is not there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutTokenFields {
    principal: PrincipalName,
    #[serde(default)]
    token_id: Option<IdText<TokenId>>,
    #[serde(default)]
    token_hash: Option<IdText<Digest>>,
    #[serde(deserialize_with = "number::whole")]
    expires_at: Millis,
    #[serde(default)]
    certificate: Option<IdText<Digest>>,
}

#[derive(Deserialize)]
#[serde(transparent, bound = "T: FromStr, T::Err: fmt::Display")]
struct IdText<T>(#[serde(with = "ids::text")] T);

impl TryFrom<PutTokenFields> for PutToken {
    type Error = &'static str;

    fn try_from(fields: PutTokenFields) -> Result<PutToken, &'static str> {
        let PutTokenFields { principal, token_id, token_hash, expires_at, certificate } = fields;
        let (token_id, token_hash) = match (token_id, token_hash, certificate) {
            (Some(IdText(id)), Some(IdText(hash)), None) => (id, hash),
            (None, None, Some(IdText(key_hash))) => (certificate_id(&key_hash), key_hash),
            _ => return Err("put_token has token_id and token_hash, or certificate"),
        };
        Ok(PutToken { principal, token_id, token_hash, expires_at })
    }
}

/// A command of an administrator.
#[allow(clippy::large_enum_variant)] // they are rare, and boxed where they wait beside others
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Admin {
    /// Makes a principal, or makes it another: `not_authorised`, `too_many_principals`.
    PutPrincipal(PutPrincipal),
    /// Takes a principal and its tokens away: `not_authorised`, `principal_not_found`.
    RemovePrincipal {
        /// Its name.
        principal: PrincipalName,
    },
    /// Adds a token: `not_authorised`, `principal_not_found`, `invalid_expiry`, `token_exists`, `too_many_tokens`.
    PutToken(PutToken),
    /// Takes a token away: `not_authorised`, `token_not_found`.
    RevokeToken {
        /// Which.
        #[serde(with = "ids::text")]
        token_id: TokenId,
    },
    /// Raises the [level] of the cluster, from the next slot on: `not_authorised`, `invalid_level`, `members_too_old`.
    RaiseLevel {
        /// To this one.
        #[serde(deserialize_with = "number::whole")]
        level: u32,
    },
    /// Of the level that only tests know.
    #[cfg_attr(not(feature = "sabotage"), serde(skip_deserializing))]
    Note(Note),
}

/// What an administrator has written into the history: the one command of [`level::NOTES`]. Nothing but tests can make one.
#[cfg(feature = "sabotage")]
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// What is written.
    pub text: Box<str>,
}

/// What nothing but tests can make.
#[cfg(not(feature = "sabotage"))]
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Note {}

/// The word for the command of the level that only tests know.
const NOTE: &str = "note";

/// Which command of an administrator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs)] // see `Admin`
pub enum AdminKind {
    PutPrincipal,
    RemovePrincipal,
    PutToken,
    RevokeToken,
    RaiseLevel,
}

named!(AdminKind {
    PutPrincipal = "put_principal",
    RemovePrincipal = "remove_principal",
    PutToken = "put_token",
    RevokeToken = "revoke_token",
    RaiseLevel = "raise_level",
});

impl AdminKind {
    /// The word for a command of an administrator that this program knows.
    pub(crate) fn word(name: &str) -> Option<&'static str> {
        let of_tests = || (level::highest() >= level::NOTES && name == NOTE).then_some(NOTE);
        AdminKind::named(name).map(AdminKind::name).or_else(of_tests)
    }
}

impl Batched for Admin {
    fn level(&self) -> u32 {
        match self {
            Admin::PutPrincipal(_)
            | Admin::RemovePrincipal { .. }
            | Admin::PutToken(_)
            | Admin::RevokeToken { .. }
            | Admin::RaiseLevel { .. } => 1,
            Admin::Note(_) => level::NOTES,
        }
    }
}

/// Why a command of an administrator was not carried out. Kept for retries by its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)] // see `Admin`
pub enum AdminRefusal {
    NotAuthorised = 1,
    PrincipalNotFound = 2,
    InvalidExpiry = 3,
    TokenExists = 4,
    TokenNotFound = 5,
    TooManyPrincipals = 6,
    TooManyTokens = 7,
    InvalidLevel = 8,
    MembersTooOld = 9,
}

impl AdminRefusal {
    /// Each once.
    pub const ALL: [AdminRefusal; 9] = [
        AdminRefusal::NotAuthorised,
        AdminRefusal::PrincipalNotFound,
        AdminRefusal::InvalidExpiry,
        AdminRefusal::TokenExists,
        AdminRefusal::TokenNotFound,
        AdminRefusal::TooManyPrincipals,
        AdminRefusal::TooManyTokens,
        AdminRefusal::InvalidLevel,
        AdminRefusal::MembersTooOld,
    ];
}

/// What came of a command of an administrator: the number of the principal or token, or the level.
pub type Administered = Result<u64, AdminRefusal>;

/// A principal as those see it who may.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PrincipalInfo {
    /// From 1, in the order of making.
    pub number: PrincipalNumber,
    /// All that was put.
    #[serde(flatten)]
    pub put: PutPrincipal,
}

/// A token as those see it who may.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenInfo {
    /// The part of the token that is no secret.
    #[serde(with = "ids::text")]
    pub token_id: TokenId,
    /// From 8, in the order of making.
    pub number: u64,
    /// Who asks with it.
    pub principal: PrincipalName,
    /// From this log time on it is not in force.
    pub expires_at: Millis,
}

/// All principals and tokens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PrincipalsInfo {
    /// By number.
    pub principals: Vec<PrincipalInfo>,
    /// By number.
    pub tokens: Vec<TokenInfo>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_put_by_its_id_and_hash_or_a_certificate_by_that_of_its_key() {
        let put = |more: &str| {
            let text = format!(r#"{{"principal":"shop","expires_at":5,{more}}}"#);
            serde_json::from_str::<PutToken>(&text).map_err(|error| error.to_string())
        };
        let (id, hash) = ("0123456789abcdef", "5a".repeat(32));
        let token = put(&format!(r#""token_id":"{id}","token_hash":"{hash}""#)).unwrap();
        assert_eq!((token.token_id.to_string(), token.token_hash.to_string()), (id.to_owned(), hash.clone()));
        let certificate = put(&format!(r#""certificate":"{hash}""#)).unwrap();
        assert_eq!((certificate.token_id.to_string(), certificate.token_hash), ("5a".repeat(8), token.token_hash));
        for wrong in [
            format!(r#""token_id":"{id}""#),
            format!(r#""token_hash":"{hash}""#),
            format!(r#""token_id":"{id}","token_hash":"{hash}","certificate":"{hash}""#),
            format!(r#""token_id":"{id}","certificate":"{hash}""#),
            format!(r#""certificate":"{hash}","other":1"#),
        ] {
            assert!(put(&wrong).is_err(), "{wrong}");
        }
    }
}
