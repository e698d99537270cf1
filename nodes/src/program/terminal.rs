//! What people see: answers on stdout, everything else on stderr, colours and spinners only where they are looking.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;

use crate::config::{BOOKS_FILE, LOG_FILE};

/// Waits shorter than this need no spinner.
const SPINNER_AFTER: Duration = Duration::from_millis(600);

/// Writes one line to stdout, at once.
pub(super) fn print(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Writes bytes and a line's end to stdout.
pub(super) fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Logs to stderr, in colours if that is a terminal.
pub(super) fn start_logging(filter: EnvFilter) {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours);
    // Fails only where a host has a logger of its own, which is then the one to use.
    let _ = subscriber.try_init();
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

/// Lines of columns, each as wide as its widest cell; numbers to the right.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let is_number = |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains(['-', ':']);
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

/// Says what it means if redb has panicked: it does where a page of a file is not what it wrote, and it was not verified when
/// the file was opened. Answers whether it was that.
pub(super) fn report_damage(panic: &std::panic::PanicHookInfo<'_>, node_dir: &Path) -> bool {
    let is_damage = panic.location().is_some_and(|at| at.file().contains("/redb-"));
    if is_damage {
        let dir = node_dir.display();
        eprintln!(
            "error: {BOOKS_FILE} or {LOG_FILE} in {dir} is damaged: a page of it is not what was written. Nothing was served or \
             voted from it. Keep the files, and check the disk; `rabia-bank audit verify --data-dir {dir}` says more"
        );
    }
    is_damage
}

#[cfg(test)]
mod tests {
    use super::*;

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
