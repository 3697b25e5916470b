use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::http::host::Hosts;
use crate::{ConsoleOptions, Services};

/// What every handler can reach.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) options: Arc<ConsoleOptions>,
    pub(crate) services: Services,
    pub(crate) hosts: Arc<Hosts>,
    /// Whether only this machine can reach the console.
    pub(crate) loopback: bool,
    /// One permit a command stream; held until its last command is done.
    pub(crate) streams: Arc<Semaphore>,
    /// Set when the console is being stopped.
    pub(crate) stopping: CancellationToken,
}
