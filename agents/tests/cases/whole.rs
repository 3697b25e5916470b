use std::collections::{BTreeMap, HashMap};

use rust_decimal::Decimal as D;
use sovereign_agents::logic::{Reaction, Seen};
use sovereign_agents::market::MarketFile;
use sovereign_agents::{Floor, StartOutcome};
use sovereign_aggregates::AnyEvent;
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::events::{AgentEvent, AgentState, Side, TradeEvent, Verdict};
use sovereign_schemas::{Decimal, DepartmentId};

use crate::ledger::{self, Ledger};
use crate::reference::{self, End, Row};

fn d(value: Decimal) -> D {
    value.to_string().parse::<D>().unwrap().normalize()
}

fn seen(ledger: &Ledger) -> Vec<Seen> {
    ledger
        .events()
        .into_iter()
        .map(|e| Seen::decode(e).unwrap())
        .collect()
}

/// The trades as the ledger tells them, in the form of the reference.
fn rows(ledger: &Ledger) -> Vec<Row> {
    let mut all: BTreeMap<String, Row> = BTreeMap::new();
    for seen in seen(ledger) {
        let AnyEvent::Trade(event) = &seen.event else {
            continue;
        };
        let id = seen.aggregate_id().to_owned();
        if let TradeEvent::TradeProposed(e) = event {
            let row = Row {
                trade_id: id.clone(),
                buys: e.side == Side::Buy,
                quantity: d(e.quantity),
                price: d(e.price),
                amount: d(e.amount),
                closes: e.closes.clone(),
                decided_on: e.decided_on.to_string()[..10].to_owned(),
                rule: String::new(),
                end: End::Red,
            };
            assert_eq!(all.insert(id, row), None, "an intent was doubled");
            continue;
        }
        let row = all.get_mut(&id).unwrap();
        match event {
            TradeEvent::TradeProposed(_) => {}
            TradeEvent::VerdictGiven(e) => {
                row.rule = e.rule.clone();
                assert_eq!(e.verdict == Verdict::Green, e.rule == "within_limits");
            }
            TradeEvent::TradeHeld(_) => row.end = End::Held,
            TradeEvent::TradeAuthorized(_) => row.end = End::NoNextBar,
            TradeEvent::TradePlaced(e) => assert_eq!(e.job_id, format!("order_{id}")),
            TradeEvent::TradeCancelled(e) => assert_eq!(e.reason, "no_next_bar"),
            TradeEvent::TradeFilled(e) => {
                row.end = End::Filled {
                    on: e.filled_at.to_string()[..10].to_owned(),
                    price: d(e.price),
                    commission: d(e.commission),
                    profit: None,
                };
            }
            TradeEvent::TradeConcluded(e) => {
                if let End::Filled { profit, .. } = &mut row.end {
                    *profit = Some(d(e.profit));
                }
            }
        }
    }
    all.into_values().collect()
}

fn normalized(mut rows: Vec<Row>) -> Vec<Row> {
    for row in &mut rows {
        row.price = row.price.normalize();
        if let End::Filled {
            price,
            commission,
            profit,
            ..
        } = &mut row.end
        {
            *price = price.normalize();
            *commission = commission.normalize();
            *profit = profit.map(|p| p.normalize());
        }
    }
    rows
}

fn assert_equals_reference(ledger: &Ledger, file: &MarketFile) {
    let (found, expected) = (rows(ledger), normalized(reference::all(file)));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

/// I1 to I3 over the whole ledger, and that nothing was refused or left half done.
fn assert_sound(ledger: &Ledger) {
    let mut head = Head::EMPTY;
    let mut sequences: HashMap<String, u64> = HashMap::new();
    let mut states: HashMap<String, AgentState> = HashMap::new();
    for seen in seen(ledger) {
        chain::advance(&mut head, &seen.recorded).unwrap();
        let header = seen.header();
        let last = sequences.entry(format!("{}/{}", header.aggregate_type, header.aggregate_id));
        let last = last.or_default();
        chain::check_sequence(*last, header).unwrap();
        *last += 1;
        match &seen.event {
            AnyEvent::Agent(AgentEvent::StateTransitioned(e)) => {
                states.insert(header.aggregate_id.clone(), e.to);
            }
            AnyEvent::Agent(AgentEvent::ThoughtRecorded(e)) => {
                let text = e.text.as_plain().unwrap();
                assert!(text.contains("close ") || text.contains(" at "), "{text}");
                assert!(
                    !text.contains("REDACTED"),
                    "the guard took numbers for secrets: {text}"
                );
            }
            AnyEvent::Agent(AgentEvent::TransitionRefused(_)) => panic!("a transition was refused"),
            _ => {}
        }
    }
    assert!(
        states.values().all(|s| *s == AgentState::Idle),
        "{states:?}"
    );
    assert_eq!(*ledger.refused.lock().unwrap(), []);
}

/// At most one position at a time, besides those whose exit waits for a human.
fn assert_one_position_at_a_time(rows: &[Row]) {
    let mut by_instrument: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_instrument
            .entry(row.trade_id.split('_').nth(1).unwrap())
            .or_default()
            .push(row);
    }
    for rows in by_instrument.values() {
        let mut open: Option<&str> = None;
        for row in rows {
            match (&row.closes, &row.end) {
                (None, End::Filled { .. }) => {
                    assert_eq!(open, None, "{row:?}");
                    open = Some(&row.trade_id);
                }
                (Some(entry), End::Filled { .. } | End::Held) => {
                    assert_eq!(open, Some(entry.as_str()), "{row:?}");
                    open = None;
                }
                (Some(entry), _) => assert_eq!(open, Some(entry.as_str()), "{row:?}"),
                (None, _) => assert_eq!(open, None, "{row:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_file_makes_the_trades_of_the_reference() {
    let file = ledger::market(None);
    let started = std::time::Instant::now();
    let ledger = ledger::run(&file).await;
    let took = started.elapsed();
    assert_sound(&ledger);
    assert_equals_reference(&ledger, &file);
    let rows = rows(&ledger);
    assert_one_position_at_a_time(&rows);
    assert!(ledger.len() > 50_000, "{}", ledger.len());

    let count = |f: fn(&Row) -> bool| rows.iter().filter(|r| f(r)).count();
    let held = count(|r| r.end == End::Held);
    let red = count(|r| r.end == End::Red);
    assert!((10..100).contains(&held), "{held}");
    assert!(red > 0);
    let mut departments: BTreeMap<DepartmentId, u64> = BTreeMap::new();
    for event in ledger.events() {
        *departments.entry(event.header.department).or_default() += 1;
    }
    let rules = rows.iter().fold(BTreeMap::new(), |mut all, r| {
        *all.entry(r.rule.as_str()).or_insert(0) += 1;
        all
    });
    let finished = rows.iter().filter_map(|r| match &r.end {
        End::Filled { profit, .. } => *profit,
        _ => None,
    });
    let (finished, profit) = finished.fold((0, D::ZERO), |(n, sum), p| (n + 1, sum + p));
    eprintln!(
        "{} events in {took:?}, departments {departments:?}, {} intents, {finished} finished trades \
         with profit {profit}, {held} approvals waiting, {red} red, rules {rules:?}",
        ledger.len(),
        rows.len(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_tell_the_same_stories() {
    let file = ledger::market(Some(300));
    let (first, second) = (ledger::run(&file).await, ledger::run(&file).await);
    assert!(!rows(&first).is_empty());
    assert_eq!(rows(&first), rows(&second));
    assert_eq!(ledger::stories(&first), ledger::stories(&second));
    assert_equals_reference(&first, &file);
}

#[tokio::test]
async fn a_file_is_worked_through_once_and_a_longer_one_goes_on() {
    let file = ledger::market(Some(60));
    let ledger = Ledger::new();
    let checkpoints = std::sync::Arc::default();
    let (runner, handle) = ledger::runner(&ledger, &checkpoints, &file);
    let running = tokio::spawn(runner.run());
    assert_eq!(
        handle.start_task(file.clone()).await.unwrap(),
        StartOutcome::Started
    );
    assert_ne!(
        handle.start_task(file.clone()).await.unwrap(),
        StartOutcome::Started
    );
    ledger::done(&ledger, &handle).await;
    let length = ledger.len();
    assert_eq!(
        handle.start_task(file.clone()).await.unwrap(),
        StartOutcome::AlreadyDone
    );
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(ledger.len(), length);
    assert!(handle.stop().await);
    running.await.unwrap().unwrap();

    let longer = ledger::market(Some(90));
    let (runner, handle) = ledger::runner(&ledger, &checkpoints, &longer);
    let running = tokio::spawn(runner.run());
    assert_eq!(
        handle.start_task(longer.clone()).await.unwrap(),
        StartOutcome::Started
    );
    ledger::done(&ledger, &handle).await;
    let progress = handle.progress();
    assert_eq!((progress.done, progress.total), (450, 450));
    assert!(handle.stop().await);
    running.await.unwrap().unwrap();
    assert_equals_reference(&ledger, &longer);
}

#[tokio::test]
async fn steps_are_pure_and_answer_only_to_what_they_see() {
    let ledger = ledger::run(&ledger::market(Some(120))).await;
    let fold = || -> Vec<(String, Vec<Reaction>)> {
        let mut floor = Floor::default();
        let wanted = seen(&ledger)
            .into_iter()
            .filter(|s| Floor::wants(s.header()));
        wanted.filter_map(|s| floor.step(&s)).collect()
    };
    let first = fold();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(first, fold());
    let ids: Vec<_> = first
        .iter()
        .flat_map(|(_, reactions)| reactions)
        .map(|r| match r {
            Reaction::Command(request) => request.context.command_id,
            Reaction::Effect(sovereign_agents::logic::Effect::NextBar(n)) => n.context.command_id,
        })
        .collect();
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    // every command of the ledger but those that started the task is one of these
    let caused = ledger
        .events()
        .iter()
        .filter(|e| e.header.causation_id.is_some())
        .count();
    assert_eq!(caused, ids.len());
}
