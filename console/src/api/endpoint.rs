use axum::handler::Handler;
use axum::http::StatusCode;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::access::{Checks, Need, Right};
use crate::http::state::Shared;

/// The methods in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
    Delete,
}

impl Verb {
    const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

/// What a parameter looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A text of this form, as a regular expression.
    Form(&'static str),
    Flag,
    /// A whole number within these bounds.
    Number(u64, u64),
}

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) place: Place,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) about: &'static str,
}

/// A body: its media type and the name of its schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    pub(super) media_type: &'static str,
    pub(super) schema: &'static str,
}

/// One method of one path: what the router, the document and the tests need to know.
pub(crate) struct Endpoint {
    pub(super) verb: Verb,
    pub(super) path: &'static str,
    /// None: nobody is asked for a token.
    pub(super) right: Option<Right>,
    pub(super) id: &'static str,
    pub(super) about: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) bodies: Vec<Content>,
    pub(super) answers: Vec<(StatusCode, &'static str, Option<Content>)>,
    /// Whether it ends after `request_timeout_ms`; streams do not.
    timed: bool,
    service: MethodRouter<Shared>,
}

/// A route that nobody needs a token for.
pub(super) fn open<H, T>(verb: Verb, path: &'static str, id: &'static str, handler: H) -> Endpoint
where
    H: Handler<T, Shared>,
    T: 'static,
{
    Endpoint {
        verb,
        path,
        right: None,
        id,
        about: "",
        parameters: Vec::new(),
        bodies: Vec::new(),
        answers: Vec::new(),
        timed: true,
        service: on(verb.filter(), handler),
    }
}

/// A route whose handler's first argument says which right it needs; others do not compile.
pub(super) fn guarded<R, H, T>(
    verb: Verb,
    path: &'static str,
    id: &'static str,
    handler: H,
) -> Endpoint
where
    R: Need,
    H: Handler<T, Shared>,
    T: Checks<R> + 'static,
{
    Endpoint {
        right: Some(R::RIGHT),
        ..open(verb, path, id, handler)
    }
}

impl Endpoint {
    pub(super) fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    pub(super) fn parameters(mut self, parameters: &[Parameter]) -> Self {
        self.parameters.extend_from_slice(parameters);
        self
    }

    pub(super) fn body(mut self, media_type: &'static str, schema: &'static str) -> Self {
        self.bodies.push(Content { media_type, schema });
        self
    }

    pub(super) fn answers(
        mut self,
        status: StatusCode,
        about: &'static str,
        media_type: &'static str,
        schema: &'static str,
    ) -> Self {
        let content = Content { media_type, schema };
        self.answers.push((status, about, Some(content)));
        self
    }

    pub(super) fn answers_nothing(mut self, status: StatusCode, about: &'static str) -> Self {
        self.answers.push((status, about, None));
        self
    }

    pub(super) fn json(self, schema: &'static str) -> Self {
        self.answers(StatusCode::OK, "As asked.", "application/json", schema)
    }

    pub(super) fn streams(mut self) -> Self {
        self.timed = false;
        self
    }

    pub(crate) fn needs_token(&self) -> bool {
        self.right.is_some()
    }

    pub(crate) fn is_timed(&self) -> bool {
        self.timed
    }

    pub(crate) fn into_service(self) -> (&'static str, MethodRouter<Shared>) {
        (self.path, self.service)
    }
}
