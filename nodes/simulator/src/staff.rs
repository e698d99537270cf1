//! Who the clients speak for where principals are simulated, and what administrators do.
//!
//! One client speaks for the administrator that the cluster begins with, two for its daily business, one for the host, and the others
//! for principals with few rights, some of which the administrator makes, changes and removes all the time. It gives tokens to whoever
//! was turned away, and revokes those in use; some expire within a second. Whoever has no token any more comes back with the next one.
//!
//! How a token gets from an administrator to a client is nobody's business: here both know it at once.

use std::time::Duration;

use fastrand::Rng;
use rabia_bank_messages::genesis::{Founding, FoundingToken};
use rabia_bank_messages::ids::{Digest, Millis, Secret, TokenId};
use rabia_bank_messages::principal::{
    ADMIN, Admin, DAILY, PrincipalName, PrincipalNumber, PrincipalsInfo, PutPrincipal, PutToken, Role, Roles, Scope,
    Scopes, SpendLimits,
};
use rabia_bank_messages::token::Token;

use super::clients::CLIENTS;

/// What the clients' principals are called, by client. The last may have more rights than it seems.
const NAMES: [&str; CLIENTS] = ["admin", "daily", "daily", "host", "clerk", "clerk", "shop", "deputy"];
/// The client that speaks for the administrator.
pub(super) const ADMINISTRATOR: usize = 0;
/// Clients whose principals are made, changed and removed; of the others only tokens come and go.
const NARROW: std::ops::Range<usize> = 4..CLIENTS;
/// Accounts are called by these. Some differ by a `:` alone.
pub(super) const ACCOUNTS: [&str; 12] = [
    "account-0",
    "account-1",
    "account-2",
    "account-3",
    "account-4",
    "account-5",
    "shop",
    "shop:",
    "shop:till",
    "shop:till:2",
    "shopping",
    "bank:fees",
];
/// What scopes are made of. One has no account.
const SCOPES: [&str; 9] =
    ["*", "shop", "shop:", "shop:till", "shop:till:", "bank:", "account-0", "account-1", "nobody:"];
/// A token that nobody says otherwise of lives for so long, in milliseconds: longer than a run.
const LONG: Millis = 3_600_000;
/// Tokens of a client that are remembered, to be revoked or put again.
const REMEMBERED: usize = 3;

/// What a client shows when it connects.
#[derive(Clone, Debug)]
pub(super) enum Badge {
    /// Nothing: it is the program that the node lives in.
    Host,
    /// A token, right or wrong.
    Token(Token),
    /// A text with the id of a token of somebody else.
    Forged(Token),
}

/// Somebody that a client speaks for.
struct Person {
    name: PrincipalName,
    badge: Badge,
    /// It was turned away with what it has.
    lacks: bool,
    /// Nobody does anything about that before.
    helped: Duration,
    /// The last tokens that were put for it, or are about to be.
    tokens: Vec<(TokenId, Digest)>,
}

/// Everybody.
pub(super) struct Staff {
    /// Of its own, so that worlds without principals are what they would be if there were none.
    pub(super) random: Rng,
    people: Vec<Person>,
    /// How many tokens were made.
    made: u64,
    /// Nothing is done of its own accord before.
    rests: Duration,
    simulated: bool,
}

fn name(text: &str) -> PrincipalName {
    text.parse().unwrap_or_else(|error| unreachable!("{error}"))
}

fn scope(text: &str) -> Scope {
    text.parse().unwrap_or_else(|error| unreachable!("{error}"))
}

impl Staff {
    /// The staff of a run; if none is simulated, all clients are the host.
    pub(super) fn new(seed: u64, simulated: bool) -> Staff {
        let mut staff = Staff {
            random: Rng::with_seed(seed.rotate_left(32) ^ 0x5eed),
            people: Vec::new(),
            made: 0,
            rests: Duration::ZERO,
            simulated,
        };
        for called in NAMES {
            let badge = if !simulated || called == "host" { Badge::Host } else { Badge::Token(staff.token()) };
            let person = Person { name: name(called), badge, lacks: false, helped: Duration::ZERO, tokens: Vec::new() };
            staff.people.push(person);
        }
        staff
    }

    /// What the cluster begins with: the tokens of the administrator and of the daily business.
    pub(super) fn founding(&self) -> Founding {
        let token = |client: usize, principal: PrincipalNumber| match &self.people[client].badge {
            Badge::Token(token) => token.id().map(|id| {
                let (hash, expires_at) = (token.hash(), super::world::EPOCH + LONG);
                FoundingToken { principal, id, hash, expires_at }
            }),
            _ => None,
        };
        let tokens = [token(ADMINISTRATOR, ADMIN), token(1, DAILY), token(2, DAILY)].into_iter().flatten().collect();
        Founding { secret: Secret([7; 32]), tokens }
    }

    /// A token that nobody has seen.
    fn token(&mut self) -> Token {
        self.made += 1;
        let mut secret = [0; 32];
        self.random.fill(&mut secret);
        Token::of(TokenId(self.made.to_be_bytes()), &secret)
    }

    /// For whom a client speaks.
    pub(super) fn name_of(&self, client: usize) -> &PrincipalName {
        &self.people[client].name
    }

    /// What a client shows on its next connection: now and then a token that is none.
    pub(super) fn badge(&mut self, client: usize) -> Badge {
        let badge = self.people[client].badge.clone();
        if !matches!(badge, Badge::Token(_)) || self.random.u32(..40) > 0 {
            return badge;
        }
        let other = self.random.usize(..CLIENTS);
        match &self.people[other].badge {
            Badge::Token(token) => Badge::Forged(Token::of(token.id().unwrap_or(TokenId([0; 8])), &[1; 32])),
            _ => badge,
        }
    }

    /// A client was turned away with this.
    pub(super) fn turned_away(&mut self, client: usize, with: &Badge) {
        let person = &mut self.people[client];
        person.lacks |= match (with, &person.badge) {
            (Badge::Token(shown), Badge::Token(newest)) => shown == newest,
            (Badge::Host, Badge::Host) => true,
            _ => false,
        };
    }

    /// A client was answered.
    pub(super) fn served(&mut self, client: usize) {
        self.people[client].lacks = false;
    }

    /// Whether principals are simulated.
    pub(super) fn is_simulated(&self) -> bool {
        self.simulated
    }

    /// Whether this client can't go on.
    pub(super) fn lacks(&self, client: usize) -> bool {
        self.people[client].lacks
    }

    /// Whether any client can't go on.
    pub(super) fn is_needed(&self) -> bool {
        self.people.iter().any(|person| person.lacks)
    }

    /// What the owner of a node's folder does for an administrator that has no token any more.
    pub(super) fn owners_act(&mut self, client: usize, now: Duration, time: Millis) -> Option<Admin> {
        let due = client == ADMINISTRATOR && self.lacks(client) && self.help(client, now);
        due.then(|| self.put_token(client, time + LONG))
    }

    /// What this client does in the place of a command, if it does anything, or only if somebody can't go on without it. `known` are the
    /// principals by now.
    pub(super) fn errand(
        &mut self,
        client: usize,
        only_urgent: bool,
        (now, time): (Duration, Millis),
        known: impl FnOnce() -> PrincipalsInfo,
    ) -> Option<Admin> {
        if !self.simulated || (client != ADMINISTRATOR && self.random.u32(..40) > 0) {
            return None;
        }
        if client != ADMINISTRATOR {
            return Some(self.any_act(client, time));
        }
        let lacking = (0..CLIENTS).find(|client| self.lacks(*client) && self.people[*client].helped <= now);
        if let Some(lacking) = lacking {
            self.help(lacking, now);
            let there = known().principals.iter().any(|info| info.put.principal == self.people[lacking].name);
            return Some(if there && self.people[lacking].name != name("host") {
                let expires_at = time + self.life();
                self.put_token(lacking, expires_at)
            } else {
                // Its token comes after the principal.
                self.people[lacking].helped = now;
                Admin::PutPrincipal(self.description(lacking))
            });
        }
        if only_urgent || self.rests > now {
            return None;
        }
        self.rests = now + Duration::from_millis(self.random.u64(5..80));
        Some(self.any_act(ADMINISTRATOR, time))
    }

    /// Somebody does something for a client that lacks a token, unless that was done lately.
    fn help(&mut self, client: usize, now: Duration) -> bool {
        let due = self.people[client].helped <= now;
        if due {
            self.people[client].helped = now + Duration::from_millis(self.random.u64(100..400));
        }
        due
    }

    /// Any act, most of them of some effect if it is an administrator's.
    fn any_act(&mut self, by: usize, time: Millis) -> Admin {
        let client = self.random.usize(NARROW);
        match self.random.u32(..24) {
            0..6 => self.revoke(by),
            6..10 => {
                let expires_at = time + self.life();
                self.put_token(client, expires_at)
            }
            10..17 => Admin::PutPrincipal(self.description(client)),
            17..19 => Admin::RemovePrincipal { principal: self.people[client].name.clone() },
            19 => Admin::RemovePrincipal { principal: name("nobody") },
            // There is no such level, or not all members know it.
            20 if time.is_multiple_of(2) => Admin::RaiseLevel { level: (time % 5) as u32 },
            20 => Admin::RevokeToken { token_id: TokenId([0xee; 8]) },
            // Nobody changes its own principal.
            21 => Admin::PutPrincipal(self.description(by)),
            // Put again, as it was or with another secret; or for the host; or expired.
            _ => self.odd_token(client, time),
        }
    }

    fn revoke(&mut self, by: usize) -> Admin {
        let daily = self.random.u32(..6) == 0;
        let client = match self.random.u32(..20) {
            0 if by == ADMINISTRATOR => ADMINISTRATOR,
            _ if daily => self.random.usize(1..3),
            _ => self.random.usize(NARROW),
        };
        let token_id = match &self.people[client].badge {
            Badge::Token(token) if self.random.u32(..3) > 0 => token.id(),
            _ => self.random.choice(&self.people[client].tokens).map(|(id, _)| *id),
        };
        Admin::RevokeToken { token_id: token_id.unwrap_or(TokenId([0xdd; 8])) }
    }

    /// A token for a client, which it shows from now on.
    fn put_token(&mut self, client: usize, expires_at: Millis) -> Admin {
        let token = self.token();
        let (token_id, token_hash) = (token.id().unwrap_or(TokenId([0; 8])), token.hash());
        let person = &mut self.people[client];
        person.badge = Badge::Token(token);
        person.tokens.push((token_id, token_hash));
        if person.tokens.len() > REMEMBERED {
            person.tokens.remove(0);
        }
        Admin::PutToken(PutToken { principal: person.name.clone(), token_id, token_hash, expires_at })
    }

    fn odd_token(&mut self, client: usize, time: Millis) -> Admin {
        let person = &self.people[client];
        let (id, hash) = self.random.choice(&person.tokens).copied().unwrap_or((TokenId([9; 8]), Digest::ZERO));
        let (principal, token_hash, expires_at) = match self.random.u32(..5) {
            0 => (person.name.clone(), hash, time + LONG),
            1 => (person.name.clone(), Digest::ZERO, time + LONG),
            2 => (name("host"), hash, time + LONG),
            3 => (person.name.clone(), hash, time.saturating_sub(1)),
            _ => (person.name.clone(), hash, u64::MAX),
        };
        Admin::PutToken(PutToken { principal, token_id: id, token_hash, expires_at })
    }

    /// How long a token lives: a third of them for a second or so.
    fn life(&mut self) -> Millis {
        if self.random.u32(..3) == 0 { self.random.u64(50..1_500) } else { LONG }
    }

    /// A principal as it is put, with roles, scopes and limits at random.
    fn description(&mut self, client: usize) -> PutPrincipal {
        let principal = self.people[client].name.clone();
        if client == 3 {
            let (roles, scopes, limits) = (Roles::all(), Scopes::all(), SpendLimits::default());
            return PutPrincipal { principal, roles, scopes, limits, namespace: None };
        }
        let mut roles: Vec<Role> = Role::ALL.into_iter().filter(|role| self.has(*role)).collect();
        if client + 1 == CLIENTS && self.random.u32(..4) > 0 {
            roles.push(Role::Admin);
        }
        let scopes = Scopes { read: self.scopes(), debit: self.scopes(), credit: self.scopes() };
        let limit = |random: &mut Rng, most| random.bool().then(|| random.u64(..most));
        let per_transaction = limit(&mut self.random, 600);
        let limits = SpendLimits { per_transaction, per_day: limit(&mut self.random, 1_500) };
        PutPrincipal { principal, roles: roles.into_iter().collect(), scopes, limits, namespace: None }
    }

    fn has(&mut self, role: Role) -> bool {
        let eighths = match role {
            Role::Teller => 7,
            Role::Minter | Role::Manager => 5,
            Role::Reader => 4,
            Role::Auditor | Role::Operator => 1,
            Role::Admin => 0,
        };
        self.random.u32(..8) < eighths
    }

    fn scopes(&mut self) -> Vec<Scope> {
        if self.random.u32(..3) == 0 {
            return vec![Scope::all()];
        }
        (0..self.random.usize(..5)).map(|_| scope(SCOPES[self.random.usize(..SCOPES.len())])).collect()
    }
}
