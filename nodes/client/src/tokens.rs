//! Where a program finds the token that it shows.

use std::io;
use std::path::Path;

use rabia_bank_messages::token::Token;

/// A token in this variable of the environment goes before one in a file.
pub const TOKEN_VARIABLE: &str = "RABIA_BANK_TOKEN";
/// A file with a token is no longer than this, in bytes.
const MAX_FILE: u64 = 4 << 10;

/// The token in [`TOKEN_VARIABLE`], or else the one in this file. None if there is neither.
///
/// # Errors
/// If there is a file, and it can't be read.
pub fn find_token(file: &Path) -> io::Result<Option<Token>> {
    if let Some(token) = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.trim().is_empty()) {
        return Ok(Some(Token::from(token.trim())));
    }
    match std::fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(found) if found.len() <= MAX_FILE => Ok(Some(Token::from(std::fs::read_to_string(file)?.trim()))),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long for a token")),
        Err(error) => Err(error),
    }
}
