use std::time::Duration;

use serde_json::json;
use sovereign_effects::{Outcome, TimerWait};
use sovereign_schemas::Timestamp;

/// The clock is looked at again at least so often: it may be set, and machines sleep.
const STEP: Duration = Duration::from_secs(30);

pub(super) async fn wait(timer: TimerWait) -> Outcome {
    loop {
        let now = Timestamp::now();
        let left_us = timer.until.0.saturating_sub(now.0);
        if left_us <= 0 {
            return Outcome::done(json!({ "until": timer.until, "reached_at": now }));
        }
        let left = Duration::from_micros(left_us.unsigned_abs());
        tokio::time::sleep(left.min(STEP)).await;
    }
}
