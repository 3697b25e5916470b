//! Whether a broker answers, by two requests written by hand (this room knows no Kafka client).

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const API_VERSIONS: i16 = 18;
const METADATA: i16 = 3;
/// Longest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The broker takes requests (`ApiVersions` v0 without error) and counts itself among the live
/// brokers (`Metadata` v1 for no topic).
pub(super) async fn answers(port: u16) -> Result<(), String> {
    let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    let mut stream = connected.map_err(|error| error.to_string())?;
    let versions = ask(&mut stream, API_VERSIONS, 0, &[]).await?;
    match versions.first_chunk::<2>() {
        Some([0, 0]) => {}
        other => return Err(format!("api versions answered {other:?}")),
    }
    let metadata = ask(&mut stream, METADATA, 1, &0_i32.to_be_bytes()).await?;
    let brokers = metadata
        .first_chunk()
        .map(|bytes| i32::from_be_bytes(*bytes));
    if brokers < Some(1) {
        Err("no live broker yet".to_owned())
    } else {
        Ok(())
    }
}

/// Sends one request with header version 1 and returns the body of its answer.
async fn ask(
    stream: &mut TcpStream,
    api: i16,
    version: i16,
    body: &[u8],
) -> Result<Vec<u8>, String> {
    let correlation = i32::from(api).to_be_bytes();
    let mut request = Vec::new();
    request.extend(api.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(correlation);
    request.extend((-1_i16).to_be_bytes()); // no client id
    request.extend(body);
    let mut frame = u32::try_from(request.len())
        .unwrap_or_default()
        .to_be_bytes()
        .to_vec();
    frame.extend(request);
    let exchange = async {
        stream.write_all(&frame).await?;
        let length = stream.read_u32().await? as usize;
        let mut answer = vec![0; length.min(ANSWER_BYTES_MAX)];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = exchange.await.map_err(|error| error.to_string())?;
    let body = answer
        .strip_prefix(&correlation)
        .ok_or("answer to another request")?;
    Ok(body.to_vec())
}
