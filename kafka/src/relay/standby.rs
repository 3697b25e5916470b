//! Several engines take turns: who has not the turn looks on, and is ready to take over.

use std::time::Duration;

use tokio::sync::watch;

use super::Failure;
use super::session::{Session, Stop};

/// How often one that stands by looks how far the topics are.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long one that was assigned the turn before, but is not confirmed, waits until it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl Session {
    pub(crate) fn has_turn(&self) -> bool {
        self.options.turn.as_ref().is_none_or(|turn| turn.held())
    }

    /// Returns when it is this relay's turn.
    pub(crate) async fn stand_by(&self) -> Result<(), Stop> {
        let Some(turn) = self.options.turn.as_ref().filter(|turn| !turn.held()) else {
            return Ok(());
        };
        self.shared.standing_by();
        tracing::info!("relay stands by");
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            () = turn.until_not(false) => {
                self.shared.starting();
                Ok(())
            }
            _ = stopped.wait_for(|stop| *stop) => Err(Stop),
            () = self.look_on() => Ok(()),
        }
    }

    /// Follows the checkpoint that the other relay writes.
    async fn look_on(&self) {
        loop {
            match self.port.checkpoint().await {
                Ok(found) => {
                    if let Some(found) = found {
                        self.shared.saw_position(found.position);
                    }
                }
                // no progress is seen either, and that turns the health red if there should be some
                Err(error) => tracing::debug!(%error, "relay's checkpoint cannot be read"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks the brokers before anybody is fenced: a process that was paused still believes in the
    /// turn that it had, and would throw out the rightful relay.
    pub(crate) async fn confirmed(&self) -> Result<bool, Failure> {
        let Some(turn) = &self.options.turn else {
            return Ok(true);
        };
        if turn.confirm().await? {
            return Ok(true);
        }
        if turn.held() {
            self.shared.standing_by();
            // a stop is seen by the next attempt
            let _ = self.sleep(ASK_AGAIN).await;
        }
        Ok(false)
    }

    /// Sets `halt` once this relay is stopped or its turn is over; never returns.
    pub(crate) async fn halt_in_time(&self, halt: watch::Sender<bool>) {
        let mut stopped = self.stopped.clone();
        let over = async {
            match &self.options.turn {
                Some(turn) => turn.until_not(true).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // nobody left to tell it counts as a stop as well
            _ = stopped.wait_for(|stop| *stop) => {}
            () = over => tracing::info!("relay hands over"),
        }
        halt.send_replace(true);
        std::future::pending().await
    }
}
