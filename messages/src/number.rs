//! Whole numbers as clients send them, for `#[serde(deserialize_with = …)]`.
//!
//! JavaScript has one type of number, and its MessagePack libraries may send 1760000000000 as a float. A float that is
//! a whole number from 0 to 2^53 − 1 is taken for that number; beyond, floats have gaps and might mean another one.
//!
//! In JSON a number is its text, and a float is what serde_json makes of it: 0.99999999999999999 becomes 1. So numbers with
//! a fraction or an exponent are read here ([`exact`]), before serde_json sees them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The largest number up to which a float names each whole number exactly.
const MAX_EXACT: f64 = ((1u64 << 53) - 1) as f64;

/// The whole number that a float is, if it is one.
pub(crate) fn from_float(number: f64) -> Option<u64> {
    let whole = number.fract() == 0.0 && (0.0..=MAX_EXACT).contains(&number);
    whole.then_some(number as u64)
}

/// The same, below 0 as well.
pub(crate) fn signed_from_float(number: f64) -> Option<i64> {
    let size = from_float(number.abs())?;
    Some(if number < 0.0 { -(size as i64) } else { size as i64 })
}

/// Stands for any number that is not whole. A float holds it exactly, and nothing takes it.
const FRACTION: &str = "0.5";
/// Stands for any whole number beyond 2^53 − 1 that is written as a float.
const TOO_LARGE: &str = "1e300";

/// The JSON text with every number that has a fraction or an exponent written as the whole number that it is, or as one that
/// is refused for what is wrong with it. What is no JSON stays none.
pub(crate) fn exact(json: &[u8]) -> Cow<'_, [u8]> {
    // Most messages have no such number, nor a text that looks like one, and this look at two bytes each is quick.
    let suspicious = |pair: &&[u8]| pair[0].is_ascii_digit() && matches!(pair[1], b'.' | b'e' | b'E');
    if json.windows(2).filter(suspicious).count() == 0 {
        return Cow::Borrowed(json);
    }
    let mut written = Vec::with_capacity(json.len());
    let mut rest = json;
    while let Some((&first, behind)) = rest.split_first() {
        let length = match first {
            b'"' => text_length(rest),
            b'-' | b'0'..=b'9' => {
                let length = rest.iter().take_while(|byte| is_of_number(**byte)).count();
                written.extend_from_slice(exact_number(&rest[..length]).as_bytes());
                rest = &rest[length..];
                continue;
            }
            _ => rest.len() - behind.len(),
        };
        written.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
    }
    Cow::Owned(written)
}

/// The length of the text that begins here, with its quotes.
fn text_length(json: &[u8]) -> usize {
    let mut escaped = false;
    let end = json.iter().skip(1).position(|byte| match byte {
        _ if std::mem::take(&mut escaped) => false,
        b'\\' => {
            escaped = true;
            false
        }
        byte => *byte == b'"',
    });
    end.map_or(json.len(), |end| end + 2)
}

fn is_of_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

/// The number in another form, if it has a fraction or an exponent.
fn exact_number(token: &[u8]) -> Cow<'_, str> {
    // They are digits, signs, points and letters.
    let token = String::from_utf8_lossy(token);
    let Some((negative, digits, exponent)) = decimal(&token) else { return token };
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    let zeros = (digits.len() - digits.trim_end_matches('0').len()) as i64;
    let sign = if negative { "-" } else { "" };
    match exponent.saturating_add(zeros) {
        _ if significant.is_empty() => Cow::Borrowed("0"),
        ..0 => Cow::Borrowed(FRACTION),
        // 2^53 has 16 digits.
        zeros @ 0..16 => {
            let whole = format!("{significant}{}", "0".repeat(zeros as usize));
            let fits = whole.parse::<u64>().is_ok_and(|whole| whole as f64 <= MAX_EXACT && whole < 1 << 53);
            if fits { Cow::Owned(format!("{sign}{whole}")) } else { Cow::Borrowed(TOO_LARGE) }
        }
        16.. => Cow::Borrowed(TOO_LARGE),
    }
}

/// The sign, digits and power of ten of a number with a fraction or an exponent. `None` if it has neither, or is no number.
fn decimal(token: &str) -> Option<(bool, String, i64)> {
    let (negative, number) = token.strip_prefix('-').map_or((false, token), |number| (true, number));
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (number, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let power = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
    let well_formed = is_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(is_digits)
        && power.is_none_or(is_digits);
    if !well_formed || (fraction.is_none() && exponent.is_none()) {
        return None;
    }
    let fraction = fraction.unwrap_or("");
    // A power that no i64 holds makes any digits as small, or as large, as the last one that does.
    let power = power.map_or(0, |power| power.parse::<i64>().unwrap_or(i64::MAX));
    let power = if exponent.is_some_and(|text| text.starts_with('-')) { -power } else { power };
    Some((negative, format!("{whole}{fraction}"), power.saturating_sub(fraction.len() as i64)))
}

/// A number, of the type that the field has.
pub(crate) fn whole<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let Whole(number) = Whole::deserialize(deserializer)?;
    T::try_from(number).map_err(|_| D::Error::custom(format_args!("the number {number} is too large")))
}

/// A number or null.
pub(crate) fn optional<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let Some(Whole(number)) = Option::deserialize(deserializer)? else { return Ok(None) };
    T::try_from(number).map(Some).map_err(|_| D::Error::custom(format_args!("the number {number} is too large")))
}

/// A whole number that may be below 0, as an integer or as a float.
pub(crate) fn signed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Signed::deserialize(deserializer).map(|Signed(number)| number)
}

/// The same, or null.
pub(crate) fn optional_signed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(Option::deserialize(deserializer)?.map(|Signed(number)| number))
}

/// A number, or nothing where there is anything else.
pub(crate) fn if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_any(IfAny)
}

struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Whole, D::Error> {
        struct AnyNumber;
        impl Visitor<'_> for AnyNumber {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Whole, E> {
                u64::try_from(number).map(Whole).map_err(|_| E::custom(format_args!("the number {number} is below 0")))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
                let whole = from_float(number).map(Whole);
                whole.ok_or_else(|| E::custom("a number that is not a whole one from 0 to 2^53 - 1"))
            }
        }
        deserializer.deserialize_u64(AnyNumber)
    }
}

struct Signed(i64);

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Signed, D::Error> {
        struct AnyNumber;
        impl Visitor<'_> for AnyNumber {
            type Value = Signed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Signed, E> {
                let signed = i64::try_from(number).map(Signed);
                signed.map_err(|_| E::custom(format_args!("the number {number} is too large")))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Signed, E> {
                Ok(Signed(number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Signed, E> {
                let signed = signed_from_float(number).map(Signed);
                signed.ok_or_else(|| E::custom("a number that is not a whole one of at most 2^53 - 1"))
            }
        }
        deserializer.deserialize_i64(AnyNumber)
    }
}

/// Takes anything, and keeps it if it is a whole number.
struct IfAny;

impl<'de> Visitor<'de> for IfAny {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Option<u64>, E> {
        Ok(Some(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Option<u64>, E> {
        Ok(u64::try_from(number).ok())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Option<u64>, E> {
        Ok(from_float(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<Option<u64>, D::Error> {
        IgnoredAny::deserialize(extension).map(|_| None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Option<u64>, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<u64>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> String {
        String::from_utf8(exact(json.as_bytes()).into_owned()).unwrap_or_default()
    }

    #[test]
    fn a_number_is_its_text() {
        for (number, meant) in [
            ("7.0", "7"),
            ("7.10e1", "71"),
            ("1e3", "1000"),
            ("1E+3", "1000"),
            ("100e-2", "1"),
            ("0.00", "0"),
            ("-0.0", "0"),
            ("0e99", "0"),
            ("-5.0", "-5"),
            ("0.99999999999999999", FRACTION),
            ("1000000000.0000000001", FRACTION),
            ("1e-1", FRACTION),
            ("-1e-99999999999999999999", FRACTION),
            ("0.1e99999999999999999999", TOO_LARGE),
            ("9007199254740991.0", "9007199254740991"),
            ("9007199254740992.0", TOO_LARGE),
            ("1e15", "1000000000000000"),
            ("1e16", TOO_LARGE),
            ("1e400", TOO_LARGE),
        ] {
            assert_eq!(written(number), meant, "{number}");
            assert_eq!(written(&format!("[1,{number},\"{number}\"]")), format!("[1,{meant},\"{number}\"]"));
        }
    }

    #[test]
    fn what_is_no_number_with_a_fraction_stays_what_it_is() {
        for text in [
            "18446744073709551616",
            "1.",
            "01.0",
            ".5",
            "1e",
            "1.e3",
            "1.2.3",
            "1-1.0",
            "--1.0",
            "[\"a1.5\\\"2e3\",4]",
            "\"1.0",
            "\"1.0\\",
            "{\"9f3e\":1}",
        ] {
            assert_eq!(written(text), text);
        }
    }
}
