//! Generates one Rust struct per Avro record in `avro/`, with its encoder and decoder, so that a
//! schema and the code that writes it cannot drift apart: a field renamed in the file is a
//! compile error wherever it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::{env, fs, path::PathBuf};

use serde_json::Value;

/// A record file: `<Name>.v<version>.avsc`.
struct Record {
    name: String,
    namespace: String,
    version: u16,
    file: String,
    schema: Value,
}

fn main() {
    println!("cargo::rerun-if-changed=avro");
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("avro");
    let mut records = read_records(&folder);
    records.sort_by(|a, b| {
        (&a.namespace, &a.name, a.version).cmp(&(&b.namespace, &b.name, b.version))
    });
    let mut out = String::new();
    let mut enums = BTreeMap::new();
    for record in &records {
        collect_enums(&record.schema, &mut enums);
    }
    for (name, symbols) in &enums {
        write_enum(&mut out, name, symbols);
    }
    let latest = latest_versions(&records);
    for record in &records {
        write_record(&mut out, record, latest[&record.name]);
    }
    write_event_type(&mut out, &records, &latest);
    write_aggregate_events(&mut out, &records, &latest);
    write_catalog(&mut out, &records, &folder);
    let target = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("events.rs");
    fs::write(target, out).expect("the build folder is writable");
}

fn read_records(folder: &PathBuf) -> Vec<Record> {
    let mut records = Vec::new();
    for entry in fs::read_dir(folder).expect("schemas/avro is there") {
        let path = entry.expect("readable").path();
        let file = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        let Some((name, version)) = file.strip_suffix(".avsc").and_then(|f| f.split_once(".v"))
        else {
            continue;
        };
        let text = fs::read_to_string(&path).expect("readable");
        let schema: Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{file} is not JSON: {e}"));
        assert_eq!(
            schema["name"], name,
            "{file}: the record's name must equal the file's"
        );
        let namespace = schema["namespace"]
            .as_str()
            .expect("a namespace")
            .to_owned();
        let version = version
            .parse()
            .unwrap_or_else(|_| panic!("{file}: <Name>.v<N>.avsc"));
        records.push(Record {
            name: name.to_owned(),
            namespace,
            version,
            file,
            schema,
        });
    }
    records
}

fn latest_versions(records: &[Record]) -> BTreeMap<String, u16> {
    let mut latest: BTreeMap<String, u16> = BTreeMap::new();
    for record in records {
        let newest = latest.entry(record.name.clone()).or_default();
        *newest = (*newest).max(record.version);
    }
    latest
}

fn collect_enums(schema: &Value, enums: &mut BTreeMap<String, Vec<String>>) {
    match schema {
        Value::Object(map) => {
            if map.get("type") == Some(&Value::from("enum")) {
                let name = map["name"].as_str().expect("a name").to_owned();
                let symbols: Vec<String> = map["symbols"]
                    .as_array()
                    .expect("symbols")
                    .iter()
                    .map(|s| s.as_str().expect("a string").to_owned())
                    .collect();
                if let Some(other) = enums.insert(name.clone(), symbols.clone()) {
                    assert_eq!(other, symbols, "enum {name} differs between two schemas");
                }
            }
            map.values().for_each(|v| collect_enums(v, enums));
        }
        Value::Array(items) => items.iter().for_each(|v| collect_enums(v, enums)),
        _ => {}
    }
}

fn pascal(symbol: &str) -> String {
    symbol
        .split('_')
        .map(|part| part[..1].to_uppercase() + &part[1..].to_lowercase())
        .collect()
}

fn write_enum(out: &mut String, name: &str, symbols: &[String]) {
    writeln!(
        out,
        "/// Avro enum `sovereign.{name}`.\n#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, \
         PartialOrd, Ord, serde::Serialize, serde::Deserialize)]\npub enum {name} {{"
    )
    .expect("a string");
    for symbol in symbols {
        writeln!(
            out,
            "/// `{symbol}`\n#[serde(rename = \"{symbol}\")]\n{},",
            pascal(symbol)
        )
        .expect("a string");
    }
    let list = |f: &dyn Fn(&String) -> String| symbols.iter().map(f).collect::<Vec<_>>().join(",");
    writeln!(
        out,
        "}}\nimpl {name} {{\n/// All symbols, in the order of the schema.\n\
         pub const ALL: &'static [Self] = &[{all}];\n\
         /// The symbol as the schema spells it.\n#[must_use]\n\
         pub const fn as_str(self) -> &'static str {{ match self {{ {to} }} }}\n}}\n\
         impl crate::avro::Wire for {name} {{\n\
         fn put(&self, out: &mut Vec<u8>) {{ crate::avro::put_long(out, *self as i64); }}\n\
         fn take(input: &mut crate::avro::Reader<'_>) -> Result<Self, crate::avro::DecodeError> {{\n\
         match input.long()? {{ {from}, n => Err(crate::avro::DecodeError::Symbol {{ name: \"{name}\", index: n }}) }} }}\n\
         fn json(&self, _: crate::avro::TextsToJson<'_>) -> serde_json::Value {{ self.as_str().into() }}\n}}\n\
         impl crate::FromJson for {name} {{ fn from_json(value: serde_json::Value, _: &mut dyn crate::Intake) -> Result<Self, crate::Problem> {{ crate::intake::symbol(value) }} }}\n\
         impl crate::borrowed::Borrowed<'_> for {name} {{\n\
         fn take(input: &mut crate::avro::Reader<'_>) -> Result<Self, crate::avro::DecodeError> {{ crate::avro::Wire::take(input) }}\n}}\n\
         impl crate::borrowed::ToBorrowed for {name} {{\ntype Form<'a> = Self;\nfn borrowed(&self) -> Self {{ *self }}\n}}\n\
         impl std::fmt::Display for {name} {{ fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{ f.write_str(self.as_str()) }} }}",
        all = list(&|s| format!("Self::{}", pascal(s))),
        to = list(&|s| format!("Self::{} => \"{s}\"", pascal(s))),
        from = symbols
            .iter()
            .enumerate()
            .map(|(i, s)| format!("{i} => Ok(Self::{})", pascal(s)))
            .collect::<Vec<_>>()
            .join(","),
    )
    .expect("a string");
}

/// The Rust type of an Avro type; panics, and so fails the build, on one we have no codec for.
fn rust_type(schema: &Value, at: &str) -> String {
    match schema {
        Value::String(name) => match name.as_str() {
            "string" => "String".into(),
            "long" => "i64".into(),
            "int" => "i32".into(),
            "boolean" => "bool".into(),
            "bytes" => "Vec<u8>".into(),
            named => named_type(named.rsplit('.').next().expect("not empty"), at),
        },
        Value::Array(options) => {
            assert!(
                options.len() == 2 && options[0] == "null",
                "{at}: only unions [\"null\", T] have a codec"
            );
            format!("Option<{}>", rust_type(&options[1], at))
        }
        Value::Object(map) => match (map["type"].as_str(), map.get("logicalType")) {
            (Some("bytes"), Some(logical)) if logical == "decimal" => {
                assert!(
                    map["precision"] == 28 && map["scale"] == 9,
                    "{at}: decimals have precision 28 and scale 9"
                );
                "crate::Decimal".into()
            }
            (Some("long"), Some(l)) if l == "timestamp-micros" => "crate::Timestamp".into(),
            (Some("int"), Some(l)) if l == "date" => "crate::Date".into(),
            (Some("enum" | "fixed" | "record"), _) => {
                named_type(map["name"].as_str().expect("a name"), at)
            }
            other => panic!("{at}: no codec for {other:?}"),
        },
        other => panic!("{at}: no codec for {other}"),
    }
}

fn named_type(name: &str, at: &str) -> String {
    match name {
        "Text" | "Uuid" | "Digest" => format!("crate::{name}"),
        "AgentState" | "EffectEnd" | "JobQueue" | "Side" | "Verdict" => name.to_owned(),
        other => panic!("{at}: no Rust type for {other}; teach schemas/build.rs"),
    }
}

/// The type that a fold sees in place of an owned one: it copies nothing.
fn borrowed_type(owned: &str) -> String {
    match owned {
        "String" => "crate::borrowed::Utf8<'a>".into(),
        "Vec<u8>" => "&'a [u8]".into(),
        "crate::Text" => "crate::borrowed::TextBytes".into(),
        other => match other
            .strip_prefix("Option<")
            .and_then(|o| o.strip_suffix('>'))
        {
            Some(inner) => format!("Option<{}>", borrowed_type(inner)),
            None => other.into(),
        },
    }
}

/// Name and lifetime of the borrowed form of a record.
fn borrowed_name(record: &Record, rust: &str) -> (String, &'static str) {
    let fields = record.schema["fields"].as_array().expect("fields");
    let borrows = fields.iter().any(|f| {
        let ty = rust_type(&f["type"], &record.file);
        borrowed_type(&ty).contains("'a")
    });
    (format!("{rust}Ref"), if borrows { "<'a>" } else { "" })
}

/// The borrowed form of a record, read from the same fields in the same order.
fn write_borrowed(
    out: &mut String,
    record: &Record,
    rust: &str,
    fields: &[(String, String, String)],
) {
    let (name, lifetime) = borrowed_name(record, rust);
    let each = |f: &dyn Fn(&(String, String, String)) -> String| {
        fields.iter().map(f).collect::<Vec<_>>().join("\n")
    };
    writeln!(
        out,
        "/// [`{rust}`], borrowed from its datum.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq)]\n\
         pub struct {name}{lifetime} {{\n{decl}\n}}\n\
         impl<'a> crate::borrowed::Borrowed<'a> for {name}{lifetime} {{\n\
         #[inline]\n\
         fn take(input: &mut crate::avro::Reader<'a>) -> Result<Self, crate::avro::DecodeError> {{\n\
         Ok(Self {{\n{take}\n}})\n}}\n}}\n\
         impl crate::borrowed::ToBorrowed for {rust} {{\n\
         type Form<'a> = {name}{lifetime};\n\
         fn borrowed(&self) -> Self::Form<'_> {{\n{name} {{\n{borrow}\n}}\n}}\n}}",
        decl = each(&|(n, t, d)| format!("/// {d}\npub {n}: {},", borrowed_type(t))),
        take = each(&|(n, _, _)| format!("{n}: crate::borrowed::Borrowed::take(input)?,")),
        borrow = each(&|(n, _, _)| format!("{n}: crate::borrowed::ToBorrowed::borrowed(&self.{n}),")),
    )
    .expect("a string");
}

/// Whether a string is empty where an older version did not have it.
fn may_be_empty(schema: &Value, field: &str) -> bool {
    let fields = schema["fields"].as_array().expect("fields");
    fields
        .iter()
        .any(|f| f["name"] == field && f["default"] == "")
}

fn write_record(out: &mut String, record: &Record, latest: u16) {
    let Record {
        name,
        namespace,
        version,
        file,
        schema,
    } = record;
    let rust = if *version == latest {
        name.clone()
    } else {
        format!("{name}V{version}")
    };
    let doc = schema["doc"]
        .as_str()
        .unwrap_or_else(|| panic!("{file}: a record needs a doc"));
    let fields: Vec<(String, String, String)> = schema["fields"]
        .as_array()
        .expect("fields")
        .iter()
        .map(|f| {
            let name = f["name"].as_str().expect("a name").to_owned();
            let doc = f["doc"]
                .as_str()
                .map_or_else(|| format!("Field `{name}`."), str::to_owned);
            let ty = rust_type(&f["type"], &format!("{file}: {name}"));
            (name, ty, doc)
        })
        .collect();
    let each = |f: &dyn Fn(&(String, String, String)) -> String| {
        fields.iter().map(f).collect::<Vec<_>>().join("\n")
    };
    let aggregate = namespace.rsplit('.').next().expect("not empty");
    writeln!(
        out,
        "/// {doc}\n///\n/// Avro record `{namespace}.{name}` version {version}.\n\
         #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]\n\
         pub struct {rust} {{\n{decl}\n}}\n\
         impl crate::avro::EventRecord for {rust} {{\n\
         const NAME: &'static str = \"{name}\";\nconst VERSION: u16 = {version};\n\
         const AGGREGATE_TYPE: &'static str = \"{aggregate}\";\n}}\n\
         impl crate::avro::Wire for {rust} {{\n\
         fn put(&self, out: &mut Vec<u8>) {{\n{put}\n}}\n\
         fn take(input: &mut crate::avro::Reader<'_>) -> Result<Self, crate::avro::DecodeError> {{\n\
         Ok(Self {{\n{take}\n}})\n}}\n\
         fn json(&self, texts: crate::avro::TextsToJson<'_>) -> serde_json::Value {{\n\
         let mut map = serde_json::Map::new();\n{json}\nserde_json::Value::Object(map)\n}}\n}}\n\
         impl crate::FromJson for {rust} {{\n\
         fn from_json(value: serde_json::Value, intake: &mut dyn crate::Intake) -> Result<Self, crate::Problem> {{\n\
         let mut map = crate::intake::fields(value)?;\nlet event = Self {{\n{intake}\n}};\n\
         crate::intake::none_left(&map)?;\nOk(event)\n}}\n}}",
        decl = each(&|(n, t, d)| format!("/// {d}\npub {n}: {t},")),
        put = each(&|(n, _, _)| format!("crate::avro::Wire::put(&self.{n}, out);")),
        take = each(&|(n, _, _)| format!("{n}: crate::avro::Wire::take(input)?,")),
        json = each(&|(n, _, _)| format!(
            "map.insert(\"{n}\".into(), crate::avro::Wire::json(&self.{n}, texts));"
        )),
        intake = each(&|(n, t, _)| {
            let read = if t == "String" && may_be_empty(schema, n) {
                "name_or_empty"
            } else {
                "field"
            };
            format!("{n}: crate::intake::{read}(&mut map, \"{n}\", intake)?,")
        }),
    )
    .expect("a string");
    write_borrowed(out, record, &rust, &fields);
}

fn write_event_type(out: &mut String, records: &[Record], latest: &BTreeMap<String, u16>) {
    let newest: Vec<&Record> = records
        .iter()
        .filter(|r| r.version == latest[&r.name])
        .collect();
    let each = |f: &dyn Fn(&&Record) -> String| newest.iter().map(f).collect::<Vec<_>>().join("\n");
    writeln!(
        out,
        "/// Every event type of this version of Sovereign.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]\npub enum EventType {{\n{v}\n}}\n\
         impl EventType {{\n/// All of them.\npub const ALL: &'static [Self] = &[{all}];\n\
         /// The name of the record, as it stands in the header.\n#[must_use]\n\
         pub const fn as_str(self) -> &'static str {{ match self {{ {s} }} }}\n\
         /// The newest version that this build writes.\n#[must_use]\n\
         pub const fn latest_version(self) -> u16 {{ match self {{ {l} }} }}\n\
         /// The aggregate type whose events they are.\n#[must_use]\n\
         pub const fn aggregate_type(self) -> crate::AggregateType {{ match self {{ {a} }} }}\n}}",
        v = each(&|r| format!("/// `{}.{}`\n{},", r.namespace, r.name, r.name)),
        all = each(&|r| format!("Self::{},", r.name)),
        s = each(&|r| format!("Self::{0} => \"{0}\",", r.name)),
        l = each(&|r| format!("Self::{} => {},", r.name, r.version)),
        a = each(&|r| format!(
            "Self::{} => crate::AggregateType::{},",
            r.name,
            pascal(r.namespace.rsplit('.').next().expect("not empty"))
        )),
    )
    .expect("a string");
}

fn write_aggregate_events(out: &mut String, records: &[Record], latest: &BTreeMap<String, u16>) {
    let namespaces: BTreeSet<&String> = records.iter().map(|r| &r.namespace).collect();
    for namespace in namespaces {
        let aggregate = namespace.rsplit('.').next().expect("not empty");
        let rust = pascal(aggregate) + "Event";
        let own: Vec<&Record> = records
            .iter()
            .filter(|r| &r.namespace == namespace)
            .collect();
        let newest: Vec<&&Record> = own
            .iter()
            .filter(|r| r.version == latest[&r.name])
            .collect();
        let each =
            |f: &dyn Fn(&&&Record) -> String| newest.iter().map(f).collect::<Vec<_>>().join("\n");
        let versions = |arm: &dyn Fn(&Record, &str, &str) -> String| {
            own.iter()
                .map(|r| {
                    let newest = r.version == latest[&r.name];
                    let rust = if newest {
                        r.name.clone()
                    } else {
                        format!("{}V{}", r.name, r.version)
                    };
                    arm(r, &rust, if newest { "" } else { ".into()" })
                })
                .collect::<Vec<_>>()
                .join("\n")
        };
        let decode = versions(&|r, rust, up| {
            format!(
                "(\"{0}\", {1}) => Ok(Self::{0}(crate::avro::decode::<{rust}>(payload)?{up})),",
                r.name, r.version
            )
        });
        let intake = versions(&|r, rust, up| {
            format!(
                "(\"{0}\", {1}) => Ok(Self::{0}(<{rust} as crate::FromJson>::from_json(\
                 crate::intake::variant(payload, \"{0}\")?, intake)?{up})),",
                r.name, r.version
            )
        });
        writeln!(
            out,
            "/// The events of aggregate `{aggregate}`, each in its newest version.\n\
             #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]\n\
             pub enum {rust} {{\n{v}\n}}\n\
             impl crate::avro::EventGroup for {rust} {{\n\
             const AGGREGATE_TYPE: crate::AggregateType = crate::AggregateType::{agg};\n\
             fn event_type(&self) -> EventType {{ match self {{ {ty} }} }}\n\
             fn encode(&self, out: &mut Vec<u8>) {{ match self {{ {en} }} }}\n\
             fn decode(event_type: &str, version: u16, payload: &[u8]) -> Result<Self, crate::avro::DecodeError> {{\n\
             match (event_type, version) {{ {decode}\n\
             _ => Err(crate::avro::DecodeError::UnknownEvent {{ event_type: event_type.to_owned(), version }}) }} }}\n\
             fn from_json(event_type: &str, version: u16, payload: serde_json::Value, intake: &mut dyn crate::Intake) -> Result<Self, crate::Problem> {{\n\
             match (event_type, version) {{ {intake}\n\
             _ => Err(crate::avro::DecodeError::UnknownEvent {{ event_type: event_type.chars().take(80).collect(), version }}.into()) }} }}\n\
             fn json(&self, texts: crate::avro::TextsToJson<'_>) -> serde_json::Value {{ match self {{ {js} }} }}\n}}\n\
             impl cqrs_es::DomainEvent for {rust} {{\n\
             fn event_type(&self) -> String {{ crate::avro::EventGroup::event_type(self).as_str().to_owned() }}\n\
             fn event_version(&self) -> String {{ crate::avro::EventGroup::event_type(self).latest_version().to_string() }}\n}}",
            agg = pascal(aggregate),
            v = each(&|r| format!("/// See [`{0}`].\n{0}({0}),", r.name)),
            ty = each(&|r| format!("Self::{0}(_) => EventType::{0},", r.name)),
            en = each(&|r| format!("Self::{}(e) => crate::avro::Wire::put(e, out),", r.name)),
            js = each(&|r| format!("Self::{}(e) => crate::avro::Wire::json(e, texts),", r.name)),
        )
        .expect("a string");
        write_borrowed_events(out, &rust, &own, &newest, latest);
        for r in newest {
            writeln!(
                out,
                "impl From<{0}> for {rust} {{ fn from(e: {0}) -> Self {{ Self::{0}(e) }} }}",
                r.name
            )
            .expect("a string");
        }
    }
}

/// The events of one aggregate type in their borrowed form, for folds.
fn write_borrowed_events(
    out: &mut String,
    rust: &str,
    own: &[&Record],
    newest: &[&&Record],
    latest: &BTreeMap<String, u16>,
) {
    let each =
        |f: &dyn Fn(&&&Record) -> String| newest.iter().map(f).collect::<Vec<_>>().join("\n");
    let decode = own
        .iter()
        .map(|r| {
            let newest = r.version == latest[&r.name];
            let owned = if newest {
                r.name.clone()
            } else {
                format!("{}V{}", r.name, r.version)
            };
            let up = if newest { "" } else { ".into()" };
            format!(
                "(b\"{0}\", {1}) => Ok(Self::{0}(crate::borrowed::decode_borrowed::<{owned}Ref>(payload)?{up})),",
                r.name, r.version
            )
        })
        .collect::<Vec<_>>()
        .join("\n");
    writeln!(
        out,
        "/// [`{rust}`], borrowed from its datum.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq)]\n\
         pub enum {rust}Ref<'a> {{\n{v}\n}}\n\
         impl<'a> {rust}Ref<'a> {{\n\
         /// Reads a datum of any known version and brings it up to the newest, without copying.\n///\n\
         /// # Errors\n/// If the type or version is unknown, or the bytes are not exactly one datum.\n\
         pub fn decode(event_type: &[u8], version: u16, payload: &'a [u8]) -> Result<Self, crate::avro::DecodeError> {{\n\
         match (event_type, version) {{ {decode}\n\
         _ => Err(crate::avro::DecodeError::UnknownEvent {{ event_type: String::from_utf8_lossy(event_type).into_owned(), version }}) }} }}\n}}\n\
         impl crate::borrowed::ToBorrowed for {rust} {{\n\
         type Form<'a> = {rust}Ref<'a>;\n\
         fn borrowed(&self) -> {rust}Ref<'_> {{ match self {{ {b} }} }}\n}}",
        v = each(&|r| {
            let (name, lifetime) = borrowed_name(r, &r.name);
            format!("/// See [`{0}`].\n{0}({name}{lifetime}),", r.name)
        }),
        b = each(&|r| format!(
            "Self::{0}(e) => {rust}Ref::{0}(crate::borrowed::ToBorrowed::borrowed(e)),",
            r.name
        )),
    )
    .expect("a string");
}

/// Schema files are named relative to the package, never by absolute path: a target folder that
/// several clones share may hand one clone what another generated. The hash of what the structs
/// were generated from is written beside it, and compared when the crate is compiled.
fn write_catalog(out: &mut String, records: &[Record], folder: &std::path::Path) {
    writeln!(
        out,
        "pub(crate) const SCHEMA_FILES: &[(&str, u16, &str, &str)] = &["
    )
    .expect("a string");
    let mut hashes = String::new();
    for r in records {
        writeln!(
            out,
            "(\"{}\", {}, \"{}.{}\", include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/avro/{}\"))),",
            r.name, r.version, r.namespace, r.name, r.file
        )
        .expect("a string");
        let text = fs::read(folder.join(&r.file)).expect("readable");
        write!(hashes, "{},", fnv1a(&text)).expect("a string");
    }
    writeln!(out, "];\nconst GENERATED_FROM: &[u64] = &[{hashes}];").expect("a string");
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo); the same function stands in `src/lib.rs`.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
