//! Text that came from outside, made safe to print.
//!
//! What a client, a peer or a file says may hold line breaks, terminal escapes or marks that turn the direction of writing. Printed
//! as it came it could forge lines of a log or repaint a terminal. Everything that prints such text, for a person or into a log or a
//! table, prints it by [`escaped`]; JSON goes through [`escaped_json`].

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Whether a character does something to a terminal or a line of text besides standing in it.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // Marks that turn the direction of writing, and two more ends of a line.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}'
        )
}

/// Text whose harmful characters are shown as Rust writes them: `\n`, `\u{1b}`.
pub fn escaped(text: &str) -> Escaped<'_> {
    Escaped(text)
}

/// What [`escaped`] returns, to be printed.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, character)) = rest.char_indices().find(|(_, character)| is_harmful(*character)) {
            f.write_str(&rest[..at])?;
            write!(f, "{}", character.escape_default())?;
            rest = &rest[at + character.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// JSON on one line that means the same: harmful characters in strings as `\u001b`, line breaks between values as spaces.
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_harmful) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match character {
            // They can only stand between values: JSON has no such characters in strings.
            '\n' | '\r' | '\t' => safe.push(' '),
            // All of them lie below U+10000. Writing to a String can't fail.
            harmful if is_harmful(harmful) => drop(write!(safe, "\\u{:04x}", u32::from(harmful))),
            other => safe.push(other),
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_repaint_a_terminal_or_forge_a_line_is_shown_as_what_it_is() {
        for (text, safe) in [
            ("alice-7, ünïcode ✓", "alice-7, ünïcode ✓"),
            ("a\nINFO all is well\r", "a\\nINFO all is well\\r"),
            ("\u{1b}]0;title\u{7}\u{1b}[2J", "\\u{1b}]0;title\\u{7}\\u{1b}[2J"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("abc\u{202e}def\u{2028}", "abc\\u{202e}def\\u{2028}"),
        ] {
            assert_eq!(escaped(text).to_string(), safe);
        }
    }

    #[test]
    fn escaped_json_means_the_same() {
        let plain = r#"{"a":"b"}"#;
        assert!(matches!(escaped_json(plain), Cow::Borrowed(same) if same == plain));
        let hostile = "{\"a\":\n\t\"\u{9b}31m\u{202e}\u{7f}\"}";
        let safe = escaped_json(hostile);
        assert_eq!(safe, "{\"a\":  \"\\u009b31m\\u202e\\u007f\"}");
        let [before, after]: [serde_json::Value; 2] = [hostile, &safe].map(|json| serde_json::from_str(json).unwrap());
        assert_eq!(before, after);
    }
}
