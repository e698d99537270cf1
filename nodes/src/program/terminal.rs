//! What people see: answers on stdout, everything else on stderr, colours and spinners only where they are looking.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use rabia_bank_messages::escape::{escaped, escaped_json};
use tracing::field::Field;
use tracing::{Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::{MakeWriter, format};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The most characters of one field of the log: a peer or client that says more must not fill the disk.
const MAX_FIELD: usize = 2_000;

/// Waits shorter than this need no spinner.
const SPINNER_AFTER: Duration = Duration::from_millis(600);

/// A moment in milliseconds since the Unix epoch, in UTC.
pub(super) fn time(ms: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_millis(ms)) {
        // The formatter knows no years beyond 9999.
        Some(moment) if ms < 253_402_300_800_000 => humantime::format_rfc3339_millis(moment).to_string(),
        _ => format!("{ms} ms"),
    }
}

/// Writes one line to stdout, at once.
pub(super) fn print(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Writes JSON to stdout, on one line that can be shown on a terminal.
pub(super) fn print_json(json: &[u8]) -> io::Result<()> {
    print(escaped_json(&String::from_utf8_lossy(json)))
}

/// Says on stderr what a person may want to know; the program goes on.
pub(super) fn note(text: &str) {
    eprintln!("note: {}", escaped(text));
}

/// Reports what went wrong. Some messages of this program have several lines; text from outside in them was escaped before, or is
/// here.
pub(super) fn error(text: &str) {
    let lines: Vec<String> = text.split('\n').map(|line| escaped(line).to_string()).collect();
    eprintln!("error: {}", lines.join("\n"));
}

/// Logs to stderr, in colours if that is a terminal. What fields and messages say is escaped. What goes over sockets is logged at no
/// level, for session keys go over them.
pub(super) fn start_logging(filter: EnvFilter) {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let no_frames = filter_fn(|event| {
        *event.level() < Level::TRACE
            || !["tungstenite", "tokio_tungstenite"].iter().any(|of| event.target().starts_with(of))
    });
    // Fails only where a host has a logger of its own, which is then the one to use.
    let _ = tracing_subscriber::registry().with(filter).with(no_frames).with(lines(io::stderr, colours)).try_init();
}

/// Lines of the log.
fn lines<S, W>(writer: W, colours: bool) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colours)
        .fmt_fields(format::debug_fn(write_field).delimited(" "))
}

/// One field of a line in the log.
fn write_field(out: &mut format::Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    let shown: &str = text.char_indices().nth(MAX_FIELD).map_or(&text, |(end, _)| &text[..end]);
    match field.name() {
        "message" => write!(out, "{}", escaped(shown))?,
        // What another library logged, and from where it did.
        name if name.starts_with("log.") => return Ok(()),
        name => write!(out, "{name}={}", escaped(shown))?,
    }
    match text.len() - shown.len() {
        0 => Ok(()),
        left => write!(out, "… ({left} bytes more)"),
    }
}

/// A spinner on stderr; nothing where that is no terminal.
pub(super) fn spinner(message: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// A bar on stderr that fills over `length`, in milliseconds, with a message; nothing where that is no terminal.
pub(super) fn bar(length: Duration) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length.as_millis() as u64).with_style(style)
}

/// Waits for `work`, with a spinner if it takes long.
pub(super) async fn wait<T>(message: &'static str, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    match tokio::time::timeout(SPINNER_AFTER, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            let spinner = spinner(message);
            let done = work.await;
            spinner.finish_and_clear();
            done
        }
    }
}

/// A number with its thousands apart: 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The same of a balance, which may be below 0.
pub(super) fn signed(number: i64) -> String {
    format!("{}{}", if number < 0 { "-" } else { "" }, grouped(number.unsigned_abs()))
}

/// Lines of columns, each as wide as its widest cell; numbers to the right. Cells are escaped.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| escaped(cell).to_string()).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let is_number = |cell: &str| {
        let digits = cell.strip_prefix('-').unwrap_or(cell);
        digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.contains(['-', ':'])
    };
    let line = |cells: &[String], right: &dyn Fn(usize) -> bool| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if right(column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let is_right = |column: usize| rows.first().is_some_and(|row| is_number(&row[column]));
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    let head = console::style(line(&heads, &is_right)).bold().to_string();
    std::iter::once(head).chain(rows.iter().map(|row| line(row, &is_right))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_event_is_one_line_of_the_log_whatever_is_said_in_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = Arc::new(file.reopen().unwrap());
        let subscriber = tracing_subscriber::registry().with(lines(log, false));
        let attack = "here\nERROR all is lost\u{1b}[2J";
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(why = %attack, name = attack, "it says: {attack}");
            tracing::info!(long = %"x".repeat(MAX_FIELD + 7), "much");
        });
        let text = std::fs::read_to_string(file.path()).unwrap();
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found.len(), 2, "{text}");
        assert!(
            !text.contains('\u{1b}') && found[0].contains("it says: here\\nERROR all is lost\\u{1b}[2J why=here\\n"),
            "{text}"
        );
        assert!(found[1].contains("x… (7 bytes more)") && found[1].len() < MAX_FIELD + 200, "{text}");
    }

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = vec![vec!["a".into(), "1,000".into()], vec!["long".into(), "5".into()]];
        let lines = table(&["id", "sum"], &rows);
        let plain: Vec<String> = lines.iter().map(|line| console::strip_ansi_codes(line).into_owned()).collect();
        assert_eq!(plain, ["id      sum", "a     1,000", "long      5"]);
    }
}
