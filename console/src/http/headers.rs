use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

/// What is no page: no script, frame or other load is ever right.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// Of our pages: only files of ours, nothing inline, and no text ever becomes a script.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Marks an answer as one of our pages, or a file of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page;

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Adds the headers that keep browsers from making more of an answer than it is.
pub(crate) fn add(response: &mut Response) {
    let is_page = response.extensions().get::<Page>().is_some();
    let policy = if is_page { PAGE_POLICY } else { POLICY };
    let fixed: [(HeaderName, &'static str); 7] = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (OPENER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (RESOURCE_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
}
