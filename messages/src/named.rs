//! Words on the wire for the variants of an enum, from one list. The compiler names a variant that is missing in it.

/// Gives an enum of plain variants `ALL`, `name` and `named`; with `or Other` behind its name, one that keeps the word of a later
/// version in `Other` gets `ALL` and `name`, and `named` for any word.
macro_rules! named {
    ($type:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $type {
            /// Each once, in a fixed order.
            pub const ALL: [$type; [$($word),+].len()] = [$($type::$variant),+];

            /// The word on the wire: stable.
            pub const fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $word),+
                }
            }

            /// The one with this word.
            pub fn named(name: &str) -> Option<$type> {
                match name {
                    $($word => Some($type::$variant),)+
                    _ => None,
                }
            }
        }
    };
    ($type:ident or Other { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $type {
            /// Each once, in a fixed order, but for the words of later versions.
            pub const ALL: [$type; [$($word),+].len()] = [$($type::$variant),+];

            /// The word on the wire: stable.
            pub fn name(&self) -> &str {
                match self {
                    $($type::$variant => $word,)+
                    $type::Other(name) => name,
                }
            }

            /// The one with this word.
            pub fn named(name: &str) -> $type {
                match name {
                    $($word => $type::$variant,)+
                    name => $type::Other(name.into()),
                }
            }
        }
    };
}

pub(crate) use named;
