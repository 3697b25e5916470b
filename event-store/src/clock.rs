use std::sync::{Mutex, PoisonError};

use sovereign_schemas::{Timestamp, Uuid};

use crate::port::Clock;

/// The clock of the machine; ids are `UUIDv7`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn event_id(&self) -> Uuid {
        let millis = u64::try_from(Timestamp::now().0 / 1_000).unwrap_or_default();
        let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
        // without random bytes from the system this one has to cope
        ids.next(millis).unwrap_or_else(|_| Uuid::now_v7())
    }
}

static IDS: Mutex<Ids> = Mutex::new(Ids::new());

/// Random bytes asked for at once: a system call for each id costs more than the id.
const POOL_BYTES: usize = 1_024;
/// Bits of an id that are not its moment, version or variant.
const TAIL_BITS: u32 = 74;

/// Makes ids that grow, also within a millisecond and when the clock is set back (RFC 9562, 6.2,
/// method 2: random start, random steps).
struct Ids {
    millis: u64,
    tail: u128,
    pool: [u8; POOL_BYTES],
    used: usize,
}

impl Ids {
    const fn new() -> Self {
        Self {
            millis: 0,
            tail: 0,
            pool: [0; POOL_BYTES],
            used: POOL_BYTES,
        }
    }

    fn next(&mut self, millis: u64) -> Result<Uuid, getrandom::Error> {
        let step = 1 + u128::from(self.random()? >> 32);
        self.tail += step;
        if millis > self.millis || self.tail >> TAIL_BITS != 0 {
            self.millis = millis.max(self.millis + 1);
            // the top bit is left free, so that a millisecond has room to count
            let (high, low) = (self.random()?, self.random()?);
            let random = u128::from(high) << 64 | u128::from(low);
            self.tail = random >> (128 - TAIL_BITS + 1);
        }
        let (a, b) = ((self.tail >> 62) as u16, self.tail as u64);
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&a.to_be_bytes());
        // version and variant take their bits from the front of both
        bytes[2..].copy_from_slice(&b.to_be_bytes());
        Ok(uuid::Builder::from_unix_timestamp_millis(self.millis, &bytes).into_uuid())
    }

    fn random(&mut self) -> Result<u64, getrandom::Error> {
        if self.used + 8 > POOL_BYTES {
            getrandom::fill(&mut self.pool)?;
            self.used = 0;
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.pool[self.used..self.used + 8]);
        self.used += 8;
        Ok(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_version_7_carry_their_moment_and_grow() {
        let mut ids = Ids::new();
        let mut last = Uuid::nil();
        // the clock stands still, goes back, and goes on
        for millis in [1_770_000_000_000_u64; 50_000].into_iter().chain([
            1_769_999_999_000,
            1_770_000_000_001,
            1_770_000_050_000,
        ]) {
            let id = ids.next(millis).unwrap();
            assert!(id > last, "{id} after {last}");
            assert_eq!(
                (id.get_version_num(), id.get_variant()),
                (7, uuid::Variant::RFC4122)
            );
            last = id;
        }
        let (seconds, _) = last.get_timestamp().unwrap().to_unix();
        assert_eq!(seconds, 1_770_000_050);
    }

    #[test]
    fn a_full_millisecond_lends_from_the_next() {
        let mut ids = Ids::new();
        let first = ids.next(5).unwrap();
        ids.tail = (1 << TAIL_BITS) - 1;
        let next = ids.next(5).unwrap();
        assert!(next > first);
        assert_eq!(ids.millis, 6);
    }
}
