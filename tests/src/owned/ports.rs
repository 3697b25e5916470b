use std::net::{Ipv4Addr, TcpListener};

/// Below the range of outgoing connections, so that a port stays its server's while it restarts.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// So many different ports on loopback that nobody uses now.
///
/// # Errors
/// If there are none.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let mut held = Vec::new();
    // random numbers without a generator: version 4 ids are
    for _ in 0..count * 500 {
        let [.., high, low] = *uuid::Uuid::now_v7().as_bytes();
        let port = RANGE.start + u16::from_be_bytes([high, low]) % (RANGE.end - RANGE.start);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
        }
        if held.len() == count {
            let port = |listener: &TcpListener| Ok(listener.local_addr()?.port());
            return held.iter().map(port).collect();
        }
    }
    anyhow::bail!(
        "no {count} free ports between {} and {}",
        RANGE.start,
        RANGE.end
    )
}
