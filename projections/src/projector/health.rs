use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sovereign_schemas::{ErrorCode, Position, Problem};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ProjectionError;
use crate::port::Role;
use crate::store::Build;

/// How long the version that serves may stand still behind ours before that is called a failure.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// What this process does with a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Folds the version that serves, and nothing else.
    Live,
    /// Builds it anew, beside the build that serves.
    Building,
    /// Folds its version, which served before: for a way back.
    Kept,
    /// Does nothing: its version is older than the one that serves, and was dropped.
    Retired,
    /// Leaves it to another process, and looks at its checkpoint.
    Standby,
}

/// A build on its way to take the place of the one that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Version of the view.
    pub version: u32,
    /// How often the view was built before in this version.
    pub generation: i64,
    /// Last position folded.
    pub position: Position,
}

/// How one view is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewHealth {
    /// The position that readers get the view at, whichever process brings it there.
    pub position: Position,
    /// What this process does with it.
    pub activity: Activity,
    /// Whether it goes on.
    pub healthy: bool,
    /// The version that readers get.
    pub version: u32,
    /// The build that is to serve next, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub building: Option<Progress>,
    /// Events of the ledger that readers do not see in it yet, if the head is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// The event that it cannot take, if one is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Position>,
    /// Why it does not go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// How all views are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewsHealth {
    /// Whether all are healthy.
    pub healthy: bool,
    /// Each by its name.
    pub projections: BTreeMap<&'static str, ViewHealth>,
}

/// How the fold of one build is.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    /// `None` until the checkpoint was read for the first time.
    pub(super) position: Option<Position>,
    pub(super) stopped_at: Option<Position>,
    pub(super) problem: Option<Problem>,
}

/// What the task of one build tells about itself.
#[derive(Debug, Default)]
pub(super) struct Slot {
    state: Mutex<Report>,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, Report> {
        // plain values: a panic between two assignments leaves nothing that could harm
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_position(&self, position: Position) {
        self.state().position = Some(position);
    }

    pub(super) fn failed(&self, problem: Problem, stopped_at: Option<Position>) {
        let mut state = self.state();
        state.problem = Some(problem);
        state.stopped_at = stopped_at;
    }

    /// A round went well. `None` if the view still stands before the event that it cannot take,
    /// which says nothing about that event; otherwise whether the view was red before.
    pub(super) fn recovered(&self) -> Option<bool> {
        let mut state = self.state();
        let next = state.position.map(Position::next);
        if state.stopped_at.is_some() && state.stopped_at == next {
            return None;
        }
        state.stopped_at = None;
        Some(state.problem.take().is_some())
    }

    pub(super) fn report(&self) -> Report {
        self.state().clone()
    }
}

/// What the keeper knows about one view.
#[derive(Debug)]
pub(super) struct Standing {
    view: &'static str,
    /// Of this program.
    version: u32,
    assigned: AtomicBool,
    /// Wakes the keeper.
    wake: Arc<Notify>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// `None` before the first look.
    builds: Option<Vec<Build>>,
    /// Tasks of this process, by generation.
    tasks: Vec<(i64, Arc<Slot>)>,
    /// Why the keeper cannot look.
    problem: Option<Problem>,
    /// Where the version that serves stands behind ours, and since when.
    behind: Option<(Position, Instant)>,
}

impl Seen {
    fn task(&self, build: &Build, version: u32) -> Option<Report> {
        let own = self.tasks.iter().filter(|_| build.version == version);
        own.clone()
            .find(|(generation, _)| *generation == build.generation)
            .map(|(_, slot)| slot.report())
    }
}

impl Standing {
    pub(super) fn new(view: &'static str, version: u32, wake: Arc<Notify>) -> Self {
        Self {
            view,
            version,
            assigned: AtomicBool::new(true),
            wake,
            seen: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_assigned(&self) -> bool {
        self.assigned.load(Ordering::Acquire)
    }

    /// Whether this process is to run the view.
    pub(super) fn assign(&self, assigned: bool) {
        if self.assigned.swap(assigned, Ordering::AcqRel) != assigned {
            self.wake.notify_one();
        }
    }

    /// The keeper has looked, and runs these tasks.
    pub(super) fn looked(&self, builds: Vec<Build>, tasks: Vec<(i64, Arc<Slot>)>) {
        let ours = tasks.iter().filter_map(|(_, slot)| slot.report().position);
        let serving = builds.iter().find(|b| b.role == Role::Serving);
        let behind = match (serving, ours.max()) {
            (Some(serving), Some(ours))
                if serving.version != self.version && serving.position < ours =>
            {
                Some(serving.position)
            }
            _ => None,
        };
        let mut seen = self.seen();
        seen.behind = behind.map(|position| match seen.behind {
            Some((before, since)) if before == position => (before, since),
            _ => (position, Instant::now()),
        });
        seen.builds = Some(builds);
        seen.tasks = tasks;
        seen.problem = None;
    }

    pub(super) fn unreadable(&self, problem: Problem) {
        self.seen().problem = Some(problem);
    }

    /// The position that readers get the view at.
    pub(super) fn position(&self) -> Position {
        self.health(None).position
    }

    pub(super) fn health(&self, head: Option<Position>) -> ViewHealth {
        let seen = self.seen();
        let builds = seen.builds.as_deref().unwrap_or_default();
        let place = |build: &Build| {
            let here = seen
                .task(build, self.version)
                .and_then(|task| task.position);
            here.unwrap_or_default().max(build.position)
        };
        let serving = builds.iter().find(|b| b.role == Role::Serving);
        let next = builds.iter().find(|b| b.role == Role::Next);
        let position = serving.map_or(Position::START, place);
        let activity = self.activity(builds);
        let (problem, stopped_at) = self.problem(&seen, serving, activity);
        // a view that has not reached its checkpoint yet serves rows nobody vouches for
        let reports = seen.tasks.iter().map(|(_, slot)| slot.report());
        let known = serving.is_some() && reports.into_iter().all(|r| r.position.is_some());
        ViewHealth {
            position,
            activity,
            healthy: known && problem.is_none(),
            version: serving.map_or(self.version, |b| b.version),
            building: next.map(|b| Progress {
                version: b.version,
                generation: b.generation,
                position: place(b),
            }),
            lag: head.map(|h| h.0.saturating_sub(position.0)),
            stopped_at,
            problem,
        }
    }

    fn activity(&self, builds: &[Build]) -> Activity {
        let has = |role| {
            builds
                .iter()
                .any(|b| b.role == role && b.version == self.version)
        };
        if !self.is_assigned() {
            Activity::Standby
        } else if has(Role::Next) {
            Activity::Building
        } else if has(Role::Serving) || builds.is_empty() {
            Activity::Live
        } else if has(Role::Kept) {
            Activity::Kept
        } else {
            Activity::Retired
        }
    }

    fn problem(
        &self,
        seen: &Seen,
        serving: Option<&Build>,
        activity: Activity,
    ) -> (Option<Problem>, Option<Position>) {
        if let Some(problem) = &seen.problem {
            return (Some(problem.clone()), None);
        }
        if activity == Activity::Standby || seen.builds.is_none() {
            return (None, None);
        }
        let Some(serving) = serving else {
            let (view, version) = (self.view, self.version);
            let missing = ProjectionError::NotMigrated { view, version };
            return (Some(missing.problem()), None);
        };
        let mut reports = seen.tasks.iter().map(|(_, slot)| slot.report());
        if let Some(failed) = reports.find(|report| report.problem.is_some()) {
            return (failed.problem, failed.stopped_at);
        }
        let stale = seen
            .behind
            .is_some_and(|(_, since)| since.elapsed() > STALE_AFTER);
        // while a version is built beside it, an old one may stand still: nobody may know it here
        if activity == Activity::Kept && stale {
            let message = format!(
                "version {} of view {} serves, stands at position {} and nobody brings it up",
                serving.version, self.view, serving.position
            );
            let remedy = "start a program that knows this version, or sovereign views switch";
            let problem = Problem::new(ErrorCode::ProjectionFailed, message).remedy(remedy);
            return (Some(problem), None);
        }
        (None, None)
    }
}

/// Turns health red if a task ends by a panic: a view must not fail in silence.
pub(super) enum LastWords {
    OfBuild(&'static str, Arc<Slot>),
    OfAll(Vec<Arc<Standing>>),
}

impl Drop for LastWords {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        match self {
            Self::OfBuild(view, slot) => {
                let message = format!("the task of view {view} ended by a panic");
                slot.failed(Problem::new(ErrorCode::Internal, message), None);
            }
            Self::OfAll(views) => {
                for standing in views {
                    let message = "the task that looks after views ended by a panic";
                    standing.unreadable(Problem::new(ErrorCode::Internal, message));
                }
            }
        }
    }
}
