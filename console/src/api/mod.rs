//! The table of routes, from which the router, the OpenAPI document and the tests are made.

mod acting;
mod document;
mod endpoint;
mod schemas;
mod table;

pub(crate) use document::document;
pub(crate) use table::table;
