use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::{Caller, Right};
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// A right, as a type.
pub(crate) trait Need: Send + Sync + 'static {
    const RIGHT: Right;
}

/// The rights, as types.
pub(crate) mod needs {
    macro_rules! needs {
        ($($right:ident),*) => {$(
            #[derive(Debug, Clone, Copy)]
            pub(crate) struct $right;
            impl super::Need for $right {
                const RIGHT: super::Right = super::Right::$right;
            }
        )*};
    }
    needs!(
        Read, Audit, Command, Decide, Operate, Act, Administer, Enrol
    );
}

/// Shows that the caller has the right `R`: it can only be made from a request of somebody who
/// has it.
#[derive(Debug, Clone)]
pub(crate) struct May<R> {
    pub(crate) caller: Caller,
    right: PhantomData<R>,
}

impl<R: Need> FromRequestParts<Shared> for May<R> {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, HttpProblem> {
        let Some(caller) = parts.extensions.get::<Caller>().cloned() else {
            return Err(HttpProblem::unauthenticated());
        };
        if !caller.role.may(R::RIGHT) {
            return Err(HttpProblem::forbidden(caller.role, R::RIGHT));
        }
        Ok(Self {
            caller,
            right: PhantomData,
        })
    }
}

/// Arguments of a handler of which the first is [`May`] with right `R`. `T` is what axum makes of
/// a handler's arguments; it has no name for them, so this relies on their order in its tuple,
/// and does not compile if that changes.
pub(crate) trait Checks<R> {}

macro_rules! checks {
    ($($argument:ident),*) => {
        impl<M, R, $($argument),*> Checks<R> for (M, May<R>, $($argument,)*) {}
    };
}
checks!();
checks!(A);
checks!(A, B);
checks!(A, B, C);
checks!(A, B, C, D);
checks!(A, B, C, D, E);
