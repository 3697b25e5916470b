//! When a schedule is due: a cron expression over a time zone, as a pure function.
//!
//! The zone's clock is set forward and back, and then:
//! * an hour that is **skipped**: what names a time in it is due once, at the first moment after it;
//! * an hour that comes **twice**: what names a time in it is due the first time only;
//! * an expression that names **every hour** follows the clock on the wall instead: it is due each
//!   time that the clock shows such a minute, twice in an hour that comes twice, not in a skipped one.

use std::sync::LazyLock;

use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use sovereign_schemas::Timestamp;

use super::Cron;

/// The longest time between two days that fit: 29 February on one weekday, over a year 2100.
const HORIZON_Y: i16 = 42;
/// The same in microseconds.
const HORIZON_US: i64 = HORIZON_Y as i64 * 366 * 86_400 * 1_000_000;
/// A zone sets its clock twice a year, some years oftener (Morocco: four times).
const STRETCHES_MAX: usize = HORIZON_Y as usize * 8;
/// Two due times are at least a minute apart.
const APART_US: i64 = 30_000_000;

/// The zones of the build, not those of the machine: every engine finds the same.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// When something is due, again and again.
///
/// # Examples
/// ```
/// use sovereign_aggregates::schedules::{Cron, Timing};
/// let timing = Timing::new(Cron::parse("30 2 * * *").unwrap(), "Europe/Berlin").unwrap();
/// // on 29 March 2026 there is no 02:30 in Berlin: 03:00, the first moment after it, is 01:00 UTC
/// let due = timing.next_after("2026-03-28T12:00:00Z".parse().unwrap());
/// assert_eq!(due.unwrap().to_string(), "2026-03-29T01:00:00.000000Z");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    cron: Cron,
    zone: TimeZone,
}

impl Timing {
    /// In an IANA time zone, such as `Europe/Berlin` or `UTC`.
    ///
    /// # Errors
    /// What was expected, if there is no such zone.
    pub fn new(cron: Cron, zone: &str) -> Result<Self, String> {
        match ZONES.get(zone) {
            Ok(zone) => Ok(Self { cron, zone }),
            Err(_) => Err(likely(zone)),
        }
    }

    /// The expression.
    #[must_use]
    pub const fn cron(&self) -> &Cron {
        &self.cron
    }

    /// The name of the zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The first due time after a moment; `None` if that is beyond all calendars.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let first = after.0.checked_add(1)?;
        let last = first.checked_add(HORIZON_US)?;
        let mut from = jiff::Timestamp::from_microsecond(first).ok()?;
        for _ in 0..STRETCHES_MAX {
            let change = self.zone.following(from).next();
            let end = change.map(|change| change.timestamp());
            if let Some(due) = self.in_stretch(from)
                && end.is_none_or(|end| due < end)
            {
                return Some(Timestamp(due.as_microsecond()));
            }
            from = end.filter(|end| end.as_microsecond() <= last)?;
        }
        None
    }

    /// The last due time at a moment or before it; `None` if there was none in 42 years.
    #[must_use]
    pub fn latest_until(&self, at: Timestamp) -> Option<Timestamp> {
        let (mut before, mut behind) = (at.0.checked_sub(HORIZON_US)?, at.0);
        let due_until = |after: i64| {
            let due = self.next_after(Timestamp(after))?;
            (due <= at).then_some(due)
        };
        let mut latest = due_until(before)?;
        // something is due after `before`, nothing after `behind`
        while behind - before > APART_US {
            let middle = before + (behind - before) / 2;
            match due_until(middle) {
                Some(due) => (before, latest) = (middle, due),
                None => behind = middle,
            }
        }
        Some(latest)
    }

    /// The first due time at `from` or later, if the clock is not set after `from`.
    fn in_stretch(&self, from: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let offset = self.zone.to_offset(from);
        let mut shown = offset.to_datetime(from);
        if !self.cron.every_hour()
            && let Some((set_at, was)) = self.last_set(from)
        {
            let skipped = |due: DateTime| due < offset.to_datetime(set_at);
            if set_at == from && self.cron.within(was, HORIZON_Y).is_some_and(skipped) {
                return Some(from);
            }
            // what the clock has shown before does not count again
            shown = shown.max(was);
        }
        let due = self.cron.within(shown, HORIZON_Y)?;
        offset.to_timestamp(due).ok()
    }

    /// When the clock was set last, at this moment or before it, and what it would have shown then.
    fn last_set(&self, at: jiff::Timestamp) -> Option<(jiff::Timestamp, DateTime)> {
        let nanosecond = jiff::SignedDuration::from_nanos(1);
        let change = self
            .zone
            .preceding(at.checked_add(nanosecond).ok()?)
            .next()?;
        let set_at = change.timestamp();
        let offset = self.zone.to_offset(set_at.checked_sub(nanosecond).ok()?);
        Some((set_at, offset.to_datetime(set_at)))
    }
}

/// What may have been meant.
fn likely(zone: &str) -> String {
    let place = |name: &str| {
        let last = name.rsplit('/').next().unwrap_or(name);
        last.replace('_', " ").to_lowercase()
    };
    let wanted = place(zone);
    let found = ZONES
        .available()
        .map(|name| name.as_str().to_owned())
        .find(|name| place(name) == wanted);
    match found {
        Some(name) => format!("an IANA time zone; {name}, perhaps"),
        None => "an IANA time zone, such as Europe/Berlin or UTC".to_owned(),
    }
}

#[cfg(test)]
mod tests;
