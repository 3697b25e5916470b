//! TLS: the certificate must be for the host and of a trusted authority.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sovereign_sinks::Live;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::{get, options, result, run, word};

/// A server with a certificate of its own for this name: its port and the certificate as PEM.
async fn serve(name: &str) -> (u16, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (port, certificate.pem().into_bytes())
}

async fn ask(port: u16, authorities_pem: Option<Vec<u8>>) -> sovereign_effects::Outcome {
    let mut with = options(&format!(
        "[tools.t]\nbase = \"https://localhost:{port}\"\nmethods = [\"GET\"]\npaths = [\"/\"]\nreach = [\"loopback\"]\n"
    ));
    with.authorities_pem = authorities_pem;
    run(&Live::new(with).unwrap(), get("/")).await
}

#[tokio::test]
async fn a_trusted_certificate_for_the_host_is_taken_and_no_other() {
    let (port, pem) = serve("localhost").await;
    assert_eq!(result(&ask(port, Some(pem.clone())).await)["body"], "ok");
    assert_eq!(word(&ask(port, None).await), "again target-unreachable");
    let (other, other_pem) = serve("example.com").await;
    assert_eq!(
        word(&ask(other, Some(other_pem)).await),
        "again target-unreachable"
    );
    assert_eq!(
        word(&ask(other, Some(pem)).await),
        "again target-unreachable"
    );
}

#[test]
fn authorities_that_are_no_certificates_are_refused() {
    let mut with = options("");
    with.authorities_pem =
        Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec());
    assert!(Live::new(with).is_err());
}
