//! Principals and tokens: who may do what, as the log says.
//!
//! They are changed by administrators, and looked at before every request: is the token in force, and may its principal do this? Log
//! time says whether a token has expired, so all nodes agree. What principals may move on a day is counted here too.
//!
//! Nobody but an administrator changes anything, and no administrator what is put for itself: so there is always one. The owner of a
//! node's folder may put a token for an administrator, without one: that answers a lost token.

use std::collections::BTreeMap;
use std::sync::Arc;

use rabia_bank_messages::genesis::{Founding, FoundingToken};
use rabia_bank_messages::ids::{Digest, Millis, NodeId, TokenId};
use rabia_bank_messages::msgpack;
use rabia_bank_messages::principal::{
    Admin, AdminRefusal, Administered, FIRST_TOKEN, HOST, MAX_PRINCIPALS_BYTES, MAX_TOKENS, NO_TOKEN, PrincipalInfo,
    PrincipalName, PrincipalNumber, PrincipalsInfo, PutPrincipal, PutToken, Role, Roles, Scopes, SpendLimits,
    TokenInfo, certificate_id,
};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rabia_bank_messages::token::Token;
use serde::{Deserialize, Serialize};

use super::rights::{DAY, Rights, Spent};
use super::rows::BadRow;

/// The longest life of a token, in milliseconds: ten years.
const LONGEST_LIFE: Millis = 10 * 365 * DAY;

/// A principal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PrincipalState {
    pub(crate) name: PrincipalName,
    pub(crate) roles: Roles,
    pub(crate) scopes: Scopes,
    pub(crate) limits: SpendLimits,
    pub(crate) namespace: Option<PrincipalName>,
    /// It is not in force, and keeps its number.
    pub(crate) removed: bool,
}

impl PrincipalState {
    fn new(name: &str, roles: impl IntoIterator<Item = Role>) -> PrincipalState {
        let Ok(name) = name.parse() else { unreachable!("{name} is a name") };
        let (scopes, limits) = (Scopes::all(), SpendLimits::default());
        PrincipalState { name, roles: roles.into_iter().collect(), scopes, limits, namespace: None, removed: false }
    }

    fn of(put: &PutPrincipal) -> PrincipalState {
        let PutPrincipal { principal, roles, scopes, limits, namespace } = put.clone();
        PrincipalState { name: principal, roles, scopes, limits, namespace, removed: false }
    }
}

/// A token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct TokenState {
    id: TokenId,
    principal: PrincipalNumber,
    hash: Digest,
    expires_at: Millis,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// This principal.
    Principal(PrincipalNumber),
    /// The owner of this node's folder.
    Owner(NodeId),
}

/// All principals and tokens, as they stand after a change. Shared with whoever looks at them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Roster {
    /// Number 1 first.
    principals: Vec<PrincipalState>,
    /// By number.
    tokens: Vec<(u64, TokenState)>,
    next_token: u64,
}

impl Default for Roster {
    /// That of a new cluster where nobody has a token.
    fn default() -> Roster {
        Roster::new(&Founding::default())
    }
}

impl Roster {
    /// What a new cluster begins with.
    fn new(founding: &Founding) -> Roster {
        let daily = [Role::Teller, Role::Minter, Role::Manager, Role::Auditor];
        let principals = vec![
            PrincipalState { scopes: Scopes::default(), ..PrincipalState::new("admin", [Role::Admin, Role::Operator]) },
            PrincipalState::new("daily", daily),
            PrincipalState::new("host", Role::ALL),
        ];
        let mut roster = Roster { principals, tokens: Vec::new(), next_token: FIRST_TOKEN };
        for FoundingToken { principal, id, hash, expires_at } in founding.tokens.iter().cloned() {
            roster.add_token(TokenState { id, principal, hash, expires_at });
        }
        roster
    }

    fn add_token(&mut self, token: TokenState) -> u64 {
        let number = self.next_token;
        self.next_token += 1;
        self.tokens.push((number, token));
        number
    }

    fn token(&self, number: u64) -> Option<&TokenState> {
        let place = self.tokens.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.tokens[place].1)
    }

    /// The principal with this number, unless it was removed.
    fn principal(&self, number: PrincipalNumber) -> Option<&PrincipalState> {
        let place = (number as usize).checked_sub(1)?;
        self.principals.get(place).filter(|principal| !principal.removed)
    }

    fn named(&self, name: &PrincipalName) -> Option<PrincipalNumber> {
        let place = self.principals.iter().position(|principal| principal.name == *name)?;
        Some(place as PrincipalNumber + 1) // far fewer than 2^32, by what they take
    }

    /// Who asks with this number of a token, at this time. None: nobody who is in force.
    pub fn asker(&self, token: u64, now: Millis) -> Option<Asker> {
        let number = match token {
            NO_TOKEN => HOST,
            1..FIRST_TOKEN => return NodeId::new(token as u8).map(Asker::Owner),
            _ => self.token(token).filter(|token| now < token.expires_at)?.principal,
        };
        self.principal(number).map(|_| Asker::Principal(number))
    }

    /// The number and the name of the principal of a token that a client shows; none if it is not in force at this time.
    pub fn recognise(&self, token: &Token, now: Millis) -> Option<(u64, PrincipalName)> {
        self.in_force_with(token.id()?, |hash| token.matches(hash), now)
    }

    /// The same of a client's certificate, by the hash of its public key.
    pub fn recognise_certificate(&self, key_hash: &Digest, now: Millis) -> Option<(u64, PrincipalName)> {
        self.in_force_with(certificate_id(key_hash), |hash| hash == key_hash, now)
    }

    fn in_force_with(&self, id: TokenId, is_it: impl Fn(&Digest) -> bool, now: Millis) -> Option<(u64, PrincipalName)> {
        let (number, state) = self.tokens.iter().find(|(_, state)| state.id == id)?;
        if !is_it(&state.hash) || now >= state.expires_at {
            return None;
        }
        self.principal(state.principal).map(|principal| (*number, principal.name.clone()))
    }

    /// The name of the principal of the token with this number.
    pub fn name_of(&self, token: u64) -> Option<PrincipalName> {
        self.token(token).and_then(|token| self.principal(token.principal)).map(|principal| principal.name.clone())
    }

    /// When the token with this number expires, in log time; 0 if there is none.
    pub fn expires_at(&self, token: u64) -> Millis {
        self.token(token).map_or(0, |token| token.expires_at)
    }

    /// What may be done with a token, at this time; none if it is not in force, or the owner's of a folder.
    pub fn rights(&self, token: u64, now: Millis) -> Option<Rights<'_>> {
        match self.asker(token, now)? {
            Asker::Principal(number) => Some(Rights::new(number, self.principal(number)?, Spent::default())),
            Asker::Owner(_) => None,
        }
    }

    /// Whether this asker may do what an administrator may.
    fn may(&self, asker: Asker, admin: &Admin) -> bool {
        match asker {
            Asker::Owner(_) => match admin {
                Admin::PutToken(PutToken { principal, .. }) => self
                    .named(principal)
                    .filter(|number| *number != HOST)
                    .and_then(|number| self.principal(number))
                    .is_some_and(|principal| principal.roles.has(Role::Admin)),
                _ => false,
            },
            Asker::Principal(number) => {
                let own = |name: &PrincipalName| self.named(name) == Some(number);
                let is_admin = self.principal(number).is_some_and(|principal| principal.roles.has(Role::Admin));
                is_admin
                    && match admin {
                        Admin::PutPrincipal(PutPrincipal { principal, .. }) | Admin::RemovePrincipal { principal } => {
                            !own(principal)
                        }
                        Admin::PutToken(PutToken { principal, .. }) => self.named(principal) != Some(HOST),
                        Admin::RevokeToken { .. } | Admin::RaiseLevel { .. } | Admin::Note(_) => true,
                    }
            }
        }
    }

    /// What all principals take, in bytes.
    fn bytes(&self) -> usize {
        msgpack::encode(&self.principals).len()
    }

    fn administer(&mut self, admin: &Admin, now: Millis) -> Administered {
        match admin {
            Admin::PutPrincipal(put) => self.put_principal(put),
            Admin::RemovePrincipal { principal } => {
                let number = self.in_force(principal)?;
                self.principals[number as usize - 1].removed = true;
                self.tokens.retain(|(_, token)| token.principal != number);
                Ok(number.into())
            }
            Admin::PutToken(put) => self.put_token(put, now),
            Admin::RevokeToken { token_id } => {
                let found = self.tokens.iter().position(|(_, token)| token.id == *token_id);
                let (number, _) = self.tokens.remove(found.ok_or(AdminRefusal::TokenNotFound)?);
                Ok(number)
            }
            Admin::RaiseLevel { .. } | Admin::Note(_) => unreachable!("{admin:?} changes no principal"),
        }
    }

    fn in_force(&self, name: &PrincipalName) -> Result<PrincipalNumber, AdminRefusal> {
        let number = self.named(name).filter(|number| self.principal(*number).is_some());
        number.ok_or(AdminRefusal::PrincipalNotFound)
    }

    fn put_principal(&mut self, put: &PutPrincipal) -> Administered {
        let state = PrincipalState::of(put);
        let (number, before) = match self.named(&put.principal) {
            Some(number) => (number, Some(std::mem::replace(&mut self.principals[number as usize - 1], state))),
            None => {
                self.principals.push(state);
                (self.principals.len() as PrincipalNumber, None)
            }
        };
        if self.bytes() <= MAX_PRINCIPALS_BYTES {
            return Ok(number.into());
        }
        match before {
            Some(before) => self.principals[number as usize - 1] = before,
            None => _ = self.principals.pop(),
        }
        Err(AdminRefusal::TooManyPrincipals)
    }

    fn put_token(&mut self, put: &PutToken, now: Millis) -> Administered {
        let PutToken { principal, token_id: id, token_hash: hash, expires_at } = put;
        let token = TokenState { id: *id, principal: self.in_force(principal)?, hash: *hash, expires_at: *expires_at };
        if token.expires_at <= now || token.expires_at > now.saturating_add(LONGEST_LIFE) {
            return Err(AdminRefusal::InvalidExpiry);
        }
        if let Some((number, known)) = self.tokens.iter().find(|(_, known)| known.id == token.id) {
            return if *known == token { Ok(*number) } else { Err(AdminRefusal::TokenExists) };
        }
        if self.tokens.len() >= MAX_TOKENS {
            self.tokens.retain(|(_, token)| now < token.expires_at);
        }
        if self.tokens.len() >= MAX_TOKENS {
            return Err(AdminRefusal::TooManyTokens);
        }
        Ok(self.add_token(token))
    }

    /// What those see who may.
    pub fn info(&self) -> PrincipalsInfo {
        let name = |number: PrincipalNumber| self.principal(number).map(|principal| principal.name.clone());
        let principals = (1..).zip(&self.principals).filter(|(_, principal)| !principal.removed);
        let info = |(number, state): (PrincipalNumber, &PrincipalState)| {
            let PrincipalState { name, roles, scopes, limits, namespace, .. } = state.clone();
            PrincipalInfo { number, put: PutPrincipal { principal: name, roles, scopes, limits, namespace } }
        };
        let token = |(number, token): &(u64, TokenState)| {
            let TokenState { id, principal, expires_at, .. } = *token;
            Some(TokenInfo { token_id: id, number: *number, principal: name(principal)?, expires_at })
        };
        PrincipalsInfo {
            principals: principals.map(info).collect(),
            tokens: self.tokens.iter().filter_map(token).collect(),
        }
    }

    /// Whether there can be such a roster.
    fn check(&self) -> bool {
        let names: std::collections::BTreeSet<_> = self.principals.iter().map(|principal| &principal.name).collect();
        let ids: std::collections::BTreeSet<_> = self.tokens.iter().map(|(_, token)| token.id).collect();
        self.principals.len() >= HOST as usize
            && names.len() == self.principals.len()
            && ids.len() == self.tokens.len()
            && self.tokens.len() <= MAX_TOKENS
            && self.tokens.is_sorted_by_key(|(number, _)| *number)
            && self.bytes() <= MAX_PRINCIPALS_BYTES
            && self.tokens.iter().all(|(number, token)| {
                (FIRST_TOKEN..self.next_token).contains(number) && self.principal(token.principal).is_some()
            })
    }
}

/// What a principal has moved out of accounts on a day.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct SpentOn {
    day: u64,
    spent: Spent,
}

/// Principals, tokens, and what principals with a limit a day have moved.
#[derive(Debug)]
pub(super) struct Principals {
    roster: Arc<Roster>,
    spent: BTreeMap<PrincipalNumber, SpentOn>,
}

/// The same, in the row of the state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PrincipalsRow {
    roster: Roster,
    spent: Vec<(PrincipalNumber, SpentOn)>,
}

impl Default for PrincipalsRow {
    /// Of a state that is older than principals are.
    fn default() -> PrincipalsRow {
        Principals::new(&Founding::default()).to_row()
    }
}

impl Principals {
    /// Those of a new cluster.
    pub(super) fn new(founding: &Founding) -> Principals {
        Principals { roster: Arc::new(Roster::new(founding)), spent: BTreeMap::new() }
    }

    /// As they stand now.
    pub(super) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Who asks.
    pub(super) fn asker(&self, token: u64, now: Millis) -> Option<Asker> {
        if is_broken(Rule::TokenAtApply) {
            return self.roster.asker(token, 0).or(Some(Asker::Principal(HOST)));
        }
        self.roster.asker(token, now)
    }

    /// What this principal may do.
    pub(super) fn rights(&self, number: PrincipalNumber, now: Millis) -> Option<Rights<'_>> {
        let on = self.spent.get(&number).filter(|on| on.day == now / DAY);
        Some(Rights::new(number, self.roster.principal(number)?, on.map_or(Spent::default(), |on| on.spent.clone())))
    }

    /// So much has it moved out of accounts on the day of `now`.
    pub(super) fn note_spent(&mut self, number: PrincipalNumber, spent: Spent, now: Millis) {
        self.spent.insert(number, SpentOn { day: now / DAY, spent });
    }

    /// Whether this asker may do this.
    pub(super) fn check(&self, asker: Asker, admin: &Admin) -> Result<(), AdminRefusal> {
        if self.roster.may(asker, admin) { Ok(()) } else { Err(AdminRefusal::NotAuthorised) }
    }

    /// Carries out a command that changes principals or tokens, or refuses it. Whether it may be asked for was [checked](Self::check).
    pub(super) fn administer(&mut self, admin: &Admin, now: Millis) -> Administered {
        Arc::make_mut(&mut self.roster).administer(admin, now)
    }

    /// Takes all tokens away, or leaves them, and adds these.
    pub(super) fn renew(&mut self, keep: bool, tokens: &[FoundingToken]) {
        let roster = Arc::make_mut(&mut self.roster);
        if !keep {
            roster.tokens.clear();
        }
        for FoundingToken { principal, id, hash, expires_at } in tokens.iter().cloned() {
            roster.add_token(TokenState { id, principal, hash, expires_at });
        }
    }

    /// Goes into the digest of the state.
    pub(super) fn add_to(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&msgpack::encode(&self.to_row()));
    }

    pub(super) fn to_row(&self) -> PrincipalsRow {
        PrincipalsRow {
            roster: (*self.roster).clone(),
            spent: self.spent.iter().map(|(number, on)| (*number, on.clone())).collect(),
        }
    }

    pub(super) fn from_row(row: PrincipalsRow) -> Result<Principals, BadRow> {
        let PrincipalsRow { roster, spent } = row;
        if !roster.check() {
            return Err(BadRow::new("the principals and tokens do not belong together".into()));
        }
        Ok(Principals { roster: Arc::new(roster), spent: spent.into_iter().collect() })
    }
}
