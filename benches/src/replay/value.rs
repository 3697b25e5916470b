//! The same fold by way of apache-avro's `Value`, with the map and the SHA-256 that one would take
//! first. It must come to the same digests.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context as _;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::{Reader, Schema};
use sovereign_aggregates::AnyState;
use sovereign_aggregates::agent::{Agent, Task};
use sovereign_aggregates::approval::{Approval, Stage};
use sovereign_aggregates::trade::{Execution, Intent, Trade, TradeStatus};
use sovereign_replay::{Digests, digest_of_states};
use sovereign_schemas::events::{AgentState, Side};
use sovereign_schemas::{
    AggregateType, Date, Decimal, DepartmentId, Digest, EventHeader, Position, Timestamp, Uuid,
    catalog, chain,
};

type Fields = [(String, Value)];

pub(super) fn fold(path: &Path) -> anyhow::Result<Digests> {
    let mut schemas = HashMap::new();
    for schema in catalog::all() {
        let parsed = Schema::parse_str(schema.json)?;
        schemas.insert((schema.name, schema.version), parsed);
    }
    let readers: HashMap<_, _> = schemas
        .iter()
        .map(|(key, schema)| Ok((*key, GenericDatumReader::builder(schema).build()?)))
        .collect::<Result<_, apache_avro::Error>>()?;
    let mut states: HashMap<String, (u64, AnyState)> = HashMap::new();
    let (mut previous, mut expected) = (Digest::ZERO, Position(1));
    let file = BufReader::with_capacity(256 << 10, File::open(path)?);
    for record in Reader::new(file)? {
        let Value::Record(record) = record? else {
            anyhow::bail!("no record");
        };
        let header = header(fields(get(&record, "header")?)?)?;
        anyhow::ensure!(
            header.position == expected,
            "a gap before {}",
            header.position
        );
        expected = expected.next();
        let (Value::Bytes(payload), Value::Fixed(32, hash)) =
            (get(&record, "payload")?, get(&record, "hash")?)
        else {
            anyhow::bail!("no payload or hash");
        };
        let hash = Digest(hash.as_slice().try_into()?);
        anyhow::ensure!(
            chain::expected_hash(&previous, &header, payload) == hash,
            "link {} does not hold",
            header.position
        );
        previous = hash;
        let key = (&*header.event_type, header.event_version);
        let reader = readers.get(&key).context("unknown event")?;
        let mut rest = payload.as_slice();
        let value = reader.read_value(&mut rest)?;
        anyhow::ensure!(rest.is_empty(), "bytes left over");
        // ids start with their type in this sample
        let (sequence, state) = match states.get_mut(&header.aggregate_id) {
            Some(known) => known,
            None => {
                let aggregate_type: AggregateType = header
                    .aggregate_type
                    .parse()
                    .map_err(|_| anyhow::anyhow!("aggregate type {}", header.aggregate_type))?;
                let new = (0, AnyState::new(aggregate_type));
                states.entry(header.aggregate_id.clone()).or_insert(new)
            }
        };
        *sequence += 1;
        anyhow::ensure!(*sequence == header.sequence, "sequence {}", header.sequence);
        let event = fields(&value)?;
        match state {
            AnyState::Agent(agent) => evolve_agent(agent, &header.event_type, event)?,
            AnyState::Trade(trade) => evolve_trade(trade, &header.event_type, event)?,
            AnyState::Approval(approval) => evolve_approval(approval, &header.event_type, event)?,
            AnyState::Imported(_)
            | AnyState::Policy(_)
            | AnyState::Approver(_)
            | AnyState::Job(_)
            | AnyState::Schedules(_) => {
                anyhow::bail!("the sample has agents, trades and approvals only")
            }
        }
    }
    Ok(digest_of_states(states.into_iter().map(
        |(id, (sequence, state))| (state.aggregate_type(), id, sequence, state),
    )))
}

fn fields(value: &Value) -> anyhow::Result<&Fields> {
    match value {
        Value::Record(fields) => Ok(fields),
        other => anyhow::bail!("{other:?} is no record"),
    }
}

fn get<'a>(fields: &'a Fields, name: &str) -> anyhow::Result<&'a Value> {
    let found = fields.iter().find(|(field, _)| field == name);
    Ok(&found.with_context(|| format!("no field {name}"))?.1)
}

fn text<'a>(fields: &'a Fields, name: &str) -> anyhow::Result<&'a str> {
    match get(fields, name)? {
        Value::String(text) | Value::Enum(_, text) => Ok(text),
        other => anyhow::bail!("{name} is {other:?}"),
    }
}

fn number(fields: &Fields, name: &str) -> anyhow::Result<i64> {
    match get(fields, name)? {
        Value::Long(value) | Value::TimestampMicros(value) => Ok(*value),
        Value::Int(value) | Value::Date(value) => Ok(i64::from(*value)),
        other => anyhow::bail!("{name} is {other:?}"),
    }
}

fn uuid(value: &Value) -> anyhow::Result<Uuid> {
    match value {
        Value::Fixed(16, bytes) => Ok(Uuid::from_slice(bytes)?),
        other => anyhow::bail!("{other:?} is no uuid"),
    }
}

fn decimal(fields: &Fields, name: &str) -> anyhow::Result<Decimal> {
    let Value::Decimal(value) = get(fields, name)? else {
        anyhow::bail!("{name} is no decimal");
    };
    let bytes = Vec::<u8>::try_from(value)?;
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    let start = 16_usize
        .checked_sub(bytes.len())
        .context("decimal too long")?;
    wide[start..].copy_from_slice(&bytes);
    Decimal::from_unscaled(i128::from_be_bytes(wide)).context("decimal out of range")
}

fn header(fields: &Fields) -> anyhow::Result<EventHeader> {
    let Value::Fixed(8, fingerprint) = get(fields, "schema_fingerprint")? else {
        anyhow::bail!("no fingerprint");
    };
    Ok(EventHeader {
        position: Position(number(fields, "position")?.cast_unsigned()),
        event_id: uuid(get(fields, "event_id")?)?,
        aggregate_type: EventHeader::type_name(text(fields, "aggregate_type")?),
        aggregate_id: text(fields, "aggregate_id")?.to_owned(),
        sequence: number(fields, "sequence")?.cast_unsigned(),
        event_type: EventHeader::type_name(text(fields, "event_type")?),
        event_version: number(fields, "event_version")?.try_into()?,
        department: DepartmentId(number(fields, "department")?.try_into()?),
        actor: text(fields, "actor")?.to_owned(),
        command_id: uuid(get(fields, "command_id")?)?,
        correlation_id: uuid(get(fields, "correlation_id")?)?,
        causation_id: match get(fields, "causation_id")? {
            Value::Union(0, _) => None,
            Value::Union(_, some) => Some(uuid(some)?),
            other => anyhow::bail!("causation_id is {other:?}"),
        },
        recorded_at: Timestamp(number(fields, "recorded_at")?),
        schema_fingerprint: fingerprint.as_slice().try_into()?,
    })
}

fn agent_state(fields: &Fields, name: &str) -> anyhow::Result<AgentState> {
    let text = text(fields, name)?;
    let found = AgentState::ALL.iter().find(|state| state.as_str() == text);
    found.copied().context("unknown state")
}

fn evolve_agent(agent: &mut Agent, event_type: &str, event: &Fields) -> anyhow::Result<()> {
    match event_type {
        "AgentRegistered" => agent.role = Some(text(event, "role")?.to_owned()),
        "StateTransitioned" => {
            if agent_state(event, "from")? == AgentState::Executing {
                agent.cleared = None;
            }
            agent.state = agent_state(event, "to")?;
        }
        "TransitionRefused" => {}
        "ThoughtRecorded" => agent.thoughts += 1,
        "MarketObserved" => {
            // version 1 names a bar by its day
            let opened_at = match number(event, "opened_at") {
                Ok(moment) => Timestamp(moment),
                Err(_) => Date(number(event, "date")?.try_into()?).midnight(),
            };
            let instrument = text(event, "instrument")?.to_owned();
            agent.observed.insert(instrument, opened_at);
        }
        "TaskStarted" => {
            agent.task = Some(Task {
                task: text(event, "task")?.to_owned(),
                items: number(event, "items")?,
            });
        }
        "TaskFinished" => agent.task = None,
        "ExecutionCleared" => agent.cleared = Some(text(event, "trade_id")?.to_owned()),
        other => anyhow::bail!("{other} of an agent"),
    }
    Ok(())
}

fn evolve_trade(trade: &mut Trade, event_type: &str, event: &Fields) -> anyhow::Result<()> {
    trade.status = match event_type {
        "TradeProposed" => {
            let side = text(event, "side")?;
            trade.intent = Some(Intent {
                side: if side == Side::Buy.as_str() {
                    Side::Buy
                } else {
                    Side::Sell
                },
                quantity: decimal(event, "quantity")?,
                amount: decimal(event, "amount")?,
                opens: matches!(get(event, "closes")?, Value::Union(0, _)),
                decided_on: Timestamp(number(event, "decided_on")?),
                // not part of the states that are compared
                instrument: Box::default(),
                proposal: None,
            });
            TradeStatus::Proposed
        }
        "VerdictGiven" if text(event, "verdict")? == "GREEN" => TradeStatus::Green,
        "VerdictGiven" => TradeStatus::Rejected,
        "TradeHeld" => {
            trade.approval_id = Some(text(event, "approval_id")?.to_owned());
            TradeStatus::Held
        }
        "TradeAuthorized" => TradeStatus::Authorized,
        "TradePlaced" => TradeStatus::Placed,
        "TradeFilled" => {
            trade.execution = Some(Execution {
                price: decimal(event, "price")?,
                commission: decimal(event, "commission")?,
            });
            TradeStatus::Filled
        }
        "TradeCancelled" => TradeStatus::Cancelled,
        "TradeConcluded" => TradeStatus::Concluded,
        other => anyhow::bail!("{other} of a trade"),
    };
    Ok(())
}

fn evolve_approval(
    approval: &mut Approval,
    event_type: &str,
    event: &Fields,
) -> anyhow::Result<()> {
    approval.stage = match event_type {
        "ApprovalRequested" => Stage::Waiting {
            expires_at: Timestamp(number(event, "expires_at")?),
        },
        "ApprovalDenied" => Stage::Denied,
        "ApprovalExpired" => Stage::Expired,
        other => anyhow::bail!("{other} of an approval"),
    };
    Ok(())
}
