//! The Avro binary encoding, for the generated structs.
//!
//! Written out here rather than through `apache-avro`'s `Value`, which costs 2 to 3 times as much
//! and accepts data cut inside a string. Follows the Avro 1.12
//! specification, "Binary encoding". Property tests hold it to `apache-avro` byte for byte.

use crate::{AggregateType, Date, Decimal, Digest, EventType, Text, Timestamp, Uuid};

/// What can be wrong with a datum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("datum ends at byte {at}, {wanted} more expected")]
    Truncated {
        /// Byte offset at which more was needed.
        at: usize,
        /// How many bytes were missing.
        wanted: usize,
    },
    /// Bytes are left over after the last field.
    #[error("datum has {extra} bytes too many, from byte {at} on")]
    Trailing {
        /// Offset of the first byte too many.
        at: usize,
        /// How many.
        extra: usize,
    },
    /// A variable-length integer with more than ten bytes, or beyond 64 bits.
    #[error("integer at byte {at} is out of range")]
    Integer {
        /// Byte offset.
        at: usize,
    },
    /// A negative or impossible length.
    #[error("length {length} at byte {at} is out of range")]
    Length {
        /// Byte offset.
        at: usize,
        /// The length found.
        length: i64,
    },
    /// A string that is not UTF-8.
    #[error("string at byte {at} is not utf-8")]
    Utf8 {
        /// Byte offset.
        at: usize,
    },
    /// An enum index beyond the symbols.
    #[error("enum {name} has no symbol {index}")]
    Symbol {
        /// The enum.
        name: &'static str,
        /// The index found.
        index: i64,
    },
    /// A union branch that does not exist.
    #[error("union branch {index} at byte {at} does not exist")]
    Branch {
        /// Byte offset.
        at: usize,
        /// The branch found.
        index: i64,
    },
    /// A decimal beyond 28 digits, or not in its shortest form.
    #[error("decimal at byte {at} is out of range")]
    Decimal {
        /// Byte offset.
        at: usize,
    },
    /// An event type or version that this build does not know.
    #[error("event {event_type} version {version} is unknown to this build")]
    UnknownEvent {
        /// Record name.
        event_type: String,
        /// Its version.
        version: u16,
    },
}

impl From<DecodeError> for crate::Problem {
    fn from(error: DecodeError) -> Self {
        Self::new(crate::ErrorCode::DecodeFailed, error.to_string())
    }
}

/// Renders a [`Text`] for a reader who may or may not hold its key.
pub type TextsToJson<'a> = &'a dyn Fn(&Text) -> serde_json::Value;

/// A value with a binary encoding.
pub trait Wire: Sized {
    /// Appends the encoding.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads one value.
    ///
    /// # Errors
    /// If the bytes are not such a value.
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError>;
    /// The value for people and scripts; decimals and times become strings.
    fn json(&self, texts: TextsToJson<'_>) -> serde_json::Value;
}

/// One version of one event record.
pub trait EventRecord: Wire {
    /// Record name without namespace.
    const NAME: &'static str;
    /// Version of the schema.
    const VERSION: u16;
    /// Aggregate type, last part of the namespace.
    const AGGREGATE_TYPE: &'static str;
}

/// All events of one aggregate type.
pub trait EventGroup: Sized {
    /// Whose events they are.
    const AGGREGATE_TYPE: AggregateType;
    /// Which event it is.
    fn event_type(&self) -> EventType;
    /// Appends the raw datum of the newest version.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads a datum of any known version and brings it up to the newest.
    ///
    /// # Errors
    /// If the type or version is unknown, or the bytes are not exactly one datum.
    fn decode(event_type: &str, version: u16, payload: &[u8]) -> Result<Self, DecodeError>;
    /// Reads the JSON that `cqrs-es` stores write, of any known version, and brings it up to the
    /// newest.
    ///
    /// # Errors
    /// If the type or version is unknown, a field is missing or too many, or `intake` refuses.
    fn from_json(
        event_type: &str,
        version: u16,
        payload: serde_json::Value,
        intake: &mut dyn crate::Intake,
    ) -> Result<Self, crate::Problem>;
    /// The payload for people and scripts.
    fn json(&self, texts: TextsToJson<'_>) -> serde_json::Value;
}

/// Encodes one value.
#[must_use]
pub fn encode<T: Wire>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    value.put(&mut out);
    out
}

/// Decodes exactly one value: nothing may be missing, nothing left over.
///
/// # Errors
/// If the bytes are not exactly one such value.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut input = Reader::new(bytes);
    let value = T::take(&mut input)?;
    input.finish()?;
    Ok(value)
}

/// A bounds-checked cursor over a datum.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Byte offset of the next value.
    #[must_use]
    #[inline]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// # Errors
    /// [`DecodeError::Trailing`] if bytes are left.
    #[inline]
    pub const fn finish(&self) -> Result<(), DecodeError> {
        let extra = self.bytes.len() - self.at;
        if extra == 0 {
            Ok(())
        } else {
            Err(DecodeError::Trailing { at: self.at, extra })
        }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let left = self.bytes.len() - self.at;
        if count > left {
            return Err(DecodeError::Truncated {
                at: self.at,
                wanted: count - left,
            });
        }
        let slice = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(slice)
    }

    /// A zig-zag variable-length integer. Only the shortest spelling is accepted, so that a
    /// header has exactly one encoding.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] or [`DecodeError::Integer`].
    #[inline]
    pub fn long(&mut self) -> Result<i64, DecodeError> {
        // most integers are lengths and branches below 64: one byte
        match self.bytes.get(self.at) {
            Some(&byte) if byte & 0x80 == 0 => {
                self.at += 1;
                Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1))
            }
            _ => self.long_of_several_bytes(),
        }
    }

    fn long_of_several_bytes(&mut self) -> Result<i64, DecodeError> {
        let start = self.at;
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            let overlong = byte == 0 && shift > 0;
            if overlong || (shift == 63 && byte > 1) {
                return Err(DecodeError::Integer { at: start });
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
        }
        Err(DecodeError::Integer { at: start })
    }

    /// Length-prefixed bytes.
    ///
    /// # Errors
    /// If the length is negative or beyond the datum.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let at = self.at;
        let length = self.long()?;
        let count = usize::try_from(length).map_err(|_| DecodeError::Length { at, length })?;
        self.take(count)
    }

    /// Length-prefixed UTF-8.
    ///
    /// # Errors
    /// As [`Self::bytes`], or [`DecodeError::Utf8`].
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        let at = self.at;
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Utf8 { at })
    }

    /// A fixed number of bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }
}

/// Appends a zig-zag variable-length integer.
pub fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends length-prefixed bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

impl Wire for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_long(out, *self);
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.long()
    }
    fn json(&self, _: TextsToJson<'_>) -> serde_json::Value {
        (*self).into()
    }
}

impl Wire for i32 {
    fn put(&self, out: &mut Vec<u8>) {
        put_long(out, i64::from(*self));
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = input.at();
        Self::try_from(input.long()?).map_err(|_| DecodeError::Integer { at })
    }
    fn json(&self, _: TextsToJson<'_>) -> serde_json::Value {
        (*self).into()
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = input.at();
        match input.take(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Integer { at }),
        }
    }
    fn json(&self, _: TextsToJson<'_>) -> serde_json::Value {
        (*self).into()
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.str().map(str::to_owned)
    }
    fn json(&self, _: TextsToJson<'_>) -> serde_json::Value {
        self.as_str().into()
    }
}

impl Wire for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.bytes().map(<[u8]>::to_vec)
    }
    fn json(&self, _: TextsToJson<'_>) -> serde_json::Value {
        crate::digest::hex(self).into()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => put_long(out, 0),
            Some(value) => {
                put_long(out, 1);
                value.put(out);
            }
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = input.at();
        match input.long()? {
            0 => Ok(None),
            1 => T::take(input).map(Some),
            index => Err(DecodeError::Branch { at, index }),
        }
    }
    fn json(&self, texts: TextsToJson<'_>) -> serde_json::Value {
        self.as_ref()
            .map_or(serde_json::Value::Null, |v| v.json(texts))
    }
}

impl Wire for Uuid {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.fixed().map(Self::from_bytes)
    }
    fn json(&self, _: TextsToJson<'_>) -> serde_json::Value {
        self.to_string().into()
    }
}

impl Wire for Digest {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.fixed().map(Self)
    }
    fn json(&self, _: TextsToJson<'_>) -> serde_json::Value {
        self.to_string().into()
    }
}

impl Wire for Timestamp {
    fn put(&self, out: &mut Vec<u8>) {
        put_long(out, self.0);
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.long().map(Self)
    }
    fn json(&self, _: TextsToJson<'_>) -> serde_json::Value {
        self.to_string().into()
    }
}

impl Wire for Date {
    fn put(&self, out: &mut Vec<u8>) {
        put_long(out, i64::from(self.0));
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        <i32 as Wire>::take(input).map(Self)
    }
    fn json(&self, _: TextsToJson<'_>) -> serde_json::Value {
        self.to_string().into()
    }
}

impl Wire for Decimal {
    /// Two's complement, big-endian, shortest form of the unscaled value at scale 9.
    fn put(&self, out: &mut Vec<u8>) {
        let bytes = self.unscaled().to_be_bytes();
        let sign = if bytes[0] & 0x80 == 0 { 0x00 } else { 0xff };
        let mut start = 0;
        while start < 15 && bytes[start] == sign && (bytes[start + 1] ^ sign) & 0x80 == 0 {
            start += 1;
        }
        put_bytes(out, &bytes[start..]);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = input.at();
        let bytes = input.bytes()?;
        if bytes.is_empty() || bytes.len() > 16 {
            return Err(DecodeError::Decimal { at });
        }
        let sign = if bytes[0] & 0x80 == 0 { 0x00 } else { 0xff };
        // the shortest form only: a value has one spelling
        if bytes.len() > 1 && bytes[0] == sign && (bytes[1] ^ sign) & 0x80 == 0 {
            return Err(DecodeError::Decimal { at });
        }
        let mut wide = [sign; 16];
        wide[16 - bytes.len()..].copy_from_slice(bytes);
        Self::from_unscaled(i128::from_be_bytes(wide)).ok_or(DecodeError::Decimal { at })
    }
    fn json(&self, _: TextsToJson<'_>) -> serde_json::Value {
        self.to_string().into()
    }
}

impl Wire for Text {
    fn put(&self, out: &mut Vec<u8>) {
        self.key_id().put(out);
        put_long(out, self.index().cast_signed());
        out.extend_from_slice(self.nonce());
        put_bytes(out, self.bytes());
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let key_id = <Uuid as Wire>::take(input)?;
        let at = input.at();
        let index = u64::try_from(input.long()?).map_err(|_| DecodeError::Integer { at })?;
        let nonce = input.fixed()?;
        let bytes = input.bytes()?.to_vec();
        Ok(Self::recorded(key_id, index, nonce, bytes))
    }
    fn json(&self, texts: TextsToJson<'_>) -> serde_json::Value {
        texts(self)
    }
}
