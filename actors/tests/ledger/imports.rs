//! The ledger is pure: its sources import nothing that could tell two nodes apart.

use std::fs;
use std::path::{Path, PathBuf};

/// What would bring in threads, time, chance, disks or networks.
const FORBIDDEN: &[&str] = &[
    "actix",
    "tokio",
    "Instant",
    "SystemTime",
    "rand",
    "getrandom",
    "redb",
    "tungstenite",
    "tracing",
    "fs",
    "net",
    "env",
    "process",
    "thread",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The forbidden words in a line of code: as whole words, next to a path separator or in a `use`.
fn forbidden(line: &str) -> Vec<&'static str> {
    let code = line.split("//").next().unwrap_or_default();
    let is_import = code.trim_start().starts_with("use ") || code.trim_start().starts_with("pub use ");
    let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let mut found = Vec::new();
    for path in words.filter(|path| is_import || path.contains("::")) {
        found.extend(FORBIDDEN.iter().copied().filter(|name| path.split("::").any(|part| part == *name)));
    }
    found
}

#[test]
fn the_ledger_imports_nothing_from_the_outside_world() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger");
    let mut files = Vec::new();
    sources(&folder, &mut files);
    assert!(!files.is_empty(), "no sources in {}", folder.display());
    for file in files {
        for (number, line) in (1..).zip(fs::read_to_string(&file).unwrap().lines()) {
            let found = forbidden(line);
            assert!(found.is_empty(), "{}:{number}: {found:?} in {line:?}", file.display());
        }
    }
}

#[test]
fn the_scan_sees_imports_and_paths_but_not_prose() {
    for line in [
        "use tokio::time;",
        "    let now = std::time::Instant::now();",
        "use std::{fs, io};",
        "use std::time::{Duration, SystemTime};",
        "rand::random()",
    ] {
        assert!(!forbidden(line).is_empty(), "{line}");
    }
    for line in ["// use tokio::time;", "//! no tokio::anything", "let rand = 1;", "use super::strand;", "operand::x()"]
    {
        assert!(forbidden(line).is_empty(), "{line}");
    }
}
