use std::time::{Duration, Instant};

use sovereign_schemas::{ErrorCode, Problem};

use crate::client::Client;
use crate::failure::Result;
use crate::location::{Location, is_alive};
use crate::output::Output;

/// How long the engine may take to stop its servers.
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// Stops the engine and waits until its process is gone.
pub(crate) async fn run(location: &Location, output: Output) -> Result<()> {
    let state = location.running()?;
    let pid = i32::try_from(state.pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let asked = match Client::to(location, &state) {
        Ok(client) => client
            .post("/api/shutdown", &serde_json::json!({}))
            .await
            .is_ok(),
        Err(_) => false,
    };
    if let Some(pid) = pid.filter(|_| !asked) {
        // an engine that still starts, or hangs, has no API; it takes SIGTERM the same way
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let spinner = output.spinner();
    spinner.set_message("stopping");
    let deadline = Instant::now() + STOP_LIMIT;
    while is_alive(state.pid) {
        if Instant::now() > deadline {
            return Err(Problem::new(
                ErrorCode::TimedOut,
                format!("engine {} has not stopped in 90 s", state.pid),
            )
            .into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    spinner.finish_and_clear();
    if output.json {
        return output.object(&serde_json::json!({ "stopped": true, "pid": state.pid }));
    }
    output.hint("engine stopped");
    Ok(())
}
