//! Principals and tokens in the words of SECURITY.md, as plain as can be: lists that are searched from end to end.

use std::collections::BTreeMap;

use rabia_bank_messages::bank::{ErrorCode, Operation};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::genesis::Founding;
use rabia_bank_messages::ids::{Millis, NodeId};
use rabia_bank_messages::principal::{
    Admin, PrincipalInfo, PrincipalNumber, PrincipalsInfo, PutPrincipal, PutToken, Role, Scope, Scopes, SpendLimits,
    TokenInfo,
};

use crate::Levels;

/// Ten years of log time.
const TEN_YEARS: Millis = 10 * 365 * 86_400_000;
/// As many tokens may there be.
const MOST_TOKENS: usize = 4_096;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    Principal(PrincipalNumber),
    Owner(NodeId),
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Principals {
    /// Number 1 first; none in force where it was removed.
    list: Vec<(PutPrincipal, bool)>,
    /// Number 8 first; those that are gone stay, and are marked.
    tokens: Vec<(PutToken, bool)>,
    /// What left accounts, by principal, day and asset, while there was a limit.
    spent: BTreeMap<(PrincipalNumber, u64, String), u64>,
}

fn put(name: &str, roles: &[Role], scopes: Scopes) -> (PutPrincipal, bool) {
    let principal = name.parse().unwrap_or_else(|error| unreachable!("{error}"));
    let (roles, limits) = (roles.iter().copied().collect(), SpendLimits::default());
    (PutPrincipal { principal, roles, scopes, limits, namespace: None }, true)
}

impl Principals {
    pub(crate) fn new(founding: &Founding) -> Principals {
        let list = vec![
            put("admin", &[Role::Admin, Role::Operator], Scopes::default()),
            put("daily", &[Role::Teller, Role::Minter, Role::Manager, Role::Auditor], Scopes::all()),
            put("host", &Role::ALL, Scopes::all()),
        ];
        let tokens = founding.tokens.iter().map(|token| {
            let principal = list[token.principal as usize - 1].0.principal.clone();
            let (token_id, token_hash, expires_at) = (token.id, token.hash, token.expires_at);
            (PutToken { principal, token_id, token_hash, expires_at }, true)
        });
        let tokens = tokens.collect();
        Principals { list, tokens, spent: BTreeMap::new() }
    }

    /// The number of the principal that has this name, in force or not.
    fn number(&self, name: &str) -> Option<PrincipalNumber> {
        (1..).zip(&self.list).find(|(_, (put, _))| put.principal.to_string() == name).map(|(number, _)| number)
    }

    fn get(&self, number: PrincipalNumber) -> Option<&PutPrincipal> {
        self.list.get(number as usize - 1).filter(|(_, in_force)| *in_force).map(|(put, _)| put)
    }

    pub(crate) fn who(&self, token: u64, now: Millis) -> Option<Who> {
        let number = match token {
            0 => 3,
            1..=7 => return NodeId::new(token as u8).map(Who::Owner),
            _ => {
                let (put, there) = self.tokens.get(token as usize - 8)?;
                (*there && put.expires_at > now).then_some(())?;
                self.number(&put.principal.to_string())?
            }
        };
        self.get(number).map(|_| Who::Principal(number))
    }

    /// What is put for the principal of this token, if it is in force at this time.
    pub(crate) fn shown_by(&self, token: u64, now: Millis) -> Option<&PutPrincipal> {
        match self.who(token, now)? {
            Who::Principal(number) => self.get(number),
            Who::Owner(_) => None,
        }
    }

    /// What those see who may.
    pub(crate) fn info(&self) -> PrincipalsInfo {
        let principals = (1..).zip(&self.list).filter(|(_, (_, in_force))| *in_force);
        let tokens = (8..).zip(&self.tokens).filter(|(_, (_, there))| *there);
        let token = |(number, (token, _)): (u64, &(PutToken, bool))| {
            let PutToken { principal, token_id, expires_at, .. } = token.clone();
            TokenInfo { token_id, number, principal, expires_at }
        };
        PrincipalsInfo {
            principals: principals.map(|(number, (put, _))| PrincipalInfo { number, put: put.clone() }).collect(),
            tokens: tokens.map(token).collect(),
        }
    }

    /// What an administrator asks for: the number of the principal or token, and what the history says of it.
    pub(crate) fn administer(
        &mut self,
        levels: &mut Levels,
        who: Who,
        admin: &Admin,
        now: Millis,
    ) -> Result<(u64, String), ErrorCode> {
        self.check(who, admin)?;
        let number = match admin {
            Admin::RaiseLevel { level } => levels.raise(*level)?,
            Admin::Note(_) => levels.level.into(),
            Admin::PutPrincipal(put) => match self.number(&put.principal.to_string()) {
                Some(number) => {
                    self.list[number as usize - 1] = (put.clone(), true);
                    number.into()
                }
                None => {
                    self.list.push((put.clone(), true));
                    self.list.len() as u64
                }
            },
            Admin::RemovePrincipal { principal } => {
                let number = self.number(&principal.to_string()).filter(|number| self.get(*number).is_some());
                let number = number.ok_or(ErrorCode::PrincipalNotFound)?;
                self.list[number as usize - 1].1 = false;
                for (token, there) in &mut self.tokens {
                    *there &= token.principal != *principal;
                }
                number.into()
            }
            Admin::PutToken(put) => self.put_token(put, now)?,
            Admin::RevokeToken { token_id } => {
                let place = self.tokens.iter().position(|(token, there)| *there && token.token_id == *token_id);
                let place = place.ok_or(ErrorCode::TokenNotFound)?;
                self.tokens[place].1 = false;
                place as u64 + 8
            }
        };
        Ok((number, told(who, admin)))
    }

    fn check(&self, who: Who, admin: &Admin) -> Result<(), ErrorCode> {
        let is_admin = |number| self.get(number).is_some_and(|put| put.roles.has(Role::Admin));
        let may = match (who, admin) {
            (Who::Owner(_), Admin::PutToken(put)) => {
                self.number(&put.principal.to_string()).is_some_and(|number| number != 3 && is_admin(number))
            }
            (Who::Owner(_), _) => false,
            (Who::Principal(number), Admin::PutPrincipal(PutPrincipal { principal, .. }))
            | (Who::Principal(number), Admin::RemovePrincipal { principal }) => {
                is_admin(number) && self.number(&principal.to_string()) != Some(number)
            }
            (Who::Principal(number), Admin::PutToken(put)) => is_admin(number) && put.principal.to_string() != "host",
            (Who::Principal(number), Admin::RevokeToken { .. } | Admin::RaiseLevel { .. } | Admin::Note(_)) => {
                is_admin(number)
            }
        };
        if may { Ok(()) } else { Err(ErrorCode::NotAuthorised) }
    }

    fn put_token(&mut self, put: &PutToken, now: Millis) -> Result<u64, ErrorCode> {
        let number = self.number(&put.principal.to_string());
        number.and_then(|number| self.get(number)).ok_or(ErrorCode::PrincipalNotFound)?;
        if put.expires_at <= now || put.expires_at > now + TEN_YEARS {
            return Err(ErrorCode::InvalidExpiry);
        }
        let same = self.tokens.iter().position(|(token, there)| *there && token.token_id == put.token_id);
        if let Some(place) = same {
            let equal = self.tokens[place].0 == *put;
            return if equal { Ok(place as u64 + 8) } else { Err(ErrorCode::TokenExists) };
        }
        if self.tokens.iter().filter(|(_, there)| *there).count() >= MOST_TOKENS {
            for (token, there) in &mut self.tokens {
                *there &= token.expires_at > now;
            }
        }
        if self.tokens.iter().filter(|(_, there)| *there).count() >= MOST_TOKENS {
            return Err(ErrorCode::TooManyTokens);
        }
        self.tokens.push((put.clone(), true));
        Ok(self.tokens.len() as u64 + 7)
    }

    /// Whether roles and scopes let this principal do this.
    pub(crate) fn may(&self, number: PrincipalNumber, operation: &Operation) -> bool {
        self.get(number).is_some_and(|put| may(put, operation))
    }

    /// Whether limits let this principal move so much of this asset on this day.
    pub(crate) fn within_limits(
        &self,
        number: PrincipalNumber,
        now: Millis,
        asset: &str,
        operation: &Operation,
    ) -> bool {
        let Some(PutPrincipal { limits, .. }) = self.get(number) else { return false };
        let amount = crate::amount_of(operation);
        let spent = self.spent.get(&(number, now / 86_400_000, asset.to_owned())).copied().unwrap_or(0);
        limits.per_transaction.is_none_or(|limit| amount <= limit)
            && (!leaves(operation) || limits.per_day.is_none_or(|limit| spent.saturating_add(amount) <= limit))
    }

    /// So much of this asset has left accounts.
    pub(crate) fn spend(&mut self, number: PrincipalNumber, now: Millis, asset: &str, amount: u64) {
        if self.get(number).is_some_and(|put| put.limits.per_day.is_some()) {
            *self.spent.entry((number, now / 86_400_000, asset.to_owned())).or_default() += amount;
        }
    }
}

/// Whether an account is among these.
pub(crate) fn within(scopes: &[Scope], account: &str) -> bool {
    scopes.iter().map(Scope::to_string).any(|scope| match scope.strip_suffix(':') {
        _ if scope == "*" => true,
        Some(before) => account.strip_prefix(before).is_some_and(|rest| rest.starts_with(':')),
        None => scope == account,
    })
}

/// Whether roles and scopes let a principal do this.
pub(crate) fn may(PutPrincipal { roles, scopes, .. }: &PutPrincipal, operation: &Operation) -> bool {
    match operation {
        Operation::CreateAccount(create) => {
            let may_mint = create.initial_balance.get() == 0 || roles.has(Role::Minter);
            roles.has(Role::Manager) && may_mint && within(&scopes.credit, &create.account_id)
        }
        Operation::SetAccount(set) => {
            let account = &set.account_id;
            roles.has(Role::Manager) && within(&scopes.debit, account) && within(&scopes.credit, account)
        }
        Operation::CreateAsset(_) => {
            roles.has(Role::Manager) && scopes.credit.iter().any(|scope| scope.to_string() == "*")
        }
        Operation::Deposit { account_id, .. } => roles.has(Role::Minter) && within(&scopes.credit, account_id),
        Operation::Withdraw { account_id, .. } => roles.has(Role::Minter) && within(&scopes.debit, account_id),
        Operation::Transfer { from_account, to_account, .. } => {
            roles.has(Role::Teller) && within(&scopes.debit, from_account) && within(&scopes.credit, to_account)
        }
    }
}

/// Whether money leaves an account.
pub(crate) fn leaves(operation: &Operation) -> bool {
    matches!(operation, Operation::Withdraw { .. } | Operation::Transfer { .. })
}

/// What the history says of it.
fn told(who: Who, admin: &Admin) -> String {
    let act = match admin {
        Admin::PutToken(PutToken { principal, token_id, expires_at, .. }) => format!(
            r#"{{"put_token":{{"principal":"{principal}","token_id":"{token_id}","expires_at":{expires_at}}}}}"#
        ),
        admin => String::from_utf8_lossy(&Encoding::Json.encode(admin)).into_owned(),
    };
    match who {
        Who::Principal(_) => act,
        Who::Owner(node) => format!(r#"{{"by_owner_of_node":{node},{}"#, &act[1..]),
    }
}
