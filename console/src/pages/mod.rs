//! Pages for people, compiled in: files of `console/pages`, and the help page of each error code.
//!
//! Plain HTML, CSS and ES modules. A page holds nothing that anybody could choose; what it shows
//! comes over the API, and its scripts make elements of it, never HTML.

mod help;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use crate::http::headers::Page;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// A file with its media type.
type File = (&'static str, &'static str);

const INDEX: File = (HTML, include_str!("../../pages/index.html"));
const ENROL: File = (HTML, include_str!("../../pages/enrol.html"));

macro_rules! file {
    ($kind:ident, $name:literal) => {
        ($name, ($kind, include_str!(concat!("../../pages/", $name))))
    };
}

/// What the pages load.
const FILES: &[(&str, File)] = &[
    file!(SCRIPT, "api.js"),
    file!(SCRIPT, "app.js"),
    file!(SCRIPT, "clock.js"),
    file!(SCRIPT, "details.js"),
    file!(SCRIPT, "dom.js"),
    file!(SCRIPT, "enrol.js"),
    file!(SCRIPT, "passkey.js"),
    file!(STYLE, "style.css"),
    file!(ICON, "icon.svg"),
];

/// The pages' routes. They are open: what they show, they ask the API for.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/approvals", get(approvals))
        .route("/approvals/enrol", get(enrol))
        .route("/pages/{file}", get(file))
        .route("/errors/{code}", get(error))
}

fn page((kind, content): (&'static str, impl Into<String>)) -> Response {
    let mut response = ([(header::CONTENT_TYPE, kind)], content.into()).into_response();
    response.extensions_mut().insert(Page);
    response
}

/// Under another name of ours passkeys do not work, so browsers are sent to the right one; what is
/// behind `#` comes along. Not where somebody chose a URL: a proxy may call us by any name.
fn at_own_name(shared: &Shared, headers: &HeaderMap, uri: &Uri) -> Option<Response> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    if shared.place.chosen || shared.place.is_called(host) {
        return None;
    }
    let to = format!("{}{}", shared.place.origin(), uri.path());
    Some(Redirect::temporary(&to).into_response())
}

async fn approvals(State(shared): State<Shared>, headers: HeaderMap, uri: Uri) -> Response {
    at_own_name(&shared, &headers, &uri).unwrap_or_else(|| page(INDEX))
}

async fn enrol(State(shared): State<Shared>, headers: HeaderMap, uri: Uri) -> Response {
    at_own_name(&shared, &headers, &uri).unwrap_or_else(|| page(ENROL))
}

async fn file(Path(name): Path<String>) -> Response {
    let found = FILES.iter().find(|(known, _)| *known == name);
    match found {
        Some((_, file)) => page(*file),
        None => HttpProblem::no_such_route().into_response(),
    }
}

async fn error(Path(code): Path<String>) -> Response {
    match help::page(code.trim_end_matches(".md")) {
        Some(html) => page((HTML, html)),
        None => (StatusCode::NOT_FOUND, HttpProblem::no_such_route()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_load_only_what_is_served_and_hold_no_script_of_their_own() {
        for (_, text) in [INDEX, ENROL]
            .into_iter()
            .chain(FILES.iter().map(|(_, f)| *f))
        {
            for part in text
                .split('"')
                .filter_map(|part| part.strip_prefix("/pages/"))
            {
                assert!(FILES.iter().any(|(name, _)| *name == part), "{part}");
            }
            for never in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(never), "{never}");
            }
        }
        for (_, html) in [INDEX, ENROL] {
            assert!(!html.contains("<style") && !html.contains(" style="));
            let handler = |word: &str| word.starts_with("on") && word.contains('=');
            assert!(!html.split_whitespace().any(handler));
            assert_eq!(html.matches("<script").count(), 1);
        }
    }
}
