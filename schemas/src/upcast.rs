//! Old versions of events, brought up to the newest. A version without its upcaster here does not
//! compile, because the generated decoder calls `From`.

use crate::events::{MarketObserved, MarketObservedV1};

/// Version 1 knew daily bars only and named them by their day.
impl From<MarketObservedV1> for MarketObserved {
    fn from(old: MarketObservedV1) -> Self {
        let MarketObservedV1 {
            instrument,
            date,
            open,
            high,
            low,
            close,
            volume,
        } = old;
        Self {
            instrument,
            opened_at: date.midnight(),
            interval_s: 86_400,
            open,
            high,
            low,
            close,
            volume,
        }
    }
}
