//! One request over one connection.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::Hop;
use super::answer::{Answer, Broken, read};
use super::connect::Stream;
use crate::live::run::{Run, Stage};

/// Most headers of an answer.
const HEADERS_MAX: usize = 100;

pub(super) async fn send(
    stream: Box<dyn Stream>,
    hop: &Hop<'_>,
    run: &Run,
) -> Result<Answer, Broken> {
    let request = request(hop).ok_or(Broken::Unsendable)?;
    let shaken = http1::Builder::new()
        .max_buf_size(hop.tool.head_bytes_max)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = shaken.map_err(|_| Broken::Unsent)?;
    // dropped with this call, however it ends: then the connection is cut
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // what goes wrong with the connection is told to the sender too
        let _ = connection.await;
    });
    sender.ready().await.map_err(|_| Broken::Unsent)?;
    run.reach(Stage::Sent);
    let response = match sender.try_send_request(request).await {
        Ok(response) => response,
        Err(mut error) => {
            // handed back: no byte of it was written
            if error.take_message().is_some() {
                run.reach(Stage::Connecting);
                return Err(Broken::Unsent);
            }
            return Err(Broken::of(error.error(), hop.tool.head_bytes_max));
        }
    };
    finish(response, hop).await
}

async fn finish(response: Response<Incoming>, hop: &Hop<'_>) -> Result<Answer, Broken> {
    let mut answer = read(response, hop.tool).await?;
    if let Some(secret) = &hop.secret {
        answer.body = secret.masked(std::mem::take(&mut answer.body));
    }
    Ok(answer)
}

fn request(hop: &Hop<'_>) -> Option<Request<Full<Bytes>>> {
    let tool = hop.tool;
    let mut target = format!("{}{}", tool.base.prefix(), hop.path);
    if !hop.query.is_empty() {
        target.push('?');
        target.push_str(&hop.query);
    }
    let mut builder = Request::builder()
        .method(hop.call.method.as_str())
        .uri(target)
        .header(header::HOST, tool.base.authority())
        .header(header::ACCEPT_ENCODING, "gzip, identity")
        .header(header::CONNECTION, "close")
        .header(
            header::USER_AGENT,
            concat!("sovereign/", env!("CARGO_PKG_VERSION")),
        );
    for (name, value) in &tool.headers {
        builder = builder.header(name, value);
    }
    if !tool.headers.contains_key("accept") {
        builder = builder.header(header::ACCEPT, "application/json, text/*;q=0.5, */*;q=0.1");
    }
    if let Some(name) = &tool.idempotency_header {
        builder = builder.header(name, &hop.id);
    }
    if let (Some(wanted), Some(secret)) = (&tool.secret, &hop.secret) {
        let mut value =
            HeaderValue::try_from(format!("{}{}", wanted.prefix, secret.expose())).ok()?;
        value.set_sensitive(true);
        let name = HeaderName::try_from(wanted.header.as_str()).ok()?;
        builder = builder.header(name, value);
    }
    if hop.call.body.is_some() {
        builder = builder.header(header::CONTENT_TYPE, "application/json");
    }
    builder.body(Full::new(Bytes::from(hop.body.clone()))).ok()
}
