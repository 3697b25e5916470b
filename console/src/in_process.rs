use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use crate::http::place::Place;
use crate::http::state::Shared;
use crate::{ConsoleOptions, Services, router};

/// As if it listened there.
const PORT: u16 = 4_000;

/// The console without a socket, for tests and fuzzing: the same routes under the same guards, as
/// a loopback listener has them.
#[derive(Debug, Clone)]
pub struct InProcess {
    app: TowerToHyperService<Router>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InProcessAnswer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`, if it is there.
    pub media_type: Option<String>,
    /// The whole body.
    pub body: Bytes,
}

impl InProcess {
    /// Builds the routes over `services`, with pages at `localhost`.
    ///
    /// # Panics
    /// Never: `localhost` with a port is an origin.
    #[must_use]
    pub fn new(options: ConsoleOptions, services: Services) -> Self {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        #[allow(clippy::expect_used)]
        let place = Place::new(None, local).expect("localhost can have passkeys");
        let shared = Shared::new(options, services, local, place);
        Self {
            app: TowerToHyperService::new(router(&shared)),
        }
    }

    /// Answers one request to `localhost`; `None` if method, path and headers make no HTTP request,
    /// which a listener would not hand to the routes either, or if the answer broke off.
    pub async fn answer(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Option<InProcessAnswer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).ok()?;
        let (head, body) = match self.app.call(request).await {
            Ok(response) => response.into_parts(),
            Err(never) => match never {},
        };
        let media_type = head.headers.get("content-type");
        Some(InProcessAnswer {
            status: head.status.as_u16(),
            media_type: media_type.and_then(|v| Some(v.to_str().ok()?.to_owned())),
            body: axum::body::to_bytes(body, usize::MAX).await.ok()?,
        })
    }
}
