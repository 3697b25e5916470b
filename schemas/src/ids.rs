use std::fmt;
use std::str::FromStr;

use crate::Uuid;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing there.
    #[error("is empty; expected 1 to {max} characters")]
    Empty {
        /// Most characters.
        max: usize,
    },
    /// Too long.
    #[error("has {found} characters; at most {max} are allowed")]
    TooLong {
        /// Characters found.
        found: usize,
        /// Most characters.
        max: usize,
    },
    /// A character that is not allowed.
    #[error("has {found:?} at character {at}; allowed are letters, digits and . _ : / @ + -")]
    Character {
        /// The character.
        found: char,
        /// 1-based.
        at: usize,
    },
}

fn check(text: &str, max: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { max });
    }
    let found = text.chars().count();
    if found > max {
        return Err(IdError::TooLong { found, max });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/@+-".contains(c);
    match text.chars().enumerate().find(|&(_, c)| !allowed(c)) {
        Some((at, found)) => Err(IdError::Character { found, at: at + 1 }),
        None => Ok(()),
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Most characters.
            pub const CHARACTERS_MAX: usize = $max;

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                check(text, $max)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id! {
    /// Names one aggregate among those of its type; also the key of its Kafka records, so it must
    /// hold no personal data. 1 to 128 characters of `A-Z a-z 0-9 . _ : / @ + -`.
    ///
    /// # Examples
    /// ```
    /// use sovereign_schemas::AggregateId;
    /// assert!("trade_eth_040226_1201".parse::<AggregateId>().is_ok());
    /// assert!("two words".parse::<AggregateId>().is_err());
    /// ```
    AggregateId, 128
}

text_id! {
    /// A short code that is not prose: a role, an instrument, a reason, an actor. 1 to 64
    /// characters of the same set as [`AggregateId`].
    Identifier, 64
}

/// The command id for what a client sent: a UUID is taken as it is; any other text of 1 to 200
/// bytes is hashed into one (UUID version 5, RFC 9562, in [`crate::TYPES_NAMESPACE`]), so a
/// client may use ids of its own making. `None` if it is empty or longer.
///
/// # Examples
/// ```
/// use sovereign_schemas::command_id_from_text;
/// assert_eq!(command_id_from_text("order-17"), command_id_from_text("order-17"));
/// assert_eq!(command_id_from_text(""), None);
/// ```
#[must_use]
pub fn command_id_from_text(text: &str) -> Option<Uuid> {
    if let Ok(id) = Uuid::try_parse(text)
        && !id.is_nil()
    {
        return Some(id);
    }
    (1..=200)
        .contains(&text.len())
        .then(|| Uuid::new_v5(&crate::TYPES_NAMESPACE, text.as_bytes()))
}

/// The random bits of a UUID version 7 behind its time and counter (RFC 9562, `rand_b`).
const RAND_B: u128 = (1 << 62) - 1;

/// A UUIDv7 like `fresh`, whose last 62 bits are those of `source`: the id of the first event of a
/// command that came in something with an id of its own. So one can tell later which of several
/// commands with the same command id took effect.
///
/// # Examples
/// ```
/// use sovereign_schemas::{Uuid, bears_source, event_id_with_source};
/// let (fresh, source) = (Uuid::now_v7(), Uuid::new_v5(&Uuid::NAMESPACE_URL, b"a record"));
/// let id = event_id_with_source(fresh, source);
/// assert_eq!((id.get_version_num(), id.get_timestamp()), (7, fresh.get_timestamp()));
/// assert!(bears_source(id, source) && !bears_source(fresh, source));
/// ```
#[must_use]
pub const fn event_id_with_source(fresh: Uuid, source: Uuid) -> Uuid {
    Uuid::from_u128((fresh.as_u128() & !RAND_B) | (source.as_u128() & RAND_B))
}

/// Whether an event's id was made with this source.
#[must_use]
pub const fn bears_source(event_id: Uuid, source: Uuid) -> bool {
    (event_id.as_u128() ^ source.as_u128()) & RAND_B == 0
}
