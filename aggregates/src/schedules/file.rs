//! Schedules as people write them: TOML, read strictly, every complaint with its line.

use serde::Deserialize;
use sovereign_schemas::events::JobQueue;
use sovereign_schemas::{ErrorCode, Identifier, Problem};
use toml::Spanned;

use super::{Cron, Schedule, ScheduledJob, Timing};
use crate::job::{ATTEMPTS_MAX, BACKOFF_MS_MAX};

/// Longest text of schedules, bytes.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Most schedules.
pub const SCHEDULES_MAX: usize = 256;
/// Longest name, characters: ids of jobs have a moment and maybe a number behind it.
const NAME_CHARACTERS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<i32>,
    #[serde(default)]
    schedules: Vec<Spanned<ScheduleText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleText {
    name: Spanned<Identifier>,
    cron: Spanned<String>,
    zone: Spanned<String>,
    #[serde(default = "yes")]
    catch_up: bool,
    job: JobText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobText {
    kind: Identifier,
    #[serde(default)]
    queue: QueueText,
    arguments: Spanned<toml::Table>,
    #[serde(default)]
    department: Option<Identifier>,
    #[serde(default)]
    attempts_max: Option<Spanned<u32>>,
    #[serde(default)]
    backoff_ms: Option<Spanned<u32>>,
}

#[derive(Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum QueueText {
    High,
    #[default]
    Default,
    Low,
}

const fn yes() -> bool {
    true
}

fn line(text: &str, offset: usize) -> u64 {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count() as u64
}

/// Reads schedules: their version and themselves, in their order.
///
/// # Errors
/// [`ErrorCode::InvalidSchedule`], with the line, what was found and what was expected: no TOML, a
/// field that does not exist, an expression that is none or never comes, a zone that does not
/// exist, two of one name.
///
/// # Examples
/// ```
/// let text = "version = 1\n[[schedules]]\nname = \"a\"\ncron = \"61 * * * *\"\nzone = \"UTC\"\n\
///             job = { kind = \"plan\", arguments = { steps = [] } }\n";
/// let problem = sovereign_aggregates::schedules::parse(text).unwrap_err();
/// assert_eq!((problem.line, problem.found.as_deref()), (Some(4), Some("61")));
/// ```
pub fn parse(text: &str) -> Result<(i32, Vec<Schedule>), Problem> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(
            Problem::new(ErrorCode::InvalidSchedule, "the schedules are too long")
                .found(format!("{} bytes", text.len()))
                .expected(format!("at most {TEXT_BYTES_MAX} bytes")),
        );
    }
    let at = |offset: usize, message: &str| {
        Problem::new(ErrorCode::InvalidSchedule, message).line(line(text, offset))
    };
    let file: File = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        at(offset, error.message())
    })?;
    let version = *file.version.get_ref();
    if version < 1 {
        let start = file.version.span().start;
        return Err(at(start, "the version must be 1 or more"));
    }
    let mut schedules: Vec<Schedule> = Vec::with_capacity(file.schedules.len());
    for entry in file.schedules {
        let start = entry.span().start;
        if schedules.len() == SCHEDULES_MAX {
            return Err(at(start, "too many schedules").expected(SCHEDULES_MAX.to_string()));
        }
        let schedule = schedule(entry.into_inner(), line(text, start), &at)?;
        let same = |other: &&Schedule| {
            let (own, other) = (schedule.name.as_str(), other.name.as_str());
            // ids of jobs are in small letters
            own.eq_ignore_ascii_case(other)
        };
        if let Some(other) = schedules.iter().find(same) {
            return Err(at(start, "two schedules have one name")
                .found(schedule.name.as_str())
                .expected(format!("another name than that of line {}", other.line)));
        }
        schedules.push(schedule);
    }
    Ok((version, schedules))
}

fn schedule(
    text: ScheduleText,
    line: u64,
    at: &impl Fn(usize, &str) -> Problem,
) -> Result<Schedule, Problem> {
    let start = text.name.span().start;
    let name = text.name.into_inner();
    let length = name.as_str().chars().count();
    if length > NAME_CHARACTERS_MAX {
        return Err(at(start, "the name of a schedule is too long")
            .field("name")
            .found(format!("{length} characters"))
            .expected(format!("at most {NAME_CHARACTERS_MAX}")));
    }
    let start = text.cron.span().start;
    let cron = Cron::parse(text.cron.get_ref()).map_err(|wrong| {
        at(start, &wrong.to_string())
            .field("cron")
            .found(wrong.found)
            .expected(wrong.expected)
    })?;
    let start = text.zone.span().start;
    let zone = text.zone.into_inner();
    let timing = Timing::new(cron, &zone).map_err(|expected| {
        let found: String = zone.chars().take(64).collect();
        at(start, "there is no such time zone")
            .field("zone")
            .found(found)
            .expected(expected)
    })?;
    Ok(Schedule {
        name,
        timing,
        catch_up: text.catch_up,
        job: job(text.job, at)?,
        line,
    })
}

fn job(text: JobText, at: &impl Fn(usize, &str) -> Problem) -> Result<ScheduledJob, Problem> {
    let number = |field: &str, value: Option<Spanned<u32>>, otherwise: u32, most: u32| match value {
        None => Ok(otherwise),
        Some(value) if (1..=most).contains(value.get_ref()) => Ok(value.into_inner()),
        Some(value) => Err(at(value.span().start, "is out of range")
            .field(field)
            .found(value.get_ref().to_string())
            .expected(format!("1 to {most}"))),
    };
    let start = text.arguments.span().start;
    let arguments = toml::Value::Table(text.arguments.into_inner());
    let arguments = json(arguments).ok_or_else(|| {
        at(start, "the arguments hold a number that JSON cannot").field("arguments")
    })?;
    Ok(ScheduledJob {
        kind: text.kind,
        arguments: arguments.to_string(),
        queue: match text.queue {
            QueueText::High => JobQueue::High,
            QueueText::Default => JobQueue::Default,
            QueueText::Low => JobQueue::Low,
        },
        department: text.department,
        attempts_max: number("attempts_max", text.attempts_max, 5, ATTEMPTS_MAX)?,
        backoff_ms: number("backoff_ms", text.backoff_ms, 1_000, BACKOFF_MS_MAX)?,
    })
}

/// The same in JSON; moments and dates become strings. `None` for what is no number.
fn json(value: toml::Value) -> Option<serde_json::Value> {
    Some(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)?.into(),
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(moment) => moment.to_string().into(),
        toml::Value::Array(all) => all
            .into_iter()
            .map(json)
            .collect::<Option<Vec<_>>>()?
            .into(),
        toml::Value::Table(all) => {
            let one = |(name, value)| Some((name, json(value)?));
            let all: serde_json::Map<_, _> = all.into_iter().map(one).collect::<Option<_>>()?;
            all.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "job = { kind = \"plan\", arguments = { steps = [] } }\n";

    fn one(lines: &str) -> String {
        format!("version = 1\n\n[[schedules]]\nname = \"nightly\"\n{lines}{JOB}")
    }

    #[test]
    fn complaints_name_the_line_what_was_found_and_what_was_expected() {
        let timed = "cron = \"0 0 * * *\"\nzone = \"UTC\"\n";
        let jobless = format!("version = 1\n[[schedules]]\nname = \"n\"\n{timed}");
        let twice = format!(
            "{}[[schedules]]\nname = \"Nightly\"\n{timed}{JOB}",
            one(timed)
        );
        let cases: Vec<(String, u64, &str, Option<&str>)> = vec![
            ("version = ".into(), 1, "", None),
            ("version = 0\n".into(), 1, "1 or more", None),
            (one("colour = 1\n"), 5, "unknown field", None),
            (one("cron = \"0 0 * * *\"\n"), 3, "missing field", None),
            (
                one("cron = \"61 0 * * *\"\nzone = \"UTC\"\n"),
                5,
                "minute",
                Some("61"),
            ),
            (
                one("cron = \"0 0 31 2 *\"\nzone = \"UTC\"\n"),
                5,
                "day of the month",
                Some("0 0 31 2 *"),
            ),
            (
                one("cron = \"0 0 * *\"\nzone = \"UTC\"\n"),
                5,
                "no cron expression",
                Some("4 fields"),
            ),
            (
                one("cron = \"0 0 * * *\"\nzone = \"Mars/Olympus\"\n"),
                6,
                "no such time zone",
                Some("Mars/Olympus"),
            ),
            (
                one("cron = \"0 0 * * *\"\nzone = \"+01:00\"\n"),
                6,
                "no such time zone",
                Some("+01:00"),
            ),
            (twice, 9, "one name", Some("Nightly")),
            (
                format!("{jobless}[schedules.job]\nkind = \"plan\"\nqueue = \"later\"\n"),
                8,
                "unknown variant",
                None,
            ),
            (
                format!(
                    "{jobless}[schedules.job]\nkind = \"plan\"\nattempts_max = 101\narguments = {{}}\n"
                ),
                8,
                "out of range",
                Some("101"),
            ),
            (
                format!("{jobless}[schedules.job]\nkind = \"plan\"\narguments = {{ a = nan }}\n"),
                8,
                "JSON cannot",
                None,
            ),
        ];
        for (text, line, says, found) in cases {
            let problem = parse(&text).unwrap_err();
            assert_eq!(problem.code, ErrorCode::InvalidSchedule);
            assert_eq!(problem.line, Some(line), "{problem}\n{text}");
            assert!(problem.message.contains(says), "{problem}\n{text}");
            if found.is_some() {
                assert_eq!(problem.found.as_deref(), found, "{text}");
                assert!(problem.expected.is_some(), "{problem}");
            }
        }
    }

    #[test]
    fn a_city_alone_is_answered_with_its_zone() {
        let problem = parse(&one("cron = \"0 0 * * *\"\nzone = \"New York\"\n")).unwrap_err();
        assert!(
            problem
                .expected
                .as_deref()
                .is_some_and(|e| e.contains("America/New_York")),
            "{problem}"
        );
    }

    #[test]
    fn arguments_become_json_and_the_rest_has_defaults() {
        let text = "version = 3\n[[schedules]]\nname = \"report\"\ncron = \"0 18 * * FRI\"\n\
            zone = \"europe/berlin\"\ncatch_up = false\n[schedules.job]\nkind = \"plan\"\n\
            queue = \"low\"\n[[schedules.job.arguments.steps]]\n\
            effect = { kind = \"timer\", until = 2026-01-01T00:00:00Z, n = [1, 2.5, true] }\n";
        let (version, all) = parse(text).unwrap();
        let schedule = &all[0];
        assert_eq!((version, all.len(), schedule.line), (3, 1, 2));
        assert_eq!(schedule.timing.zone(), "Europe/Berlin");
        assert!(!schedule.catch_up);
        let job = &schedule.job;
        assert_eq!((job.attempts_max, job.backoff_ms), (5, 1_000));
        assert_eq!(job.queue, JobQueue::Low);
        assert_eq!(
            job.arguments,
            "{\"steps\":[{\"effect\":{\"kind\":\"timer\",\"n\":[1,2.5,true],\"until\":\"2026-01-01T00:00:00Z\"}}]}"
        );
    }

    #[test]
    fn too_much_is_refused() {
        let long = format!("version = 1\n#{}\n", "x".repeat(TEXT_BYTES_MAX));
        assert!(parse(&long).unwrap_err().message.contains("too long"));
        let many: String = (0..=SCHEDULES_MAX)
            .map(|n| format!("[[schedules]]\nname=\"s{n}\"\ncron=\"0 0 * * *\"\nzone=\"UTC\"\njob={{kind=\"plan\",arguments={{}}}}\n"))
            .collect();
        assert!(
            parse(&format!("version = 1\n{many}"))
                .unwrap_err()
                .message
                .contains("too many")
        );
    }
}
