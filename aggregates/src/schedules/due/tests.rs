use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn timing(cron: &str, zone: &str) -> Timing {
    Timing::new(Cron::parse(cron).unwrap(), zone).unwrap()
}

fn at(moment: &str) -> Timestamp {
    moment.parse().unwrap()
}

/// Due times in `[from, to)`, as the hours and minutes of UTC.
fn between(cron: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let timing = timing(cron, zone);
    let mut due = Vec::new();
    let mut after = Timestamp(at(from).0 - 1);
    while let Some(next) = timing.next_after(after).filter(|next| *next < at(to)) {
        due.push(next.to_string()[11..16].to_owned());
        after = next;
    }
    due
}

#[test]
fn a_skipped_hour_is_due_once_at_the_first_moment_behind_it() {
    let day = |cron| {
        between(
            cron,
            "Europe/Berlin",
            "2026-03-29T00:00:00Z",
            "2026-03-29T04:00:00Z",
        )
    };
    assert_eq!(day("30 2 * * *"), ["01:00"]);
    assert_eq!(
        day("*/10 2 * * *"),
        ["01:00"],
        "six times in the gap are one"
    );
    assert_eq!(day("30 1 * * *"), ["00:30"]);
    assert_eq!(day("0 3 * * *"), ["01:00"]);
    assert_eq!(
        day("0,30 2,3 * * *"),
        ["01:00", "01:30"],
        "03:00 is no second one"
    );
    let york = |cron| {
        between(
            cron,
            "America/New_York",
            "2026-03-08T05:00:00Z",
            "2026-03-08T10:00:00Z",
        )
    };
    assert_eq!(york("15 2 * * *"), ["07:00"]);
    // half an hour: 02:00 to 02:30
    let howe = |cron| {
        between(
            cron,
            "Australia/Lord_Howe",
            "2026-10-03T13:00:00Z",
            "2026-10-03T18:00:00Z",
        )
    };
    assert_eq!(howe("15 2 * * *"), ["15:30"]);
    assert_eq!(howe("45 2 * * *"), ["15:45"]);
}

#[test]
fn a_doubled_hour_is_due_the_first_time_only() {
    let day = |cron| {
        between(
            cron,
            "Europe/Berlin",
            "2026-10-24T22:00:00Z",
            "2026-10-25T04:00:00Z",
        )
    };
    assert_eq!(day("30 2 * * *"), ["00:30"]);
    assert_eq!(day("*/20 2 * * *"), ["00:00", "00:20", "00:40"]);
    assert_eq!(day("0 3 * * *"), ["02:00"]);
    let york = |cron| {
        between(
            cron,
            "America/New_York",
            "2026-11-01T04:00:00Z",
            "2026-11-01T09:00:00Z",
        )
    };
    assert_eq!(york("30 1 * * *"), ["05:30"]);
    assert_eq!(york("0 2 * * *"), ["07:00"]);
    // 01:30 to 02:00 comes twice
    let howe = |cron| {
        between(
            cron,
            "Australia/Lord_Howe",
            "2026-04-04T13:00:00Z",
            "2026-04-04T18:00:00Z",
        )
    };
    assert_eq!(howe("45 1 * * *"), ["14:45"]);
    assert_eq!(howe("15 1 * * *"), ["14:15"]);
    assert_eq!(howe("0 2 * * *"), ["15:30"]);
}

#[test]
fn every_hour_follows_the_clock_on_the_wall() {
    let berlin = |cron, from, to| between(cron, "Europe/Berlin", from, to);
    assert_eq!(
        berlin("30 * * * *", "2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z"),
        ["00:30", "01:30", "02:30"]
    );
    assert_eq!(
        berlin(
            "30 0-23 * * *",
            "2026-10-25T00:00:00Z",
            "2026-10-25T03:00:00Z"
        ),
        ["00:30", "01:30", "02:30"]
    );
    // the half hour from 02:00 to 02:30 does not come, that from 01:30 to 02:00 comes twice
    let howe = |from, to| between("15,45 * * * *", "Australia/Lord_Howe", from, to);
    assert_eq!(
        howe("2026-10-03T15:00:00Z", "2026-10-03T17:00:00Z"),
        ["15:15", "15:45", "16:15", "16:45"]
    );
    assert_eq!(
        howe("2026-04-04T14:00:00Z", "2026-04-04T16:00:00Z"),
        ["14:15", "14:45", "15:15", "15:45"]
    );
}

#[test]
fn a_zone_that_never_sets_its_clock_is_due_as_it_says() {
    assert_eq!(
        between(
            "30 2 * * *",
            "Asia/Tokyo",
            "2026-03-28T17:00:00Z",
            "2026-03-28T18:00:00Z"
        ),
        ["17:30"]
    );
    let utc = timing("59 23 31 12 *", "UTC");
    assert_eq!(
        utc.next_after(at("2026-11-27T00:00:00Z")),
        Some(at("2026-12-31T23:59:00Z"))
    );
}

#[test]
fn the_moment_itself_is_no_next_one_and_is_the_latest() {
    let timing = timing("0 * * * *", "UTC");
    let full = at("2026-01-01T05:00:00Z");
    assert_eq!(timing.next_after(full), Some(at("2026-01-01T06:00:00Z")));
    assert_eq!(timing.next_after(Timestamp(full.0 - 1)), Some(full));
    assert_eq!(timing.latest_until(full), Some(full));
    assert_eq!(
        timing.latest_until(Timestamp(full.0 - 1)),
        Some(at("2026-01-01T04:00:00Z"))
    );
}

#[test]
fn rare_days_are_found_in_both_directions() {
    let leap = timing("0 0 29 2 *", "America/New_York");
    assert_eq!(
        leap.next_after(at("2096-03-01T00:00:00Z")),
        Some(at("2104-02-29T05:00:00Z"))
    );
    assert_eq!(
        leap.latest_until(at("2104-02-28T00:00:00Z")),
        Some(at("2096-02-29T05:00:00Z"))
    );
    let sunday = timing("0 0 29 2 */7", "UTC");
    assert_eq!(
        sunday.next_after(at("2088-03-01T00:00:00Z")),
        Some(at("2128-02-29T00:00:00Z"))
    );
}

#[test]
fn moments_beyond_the_calendar_are_never_due_and_nothing_overflows() {
    let timing = timing("* * * * *", "Europe/Berlin");
    for us in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
        assert_eq!(timing.next_after(Timestamp(us)), None);
        assert_eq!(timing.latest_until(Timestamp(us)), None);
    }
}

#[test]
fn an_unknown_zone_is_refused() {
    for zone in ["", "Mars/Olympus", "CEST", "../../etc/passwd", "+02:00"] {
        assert!(
            Timing::new(Cron::parse("* * * * *").unwrap(), zone).is_err(),
            "{zone}"
        );
    }
}

const MINUTE_US: i64 = 60_000_000;

/// What the oracle knows of an expression: numbers, and nothing of bits or of parsing.
#[derive(Debug, Clone)]
struct Named {
    minutes: BTreeSet<i8>,
    hours: BTreeSet<i8>,
    days: BTreeSet<i8>,
    months: BTreeSet<i8>,
    weekdays: BTreeSet<i8>,
    both: bool,
}

impl Named {
    fn names(&self, shown: DateTime) -> bool {
        let day = self.days.contains(&shown.day());
        let weekday = self
            .weekdays
            .contains(&shown.weekday().to_sunday_zero_offset());
        let fits = if self.both {
            day && weekday
        } else {
            day || weekday
        };
        fits && self.minutes.contains(&shown.minute())
            && self.hours.contains(&shown.hour())
            && self.months.contains(&shown.month())
    }
}

/// Walks minute by minute, a day before `from` on so that it knows what the clock has shown.
fn oracle(named: &Named, zone: &str, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let zone = ZONES.get(zone).unwrap();
    let shows = |us: i64| zone.to_datetime(jiff::Timestamp::from_microsecond(us).unwrap());
    let minute = jiff::Span::new().minutes(1);
    let mut shown = BTreeSet::new();
    let mut due = Vec::new();
    let start = from.0 - 26 * 60 * MINUTE_US;
    let mut expected = shows(start);
    for us in (start..to.0).step_by(usize::try_from(MINUTE_US).unwrap()) {
        let now = shows(us);
        let wall = named.hours.len() == 24;
        let mut is_due = named.names(now) && (wall || !shown.contains(&now));
        while expected < now {
            // the clock was set forward over this
            is_due |= named.names(expected) && !wall && !shown.contains(&expected);
            shown.insert(expected);
            expected = expected.checked_add(minute).unwrap();
        }
        shown.insert(now);
        expected = now.checked_add(minute).unwrap();
        if is_due && us >= from.0 {
            due.push(Timestamp(us));
        }
    }
    due
}

/// A field as text, and the numbers that it names.
fn field(least: i8, most: i8, dense: bool) -> impl Strategy<Value = (String, BTreeSet<i8>)> {
    let all: BTreeSet<i8> = (least..=most).collect();
    let star = Just(("*".to_owned(), all));
    let step = (1..=(most - least)).prop_map(move |step| {
        let named = (least..=most)
            .step_by(usize::try_from(step).unwrap())
            .collect();
        (format!("*/{step}"), named)
    });
    let range = (least..most).prop_flat_map(move |a| (Just(a), a + 1..=most, 1..=most - least));
    let range = range.prop_map(|(a, b, step)| {
        let named = (a..=b).step_by(usize::try_from(step).unwrap()).collect();
        (format!("{a}-{b}/{step}"), named)
    });
    let list = proptest::collection::btree_set(least..=most, 1..4).prop_map(|set| {
        let text: Vec<String> = set.iter().map(ToString::to_string).collect();
        (text.join(","), set)
    });
    let stars = if dense { 4 } else { 1 };
    prop_oneof![stars => star, 1 => step, 2 => range, 3 => list]
}

/// Days on which these clocks are set, and one on which none is.
const TURNS: [(&str, &str); 9] = [
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("America/New_York", "2026-03-08T07:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("Asia/Kolkata", "2026-06-30T18:30:00Z"),
    ("Africa/Casablanca", "2026-02-15T02:00:00Z"),
    // a whole day was left out
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn due_times_are_those_of_whoever_walks_minute_by_minute(
        (minute, minutes) in field(0, 59, false),
        (hour, hours) in field(0, 23, true),
        (day, days) in field(1, 31, true),
        (month, months) in field(1, 12, true),
        (weekday, weekdays) in field(0, 6, true),
        turn in 0..TURNS.len(),
        begins_h in 1..30_i64,
    ) {
        let text = format!("{minute} {hour} {day} {month} {weekday}");
        let Ok(cron) = Cron::parse(&text) else {
            // only what never comes is refused: a day that no month of these has
            let least = days.first().copied().unwrap();
            prop_assert!(day != "*" && least > 29, "{}", text);
            return Ok(());
        };
        let both = day.starts_with('*') || weekday.starts_with('*');
        let named = Named { minutes, hours, days, months, weekdays, both };
        let (zone, set_at) = TURNS[turn];
        let timing = Timing::new(cron, zone).unwrap();
        let from = Timestamp(at(set_at).0 - begins_h * 60 * MINUTE_US);
        let to = Timestamp(from.0 + 40 * 60 * MINUTE_US);
        let expected = oracle(&named, zone, from, to);
        let mut found = Vec::new();
        let mut after = Timestamp(from.0 - 1);
        while let Some(next) = timing.next_after(after).filter(|next| *next < to) {
            found.push(next);
            after = next;
        }
        prop_assert_eq!(&found, &expected, "{} in {}", text, zone);
        // and backwards, from moments in between
        for pair in expected.windows(2).take(8) {
            let between = Timestamp(pair[1].0 - 1);
            prop_assert_eq!(timing.latest_until(between), Some(pair[0]), "{} in {}", text, zone);
        }
        if let Some(last) = expected.last() {
            prop_assert_eq!(timing.latest_until(Timestamp(to.0 - 1)), Some(*last), "{}", text);
        }
    }
}
