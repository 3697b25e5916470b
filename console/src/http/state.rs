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

/// What every handler can reach.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) options: Arc<ConsoleOptions>,
    pub(crate) services: Services,
    pub(crate) hosts: Arc<Hosts>,
    /// Where browsers find the pages.
    pub(crate) place: Arc<Place>,
    /// Challenges that wait for a new passkey.
    pub(crate) ceremonies: Arc<Ceremonies>,
    /// Whether only this machine can reach the console.
    pub(crate) loopback: bool,
    /// One permit a command stream; held until its last command is done.
    pub(crate) streams: Arc<Semaphore>,
    /// One permit a subscription.
    pub(crate) subscriptions: Arc<Semaphore>,
    /// Browsers that have shown a token.
    pub(crate) sessions: Arc<Sessions>,
    /// How much each actor may ask for.
    pub(crate) limiter: Arc<RateLimiter>,
    /// What the limiter counts its time from.
    pub(crate) started: Instant,
    /// Of commands that came under an idempotency key, by command id.
    pub(crate) fingerprints: Arc<Mutex<LruCache<Uuid, Digest>>>,
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
        Self {
            hosts: Arc::new(Hosts::new(local, &options.allowed_hosts, &place)),
            place: Arc::new(place),
            ceremonies: Arc::new(Ceremonies::new(ceremony)),
            loopback: local.ip().is_loopback(),
            streams: Arc::new(Semaphore::new(options.command_streams_max as usize)),
            subscriptions: Arc::new(Semaphore::new(options.subscriptions_max as usize)),
            sessions: Arc::new(Sessions::new(lifetime, idle)),
            limiter: Arc::new(RateLimiter::new(options.actor_rate, ACTORS_MAX)),
            started: Instant::now(),
            fingerprints: Arc::new(Mutex::new(LruCache::new(FINGERPRINTS_MAX))),
            stopping: CancellationToken::new(),
            options: Arc::new(options),
            services,
        }
    }
}
