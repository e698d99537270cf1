//! Finds where a MessagePack value ends, without building anything and without recursion.
//!
//! rmp-serde decodes, and this guards it: rmp-serde does not say how far it read in a slice, ignores bytes behind a
//! value, takes numbers for the names of fields, and counts depth in steps of its own. A value that passed here is
//! complete, so a declared length of four billion elements is refused before anything is allocated for it.

use rmp::Marker;

use crate::codec::MAX_DEPTH;

/// Why bytes do not start with a value that is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BadValue {
    #[error("the message ends too early")]
    EndsEarly,
    #[error("nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("the key of a map is no text")]
    KeyIsNoText,
    #[error("a byte that MessagePack does not use")]
    Reserved,
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
pub(crate) fn split_value(bytes: &[u8]) -> Result<(&[u8], &[u8]), BadValue> {
    let mut rest = bytes;
    let mut open = [Container { left: 0, is_map: false }; MAX_DEPTH];
    let mut depth = 0;
    loop {
        let seen = take(&mut rest)?;
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

fn take(rest: &mut &[u8]) -> Result<Seen, BadValue> {
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
