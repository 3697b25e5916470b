use std::collections::BTreeMap;

use serde_json::Value;
use sovereign_event_store::{Filter, LedgerReader};
use sovereign_kafka::{Start as From, Subscription, SubscriptionError};
use sovereign_schemas::{Departments, ErrorCode, Position, Problem, RecordedEvent};

use super::source::{departments, kafka_options, ledger, state};
use crate::args::{LogArgs, Start};
use crate::describe::Describer;
use crate::failure::{Failure, Result};
use crate::location::{EngineState, Location};
use crate::output::{Output, Tone};
use crate::reveal::Revealer;

/// Events in one read.
const PAGE: usize = 1_000;
/// Events held back while an earlier one is still on its way from another partition.
const REORDER_MAX: usize = 10_000;

/// Shows events from the ledger, and with `--follow` goes on with what Kafka brings.
pub(crate) async fn run(location: &Location, output: Output, args: LogArgs) -> Result<()> {
    let state = state(location)?;
    let departments = departments(&state)?;
    let filter = filter(&args, &departments)?;
    let reader = ledger(&state).await?;
    let revealer = if args.sealed {
        None
    } else {
        Revealer::open(location, &state).await?
    };
    let mut printer = Printer {
        output,
        describer: Describer {
            departments,
            revealer,
        },
    };
    let after = match args.from {
        None => Position::START,
        Some(Start::Position(from)) => Position(from - 1),
        Some(Start::Time(time)) => {
            let first = reader.position_at(time).await.map_err(|e| e.problem())?;
            Position(first.0.saturating_sub(1))
        }
    };
    let last = args.to.map(Position);
    let reached = page_through(&reader, &filter, after, last, &mut printer).await?;
    if args.follow && last.is_none_or(|last| last > reached) {
        follow(&state, &filter, reached, last, &mut printer).await?;
    }
    Ok(())
}

fn filter(args: &LogArgs, departments: &Departments) -> Result<Filter> {
    let mut filter = Filter::default();
    if let Some(name) = &args.department {
        filter.department = Some(departments.find(name)?.id);
    }
    if let Some(aggregate) = &args.aggregate {
        let Some((kind, id)) = aggregate.split_once('/') else {
            return Err(
                Problem::new(ErrorCode::InvalidUsage, "an aggregate is written TYPE/ID")
                    .field("--aggregate")
                    .found(aggregate)
                    .expected("such as agent/trader-aapl")
                    .into(),
            );
        };
        filter.aggregate_type = Some(kind.parse::<sovereign_schemas::AggregateType>()?);
        filter.aggregate_id = Some(id.to_owned());
    }
    Ok(filter)
}

async fn page_through(
    reader: &LedgerReader,
    filter: &Filter,
    mut after: Position,
    last: Option<Position>,
    printer: &mut Printer,
) -> Result<Position> {
    let head = reader.head().await.map_err(|e| e.problem())?.position;
    let end = last.map_or(head, |last| last.min(head));
    while after < end {
        let (events, reached) = reader
            .read_filtered(after, PAGE, filter)
            .await
            .map_err(|e| e.problem())?;
        for event in events.iter().filter(|e| e.position() <= end) {
            printer.print(event).await?;
        }
        if reached <= after {
            break;
        }
        after = reached;
    }
    Ok(after.min(end))
}

async fn follow(
    state: &EngineState,
    filter: &Filter,
    reached: Position,
    last: Option<Position>,
    printer: &mut Printer,
) -> Result<()> {
    // all departments, also for a filter: positions are dense only over all of them, and only
    // dense positions tell whether an earlier event is still on its way from another partition
    let mut subscription = Subscription::builder(kafka_options(state))
        .start(From::Position(reached.next()))
        .open()
        .await
        .map_err(|e| e.problem())?;
    let mut waiting: BTreeMap<Position, RecordedEvent> = BTreeMap::new();
    let mut expected = reached.next();
    loop {
        let event = match subscription.next().await {
            Ok(delivery) => delivery.event,
            Err(error @ SubscriptionError::Poison(_)) => {
                printer.output.hint(format!("skipped: {error}"));
                continue;
            }
            Err(error) => return Err(Failure::new(error.code(), error.to_string())),
        };
        if event.position() < expected {
            continue;
        }
        waiting.insert(event.position(), event);
        while let Some(entry) = waiting.first_entry() {
            if *entry.key() != expected && waiting.len() < REORDER_MAX {
                break;
            }
            let Some((position, event)) = waiting.pop_first() else {
                break;
            };
            if last.is_some_and(|last| position > last) {
                return Ok(());
            }
            if wanted(filter, &event) {
                printer.print(&event).await?;
            }
            expected = position.next();
            if Some(position) == last {
                return Ok(());
            }
        }
    }
}

fn wanted(filter: &Filter, event: &RecordedEvent) -> bool {
    let header = &event.header;
    filter
        .department
        .is_none_or(|department| department == header.department)
        && filter
            .aggregate_type
            .is_none_or(|kind| kind.as_str() == header.aggregate_type)
        && filter
            .aggregate_id
            .as_ref()
            .is_none_or(|id| *id == header.aggregate_id)
}

/// Prints one event a line.
struct Printer {
    output: Output,
    describer: Describer,
}

impl Printer {
    async fn print(&mut self, event: &RecordedEvent) -> Result<()> {
        let data = self.describer.data(event).await;
        if self.output.json {
            return self.output.object(&self.describer.described(event, &data));
        }
        let header = &event.header;
        let department = self.describer.department(event);
        let fields: Vec<String> = data
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| match value {
                Value::String(text) => format!("{name}={text}"),
                other => format!("{name}={other}"),
            })
            .collect();
        self.output.line(format!(
            "{} {} {:12} {}/{} {}  {}",
            self.output
                .paint(Tone::Strong, &format!("{:>8}", header.position)),
            self.output
                .paint(Tone::Dim, &header.recorded_at.to_string()),
            department,
            header.aggregate_type,
            header.aggregate_id,
            header.event_type,
            fields.join(" "),
        ))
    }
}
