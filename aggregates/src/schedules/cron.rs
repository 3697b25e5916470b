//! Cron expressions of five fields, and the minutes of a calendar that they name. Of time zones
//! this file knows nothing.

use std::fmt;

use jiff::civil::{Date, DateTime, Time};

/// The calendar repeats itself after so many years (146,097 days, a whole number of weeks): what
/// does not come in them never comes.
const PERIOD_Y: i16 = 400;

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronError {
    /// Which of the fields; nothing if it is the whole expression.
    pub field: Option<&'static str>,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(f, "the {field} of a cron expression is wrong"),
            None => f.write_str("is no cron expression"),
        }
    }
}

/// One of the five fields.
struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    /// Names from `least` on.
    names: &'static [&'static str],
    says: &'static str,
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        least: 0,
        most: 59,
        names: &[],
        says: "0 to 59",
    },
    Field {
        name: "hour",
        least: 0,
        most: 23,
        names: &[],
        says: "0 to 23",
    },
    Field {
        name: "day of the month",
        least: 1,
        most: 31,
        names: &[],
        says: "1 to 31",
    },
    Field {
        name: "month",
        least: 1,
        most: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
        says: "1 to 12, or JAN to DEC",
    },
    Field {
        name: "day of the week",
        least: 0,
        most: 7,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
        says: "0 to 7 with Sunday as 0 and 7, or SUN to SAT",
    },
];

impl Field {
    fn wrong(&self, found: &str) -> CronError {
        CronError {
            field: Some(self.name),
            found: found.chars().take(40).collect(),
            expected: format!(
                "{}; one of them, a range a-b from less to more, *, with /step behind * or a range, or a list of these with commas",
                self.says
            ),
        }
    }

    fn number(&self, text: &str) -> Option<u8> {
        let named = self.names.iter().position(|n| text.eq_ignore_ascii_case(n));
        if let Some(at) = named {
            return Some(self.least + u8::try_from(at).ok()?);
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number: u8 = text.parse().ok().filter(|_| digits)?;
        (self.least..=self.most).contains(&number).then_some(number)
    }

    /// The numbers that a part of a list names, as bits.
    fn part(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            None => (text, None),
            Some((range, step)) => {
                let digits = !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit());
                let step = step.parse::<u8>().ok().filter(|s| digits && *s > 0)?;
                (range, Some(step))
            }
        };
        let (first, last) = match (range, range.split_once('-')) {
            // Sunday once
            ("*", _) if self.most == 7 => (0, 6),
            ("*", _) => (self.least, self.most),
            (_, Some((first, last))) => {
                let (first, last) = (self.number(first)?, self.number(last)?);
                (first < last).then_some((first, last))?
            }
            // a step needs a range: 5/15 means one thing here and another there
            (one, None) if step.is_none() => {
                let one = self.number(one)?;
                (one, one)
            }
            _ => return None,
        };
        // more than the whole range in one step names the first only, and is a mistake
        let step = step.unwrap_or(1);
        if step > self.most - self.least {
            return None;
        }
        Some(
            (first..=last)
                .step_by(step.into())
                .fold(0, |bits, n| bits | 1 << n),
        )
    }

    fn parse(&self, text: &str) -> Result<u64, CronError> {
        let mut bits = 0;
        for part in text.split(',') {
            bits |= self.part(part).ok_or_else(|| self.wrong(part))?;
        }
        Ok(bits)
    }
}

/// A cron expression: minute, hour, day of the month, month, day of the week.
///
/// As in Vixie's cron, a day fits if it fits the day of the month **or** the day of the week,
/// unless one of these two begins with `*`: then it has to fit both.
///
/// # Examples
/// ```
/// use sovereign_aggregates::schedules::Cron;
/// assert!(Cron::parse("*/15 9-17 * * MON-FRI").is_ok());
/// let wrong = Cron::parse("61 2 * * *").unwrap_err();
/// assert_eq!((wrong.field, wrong.found.as_str()), (Some("minute"), "61"));
/// // there is no such day
/// assert!(Cron::parse("0 0 31 2 *").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: Box<str>,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// A day has to fit both fields of days.
    both: bool,
}

fn has(bits: u64, number: i8) -> bool {
    bits >> number.unsigned_abs() & 1 == 1
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// Which field is wrong, or that no day ever fits.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let Ok([minute, hour, day, month, weekday]) = <[&str; 5]>::try_from(fields.as_slice())
        else {
            return Err(CronError {
                field: None,
                found: format!("{} fields", fields.len()),
                expected: "5 fields: minute, hour, day of the month, month, day of the week"
                    .to_owned(),
            });
        };
        let weekdays = FIELDS[4].parse(weekday)?;
        let cron = Self {
            text: fields.join(" ").into(),
            minutes: FIELDS[0].parse(minute)?,
            hours: FIELDS[1].parse(hour)?,
            days: FIELDS[2].parse(day)?,
            months: FIELDS[3].parse(month)?,
            weekdays: weekdays & 0x7f | weekdays >> 7,
            both: day.starts_with('*') || weekday.starts_with('*'),
        };
        let start = Date::constant(2000, 1, 1).to_datetime(Time::midnight());
        if cron.within(start, PERIOD_Y).is_none() {
            return Err(CronError {
                field: Some(FIELDS[2].name),
                found: cron.text.to_string(),
                expected: "a day that comes: none in 400 years fits".to_owned(),
            });
        }
        Ok(cron)
    }

    /// As it was written, with one blank between the fields.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it names every hour of the day.
    pub(super) const fn every_hour(&self) -> bool {
        self.hours == (1 << 24) - 1
    }

    /// The first minute that fits, this one or a later one; none before `years` are over.
    pub(super) fn within(&self, from: DateTime, years: i16) -> Option<DateTime> {
        let last = from.year().checked_add(years)?;
        if let Some(time) = self
            .time_from(from.time())
            .filter(|_| self.fits(from.date()))
        {
            return Some(from.date().to_datetime(time));
        }
        let mut date = from.date().tomorrow().ok()?;
        while date.year() <= last {
            if !has(self.months, date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
            } else if self.fits(date) {
                return Some(date.to_datetime(self.time_from(Time::midnight())?));
            } else {
                date = date.tomorrow().ok()?;
            }
        }
        None
    }

    fn fits(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let fits = if self.both {
            day && weekday
        } else {
            day || weekday
        };
        fits && has(self.months, date.month())
    }

    /// The first minute of a day that fits, from this moment of it on.
    fn time_from(&self, from: Time) -> Option<Time> {
        let begun = from.second() != 0 || from.subsec_nanosecond() != 0;
        let first = from.minute() + i8::from(begun);
        let minute_from = |first: i8| (first..60).find(|minute| has(self.minutes, *minute));
        if has(self.hours, from.hour())
            && let Some(minute) = minute_from(first)
        {
            return Time::new(from.hour(), minute, 0, 0).ok();
        }
        let hour = (from.hour() + 1..24).find(|hour| has(self.hours, *hour))?;
        Time::new(hour, minute_from(0)?, 0, 0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_with_its_field() {
        for (text, field, found) in [
            ("", None, "0 fields"),
            ("* * * *", None, "4 fields"),
            ("* * * * * *", None, "6 fields"),
            ("@daily", None, "1 fields"),
            ("61 * * * *", Some("minute"), "61"),
            ("* 24 * * *", Some("hour"), "24"),
            ("* * 0 * *", Some("day of the month"), "0"),
            ("* * 32 * *", Some("day of the month"), "32"),
            ("* * * 13 *", Some("month"), "13"),
            ("* * * Janu *", Some("month"), "Janu"),
            ("* * * * 8", Some("day of the week"), "8"),
            ("* * * * FRI-MON", Some("day of the week"), "FRI-MON"),
            ("5-5 * * * *", Some("minute"), "5-5"),
            ("5/15 * * * *", Some("minute"), "5/15"),
            ("*/0 * * * *", Some("minute"), "*/0"),
            ("*/60 * * * *", Some("minute"), "*/60"),
            ("1,,2 * * * *", Some("minute"), ""),
            ("+1 * * * *", Some("minute"), "+1"),
            ("-1 * * * *", Some("minute"), "-1"),
            ("999999999999 * * * *", Some("minute"), "999999999999"),
            ("* * L * *", Some("day of the month"), "L"),
            ("0 0 31 2 *", Some("day of the month"), "0 0 31 2 *"),
            (
                "0 0 31 4,6,9,11 *",
                Some("day of the month"),
                "0 0 31 4,6,9,11 *",
            ),
        ] {
            let wrong = Cron::parse(text).unwrap_err();
            assert_eq!(
                (wrong.field, wrong.found.as_str()),
                (field, found),
                "{text}"
            );
            assert!(!wrong.expected.is_empty(), "{text}");
        }
    }

    #[test]
    fn the_next_minute_that_fits() {
        for (text, from, next) in [
            ("* * * * *", "2026-03-29T10:00", "2026-03-29T10:00"),
            ("* * * * *", "2026-03-29T10:00:01", "2026-03-29T10:01"),
            ("0 * * * *", "2026-12-31T23:59:59", "2027-01-01T00:00"),
            (
                "*/15 9-17 * * MON-FRI",
                "2026-03-27T17:46",
                "2026-03-30T09:00",
            ),
            ("30 2 29 2 *", "2026-03-01T00:00", "2028-02-29T02:30"),
            ("30 2 29 2 *", "2096-03-01T00:00", "2104-02-29T02:30"),
            // the thirteenth or a Friday
            ("0 0 13 * FRI", "2026-02-01T00:00", "2026-02-06T00:00"),
            ("0 0 13 * 5", "2026-02-07T00:00", "2026-02-13T00:00"),
            // an odd day that is a Sunday: one field begins with a star
            ("0 0 */2 * 7", "2026-03-02T00:00", "2026-03-15T00:00"),
            // the 29th of February on a Sunday, over the year 2100
            ("0 0 29 2 */7", "2088-03-01T00:00", "2128-02-29T00:00"),
        ] {
            let cron = Cron::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            let from: DateTime = from.parse().unwrap();
            let found = cron.within(from, 42);
            assert_eq!(found, Some(next.parse().unwrap()), "{text}");
        }
    }
}
