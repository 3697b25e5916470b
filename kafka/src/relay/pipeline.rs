use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::chain::Head;
use sovereign_schemas::{RecordedEvent, Tail};
use tokio::sync::{mpsc, oneshot, watch};

use super::health::Shared;
use super::lane::{Lane, Request, Targets};
use super::port::{RelayPort, TransactionalPort};
use super::{Failure, RelayOptions};

/// How long one look for new events lasts; only bounds how late a stop is noticed.
const LOOK: Duration = Duration::from_millis(250);

/// Least time between the starts of two transactions while little comes in: each costs the broker
/// more than the events in it, and takes cores from whoever writes them. An event that comes after a
/// pause does not wait.
const GATHER: Duration = Duration::from_millis(24);

/// Runs both lanes from `head` on until one fails or `stopped` says so.
#[expect(
    clippy::too_many_arguments,
    reason = "each is another part of the session"
)]
pub(crate) async fn run(
    port: &dyn RelayPort,
    producers: [Box<dyn TransactionalPort>; 2],
    head: Head,
    targets: Targets,
    shared: &Arc<Shared>,
    options: &RelayOptions,
    tail: &mut dyn Tail,
    stopped: &mut watch::Receiver<bool>,
) -> Result<(), Failure> {
    let (requests, mut asked) = mpsc::channel(1);
    let targets = Arc::new(targets);
    let [a, b] = producers;
    let (to_a, produce_a) = mpsc::channel(1);
    let (to_b, produce_b) = mpsc::channel(1);
    let (commit_to_a, commit_a) = mpsc::channel(1);
    let (commit_to_b, commit_b) = mpsc::channel(1);
    // the first turn is the first lane's
    let _ = to_a.send(head).await;
    let _ = commit_to_a.send(()).await;
    let lanes = [
        Lane {
            producer: a,
            targets: Arc::clone(&targets),
            shared: Arc::clone(shared),
            requests: requests.clone(),
            produce_turn: produce_a,
            produce_next: to_b,
            commit_turn: commit_a,
            commit_next: commit_to_b,
        },
        Lane {
            producer: b,
            targets,
            shared: Arc::clone(shared),
            requests,
            produce_turn: produce_b,
            produce_next: to_a,
            commit_turn: commit_b,
            commit_next: commit_to_a,
        },
    ];
    let [mut first, mut second] = spawn(port, lanes)?;
    let (mut first_ended, mut second_ended) = (None, None);
    let fed = tokio::select! {
        biased;
        // the other lane may wait for events that do not come: it must hear of it too
        ended = &mut first => { first_ended = Some(ended); Ok(()) }
        ended = &mut second => { second_ended = Some(ended); Ok(()) }
        fed = feed(&mut asked, tail, options, stopped) => fed,
    };
    // a lane that waits for a batch sees the end; one that works finishes its transaction first
    drop(asked);
    let ended = [
        match first_ended {
            Some(ended) => ended,
            None => first.await,
        },
        match second_ended {
            Some(ended) => ended,
            None => second.await,
        },
    ];
    // one failure is the cause; the other lane only followed
    for result in ended {
        match result {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return Err(failure),
            Err(_) => return Err(crate::Error::internal("relay", "a lane panicked").into()),
        }
    }
    fed
}

type Ending = oneshot::Receiver<Result<(), Failure>>;

fn spawn(port: &dyn RelayPort, lanes: [Lane; 2]) -> Result<[Ending; 2], Failure> {
    let [a, b] = lanes;
    let start = |name: &str, lane: Lane| -> Result<Ending, Failure> {
        let (tell, ended) = oneshot::channel();
        let work = async move {
            let _ = tell.send(lane.run().await);
        };
        port.run(name, Box::pin(work))?;
        Ok(ended)
    };
    Ok([start("relay-a", a)?, start("relay-b", b)?])
}

/// Answers the lanes' requests until both are gone or `stopped` says so.
async fn feed(
    asked: &mut mpsc::Receiver<Request>,
    tail: &mut dyn Tail,
    options: &RelayOptions,
    stopped: &mut watch::Receiver<bool>,
) -> Result<(), Failure> {
    let mut last = None;
    while let Some(mut request) = next_request(asked, stopped).await {
        if let Some(last) = last {
            tokio::time::sleep_until(last + GATHER).await;
        }
        let events = loop {
            if *stopped.borrow() || request.reply.is_closed() {
                return Ok(());
            }
            let found = tokio::select! {
                biased;
                () = request.reply.closed() => return Ok(()),
                found = tail.next(request.after, options.batch_events_max, LOOK) => found?,
            };
            if !found.is_empty() {
                break within(found, options.batch_bytes_max);
            }
        };
        last = (events.len() < options.batch_events_max / 4).then(tokio::time::Instant::now);
        // a lane that is gone has told why
        let _ = request.reply.send(events);
    }
    Ok(())
}

async fn next_request(
    asked: &mut mpsc::Receiver<Request>,
    stopped: &mut watch::Receiver<bool>,
) -> Option<Request> {
    tokio::select! {
        biased;
        _ = stopped.wait_for(|stop| *stop) => None,
        request = asked.recv() => request,
    }
}

/// Cuts a batch to the bytes allowed; at least one event stays.
fn within(mut events: Vec<Arc<RecordedEvent>>, bytes_max: usize) -> Vec<Arc<RecordedEvent>> {
    let mut bytes = 0;
    let mut fits = 0;
    for event in &events {
        bytes += event.payload.len();
        if fits > 0 && bytes > bytes_max {
            break;
        }
        fits += 1;
    }
    events.truncate(fits);
    events
}
