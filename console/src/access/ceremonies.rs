use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sovereign_passkeys::Challenge;
use sovereign_schemas::{ErrorCode, Problem, Uuid};
use tokio::time::Instant;

/// Challenges at a time.
const CEREMONIES_MAX: usize = 1_024;

/// Challenges for new passkeys: random, each of one invitation, good for one answer within a few
/// minutes. In memory: a restart only means that the page asks for another.
#[derive(Debug)]
pub(crate) struct Ceremonies {
    by_invitation: Mutex<HashMap<Uuid, (Challenge, Instant)>>,
    limit: Duration,
}

impl Ceremonies {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            by_invitation: Mutex::default(),
            limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, (Challenge, Instant)>> {
        let all = self.by_invitation.lock();
        all.unwrap_or_else(PoisonError::into_inner)
    }

    /// A challenge for the bearer of this invitation; one that he got before is of no use any more.
    pub(crate) fn begin(&self, invitation: Uuid) -> Result<Challenge, Problem> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|e| Problem::new(ErrorCode::Internal, format!("no random numbers: {e}")))?;
        let mut all = self.lock();
        all.retain(|_, (_, began)| began.elapsed() < self.limit);
        if all.len() >= CEREMONIES_MAX && !all.contains_key(&invitation) {
            let message = "too many passkeys are being made";
            return Err(Problem::new(ErrorCode::Busy, message).retry_after_ms(60_000));
        }
        let challenge = Challenge(bytes);
        all.insert(invitation, (challenge, Instant::now()));
        Ok(challenge)
    }

    /// The challenge of this invitation, which is gone with that.
    pub(crate) fn take(&self, invitation: Uuid) -> Result<Challenge, Problem> {
        let found = self.lock().remove(&invitation);
        let found = found.filter(|(_, began)| began.elapsed() < self.limit);
        found.map(|(challenge, _)| challenge).ok_or_else(|| {
            let message = "no challenge waits for this answer";
            Problem::new(ErrorCode::ChallengeUnknown, message).field("registration.client_data")
        })
    }

    /// Seconds that an answer may take.
    pub(crate) fn limit_s(&self) -> u64 {
        self.limit.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITATION: Uuid = Uuid::from_u128(1);

    #[tokio::test(start_paused = true)]
    async fn a_challenge_is_random_good_once_and_not_for_long() {
        let ceremonies = Ceremonies::new(Duration::from_secs(60));
        let first = ceremonies.begin(INVITATION).unwrap();
        let second = ceremonies.begin(INVITATION).unwrap();
        assert_ne!(first, second);
        assert_eq!(ceremonies.take(INVITATION), Ok(second), "the newest only");
        let again = ceremonies.take(INVITATION).unwrap_err();
        assert_eq!(again.code, ErrorCode::ChallengeUnknown);
        ceremonies.begin(INVITATION).unwrap();
        assert!(ceremonies.take(Uuid::from_u128(2)).is_err(), "of another");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(ceremonies.take(INVITATION).is_err(), "late");
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_only_so_many_and_old_ones_give_way() {
        let ceremonies = Ceremonies::new(Duration::from_secs(60));
        for number in 0..CEREMONIES_MAX {
            ceremonies.begin(Uuid::from_u128(number as u128)).unwrap();
        }
        let more = Uuid::from_u128(u128::MAX);
        assert_eq!(ceremonies.begin(more).unwrap_err().code, ErrorCode::Busy);
        assert!(ceremonies.begin(INVITATION).is_ok(), "his own gives way");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(ceremonies.begin(more).is_ok());
    }
}
