//! Each log line with its metric, in one place. No payloads.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use sovereign_schemas::{Position, Problem};

use crate::port::Role;

/// Name of a gauge: a build that does not serve must not hide how the one that serves is.
const fn position_gauge(role: Role) -> &'static str {
    match role {
        Role::Serving => "sovereign_view_position",
        Role::Next | Role::Kept => "sovereign_view_build_position",
    }
}

const fn healthy_gauge(role: Role) -> &'static str {
    match role {
        Role::Serving => "sovereign_view_healthy",
        Role::Next | Role::Kept => "sovereign_view_build_healthy",
    }
}

pub(super) struct BatchCommitted {
    pub(super) view: &'static str,
    pub(super) events: usize,
    pub(super) rows: usize,
    pub(super) position: Position,
    pub(super) role: Role,
    pub(super) took: Duration,
}

impl BatchCommitted {
    pub(super) fn emit(self) {
        let Self {
            view,
            events,
            rows,
            position,
            role,
            took,
        } = self;
        counter!("sovereign_view_events_total", "view" => view).increment(events as u64);
        counter!("sovereign_view_rows_written_total", "view" => view).increment(rows as u64);
        gauge!(position_gauge(role), "view" => view).set(position.0 as f64);
        histogram!("sovereign_view_batch_seconds", "view" => view).record(took.as_secs_f64());
        tracing::trace!(view, events, rows, %position, "batch committed");
    }
}

pub(super) struct ViewFailed<'a> {
    pub(super) view: &'static str,
    pub(super) role: Role,
    pub(super) problem: &'a Problem,
    pub(super) retry_after: Duration,
}

impl ViewFailed<'_> {
    pub(super) fn emit(self) {
        let Self {
            view,
            role,
            problem,
            retry_after,
        } = self;
        let code = problem.code.as_str();
        counter!("sovereign_view_failures_total", "view" => view, "code" => code).increment(1);
        gauge!(healthy_gauge(role), "view" => view).set(0.0);
        let retry_after_s = retry_after.as_secs_f64();
        tracing::error!(view, code, cause = %problem.message, retry_after_s, "view stopped");
    }
}

pub(super) struct ViewHealthy {
    pub(super) view: &'static str,
    pub(super) role: Role,
    pub(super) was_red: bool,
}

impl ViewHealthy {
    pub(super) fn emit(self) {
        let Self {
            view,
            role,
            was_red,
        } = self;
        gauge!(healthy_gauge(role), "view" => view).set(1.0);
        if was_red {
            tracing::info!(view, "view goes on");
        }
    }
}

pub(super) struct CheckpointMoved {
    pub(super) view: &'static str,
    pub(super) expected: Position,
}

impl CheckpointMoved {
    pub(super) fn emit(self) {
        let Self { view, expected } = self;
        counter!("sovereign_view_checkpoint_moved_total", "view" => view).increment(1);
        tracing::info!(view, %expected, "checkpoint was moved by someone else, reading it again");
    }
}

pub(super) struct BuildServes {
    pub(super) view: &'static str,
    pub(super) version: u32,
    pub(super) generation: i64,
    pub(super) position: Position,
}

impl BuildServes {
    pub(super) fn emit(self) {
        let Self {
            view,
            version,
            generation,
            position,
        } = self;
        counter!("sovereign_view_switches_total", "view" => view).increment(1);
        tracing::info!(view, version, generation, %position, "build has caught up and serves");
    }
}
