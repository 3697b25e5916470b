use std::net::{Ipv4Addr, SocketAddr};

use crate::Token;

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
    /// Opens `/api`.
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
    /// Connections at a time; more wait in the system's queue.
    pub connections_max: u32,
    /// Milliseconds for a request and its answer, except command streams.
    pub request_timeout_ms: u64,
    /// Milliseconds until a request's head must be there, also on a connection kept open.
    pub header_timeout_ms: u64,
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
            token,
            registry_writes_need_token: false,
            body_bytes_max: 2 << 20,
            line_bytes_max: 2 << 20,
            commands_in_flight_max: 1024,
            command_bytes_in_flight_max: 16 << 20,
            command_streams_max: 64,
            connections_max: 512,
            request_timeout_ms: 30_000,
            header_timeout_ms: 30_000,
            drain_timeout_ms: 5_000,
        }
    }
}
