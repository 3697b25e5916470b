//! Events decoded without copying what they borrow: for folds, which look at few fields and keep
//! fewer. The borrowed forms are generated from the same schemas as the owned ones, and a property
//! test holds the two decoders to each other.

use crate::avro::{DecodeError, Reader, Wire};
use crate::{Date, Decimal, Digest, Text, Timestamp, Uuid};

/// Bytes that are UTF-8, still where they were decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Utf8<'a>(&'a [u8]);

impl<'a> Utf8<'a> {
    /// The bytes.
    #[must_use]
    #[inline]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The text; costs a second look at it.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        // checked when it was taken
        std::str::from_utf8(self.0).unwrap_or_default()
    }
}

/// A value that is decoded without copying what it borrows: for folds, which look at few fields
/// and keep fewer. Accepts exactly the bytes that [`Wire::take`] accepts for the owned form.
pub trait Borrowed<'a>: Sized {
    /// Reads one value.
    ///
    /// # Errors
    /// As [`Wire::take`].
    fn take(input: &mut Reader<'a>) -> Result<Self, DecodeError>;
}

/// An owned value seen as its borrowed form.
pub trait ToBorrowed {
    /// The borrowed form.
    type Form<'a>
    where
        Self: 'a;
    /// Borrows.
    fn borrowed(&self) -> Self::Form<'_>;
}

/// Decodes exactly one borrowed value, as [`decode`] does for owned ones.
///
/// # Errors
/// If the bytes are not exactly one such value.
#[inline]
pub fn decode_borrowed<'a, T: Borrowed<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    let mut input = Reader::new(bytes);
    let value = T::take(&mut input)?;
    input.finish()?;
    Ok(value)
}

macro_rules! borrowed_as_it_is {
    ($($owned:ty),+) => {$(
        impl Borrowed<'_> for $owned {
            #[inline]
            fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Wire::take(input)
            }
        }
        impl ToBorrowed for $owned {
            type Form<'a> = Self;
            #[inline]
            fn borrowed(&self) -> Self {
                *self
            }
        }
    )+};
}

borrowed_as_it_is!(i64, i32, bool, Uuid, Digest, Timestamp, Date, Decimal);

impl<'a> Borrowed<'a> for Utf8<'a> {
    #[inline]
    fn take(input: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let at = input.at();
        let bytes = input.bytes()?;
        // most strings here are short and ASCII, which is told faster than that they are UTF-8
        if bytes.is_ascii() || std::str::from_utf8(bytes).is_ok() {
            Ok(Utf8(bytes))
        } else {
            Err(DecodeError::Utf8 { at })
        }
    }
}

impl ToBorrowed for String {
    type Form<'a> = Utf8<'a>;
    fn borrowed(&self) -> Utf8<'_> {
        Utf8(self.as_bytes())
    }
}

impl<'a> Borrowed<'a> for &'a [u8] {
    #[inline]
    fn take(input: &mut Reader<'a>) -> Result<Self, DecodeError> {
        input.bytes()
    }
}

impl ToBorrowed for Vec<u8> {
    type Form<'a> = &'a [u8];
    fn borrowed(&self) -> &[u8] {
        self
    }
}

impl<'a, T: Borrowed<'a>> Borrowed<'a> for Option<T> {
    #[inline]
    fn take(input: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let at = input.at();
        match input.long()? {
            0 => Ok(None),
            1 => T::take(input).map(Some),
            index => Err(DecodeError::Branch { at, index }),
        }
    }
}

impl<T: ToBorrowed> ToBorrowed for Option<T> {
    type Form<'a>
        = Option<T::Form<'a>>
    where
        T: 'a;
    fn borrowed(&self) -> Self::Form<'_> {
        self.as_ref().map(ToBorrowed::borrowed)
    }
}

/// A [`Text`] that was not copied; folds only pass over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextBytes(usize);

impl TextBytes {
    /// Length of its ciphertext and tag, or of its plain text.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // an event's text may be empty, and nobody asks
    pub const fn len(self) -> usize {
        self.0
    }
}

impl Borrowed<'_> for TextBytes {
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.take(16)?;
        let at = input.at();
        u64::try_from(input.long()?).map_err(|_| DecodeError::Integer { at })?;
        input.take(12)?;
        Ok(Self(input.bytes()?.len()))
    }
}

impl ToBorrowed for Text {
    type Form<'a> = TextBytes;
    fn borrowed(&self) -> TextBytes {
        TextBytes(self.bytes().len())
    }
}
