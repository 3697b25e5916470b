//! Connections: the address that is connected to is the one that was checked.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sovereign_effects::tools::Network;
use sovereign_schemas::{ErrorCode, Problem};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Hop;
use crate::live::Live;

/// So many addresses of a name are tried.
const ADDRESSES_MAX: usize = 4;

/// Turns names into addresses.
#[async_trait]
pub trait Resolve: fmt::Debug + Send + Sync {
    /// All addresses of a name, the best first.
    ///
    /// # Errors
    /// The name is unknown, or nobody answers.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let addresses = tokio::net::lookup_host((host, 0)).await?;
        Ok(addresses.map(|address| address.ip()).collect())
    }
}

/// How connections are encrypted: the system's authorities, and those that were named.
#[derive(Clone)]
pub(in crate::live) struct Tls(Arc<ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    pub(in crate::live) fn new(authorities_pem: Option<&[u8]>) -> Result<Self, Problem> {
        let wrong = |message: &str| Problem::new(ErrorCode::InvalidConfig, message);
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in CertificateDer::pem_slice_iter(authorities_pem.unwrap_or_default()) {
            let certificate =
                certificate.map_err(|_| wrong("the file of authorities holds no certificates"))?;
            roots
                .add(certificate)
                .map_err(|_| wrong("a certificate of an authority cannot be used"))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| wrong("no version of TLS can be used"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

/// A connection, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn unreachable(message: &str, found: impl fmt::Display) -> Problem {
    Problem::new(ErrorCode::TargetUnreachable, message).found(found.to_string())
}

impl Live {
    /// Connects to the hop's server, at an address that its tool may be in.
    pub(super) async fn connect(&self, hop: &Hop<'_>) -> Result<Box<dyn Stream>, Problem> {
        let most = Duration::from_millis(hop.tool.connect_ms_max);
        match tokio::time::timeout(most, self.connected(hop)).await {
            Ok(connected) => connected,
            Err(_) => Err(Problem::new(
                ErrorCode::TargetUnreachable,
                "no connection to the tool's server came about in time",
            )
            .expected(format!("within {} ms", hop.tool.connect_ms_max))),
        }
    }

    async fn connected(&self, hop: &Hop<'_>) -> Result<Box<dyn Stream>, Problem> {
        let base = &hop.tool.base;
        let stream = open(hop, &self.addresses(hop).await?).await?;
        // a request is one write, and the answer is waited for
        let _ = stream.set_nodelay(true);
        if !base.tls() {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(base.host().to_owned()).map_err(|_| {
            unreachable("the tool's host is no name for a certificate", base.host())
        })?;
        let connector = TlsConnector::from(Arc::clone(&self.tls.0));
        let connected = connector.connect(name, stream).await;
        let encrypted = connected
            .map_err(|error| unreachable("no TLS connection to the tool's server", error))?;
        Ok(Box::new(encrypted))
    }

    /// The addresses that may be connected to.
    async fn addresses(&self, hop: &Hop<'_>) -> Result<Vec<IpAddr>, Problem> {
        let base = &hop.tool.base;
        let all = match base.address() {
            Some(address) => vec![address],
            None => {
                let resolved = self.resolver.resolve(base.host()).await;
                resolved.map_err(|error| {
                    unreachable("the name of the tool's server is not known", error.kind())
                })?
            }
        };
        let Some(first) = all.first() else {
            return Err(unreachable(
                "the name of the tool's server has no address",
                base.host(),
            ));
        };
        let forbidden = Network::of(*first).as_str();
        let mut allowed: Vec<IpAddr> = all.into_iter().filter(|ip| may_reach(hop, *ip)).collect();
        allowed.truncate(ADDRESSES_MAX);
        if allowed.is_empty() {
            return Err(Problem::new(
                ErrorCode::AddressRefused,
                "the tool's server is in a network that the tool may not reach",
            )
            .field(format!("tools.{}.reach", hop.name))
            .found(forbidden));
        }
        Ok(allowed)
    }
}

/// Whether this tool may be at this address.
fn may_reach(hop: &Hop<'_>, address: IpAddr) -> bool {
    match Network::of(address) {
        // a secret does not go over the Internet in the clear
        Network::Public => hop.tool.base.tls() || hop.secret.is_none(),
        Network::Never => false,
        network => hop.tool.reach.contains(&network),
    }
}

async fn open(hop: &Hop<'_>, addresses: &[IpAddr]) -> Result<TcpStream, Problem> {
    let mut failure = io::ErrorKind::NotFound;
    for address in addresses {
        let address = SocketAddr::new(*address, hop.tool.base.port());
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error.kind(),
        }
    }
    Err(unreachable("no connection to the tool's server", failure))
}
