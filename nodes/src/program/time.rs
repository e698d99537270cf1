//! Times on the command line.

use std::time::UNIX_EPOCH;

use rabia_bank_messages::ids::Millis;

/// How times may be written, for `--help`.
pub(super) const TIMES: &str = "\
Times are milliseconds since 1970, days as 2026-11-23 (their beginning), or 2026-11-23T08:00:00Z, all in UTC. --from is
inclusive and --to is not, so that `--from 2026-11-01 --to 2026-12-01` is November, and no transaction falls into two months.";

/// A time as milliseconds since 1970, or as `2026-11-23` or `2026-11-23T08:00:00Z`.
pub(super) fn parse_time(text: &str) -> Result<Millis, String> {
    if let Ok(millis) = text.parse() {
        return Ok(millis);
    }
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&whole).map_err(|_| {
        format!("{text:?} is neither milliseconds since 1970 nor a time like 2026-11-23 or 2026-11-23T08:00:00Z")
    })?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "before 1970".to_owned())?;
    u64::try_from(since.as_millis()).map_err(|_| "too late".into())
}

/// A time that something must lie before: not the beginning of all.
pub(super) fn parse_end(text: &str) -> Result<Millis, String> {
    match parse_time(text)? {
        0 => Err("nothing lies before 1970".into()),
        end => Ok(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_a_number_a_day_or_a_moment() {
        for (text, millis) in [
            ("0", 0),
            ("1795404304978", 1_795_404_304_978),
            ("1970-01-02", 86_400_000),
            ("1970-01-01T00:00:01Z", 1_000),
            ("1970-01-01 00:00:01", 1_000),
        ] {
            assert_eq!(parse_time(text), Ok(millis), "{text}");
        }
        for text in ["yesterday", "1969-12-31", "-1", "2026-13-01", ""] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        assert!(parse_end("0").is_err());
    }
}
