//! Frames that are a little other than right ones.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// The longest text that is put in place of something.
const LONG: usize = 70_000;

/// Bytes with some of them altered, removed, or more.
pub fn bytes(bytes: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(1..4) {
        if bytes.is_empty() {
            return bytes.push(random.u8(..));
        }
        let at = random.usize(..bytes.len());
        match random.u32(..5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.u8(..)),
            2 => bytes[at] = [0, 0x7f, 0x80, 0xc1, 0xdd, 0xff][random.usize(..6)],
            3 => bytes[at] ^= 1 << random.u32(..8),
            _ => bytes[at] = random.u8(..),
        }
    }
}

/// A message with one field altered, added or gone.
pub fn value(value: &mut Value, random: &mut Rng) {
    let places = count(value);
    let mut place = random.usize(..places);
    alter_place(value, &mut place, random);
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Array(values) => values.iter().map(count).sum(),
        _ => 0,
    }
}

/// Alters the value that is at this place, counted from the outermost.
fn alter_place(value: &mut Value, place: &mut usize, random: &mut Rng) -> bool {
    if *place == 0 {
        alter(value, random);
        return true;
    }
    *place -= 1;
    match value {
        Value::Object(fields) => fields.values_mut().any(|value| alter_place(value, place, random)),
        Value::Array(values) => values.iter_mut().any(|value| alter_place(value, place, random)),
        _ => false,
    }
}

fn alter(value: &mut Value, random: &mut Rng) {
    match value {
        Value::Object(fields) if random.bool() => alter_fields(fields, random),
        Value::Array(values) if random.bool() => match random.bool() {
            true => values.clear(),
            false => {
                let first = values.first().cloned().unwrap_or(Value::Null);
                values.resize(random.usize(..2_000), first);
            }
        },
        value => *value = end(random),
    }
}

fn alter_fields(fields: &mut Map<String, Value>, random: &mut Rng) {
    let name = fields.keys().nth(random.usize(..fields.len().max(1))).cloned().unwrap_or_default();
    let old = fields.remove(&name);
    match random.u32(..3) {
        0 => {}
        1 => {
            fields.insert(format!("{name}x"), old.unwrap_or_default());
        }
        _ => {
            fields.extend(old.map(|old| (name, old)));
            fields.insert("unknown".into(), end(random));
        }
    }
}

/// A value that is at an end of something.
fn end(random: &mut Rng) -> Value {
    match random.u32(..14) {
        0 => json!(0),
        1 => json!(-1),
        2 => json!(u64::MAX),
        3 => json!(i64::MIN),
        4 => json!(0.1),
        5 => json!(1e300),
        6 => json!(""),
        7 => json!("x".repeat(random.usize(..LONG))),
        8 => json!("\u{1b}[2J\u{0}\u{202e}\u{1f4a9}".repeat(random.usize(1..20))),
        9 => Value::Null,
        10 => json!(true),
        11 => (0..random.usize(..200)).fold(json!([]), |inner, _| json!([inner])),
        12 => json!({}),
        _ => json!("local"),
    }
}
