use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lru::LruCache;
use sovereign_guard::access::RateLimiter;
use sovereign_schemas::{Digest, Uuid};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::{Ceremonies, Sessions};
use crate::http::host::Hosts;
use crate::http::place::Place;
use crate::{ConsoleOptions, Services};

/// Actors whose requests are counted; there are no more tokens than that.
const ACTORS_MAX: usize = 2_048;
/// Commands under an idempotency key whose fingerprint is kept in memory.
const FINGERPRINTS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// What every handler can reach. Each layer of the router takes a clone for each request.
#[derive(Clone)]
pub(crate) struct Shared(Arc<State>);

impl std::ops::Deref for Shared {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

/// See [`Shared`].
pub(crate) struct State {
    pub(crate) options: ConsoleOptions,
    pub(crate) services: Services,
    pub(crate) hosts: Hosts,
    /// Where browsers find the pages.
    pub(crate) place: Place,
    /// Challenges that wait for a new passkey.
    pub(crate) ceremonies: Ceremonies,
    /// Whether only this machine can reach the console.
    pub(crate) loopback: bool,
    /// One permit a command stream; held until its last command is done.
    pub(crate) streams: Arc<Semaphore>,
    /// One permit a subscription.
    pub(crate) subscriptions: Arc<Semaphore>,
    /// Browsers that have shown a token.
    pub(crate) sessions: Sessions,
    /// How much each actor may ask for.
    pub(crate) limiter: RateLimiter,
    /// What the limiter counts its time from.
    pub(crate) started: Instant,
    /// Of commands that came under an idempotency key, by command id.
    pub(crate) fingerprints: Mutex<LruCache<Uuid, Digest>>,
    /// Set when the console is being stopped.
    pub(crate) stopping: CancellationToken,
}

impl Shared {
    pub(crate) fn new(
        options: ConsoleOptions,
        services: Services,
        local: SocketAddr,
        place: Place,
    ) -> Self {
        let lifetime = Duration::from_secs(options.session_lifetime_s);
        let idle = Duration::from_secs(options.session_idle_s);
        let ceremony = Duration::from_secs(options.ceremony_timeout_s);
        Self(Arc::new(State {
            hosts: Hosts::new(local, &options.allowed_hosts, &place),
            place,
            ceremonies: Ceremonies::new(ceremony),
            loopback: local.ip().is_loopback(),
            streams: Arc::new(Semaphore::new(options.command_streams_max as usize)),
            subscriptions: Arc::new(Semaphore::new(options.subscriptions_max as usize)),
            sessions: Sessions::new(lifetime, idle),
            limiter: RateLimiter::new(options.actor_rate, ACTORS_MAX),
            started: Instant::now(),
            fingerprints: Mutex::new(LruCache::new(FINGERPRINTS_MAX)),
            stopping: CancellationToken::new(),
            options,
            services,
        }))
    }
}
