//! TLS as the options ask for it: `prefer` and `require` encrypt, `verify-ca` also checks who
//! signed the certificate, and `verify-full` for whom.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::StoreError;

pub(super) async fn handshake(
    stream: TcpStream,
    options: &PgConnectOptions,
) -> Result<TlsStream<TcpStream>, StoreError> {
    let host = options.get_host().to_owned();
    let name = ServerName::try_from(host).map_err(|e| StoreError::Config(e.to_string()))?;
    let connector = TlsConnector::from(Arc::new(config(options)?));
    let connected = connector.connect(name, stream).await;
    connected.map_err(|e| StoreError::Unreachable(format!("tls: {e}")))
}

fn config(options: &PgConnectOptions) -> Result<ClientConfig, StoreError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |e: Error| StoreError::Config(format!("tls: {e}"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let verifier = verifier(options, provider)?;
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (file(options, "sslcert"), file(options, "sslkey")) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(&certificate)?;
            let key = PrivateKeyDer::from_pem_slice(&pem(&key)?)
                .map_err(|_| StoreError::Config("sslkey holds no private key".to_owned()))?;
            builder.with_client_auth_cert(chain, key).map_err(wrong)
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(StoreError::Config(
            "sslcert and sslkey must be given together".to_owned(),
        )),
    }
}

fn verifier(
    options: &PgConnectOptions,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, StoreError> {
    let check = match options.get_ssl_mode() {
        PgSslMode::VerifyFull => Check::SignerAndName,
        PgSslMode::VerifyCa => Check::Signer,
        _ => Check::Nothing,
    };
    if check == Check::Nothing {
        return Ok(Arc::new(Verifier {
            check,
            inner: None,
            provider,
        }));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(root) = file(options, "sslrootcert") {
        for certificate in certificates(&root)? {
            roots
                .add(certificate)
                .map_err(|e| StoreError::Config(format!("sslrootcert: {e}")))?;
        }
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|e| StoreError::Config(format!("tls: {e}")))?;
    Ok(Arc::new(Verifier {
        check,
        inner: Some(inner),
        provider,
    }))
}

/// A parameter that names a file, or is its content; the options show it only in their URL.
fn file(options: &PgConnectOptions, key: &str) -> Option<String> {
    let url = options.to_url_lossy();
    let mut pairs = url.query_pairs();
    let (_, value) = pairs.find(|(name, _)| name == key)?;
    // sqlx shows a file like this, and content as it is
    Some(value.strip_prefix("file: ").unwrap_or(&value).to_owned())
}

fn pem(file: &str) -> Result<Vec<u8>, StoreError> {
    if file.trim_start().starts_with("-----BEGIN") {
        return Ok(file.as_bytes().to_owned());
    }
    std::fs::read(file).map_err(|e| StoreError::Config(format!("{file}: {e}")))
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    CertificateDer::pem_slice_iter(&pem(file)?)
        .collect::<Result<_, _>>()
        .map_err(|_| StoreError::Config(format!("{file} holds no certificates")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    Signer,
    SignerAndName,
}

#[derive(Debug)]
struct Verifier {
    check: Check,
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.check == Check::Signer => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_its_content_is_found_in_the_options() {
        let options: PgConnectOptions = "postgres://u@h/d?sslrootcert=/etc/ca%20of%20ours.pem"
            .parse()
            .unwrap();
        let found = file(&options, "sslrootcert");
        assert_eq!(found.as_deref(), Some("/etc/ca of ours.pem"));
        assert_eq!(file(&options, "sslcert"), None);
        let content = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----";
        let options = options.ssl_client_cert(content);
        assert_eq!(file(&options, "sslcert").as_deref(), Some(content));
    }
}
