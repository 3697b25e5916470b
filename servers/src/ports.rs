//! Free ports on the loopback address.

use std::net::{Ipv4Addr, TcpListener};

use crate::error::{Error, Result};

/// Below the range from which systems take ports of outgoing connections (32768 and up on Linux by
/// default), so that a port stays ours while its server restarts.
const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;
const TRIES_MAX: usize = 500;

/// Chooses `wanted` ports again where they are still free, else others; all different.
pub(crate) fn choose<const N: usize>(wanted: [Option<u16>; N]) -> Result<[u16; N]> {
    // Kept open until all are chosen.
    let mut held: Vec<TcpListener> = Vec::with_capacity(N);
    let mut chosen = [0; N];
    for (slot, wanted) in chosen.iter_mut().zip(wanted) {
        let listener = match wanted.and_then(bind) {
            Some(listener) => listener,
            None => any()?,
        };
        *slot = listener
            .local_addr()
            .map_err(|error| Error::Supervision(format!("reading a port: {error}")))?
            .port();
        held.push(listener);
    }
    Ok(chosen)
}

fn any() -> Result<TcpListener> {
    let mut bytes = [0; 2 * TRIES_MAX];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Supervision(format!("no random numbers: {error}")))?;
    let tries = bytes
        .chunks_exact(2)
        .map(|two| u16::from_le_bytes([two[0], two[1]]));
    let mut ports = tries.map(|number| FIRST + number % (LAST - FIRST));
    ports.find_map(bind).ok_or_else(|| {
        Error::Supervision(format!(
            "no free port on 127.0.0.1 between {FIRST} and {LAST}"
        ))
    })
}

fn bind(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn recorded_ports_are_used_again_unless_taken() {
        let [one, two] = choose([None, None]).unwrap();
        assert_ne!(one, two);
        assert_eq!(choose([Some(one), Some(two)]).unwrap(), [one, two]);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, one)).unwrap();
        let [other, same] = choose([Some(one), Some(two)]).unwrap();
        assert_ne!(other, one);
        assert_eq!(same, two);
    }
}
