use std::fmt;

use sovereign_admission::Admitted;

use crate::Uuid;

/// Free text on its way into or out of an event: scrubbed, and sealed unless its department says
/// otherwise.
///
/// New text becomes a `Text` only in the room `guard`: the constructors ask for a witness that no
/// other room can make. Reading recorded events makes them too, since those went through the
/// guard when they were written.
///
/// ```compile_fail
/// // the witness' crate is not reachable from here, and the fields are private
/// let text = sovereign_schemas::Text { key_id: sovereign_schemas::Uuid::nil(), index: 0, nonce: [0; 12], bytes: vec![] };
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    key_id: Uuid,
    index: u64,
    nonce: [u8; 12],
    bytes: Vec<u8>,
}

impl Text {
    /// Text of a department that does not seal: scrubbed, readable by anyone.
    #[must_use]
    pub fn plain(_: Admitted, scrubbed: String) -> Self {
        Self {
            key_id: Uuid::nil(),
            index: 0,
            nonce: [0; 12],
            bytes: scrubbed.into_bytes(),
        }
    }

    /// Scrubbed and sealed text: AES-256-GCM ciphertext and tag under leaf `index` of key
    /// `key_id`.
    #[must_use]
    pub fn sealed(
        _: Admitted,
        key_id: Uuid,
        index: u64,
        nonce: [u8; 12],
        ciphertext: Vec<u8>,
    ) -> Self {
        Self {
            key_id,
            index,
            nonce,
            bytes: ciphertext,
        }
    }

    pub(crate) fn recorded(key_id: Uuid, index: u64, nonce: [u8; 12], bytes: Vec<u8>) -> Self {
        Self {
            key_id,
            index,
            nonce,
            bytes,
        }
    }

    /// Which subject key seals it; all zero for plain text.
    #[must_use]
    pub const fn key_id(&self) -> Uuid {
        self.key_id
    }

    /// Leaf of the subject's key tree, below 2^40.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// AES-GCM nonce; zero for plain text.
    #[must_use]
    pub const fn nonce(&self) -> &[u8; 12] {
        &self.nonce
    }

    /// Ciphertext and tag, or plain UTF-8.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a key is needed to read it.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        !self.key_id.is_nil()
    }

    /// The text, if it is not sealed.
    #[must_use]
    pub fn as_plain(&self) -> Option<&str> {
        if self.is_sealed() {
            None
        } else {
            std::str::from_utf8(&self.bytes).ok()
        }
    }
}

/// Never prints the text, not even plain text (I7).
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_sealed() { "sealed" } else { "plain" };
        write!(f, "Text({kind}, {} bytes)", self.bytes.len())
    }
}

/// Serialised for state digests and cqrs-es; the hex of the bytes, whatever they are.
impl serde::Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut out = serializer.serialize_struct("Text", 4)?;
        out.serialize_field("key_id", &self.key_id)?;
        out.serialize_field("index", &self.index)?;
        out.serialize_field("nonce", &crate::digest::hex(&self.nonce))?;
        out.serialize_field("bytes", &crate::digest::hex(&self.bytes))?;
        out.end()
    }
}

/// Refused: cqrs-es asks for the trait, but JSON would be a way around the guard.
impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "text is read from Avro only; new text comes from the guard",
        ))
    }
}

/// Free text as a caller sent it: not scrubbed. It can be handed to the guard and nowhere else;
/// it prints only its length.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct RawText(String);

impl RawText {
    /// Wraps text that has not been scrubbed yet.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The raw text, for the guard.
    #[must_use]
    pub fn expose_to_guard(&self, _: &Admitted) -> &str {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for RawText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawText({} bytes)", self.0.len())
    }
}
