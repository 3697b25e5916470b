//! What a store of events does, as facts that hold or break in a named way.

use std::collections::BTreeSet;
use std::sync::Arc;

use sovereign_schemas::ErrorCode;
use sovereign_schemas::events::{
    AgentEvent, AgentRegistered, AgentState, ExecutionCleared, StateTransitioned, TaskFinished,
};
use tokio::sync::Barrier;

use crate::store::{Failure, Loaded, Place, Store};

/// How a fact does not hold.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The kind of break, which the table expects.
    pub(crate) how: &'static str,
    pub(crate) detail: String,
}

type Held = Result<(), Broken>;

fn broken<T>(how: &'static str, detail: impl std::fmt::Debug) -> Result<T, Broken> {
    Err(Broken {
        how,
        detail: format!("{detail:?}"),
    })
}

/// A step that no store should fail.
fn step<T>(result: Result<T, Failure>) -> Result<T, Broken> {
    result.or_else(|failure| broken("fails", failure))
}

macro_rules! facts {
    ($($variant:ident = $function:ident, $sentence:literal;)*) => {
        /// One fact.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Fact { $($variant,)* }

        impl Fact {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(crate) const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }

        /// Looks whether a fact holds on a fresh store.
        pub(crate) async fn run<S: Store>(fact: Fact, store: &S) -> Held {
            match fact { $(Fact::$variant => $function(store).await,)* }
        }
    };
}

facts! {
    UnknownIsEmpty = unknown_is_empty, "an aggregate that nobody wrote to has no events";
    OrderAndPayload = order_and_payload, "events come back in order, with the same payloads";
    OneWinner = one_winner, "of writers on one version exactly one wins, and the others are told of a conflict";
    AllOrNothing = all_or_nothing, "of the events of one command all are stored, or none";
    CommandOnce = command_once, "a command id takes effect once, however often it is sent";
    OtherViolation = other_violation, "another unique index that refuses a row is not reported as a conflict";
    ManyWriters = many_writers, "many writers at once lose nothing and double nothing";
    LargePayload = large_payload, "an event of 900 kB comes back";
    HugePayload = huge_payload, "an event of 2 MiB comes back";
    UnicodePayload = unicode_payload, "Unicode and NUL inside a payload come back";
    UnicodeId = unicode_id, "an id in any script comes back";
    NulInId = nul_in_id, "an id with NUL is refused, and nothing else breaks";
    AnyMetadata = any_metadata, "metadata of any name comes back";
    Positions = positions, "each event has a position; over all aggregates they are 1, 2, 3, …";
    CommitOrder = commit_order, "who reads everything sees the order of commits";
    ReaderDies = reader_dies, "an event whose reader died while taking it reaches the next reader";
    DamageIsTold = damage_is_told, "an event that cannot be read is reported, not left out";
    AppendOnly = append_only, "the database refuses to change or delete an event";
    ChangeIsFound = change_is_found, "a changed event is found by checking";
}

fn registered(role: &str) -> AgentEvent {
    AgentRegistered { role: role.into() }.into()
}

fn moved(reason: &str) -> AgentEvent {
    StateTransitioned {
        from: AgentState::Idle,
        to: AgentState::Scanning,
        reason: reason.into(),
        definition: 0,
    }
    .into()
}

async fn write<S: Store>(store: &S, id: &str, events: Vec<AgentEvent>) -> Held {
    let count = events.len();
    let context = step(store.begin(id).await)?;
    let committed = step(store.commit(context, events, &[]).await)?;
    if committed == count {
        Ok(())
    } else {
        broken("says another number of events", committed)
    }
}

/// The history is exactly this, densely numbered from 1.
async fn history<S: Store>(store: &S, id: &str, expected: &[AgentEvent]) -> Held {
    let found = step(store.load(id).await)?;
    dense(&found)?;
    let events: Vec<&AgentEvent> = found.iter().map(|l| &l.event).collect();
    if events == expected.iter().collect::<Vec<_>>() {
        Ok(())
    } else {
        broken("other events", events.len())
    }
}

fn dense(found: &[Loaded]) -> Held {
    let sequences: Vec<u64> = found.iter().map(|l| l.sequence).collect();
    if sequences == (1..=found.len() as u64).collect::<Vec<_>>() {
        Ok(())
    } else {
        broken("both win", sequences)
    }
}

async fn unknown_is_empty<S: Store>(store: &S) -> Held {
    history(store, "nobody", &[]).await?;
    write(store, "somebody", vec![registered("trader")]).await?;
    history(store, "nobody", &[]).await
}

async fn order_and_payload<S: Store>(store: &S) -> Held {
    let first = vec![registered("trader"), moved("a"), moved("b")];
    let second = vec![moved("c"), moved("d")];
    write(store, "a", first.clone()).await?;
    write(store, "b", vec![registered("auditor")]).await?;
    write(store, "a", second.clone()).await?;
    history(store, "a", &[first, second].concat()).await?;
    history(store, "b", &[registered("auditor")]).await
}

async fn one_winner<S: Store>(store: &S) -> Held {
    write(store, "a", vec![registered("trader")]).await?;
    // one after the other, and at once
    let (one, two) = (store.begin("a").await, store.begin("a").await);
    step(store.commit(step(one)?, vec![moved("one")], &[]).await)?;
    match store.commit(step(two)?, vec![moved("two")], &[]).await {
        Err(Failure::Conflict) => {}
        Ok(_) => return broken("both win", store.load("a").await.map(|l| l.len())),
        Err(other) => return broken("no conflict but an error", other),
    }
    let barrier = Arc::new(Barrier::new(16));
    let tasks: Vec<_> = (0..16)
        .map(|number| {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                let context = store.begin("a").await?;
                barrier.wait().await;
                store
                    .commit(context, vec![moved(&format!("at-once-{number}"))], &[])
                    .await
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => won += 1,
            Err(Failure::Conflict) => {}
            Err(other) => return broken("no conflict but an error", other),
        }
    }
    if won != 1 {
        return broken("both win", won);
    }
    let found = step(store.load("a").await)?;
    dense(&found)?;
    if found.len() == 3 {
        Ok(())
    } else {
        broken("both win", found.len())
    }
}

async fn all_or_nothing<S: Store>(store: &S) -> Held {
    write(store, "a", vec![registered("trader")]).await?;
    let table = S::TABLE;
    let trigger = format!(
        "create function refuse_one() returns trigger language plpgsql as $$ begin \
         raise exception 'refused by the test' using errcode = 'check_violation'; end $$; \
         create trigger refuse_one before insert on {table} for each row \
         when (new.event_type = 'TaskFinished') execute function refuse_one()"
    );
    store.sql(&trigger).await.unwrap();
    let last = TaskFinished {
        task: "t".into(),
        items: 1,
    };
    let events = vec![moved("a"), moved("b"), last.into()];
    let context = step(store.begin("a").await)?;
    match store.commit(context, events, &[]).await {
        Err(Failure::Conflict) => return broken("reported as a conflict", ()),
        Err(_) => {}
        Ok(count) => return broken("says that it is stored", count),
    }
    history(store, "a", &[registered("trader")]).await?;
    // and it goes on
    write(store, "a", vec![moved("c")]).await?;
    history(store, "a", &[registered("trader"), moved("c")]).await
}

async fn command_once<S: Store>(store: &S) -> Held {
    let id = [("command_id", "order-17")];
    let context = step(store.begin("a").await)?;
    step(store.commit(context, vec![registered("trader")], &id).await)?;
    // the answer was lost: the caller looks again and repeats
    let context = step(store.begin("a").await)?;
    let again = store.commit(context, vec![registered("trader")], &id).await;
    let found = step(store.load("a").await)?;
    match (again, found.len()) {
        (Ok(0), 1) => Ok(()),
        (_, 2..) => broken("takes effect twice", found.len()),
        other => broken("neither once nor twice", other),
    }
}

async fn other_violation<S: Store>(store: &S) -> Held {
    let index = format!(
        "create unique index one_clearance on {} (event_type) where event_type = 'ExecutionCleared'",
        S::TABLE
    );
    store.sql(&index).await.unwrap();
    let cleared = || -> AgentEvent {
        ExecutionCleared {
            trade_id: "trade_1".into(),
            authority: "policy:1".into(),
        }
        .into()
    };
    write(store, "a", vec![registered("trader"), cleared()]).await?;
    write(store, "b", vec![registered("trader")]).await?;
    let context = step(store.begin("b").await)?;
    // nobody else writes to b: whoever is told of a conflict tries again for ever
    match store.commit(context, vec![cleared()], &[]).await {
        Err(Failure::Conflict) => broken("reported as a conflict", ()),
        Err(_) => history(store, "b", &[registered("trader")]).await,
        Ok(count) => broken("says that it is stored", count),
    }
}

async fn many_writers<S: Store>(store: &S) -> Held {
    const WRITERS: usize = 8;
    const EACH: usize = 10;
    let barrier = Arc::new(Barrier::new(WRITERS));
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                for number in 0..EACH {
                    let mut first = number == 0;
                    loop {
                        let context = store.begin("shared").await?;
                        if std::mem::take(&mut first) {
                            barrier.wait().await;
                        }
                        let event = moved(&format!("{writer}-{number}"));
                        match store.commit(context, vec![event], &[]).await {
                            Ok(_) => break,
                            Err(Failure::Conflict) => {}
                            Err(other) => return Err(other),
                        }
                    }
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        step(task.await.unwrap())?;
    }
    let found = step(store.load("shared").await)?;
    let different: BTreeSet<String> = found.iter().map(|l| format!("{:?}", l.event)).collect();
    if different.len() < WRITERS * EACH {
        return broken("both win", different.len());
    }
    dense(&found)?;
    if found.len() == WRITERS * EACH {
        Ok(())
    } else {
        broken("doubled", found.len())
    }
}

async fn of_length<S: Store>(store: &S, bytes: usize) -> Held {
    let event = registered(&"x".repeat(bytes));
    let context = step(store.begin("a").await)?;
    match store.commit(context, vec![event.clone()], &[]).await {
        Ok(_) => history(store, "a", &[event]).await,
        Err(Failure::Refused(ErrorCode::PayloadTooLarge)) => {
            history(store, "a", &[]).await?;
            broken("refused with its length", ())
        }
        Err(other) => broken("fails", other),
    }
}

async fn large_payload<S: Store>(store: &S) -> Held {
    of_length(store, 900_000).await
}

async fn huge_payload<S: Store>(store: &S) -> Held {
    of_length(store, 2 << 20).await
}

async fn unicode_payload<S: Store>(store: &S) -> Held {
    let events = vec![registered("größe 船 🚢 \u{202e}\u{0} \"\\ \r\n")];
    write(store, "a", events.clone()).await?;
    history(store, "a", &events).await
}

async fn unicode_id<S: Store>(store: &S) -> Held {
    let id = "größe-船-🚢";
    match store.begin(id).await {
        Err(Failure::Refused(ErrorCode::InvalidId)) => broken("refused by name", id),
        Err(other) => broken("fails", other),
        Ok(_) => {
            write(store, id, vec![registered("trader")]).await?;
            history(store, id, &[registered("trader")]).await
        }
    }
}

async fn nul_in_id<S: Store>(store: &S) -> Held {
    let stored = match store.begin("a\0b").await {
        Err(_) => false,
        Ok(context) => store
            .commit(context, vec![registered("trader")], &[])
            .await
            .is_ok(),
    };
    if stored {
        return broken("takes it", ());
    }
    write(store, "a", vec![registered("trader")]).await?;
    history(store, "a", &[registered("trader")]).await
}

async fn any_metadata<S: Store>(store: &S) -> Held {
    let context = step(store.begin("a").await)?;
    let pair = [("weather", "sunny")];
    match store
        .commit(context, vec![registered("trader")], &pair)
        .await
    {
        Err(Failure::Refused(ErrorCode::UnknownField)) => broken("refused by name", "weather"),
        Err(other) => broken("fails", other),
        Ok(_) => {
            let found = step(store.load("a").await)?;
            match found[0].metadata.get("weather").map(String::as_str) {
                Some("sunny") => Ok(()),
                other => broken("drops it", other),
            }
        }
    }
}

async fn positions<S: Store>(store: &S) -> Held {
    write(store, "a", vec![registered("trader"), moved("a")]).await?;
    write(store, "b", vec![registered("trader")]).await?;
    write(store, "a", vec![moved("b")]).await?;
    let mut found = Vec::new();
    for (id, sequence) in [("a", 1), ("a", 2), ("b", 1), ("a", 3)] {
        let events = step(store.load(id).await)?;
        let position = events[sequence - 1].metadata.get("position").cloned();
        found.push(position.unwrap_or_default());
    }
    if found == ["1", "2", "3", "4"] {
        Ok(())
    } else {
        broken("no position", found)
    }
}

async fn commit_order<S: Store>(store: &S) -> Held {
    for id in ["b", "b", "a", "b"] {
        write(store, id, vec![moved("x")]).await?;
    }
    let places = step(store.read_all().await)?;
    let place = |id: &str, sequence| (id.to_owned(), sequence);
    let expected: Vec<Place> = vec![place("b", 1), place("b", 2), place("a", 1), place("b", 3)];
    if places == expected {
        Ok(())
    } else {
        broken("another order", places)
    }
}

async fn reader_dies<S: Store>(store: &S) -> Held {
    let taken = store.crash_of_a_reader().await;
    let sequences: Vec<u64> = taken.iter().map(|(_, sequence)| *sequence).collect();
    match sequences[..] {
        [1, 2, 3] => Ok(()),
        [1, 3] => broken("lost", sequences),
        _ => broken("something else", sequences),
    }
}

async fn three_and_the_second_changed<S: Store>(store: &S, change: &str) -> Held {
    for reason in ["a", "b", "c"] {
        write(store, "a", vec![moved(reason)]).await?;
    }
    let table = S::TABLE;
    let update = format!("update {table} set {change} where sequence = 2");
    store
        .sql(&format!("{} {update}", S::UNPROTECT))
        .await
        .unwrap();
    Ok(())
}

async fn damage_is_told<S: Store>(store: &S) -> Held {
    let damage = if S::UNPROTECT.is_empty() {
        "payload = '{\"StateTransitioned\":{\"from\":\"IDLE\"}}'"
    } else {
        "payload = substr(payload, 1, 2)"
    };
    three_and_the_second_changed(store, damage).await?;
    if let Ok(events) = store.load("a").await {
        return broken("loads it", events.len());
    }
    match store.read_all().await {
        Err(_) => Ok(()),
        Ok(places) if places.len() == 2 => broken("left out in silence", places),
        Ok(places) => broken("something else", places),
    }
}

async fn append_only<S: Store>(store: &S) -> Held {
    write(store, "a", vec![registered("trader"), moved("a")]).await?;
    let table = S::TABLE;
    for change in [
        format!("update {table} set event_type = 'Other' where sequence = 2"),
        format!("delete from {table} where sequence = 2"),
        format!("truncate {table}"),
    ] {
        if store.sql(&change).await.is_ok() {
            return broken("changes it", change);
        }
    }
    history(store, "a", &[registered("trader"), moved("a")]).await
}

async fn change_is_found<S: Store>(store: &S) -> Held {
    // a change that decodes: only its meaning is another
    let change = if S::UNPROTECT.is_empty() {
        "payload = replace(payload::text, '\"b\"', '\"B\"')::json"
    } else {
        "payload = set_byte(payload, length(payload) - 2, 66)"
    };
    if let Some(Err(early)) = store.verified().await {
        return broken("finds what is not there", early);
    }
    three_and_the_second_changed(store, change).await?;
    let found = step(store.load("a").await)?;
    if found[1].event != moved("B") {
        return broken("something else", &found[1].event);
    }
    match store.verified().await {
        Some(Err(_)) => Ok(()),
        None => broken("nothing to check with", ()),
        Some(Ok(())) => broken("not found", ()),
    }
}
