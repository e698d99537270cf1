//! MessagePack: everything that is written in it, and everything that is read from it, goes through here.
//!
//! There are two forms. The *compact* one, [`encode`], is what nodes say to each other and keep on disk: a struct is an array of
//! its fields in the order of their declaration, an enum without data its name, an enum with data a map of its name to the data.
//! The *named* one, [`encode_named`], is what clients speak: a struct is a map. Decoding takes either.
//!
//! rmp-serde does the work behind a guard, which finds where a value ends without building anything and without recursion:
//! rmp-serde does not say how far it read in a slice, ignores bytes behind a value, takes numbers for the names of fields, and
//! counts depth in steps of its own. A value that passed is complete, so a declared length of four billion elements is refused
//! before anything is allocated for it.

use rmp::Marker;
use serde::de::{Deserialize, DeserializeOwned};
use serde::ser::Serialize;

/// The deepest nesting of arrays and maps in a value.
pub const MAX_DEPTH: usize = 16;

/// Why bytes are not the value that they should be. The text never quotes more of them than serde does.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadValue {
    /// More was announced than is there.
    #[error("it ends too early")]
    EndsEarly,
    /// More than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// A number, say, where the name of a field should be.
    #[error("the key of a map is no text")]
    KeyIsNoText,
    /// 0xc1, which stands for nothing.
    #[error("a byte that MessagePack does not use")]
    Reserved,
    /// So many bytes follow the value.
    #[error("{0} bytes behind its end")]
    Behind(usize),
    /// The value is of another type; serde says how.
    #[error("{0}")]
    Unfit(String),
    /// [`encode`] would have written other bytes.
    #[error("not the encoding of what it decodes to")]
    NotAsWritten,
}

/// A value in the compact form.
///
/// # Panics
/// If the type has no encoding, as one with 128-bit integers: a mistake of the program, never of a value.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, value);
    bytes
}

/// Adds a value in the compact form to `bytes`.
///
/// # Panics
/// As [`encode`].
pub fn write(bytes: &mut Vec<u8>, value: &impl Serialize) {
    let written = rmp_serde::encode::write(bytes, value);
    assert!(written.is_ok(), "encoding a value into memory failed: {written:?}");
}

/// A value in the named form.
///
/// # Panics
/// As [`encode`].
pub fn encode_named(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_named(&mut bytes, value);
    bytes
}

/// Adds a value in the named form to `bytes`.
///
/// # Panics
/// As [`encode`].
pub fn write_named(bytes: &mut Vec<u8>, value: &impl Serialize) {
    let written = rmp_serde::encode::write_named(bytes, value);
    assert!(written.is_ok(), "encoding a value into memory failed: {written:?}");
}

/// Decodes bytes that are exactly one value, in either form. Texts and bytes in it need not be copied.
///
/// # Errors
/// If they are no value of this type, or anything stands behind it.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BadValue> {
    match split_value(bytes)? {
        (value, []) => build(value),
        (_, behind) => Err(BadValue::Behind(behind.len())),
    }
}

/// Decodes what [`encode`] wrote and nothing else: writing the value again gives the same bytes.
///
/// # Errors
/// If it is not.
pub fn decode_as_written<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, BadValue> {
    let value = decode(bytes)?;
    if encode(&value) == bytes { Ok(value) } else { Err(BadValue::NotAsWritten) }
}

/// Decodes the first of several values, in either form, and leaves the others in `rest`.
///
/// # Errors
/// If `rest` does not begin with a value of this type.
pub fn take<'a, T: Deserialize<'a>>(rest: &mut &'a [u8]) -> Result<T, BadValue> {
    let bytes: &'a [u8] = rest;
    let (value, behind) = split_value(bytes)?;
    *rest = behind;
    build(value)
}

fn build<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, BadValue> {
    rmp_serde::from_slice(value).map_err(|why| BadValue::Unfit(why.to_string()))
}

/// An array or a map of which some values are still to come; a map has two values, key first, for each entry.
#[derive(Clone, Copy)]
struct Container {
    left: u64,
    is_map: bool,
}

/// What a value turned out to be; of text and other scalars, the bytes are behind us.
enum Seen {
    Text,
    Scalar,
    Container(Container),
}

/// Splits `bytes` behind its first value.
fn split_value(bytes: &[u8]) -> Result<(&[u8], &[u8]), BadValue> {
    let mut rest = bytes;
    let mut open = [Container { left: 0, is_map: false }; MAX_DEPTH];
    let mut depth = 0;
    loop {
        let seen = read_over(&mut rest)?;
        if let Some(parent) = open[..depth].last_mut() {
            let is_key = parent.is_map && parent.left.is_multiple_of(2);
            if is_key && !matches!(seen, Seen::Text) {
                return Err(BadValue::KeyIsNoText);
            }
            parent.left -= 1;
        }
        if let Seen::Container(container) = seen {
            *open.get_mut(depth).ok_or(BadValue::TooDeep)? = container;
            depth += 1;
        }
        while depth > 0 && open[depth - 1].left == 0 {
            depth -= 1;
        }
        if depth == 0 {
            return Ok(bytes.split_at(bytes.len() - rest.len()));
        }
    }
}

/// Reads over a scalar or a text, or over the head of an array or a map.
fn read_over(rest: &mut &[u8]) -> Result<Seen, BadValue> {
    let array = |left| Ok(Seen::Container(Container { left, is_map: false }));
    let map = |entries: u64| Ok(Seen::Container(Container { left: 2 * entries, is_map: true }));
    let (&marker, behind) = rest.split_first().ok_or(BadValue::EndsEarly)?;
    *rest = behind;
    let (seen, length) = match Marker::from_u8(marker) {
        Marker::FixArray(count) => return array(u64::from(count)),
        Marker::Array16 => return array(take_number::<2>(rest)?),
        Marker::Array32 => return array(take_number::<4>(rest)?),
        Marker::FixMap(count) => return map(u64::from(count)),
        Marker::Map16 => return map(take_number::<2>(rest)?),
        Marker::Map32 => return map(take_number::<4>(rest)?),
        Marker::FixStr(length) => (Seen::Text, u64::from(length)),
        Marker::Str8 => (Seen::Text, take_number::<1>(rest)?),
        Marker::Str16 => (Seen::Text, take_number::<2>(rest)?),
        Marker::Str32 => (Seen::Text, take_number::<4>(rest)?),
        Marker::Bin8 => (Seen::Scalar, take_number::<1>(rest)?),
        Marker::Bin16 => (Seen::Scalar, take_number::<2>(rest)?),
        Marker::Bin32 => (Seen::Scalar, take_number::<4>(rest)?),
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => (Seen::Scalar, 0),
        Marker::U8 | Marker::I8 => (Seen::Scalar, 1),
        Marker::U16 | Marker::I16 => (Seen::Scalar, 2),
        Marker::U32 | Marker::I32 | Marker::F32 => (Seen::Scalar, 4),
        Marker::U64 | Marker::I64 | Marker::F64 => (Seen::Scalar, 8),
        // An extension has a byte for its type before its data.
        Marker::FixExt1 => (Seen::Scalar, 1 + 1),
        Marker::FixExt2 => (Seen::Scalar, 1 + 2),
        Marker::FixExt4 => (Seen::Scalar, 1 + 4),
        Marker::FixExt8 => (Seen::Scalar, 1 + 8),
        Marker::FixExt16 => (Seen::Scalar, 1 + 16),
        Marker::Ext8 => (Seen::Scalar, 1 + take_number::<1>(rest)?),
        Marker::Ext16 => (Seen::Scalar, 1 + take_number::<2>(rest)?),
        Marker::Ext32 => (Seen::Scalar, 1 + take_number::<4>(rest)?),
        Marker::Reserved => return Err(BadValue::Reserved),
    };
    let length = usize::try_from(length).map_err(|_| BadValue::EndsEarly)?;
    *rest = rest.get(length..).ok_or(BadValue::EndsEarly)?;
    Ok(seen)
}

/// The big-endian number in the next `WIDTH` bytes.
fn take_number<const WIDTH: usize>(rest: &mut &[u8]) -> Result<u64, BadValue> {
    let (number, behind) = rest.split_first_chunk::<WIDTH>().ok_or(BadValue::EndsEarly)?;
    *rest = behind;
    let mut bytes = [0; 8];
    bytes[8 - WIDTH..].copy_from_slice(number);
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_its_bytes_end() {
        for value in [encode(&("name", 7u8)), encode_named(&("name", 7u8))] {
            assert_eq!(decode::<(&str, u8)>(&value), Ok(("name", 7)));
            for behind in 0..=u8::MAX {
                let longer = [&value[..], &[behind]].concat();
                assert_eq!(decode::<(&str, u8)>(&longer), Err(BadValue::Behind(1)), "{behind:#x}");
            }
            for length in 0..value.len() {
                assert_eq!(decode::<(&str, u8)>(&value[..length]), Err(BadValue::EndsEarly), "{length} bytes");
            }
        }
    }

    #[test]
    fn several_values_are_taken_one_by_one() {
        let mut bytes = encode(&Some(300));
        write(&mut bytes, &None::<u64>);
        write(&mut bytes, &"text");
        let mut rest = &bytes[..];
        assert_eq!(take::<Option<u64>>(&mut rest), Ok(Some(300)));
        assert_eq!(take::<Option<u64>>(&mut rest), Ok(None));
        assert_eq!(take::<&str>(&mut rest), Ok("text"));
        assert_eq!(take::<()>(&mut rest), Err(BadValue::EndsEarly));
    }

    #[test]
    fn what_is_written_otherwise_is_decoded_only_where_that_does_not_matter() {
        // 7 in one byte, in two, and with another type.
        for (bytes, value, as_written) in [
            (&[7][..], Ok(7), Ok(7)),
            (&[0xcc, 7], Ok(7), Err(BadValue::NotAsWritten)),
            (&[0xd0, 7], Ok(7), Err(BadValue::NotAsWritten)),
        ] {
            assert_eq!(decode::<u8>(bytes), value);
            assert_eq!(decode_as_written::<u8>(bytes), as_written);
        }
        assert_eq!(decode_as_written::<u8>(&[7, 7]), Err(BadValue::Behind(1)));
        assert!(matches!(decode::<u8>(&encode(&"seven")), Err(BadValue::Unfit(_))));
    }

    #[test]
    fn depth_names_and_lengths_are_checked_before_anything_is_built() {
        use serde::de::IgnoredAny;
        let nested = |depth: usize| [vec![0x91; depth], vec![0]].concat();
        assert!(decode::<IgnoredAny>(&nested(MAX_DEPTH)).is_ok());
        assert!(matches!(decode::<IgnoredAny>(&nested(MAX_DEPTH + 1)), Err(BadValue::TooDeep)));
        assert!(matches!(decode::<IgnoredAny>(&nested(1 << 20)), Err(BadValue::TooDeep)));
        assert!(matches!(decode::<IgnoredAny>(&[0x81, 1, 2]), Err(BadValue::KeyIsNoText)));
        assert!(matches!(decode::<IgnoredAny>(&[0x91, 0xc1]), Err(BadValue::Reserved)));
        for container in [0xdb, 0xc6, 0xdd, 0xdf] {
            assert!(matches!(
                decode::<IgnoredAny>(&[container, 0xff, 0xff, 0xff, 0xff, 0xa0]),
                Err(BadValue::EndsEarly)
            ));
        }
    }
}
