//! `rabia-bank principal` and `rabia-bank token`: who may do what, by an administrator.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rabia_bank_messages::bank::{ErrorCode, Query, ReadLevel, Success};
use rabia_bank_messages::escape::escaped;
use rabia_bank_messages::ids::{Millis, TokenId};
use rabia_bank_messages::principal::{
    Admin, DEFAULT_TOKEN_LIFE, PrincipalInfo, PrincipalName, PutPrincipal, PutToken, Role, Scope, Scopes, SpendLimits,
    TokenInfo, certificate_id,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use super::client::seconds;
use super::{ClientToken, Connect, EXIT_CODES, Exit, ProgramError, default_data_dir, runtime, terminal};
use crate::certificate::key_hash;
use crate::client::{CallError, Client, ClientOptions};
use crate::control::ask_put_token;
use crate::create::wall;
use crate::tokens::{self, admin_token};

/// A day, in milliseconds.
const DAY: Millis = 24 * 60 * 60 * 1_000;

/// What both commands have.
#[derive(clap::Args, Debug)]
struct Common {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    token: ClientToken,
    /// How long to try, in seconds.
    #[arg(long, global = true, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    timeout: Duration,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

/// The command line of `principal`.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
Asks with an administrator's token: --token-file, the variable RABIA_BANK_TOKEN, or else admin/token in the folder of a cluster
that was made here. A scope is the name of an account, what names begin with up to a colon (shop: has shop:till, and not shop),
or * for all. Roles: reader, teller, minter, manager, auditor, operator, admin.

{EXIT_CODES}"))]
pub struct PrincipalArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    task: PrincipalTask,
}

#[derive(clap::Subcommand, Debug)]
enum PrincipalTask {
    /// Make a principal, or make it another: what is not said here it does not have.
    Put {
        /// Its name.
        name: PrincipalName,
        /// What kind of things it may do; may be said several times.
        #[arg(long, value_name = "ROLE", value_parser = role)]
        role: Vec<Role>,
        /// Accounts that it may look at; may be said several times.
        #[arg(long, value_name = "SCOPE")]
        read: Vec<Scope>,
        /// Accounts that it may take money from.
        #[arg(long, value_name = "SCOPE")]
        debit: Vec<Scope>,
        /// Accounts that it may bring money to, and open.
        #[arg(long, value_name = "SCOPE")]
        credit: Vec<Scope>,
        /// The most that one transaction of it moves, in minor units.
        #[arg(long, value_name = "AMOUNT")]
        per_transaction: Option<u64>,
        /// The most that it takes out of accounts on a day of log time, in minor units.
        #[arg(long, value_name = "AMOUNT")]
        per_day: Option<u64>,
        /// In whose references its own are unique.
        #[arg(long, value_name = "NAME")]
        namespace: Option<PrincipalName>,
    },
    /// List principals.
    List,
    /// Take a principal and its tokens away. Its number stays in the history.
    Remove {
        /// Its name.
        name: PrincipalName,
    },
}

/// The command line of `token`.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
Asks with an administrator's token: --token-file, the variable RABIA_BANK_TOKEN, or else admin/token in the folder of a cluster
that was made here. A new token is shown once. Whoever owns the folder of a running node can make one for an administrator
without: that answers a lost one.

{EXIT_CODES}"))]
pub struct TokenArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    task: TokenTask,
}

#[derive(clap::Subcommand, Debug)]
enum TokenTask {
    /// Make a token for a principal, and show it.
    Create {
        /// Whose.
        principal: PrincipalName,
        /// For how many days it is in force.
        #[arg(long, default_value_t = DEFAULT_TOKEN_LIFE / DAY, value_name = "DAYS",
              value_parser = clap::value_parser!(u64).range(1..=3_650))]
        days: u64,
        /// Write it into this file, for its owner alone, instead of showing it. Nothing may be there.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// Ask as the owner of this running node's folder, for an administrator who has lost the token.
        #[arg(long, value_name = "DIR")]
        through: Option<PathBuf>,
        /// Let the certificate in this file (PEM) speak for the principal, instead of a token: nodes ask clients for one where their
        /// configuration has client_ca.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "through"])]
        certificate: Option<PathBuf>,
    },
    /// List tokens, without what they are.
    List,
    /// Take a token away. Connections that have shown it end.
    Revoke {
        /// The 16 digits behind rb_.
        id: TokenId,
    },
}

fn role(text: &str) -> Result<Role, String> {
    let names = || Role::ALL.map(Role::name).join(", ");
    Role::named(text).ok_or_else(|| format!("expected one of {}", names()))
}

/// Carries out what is asked of principals.
///
/// # Errors
/// If it was refused, or there is no answer.
pub fn run_principal(PrincipalArgs { common, task }: PrincipalArgs) -> Result<Exit, ProgramError> {
    match task {
        PrincipalTask::Put { name, role, read, debit, credit, per_transaction, per_day, namespace } => {
            let put = PutPrincipal {
                principal: name.clone(),
                roles: role.into_iter().collect(),
                scopes: Scopes { read, debit, credit },
                limits: SpendLimits { per_transaction, per_day },
                namespace,
            };
            let number = match administer(&common, Admin::PutPrincipal(put))? {
                Ok(number) => number,
                Err(exit) => return Ok(exit),
            };
            said(&common, json!({"number": number}), &format!("{name} is principal {number}."))
        }
        PrincipalTask::List => {
            let (principals, _) = match list(&common)? {
                Ok(listed) => listed,
                Err(exit) => return Ok(exit),
            };
            for principal in principals {
                said(&common, json!(principal), &principal_line(&principal))?;
            }
            Ok(Exit::Done)
        }
        PrincipalTask::Remove { name } => {
            match administer(&common, Admin::RemovePrincipal { principal: name.clone() })? {
                Ok(number) => said(&common, json!({"number": number}), &format!("{name} is removed.")),
                Err(exit) => Ok(exit),
            }
        }
    }
}

/// Carries out what is asked of tokens.
///
/// # Errors
/// If it was refused, or there is no answer.
pub fn run_token(TokenArgs { common, task }: TokenArgs) -> Result<Exit, ProgramError> {
    match task {
        TokenTask::Create { principal, days, certificate: Some(file), .. } => {
            put_certificate(&common, principal, days * DAY, &file)
        }
        TokenTask::Create { principal, days, to, through, certificate: None } => {
            create(&common, principal, days * DAY, to.as_deref(), through.as_deref())
        }
        TokenTask::List => {
            let (_, tokens) = match list(&common)? {
                Ok(listed) => listed,
                Err(exit) => return Ok(exit),
            };
            for token in tokens {
                let TokenInfo { token_id, number, principal, expires_at } = &token;
                let line = format!("{token_id}  token {number} of {principal}, until {}", terminal::time(*expires_at));
                said(&common, json!(token), &line)?;
            }
            Ok(Exit::Done)
        }
        TokenTask::Revoke { id } => match administer(&common, Admin::RevokeToken { token_id: id })? {
            Ok(number) => said(&common, json!({"number": number}), &format!("{id} is revoked.")),
            Err(exit) => Ok(exit),
        },
    }
}

fn create(
    common: &Common,
    principal: PrincipalName,
    life: Millis,
    to: Option<&Path>,
    through: Option<&Path>,
) -> Result<Exit, ProgramError> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |error| ProgramError::Other(format!("can't write {path}: {error}"))
    };
    let token = tokens::draw();
    // A token that nobody could keep is not put.
    if let Some(file) = to {
        tokens::write(file, &token).map_err(at(file))?;
    }
    let put = tokens::put(&token, principal, wall().saturating_add(life));
    let put_it = || match through {
        Some(node_dir) => Ok(Ok(ask_put_token(node_dir, &put)?)),
        None => administer(common, Admin::PutToken(put.clone())),
    };
    let number = match put_it() {
        Ok(Ok(number)) => number,
        failed => {
            if let Some(file) = to {
                std::fs::remove_file(file).map_err(at(file))?;
            }
            return failed.map(|done: Result<u64, Exit>| done.err().unwrap_or(Exit::Failed));
        }
    };
    match to {
        Some(file) => {
            let text = format!("Token {number} of {} is in {}.", put.principal, file.display());
            said(common, json!({"number": number, "token_id": put.token_id.to_string()}), &text)
        }
        None => said(common, json!({"number": number, "token": token.reveal()}), token.reveal()),
    }
}

fn put_certificate(common: &Common, principal: PrincipalName, life: Millis, file: &Path) -> Result<Exit, ProgramError> {
    let read = CertificateDer::from_pem_file(file).map_err(|error| error.to_string());
    let hash = read.and_then(|certificate| key_hash(&certificate).ok_or("it is damaged".into()));
    let token_hash =
        hash.map_err(|why| ProgramError::Usage(format!("there is no certificate in {}: {why}", file.display())))?;
    let (token_id, expires_at) = (certificate_id(&token_hash), wall().saturating_add(life));
    let put = PutToken { principal: principal.clone(), token_id, token_hash, expires_at };
    match administer(common, Admin::PutToken(put))? {
        Ok(number) => {
            let text =
                format!("The certificate in {} speaks for {principal}: token {number}, id {token_id}.", file.display());
            said(common, json!({"number": number, "token_id": token_id.to_string()}), &text)
        }
        Err(exit) => Ok(exit),
    }
}

fn said(common: &Common, json: serde_json::Value, text: &str) -> Result<Exit, ProgramError> {
    if common.json {
        terminal::print_json(json.to_string().as_bytes())?;
    } else {
        terminal::print(escaped(text))?;
    }
    Ok(Exit::Done)
}

fn principal_line(PrincipalInfo { number, put }: &PrincipalInfo) -> String {
    let PutPrincipal { principal, roles, scopes, limits, .. } = put;
    let roles = roles.iter().map(Role::name).collect::<Vec<_>>().join(", ");
    let mut line = format!("{number}  {principal}: {roles}");
    for (what, scopes) in [("read", &scopes.read), ("debit", &scopes.debit), ("credit", &scopes.credit)] {
        let scopes = scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" ");
        if !scopes.is_empty() {
            line += &format!("; {what} {scopes}");
        }
    }
    for (what, limit) in [("a transaction", limits.per_transaction), ("a day", limits.per_day)] {
        line += &limit.map(|limit| format!("; {} {what}", terminal::grouped(limit))).unwrap_or_default();
    }
    line
}

fn client(common: &Common) -> Result<Client, ProgramError> {
    let token = common.token.find_or(&admin_token(&default_data_dir()), &common.connect.trust)?;
    Ok(Client::connect(ClientOptions { token, timeout: common.timeout, ..common.connect.options()? }))
}

/// The number that an administrator's command brought, or how the program ends.
fn administer(common: &Common, admin: Admin) -> Result<Result<u64, Exit>, ProgramError> {
    runtime()?.block_on(async {
        let client = client(common)?;
        let answer = terminal::wait("waiting for an answer …", client.administer(admin)).await;
        client.close().await;
        match answer.map(|applied| applied.success) {
            Ok(Success::Administered { number }) => Ok(Ok(number)),
            Ok(other) => Err(ProgramError::Other(format!("the node answered {other:?}"))),
            Err(error) => Ok(Err(failed(&error))),
        }
    })
}

type Listed = (Vec<PrincipalInfo>, Vec<TokenInfo>);

fn list(common: &Common) -> Result<Result<Listed, Exit>, ProgramError> {
    runtime()?.block_on(async {
        let client = client(common)?;
        let query = client.query(Query::ListPrincipals {}, ReadLevel::Linearizable);
        let answer = terminal::wait("waiting for an answer …", query).await;
        client.close().await;
        match answer.map(|applied| applied.success) {
            Ok(Success::Principals { principals, tokens }) => Ok(Ok((principals, tokens))),
            Ok(other) => Err(ProgramError::Other(format!("the node answered {other:?}"))),
            Err(error) => Ok(Err(failed(&error))),
        }
    })
}

/// Says what is wrong, and how the program ends.
fn failed(error: &CallError) -> Exit {
    let advice = match error {
        CallError::Refused(refusal) if refusal.code == ErrorCode::NotAuthorised => {
            "; is it an administrator's token? See --help"
        }
        _ => "",
    };
    terminal::error(&format!("{}{advice}", escaped(&error.to_string())));
    match error {
        CallError::Refused(_) => Exit::Refused,
        CallError::Unknown(_) => Exit::Unknown,
        CallError::NotReached(_) => Exit::NotReached,
    }
}
