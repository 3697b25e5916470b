use std::fmt::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Everything to stdout, which is our bounded log file; dumps of the whole configuration are left
/// out.
pub(super) const LOG4J2: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <Console name="stdout" target="SYSTEM_OUT">
      <PatternLayout pattern="%d{yyyy-MM-dd'T'HH:mm:ss.SSSX}{UTC} %p %m (%c)%n"/>
    </Console>
  </Appenders>
  <Loggers>
    <Root level="INFO"><AppenderRef ref="stdout"/></Root>
    <Logger name="kafka.server.KafkaConfig" level="WARN"/>
    <Logger name="org.apache.kafka.common.config.AbstractConfig" level="WARN"/>
    <Logger name="state.change.logger" level="WARN"/>
    <Logger name="kafka.request.logger" level="WARN"/>
  </Loggers>
</Configuration>
"#;

/// Settings for one node with unlimited retention. The rest are Kafka's defaults.
///
/// `controller.quorum.voters` (a static quorum) instead of a voter set in the log: the port of the
/// controller may change between two starts, and a voter set would remember the old one.
const FIXED: &str = "\
process.roles=broker,controller
node.id=1
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# a ledger is kept for ever, and a folder that slept for months still knows its groups
log.retention.ms=-1
log.retention.bytes=-1
offsets.retention.minutes=5256000
# a payload has at most 1 MiB; headers and a batch's frame come on top
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
# longest transaction before the broker aborts it; readers of committed records wait that long for
# a writer that was killed
transaction.max.timeout.ms=300000
# fits the heap of 512 MiB
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
";

pub(super) fn server_properties(port: u16, controller_port: u16, data: &Path) -> String {
    let data = escape(&data.to_string_lossy());
    format!(
        "# written at each start; put settings of your own into local.properties beside this file\n\
         {FIXED}\
         controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         log.dirs={data}\n"
    )
}

/// Value in a Java properties file, which is read as ISO 8859-1.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(b'\\') => escaped.push_str("\\\\"),
            Ok(byte) if byte.is_ascii_graphic() || byte == b' ' => escaped.push(char::from(byte)),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}

/// A random cluster id: 16 bytes as base64url without padding, not beginning with a dash (the
/// format tool would take it for an option).
pub(super) fn cluster_id() -> Result<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Supervision(format!("no random numbers: {error}")))?;
    // The dash is 62 of 64.
    bytes[0] &= 0x7f;
    let bits = u128::from_be_bytes(bytes);
    let digit = |index: u32| {
        let shift = 122_u32.checked_sub(6 * index);
        let six = shift.map_or(bits << 4, |shift| bits >> shift) & 0x3f;
        char::from(ALPHABET[six as usize])
    };
    Ok((0..22).map(digit).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_are_escaped_for_java() {
        assert_eq!(escape("/data/a b"), "/data/a b");
        assert_eq!(escape("/d\u{e4}ta\\x"), "/d\\u00e4ta\\\\x");
        assert_eq!(escape("\u{1f600}"), "\\ud83d\\ude00");
    }

    #[test]
    fn cluster_id_has_22_characters_and_no_leading_dash() {
        for _ in 0..300 {
            let id = cluster_id().unwrap();
            assert_eq!(id.len(), 22);
            assert!(!id.starts_with('-'));
        }
    }
}
