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
        ("Thought", thought().into()),
        ("Move", transition().into()),
        ("Bar", bar().into()),
        ("Work", work().into()),
        ("Intent", intent().into()),
        ("Cancellation", cancellation().into()),
        ("Proposed", proposed().into()),
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

/// Ids and codes: `sovereign_schemas::Identifier`.
fn identifier() -> ObjectBuilder {
    text()
        .min_length(Some(1))
        .max_length(Some(64))
        .pattern(Some(r"^[A-Za-z0-9._:/@+\-]+$"))
}

/// `sovereign_schemas::Decimal`.
fn amount() -> ObjectBuilder {
    text()
        .pattern(Some(r"^-?[0-9]{1,19}(\.[0-9]{1,9})?$"))
        .description(Some("An exact number, as a string."))
}

fn moment() -> ObjectBuilder {
    text().description(Some("RFC 3339, or a day such as 2026-02-04."))
}

/// An object of these fields and no others; the first ones are required.
fn fields(
    required: Vec<(&'static str, ObjectBuilder)>,
    more: Vec<(&'static str, ObjectBuilder)>,
) -> ObjectBuilder {
    let object = required.into_iter().fold(object(), |object, (name, kind)| {
        object.property(name, kind).required(name)
    });
    let put = |object: ObjectBuilder, (name, kind)| object.property(name, kind);
    let object = more.into_iter().fold(object, put);
    object.additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

fn thought() -> ObjectBuilder {
    let words = text().description(Some("In words; scrubbed and sealed."));
    fields(vec![("text", words)], vec![])
}

fn transition() -> ObjectBuilder {
    let states = [
        "IDLE",
        "SCANNING",
        "ANALYZING",
        "VERIFYING",
        "EXECUTING",
        "SAFE_MODE",
        "FROZEN",
    ];
    let to = text().enum_values(Some(states));
    fields(vec![("to", to), ("reason", identifier())], vec![])
}

fn bar() -> ObjectBuilder {
    let prices = ["open", "high", "low", "close", "volume"].map(|name| (name, amount()));
    let mut required = vec![("instrument", identifier()), ("opened_at", moment())];
    required.extend(prices);
    let seconds = number().minimum(Some(1)).maximum(Some(i32::MAX));
    fields(required, vec![("interval_s", seconds)])
}

fn work() -> ObjectBuilder {
    let digest = text().pattern(Some("^[0-9a-f]{64}$"));
    let items = number().minimum(Some(1)).maximum(Some(i64::MAX));
    let digest = digest.description(Some("SHA-256 of its input."));
    let required = vec![
        ("task", identifier()),
        ("input_digest", digest),
        ("items", items),
    ];
    fields(required, vec![])
}

fn intent() -> ObjectBuilder {
    let side = text().enum_values(Some(["BUY", "SELL"]));
    let why = text().description(Some("Why, in words; scrubbed and sealed."));
    let required = vec![
        ("instrument", identifier()),
        ("side", side),
        ("quantity", amount()),
        ("price", amount()),
        ("decided_on", moment()),
        ("rationale", why),
    ];
    let id = || identifier().max_length(Some(128));
    let trade = id().description(Some("How it is called; made up if not given."));
    let more = vec![
        ("trade_id", trade),
        ("agent_id", id().description(Some("That of the path."))),
        ("amount", amount()),
        ("currency", identifier()),
        ("closes", id()),
    ];
    fields(required, more)
}

fn cancellation() -> ObjectBuilder {
    fields(vec![("reason", identifier())], vec![])
}

fn proposed() -> ObjectBuilder {
    outcome().property("trade_id", text()).required("trade_id")
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
