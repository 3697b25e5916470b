//! Rights on a broker, by a request written by hand: no client crate makes them, and each call of
//! Kafka's own tool starts a virtual machine.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

const CREATE_ACLS: i16 = 30;
const METADATA: i16 = 3;
const LIMIT: Duration = Duration::from_secs(10);

/// What a right is about; numbers of Kafka's protocol.
#[derive(Debug, Clone, Copy)]
pub enum Resource {
    /// A topic.
    Topic = 2,
    /// A consumer group.
    Group = 3,
    /// The cluster; its name is `kafka-cluster`.
    Cluster = 4,
    /// A transactional id.
    TransactionalId = 5,
}

/// What may be done; numbers of Kafka's protocol.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    /// Fetching.
    Read = 3,
    /// Producing.
    Write = 4,
    /// Creating.
    Create = 5,
    /// Seeing that it is there.
    Describe = 8,
    /// Producing with sequence numbers.
    IdempotentWrite = 12,
}

/// One right of one user, or its absence.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Who, such as `User:alice`; `User:*` is everybody.
    pub principal: String,
    /// About what.
    pub resource: Resource,
    /// Its name; as a prefix if it ends with a star, but a lone star is everything.
    pub name: String,
    /// What.
    pub operation: Operation,
    /// Whether it is allowed; a denial wins.
    pub allow: bool,
}

impl Rule {
    fn encode(&self, out: &mut Vec<u8>) {
        const LITERAL: u8 = 3;
        const PREFIXED: u8 = 4;
        let (name, pattern) = match self.name.strip_suffix('*') {
            Some(prefix) if !prefix.is_empty() => (prefix, PREFIXED),
            _ => (self.name.as_str(), LITERAL),
        };
        out.push(self.resource as u8);
        string(name, out);
        out.push(pattern);
        string(&self.principal, out);
        string("*", out);
        out.push(self.operation as u8);
        out.push(if self.allow { 3 } else { 2 });
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend(i16::try_from(text.len()).unwrap_or(i16::MAX).to_be_bytes());
    out.extend(text.as_bytes());
}

/// Adds rules, through a listener without a login.
pub(crate) fn add(port: u16, rules: &[Rule]) -> anyhow::Result<()> {
    let mut body = i32::try_from(rules.len())?.to_be_bytes().to_vec();
    for rule in rules {
        rule.encode(&mut body);
    }
    let answer = ask(port, CREATE_ACLS, 1, &body)?;
    // throttle time, count, then an error code and a text for each
    let mut rest = answer.get(8..).context("short answer")?;
    for rule in rules {
        let code = rest.first_chunk::<2>().context("short answer")?;
        anyhow::ensure!(
            *code == [0, 0],
            "{rule:?}: error {}",
            i16::from_be_bytes(*code)
        );
        let length = rest.get(2..4).context("short answer")?;
        let length = i16::from_be_bytes([length[0], length[1]]).max(0);
        rest = rest
            .get(4 + usize::try_from(length)?..)
            .context("short answer")?;
    }
    Ok(())
}

/// Whether a broker counts itself among the live ones.
pub(crate) fn answers(port: u16) -> bool {
    let metadata = ask(port, METADATA, 1, &0_i32.to_be_bytes());
    let brokers = metadata.map(|bytes| bytes.first_chunk().map(|b| i32::from_be_bytes(*b)));
    matches!(brokers, Ok(Some(1..)))
}

/// One request with header version 1; the body of its answer.
fn ask(port: u16, api: i16, version: i16, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut request = Vec::new();
    request.extend(api.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(7_i32.to_be_bytes());
    request.extend((-1_i16).to_be_bytes());
    request.extend(body);
    stream.write_all(&u32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    anyhow::ensure!((4..1 << 20).contains(&length), "answer of {length} bytes");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer.split_off(4))
}
