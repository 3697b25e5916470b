//! Schemas of what other rooms define; what the API itself defines derives its own.

use sovereign_schemas::{AggregateType, ErrorCode};
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr};

fn object() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Object)
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn number() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
}

fn or_null(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Array(vec![kind, Type::Null]))
}

fn positions() -> ArrayBuilder {
    ArrayBuilder::new()
        .items(number())
        .min_items(Some(2))
        .max_items(Some(2))
        .description(Some("First and last position of its events."))
}

fn open(builder: ObjectBuilder) -> ObjectBuilder {
    builder.additional_properties(Some(AdditionalProperties::FreeForm(true)))
}

/// By name.
pub(super) fn foreign() -> Vec<(&'static str, RefOr<Schema>)> {
    vec![
        ("Any", open(object()).into()),
        ("Text", text().into()),
        ("Problem", problem().into()),
        ("Outcome", outcome().into()),
        ("Command", command().into()),
        ("Task", task().into()),
        ("NewJob", new_job().into()),
        ("Event", event().into()),
        ("EventsPage", events_page().into()),
        ("Rows", rows().into()),
        ("Health", health().into()),
    ]
}

fn problem() -> ObjectBuilder {
    let codes = ErrorCode::ALL.iter().map(|code| code.as_str());
    let always = ["type", "title", "status", "detail", "code", "message"];
    let object = object()
        .description(Some("RFC 9457, with the fields of docs/errors/README.md."))
        .property("type", text().description(Some("The page of the code.")))
        .property("title", text())
        .property("status", number())
        .property("detail", text())
        .property("code", text().enum_values(Some(codes)))
        .property("message", text())
        .property("field", text())
        .property("line", number())
        .property("expected", text())
        .property("found", text())
        .property("retry_after_ms", number())
        .property("remedy", text())
        .property("help", text())
        .property("outcome", open(object()).description(Some("Of a command.")));
    let object = always.into_iter().fold(object, ObjectBuilder::required);
    object.required("remedy").required("help")
}

fn new_job() -> ObjectBuilder {
    object()
        .property("kind", text().description(Some("Which handler: `plan`.")))
        .property(
            "arguments",
            open(object()).description(Some("For the handler, at most 256 KiB.")),
        )
        .property("name", text())
        .property("id", text())
        .property(
            "queue",
            text().enum_values(Some(["high", "default", "low"])),
        )
        .property("run_at", text())
        .property("after", ArrayBuilder::new().items(text()))
        .property("unique", text())
        .property("attempts_max", number())
        .property("backoff_ms", number())
        .property("amount", text())
        .property("currency", text())
        .property("department", text())
        .required("kind")
        .required("arguments")
}

fn outcome() -> ObjectBuilder {
    let states = ["accepted", "refused", "duplicate", "conflict", "invalid"];
    object()
        .property("command_id", or_null(Type::String))
        .property("status", text().enum_values(Some(states)))
        .property("positions", positions())
        .property("error", Ref::from_schema_name("Problem"))
        .required("status")
}

fn command() -> ObjectBuilder {
    let aggregates = AggregateType::ALL.iter().map(|kind| kind.as_str());
    let department = AnyOfBuilder::new()
        .item(text())
        .item(number())
        .description(Some("By name or number; the command's own if not given."));
    object()
        .property("aggregate", text().enum_values(Some(aggregates)))
        .property("id", text().min_length(Some(1)).max_length(Some(128)))
        .property("command", text())
        .property("data", open(object()))
        .property(
            "command_id",
            text()
                .min_length(Some(1))
                .max_length(Some(200))
                .description(Some("Takes effect once. Not with Idempotency-Key.")),
        )
        .property("department", department)
        .property(
            "actor",
            text().description(Some(
                "That of the token, which is taken if it is not given.",
            )),
        )
        .property("expected_sequence", number())
        .property("correlation_id", text())
        .property("causation_id", text())
        .property("traceparent", text())
        .property("subject", text())
        .required("aggregate")
        .required("id")
        .required("command")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

fn task() -> ObjectBuilder {
    object()
        .property("file", text().description(Some("Where, on that machine.")))
        .required("file")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

fn event() -> ObjectBuilder {
    let texts = [
        "event_id",
        "aggregate_type",
        "aggregate_id",
        "event_type",
        "department",
        "actor",
        "command_id",
        "correlation_id",
        "recorded_at",
        "hash",
    ];
    let object = open(object())
        .description(Some("One event, as `sovereign log --json` prints it."))
        .property("position", number())
        .property("sequence", number())
        .property("event_version", number())
        .property("causation_id", or_null(Type::String))
        .property("traceparent", or_null(Type::String))
        .property("data", open(object()))
        .required("position")
        .required("data");
    texts.into_iter().fold(object, |object, name| {
        object.property(name, text()).required(name)
    })
}

fn events_page() -> ObjectBuilder {
    let events = ArrayBuilder::new().items(Ref::from_schema_name("Event"));
    object()
        .property("events", events)
        .property("next", number().description(Some("Where to go on.")))
        .property("head", number().description(Some("The last position.")))
        .required("events")
        .required("next")
        .required("head")
}

fn rows() -> ObjectBuilder {
    let rows = ArrayBuilder::new().items(open(object()));
    object()
        .property("position", number())
        .property("rows", rows)
        .property("next", or_null(Type::String))
        .required("position")
        .required("rows")
        .required("next")
}

fn health() -> ObjectBuilder {
    object()
        .property("healthy", ObjectBuilder::new().schema_type(Type::Boolean))
        .property("head", number())
        .property("parts", open(object()))
        .required("healthy")
        .required("head")
        .required("parts")
}
