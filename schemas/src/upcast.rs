//! Old versions of events, brought up to the newest. A version without its upcaster here does not
//! compile, because the generated decoder calls `From`.

use crate::events::{MarketObserved, MarketObservedRef, MarketObservedV1, MarketObservedV1Ref};

/// One body for the owned and for the borrowed form, so that they cannot differ.
macro_rules! upcast {
    ($(#[$doc:meta])* ($owned:ident, $borrowed:ident) => ($new:ident, $new_borrowed:ident), |$old:ident| $fields:tt) => {
        $(#[$doc])*
        impl From<$owned> for $new {
            fn from($old: $owned) -> Self {
                Self $fields
            }
        }

        $(#[$doc])*
        impl<'a> From<$borrowed<'a>> for $new_borrowed<'a> {
            #[inline]
            fn from($old: $borrowed<'a>) -> Self {
                Self $fields
            }
        }
    };
}

upcast!(
    /// Version 1 knew daily bars only and named them by their day.
    (MarketObservedV1, MarketObservedV1Ref) => (MarketObserved, MarketObservedRef), |old| {
        instrument: old.instrument,
        opened_at: old.date.midnight(),
        interval_s: 86_400,
        open: old.open,
        high: old.high,
        low: old.low,
        close: old.close,
        volume: old.volume,
    }
);
