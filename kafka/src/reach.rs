//! Whether the brokers let us in, said as soon and as exactly as possible: librdkafka tries for
//! ever, and calls every certificate that it does not accept the same.

use std::collections::HashSet;
use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::Metadata;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};

use crate::client::{Context, Error, KafkaOptions};
use crate::partitions::REQUEST_MAX;

/// The first look is short, so that a refusal is noticed at once; later ones leave more time to
/// brokers that are far away.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(20);
/// For one step of the handshake that finds out what is wrong with a certificate.
const HANDSHAKE_STEP_MAX: Duration = Duration::from_secs(1);

/// Connects, and tells whether a broker shows each of these topics.
pub(crate) fn shown(options: &KafkaOptions, names: &[String]) -> Result<bool, Error> {
    let consumer = consumer(options)?;
    wait(options, &consumer)?;
    let found = consumer
        .fetch_metadata(None, REQUEST_MAX)
        .map_err(|e| consumer.context().explain("metadata", &e))?;
    let there: HashSet<&str> = found
        .topics()
        .iter()
        .filter(|topic| !topic.partitions().is_empty())
        .map(|topic| topic.name())
        .collect();
    Ok(names.iter().all(|name| there.contains(name.as_str())))
}

/// A consumer without a group that only asks.
pub(crate) fn consumer(options: &KafkaOptions) -> Result<BaseConsumer<Context>, Error> {
    let mut config = options.config()?;
    config
        .set("group.id", options.topic("sovereign.reader"))
        .create_with_context(Context::of(options))
        .map_err(|e| Error::kafka("consumer", &e))
}

/// Waits until a broker shows each of these topics: what the controller has created, the brokers
/// learn a moment later. Gives the first topic that is still not there after this long, or that we
/// may not see.
pub(crate) fn missing(
    options: &KafkaOptions,
    names: &[String],
    wait: Duration,
) -> Result<Option<String>, Error> {
    let consumer = consumer(options)?;
    let deadline = Instant::now() + wait;
    for name in names {
        while count(&metadata(&consumer, name)?) == 0 {
            if Instant::now() >= deadline {
                return Ok(Some(name.clone()));
            }
            // waits; nothing is assigned, so no record can come
            let _ = consumer.poll(POLL);
        }
    }
    Ok(None)
}

fn count(found: &Metadata) -> usize {
    let counts = found.topics().iter().map(|topic| topic.partitions().len());
    counts.sum()
}

fn metadata(consumer: &BaseConsumer<Context>, name: &str) -> Result<Metadata, Error> {
    consumer
        .fetch_metadata(Some(name), REQUEST_MAX)
        .map_err(|e| consumer.context().explain("metadata", &e))
}

/// How many partitions a topic has; none if it is not there, or if we may not see it.
pub(crate) fn partitions(options: &KafkaOptions, name: &str) -> Result<usize, Error> {
    Ok(count(&metadata(&consumer(options)?, name)?))
}

/// Returns once a broker has answered, or all have refused, or after [`REQUEST_MAX`].
pub(crate) fn wait(options: &KafkaOptions, consumer: &BaseConsumer<Context>) -> Result<(), Error> {
    const WHAT: &str = "connect";
    let deadline = Instant::now() + REQUEST_MAX;
    let mut look = LOOK_FIRST;
    loop {
        // of a topic that is never there: the answer is small, whatever the cluster holds
        let answer = consumer.fetch_metadata(Some("sovereign.reach"), look);
        // nothing is assigned, so this only brings what became of the connections; without a time
        // it would bring one line of the client's log, and the refusals wait behind those
        while let Some(Err(_)) = consumer.poll(POLL) {}
        let Err(error) = answer else { return Ok(()) };
        let refused = consumer.context().refused();
        let refused = refused.or_else(|| {
            (Instant::now() > deadline).then(|| consumer.context().explain(WHAT, &error))
        });
        match refused {
            None => {}
            Some(Error::Tls { cause, .. }) => {
                let cause = certificate_fault(options).unwrap_or(cause);
                let what = WHAT.to_owned();
                return Err(Error::Tls { what, cause });
            }
            Some(Error::Auth { cause, .. }) => {
                let what = WHAT.to_owned();
                return Err(Error::Auth { what, cause });
            }
            Some(Error::Unreachable { what, cause }) if port_is_open(options) => {
                let hint = "the port takes connections: check security.protocol";
                let cause = format!("{cause}; {hint}");
                return Err(Error::Unreachable { what, cause });
            }
            Some(other) => return Err(other),
        }
        look = (look * 2).min(deadline.saturating_duration_since(Instant::now()));
        look = look.max(LOOK_FIRST);
    }
}

/// Whether anything listens there. A broker that is spoken to in the wrong way cuts the connection
/// without a word.
fn port_is_open(options: &KafkaOptions) -> bool {
    let brokers = options.brokers.split(',').map(str::trim);
    let addresses = brokers.filter_map(|broker| broker.to_socket_addrs().ok()?.next());
    let mut open = addresses.map(|at| TcpStream::connect_timeout(&at, HANDSHAKE_STEP_MAX));
    open.any(|connected| connected.is_ok())
}

/// What is wrong with the first certificate that is not accepted, found by a handshake of our own.
fn certificate_fault(options: &KafkaOptions) -> Option<String> {
    let authorities = options.properties.get("ssl.ca.location")?;
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(authorities).ok()?;
    roots.add_parsable_certificates(found.filter_map(Result::ok));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    options
        .brokers
        .split(',')
        .map(str::trim)
        .find_map(|broker| {
            let fault = handshake(broker, &config).err()?;
            let fault = fault.get_ref()?.downcast_ref::<rustls::Error>()?;
            let rustls::Error::InvalidCertificate(fault) = fault else {
                return None;
            };
            Some(format!("certificate of {broker} {}", words(fault)))
        })
}

fn words(fault: &CertificateError) -> String {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another host name".into()
        }
        CertificateError::UnknownIssuer => {
            "was signed by an authority that is not in ssl.ca.location".into()
        }
        other => format!("is not accepted: {other}"),
    }
}

fn handshake(broker: &str, config: &Arc<ClientConfig>) -> io::Result<()> {
    let (host, _) = broker.rsplit_once(':').unwrap_or((broker, ""));
    let host = host.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let address = broker.to_socket_addrs()?.next();
    let address = address.ok_or_else(|| io::Error::other("no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, HANDSHAKE_STEP_MAX)?;
    stream.set_read_timeout(Some(HANDSHAKE_STEP_MAX))?;
    stream.set_write_timeout(Some(HANDSHAKE_STEP_MAX))?;
    let connection = ClientConnection::new(Arc::clone(config), name);
    let mut connection = connection.map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(())
}
