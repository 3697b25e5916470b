//! What the engines say about themselves, sampled all the time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use sovereign_tests::owned::EngineHandle;

use crate::writers::lock;

const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    Green,
    /// Which parts, and what they say.
    Red(Vec<String>),
    /// No answer: killed, stopped, or still starting.
    Silent,
}

/// Samples of both engines.
#[derive(Debug, Default)]
pub(crate) struct Health {
    looks: [Mutex<Vec<(Instant, Look)>>; 2],
}

impl Health {
    pub(crate) fn start(engines: &[EngineHandle; 2]) -> Arc<Self> {
        let health = Arc::new(Self::default());
        for (index, engine) in engines.iter().enumerate() {
            let (health, engine) = (Arc::clone(&health), engine.clone());
            tokio::spawn(async move {
                loop {
                    let look = look(engine.health().await);
                    lock(&health.looks[index]).push((Instant::now(), look));
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            });
        }
        health
    }

    /// How long after `start` some engine first said that it is not well.
    pub(crate) fn red_after(&self, start: Instant) -> Option<Duration> {
        let first = |looks: &Mutex<Vec<(Instant, Look)>>| {
            let looks = lock(looks);
            let red = looks
                .iter()
                .find(|(at, look)| *at > start && matches!(look, Look::Red(_)));
            red.map(|(at, _)| at.duration_since(start))
        };
        self.looks.iter().filter_map(first).min()
    }

    /// Whether both are green now, seen after `moment`.
    pub(crate) fn green_since(&self, moment: Instant) -> bool {
        self.looks.iter().all(|looks| {
            let looks = lock(looks);
            looks
                .last()
                .is_some_and(|(at, look)| *at > moment && *look == Look::Green)
        })
    }

    /// What they said last.
    pub(crate) fn last(&self) -> Vec<Option<Look>> {
        let last = |looks: &Mutex<Vec<(Instant, Look)>>| Some(lock(looks).last()?.1.clone());
        self.looks.iter().map(last).collect()
    }

    /// Forgets what was seen before a round.
    pub(crate) fn forget(&self) {
        for looks in &self.looks {
            lock(looks).clear();
        }
    }
}

fn look(answer: Option<Value>) -> Look {
    let Some(answer) = answer else {
        return Look::Silent;
    };
    if answer["healthy"] == true {
        return Look::Green;
    }
    let parts = answer["parts"].as_object().into_iter().flatten();
    let red = parts.filter(|(_, part)| part["healthy"] != true);
    Look::Red(
        red.map(|(name, part)| format!("{name}: {}", part["problem"]))
            .collect(),
    )
}
