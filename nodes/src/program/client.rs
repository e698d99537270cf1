//! `rabia-bank client`: one request, or a watch, through the client library.

mod show;

use std::path::PathBuf;
use std::time::Duration;

use rabia_bank_messages::bank::{
    AccountId, AccountStatus, Amount, AssetCode, Bound, Bulk, Command, CreateAccount, CreateAsset,
    DEFAULT_TRANSACTION_LIMIT, ErrorCode, HistoryFilter, ItemResult, Operation, Outcome, Query, ReadLevel, Refusal,
    SetAccount, Success, TransactionType,
};
use rabia_bank_messages::client::{CLIENT_PATH, Feed, STATUS_PATH};
use rabia_bank_messages::codec::{self, Encoding};
use rabia_bank_messages::escape::escaped;
use rabia_bank_messages::principal::Admin;
use serde_json::{Value, json};

use super::time::{TIMES, parse_end, parse_time};
use super::{ClientToken, Connect, EXIT_CODES, Exit, ProgramError, default_data_dir, runtime, terminal};
use crate::client::{
    Answered, CallError, Client, ClientOptions, NodeUrl, Request, Subscription, Unanswered, Unknown, is_passing,
};
use crate::tokens::admin_token;

/// What helps where nodes answer and can't serve.
const QUORUM: &str = "A majority of the nodes must run and see one another: `rabia-bank client status`";
/// What helps where a slot is not there yet.
const AHEAD: &str = "The slot that --read names is ahead of the cluster: name one that an answer named";
/// A status says how things are now: a node that does not answer within this time is reported as not reached.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "
Examples:
  rabia-bank client create-account alice 1000
  rabia-bank client transfer alice bob 300
  rabia-bank client --json balance bob
  echo '[{\"deposit\": {\"account_id\": \"bob\", \"amount\": 5}}]' | rabia-bank client bulk --atomic -
  rabia-bank client watch alice
  rabia-bank client status";

/// The command line of `client`.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
Amounts are whole numbers of minor units (cents). Account ids are 1 to 50 characters of A-Z a-z 0-9 _ - . :
{TIMES}

{EXIT_CODES}

Where no answer came, --json prints an error of this program in its place: `not_reached` (no node was), `not_served` (nodes
were, but none could serve it; there may be no majority) or `no_answer`, with the outcome.
{EXAMPLES}"))]
pub struct Args {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    token: ClientToken,
    /// Print the answers as they came: JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
    /// How fresh a query's answer must be: linearizable (sees all that was acknowledged before), local (what the node
    /// has), or a slot (what an answer named; the node has applied it at least).
    #[arg(long, global = true, default_value = "linearizable", value_name = "LEVEL", value_parser = read_level)]
    read: ReadLevel,
    /// How long to try, in seconds.
    #[arg(long, global = true, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    timeout: Duration,
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Subcommand, Debug)]
enum Task {
    #[command(flatten)]
    Ask(Ask),
    /// Print transactions as they happen, without a gap, until interrupted. With --json one transaction a line.
    Watch {
        /// Only those of this account.
        account: Option<AccountId>,
        /// Only those of at least this amount.
        #[arg(long, value_name = "AMOUNT")]
        min_amount: Option<u64>,
        /// Only those of this asset. Where nothing is said, an amount is of the cluster's own one.
        #[arg(long, value_name = "ASSET")]
        asset: Option<AssetCode>,
        /// Begin with this transaction instead of the next one to come.
        #[arg(long, value_name = "ID")]
        from: Option<u64>,
    },
    /// Show the state of every node.
    Status {
        /// And how long each stage of its work took since its start. (--json always tells.)
        #[arg(long)]
        stages: bool,
    },
}

/// What is one request and one answer.
#[derive(clap::Subcommand, Debug)]
enum Ask {
    /// Open an account, with a first balance if you like.
    CreateAccount {
        /// The name of the new account.
        account: AccountId,
        /// What it begins with, in minor units.
        #[arg(default_value = "0", allow_negative_numbers = true, value_parser = amount)]
        initial_balance: Amount,
        /// What it holds; the cluster's own asset where nothing is said.
        #[arg(long, value_name = "ASSET")]
        asset: Option<AssetCode>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change what an account lets happen, or what is said of it. What is not named stays.
    SetAccount {
        /// The name of the account.
        account: AccountId,
        /// open, no_debits, no_credits, frozen, or for ever closed (with a balance of 0).
        #[arg(long, value_name = "STATUS", value_parser = account_status)]
        status: Option<AccountStatus>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Bring an asset into being: a currency, shares, points. All of it is for ever.
    CreateAsset {
        /// Its code: 1 to 12 of A-Z 0-9 .
        asset: AssetCode,
        /// How many decimal places it has, 0 to 8.
        scale: u64,
        /// The largest amount of one transaction, in minor units.
        #[arg(default_value_t = DEFAULT_TRANSACTION_LIMIT)]
        limit: u64,
    },
    /// Bring money into an account from outside.
    Deposit {
        /// The account that gets it.
        account: AccountId,
        /// The amount, in minor units.
        #[arg(allow_negative_numbers = true, value_parser = amount)]
        amount: Amount,
    },
    /// Take money out of an account.
    Withdraw {
        /// Where it comes from.
        account: AccountId,
        /// The amount, in minor units.
        #[arg(allow_negative_numbers = true, value_parser = amount)]
        amount: Amount,
    },
    /// Move money from one account to another.
    Transfer {
        /// Where it comes from.
        from: AccountId,
        /// The account that gets it.
        to: AccountId,
        /// The amount, in minor units.
        #[arg(allow_negative_numbers = true, value_parser = amount)]
        amount: Amount,
    },
    /// Carry out several commands as one request. Exit code 4 if any of them was refused.
    Bulk {
        /// A file with commands as JSON, in an array or one a line, as {"transfer": {"from_account": …}}; - for stdin.
        #[arg(default_value = "-")]
        file: PathBuf,
        /// Carry out all commands, or none of them.
        #[arg(long)]
        atomic: bool,
    },
    /// Show an account, with its balance.
    Account {
        /// The name of the account.
        account: AccountId,
    },
    /// List accounts by name.
    Accounts {
        /// Only names after this one.
        #[arg(long, value_name = "ACCOUNT")]
        after: Option<AccountId>,
        /// At most so many; 1 to 1000.
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
        /// Only those of this class.
        #[arg(long, value_name = "CODE")]
        code: Option<Box<str>>,
    },
    /// List the assets that there are, and how much of each.
    Assets,
    /// Show the balance of an account.
    Balance {
        /// The name of the account.
        account: AccountId,
    },
    /// List transactions, newest first.
    History {
        /// Only those of this account.
        account: Option<AccountId>,
        /// Only those of this type, such as opening, deposit, withdrawal, transfer or account_change.
        #[arg(long = "type", value_name = "TYPE", value_parser = transaction_type)]
        transaction_type: Option<TransactionType>,
        /// Only those at or after this time.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        from: Option<u64>,
        /// Only those before this time.
        #[arg(long, value_name = "TIME", value_parser = parse_end)]
        to: Option<u64>,
        /// Only those with a lower id.
        #[arg(long, value_name = "ID")]
        before: Option<u64>,
        /// At most so many; 1 to 1000.
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// Show one transaction, with the balances after it.
    Transaction {
        /// The id of the transaction, from 1.
        id: u64,
    },
    /// Raise the level of the cluster, once every node runs a program that knows it: see "Upgrades" in the README. For administrators.
    RaiseLevel {
        /// The level to raise it to, from the next slot on.
        level: u32,
    },
    /// Figures over the accounts and transactions of an asset.
    Statistics {
        /// Which asset; the cluster's own one where nothing is said.
        #[arg(long, value_name = "ASSET")]
        asset: Option<AssetCode>,
        /// From which amount on transactions are listed as large.
        #[arg(long, value_name = "AMOUNT")]
        large: Option<u64>,
    },
}

/// What may be said of a new account, and of one that is there.
#[derive(clap::Args, Debug)]
struct Settings {
    /// No command takes the balance below this; below 0 or none only in a cluster that allows overdrafts.
    #[arg(long, value_name = "BALANCE", allow_negative_numbers = true, value_parser = bound)]
    min_balance: Option<Bound>,
    /// No command takes the balance above this; or none.
    #[arg(long, value_name = "BALANCE", allow_negative_numbers = true, value_parser = bound)]
    max_balance: Option<Bound>,
    /// Its class, to filter by.
    #[arg(long, value_name = "CODE")]
    code: Option<Box<str>>,
    /// Whose it is, or what for.
    #[arg(long, value_name = "NAME")]
    name: Option<Box<str>>,
}

pub(super) fn read_level(text: &str) -> Result<ReadLevel, String> {
    match text {
        "linearizable" => Ok(ReadLevel::Linearizable),
        "local" => Ok(ReadLevel::Local),
        slot => match slot.parse() {
            Ok(slot) => Ok(ReadLevel::AtLeast(slot)),
            Err(_) => Err("expected linearizable, local, or the number of a slot".into()),
        },
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "expected a number of seconds")?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| "expected a number of seconds above 0")?;
    if duration.is_zero() || duration > Duration::from_secs(86_400) {
        return Err("expected more than 0 seconds and at most a day".into());
    }
    Ok(duration)
}

/// Any number is an amount to the bank, which refuses those that are none.
fn amount(text: &str) -> Result<Amount, String> {
    match (text.parse::<u64>(), text.parse::<f64>()) {
        (Ok(whole), _) => Ok(Amount::new(whole)),
        (Err(_), Ok(_)) => Ok(Amount::INVALID),
        (Err(_), Err(_)) => Err("expected a number of minor units".into()),
    }
}

/// Any number is a bound to the bank, which refuses those that are none.
fn bound(text: &str) -> Result<Bound, String> {
    match (text, text.parse::<i64>(), text.parse::<f64>()) {
        ("none", ..) => Ok(Bound::None),
        (_, Ok(whole), _) => Ok(Bound::At(whole)),
        (_, Err(_), Ok(_)) => Ok(Bound::INVALID),
        (_, Err(_), Err(_)) => Err("expected a number of minor units, or none".into()),
    }
}

fn account_status(text: &str) -> Result<AccountStatus, String> {
    AccountStatus::named(text).ok_or_else(|| "expected open, no_debits, no_credits, frozen or closed".into())
}

fn transaction_type(text: &str) -> Result<TransactionType, String> {
    let found = TransactionType::ALL.into_iter().find(|kind| kind.name() == text);
    let names: Vec<&str> = TransactionType::ALL.iter().map(|kind| kind.name()).collect();
    found.ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

/// What was asked for: without an answer to a query nothing is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Command,
    Query,
}

/// Carries the request out and prints what came of it.
///
/// # Errors
/// If there is something wrong with the input or the output. Refusals are printed and told by the exit code.
pub fn run(args: Args) -> Result<Exit, ProgramError> {
    runtime()?.block_on(async {
        let Args { connect, token, json, read, timeout, task } = args;
        let token = match &task {
            Task::Ask(Ask::RaiseLevel { .. }) => token.find_or(&admin_token(&default_data_dir()), &connect.trust)?,
            _ => token.find(&connect.trust)?,
        };
        let options = ClientOptions { token, encoding: Encoding::Json, timeout, ..connect.options()? };
        match task {
            Task::Status { stages } => status(options, stages, json).await,
            Task::Watch { account, min_amount, asset, from } => {
                let feed = Feed { account_id: account, min_amount, asset, from };
                tokio::select! {
                    ended = watch(options, feed, json) => ended,
                    interrupted = tokio::signal::ctrl_c() => Ok(interrupted.map(|()| Exit::Done)?),
                }
            }
            Task::Ask(ask) => {
                let request = request(ask, read)?;
                let asked = match &request {
                    Request::Command(_) | Request::Admin(_) => Asked::Command,
                    Request::Query(..) => Asked::Query,
                };
                let client = Client::connect(options);
                let outcome = terminal::wait("waiting for an answer …", client.ask(request)).await;
                client.close().await;
                report(outcome, asked, json)
            }
        }
    })
}

/// The request that was asked for.
fn request(ask: Ask, read: ReadLevel) -> Result<Request, ProgramError> {
    let operation = |operation| Request::Command(Command::One(operation));
    let query = |query| Request::Query(query, read);
    Ok(match ask {
        Ask::CreateAccount { account: account_id, initial_balance, asset, settings } => {
            let Settings { min_balance, max_balance, code, name } = settings;
            operation(Operation::CreateAccount(Box::new(CreateAccount {
                account_id,
                initial_balance,
                asset,
                min_balance,
                max_balance,
                code,
                name,
            })))
        }
        Ask::SetAccount { account: account_id, status, settings } => {
            let Settings { min_balance, max_balance, code, name } = settings;
            let change = SetAccount { account_id, min_balance, max_balance, status, code, name };
            operation(Operation::SetAccount(Box::new(change)))
        }
        Ask::CreateAsset { asset, scale, limit } => {
            operation(Operation::CreateAsset(CreateAsset { asset, scale, limit }))
        }
        Ask::Deposit { account: account_id, amount } => operation(Operation::Deposit { account_id, amount }),
        Ask::Withdraw { account: account_id, amount } => operation(Operation::Withdraw { account_id, amount }),
        Ask::Transfer { from: from_account, to: to_account, amount } => {
            operation(Operation::Transfer { from_account, to_account, amount })
        }
        Ask::Bulk { file, atomic } => {
            let text = if file.as_os_str() == "-" {
                let read = std::io::read_to_string(std::io::stdin());
                read.map_err(|e| ProgramError::Usage(format!("can't read stdin: {e}")))?
            } else {
                let read = std::fs::read_to_string(&file);
                read.map_err(|e| ProgramError::Usage(format!("can't read {}: {e}", file.display())))?
            };
            let commands = operations(&text)
                .map_err(|e| ProgramError::Usage(format!("{} holds no commands: {e}", file.display())))?;
            Request::Command(Command::Bulk(Bulk { commands, atomic }))
        }
        Ask::Account { account: account_id } => query(Query::GetAccount { account_id }),
        Ask::Accounts { after, limit, code } => query(Query::ListAccounts { after, limit, code }),
        Ask::Assets => query(Query::ListAssets {}),
        Ask::Balance { account: account_id } => query(Query::GetBalance { account_id }),
        Ask::History { account: account_id, transaction_type, from: from_time, to, before, limit } => {
            // On the wire the end is inclusive.
            let to_time = to.map(|end| end - 1);
            let filter = HistoryFilter { account_id, transaction_type, from_time, to_time, before, limit };
            query(Query::GetTransactionHistory(filter))
        }
        Ask::Transaction { id: transaction_id } => query(Query::GetTransaction { transaction_id }),
        Ask::RaiseLevel { level } => Request::Admin(Admin::RaiseLevel { level }),
        Ask::Statistics { asset, large: large_amount } => query(Query::GetStatistics { large_amount, asset }),
    })
}

/// The operations in an array, or one after the other. Some editors begin a file with a byte-order mark, which means nothing here.
fn operations(text: &str) -> serde_json::Result<Vec<Operation>> {
    // Numbers as they are written, before a float could round them.
    let exact = codec::exact_numbers(text.strip_prefix('\u{feff}').unwrap_or(text));
    let text = &*exact;
    if text.trim_start().starts_with('[') {
        serde_json::from_str(text)
    } else {
        serde_json::Deserializer::from_str(text).into_iter().collect()
    }
}

/// Prints the outcome of a request.
fn report(outcome: Result<Answered, Unanswered>, asked: Asked, json: bool) -> Result<Exit, ProgramError> {
    let answered = match outcome {
        Ok(answered) => answered,
        Err(unanswered) => return report_unanswered(&unanswered, asked, json),
    };
    if let Some(refusal) = &answered.refusal {
        if json {
            terminal::print_json(answered.frame())?;
        } else {
            show_refusal(refusal);
        }
        return Ok(exit_of(refusal));
    }
    let success = match answered.success() {
        Ok(success) => success,
        Err(malformed) => {
            let why = format!("the node's answer can't be read: {malformed}");
            let unknown = Unknown { why, last: Some(Box::new(answered)) };
            return report_unanswered(&Unanswered::Unknown(unknown), asked, json);
        }
    };
    if json {
        terminal::print_json(answered.frame())?;
    } else {
        for line in show::success(&success) {
            terminal::print(line)?;
        }
    }
    let any_refused = match &success {
        Success::Results { results } => results.iter().any(|result| matches!(result, ItemResult::Error(_))),
        _ => false,
    };
    Ok(if any_refused { Exit::Refused } else { Exit::Done })
}

fn report_unanswered(unanswered: &Unanswered, asked: Asked, json: bool) -> Result<Exit, ProgramError> {
    let exit = match (unanswered, asked) {
        (Unanswered::Unknown(_), Asked::Command) => Exit::Unknown,
        (Unanswered::Unknown(_), Asked::Query) | (Unanswered::NotReached(_), _) => Exit::NotReached,
    };
    if json {
        match unanswered {
            Unanswered::Unknown(Unknown { last: Some(last), .. }) => terminal::print_json(last.frame())?,
            _ => terminal::print_json(unanswered_json(unanswered, asked).to_string().as_bytes())?,
        }
    } else {
        terminal::error(&escaped(&unanswered_text(unanswered, asked)).to_string());
    }
    Ok(exit)
}

/// What stood in the way, and what to do.
fn unanswered_text(unanswered: &Unanswered, asked: Asked) -> String {
    match (unanswered, asked) {
        (Unanswered::Unknown(unknown), Asked::Command) => format!("{unknown}; look before you repeat it"),
        (Unanswered::Unknown(Unknown { why, last }), Asked::Query) => {
            let code = last.as_ref().and_then(|last| last.refusal.as_ref()).map(|refusal| &refusal.code);
            format!("no answer: {why}; a query changes nothing, so just ask again. {}", passing_advice(code))
        }
        (Unanswered::NotReached(not_reached), _) if not_reached.reached => {
            format!("{not_reached}; nothing was changed. {QUORUM}")
        }
        (Unanswered::NotReached(not_reached), _) => {
            format!("{not_reached}; is the cluster running, is --connect right?")
        }
    }
}

/// What to do about a node that can't serve at the moment.
fn passing_advice(code: Option<&ErrorCode>) -> &'static str {
    match code {
        Some(ErrorCode::NotYetApplied) => AHEAD,
        Some(ErrorCode::Busy | ErrorCode::Stopping) => "It passes: ask again",
        _ => QUORUM,
    }
}

/// What takes the place of an answer where none came.
fn unanswered_json(unanswered: &Unanswered, asked: Asked) -> Value {
    let (code, outcome) = match unanswered {
        Unanswered::Unknown(_) if asked == Asked::Command => ("no_answer", Outcome::Unknown),
        Unanswered::Unknown(_) => ("no_answer", Outcome::Refused),
        Unanswered::NotReached(not_reached) if not_reached.reached => ("not_served", Outcome::Refused),
        Unanswered::NotReached(_) => ("not_reached", Outcome::Refused),
    };
    json!({"error": {"code": code, "message": unanswered.to_string(), "outcome": outcome}})
}

fn show_refusal(refusal: &Refusal) {
    let Refusal { code, message, outcome, .. } = refusal;
    let at = refusal.index.map(|index| format!(" (command {index} of the bulk)")).unwrap_or_default();
    let (word, advice) = match outcome {
        Outcome::Refused if !is_passing(code) => ("refused", String::new()),
        Outcome::Refused => ("not carried out", format!(". {}", passing_advice(Some(code)))),
        Outcome::Unknown => ("outcome unknown", "; look before you repeat it".to_owned()),
    };
    let head = format!("{word}, {}", escaped(&code.to_string()));
    let more = show::others(&refusal.other);
    eprintln!("{}: {}{at}{more}{advice}", console::style(head).for_stderr().red(), escaped(message));
}

/// The bank itself was not reached where a node had nothing to say but that it can't at the moment.
fn exit_of(refusal: &Refusal) -> Exit {
    match refusal.outcome {
        Outcome::Refused if !is_passing(&refusal.code) => Exit::Refused,
        Outcome::Refused => Exit::NotReached,
        Outcome::Unknown => Exit::Unknown,
    }
}

/// Asks every node by itself.
async fn status(options: ClientOptions, stages: bool, json: bool) -> Result<Exit, ProgramError> {
    let timeout = options.timeout.min(STATUS_TIMEOUT);
    let ask_at = |url: NodeUrl| {
        let options = ClientOptions { urls: vec![url], timeout, ..options.clone() };
        Box::pin(async move {
            let client = Client::connect(options);
            let outcome = client.query(Query::GetStatus {}, ReadLevel::Local).await;
            client.close().await;
            outcome
        })
    };
    // The path for the status works on a node that is full.
    let ask = |url: NodeUrl| async move {
        let paths = [STATUS_PATH, CLIENT_PATH].map(|path| ask_at(url.at_path(path)));
        let outcome = futures_util::future::select_ok(paths).await;
        (url, outcome.map(|(applied, _)| applied))
    };
    let asked = futures_util::future::join_all(options.urls.iter().cloned().map(ask));
    let outcomes = terminal::wait("asking the nodes …", asked).await;
    let mut exit = Exit::Done;
    let mut states = Vec::new();
    for (url, outcome) in outcomes {
        let status = match outcome {
            Ok(applied) => match applied.success {
                Success::Status { status } => Ok(status),
                other => {
                    return Err(ProgramError::Other(format!("{url} answered {other:?} to a question for its status")));
                }
            },
            Err(error) => {
                exit = Exit::NotReached;
                Err(error)
            }
        };
        if json {
            terminal::print_json(status_json(&url, &status)?.to_string().as_bytes())?;
        }
        states.push((url, status));
    }
    if !json {
        for line in show::statuses(&states) {
            terminal::print(line)?;
        }
        if stages {
            for line in show::stages(&states) {
                terminal::print(line)?;
            }
        }
    }
    Ok(exit)
}

/// The fields of the status beside its URL, or the error in their place.
fn status_json(
    url: &NodeUrl,
    status: &Result<Box<rabia_bank_messages::bank::Status>, CallError>,
) -> Result<Value, ProgramError> {
    let mut object = match status {
        Ok(status) => serde_json::to_value(status).map_err(|e| ProgramError::Other(e.to_string()))?,
        Err(error) => json!({"error": error.to_string()}),
    };
    object["url"] = json!(url.to_string());
    Ok(object)
}

/// Prints the transactions of a feed as they are applied.
async fn watch(options: ClientOptions, feed: Feed, json: bool) -> Result<Exit, ProgramError> {
    let mut subscription = Subscription::new(options, feed);
    while let Some(news) = subscription.next().await {
        match news {
            Ok(transaction) if json => terminal::print_json(json!(transaction).to_string().as_bytes())?,
            Ok(transaction) => terminal::print(show::transaction(&transaction))?,
            Err(error) => return watch_ended(error, json),
        }
    }
    Err(ProgramError::Other("the subscription ended without a reason".into()))
}

fn watch_ended(error: CallError, json: bool) -> Result<Exit, ProgramError> {
    match error {
        CallError::Refused(refusal) => {
            if json {
                terminal::print_json(json!({"error": refusal}).to_string().as_bytes())?;
            } else {
                show_refusal(&refusal);
            }
            Ok(exit_of(&refusal))
        }
        CallError::Unknown(unknown) => report_unanswered(&Unanswered::Unknown(unknown), Asked::Query, json),
        CallError::NotReached(not_reached) => {
            report_unanswered(&Unanswered::NotReached(not_reached), Asked::Query, json)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_that_are_none_are_left_to_the_bank() {
        assert_eq!(amount("300"), Ok(Amount::new(300)));
        for text in ["-5", "1.5", "1e30", "99999999999999999999"] {
            assert_eq!(amount(text), Ok(Amount::INVALID), "{text}");
        }
        assert!(amount("much").is_err());
    }

    #[test]
    fn a_bulk_is_an_array_or_lines() {
        let one = r#"{"deposit": {"account_id": "a", "amount": 1}}"#;
        for text in [
            format!("[{one}, {one}]"),
            format!("{one}\n{one}\n"),
            format!(" [{one},{one}]"),
            format!("\u{feff}[{one},{one}]"),
            format!("\u{feff}{one}{one}"),
        ] {
            assert_eq!(operations(&text).unwrap().len(), 2, "{text}");
        }
        assert_eq!(operations("").unwrap().len(), 0);
        assert!(operations(r#"{"bulk": {"commands": [], "atomic": true}}"#).is_err());
        assert!(operations("hello").is_err());
        let rounded = r#"[{"deposit": {"account_id": "a", "amount": 0.99999999999999999}}]"#;
        let Operation::Deposit { amount, .. } = operations(rounded).unwrap().remove(0) else { panic!() };
        assert_eq!(amount, Amount::INVALID);
    }

    #[test]
    fn the_state_of_a_node_carries_its_url_and_an_error_takes_its_place() {
        let url: NodeUrl = "ws://127.0.0.1:1".parse().unwrap();
        let error =
            CallError::NotReached(crate::client::NotReached { why: "connection refused".into(), reached: false });
        let object = status_json(&url, &Err(error)).unwrap();
        assert_eq!(object["url"], "ws://127.0.0.1:1");
        assert!(object["error"].as_str().unwrap().contains("connection refused"));
    }
}
