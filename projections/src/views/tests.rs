//! The folds, without a database.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sovereign_schemas::events::*;
use sovereign_schemas::{
    Cursor, DepartmentId, Digest, EventType, MemoryLog, Position, RecordedEvent, Timestamp,
};

use super::*;
use crate::chain::{Chain, decimal, text};
use crate::view::Batch;
use crate::{CheckError, FoldError, View, check_view_equals_fold, fold_log};

/// Folds in batches of the given sizes, taken in turn.
fn fold<V: View>(events: &[RecordedEvent], sizes: &[usize]) -> BTreeMap<V::Key, V::Row> {
    let mut rows: BTreeMap<V::Key, V::Row> = BTreeMap::new();
    let mut rest = events;
    for size in sizes.iter().cycle() {
        let (now, later) = rest.split_at((*size).min(rest.len()));
        let now: Vec<&RecordedEvent> = now.iter().collect();
        // no cache: each row has to be asked for, as after a restart
        let mut batch = Batch::<V>::plan(&now, |_| None);
        for key in batch.wanted() {
            if let Some(row) = rows.get(&key) {
                batch.supply(row.clone());
            }
        }
        assert_eq!(batch.fold(&now), (now.len(), None));
        rows.extend(
            batch
                .into_changed()
                .into_iter()
                .map(|r| (V::row_key(&r), r)),
        );
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    rows
}

fn row<V: View>(chain: &Chain, key: &V::Key) -> V::Row {
    fold::<V>(&chain.events, &[usize::MAX]).remove(key).unwrap()
}

proptest! {
    #[test]
    fn any_split_into_batches_gives_the_same_rows(
        rounds in 1_u64..40,
        sizes in prop::collection::vec(1_usize..60, 1..6),
    ) {
        let events = Chain::busy(rounds).events;
        let whole = [usize::MAX];
        prop_assert_eq!(fold::<Agents>(&events, &sizes), fold::<Agents>(&events, &whole));
        prop_assert_eq!(fold::<Trades>(&events, &sizes), fold::<Trades>(&events, &whole));
        prop_assert_eq!(fold::<Approvals>(&events, &sizes), fold::<Approvals>(&events, &whole));
        prop_assert_eq!(
            fold::<Departments>(&events, &sizes),
            fold::<Departments>(&events, &whole)
        );
    }
}

#[test]
fn an_agent_is_followed_from_registration_to_its_last_thought() {
    let mut chain = Chain::default();
    chain.agent(
        "h",
        AgentRegistered {
            role: "hunter".to_owned(),
        },
    );
    chain.observe("h", 1);
    let input_digest = Digest::of(&[b"x"]);
    chain.agent(
        "h",
        TaskStarted {
            task: "bars".to_owned(),
            input_digest,
            items: 3,
        },
    );
    chain.observe("h", 2);
    chain.observe("h", 3);
    let (from, to) = (AgentState::Idle, AgentState::Scanning);
    chain.agent(
        "h",
        StateTransitioned {
            from,
            to,
            reason: "r".to_owned(),
            definition: 0,
        },
    );
    chain.agent(
        "h",
        TransitionRefused {
            from: to,
            to: AgentState::Executing,
            reason: "r".into(),
            cause: "machine".into(),
        },
    );
    chain.agent("h", thought(b"one"));
    chain.agent("h", thought(b"two"));
    let agent = row::<Agents>(&chain, &"h".to_owned());
    assert_eq!(agent.department, DepartmentId::HUNTER);
    assert_eq!(
        (agent.role.as_str(), agent.state),
        ("hunter", AgentState::Scanning)
    );
    assert_eq!((agent.observations, agent.thoughts), (3, 2));
    assert_eq!((agent.transitions, agent.transitions_refused), (1, 1));
    assert_eq!(agent.last_thought, Some(text(b"two")));
    assert_eq!(
        (agent.task.as_deref(), agent.task_running),
        (Some("bars"), true)
    );
    assert_eq!((agent.task_items_done, agent.task_items_total), (2, 3));
    assert_eq!(
        (agent.first_position, agent.last_position),
        (Position(1), Position(9))
    );
    assert_eq!(agent.updated_at, chain.events[8].header.recorded_at);
    chain.agent(
        "h",
        TaskFinished {
            task: "bars".to_owned(),
            items: 3,
        },
    );
    let agent = row::<Agents>(&chain, &"h".to_owned());
    assert_eq!((agent.task_running, agent.task_items_done), (false, 3));
}

#[test]
fn a_trade_is_followed_from_intent_to_result() {
    let mut chain = Chain::default();
    let statuses = |chain: &Chain| row::<Trades>(chain, &"t".to_owned()).status;
    chain.propose("t", "trader-1", 3);
    assert_eq!(statuses(&chain), TradeStatus::Proposed);
    let note = text(b"n");
    chain.trade(
        "t",
        VerdictGiven {
            verdict: Verdict::Green,
            rule: "limit".to_owned(),
            note,
        },
    );
    assert_eq!(statuses(&chain), TradeStatus::Proposed);
    chain.trade(
        "t",
        TradeHeld {
            approval_id: "a".to_owned(),
        },
    );
    assert_eq!(statuses(&chain), TradeStatus::Held);
    chain.trade(
        "t",
        TradeAuthorized {
            authority: "a".to_owned(),
        },
    );
    assert_eq!(statuses(&chain), TradeStatus::Authorized);
    let fill = TradeFilled {
        order_id: "o".to_owned(),
        price: decimal("10.5"),
        quantity: decimal("1.000000001"),
        commission: decimal("0.35"),
        filled_at: Timestamp(i64::MIN),
    };
    chain.trade("t", fill);
    assert_eq!(statuses(&chain), TradeStatus::Filled);
    let conclusion = TradeConcluded {
        exit_trade_id: "u".to_owned(),
        quantity: decimal("1"),
        entry_price: decimal("10.5"),
        exit_price: decimal("9"),
        commission: decimal("0.7"),
        profit: decimal("-2.2"),
    };
    chain.trade("t", conclusion);
    let trade = row::<Trades>(&chain, &"t".to_owned());
    assert_eq!(trade.status, TradeStatus::Concluded);
    assert_eq!(
        (trade.side, trade.closes.as_deref()),
        (Side::Sell, Some("earlier"))
    );
    assert_eq!(
        (trade.verdict, trade.verdict_rule.as_deref()),
        (Some(Verdict::Green), Some("limit"))
    );
    assert_eq!(
        (trade.approval_id.as_deref(), trade.authority.as_deref()),
        (Some("a"), Some("a"))
    );
    assert_eq!(
        (trade.fill_price, trade.commission),
        (Some(decimal("10.5")), Some(decimal("0.35")))
    );
    assert_eq!(
        (trade.profit, trade.exit_price),
        (Some(decimal("-2.2")), Some(decimal("9")))
    );
    assert_eq!(
        (trade.first_position, trade.last_position),
        (Position(1), Position(6))
    );
}

#[test]
fn a_red_verdict_rejects_and_a_cancellation_says_why() {
    let mut chain = Chain::default();
    chain.propose("red", "trader-1", 1);
    let note = text(b"n");
    chain.trade(
        "red",
        VerdictGiven {
            verdict: Verdict::Red,
            rule: "limit".to_owned(),
            note,
        },
    );
    chain.propose("given-up", "trader-1", 2);
    chain.trade(
        "given-up",
        TradeCancelled {
            reason: "expired".to_owned(),
        },
    );
    assert_eq!(
        row::<Trades>(&chain, &"red".to_owned()).status,
        TradeStatus::Rejected
    );
    let cancelled = row::<Trades>(&chain, &"given-up".to_owned());
    assert_eq!(cancelled.status, TradeStatus::Cancelled);
    assert_eq!(cancelled.cancel_reason.as_deref(), Some("expired"));
}

#[test]
fn an_approval_waits_until_it_is_denied_or_expires() {
    let mut chain = Chain::default();
    for id in ["waits", "denied", "expires"] {
        chain.request(id, "t");
    }
    let reason = text(b"no");
    chain.approval(
        "denied",
        ApprovalDenied {
            denied_by: "grace".to_owned(),
            reason,
        },
    );
    chain.approval(
        "expires",
        ApprovalExpired {
            expired_at: Timestamp(1),
        },
    );
    let approvals = fold::<Approvals>(&chain.events, &[2]);
    assert_eq!(approvals["waits"].status, ApprovalStatus::Waiting);
    assert_eq!(approvals["waits"].amount, decimal("1250.75"));
    assert_eq!(approvals["denied"].status, ApprovalStatus::Denied);
    assert_eq!(approvals["denied"].decided_by.as_deref(), Some("grace"));
    assert_eq!(approvals["expires"].status, ApprovalStatus::Expired);
    assert_eq!(approvals["expires"].decided_by, None);
}

#[test]
fn departments_count_every_event_once() {
    let events = Chain::busy(30).events;
    let departments = fold::<Departments>(&events, &[7]);
    let total: i64 = departments.values().map(|d| d.events).sum();
    assert_eq!(total, events.len() as i64);
    for department in departments.values() {
        assert_eq!(
            department.events,
            department.events_by_type.values().sum::<i64>()
        );
    }
    let auditor = &departments[&DepartmentId::AUDITOR];
    assert_eq!(
        auditor.events_by_type,
        BTreeMap::from([("VerdictGiven".to_owned(), 30)])
    );
}

#[test]
fn an_event_that_cannot_be_decoded_stops_its_own_view_and_leaves_the_row_alone() {
    let mut chain = Chain::default();
    chain.propose("t", "trader-1", 1);
    let good = row::<Trades>(&chain, &"t".to_owned());
    chain.push_raw(
        "t",
        DepartmentId::TRADER,
        EventType::TradeHeld,
        vec![200, 1],
    );
    let events: Vec<&RecordedEvent> = chain.events.iter().collect();
    let mut batch = Batch::<Trades>::plan(&events, |_| None);
    let (folded, error) = batch.fold(&events);
    assert_eq!(folded, 1);
    assert!(matches!(error, Some(FoldError::Decode(_))), "{error:?}");
    assert_eq!(batch.into_changed(), vec![good]);
    assert_eq!(fold::<Agents>(&chain.events, &[9]).len(), 0);
    assert_eq!(fold::<Departments>(&chain.events, &[9]).len(), 1);
}

#[test]
fn an_event_without_its_row_or_creating_a_row_again_is_refused() {
    let mut chain = Chain::default();
    chain.agent("ghost", thought(b"boo"));
    let mut missing = None;
    let error = Agents::fold(&mut missing, &chain.events[0]).unwrap_err();
    assert_eq!(
        error,
        FoldError::RowMissing {
            key: "ghost".to_owned()
        }
    );
    assert_eq!(missing, None);
    let mut chain = Chain::default();
    chain.request("a", "t");
    let mut row = None;
    Approvals::fold(&mut row, &chain.events[0]).unwrap();
    let before = row.clone();
    let error = Approvals::fold(&mut row, &chain.events[0]).unwrap_err();
    assert_eq!(
        error,
        FoldError::RowExists {
            key: "a".to_owned()
        }
    );
    assert_eq!(row, before);
}

#[test]
fn a_counter_out_of_range_is_refused_and_leaves_the_row_alone() {
    let mut chain = Chain::default();
    chain.agent(
        "h",
        AgentRegistered {
            role: "hunter".to_owned(),
        },
    );
    let input_digest = Digest::ZERO;
    chain.agent(
        "h",
        TaskStarted {
            task: "bars".to_owned(),
            input_digest,
            items: 1,
        },
    );
    chain.observe("h", 1);
    let mut agent = Some(row::<Agents>(&chain, &"h".to_owned()));
    agent.as_mut().unwrap().task_items_done = i64::MAX;
    let before = agent.clone();
    let error = Agents::fold(&mut agent, &chain.events[2]).unwrap_err();
    assert_eq!(
        error,
        FoldError::OutOfRange {
            column: "task_items_done"
        }
    );
    assert_eq!(agent, before);
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn the_check_of_i5_names_the_row_and_column_that_differ() {
    let chain = Chain::busy(10);
    let head = Position(chain.events.len() as u64);
    let mut log = MemoryLog::new(chain.events);
    let (rows, hash) = block_on(fold_log::<Trades>(&mut log, head)).unwrap();
    assert_ne!(hash, Digest::ZERO);
    let good: Vec<TradeRow> = rows.into_values().collect();
    let mut check =
        |rows: &[TradeRow], to| block_on(check_view_equals_fold::<Trades>(&mut log, to, rows));
    check(&good, head).unwrap();
    let mut wrong = good.clone();
    wrong[2].amount = decimal("1");
    let Err(CheckError::Difference(difference)) = check(&wrong, head) else {
        panic!("not seen")
    };
    assert_eq!(
        (difference.key.as_str(), difference.what.as_str()),
        ("\"trade-2\"", "differs in amount")
    );
    let Err(CheckError::Difference(difference)) = check(&good[1..], head) else {
        panic!("not seen")
    };
    assert_eq!(
        (difference.key.as_str(), difference.what.as_str()),
        ("\"trade-0\"", "is missing")
    );
    let doubled: Vec<TradeRow> = good.iter().chain(&good[..1]).cloned().collect();
    assert!(check(&doubled, head).is_err());
    assert!(check(&good, Position(5)).is_err());
    assert!(matches!(check(&good, head.next()), Err(CheckError::Log(_))));
}

fn thought(words: &[u8]) -> ThoughtRecorded {
    ThoughtRecorded {
        text: text(words),
        likeness: vec![],
    }
}

#[test]
fn text_stays_sealed_in_rows_and_never_shows() {
    let mut chain = Chain::default();
    chain.agent(
        "h",
        AgentRegistered {
            role: "hunter".to_owned(),
        },
    );
    chain.agent("h", thought(b"a secret plan"));
    let agent = row::<Agents>(&chain, &"h".to_owned());
    assert!(!format!("{agent:?}").contains("secret"));
    assert!(!serde_json::to_string(&agent).unwrap().contains("secret"));
}

#[test]
fn readers_can_be_used_from_any_thread() {
    fn sendable<T: Send>(_: &T) {}
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let reader = crate::ViewsReader::new("postgres://u:p@localhost/x").unwrap();
    let mut log = MemoryLog::new(vec![]);
    let page = crate::Page::default();
    sendable(&reader.agents(&page));
    sendable(&reader.departments());
    sendable(&reader.trades(&crate::TradesFilter::default()));
    sendable(&reader.approvals(&crate::ApprovalsFilter::default()));
    sendable(&reader.verify("agents", &mut log));
    let totals = async { reader.snapshot().await?.trade_totals().await };
    sendable(&totals);
    let counts = async { reader.snapshot().await?.approval_counts().await };
    sendable(&counts);
    let store = crate::ViewsStore::new("postgres://u:p@localhost/x").unwrap();
    sendable(&store.migrate());
    sendable(&store.rebuild("agents"));
    sendable(&store.checkpoint("agents"));
    assert!(crate::ViewsStore::new("not a url").is_err());
    assert!(!format!("{store:?} {reader:?}").contains(":p@"));
    assert_eq!(Cursor::default().position, Position::START);
}
