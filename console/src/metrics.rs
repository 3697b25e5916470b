use std::fmt;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{ConsoleError, Health};

/// Buckets of metrics whose name ends in `_seconds`.
const SECONDS: [f64; 13] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// Reads the process' metrics.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl fmt::Debug for MetricsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsHandle")
    }
}

impl MetricsHandle {
    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what histograms have collected, which would grow without bound between two scrapes.
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

static RECORDER: OnceLock<Option<MetricsHandle>> = OnceLock::new();

/// Installs the process' recorder at the first call; later calls return the same.
///
/// # Errors
/// [`ConsoleError::MetricsRecorder`] if somebody else installed one before.
pub fn metrics_recorder() -> Result<MetricsHandle, ConsoleError> {
    RECORDER
        .get_or_init(install)
        .clone()
        .ok_or(ConsoleError::MetricsRecorder)
}

fn install() -> Option<MetricsHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .ok()?
        .build_recorder();
    let handle = MetricsHandle(recorder.handle());
    metrics::set_global_recorder(recorder).ok()?;
    metrics::describe_gauge!("sovereign_healthy", "1 if all parts do their work");
    metrics::describe_gauge!("sovereign_head", "last durable position of the ledger");
    metrics::describe_gauge!("sovereign_part_healthy", "1 if the part does its work");
    metrics::describe_gauge!("sovereign_part_lag", "events between the part and the head");
    metrics::describe_counter!(
        "sovereign_command_lines_total",
        "command lines answered by HTTP"
    );
    metrics::describe_gauge!("sovereign_http_connections", "open HTTP connections");
    metrics::describe_gauge!("sovereign_subscriptions", "open subscriptions to events");
    metrics::describe_counter!(
        "sovereign_subscriptions_too_slow_total",
        "subscriptions ended because the client did not keep up"
    );
    metrics::describe_counter!(
        "sovereign_http_rate_limited_total",
        "requests and commands refused because their actor asked for too much"
    );
    Some(handle)
}

/// Sets the gauges that mirror `/health`.
pub(crate) fn record_health(health: &Health) {
    let flag = |healthy: bool| if healthy { 1.0 } else { 0.0 };
    metrics::gauge!("sovereign_healthy").set(flag(health.healthy));
    // exact up to 2^53 events
    #[allow(clippy::cast_precision_loss)]
    metrics::gauge!("sovereign_head").set(health.head.0 as f64);
    for (part, state) in &health.parts {
        metrics::gauge!("sovereign_part_healthy", "part" => part.clone()).set(flag(state.healthy));
        if let Some(lag) = state.lag {
            #[allow(clippy::cast_precision_loss)]
            metrics::gauge!("sovereign_part_lag", "part" => part.clone()).set(lag as f64);
        }
    }
}
