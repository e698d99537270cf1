//! Inputs of several parts, each with a kind and a number: `kind u8 | number u32 | length u16 | bytes`.

/// A part of an input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    pub kind: u8,
    pub number: u32,
    pub body: Vec<u8>,
}

/// The parts of an input. What is cut short ends it.
pub fn split(mut input: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    while let Some(([kind, number @ .., high, low], rest)) = input.split_first_chunk::<7>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (body, rest) = rest.split_at(length);
        parts.push(Part { kind: *kind, number: u32::from_be_bytes(*number), body: body.to_vec() });
        input = rest;
    }
    parts
}

/// The input of these parts.
pub fn join(parts: &[Part]) -> Vec<u8> {
    let mut input = Vec::new();
    for Part { kind, number, body } in parts {
        input.push(*kind);
        input.extend(number.to_be_bytes());
        input.extend((body.len() as u16).to_be_bytes());
        input.extend(body);
    }
    input
}
