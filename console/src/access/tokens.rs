use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use sovereign_guard::access::CredentialKey;
use sovereign_schemas::{Digest, ErrorCode, Identifier, Problem, Timestamp, Uuid};
use subtle::ConstantTimeEq;

use super::Role;

/// What a token begins with, so that scanners for secrets find it.
const PREFIX: &str = "svt_";
/// The same for an invitation.
const INVITATION_PREFIX: &str = "svi_";
/// Tokens that are kept, ended ones included.
const TOKENS_MAX: usize = 1_000;
/// Ended tokens are listed for so long.
const KEPT_US: i64 = 30 * 24 * 3_600 * 1_000_000;

/// One token, as it is stored: its secret is not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// Which one.
    pub id: Uuid,
    /// How people call it; unique among those that have not ended.
    pub name: Identifier,
    /// What its bearer may do.
    pub role: Role,
    /// In whose name its bearer acts.
    pub actor: Identifier,
    /// As which agents, for the role of agents; none for others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<Identifier>,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// Keyed hash of the secret.
    pub hash: Digest,
}

impl TokenRecord {
    pub(crate) fn ended(&self, now: Timestamp) -> Option<&'static str> {
        let invitation = self.role == Role::Invited;
        match (self.revoked_at.is_some(), self.expires_at <= now) {
            (true, _) if invitation => Some("the invitation was used or withdrawn"),
            (true, _) => Some("the token was revoked"),
            (false, true) if invitation => Some("the invitation has expired"),
            (false, true) => Some("the token has expired"),
            (false, false) => None,
        }
    }

    fn ended_at(&self) -> Timestamp {
        self.revoked_at.unwrap_or(self.expires_at)
    }
}

/// Where tokens are kept. Only hashes get here, but nobody else should be able to write.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// All that were saved last.
    ///
    /// # Errors
    /// If they cannot be read.
    async fn load(&self) -> Result<Vec<TokenRecord>, Problem>;

    /// Replaces all, durably, or changes nothing.
    ///
    /// # Errors
    /// If they cannot be written.
    async fn save(&self, records: &[TokenRecord]) -> Result<(), Problem>;
}

/// A token to be made.
#[derive(Debug, Clone)]
pub(crate) struct IssueToken {
    pub(crate) name: Identifier,
    pub(crate) role: Role,
    pub(crate) actor: Identifier,
    pub(crate) agents: Vec<Identifier>,
    pub(crate) expires_at: Timestamp,
}

type ByHash = HashMap<Digest, Arc<TokenRecord>>;

/// All named tokens: in memory for every request, in a store for the next start.
pub struct TokenBook {
    key: CredentialKey,
    store: Arc<dyn TokenStore>,
    by_hash: RwLock<ByHash>,
    /// Changes take turns.
    writing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for TokenBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBook").finish_non_exhaustive()
    }
}

impl TokenBook {
    /// Reads what is stored.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn open(key: CredentialKey, store: Arc<dyn TokenStore>) -> Result<Self, Problem> {
        let records = store.load().await?;
        let by_hash = records.into_iter().map(|r| (r.hash, Arc::new(r)));
        Ok(Self {
            key,
            by_hash: RwLock::new(by_hash.collect()),
            store,
            writing: tokio::sync::Mutex::default(),
        })
    }

    fn all(&self) -> ByHash {
        let all = self.by_hash.read();
        all.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, all: ByHash) {
        *self.by_hash.write().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// All, by name and age, ended ones included.
    pub(crate) fn list(&self) -> Vec<Arc<TokenRecord>> {
        let mut all: Vec<_> = self.all().into_values().collect();
        all.sort_by(|a, b| (&a.name, a.created_at, a.id).cmp(&(&b.name, b.created_at, b.id)));
        all
    }

    /// The token with this secret, or why it is of no use.
    pub(crate) fn find(
        &self,
        secret: &[u8],
        now: Timestamp,
    ) -> Result<Arc<TokenRecord>, &'static str> {
        let hash = self.key.hash(secret);
        let all = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        // nobody without the key can choose what is looked up, so the look-up tells nothing
        let found = all.get(&hash).filter(|r| r.hash.0.ct_eq(&hash.0).into());
        let found = found.ok_or("the token is missing or wrong")?;
        match found.ended(now) {
            Some(why) => Err(why),
            None => Ok(Arc::clone(found)),
        }
    }

    /// The token with this id, if it has not ended.
    pub(crate) fn valid(&self, id: Uuid, now: Timestamp) -> Option<Arc<TokenRecord>> {
        let all = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        let found = all.values().find(|r| r.id == id)?;
        found.ended(now).is_none().then(|| Arc::clone(found))
    }

    /// Makes one: what is stored, and its secret, which is nowhere else.
    pub(crate) async fn issue(
        &self,
        wanted: IssueToken,
        now: Timestamp,
    ) -> Result<(Arc<TokenRecord>, String), Problem> {
        let turn = self.writing.lock().await;
        let mut all = self.all();
        all.retain(|_, r| r.ended(now).is_none() || r.ended_at().0 > now.0 - KEPT_US);
        let taken = |r: &Arc<TokenRecord>| r.name == wanted.name && r.ended(now).is_none();
        if all.values().any(taken) {
            return Err(
                Problem::new(ErrorCode::AlreadyExists, "a token has this name")
                    .field("name")
                    .found(wanted.name.as_str())
                    .remedy("choose another name, or revoke the token first"),
            );
        }
        if all.len() >= TOKENS_MAX {
            return Err(
                Problem::new(ErrorCode::WrongState, "there are too many tokens")
                    .expected(format!(
                        "at most {TOKENS_MAX}, ended ones of 30 days included"
                    ))
                    .remedy("revoke tokens that nobody uses"),
            );
        }
        let prefix = if wanted.role == Role::Invited {
            INVITATION_PREFIX
        } else {
            PREFIX
        };
        let secret = format!("{prefix}{}", random_hex()?);
        let record = Arc::new(TokenRecord {
            id: Uuid::now_v7(),
            name: wanted.name,
            role: wanted.role,
            actor: wanted.actor,
            agents: wanted.agents,
            created_at: now,
            expires_at: wanted.expires_at,
            revoked_at: None,
            hash: self.key.hash(secret.as_bytes()),
        });
        all.insert(record.hash, Arc::clone(&record));
        self.save(&all).await?;
        self.put(all);
        drop(turn);
        tracing::info!(name = %record.name, role = %record.role, actor = %record.actor, "token issued");
        Ok((record, secret))
    }

    /// Ends this token, of which this is the only use. Of several that try at the same time one
    /// succeeds.
    pub(crate) async fn use_up(&self, id: Uuid, now: Timestamp) -> Result<(), Problem> {
        let turn = self.writing.lock().await;
        let mut all = self.all();
        let found = all
            .values_mut()
            .find(|r| r.id == id && r.ended(now).is_none());
        let Some(found) = found else {
            let message = "the invitation was used by another request";
            return Err(Problem::new(ErrorCode::Unauthorized, message)
                .field("authorization")
                .remedy("ask an admin for another invitation"));
        };
        let record = Arc::new(TokenRecord {
            revoked_at: Some(now),
            ..TokenRecord::clone(found)
        });
        *found = record;
        // as in revoke: of no use from now on, even if that cannot be written down
        self.put(all.clone());
        self.save(&all).await?;
        drop(turn);
        Ok(())
    }

    /// Ends the token with this name, at once.
    pub(crate) async fn revoke(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<Arc<TokenRecord>, Problem> {
        let turn = self.writing.lock().await;
        let mut all = self.all();
        let found = all
            .values_mut()
            .find(|r| r.name.as_str() == name && r.ended(now).is_none());
        let Some(found) = found else {
            return Err(Problem::new(ErrorCode::NotFound, "no such token")
                .field("name")
                .found(name)
                .remedy("look at sovereign tokens list"));
        };
        let record = Arc::new(TokenRecord {
            revoked_at: Some(now),
            ..TokenRecord::clone(found)
        });
        *found = Arc::clone(&record);
        // first here: it is of no use from now on, even if that cannot be written down
        self.put(all.clone());
        self.save(&all).await?;
        drop(turn);
        tracing::info!(name = %record.name, role = %record.role, actor = %record.actor, "token revoked");
        Ok(record)
    }

    async fn save(&self, all: &ByHash) -> Result<(), Problem> {
        let mut records: Vec<TokenRecord> = all.values().map(|r| TokenRecord::clone(r)).collect();
        records.sort_by_key(|r| r.id);
        self.store.save(&records).await
    }
}

/// 256 random bits as 64 hexadecimal digits.
pub(crate) fn random_hex() -> Result<String, Problem> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| Problem::new(ErrorCode::Internal, format!("no random numbers: {e}")))?;
    Ok(sovereign_schemas::hex(&bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Kept {
        records: Mutex<Vec<TokenRecord>>,
        full: std::sync::atomic::AtomicBool,
    }

    #[async_trait]
    impl TokenStore for Kept {
        async fn load(&self) -> Result<Vec<TokenRecord>, Problem> {
            Ok(self.records.lock().unwrap().clone())
        }

        async fn save(&self, records: &[TokenRecord]) -> Result<(), Problem> {
            if self.full.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Problem::new(ErrorCode::DiskFull, "no room"));
            }
            *self.records.lock().unwrap() = records.to_vec();
            Ok(())
        }
    }

    fn wanted(name: &str, until: i64) -> IssueToken {
        IssueToken {
            name: name.parse().unwrap(),
            role: Role::Viewer,
            actor: name.parse().unwrap(),
            agents: Vec::new(),
            expires_at: Timestamp(until),
        }
    }

    async fn book(kept: &Arc<Kept>) -> TokenBook {
        let key = CredentialKey::from_bytes([1; 32]);
        TokenBook::open(key, kept.clone()).await.unwrap()
    }

    #[tokio::test]
    async fn a_token_lasts_over_a_restart_and_its_secret_is_not_stored() {
        let kept = Arc::new(Kept::default());
        let first = book(&kept).await;
        let (record, secret) = first.issue(wanted("a", 100), Timestamp(1)).await.unwrap();
        assert_eq!(secret.len(), PREFIX.len() + 64);
        let stored = serde_json::to_string(&*kept.records.lock().unwrap()).unwrap();
        assert!(!stored.contains(&secret[PREFIX.len()..]), "{stored}");
        let again = book(&kept).await;
        assert_eq!(again.find(secret.as_bytes(), Timestamp(99)), Ok(record));
        assert!(again.find(b"svt_0", Timestamp(99)).is_err());
        let other = TokenBook::open(CredentialKey::from_bytes([2; 32]), kept).await;
        assert!(
            other
                .unwrap()
                .find(secret.as_bytes(), Timestamp(99))
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_token_ends_by_time_and_by_revocation() {
        let kept = Arc::new(Kept::default());
        let book = book(&kept).await;
        let (record, secret) = book.issue(wanted("a", 100), Timestamp(1)).await.unwrap();
        let found = |at| book.find(secret.as_bytes(), Timestamp(at));
        assert_eq!(found(100), Err("the token has expired"));
        let taken = book
            .issue(wanted("a", 100), Timestamp(2))
            .await
            .unwrap_err();
        assert_eq!(taken.code, ErrorCode::AlreadyExists);
        kept.full.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(book.revoke("a", Timestamp(3)).await.is_err(), "not durable");
        assert_eq!(
            found(4),
            Err("the token was revoked"),
            "and of no use all the same"
        );
        assert_eq!(book.valid(record.id, Timestamp(4)), None);
        kept.full.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(
            book.issue(wanted("a", 100), Timestamp(5)).await.is_ok(),
            "the name is free"
        );
        let unknown = book.revoke("b", Timestamp(6)).await.unwrap_err();
        assert_eq!(unknown.code, ErrorCode::NotFound);
    }

    #[tokio::test]
    async fn an_invitation_is_used_once_also_by_two_at_the_same_time() {
        let kept = Arc::new(Kept::default());
        let book = book(&kept).await;
        let wanted = IssueToken {
            role: Role::Invited,
            ..wanted("invite:a", 100)
        };
        let (record, secret) = book.issue(wanted, Timestamp(1)).await.unwrap();
        assert!(secret.starts_with(INVITATION_PREFIX));
        let both = tokio::join!(
            book.use_up(record.id, Timestamp(2)),
            book.use_up(record.id, Timestamp(2))
        );
        assert!(both.0.is_ok() != both.1.is_ok(), "{both:?}");
        assert!(book.find(secret.as_bytes(), Timestamp(3)).is_err());
        let again = book.use_up(record.id, Timestamp(3)).await.unwrap_err();
        assert_eq!(again.code, ErrorCode::Unauthorized);
    }

    #[tokio::test]
    async fn what_cannot_be_stored_is_not_given_out() {
        let kept = Arc::new(Kept::default());
        kept.full.store(true, std::sync::atomic::Ordering::Relaxed);
        let book = book(&kept).await;
        assert!(book.issue(wanted("a", 100), Timestamp(1)).await.is_err());
        assert!(book.list().is_empty());
    }
}
