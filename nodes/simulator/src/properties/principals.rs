//! Who may do what, as the log says: from the slot on where a token was revoked, its principal removed or its time over, no request with
//! it changes anything; nobody does what it has no role or no scope for, or moves more than its limits allow; a session is its
//! principal's; only administrators change principals, never their own; and what they did stands in the history.
//!
//! It sees the requests of each slot, in their order, and what the ledger answered to them. What principals are by then it makes of
//! these two.
//!
//! Source: SECURITY.md, "Principals live in the log"; BANK.md, "Records".

use std::collections::BTreeMap;

use rabia_bank_messages::bank::{AccountId, AssetCode, ErrorCode, Operation, Transaction, TransactionType};
use rabia_bank_messages::batch::{Action, Payload, RequestHeader};
use rabia_bank_messages::genesis::Founding;
use rabia_bank_messages::ids::{Digest, Millis, Slot};
use rabia_bank_messages::principal::{
    Admin, PrincipalName, PrincipalNumber, PutPrincipal, PutToken, Role, Roles, Scope, Scopes, SpendLimits,
};
use rabia_bank_model::{Reply, replay};

use super::super::workload::Workload;
use super::{Check, check};

/// A day of log time, in milliseconds.
const DAY: Millis = 86_400_000;

const IN_FORCE: &str = "tokens are in force";
const OWN_SESSIONS: &str = "sessions are their principal's";
const ALLOWED: &str = "roles and scopes";
const LIMITS: &str = "limits";
const ADMINISTRATORS: &str = "administrators' acts";

/// A token that was put.
#[derive(Debug)]
struct Put {
    principal: PrincipalName,
    expires_at: Millis,
    there: bool,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    Principal(PrincipalNumber),
    Owner,
}

/// What an administrator did.
#[derive(PartialEq, Eq, Debug)]
struct Act {
    slot: Slot,
    principal: PrincipalNumber,
    /// The words that its record begins with, unless it is an owner's.
    what: String,
}

/// What the log says of principals so far.
#[derive(Debug)]
pub(crate) struct Principals {
    names: BTreeMap<PrincipalName, PrincipalNumber>,
    list: BTreeMap<PrincipalNumber, PutPrincipal>,
    tokens: BTreeMap<u64, Put>,
    sessions: BTreeMap<u64, PrincipalNumber>,
    /// What left accounts by principal, day and asset, while it had a limit a day. The cluster's own asset is none.
    spent: BTreeMap<(PrincipalNumber, u64, Option<AssetCode>), u64>,
    acts: Vec<Act>,
    time: Millis,
}

impl Principals {
    /// Those of a new cluster.
    pub(crate) fn new(founding: &Founding) -> Principals {
        let mut principals = Principals {
            names: BTreeMap::new(),
            list: BTreeMap::new(),
            tokens: BTreeMap::new(),
            sessions: BTreeMap::new(),
            spent: BTreeMap::new(),
            acts: Vec::new(),
            time: 0,
        };
        let daily = [Role::Teller, Role::Minter, Role::Manager, Role::Auditor];
        let first: [(&str, Roles, Scopes); 3] = [
            ("admin", [Role::Admin, Role::Operator].into_iter().collect(), Scopes::default()),
            ("daily", daily.into_iter().collect(), Scopes::all()),
            ("host", Roles::all(), Scopes::all()),
        ];
        for (number, (name, roles, scopes)) in (1..).zip(first) {
            let Ok(principal) = name.parse::<PrincipalName>() else { unreachable!("{name} is a name") };
            principals.names.insert(principal.clone(), number);
            let put = PutPrincipal { principal, roles, scopes, limits: SpendLimits::default(), namespace: None };
            principals.list.insert(number, put);
        }
        for (number, token) in (8..).zip(&founding.tokens) {
            let principal = principals.list[&token.principal].principal.clone();
            principals.tokens.insert(number, Put { principal, expires_at: token.expires_at, there: true });
        }
        principals
    }

    /// A slot was applied for the first time anywhere, and its requests were answered like this.
    pub(crate) fn applied<W: Workload>(
        &mut self,
        slot: Slot,
        payload: &Payload,
        replies: &[Reply<W::Success>],
    ) -> Check {
        let Ok(stamp) = payload.stamp() else { return Ok(()) };
        let Ok(requests) = payload.requests::<W::Command>() else { return Ok(()) };
        self.time = self.time.max(stamp);
        for (request, reply) in requests.zip(replies) {
            let Ok(request) = request else { return Ok(()) };
            self.request::<W>(slot, &request.header, &request.action, reply)?;
        }
        Ok(())
    }

    fn asker(&self, token: u64) -> Option<Asker> {
        let number = match token {
            0 => 3,
            1..=7 => return Some(Asker::Owner),
            _ => {
                let put = self.tokens.get(&token).filter(|put| put.there && self.time < put.expires_at)?;
                *self.names.get(&put.principal)?
            }
        };
        self.list.contains_key(&number).then_some(Asker::Principal(number))
    }

    fn request<W: Workload>(
        &mut self,
        slot: Slot,
        header: &RequestHeader,
        action: &Action<W::Command>,
        reply: &Reply<W::Success>,
    ) -> Check {
        let what = || format!("in slot {slot} {header:?} got {reply:?}");
        let asker = match self.asker(header.token) {
            None => return check(*reply == Reply::Rejected(ErrorCode::NotAuthorised), IN_FORCE, what),
            Some(Asker::Owner) => match (action, reply) {
                (_, Reply::Rejected(_)) => return Ok(()),
                (Action::Admin(admin), Reply::Administered { outcome, .. }) => {
                    return outcome
                        .as_ref()
                        .map_or(Ok(()), |number| self.administered(slot, Asker::Owner, admin, *number));
                }
                _ => return check(false, ADMINISTRATORS, what),
            },
            Some(Asker::Principal(number)) => number,
        };
        match reply {
            Reply::Opened(session) => {
                let owner = *self.sessions.entry(*session).or_insert(asker);
                check(owner == asker, OWN_SESSIONS, what)
            }
            Reply::Rejected(_) => Ok(()),
            Reply::Closed => check(self.sessions.get(&header.session) == Some(&asker), OWN_SESSIONS, what),
            Reply::Command { replayed, answer, .. } => {
                check(self.sessions.get(&header.session) == Some(&asker), OWN_SESSIONS, what)?;
                match (action, &**answer) {
                    (Action::Command(command), Ok(success)) if !*replayed => W::performed(command, success)
                        .iter()
                        .try_for_each(|(operation, record)| self.performed(asker, operation, record.as_ref(), &what)),
                    _ => Ok(()),
                }
            }
            Reply::Administered { replayed, outcome, .. } => {
                check(self.sessions.get(&header.session) == Some(&asker), OWN_SESSIONS, what)?;
                match (action, outcome) {
                    (Action::Admin(admin), Ok(number)) if !*replayed => {
                        self.administered(slot, Asker::Principal(asker), admin, *number)
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Something was done for a principal.
    fn performed(
        &mut self,
        asker: PrincipalNumber,
        operation: &Operation,
        record: Option<&Transaction>,
        what: &impl Fn() -> String,
    ) -> Check {
        let PutPrincipal { roles, scopes, limits, .. } = &self.list[&asker];
        let Needs { role, debit, credit, amount, leaves } = needs(operation);
        let opens_with_money = role == Role::Manager && amount > 0;
        let has_role = roles.has(role) && (!opens_with_money || roles.has(Role::Minter));
        let all = scopes.credit.iter().any(|scope| scope.to_string() == "*");
        let in_scope = debit.is_none_or(|account| is_among(&scopes.debit, account))
            && credit.is_none_or(|account| is_among(&scopes.credit, account))
            && (all || !matches!(operation, Operation::CreateAsset(_)));
        check(has_role && in_scope, ALLOWED, || {
            format!("principal {asker} with {roles:?} and {scopes:?} did {operation:?}: {}", what())
        })?;
        check(record.is_some_and(|record| record.principal == Some(asker)), "records name who asked", what)?;
        check(limits.per_transaction.is_none_or(|most| amount <= most), LIMITS, || {
            format!("principal {asker} with {limits:?} did {operation:?}: {}", what())
        })?;
        let Some(most) = limits.per_day.filter(|_| leaves) else { return Ok(()) };
        let asset = record.and_then(|record| record.asset.clone());
        let spent = self.spent.entry((asker, self.time / DAY, asset)).or_default();
        *spent += amount;
        check(*spent <= most, LIMITS, || {
            format!("principal {asker} moved {spent} of at most {most} on a day, last by {operation:?}: {}", what())
        })
    }

    /// An administrator's command was carried out, by which a principal or token has this number.
    fn administered(&mut self, slot: Slot, asker: Asker, admin: &Admin, number: u64) -> Check {
        let is_admin = |number| self.list.get(number).is_some_and(|put| put.roles.has(Role::Admin));
        let own = |name: &PrincipalName, number: PrincipalNumber| self.names.get(name) == Some(&number);
        let allowed = match (asker, admin) {
            (Asker::Owner, Admin::PutToken(put)) => self.names.get(&put.principal).is_some_and(is_admin),
            (Asker::Owner, _) => false,
            (
                Asker::Principal(asker),
                Admin::PutPrincipal(PutPrincipal { principal, .. }) | Admin::RemovePrincipal { principal },
            ) => is_admin(&asker) && !own(principal, asker),
            (
                Asker::Principal(asker),
                Admin::PutToken(_) | Admin::RevokeToken { .. } | Admin::RaiseLevel { .. } | Admin::Note(_),
            ) => is_admin(&asker),
        };
        check(allowed, ADMINISTRATORS, || format!("in slot {slot} {asker:?} did {admin:?}"))?;
        let what = match admin {
            Admin::PutPrincipal(put) => {
                self.names.insert(put.principal.clone(), number as PrincipalNumber);
                self.list.insert(number as PrincipalNumber, put.clone());
                format!("\"put_principal\":{{\"principal\":\"{}\"", put.principal)
            }
            Admin::RemovePrincipal { principal } => {
                self.list.remove(&(number as PrincipalNumber));
                self.tokens.values_mut().filter(|put| put.principal == *principal).for_each(|put| put.there = false);
                format!("\"remove_principal\":{{\"principal\":\"{principal}\"")
            }
            Admin::PutToken(PutToken { principal, token_id, expires_at, .. }) => {
                let put = Put { principal: principal.clone(), expires_at: *expires_at, there: true };
                self.tokens.insert(number, put);
                format!("\"put_token\":{{\"principal\":\"{principal}\",\"token_id\":\"{token_id}\"")
            }
            Admin::RevokeToken { token_id } => {
                if let Some(put) = self.tokens.get_mut(&number) {
                    put.there = false;
                }
                format!("\"revoke_token\":{{\"token_id\":\"{token_id}\"")
            }
            Admin::RaiseLevel { level } => format!("\"raise_level\":{{\"level\":{level}}}"),
            Admin::Note(_) => "\"note\":".into(),
        };
        let principal = if let Asker::Principal(number) = asker { number } else { 0 };
        self.acts.push(Act { slot, principal, what });
        Ok(())
    }

    /// At the end: the history of a node that has applied the log up to a slot has what administrators did by then, and nothing else of
    /// that kind, and its hashes lead to its newest.
    pub(crate) fn is_told_by(&self, history: &[Transaction], applied: Slot, newest: Digest) -> Check {
        let head = replay(history).map(|replayed| replayed.head);
        check(head.as_ref() == Ok(&newest), ADMINISTRATORS, || {
            format!("the history leads to {head:?}, and the ledger's newest hash is {newest}")
        })?;
        let told = history.iter().filter(|record| record.transaction_type == TransactionType::Admin);
        let told: Vec<_> = told.map(|record| (record.slot, record.principal, record.act.as_deref())).collect();
        let acts = &self.acts[..self.acts.partition_point(|act| act.slot <= applied)];
        let same = told.len() == acts.len()
            && told.iter().zip(acts).all(|((slot, principal, text), act)| {
                (*slot, *principal) == (act.slot, Some(act.principal))
                    && text.is_some_and(|text| text.contains(&act.what))
            });
        check(same, ADMINISTRATORS, || format!("the history has {told:?}, administrators did {acts:?}"))
    }
}

/// What an operation takes that is carried out.
struct Needs<'a> {
    role: Role,
    debit: Option<&'a AccountId>,
    credit: Option<&'a AccountId>,
    amount: u64,
    /// Money leaves an account.
    leaves: bool,
}

fn needs(operation: &Operation) -> Needs<'_> {
    let (role, debit, credit, amount) = match operation {
        Operation::CreateAccount(create) => {
            (Role::Manager, None, Some(&create.account_id), create.initial_balance.get())
        }
        Operation::SetAccount(set) => (Role::Manager, Some(&set.account_id), Some(&set.account_id), 0),
        Operation::CreateAsset(_) => (Role::Manager, None, None, 0),
        Operation::Deposit { account_id, amount } => (Role::Minter, None, Some(account_id), amount.get()),
        Operation::Withdraw { account_id, amount } => (Role::Minter, Some(account_id), None, amount.get()),
        Operation::Transfer { from_account, to_account, amount } => {
            (Role::Teller, Some(from_account), Some(to_account), amount.get())
        }
    };
    let leaves = matches!(operation, Operation::Withdraw { .. } | Operation::Transfer { .. });
    Needs { role, debit, credit, amount, leaves }
}

/// Whether an account is among these: by its name, by what that begins with up to a `:`, or all.
fn is_among(scopes: &[Scope], account: &str) -> bool {
    scopes.iter().any(|scope| {
        let scope = scope.to_string();
        scope == "*" || scope == account || (scope.ends_with(':') && account.starts_with(&scope))
    })
}
