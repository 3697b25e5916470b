//! Holds our Avro codec to `apache-avro`: the same bytes, both ways.

#![allow(clippy::unwrap_used)]

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;
use sovereign_schemas::avro::{self, DecodeError};
use sovereign_schemas::events::{MarketObserved, TradeProposed};
use sovereign_schemas::{
    Decimal, DepartmentId, EventHeader, Position, Text, Timestamp, Uuid, catalog,
};

fn decimal() -> impl Strategy<Value = Decimal> {
    (-(10_i128.pow(28) - 1)..10_i128.pow(28)).prop_map(|n| Decimal::from_unscaled(n).unwrap())
}

fn text() -> impl Strategy<Value = Text> {
    (
        any::<[u8; 16]>(),
        0..1_u64 << 40,
        any::<[u8; 12]>(),
        any::<Vec<u8>>(),
    )
        .prop_map(|(key_id, index, nonce, bytes)| {
            let mut datum = key_id.to_vec();
            avro::put_long(&mut datum, index.cast_signed());
            datum.extend_from_slice(&nonce);
            avro::put_bytes(&mut datum, &bytes);
            avro::decode(&datum).unwrap()
        })
}

fn proposal() -> impl Strategy<Value = TradeProposed> {
    let numbers = (decimal(), decimal(), decimal(), any::<i64>());
    (
        ".{0,40}",
        ".{0,9}",
        any::<bool>(),
        numbers,
        proptest::option::of(".{0,9}"),
        text(),
    )
        .prop_map(
            |(agent_id, instrument, buy, (quantity, price, amount, at), closes, rationale)| {
                use sovereign_schemas::events::Side;
                TradeProposed {
                    agent_id,
                    instrument,
                    side: if buy { Side::Buy } else { Side::Sell },
                    quantity,
                    price,
                    amount,
                    currency: "USD".into(),
                    closes,
                    decided_on: Timestamp(at),
                    rationale,
                }
            },
        )
}

/// Decodes with apache-avro and encodes again.
fn through_apache(schema: &str, bytes: &[u8]) -> (Value, Vec<u8>) {
    let schema = Schema::parse_str(schema).unwrap();
    let mut rest = bytes;
    let value = GenericDatumReader::builder(&schema)
        .build()
        .unwrap()
        .read_value(&mut rest)
        .unwrap();
    assert!(rest.is_empty());
    let again = GenericDatumWriter::builder(&schema)
        .build()
        .unwrap()
        .write_value_to_vec(value.clone())
        .unwrap();
    (value, again)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn apache_avro_reads_and_writes_the_same_bytes(event in proposal()) {
        let bytes = avro::encode(&event);
        let schema = catalog::find("TradeProposed", 1).unwrap().json;
        prop_assert_eq!(&through_apache(schema, &bytes).1, &bytes);
        prop_assert_eq!(avro::decode::<TradeProposed>(&bytes).unwrap(), event);
    }

    #[test]
    fn a_cut_or_lengthened_datum_never_decodes(event in proposal(), extra in any::<u8>()) {
        let mut bytes = avro::encode(&event);
        for length in 0..bytes.len() {
            prop_assert!(avro::decode::<TradeProposed>(&bytes[..length]).is_err());
        }
        bytes.push(extra);
        let trailing =
            matches!(avro::decode::<TradeProposed>(&bytes), Err(DecodeError::Trailing { .. }));
        prop_assert!(trailing);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        let _ = avro::decode::<TradeProposed>(&bytes);
        let _ = avro::decode::<MarketObserved>(&bytes);
        let _ = EventHeader::decode(&bytes);
    }

    #[test]
    fn headers_have_one_encoding_that_apache_avro_shares(
        position in 1..i64::MAX as u64, id in any::<u128>(), actor in ".{0,64}",
        cause in proptest::option::of(any::<u128>()), at in any::<i64>(),
    ) {
        let header = EventHeader {
            position: Position(position),
            event_id: Uuid::from_u128(id),
            aggregate_type: "agent".into(),
            aggregate_id: "trader-aapl".into(),
            sequence: 7,
            event_type: "ThoughtRecorded".into(),
            event_version: 1,
            department: DepartmentId::TRADER,
            actor,
            command_id: Uuid::from_u128(id ^ 1),
            correlation_id: Uuid::from_u128(id ^ 2),
            causation_id: cause.map(Uuid::from_u128),
            recorded_at: Timestamp(at),
            schema_fingerprint: [1, 2, 3, 4, 5, 6, 7, 8],
        };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        prop_assert_eq!(&through_apache(catalog::HEADER_SCHEMA, &bytes).1, &bytes);
        prop_assert_eq!(EventHeader::decode(&bytes).unwrap(), header);
    }
}

/// Found by fuzzing (`fuzz/fuzz_targets/avro.rs`).
#[test]
fn a_day_beyond_all_moments_is_upcast() {
    use sovereign_schemas::avro::EventGroup as _;
    use sovereign_schemas::events::AgentEvent;
    let mut extreme = vec![2, b'A'];
    avro::put_long(&mut extreme, i64::from(i32::MIN));
    extreme.extend_from_slice(&[2, 1, 2, 1, 2, 1, 2, 1, 2, 1]);
    let event = AgentEvent::decode("MarketObserved", 1, &extreme).unwrap();
    let AgentEvent::MarketObserved(bar) = event else {
        panic!("{event:?}")
    };
    assert_eq!(bar.opened_at, Timestamp(i64::MIN));
}

/// A value has one spelling, as docs/FORMATS.md says: `decode` must not accept what `encode` does
/// not write.
#[test]
fn a_decimal_in_another_than_its_shortest_form_is_refused() {
    let refused = [
        &[4, 0, 1][..],
        &[4, 0, 0],
        &[4, 0xff, 0x80],
        &[4, 0xff, 0xff],
        &[0],
    ];
    for bytes in refused {
        let decoded = avro::decode::<Decimal>(bytes);
        assert!(
            matches!(decoded, Err(DecodeError::Decimal { .. })),
            "{bytes:?}"
        );
    }
    for bytes in [
        &[2, 0][..],
        &[2, 0x80],
        &[2, 0x7f],
        &[4, 0, 0x80],
        &[4, 0xff, 0x7f],
    ] {
        let decoded = avro::decode::<Decimal>(bytes).unwrap();
        assert_eq!(avro::encode(&decoded), bytes);
    }
}

/// Collects the names that a schema defines.
fn defined(schema: &serde_json::Value, names: &mut Vec<String>) {
    match schema {
        serde_json::Value::Array(options) => options.iter().for_each(|o| defined(o, names)),
        serde_json::Value::Object(map) => {
            let kind = map.get("type").and_then(serde_json::Value::as_str);
            if let (Some("record" | "fixed" | "enum"), Some(name)) = (kind, map.get("name")) {
                names.push(name.to_string());
            }
            map.values().for_each(|value| defined(value, names));
        }
        _ => {}
    }
}

#[test]
fn a_schema_defines_a_name_once_or_other_languages_refuse_it() {
    for schema in catalog::registered() {
        let mut names = Vec::new();
        defined(&serde_json::from_str(schema.json).unwrap(), &mut names);
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{} {}", schema.name, schema.version);
    }
}
