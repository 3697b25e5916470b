//! Writes the seed corpora from real material: `cargo run --example seeds -- OUT [LEDGER.avro]`.
//!
//! Events are those of a recorded file (`sovereign export`), or else samples; command lines are one
//! of each kind; registry requests are those of stock serializers and of every published schema.

use std::path::{Path, PathBuf};

use sovereign_replay::{FileInfo, FileLog, FileWriter, sample};
use sovereign_schemas::avro::{self, Reader};
use sovereign_schemas::{Cursor, Digest, EventLog as _, Position, RecordedEvent, catalog};

const COMMANDS: &[&str] = &[
    r#"{"aggregate": "agent", "id": "scout", "command": "register", "data": {"role": "analyst"}, "command_id": "c-1", "department": "trader", "actor": "me"}"#,
    r#"{"aggregate": "agent", "id": "scout", "command": "record_thought", "data": {"text": "our node 10.1.2.3 answers slowly, token=AKIAA1A1A1A1A1A1A1A1"}, "subject": "bob"}"#,
    r#"{"aggregate": "agent", "id": "scout", "command": "transition", "data": {"to": "SCANNING", "reason": "impatient"}, "expected_sequence": 2}"#,
    r#"{"aggregate":"agent","id":"scout","command":"observe_market","data":{"instrument":"IBM","opened_at":"2000-03-01","open":"100.25","high":"101","low":"99.5","close":"100","volume":"1200"}}"#,
    r#"{"aggregate":"agent","id":"scout","command":"start_task","data":{"task":"main","input_digest":"9215f95b40259a1940e13fb804ad3b9746c3468995a13bb60eb02fa2f7ae78cf","items":12154}}"#,
    r#"{"aggregate":"agent","id":"scout","command":"finish_task","data":{"task":"main"}}"#,
    r#"{"aggregate":"agent","id":"scout","command":"clear_execution","data":{"trade_id":"t1","authority":"policy"}}"#,
    r#"{"aggregate":"trade","id":"t1","command":"propose","data":{"agent_id":"scout","instrument":"IBM","side":"BUY","quantity":"10","price":"100.25","amount":"1002.50","currency":"USD","decided_on":"2000-03-01T00:00:00Z","rationale":"flat"}}"#,
    r#"{"aggregate":"trade","id":"t1","command":"give_verdict","data":{"verdict":"GREEN","rule":"limits","note":"fine"}}"#,
    r#"{"aggregate":"trade","id":"t1","command":"hold","data":{"approval_id":"a1"}}"#,
    r#"{"aggregate":"trade","id":"t1","command":"authorize","data":{}}"#,
    r#"{"aggregate":"trade","id":"t1","command":"fill","data":{"order_id":"o1","price":"100.3","quantity":"10","commission":"1","filled_at":"2000-03-02T00:00:00Z"}}"#,
    r#"{"aggregate":"trade","id":"t1","command":"cancel","data":{"reason":"expired"}}"#,
    r#"{"aggregate":"trade","id":"t1","command":"conclude","data":{"exit_trade_id":"t2","exit_price":"101","exit_commission":"1"}}"#,
    r#"{"aggregate":"approval","id":"a1","command":"request","data":{"action":"trade","target_id":"t1","action_digest":"9215f95b40259a1940e13fb804ad3b9746c3468995a13bb60eb02fa2f7ae78cf","amount":"1002.50","currency":"USD"}}"#,
    r#"{"aggregate":"approval","id":"a1","command":"deny","data":{"reason":"no: call 203.0.113.7"},"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}"#,
    r#"{"aggregate":"approval","id":"a1","command":"expire","data":{}}"#,
    r#"{"aggregate": "agent", "id": "scout", "command": "fly", "command_id": "c-4", "department": 5}"#,
    r#"{"aggregate":"agent","id":"scout","command":"register","data":{"role":"x"},"correlation_id":"0199f1c2-5c11-7d3a-9a35-6b8f0f0c2a11","causation_id":null}"#,
];

const REQUESTS: &[&str] = &[
    "GET /subjects\nGET /subjects/a/versions\nGET /schemas/types\nGET /config\nGET /mode",
    "POST /subjects/a/versions {\"schema\":\"\\\"string\\\"\"}\nGET /subjects/a/versions/latest\nGET /schemas/ids/1\nGET /schemas/ids/1/schema\nGET /schemas/ids/1/versions\nDELETE /subjects/a\nDELETE /subjects/a?permanent=true",
    "PUT /config {\"compatibility\":\"FULL_TRANSITIVE\"}\nPUT /config/a {\"compatibility\":\"NONE\"}\nGET /config/a?defaultToGlobal=true\nDELETE /config/a\nPUT /mode/a {\"mode\":\"READONLY\"}",
    "POST /subjects/a/versions {\"schema\":\"string\"}\nPOST /subjects/a {\"schema\":\"string\",\"schemaType\":\"AVRO\"}\nPOST /compatibility/subjects/a/versions/latest?verbose=true {\"schema\":\"\\\"long\\\"\"}\nPOST /compatibility/subjects/a/versions {\"schema\":\"int\"}\nGET /subjects/a/versions/1/referencedby\nGET /subjects/a/versions/1/schema\nDELETE /subjects/a/versions/1",
    "GET /subjects?deleted=true&subjectPrefix=a&offset=1&limit=2\nHEAD /subjects\nPATCH /subjects\nGET /subjects/%00/versions/-1",
];

type Done = Result<(), Box<dyn std::error::Error>>;

struct Corpus {
    folder: PathBuf,
}

impl Corpus {
    fn new(out: &Path, target: &str) -> Result<Self, std::io::Error> {
        let folder = out.join(target);
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    fn put(&self, bytes: &[u8]) -> Result<(), std::io::Error> {
        let name = Digest::of(&[bytes]).to_string();
        std::fs::write(self.folder.join(&name[..40]), bytes)
    }
}

/// For the target `effect`: which part, and its text.
const EFFECTS: &[(u8, &str)] = &[
    (
        0,
        r#"{"kind":"http","tool":"orders","method":"POST","path":"/v1/orders","query":{"a":"b"},"body":{"n":[1,null]}}"#,
    ),
    (
        0,
        r#"{"kind":"model","tool":"llm","model":"m/x:7b","tokens_max":9,"temperature":0.5,"seed":1,"messages":[{"role":"user","content":"hi"}]}"#,
    ),
    (
        0,
        r#"{"kind":"timer","until":"2026-01-01T00:00:00.000001Z"}"#,
    ),
    (0, r#"{"kind":"random","bytes":16}"#),
    (
        0,
        r#"{"kind":"random","integers":{"count":3,"low":-1,"high":9223372036854775807}}"#,
    ),
    (
        0,
        r#"{"kind":"order","exchange":"mock","instrument":"AAPL","side":"SELL","quantity":"1.5","price":"10.25","at":"2000-03-02","price_worst":"10"}"#,
    ),
    (
        0,
        r#"{"kind":"process","program":"report","arguments":["a","-b"],"input":"c"}"#,
    ),
    (1, "/v1/orders/17"),
    (1, "/a.b-c_d~e/%20/%C3%A9/@:!$&'()*+,="),
    (1, "/v1/%2e%2e/admin"),
    (2, "https://api.example.com:8443/v2"),
    (2, "http://[::ffff:127.0.0.1]:80/"),
    (2, "https://xn--exmple-cua.com"),
    (2, "http://127.0.0.1/"),
    (
        3,
        "[tools.t]\nbase = \"https://example.com/v2\"\nmethods = [\"GET\", \"POST\"]\npaths = [\"/a\", \"/b/\"]\nreach = [\"loopback\", \"link-local\"]\nidempotency_header = \"k\"\nsecret = \"s\"\nsecret_header = \"x-key\"\nsecret_prefix = \"\"\nheaders = { x = \"y\" }\non_5xx = \"failed\"\nredirects_max = 2\ncalls_per_s_max = 3\nburst_max = 4\nanswer_bytes_max = 100\n",
    ),
    (
        3,
        "[exchanges.e]\nseed = 1\ncommission_per_mille = \"0.5\"\ncommission_min = \"1\"\nslippage_bps_max = 10\nlatency_ms_min = 1\nlatency_ms_max = 5\n",
    ),
    (
        4,
        "[processes.p]\npath = \"/bin/p\"\narguments = [\"a\"]\nmore_arguments_max = 1\nflags = [\"-x\"]\nfolder = \"/tmp\"\nrepeatable = true\nnot_done_exits = [64]\n",
    ),
    (
        5,
        "seed = 7\n[[answers]]\nkind = \"http\"\ntarget = \"t\"\nmethod = \"GET\"\npath = \"/\"\nweight = 3\noutcome = \"done\"\nresult = { a = 1 }\n[[answers]]\nkind = \"model\"\noutcome = \"failed\"\nmessage = \"no\"\nretry = true\n",
    ),
];

fn main() -> Done {
    let mut args = std::env::args().skip(1).map(PathBuf::from);
    let out = args.next().ok_or("usage: seeds OUT [LEDGER.avro]")?;
    let events = match args.next() {
        Some(path) => recorded(&path)?,
        None => sample::events(1, 200, 12),
    };
    payloads(&out, &events)?;
    files(&out)?;
    records(&out, &events)?;
    let lines = Corpus::new(&out, "ndjson")?;
    for line in COMMANDS {
        lines.put(line.as_bytes())?;
    }
    lines.put(COMMANDS.join("\n").as_bytes())?;
    let effects = Corpus::new(&out, "effect")?;
    for (which, text) in EFFECTS {
        effects.put(&[&[*which], text.as_bytes()].concat())?;
    }
    let requests = Corpus::new(&out, "registry_routes")?;
    for request in REQUESTS {
        requests.put(request.as_bytes())?;
    }
    for schema in catalog::all() {
        let body = serde_json::json!({ "schema": schema.json });
        let path = format!("/subjects/{}/versions", schema.subject);
        requests.put(format!("POST {path} {body}\nGET {path}/latest").as_bytes())?;
    }
    Ok(())
}

fn recorded(path: &Path) -> Result<Vec<RecordedEvent>, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut log = FileLog::open(path)?;
    let (mut all, mut cursor) = (Vec::new(), Cursor::from(Position(log.info().first.0 - 1)));
    loop {
        let (events, next) = runtime.block_on(log.read(cursor, 1_000))?;
        if events.is_empty() {
            return Ok(all);
        }
        all.extend(events);
        cursor = next;
    }
}

/// At most so many seeds of one kind.
const EACH_MAX: usize = 8;

fn payloads(out: &Path, events: &[RecordedEvent]) -> Done {
    let corpus = Corpus::new(out, "avro")?;
    for (index, schema) in (0_u8..).zip(catalog::all()) {
        let same = |e: &&RecordedEvent| {
            e.header.event_type == schema.name && e.header.event_version == schema.version
        };
        for event in events.iter().filter(same).take(EACH_MAX) {
            corpus.put(&[&[index], &event.payload[..]].concat())?;
            if schema.name == "MarketObserved" && schema.version == 1 {
                corpus.put(&[&[254], &event.payload[..]].concat())?;
            }
        }
    }
    for event in events.iter().take(EACH_MAX) {
        let mut header = vec![255];
        event.header.encode(&mut header);
        corpus.put(&header)?;
    }
    Ok(())
}

/// The very file that the target makes its header from: only its own blocks fit.
fn files(out: &Path) -> Done {
    let corpus = Corpus::new(out, "recorded_file")?;
    let events = sample::events(1, 8, 3);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("log.avro");
    let info = FileInfo {
        first: Position(1),
        last: Position(8),
        previous_hash: Digest::ZERO,
        last_hash: events[7].hash,
    };
    let mut writer = FileWriter::create(&path, info)?;
    for event in &events {
        writer.push(event)?;
    }
    writer.finish()?;
    let good = std::fs::read(&path)?;
    corpus.put(&[&[0], &good[..]].concat())?;
    let mut input = Reader::new(&good);
    input.take(4)?;
    for _ in 0..input.long()? {
        input.bytes()?;
        input.bytes()?;
    }
    input.long()?;
    input.take(16)?;
    let blocks = &good[input.at()..];
    corpus.put(&[&[1], blocks].concat())?;
    let mut block = Reader::new(blocks);
    block.long()?;
    let records = block.bytes()?;
    corpus.put(&[&[2, 8], records].concat())?;
    for event in &events {
        let mut record = vec![2, 1];
        event.header.encode(&mut record);
        avro::put_bytes(&mut record, &event.payload);
        record.extend_from_slice(&event.hash.0);
        avro::put_long(&mut record, 0);
        corpus.put(&record)?;
    }
    Ok(())
}

#[cfg(not(feature = "kafka"))]
fn records(_: &Path, _: &[RecordedEvent]) -> Done {
    Ok(())
}

#[cfg(feature = "kafka")]
fn records(out: &Path, events: &[RecordedEvent]) -> Done {
    use sovereign_kafka::dead_letters::RawRecord;
    use sovereign_kafka::record;
    const NAMES: &[&str] = &[
        record::HEADER,
        record::HASH,
        record::POSITION,
        record::ID,
        record::TYPE,
        record::TRACEPARENT,
        record::SPECVERSION,
    ];
    let corpus = Corpus::new(out, "kafka_record")?;
    for event in events.iter().take(4 * EACH_MAX) {
        let record = RawRecord::of_event(event, 7);
        let key = record.key.as_deref().unwrap_or_default();
        let mut seed = vec![key.len() as u8];
        seed.extend_from_slice(key);
        let known: Vec<_> = record
            .headers
            .iter()
            .filter_map(|(name, value)| {
                let number = NAMES.iter().position(|n| n == name)?;
                Some((number as u8, value.as_deref().unwrap_or_default()))
            })
            .collect();
        seed.push(known.len() as u8);
        for (number, value) in known {
            seed.push(number);
            seed.push(u8::try_from(value.len())?);
            seed.extend_from_slice(value);
        }
        seed.extend_from_slice(record.value.as_deref().unwrap_or_default());
        corpus.put(&seed)?;
    }
    Ok(())
}
