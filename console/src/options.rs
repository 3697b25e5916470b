use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use sovereign_guard::access::Rate;

use crate::Token;

/// Enough for a busy agent, and a bound for a mad one.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(20_000).unwrap();

/// How the console listens and what it bounds.
#[derive(Debug, Clone)]
pub struct ConsoleOptions {
    /// Where to listen; port 0 lets the system choose. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// Allows an address that other machines can reach. There is no TLS here: put a proxy before
    /// it. Off a loopback address every route but `/health` and `/metrics` needs the token.
    pub allow_non_loopback: bool,
    /// Names, without port, by which the console may be called besides `localhost` and its own
    /// address. Others are refused, so that a web page cannot reach it by rebinding its name.
    pub allowed_hosts: Vec<String>,
    /// Where browsers reach the pages, such as `https://approvals.example.com`: through a proxy with
    /// TLS that passes `Host` on. Passkeys belong to its host name. Without it that is `localhost`
    /// with the console's port, which only a browser on this machine can use.
    pub public_url: Option<String>,
    /// Of the owner of the data folder, who may do everything.
    pub token: Token,
    /// Whether writing to the schema registry needs the token even on a loopback address. Off by
    /// default, since stock serializers register their schemas themselves.
    pub registry_writes_need_token: bool,
    /// Bytes of a request's body; command streams have no bound but that of each line.
    pub body_bytes_max: usize,
    /// Bytes of one command line, without its end.
    pub line_bytes_max: usize,
    /// Commands of one stream that are submitted and not yet answered to the client.
    pub commands_in_flight_max: usize,
    /// Bytes of the lines of one stream that are submitted and not yet done.
    pub command_bytes_in_flight_max: usize,
    /// Command streams at a time; one more is told to come again.
    pub command_streams_max: u32,
    /// Subscriptions to events at a time, over SSE and WebSocket together; one more is told to come
    /// again.
    pub subscriptions_max: u32,
    /// Chunks of about 64 KiB between the ledger and the socket of one subscription; also the bytes
    /// that these are in all, unless a single event is larger.
    pub subscription_chunks_max: usize,
    /// Milliseconds that a subscriber may leave its chunks unread before it is dropped.
    pub subscriber_stall_ms: u64,
    /// Milliseconds between two signs of life of a subscription without events.
    pub heartbeat_ms: u64,
    /// Requests and commands of one actor; the owner of the data folder has no such limit.
    pub actor_rate: Rate,
    /// Seconds that a browser's session lasts.
    pub session_lifetime_s: u64,
    /// Seconds after which a session ends that nobody uses.
    pub session_idle_s: u64,
    /// Connections at a time; more wait in the system's queue.
    pub connections_max: u32,
    /// Milliseconds for a request and its answer, except command streams.
    pub request_timeout_ms: u64,
    /// Milliseconds until a request's head must be there, also on a connection kept open.
    pub header_timeout_ms: u64,
    /// Seconds that somebody may take to make a passkey after the options were asked for, and to
    /// sign an approval.
    pub ceremony_timeout_s: u64,
    /// Milliseconds for what runs when the console is stopped.
    pub drain_timeout_ms: u64,
}

impl ConsoleOptions {
    /// The defaults, on a loopback address and a free port.
    #[must_use]
    pub fn new(token: Token) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            allow_non_loopback: false,
            allowed_hosts: Vec::new(),
            public_url: None,
            token,
            registry_writes_need_token: false,
            body_bytes_max: 2 << 20,
            line_bytes_max: 2 << 20,
            commands_in_flight_max: 1024,
            command_bytes_in_flight_max: 16 << 20,
            command_streams_max: 64,
            subscriptions_max: 256,
            subscription_chunks_max: 8,
            subscriber_stall_ms: 10_000,
            heartbeat_ms: 10_000,
            actor_rate: Rate {
                per_second: PER_SECOND,
                burst: PER_SECOND,
            },
            session_lifetime_s: 8 * 3_600,
            session_idle_s: 30 * 60,
            connections_max: 512,
            request_timeout_ms: 30_000,
            header_timeout_ms: 30_000,
            ceremony_timeout_s: 5 * 60,
            drain_timeout_ms: 5_000,
        }
    }
}
