//! Tokens that this program makes, and the files that they are kept in.
//!
//! A new cluster has two, in files for their owner alone: `client.token` for the daily business, and `admin/token`.

use std::io;
use std::path::{Path, PathBuf};

use rabia_bank_messages::genesis::{Founding, FoundingToken};
use rabia_bank_messages::ids::{Millis, Secret, TokenId};
use rabia_bank_messages::principal::{ADMIN, DAILY, DEFAULT_TOKEN_LIFE, PrincipalName, PrincipalNumber, PutToken};
use rabia_bank_messages::token::Token;

use crate::{private, random};

/// The file with the token for the daily business, in the folder of a cluster.
pub const CLIENT_TOKEN: &str = "client.token";
/// The folder with the administrator's token, in that of a cluster.
const ADMIN_FOLDER: &str = "admin";

/// The file with the token for the daily business of the cluster in this folder.
pub fn client_token(data_dir: &Path) -> PathBuf {
    data_dir.join(CLIENT_TOKEN)
}

/// The file with the administrator's token of the cluster in this folder.
pub fn admin_token(data_dir: &Path) -> PathBuf {
    data_dir.join(ADMIN_FOLDER).join("token")
}

/// A new token.
pub fn draw() -> Token {
    Token::of(TokenId(random::bytes()), &random::bytes())
}

/// What the log is to have of a token.
pub fn put(token: &Token, principal: PrincipalName, expires_at: Millis) -> PutToken {
    let Some(token_id) = token.id() else { unreachable!("a token that was drawn has an id") };
    PutToken { principal, token_id, token_hash: token.hash(), expires_at }
}

/// The tokens of a new cluster, to be written when its folder is there.
pub(crate) struct FirstTokens {
    admin: Token,
    /// None where an old cluster goes on: who does its daily business gets a new token of its administrator.
    daily: Option<Token>,
}

/// What a new cluster begins with, and its tokens.
pub(crate) fn found(now: Millis, daily: bool) -> (Founding, FirstTokens) {
    let tokens = FirstTokens { admin: draw(), daily: daily.then(draw) };
    let first = |principal: PrincipalNumber, token: &Token| FoundingToken {
        principal,
        id: token.id().unwrap_or(TokenId([0; 8])),
        hash: token.hash(),
        expires_at: now.saturating_add(DEFAULT_TOKEN_LIFE),
    };
    let founding = Founding {
        secret: Secret(random::bytes()),
        tokens: [first(ADMIN, &tokens.admin)]
            .into_iter()
            .chain(tokens.daily.iter().map(|token| first(DAILY, token)))
            .collect(),
    };
    (founding, tokens)
}

impl FirstTokens {
    /// Writes them into the folder of the cluster.
    pub(crate) fn write(&self, data_dir: &Path) -> io::Result<()> {
        private::create_folder(&data_dir.join(ADMIN_FOLDER))?;
        write(&admin_token(data_dir), &self.admin)?;
        self.daily.iter().try_for_each(|daily| write(&client_token(data_dir), daily))
    }
}

/// Writes a token into a file that is not there yet.
pub(crate) fn write(path: &Path, token: &Token) -> io::Result<()> {
    private::write_new(path, format!("{}\n", token.reveal()).as_bytes())
}
