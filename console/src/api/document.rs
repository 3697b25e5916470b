use utoipa::ToSchema;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{
    OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Components, ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, OpenApi,
    OpenApiBuilder, Ref, RefOr, Required, Schema,
};

use super::endpoint::{Content, Endpoint, Kind, Parameter, Place, Verb};
use super::schemas::foreign;
use crate::access::{COOKIE, Role};
use crate::routes::v1::approvals::Denial;
use crate::routes::v1::enrolment::NewPasskey;
use crate::routes::v1::giving::Giving;
use crate::routes::v1::invitations::Invitation;
use crate::routes::v1::passkeys::Revocation;
use crate::routes::v1::session::SessionView;
use crate::routes::v1::tokens::{IssuedToken, NewToken, TokenList, TokenView};

/// The right that a route needs, in the document.
const RIGHT: &str = "x-sovereign-right";

/// The OpenAPI document of these routes.
pub(crate) fn document(endpoints: &[Endpoint]) -> OpenApi {
    let mut paths = PathsBuilder::new();
    for endpoint in endpoints {
        let method = match endpoint.verb {
            Verb::Get => HttpMethod::Get,
            Verb::Post => HttpMethod::Post,
            Verb::Delete => HttpMethod::Delete,
        };
        paths = paths.path(endpoint.path, PathItem::new(method, operation(endpoint)));
    }
    let about = "Roles, tokens, sessions, paging and streams are explained in docs/API.md, error \
                 codes in docs/errors. Below /subjects, /schemas, /compatibility, /config and \
                 /mode there is Confluent's Schema Registry API, which has a document of its own.";
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Sovereign")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(about)),
        )
        .paths(paths)
        .components(Some(components()))
        .build()
}

fn components() -> Components {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let session = ApiKey::Cookie(ApiKeyValue::with_description(
        COOKIE,
        "A session; requests other than GET need the header x-csrf-token as well.",
    ));
    let foreign = foreign()
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema));
    let mut own: Vec<(String, RefOr<Schema>)> = Vec::new();
    add::<Role>(&mut own);
    add::<Denial>(&mut own);
    add::<Giving>(&mut own);
    add::<Invitation>(&mut own);
    add::<NewPasskey>(&mut own);
    add::<Revocation>(&mut own);
    add::<SessionView>(&mut own);
    add::<NewToken>(&mut own);
    add::<TokenView>(&mut own);
    add::<IssuedToken>(&mut own);
    add::<TokenList>(&mut own);
    ComponentsBuilder::new()
        .schemas_from_iter(foreign.chain(own))
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .security_scheme("session", SecurityScheme::ApiKey(session))
        .build()
}

fn add<T: ToSchema>(to: &mut Vec<(String, RefOr<Schema>)>) {
    to.push((T::name().into_owned(), T::schema()));
}

fn operation(endpoint: &Endpoint) -> OperationBuilder {
    let mut operation = OperationBuilder::new()
        .operation_id(Some(endpoint.id))
        .summary(Some(endpoint.about));
    for parameter in &endpoint.parameters {
        operation = operation.parameter(described(parameter));
    }
    if !endpoint.bodies.is_empty() {
        let mut body = RequestBodyBuilder::new().required(Some(Required::True));
        for content in &endpoint.bodies {
            body = body.content(content.media_type, of(content));
        }
        operation = operation.request_body(Some(body.build()));
    }
    let mut statuses: Vec<_> = endpoint
        .answers
        .iter()
        .map(|(status, ..)| *status)
        .collect();
    statuses.dedup();
    for status in statuses {
        let same = || endpoint.answers.iter().filter(|(s, ..)| *s == status);
        let about = same().next().map_or("", |(_, about, _)| *about);
        let mut response = ResponseBuilder::new().description(about);
        for content in same().filter_map(|(_, _, content)| content.as_ref()) {
            response = response.content(content.media_type, of(content));
        }
        operation = operation.response(status.as_u16().to_string(), response.build());
    }
    let problem = Content {
        media_type: "application/problem+json",
        schema: "Problem",
    };
    let problems = ResponseBuilder::new()
        .description("A problem.")
        .content(problem.media_type, of(&problem));
    operation = operation.response("default", problems.build());
    let Some(right) = endpoint.right else {
        return operation;
    };
    let no_scopes = std::iter::empty::<String>;
    let right = ExtensionsBuilder::new().add(RIGHT, right.as_str()).build();
    operation
        .security(SecurityRequirement::new("bearer", no_scopes()))
        .security(SecurityRequirement::new("session", no_scopes()))
        .extensions(Some(right))
}

fn of(content: &Content) -> utoipa::openapi::Content {
    let schema = Ref::from_schema_name(content.schema);
    ContentBuilder::new().schema(Some(schema)).build()
}

fn described(parameter: &Parameter) -> ParameterBuilder {
    let (place, required) = match parameter.place {
        Place::Path => (ParameterIn::Path, Required::True),
        Place::Query => (ParameterIn::Query, Required::False),
        Place::Header => (ParameterIn::Header, Required::False),
    };
    let schema = match parameter.kind {
        Kind::Text => ObjectBuilder::new().schema_type(Type::String),
        Kind::Form(pattern) => ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(pattern)),
        Kind::Flag => ObjectBuilder::new().schema_type(Type::Boolean),
        Kind::Number(least, most) => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(least))
            .maximum(Some(most)),
    };
    ParameterBuilder::new()
        .name(parameter.name)
        .parameter_in(place)
        .required(required)
        .description(Some(parameter.about))
        .schema(Some(schema))
}
