use std::io;
use std::net::SocketAddr;

use sovereign_passkeys::RelyingPartyError;
use sovereign_schemas::{ErrorCode, Problem};

/// Why the console cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// User: somebody else listens there.
    #[error("{addr} is in use")]
    PortTaken {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// User: other machines could reach it, and nobody said that they may.
    #[error("{addr} is no loopback address")]
    NotLoopback {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// User: the address does not exist here, or may not be used.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// User: pages there could not use passkeys.
    #[error("the public URL cannot be used: {reason}")]
    PublicUrl {
        /// As given.
        url: String,
        /// Why not.
        reason: RelyingPartyError,
    },
    /// User: an option out of range.
    #[error("{option} must be at least 1")]
    Option {
        /// Its name.
        option: &'static str,
    },
    /// Internal: the process has a metrics recorder that is not ours.
    #[error("another metrics recorder is installed")]
    MetricsRecorder,
}

impl ConsoleError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::PortTaken { .. } => ErrorCode::PortTaken,
            Self::NotLoopback { .. }
            | Self::Bind { .. }
            | Self::PublicUrl { .. }
            | Self::Option { .. } => ErrorCode::InvalidConfig,
            Self::MetricsRecorder => ErrorCode::Internal,
        }
    }

    /// As callers see it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.code(), self.to_string());
        match self {
            Self::PortTaken { addr } => problem.field("listen").found(addr.to_string()),
            Self::NotLoopback { addr } => problem
                .field("listen")
                .found(addr.to_string())
                .expected("a loopback address, such as 127.0.0.1")
                .remedy("listen on a loopback address, or allow others explicitly"),
            Self::Bind { addr, .. } => problem.field("listen").found(addr.to_string()),
            Self::PublicUrl { url, .. } => problem
                .field("public_url")
                .found(url)
                .expected("https and a host name, such as https://approvals.example.com"),
            Self::Option { option } => problem.field(*option),
            Self::MetricsRecorder => problem,
        }
    }
}
