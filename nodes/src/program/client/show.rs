//! Answers for people.

use console::style;
use rabia_bank_actors::consensus::clocks::MAX_STAMP_AHEAD;
use rabia_bank_actors::timekeeper::span;
use rabia_bank_messages::bank::{
    Account, AccountId, AccountStatus, Asset, Bound, ItemResult, OtherFields, Statistics, Status, Success, Transaction,
    TransactionType,
};
use rabia_bank_messages::escape::escaped;
use rabia_bank_messages::ids::Millis;
use rabia_bank_messages::stages::{Durations, Stage};

use crate::client::{CallError, NodeUrl};
use crate::create::wall;
use crate::program::terminal::{grouped, signed, table, time};

/// How much of a digest a table shows: enough to see that two differ.
const DIGEST_CHARACTERS: usize = 12;

/// A certificate that expires within so many milliseconds, 30 days, is told of.
const CERTIFICATE_SOON_MS: Millis = 30 * 86_400_000;

/// The lines for what a request brought.
pub(super) fn success(success: &Success) -> Vec<String> {
    match success {
        Success::Account { account: a, transaction: opening } => {
            let mut lines = vec![account(a)];
            lines.extend(opening.as_ref().map(transaction));
            lines
        }
        Success::Transaction { transaction: t } => vec![transaction(t)],
        Success::Results { results } => bulk(results),
        Success::Balance { balance } => vec![signed(*balance)],
        Success::Assets { assets } => self::assets(assets),
        Success::Accounts { accounts: rows, next } => {
            let mut lines = accounts(rows);
            lines.extend(next.as_ref().map(|next| more(format!("--after {}", escaped(next)))));
            lines
        }
        Success::Transactions { transactions, next } => {
            let mut lines: Vec<String> = transactions.iter().map(transaction).collect();
            lines.extend(next.map(|next| more(format!("--before {next}"))));
            lines
        }
        Success::Statistics { statistics: s } => statistics(s),
        Success::Status { status } => table(&STATUS_HEADS, &[status_row("", status)]),
        Success::Subscribed { from } => vec![format!("transactions from {from} on")],
        // Of an administrator's commands `client` sends one.
        Success::Administered { number } => vec![format!("level {number}, from the next slot on")],
        Success::Principals { principals, tokens } => {
            vec![format!("{} principals, {} tokens", principals.len(), tokens.len())]
        }
        Success::Other(fields) => vec![others(fields).trim_start().to_owned()],
    }
}

fn more(option: String) -> String {
    style(format!("there are more: {option}")).dim().to_string()
}

/// Fields that this program does not know, as they came.
pub(super) fn others(fields: &OtherFields) -> String {
    let field = |(name, value): (&str, &serde_json::Value)| escaped(&format!("  {name}={value}")).to_string();
    fields.iter().map(field).collect::<Vec<String>>().concat()
}

fn account(account: &Account) -> String {
    let Account { account_id, asset, balance, available, min_balance, max_balance, status, .. } = account;
    let Account { code, name, created_at, last_transaction_at, transaction_count, other, .. } = account;
    let last = last_transaction_at.map(|at| format!(", the last {}", time(at))).unwrap_or_default();
    let mut unusual = String::new();
    let mut say = |what: String| unusual.push_str(&format!("  {what}"));
    if *min_balance != Bound::At(0) {
        let available = available.map_or("unlimited".into(), signed);
        say(format!("available {available}, at least {}", bound(*min_balance)));
    }
    if *max_balance != Bound::None {
        say(format!("at most {}", bound(*max_balance)));
    }
    if *status != AccountStatus::Open {
        say(style(status.name()).yellow().to_string());
    }
    for (what, text) in [("code", code), ("name", name)] {
        if let Some(text) = text {
            say(format!("{what} {}", escaped(text)));
        }
    }
    format!(
        "{}  balance {} {}{unusual}  created {}, transactions: {}{last}{}",
        style(escaped(account_id)).bold(),
        style(signed(*balance)).green(),
        escaped(asset),
        time(*created_at),
        grouped(*transaction_count),
        others(other)
    )
}

fn bound(bound: Bound) -> String {
    match bound {
        Bound::None => "none".into(),
        Bound::At(balance) => signed(balance),
    }
}

fn accounts(accounts: &[Account]) -> Vec<String> {
    let row = |account: &Account| {
        vec![
            account.account_id.to_string(),
            account.asset.to_string(),
            signed(account.balance),
            grouped(account.transaction_count),
            time(account.created_at),
            account.status.name().to_owned(),
            account.code.as_deref().unwrap_or_default().to_owned(),
        ]
    };
    let heads = ["account", "asset", "balance", "transactions", "created", "status", "code"];
    table(&heads, &accounts.iter().map(row).collect::<Vec<_>>())
}

fn assets(assets: &[Asset]) -> Vec<String> {
    let row = |asset: &Asset| {
        vec![
            asset.asset.to_string(),
            asset.scale.to_string(),
            grouped(asset.limit),
            grouped(asset.accounts),
            signed(asset.total_balance),
        ]
    };
    table(&["asset", "scale", "limit", "accounts", "total"], &assets.iter().map(row).collect::<Vec<_>>())
}

/// One transaction on one line.
pub(super) fn transaction(transaction: &Transaction) -> String {
    let side = |account: &Option<AccountId>, balance: Option<i64>| {
        let balance = balance.map(|balance| format!(" (now {})", signed(balance))).unwrap_or_default();
        account.as_ref().map(|account| format!("{}{balance}", escaped(account)))
    };
    let from = side(&transaction.from_account, transaction.from_balance);
    let to = side(&transaction.to_account, transaction.to_balance);
    let way = match (from, to) {
        (Some(from), Some(to)) => format!("{from} -> {to}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => String::new(),
    };
    let (amount, what) = match (&transaction.act, transaction.principal) {
        (Some(act), Some(principal)) => (String::new(), format!("{} by principal {principal}", escaped(act))),
        (Some(act), None) => (String::new(), escaped(act).to_string()),
        (None, _) => {
            let asset = transaction.asset.as_deref().map(|asset| format!(" {}", escaped(asset))).unwrap_or_default();
            let settings =
                transaction.settings.as_deref().map(|said| format!(" {}", escaped(said))).unwrap_or_default();
            let has_amount = transaction.transaction_type.known().is_none_or(TransactionType::has_amount);
            let amount = if has_amount { grouped(transaction.amount) } else { String::new() };
            (amount + &asset, way + &settings)
        }
    };
    format!(
        "#{:<6} {}  {:<10} {:>12}  {what}{}",
        transaction.transaction_id,
        style(time(transaction.timestamp)).dim(),
        escaped(transaction.transaction_type.name()).to_string(),
        style(amount).green(),
        others(&transaction.other),
    )
}

fn bulk(results: &[ItemResult]) -> Vec<String> {
    let refused = results.iter().enumerate().filter_map(|(index, result)| match result {
        ItemResult::Ok(_) => None,
        ItemResult::Error(refusal) => {
            Some(format!("  command {index}: {}{}", escaped(&refusal.to_string()), others(&refusal.other)))
        }
    });
    let refused: Vec<String> = refused.collect();
    let mut lines = vec![format!("{} applied, {} refused", results.len() - refused.len(), refused.len())];
    lines.extend(refused);
    lines
}

fn statistics(statistics: &Statistics) -> Vec<String> {
    let mut lines = vec![
        format!("asset         {}", escaped(&statistics.asset)),
        format!("accounts      {}", grouped(statistics.accounts)),
        format!("total balance {}", signed(statistics.total_balance)),
        format!(
            "transactions  {}, volume {}",
            grouped(statistics.transactions.count),
            grouped(statistics.transactions.volume)
        ),
    ];
    let mut section = |title: &str, rows: Vec<String>| {
        if !rows.is_empty() {
            lines.push(String::new());
            lines.push(style(title).bold().underlined().to_string());
            lines.extend(rows);
        }
    };
    let row = |name: String, count: u64, volume: u64| vec![name, grouped(count), grouped(volume)];
    let by_type = statistics.by_type.iter().map(|(kind, v)| row(kind.name().to_owned(), v.count, v.volume));
    section("By type", table(&["type", "transactions", "volume"], &by_type.collect::<Vec<_>>()));
    let by_hour = statistics.by_hour.iter().map(|hour| row(time(hour.hour), hour.total.count, hour.total.volume));
    section("By hour", table(&["from", "transactions", "volume"], &by_hour.collect::<Vec<_>>()));
    section("Largest accounts", accounts(&statistics.largest_accounts));
    section("Most active accounts", accounts(&statistics.most_active_accounts));
    let title = format!("Latest transactions of {} and more", grouped(statistics.large_amount));
    section(&title, statistics.large_transactions.iter().map(transaction).collect());
    let more = statistics.other.iter().map(|(name, value)| vec![name.to_owned(), value.to_string()]);
    section("More", table(&["field", "value"], &more.collect::<Vec<_>>()));
    lines
}

const STATUS_HEADS: [&str; 12] = [
    "url",
    "node",
    "level",
    "slot",
    "decided",
    "null",
    "accounts",
    "transactions",
    "total",
    "clients",
    "digest",
    "connected",
];

fn status_row(url: &str, status: &Status) -> Vec<String> {
    let digest: String = status.state_digest.to_string().chars().take(DIGEST_CHARACTERS).collect();
    let peers: Vec<String> = status.connected.iter().map(ToString::to_string).collect();
    vec![
        url.to_owned(),
        status.node.to_string(),
        status.level.to_string(),
        grouped(status.applied_slot),
        grouped(status.decided_slots),
        grouped(status.null_slots),
        grouped(status.accounts),
        grouped(status.transactions),
        signed(status.total_balance),
        format!("{} of {}", grouped(status.clients), grouped(status.max_clients)),
        digest,
        if peers.is_empty() { "none".into() } else { peers.join(" ") },
    ]
}

/// One line for each node.
pub(super) fn statuses(states: &[(NodeUrl, Result<Box<Status>, CallError>)]) -> Vec<String> {
    let reached: Vec<Vec<String>> = states
        .iter()
        .filter_map(|(url, state)| state.as_ref().ok().map(|status| status_row(&url.to_string(), status)))
        .collect();
    let mut lines = table(&STATUS_HEADS, &reached).into_iter();
    let head = lines.next();
    let rows = states.iter().filter_map(|(url, state)| match state {
        Ok(_) => lines.next(),
        Err(error) => Some(format!("{url}  {}", style(escaped(&error.to_string())).red())),
    });
    let mut rows: Vec<String> = rows.collect();
    let found = states.iter().filter_map(|(_, state)| state.as_ref().ok());
    rows.extend(found.clone().filter_map(|status| trust(status)));
    rows.extend(found.clone().find_map(|status| upgrade(status)));
    rows.extend(found.clone().filter_map(|status| clock(status)));
    rows.extend(found.filter_map(|status| certificate(status, wall())));
    head.filter(|_| !reached.is_empty()).into_iter().chain(rows).collect()
}

/// Why a node does not answer, if it does not.
fn trust(status: &Status) -> Option<String> {
    let Status { node, admitted, in_doubt, .. } = *status;
    let why = if in_doubt {
        "another node has another log or state, and no majority has this node's: see its log"
    } else if !admitted {
        "it has not met a quorum since its start"
    } else {
        return None;
    };
    Some(style(format!("node {node} answers nothing but its status: {why}")).red().to_string())
}

/// Which levels the members' programs know, where some know a higher one than that of the cluster.
fn upgrade(status: &Status) -> Option<String> {
    let Status { level, members_can, .. } = status;
    let lowest = members_can.iter().min().filter(|_| members_can.iter().any(|can| can > level))?;
    let known = (1..).zip(members_can).map(|(node, can)| format!("node {node}: {can}")).collect::<Vec<_>>().join(", ");
    let next = if lowest > level { format!("; `rabia-bank client raise-level {lowest}`") } else { String::new() };
    Some(format!("the cluster is at level {level}, the programs know up to: {known}{next}"))
}

/// What is wrong with a node's clock, if something is.
fn clock(status: &Status) -> Option<String> {
    let Status { node, clock_offset_ms: offset, clock_leap_ms: leap, .. } = *status;
    let off = offset.unsigned_abs();
    let what = if leap > 0 {
        format!("shows {} more than is confirmed, and is not believed: see `rabia-bank clock --help`", span(leap))
    } else if off > MAX_STAMP_AHEAD {
        format!("is {} {} that of others", span(off), if offset < 0 { "behind" } else { "ahead of" })
    } else {
        return None;
    };
    Some(style(format!("the clock of node {node} {what}")).red().to_string())
}

/// That a node's certificate expires, if that is soon.
fn certificate(status: &Status, now: Millis) -> Option<String> {
    let Status { node, certificate_expires_at: expires_at, .. } = *status;
    if expires_at == 0 || expires_at > now + CERTIFICATE_SOON_MS {
        return None;
    }
    let verb = if expires_at <= now { "has expired" } else { "expires" };
    Some(style(format!("the certificate of node {node} {verb}: {}", time(expires_at))).red().to_string())
}

/// A table of how long each stage took on each node that was reached.
pub(super) fn stages(states: &[(NodeUrl, Result<Box<Status>, CallError>)]) -> Vec<String> {
    let reached = states.iter().filter_map(|(_, state)| state.as_ref().ok());
    let row = |node: u8, stage: Stage, durations: &Durations| {
        let ms = |q| durations.quantile_us(q).map_or("never".into(), |us| format!("{:.2}", us / 1_000.0));
        vec![node.to_string(), stage.name().into(), grouped(durations.count()), ms(0.5), ms(0.99)]
    };
    let rows = reached
        .flat_map(|status| status.stages.iter().map(|(stage, durations)| row(status.node.get(), *stage, durations)));
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() { Vec::new() } else { table(&["node", "stage", "times", "p50 ms", "p99 ms"], &rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_shows_both_sides() {
        let line = transaction(&Transaction {
            transaction_id: 7,
            transaction_type: rabia_bank_messages::bank::TransactionType::Transfer.into(),
            from_account: Some("alice".into()),
            to_account: Some("bob".into()),
            asset: Some("EUR".into()),
            amount: 1_300,
            from_balance: Some(-700),
            to_balance: Some(1_300),
            settings: None,
            timestamp: 1_000,
            slot: 3,
            principal: None,
            proofs: None,
            act: None,
            hash: rabia_bank_messages::ids::Digest::ZERO,
            other: OtherFields::default(),
        });
        let line = console::strip_ansi_codes(&line).into_owned();
        for part in
            ["#7", "1970-01-01T00:00:01.000Z", "transfer", "1,300", "1,300 EUR", "alice (now -700) -> bob (now 1,300)"]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn what_is_not_known_is_shown_and_steers_nothing() {
        let hold = serde_json::json!({"transaction_id": 7, "type": "hold", "from_account": "alice", "amount": 5,
            "timestamp": 1, "slot": 3, "hash": "0".repeat(64), "reference": "auth-9", "note": "\u{9b}31m", "until": [1]});
        let line = transaction(&serde_json::from_value(hold).unwrap());
        for part in ["hold", "  reference=\"auth-9\"", "  until=[1]", "  note=\"\\u{9b}31m\""] {
            assert!(line.contains(part), "{part} in {line:?}");
        }
        let other = serde_json::json!({"holds": [{"hold_id": 77}]});
        assert_eq!(success(&serde_json::from_value(other).unwrap()), ["holds=[{\"hold_id\":77}]"]);
    }

    #[test]
    fn a_node_that_is_not_reached_has_its_line() {
        let error =
            CallError::NotReached(crate::client::NotReached { why: "connection refused".into(), reached: false });
        let lines = statuses(&[("ws://127.0.0.1:1".parse().unwrap(), Err(error))]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("ws://127.0.0.1:1") && lines[0].contains("connection refused"), "{lines:?}");
    }
}
