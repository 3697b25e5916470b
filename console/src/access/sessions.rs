use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use sovereign_schemas::{Digest, ErrorCode, Problem, Uuid};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::tokens::random_hex;

/// The cookie that names a session.
pub(crate) const COOKIE: &str = "sovereign_session";
/// Sessions at a time.
const SESSIONS_MAX: usize = 1_024;
/// Sessions of one token; the oldest gives way.
const SESSIONS_PER_TOKEN_MAX: usize = 16;

/// A browser that has shown a token. `Debug` prints no secret.
#[derive(Clone)]
pub(crate) struct Session {
    /// The token that was shown; none for that of the data folder.
    pub(crate) token: Option<Uuid>,
    /// What its pages show with every writing request.
    pub(crate) csrf: String,
    began: Instant,
    used: Instant,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// The sessions of this process; a restart ends them. Kept under the hash of their secret, so that
/// the time of a look-up tells nothing about it.
#[derive(Debug)]
pub(crate) struct Sessions {
    by_hash: Mutex<HashMap<Digest, Session>>,
    lifetime: Duration,
    idle: Duration,
}

impl Sessions {
    pub(crate) fn new(lifetime: Duration, idle: Duration) -> Self {
        Self {
            by_hash: Mutex::default(),
            lifetime,
            idle,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Session>> {
        self.by_hash.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lasts(&self, session: &Session) -> bool {
        session.began.elapsed() < self.lifetime && session.used.elapsed() < self.idle
    }

    /// Opens one: its secret and itself.
    pub(crate) fn open(&self, token: Option<Uuid>) -> Result<(String, Session), Problem> {
        let secret = random_hex()?;
        let now = Instant::now();
        let session = Session {
            token,
            csrf: random_hex()?,
            began: now,
            used: now,
        };
        let mut all = self.lock();
        all.retain(|_, session| self.lasts(session));
        let mut own: Vec<(Instant, Digest)> = all
            .iter()
            .filter(|(_, other)| other.token == token)
            .map(|(hash, other)| (other.began, *hash))
            .collect();
        if own.len() >= SESSIONS_PER_TOKEN_MAX {
            own.sort_unstable();
            all.remove(&own[0].1);
        }
        if all.len() >= SESSIONS_MAX {
            return Err(
                Problem::new(ErrorCode::Busy, "too many sessions are open").retry_after_ms(60_000)
            );
        }
        all.insert(hash(secret.as_bytes()), session.clone());
        Ok((secret, session))
    }

    /// The session with this secret, which is used now.
    pub(crate) fn find(&self, secret: &[u8]) -> Option<(Digest, Session)> {
        let hash = hash(secret);
        let mut all = self.lock();
        let session = all.get_mut(&hash)?;
        if !self.lasts(session) {
            all.remove(&hash);
            return None;
        }
        session.used = Instant::now();
        Some((hash, session.clone()))
    }

    /// Whether a session that somebody holds open is still there. Counts as use.
    pub(crate) fn holds(&self, hash: Digest) -> bool {
        let mut all = self.lock();
        let Some(session) = all.get_mut(&hash) else {
            return false;
        };
        if session.began.elapsed() >= self.lifetime {
            all.remove(&hash);
            return false;
        }
        session.used = Instant::now();
        true
    }

    pub(crate) fn close(&self, hash: Digest) {
        self.lock().remove(&hash);
    }

    /// Seconds that a session may last from now on.
    pub(crate) fn remaining_s(&self, session: &Session) -> u64 {
        self.lifetime
            .saturating_sub(session.began.elapsed())
            .as_secs()
    }
}

fn hash(secret: &[u8]) -> Digest {
    Digest::of(&[b"sovereign session v1\0", secret])
}

/// Whether the page shows the proof of this session.
pub(crate) fn csrf_matches(session: &Session, shown: &[u8]) -> bool {
    session.csrf.as_bytes().ct_eq(shown).into()
}

/// The secret in the session's cookie, if there is exactly one such cookie.
pub(crate) fn cookie_of(headers: &HeaderMap) -> Option<&[u8]> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.as_bytes());
    let one = found.next()?;
    found.next().is_none().then_some(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        Sessions::new(Duration::from_secs(100), Duration::from_secs(10))
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_it_is_idle_and_when_it_is_old() {
        let sessions = sessions();
        let (secret, _) = sessions.open(None).unwrap();
        for _ in 0..11 {
            assert!(sessions.find(secret.as_bytes()).is_some());
            tokio::time::advance(Duration::from_secs(9)).await;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(sessions.find(secret.as_bytes()).is_none(), "old");
        let (secret, _) = sessions.open(None).unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(sessions.find(secret.as_bytes()).is_none(), "idle");
    }

    #[tokio::test]
    async fn the_oldest_session_of_a_token_gives_way_and_others_stay() {
        let sessions = sessions();
        let (other, _) = sessions.open(Some(Uuid::from_u128(1))).unwrap();
        let opened: Vec<String> = (0..=SESSIONS_PER_TOKEN_MAX)
            .map(|_| sessions.open(None).unwrap().0)
            .collect();
        let there = |secret: &String| sessions.find(secret.as_bytes()).is_some();
        assert_eq!(opened.iter().filter(|s| there(s)).count(), 16);
        assert!(there(&other));
    }

    #[test]
    fn two_cookies_of_the_name_are_none() {
        let of = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            cookie_of(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(of(&["a=b; sovereign_session=xyz"]), Some(b"xyz".to_vec()));
        assert_eq!(of(&["sovereign_session=1; sovereign_session=2"]), None);
        assert_eq!(of(&["sovereign_session=1", "sovereign_session=2"]), None);
        assert_eq!(of(&["other=1"]), None);
        assert_eq!(of(&[]), None);
    }
}
