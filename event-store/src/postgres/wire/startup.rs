//! From connection options to a connection that takes requests. What the options mean is as in
//! `sqlx`, which reads the URL, the environment and the password file.

use std::io;

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::{Stream, Wire, broken, server_error, tls};
use crate::StoreError;

/// Connects and logs in; `name` is what the server shows as `application_name`.
///
/// # Errors
/// If nobody answers, the certificate is not trusted, or the login is refused.
pub(in crate::postgres) async fn connect(
    options: &PgConnectOptions,
    name: &str,
) -> Result<Wire, StoreError> {
    let stream = match options.get_socket() {
        Some(folder) => {
            let path = folder.join(format!(".s.PGSQL.{}", options.get_port()));
            Box::new(UnixStream::connect(path).await.map_err(|e| broken(&e))?)
        }
        None => over_tcp(options).await?,
    };
    let mut wire = Wire::new(stream);
    log_in(&mut wire, options, name).await?;
    Ok(wire)
}

async fn over_tcp(options: &PgConnectOptions) -> Result<Box<dyn Stream>, StoreError> {
    let address = (options.get_host(), options.get_port());
    let mut stream = TcpStream::connect(address).await.map_err(|e| broken(&e))?;
    stream.set_nodelay(true).map_err(|e| broken(&e))?;
    let mode = options.get_ssl_mode();
    if matches!(mode, PgSslMode::Disable | PgSslMode::Allow) {
        return Ok(Box::new(stream));
    }
    if wants_tls(&mut stream).await.map_err(|e| broken(&e))? {
        return Ok(Box::new(tls::handshake(stream, options).await?));
    }
    if matches!(mode, PgSslMode::Prefer) {
        return Ok(Box::new(stream));
    }
    let text = "server does not support TLS".to_owned();
    Err(StoreError::Unreachable(text))
}

async fn wants_tls(stream: &mut TcpStream) -> io::Result<bool> {
    let mut request = bytes::BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    match stream.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(io::Error::other(
            "server answers a request for TLS with neither yes nor no",
        )),
    }
}

async fn log_in(wire: &mut Wire, options: &PgConnectOptions, name: &str) -> Result<(), StoreError> {
    let user = options.get_username();
    let mut parameters = vec![
        ("user", user),
        ("database", options.get_database().unwrap_or(user)),
        ("application_name", name),
        ("client_encoding", "UTF8"),
    ];
    if let Some(more) = options.get_options() {
        parameters.push(("options", more));
    }
    let password = password(options);
    frontend::startup_message(parameters, wire.output()).map_err(|e| broken(&e))?;
    loop {
        let message = wire.next().await.map_err(|e| broken(&e))?;
        match message {
            Message::AuthenticationCleartextPassword => {
                frontend::password_message(&password, wire.output()).map_err(|e| broken(&e))?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(user.as_bytes(), &password, body.salt());
                frontend::password_message(hash.as_bytes(), wire.output())
                    .map_err(|e| broken(&e))?;
            }
            Message::AuthenticationSasl(body) => scram(wire, &body, &password).await?,
            Message::AuthenticationOk
            | Message::ParameterStatus(_)
            | Message::NoticeResponse(_) => {}
            Message::BackendKeyData(body) => wire.process = body.process_id(),
            Message::ReadyForQuery(_) => return Ok(()),
            Message::ErrorResponse(body) => {
                let error = server_error(&mut body.fields()).map_err(|e| broken(&e))?;
                return Err(error.into());
            }
            _ => {
                let text = "server asks for a login that is not supported".to_owned();
                return Err(StoreError::Auth(text));
            }
        }
    }
}

/// SCRAM-SHA-256 (RFC 5802, RFC 7677), which also proves that the server knows the password.
async fn scram(
    wire: &mut Wire,
    offered: &AuthenticationSaslBody,
    password: &[u8],
) -> Result<(), StoreError> {
    let refused = |error: io::Error| StoreError::Auth(error.to_string());
    let mut mechanisms = offered.mechanisms();
    let mut found = false;
    while let Some(mechanism) = mechanisms.next().map_err(|e| broken(&e))? {
        found |= mechanism == sasl::SCRAM_SHA_256;
    }
    if !found {
        let text = "server offers no SCRAM-SHA-256".to_owned();
        return Err(StoreError::Auth(text));
    }
    let mut client = sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
    frontend::sasl_initial_response(sasl::SCRAM_SHA_256, client.message(), wire.output())
        .map_err(|e| broken(&e))?;
    loop {
        match wire.next().await.map_err(|e| broken(&e))? {
            Message::AuthenticationSaslContinue(body) => {
                client.update(body.data()).map_err(refused)?;
                frontend::sasl_response(client.message(), wire.output()).map_err(|e| broken(&e))?;
            }
            Message::AuthenticationSaslFinal(body) => {
                return client.finish(body.data()).map_err(refused);
            }
            Message::ErrorResponse(body) => {
                let error = server_error(&mut body.fields()).map_err(|e| broken(&e))?;
                return Err(error.into());
            }
            Message::NoticeResponse(_) => {}
            _ => {
                let text = "server does not keep to SCRAM-SHA-256".to_owned();
                return Err(StoreError::Auth(text));
            }
        }
    }
}

/// The options show their password in no other way than in their URL.
fn password(options: &PgConnectOptions) -> Vec<u8> {
    let url = options.to_url_lossy();
    decoded(url.password().unwrap_or_default())
}

fn decoded(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let escaped = after.get(..2).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        match escaped {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_comes_out_as_it_was_written_in_the_url() {
        for (written, meant) in [
            ("secret", "secret"),
            ("p%40ss%2Fw%25rd", "p@ss/w%rd"),
            ("%C3%BC", "ü"),
        ] {
            let url = format!("postgres://u:{written}@localhost/d");
            let options = crate::connect::options(&url, "t").unwrap();
            assert_eq!(password(&options), meant.as_bytes());
        }
        assert_eq!(decoded("100%"), b"100%");
    }
}
