//! Tokens: what a client shows that it speaks for a principal.
//!
//! A token is a text: `rb_`, its id as 16 hexadecimal digits, and 32 random bytes in base64url (43 characters, without padding). Whoever
//! makes it shows it once; the log has the BLAKE3 hash of the text.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, TokenId};

const BEGINNING: &str = "rb_";
/// The characters of base64url, by their values.
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A token, or a text that a client takes for one. Its `Debug` tells nothing of it, since that is what logs print.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(Box<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl From<&str> for Token {
    fn from(text: &str) -> Token {
        Token(text.into())
    }
}

impl Token {
    /// The token with this id and these random bytes.
    pub fn of(id: TokenId, secret: &[u8; 32]) -> Token {
        let mut text = format!("{BEGINNING}{id}");
        for chunk in secret.chunks(3) {
            let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            let digits = (0..=chunk.len()).map(|place| (bits >> (18 - 6 * place)) & 63);
            text.extend(digits.map(|digit| char::from(BASE64URL[digit as usize])));
        }
        Token(text.into())
    }

    /// Its id; none if it is no token.
    pub fn id(&self) -> Option<TokenId> {
        self.0.strip_prefix(BEGINNING)?.get(..16)?.parse().ok()
    }

    /// What the log has of it.
    pub fn hash(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }

    /// Whether this is the token that was hashed to `hash`: takes the same time wherever they differ.
    pub fn matches(&self, hash: &Digest) -> bool {
        blake3::hash(self.0.as_bytes()) == blake3::Hash::from_bytes(hash.0)
    }

    /// The text, to be shown to its owner and to nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_id_and_base64url_and_prints_nothing() {
        let token = Token::of(TokenId([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]), &[0xfb; 32]);
        assert_eq!(token.reveal(), "rb_0123456789abcdef-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s");
        assert_eq!(token.id().unwrap().to_string(), "0123456789abcdef");
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert!(token.matches(&token.hash()));
        assert!(!token.matches(&Token::from("rb_0123456789abcdef").hash()));
        for text in ["", "rb_", "rb_0123456789abcde", "xx_0123456789abcdef", "rb_0123456789abcdég"] {
            assert_eq!(Token::from(text).id(), None, "{text}");
        }
    }
}
