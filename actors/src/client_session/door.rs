//! What a connection does at the [door](crate::parts::door), whose rules are those of the part.

use std::time::Duration;

use actix::prelude::*;
use rabia_bank_messages::bank::{Command, ErrorCode, ReadLevel, Refusal};
use rabia_bank_messages::client::{CLIENT_VERSION, ClientMessage};
use rabia_bank_messages::codec::{Encoding, Malformed};
use rabia_bank_messages::principal::{PrincipalName, Role};
use rabia_bank_messages::token::Token;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::debug;

use super::{Accounts, ClientSession};
use crate::consensus::turns::Owner;
use crate::ledger::Bank;
use crate::parts::door::{Look, Shown};

/// A client that has not shown a token within this time is closed.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Why a connection ends, in its close frame.
const NOT_AUTHORISED: &str = "not_authorised";

impl ClientSession {
    /// The number of the token that a hello shows, or else of the certificate that the connection has shown, if it is in force.
    pub(super) fn recognise(&mut self, token: Option<&Token>) -> Option<u64> {
        let shown = token.map(Shown::Token).or(self.certificate.as_ref().map(Shown::Certificate))?;
        self.door.let_in(&self.neighbours.applied, shown, self.metrics.trusted_time())
    }

    /// The principal that the client speaks for.
    pub(super) fn principal_name(&self) -> Option<PrincipalName> {
        self.neighbours.applied.roster().name_of(self.door.token()?)
    }

    /// Whether a message may come before a token: only a hello, right or wrong.
    pub(super) fn is_hello(
        &self,
        encoding: Encoding,
        bytes: &[u8],
        decoded: &Result<ClientMessage, Malformed>,
    ) -> bool {
        match decoded {
            Ok(message) => matches!(message, ClientMessage::Hello(_)),
            Err(_) => encoding.is_hello(bytes),
        }
    }

    /// A client without a token that is in force.
    pub(super) fn turn_away(&mut self, encoding: Encoding, request: Option<u64>, ctx: &mut Context<Self>) {
        let message = "say hello first, with a token that is in force";
        self.refuse(encoding, request, Refusal::refused(ErrorCode::NotAuthorised, message), ctx);
        self.close(CloseCode::Policy, NOT_AUTHORISED, ctx);
    }

    /// A client that speaks an older version.
    pub(super) fn too_old(&mut self, encoding: Encoding, version: u32, ctx: &mut Context<Self>) {
        let message = format!("version {version} of the protocol is not spoken any more, {CLIENT_VERSION} is");
        self.refuse(encoding, None, Refusal::refused(ErrorCode::ClientTooOld, message), ctx);
        self.close(CloseCode::Policy, "client_too_old", ctx);
    }

    /// Whose work it is that is asked for with this token.
    pub(super) fn owner_of(&self, token: u64) -> Owner {
        match self.neighbours.applied.roster().rights(token, 0) {
            Some(rights) if rights.has(Role::Operator) => Owner::Operator(rights.principal()),
            Some(rights) => Owner::Principal(rights.principal()),
            None => self.client.owner(),
        }
    }

    /// A client that has said who it is comes out of the doorway and gets a seat, if there is one for its principal. Otherwise it is
    /// told so, and the connection ends.
    pub(super) fn sit_down(&mut self, encoding: Encoding, owner: Owner, ctx: &mut Context<Self>) -> bool {
        if self.seat.is_none() {
            match self.seats.take(owner, self.late) {
                Ok(seat) => self.seat = Some(seat),
                Err(full) => {
                    self.refuse(encoding, None, Refusal::refused(ErrorCode::Busy, full.why()), ctx);
                    self.close(CloseCode::Again, "there is no room for another client", ctx);
                    return false;
                }
            }
            ctx.cancel_future(self.waiting_there);
        }
        self.belong_to(owner);
        true
    }

    /// What the connection does and has waiting is this owner's from now on.
    fn belong_to(&mut self, owner: Owner) {
        self.client.belong_to(owner);
        if let Some(seat) = &mut self.seat {
            seat.move_to(owner);
        }
        let Accounts { waiting, in_flight, subscriptions, paces } = &self.accounts;
        for account in [waiting, in_flight, subscriptions, &self.outlet.unread] {
            account.move_to(owner);
        }
        paces.move_to(owner);
        self.meter.greeted(owner);
    }

    /// Others need the place of a client that has not said who it is, or was turned away. It goes at once: there may be many.
    pub(super) fn make_room(&mut self, ctx: &mut Context<Self>) {
        debug!(client = self.client.id(), "a connection makes room: too many have said no hello");
        self.abort(ctx);
    }

    /// Refuses here what would be refused when it is applied.
    pub(super) fn check_command(&self, command: &Command) -> Result<(), Refusal> {
        self.door.check_command::<Bank>(&self.neighbours.applied, command)
    }

    /// Refuses a read of which this node may not know whether it is still allowed.
    pub(super) fn check_read(&self, read: ReadLevel) -> Result<(), Refusal> {
        self.door.check_read(&self.neighbours.applied, read, self.metrics.without_quorum())
    }

    /// Ends a connection whose token is not in force any more, or has not come.
    pub(super) fn check_token(&mut self, ctx: &mut Context<Self>) {
        let Some(token) = self.door.token() else {
            if self.now() >= HELLO_WITHIN {
                self.close(CloseCode::Policy, "no hello with a token came in time", ctx);
            }
            return;
        };
        let look = self.door.look(&self.neighbours.applied, self.metrics.trusted_time());
        if look == Look::Again {
            let owner = self.owner_of(token);
            if owner != self.client.owner() {
                self.belong_to(owner);
            }
        }
        if look == Look::Shut {
            debug!(client = self.client.id(), token, "the token of a connection is not in force any more");
            self.close(CloseCode::Policy, NOT_AUTHORISED, ctx);
        }
    }
}
