//! What stands in the record of an administrator's command, and of a new asset: the command as JSON, without what only shows who may
//! use a token.

use rabia_bank_messages::bank::CreateAsset;
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::{Millis, NodeId, TokenId};
use rabia_bank_messages::principal::{Admin, Note, PrincipalName, PutPrincipal, PutToken};
use serde::Serialize;

/// Fields in the order in which they are written: they are hashed.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Act<'a> {
    PutPrincipal(&'a PutPrincipal),
    RemovePrincipal { principal: &'a PrincipalName },
    PutToken { principal: &'a PrincipalName, token_id: &'a TokenId, expires_at: Millis },
    RevokeToken { token_id: &'a TokenId },
    RaiseLevel { level: u32 },
    Note(&'a Note),
}

#[derive(Serialize)]
struct ByOwner<'a> {
    /// The node whose folder's owner asked.
    by_owner_of_node: NodeId,
    #[serde(flatten)]
    act: Act<'a>,
}

/// The text for the history.
pub(super) fn text(admin: &Admin, owner: Option<NodeId>) -> String {
    let act = match admin {
        Admin::PutPrincipal(put) => Act::PutPrincipal(put),
        Admin::RemovePrincipal { principal } => Act::RemovePrincipal { principal },
        Admin::PutToken(PutToken { principal, token_id, expires_at, .. }) => {
            Act::PutToken { principal, token_id, expires_at: *expires_at }
        }
        Admin::RevokeToken { token_id } => Act::RevokeToken { token_id },
        Admin::RaiseLevel { level } => Act::RaiseLevel { level: *level },
        Admin::Note(note) => Act::Note(note),
    };
    let json = match owner {
        None => Encoding::Json.encode(&act),
        Some(node) => Encoding::Json.encode(&ByOwner { by_owner_of_node: node, act }),
    };
    String::from_utf8_lossy(&json).into_owned()
}

/// The same of a new asset.
pub(super) fn asset_text(asset: &CreateAsset) -> String {
    String::from_utf8_lossy(&Encoding::Json.encode(asset)).into_owned()
}
