use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::cut::Cut;
use super::place::Place;
use super::state::Shared;
use crate::{ConsoleError, ConsoleOptions, MetricsHandle, Services, router};

/// Bytes of a request's head, and of hyper's read buffer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Fields of a request's head.
const HEAD_FIELDS_MAX: usize = 64;
/// Milliseconds between two upkeeps of the metrics.
const METRICS_UPKEEP_MS: u64 = 5_000;
/// Milliseconds to wait when the system has no descriptor left.
const ACCEPT_RETRY_MS: u64 = 100;

/// The engine's HTTP server, bound and not yet running.
pub struct Console {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Shared,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

impl Console {
    /// Binds the port; [`Console::run`] answers.
    ///
    /// # Errors
    /// [`ConsoleError::PortTaken`], an address that is not allowed or does not exist, or an option
    /// of 0.
    pub async fn bind(options: ConsoleOptions, services: Services) -> Result<Self, ConsoleError> {
        check(&options)?;
        let addr = options.listen;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ConsoleError::PortTaken { addr },
            _ => ConsoleError::Bind { addr, source },
        };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let place = Place::new(options.public_url.as_deref(), local_addr);
        let place = place.map_err(|reason| ConsoleError::PublicUrl {
            url: options.public_url.clone().unwrap_or_default(),
            reason,
        })?;
        let shared = Shared::new(options, services, local_addr, place);
        Ok(Self {
            listener,
            local_addr,
            shared,
        })
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where browsers find the pages: an origin, without a slash at its end.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.shared.place.origin()
    }

    /// Answers until `shutdown` is done; then takes no more connections and command lines, lets
    /// what runs come to its end for `drain_timeout_ms`, and closes the rest.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let Self {
            listener,
            local_addr,
            shared,
        } = self;
        tracing::info!(%local_addr, "console listens");
        let app = router(&shared);
        let connections = Arc::new(Semaphore::new(shared.options.connections_max as usize));
        let mut running = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        let mut upkeep = tokio::time::interval(Duration::from_millis(METRICS_UPKEEP_MS));
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                (stream, permit) = accept(&listener, &connections) => {
                    running.spawn(serve(stream, permit, app.clone(), shared.clone()));
                }
                _ = upkeep.tick() => keep_up(&shared.services.metrics, running.len()),
                Some(_) = running.join_next(), if !running.is_empty() => {}
            }
        }
        drop(listener);
        shared.stopping.cancel();
        let drained = async {
            while running.join_next().await.is_some() {}
            // commands of clients that have gone hold a permit until they are done
            let _ = shared
                .streams
                .acquire_many(shared.options.command_streams_max)
                .await;
        };
        let limit = Duration::from_millis(shared.options.drain_timeout_ms);
        if tokio::time::timeout(limit, drained).await.is_err() {
            tracing::warn!(
                connections = running.len(),
                "console closes connections in use"
            );
            running.shutdown().await;
        }
        tracing::info!(%local_addr, "console stopped");
    }
}

fn check(options: &ConsoleOptions) -> Result<(), ConsoleError> {
    let bounds = [
        ("body_bytes_max", options.body_bytes_max),
        ("line_bytes_max", options.line_bytes_max),
        ("commands_in_flight_max", options.commands_in_flight_max),
        (
            "command_bytes_in_flight_max",
            options.command_bytes_in_flight_max,
        ),
        ("command_streams_max", options.command_streams_max as usize),
        ("connections_max", options.connections_max as usize),
        ("subscriptions_max", options.subscriptions_max as usize),
        ("subscription_chunks_max", options.subscription_chunks_max),
    ];
    if let Some((option, _)) = bounds.into_iter().find(|(_, bound)| *bound == 0) {
        return Err(ConsoleError::Option { option });
    }
    if !options.listen.ip().is_loopback() && !options.allow_non_loopback {
        return Err(ConsoleError::NotLoopback {
            addr: options.listen,
        });
    }
    Ok(())
}

fn keep_up(metrics: &MetricsHandle, connections: usize) {
    metrics.upkeep();
    #[allow(clippy::cast_precision_loss)]
    metrics::gauge!("sovereign_http_connections").set(connections as f64);
}

/// The next connection, once there is room for one more. May be dropped between two polls: then
/// the connection stays in the system's queue.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(connections).acquire_owned().await else {
            // never closed
            std::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::debug!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, permit: OwnedSemaphorePermit, app: Router, shared: Shared) {
    // outcomes are small and waited for
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(shared.options.header_timeout_ms))
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_FIELDS_MAX);
    let routes = TowerToHyperService::new(app);
    let cut = Cut::default();
    let of_connection = cut.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(of_connection.clone());
        routes.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection.with_upgrades());
    let graceful = async {
        tokio::select! {
            ended = &mut connection => ended,
            () = shared.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    let ended = tokio::select! {
        ended = graceful => ended,
        () = cut.made() => Ok(()),
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "connection ended early");
    }
    drop(permit);
}
