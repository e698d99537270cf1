//! `rabia-bank audit`: the books in the folder of a node that is not running, verified, written out, or summed up.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use rabia_bank_messages::bank::Transaction;
use rabia_bank_messages::escape::escaped;
use serde_json::json;

use super::time::{TIMES, parse_end, parse_time};
use super::{EXIT_CODES, Exit, ProgramError, damage, terminal};
use crate::audit::{AuditError, Books, Verified};
use crate::config::CONFIG_FILE;

/// The command line of `audit`.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
The node of the folder must not be running; its files are not changed. To audit a running cluster, take a backup
(`rabia-bank backup`), restore it into a folder of its own, and audit that.

`digest` prints what is the same on every node that is as far. Noted down outside, a chain head proves later that no
transaction up to it was altered.

{TIMES}

{EXIT_CODES}"))]
pub struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Subcommand, Debug)]
enum Task {
    /// Recompute the chain of hashes, every balance and the sum of all, and name the first record that is wrong.
    Verify {
        #[command(flatten)]
        place: Place,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Write transactions to stdout, oldest first.
    Export {
        #[command(flatten)]
        place: Place,
        /// Only those of this account.
        #[arg(long, value_name = "ID")]
        account: Option<String>,
        /// Only those at or after this time.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        from: Option<u64>,
        /// Only those before this time.
        #[arg(long, value_name = "TIME", value_parser = parse_end)]
        to: Option<u64>,
        /// How to write them.
        #[arg(long, value_enum, default_value_t = Format::Csv)]
        format: Format,
    },
    /// Print slot, chain head and state digest.
    Digest {
        #[command(flatten)]
        place: Place,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args, Debug)]
struct Place {
    /// The folder of a node, with its node.toml.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    /// Comma-separated values, with a line of names.
    Csv,
    /// One JSON object a line.
    Json,
}

/// Audits.
///
/// # Errors
/// If the books can't be read, or are wrong.
pub fn run(args: Args) -> Result<Exit, ProgramError> {
    match args.task {
        Task::Verify { place, json } => verify(&place.data_dir, json),
        Task::Export { place, account, from, to, format } => {
            let wanted = Wanted { account, from, to };
            export(&place.data_dir, &wanted, format)
        }
        Task::Digest { place, json } => digest(&place.data_dir, json),
    }
}

fn open(dir: &Path) -> Result<Books, ProgramError> {
    if !dir.join(CONFIG_FILE).is_file() && dir.join("node-1").is_dir() {
        let dir = dir.display();
        let message = format!("{dir} is the folder of a whole cluster; name that of a node, as {dir}/node-1");
        return Err(ProgramError::Usage(message));
    }
    damage::report_panics(dir, || ());
    Ok(Books::open(dir)?)
}

fn verify(dir: &Path, json: bool) -> Result<Exit, ProgramError> {
    let began = Instant::now();
    let mut books = open(dir)?;
    let opened = began.elapsed();
    let bar = bar(books.transactions());
    let verified = books.verify(|read| bar.set_position(read));
    bar.finish_and_clear();
    let Verified { digests, transactions, accounts, total_balance } = verified?;
    let took = began.elapsed();
    let rate = transactions as f64 / (took - opened).max(Duration::from_nanos(1)).as_secs_f64();
    let unusable = books.unusable();
    if json {
        let named = unusable.newest().map(|(slot, id)| json!({"slot": slot, "batch": id.to_string()}));
        let object = json!({
            "unusable_batches": unusable.count(), "newest_unusable_batches": named.collect::<Vec<_>>(),
            "verified": true, "slot": digests.slot, "snapshot_slot": books.snapshot_slot(),
            "transactions": transactions, "accounts": accounts, "total_balance": total_balance,
            "chain_head": digests.chain_head.to_string(), "state_digest": digests.state_digest.to_string(),
            "seconds": took.as_secs_f64(), "per_second": rate.round(),
        });
        terminal::print(object)?;
        return Ok(Exit::Done);
    }
    terminal::print(format_args!(
        "Verified {} transactions of {} accounts up to slot {}: hashes, balances and their sum ({}) are right.\n\
         It took {:.1} s, {} transactions a second.",
        HumanCount(transactions),
        HumanCount(accounts),
        digests.slot,
        total_balance,
        took.as_secs_f64(),
        HumanCount(rate as u64),
    ))?;
    if unusable.count() > 0 {
        terminal::print(format_args!(
            "{} batches were decided that can't be applied; every node took them for empty ones. Look for a node that is \
             damaged or runs another program. The newest:",
            HumanCount(unusable.count())
        ))?;
        for (slot, id) in unusable.newest() {
            terminal::print(format_args!("slot {slot}  batch {id} of node {}, digest {}", id.origin, id.digest))?;
        }
    }
    print_digests(&digests)?;
    Ok(Exit::Done)
}

fn print_digests(digests: &crate::audit::Digests) -> io::Result<()> {
    terminal::print(format_args!(
        "slot          {}\nchain head    {}\nstate digest  {}",
        digests.slot, digests.chain_head, digests.state_digest
    ))
}

fn digest(dir: &Path, json: bool) -> Result<Exit, ProgramError> {
    let digests = open(dir)?.digests();
    if json {
        let (chain_head, state_digest) = (digests.chain_head.to_string(), digests.state_digest.to_string());
        terminal::print(json!({"slot": digests.slot, "chain_head": chain_head, "state_digest": state_digest}))?;
    } else {
        print_digests(&digests)?;
    }
    Ok(Exit::Done)
}

/// Which transactions are exported.
struct Wanted {
    account: Option<String>,
    from: Option<u64>,
    to: Option<u64>,
}

impl Wanted {
    fn takes(&self, transaction: &Transaction) -> bool {
        let touches = |account: &str| {
            [&transaction.from_account, &transaction.to_account]
                .into_iter()
                .any(|side| side.as_deref() == Some(account))
        };
        self.account.as_deref().is_none_or(touches)
            && self.from.is_none_or(|from| transaction.timestamp >= from)
            && self.to.is_none_or(|to| transaction.timestamp < to)
    }
}

fn export(dir: &Path, wanted: &Wanted, format: Format) -> Result<Exit, ProgramError> {
    let books = open(dir)?;
    if let Some(account) = wanted.account.as_deref().filter(|account| !books.has_account(account)) {
        let text = format!("account_not_found: there is no account {:?} in these books", escaped(account).to_string());
        return Err(ProgramError::Refused(text));
    }
    let bar = bar(books.transactions());
    let mut out = BufWriter::new(io::stdout().lock());
    if format == Format::Csv {
        writeln!(out, "{CSV_NAMES}")?;
    }
    books.transactions_each(|transaction| {
        bar.inc(1);
        if !wanted.takes(transaction) {
            return Ok(());
        }
        match format {
            Format::Csv => write_csv(&mut out, transaction)?,
            Format::Json => {
                serde_json::to_writer(&mut out, transaction).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    })?;
    out.flush()?;
    bar.finish_and_clear();
    Ok(Exit::Done)
}

const CSV_NAMES: &str = "transaction_id,type,from_account,to_account,amount,from_balance,to_balance,timestamp,time,slot,hash,principal,act,asset,settings";

/// Texts are what [`csv_text`] makes of them, everything else is numbers and digits.
fn write_csv(out: &mut impl Write, transaction: &Transaction) -> Result<(), AuditError> {
    let text = |value: &Option<Box<str>>| csv_text(value.as_deref().unwrap_or_default());
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let balance = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    let time = std::time::UNIX_EPOCH + Duration::from_millis(transaction.timestamp);
    writeln!(
        out,
        "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
        transaction.transaction_id,
        csv_text(transaction.transaction_type.name()),
        text(&transaction.from_account),
        text(&transaction.to_account),
        transaction.amount,
        balance(transaction.from_balance),
        balance(transaction.to_balance),
        transaction.timestamp,
        humantime::format_rfc3339_millis(time),
        transaction.slot,
        transaction.hash,
        number(transaction.principal.map(u64::from)),
        text(&transaction.act),
        text(&transaction.asset),
        text(&transaction.settings)
    )?;
    Ok(())
}

/// Text as a field: escaped, and in quotes where it has a comma or a quote. Names of accounts have neither.
fn csv_text(text: &str) -> String {
    let safe = escaped(text).to_string();
    if safe.contains([',', '"', ';']) { format!("\"{}\"", safe.replace('"', "\"\"")) } else { safe }
}

/// A bar on stderr; nothing where that is no terminal.
fn bar(transactions: u64) -> ProgressBar {
    if !io::IsTerminal::is_terminal(&io::stderr()) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {human_pos} of {human_len} transactions, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(transactions).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_csv_is_one_field_whatever_is_in_it() {
        for (text, field) in [
            ("alice:eur-1.x_y", "alice:eur-1.x_y"),
            ("a,b", "\"a,b\""),
            ("say \"so\"", "\"say \"\"so\"\"\""),
            ("two\nlines\u{1b}[2J", "two\\nlines\\u{1b}[2J"),
        ] {
            assert_eq!(csv_text(text), field);
        }
    }
}
