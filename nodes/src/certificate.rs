//! Until when a certificate is good: the one thing of X.509 that this program reads itself.

use rabia_bank_messages::ids::{Digest, Millis};
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When a certificate (DER) expires, in milliseconds since the Unix epoch; 0 where that was before. None if it is no certificate.
pub(crate) fn expires_at(certificate: &[u8]) -> Option<Millis> {
    let mut input = certificate;
    let mut certificate = expect(&mut input, SEQUENCE)?;
    let mut signed = expect(&mut certificate, SEQUENCE)?;
    if signed.first() == Some(&VERSION) {
        element(&mut signed)?;
    }
    // Serial number, algorithm and issuer come before it.
    for _ in 0..3 {
        element(&mut signed)?;
    }
    let mut validity = expect(&mut signed, SEQUENCE)?;
    element(&mut validity)?;
    let (tag, end) = element(&mut validity)?;
    time(tag, std::str::from_utf8(end).ok()?)
}

/// The next element of DER: its tag and what is in it.
fn element<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let [tag, length, rest @ ..] = *input else { return None };
    let (length, rest) = match length {
        ..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some((*tag, content))
}

/// The hash of the public key of a certificate, by which principals are known. None if it is no certificate.
pub(crate) fn key_hash(certificate: &CertificateDer<'_>) -> Option<Digest> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    Some(Digest::of(&parsed.subject_public_key_info()))
}

fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    element(input).filter(|(found, _)| *found == tag).map(|(_, content)| content)
}

/// `YYMMDDHHMMSSZ`, where years before 50 are of this century, or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5).
fn time(tag: u8, text: &str) -> Option<Millis> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year: i64 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = ((days(year, month, day) * 24 + part(4)?) * 60 + part(6)?) * 60 + part(8)?;
    Some(Millis::try_from(seconds).unwrap_or(0) * 1_000)
}

/// Days from 1970-01-01 to this day: years are counted from March, so that the leap day is the last of one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_rfc_5280_has_them() {
        let utc = |text| time(UTC_TIME, text);
        assert_eq!(utc("700101000000Z"), Some(0));
        assert_eq!(utc("260228235959Z"), Some(1_772_323_199_000));
        assert_eq!(utc("491231235959Z"), Some(2_524_607_999_000));
        assert_eq!(utc("500101000000Z"), Some(0), "of the last century");
        assert_eq!(time(GENERALIZED_TIME, "20000229120000Z"), Some(951_825_600_000));
        assert_eq!(time(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799_000));
        for bad in ["", "Z", "2602282359Z", "261328235959Z", "260200235959Z", "26022823595éZ", "-60228235959Z"] {
            assert_eq!(utc(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end_and_panics_nowhere() {
        let before = [0x30, 41, 0x30, 39, 2, 1, 1, 0x30, 0, 0x30, 0, 0x30, 30, 0x17, 13];
        let whole = [&before[..], b"250101000000Z", &[0x17, 13], b"260228235959Z"].concat();
        assert_eq!(expires_at(&whole), Some(1_772_323_199_000));
        for end in 0..whole.len() {
            assert_eq!(expires_at(&whole[..end]), None, "{end}");
        }
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut altered = whole.clone();
                altered[at] = byte;
                let _ = expires_at(&altered);
            }
        }
        assert_eq!(expires_at(&[0x30, 0x84, 255, 255, 255, 255]), None);
    }
}
