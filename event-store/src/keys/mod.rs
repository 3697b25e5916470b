//! Subject keys, in a database apart from the ledger: destroying a row there erases every text of
//! its subject, here and in all copies.

mod master;
mod subject;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use sovereign_guard::admit::{self, Leaf};
use sovereign_guard::seal::{MasterKey, SubjectKey};
use sovereign_schemas::{Text, Uuid};
use sqlx::{PgPool, Row as _};

use crate::{StoreError, connect, migrate};
use subject::Subject;

/// Subjects that seal whose place is kept in memory, about 1.5 KiB each (a path of 41 nodes of 32
/// bytes): a command of one that fell out asks the key database first.
const SUBJECTS_CACHED_MAX: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// Keys that are kept to read with, 32 bytes each and their place: more than of those that seal,
/// because a reader goes through many subjects, and each miss is a query while a follower waits.
const KEYS_CACHED_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// Connections to the key database.
const CONNECTIONS_MAX: u32 = 4;

/// The keys of all subjects. Cheap to clone.
#[derive(Clone)]
pub struct KeyStore {
    pool: PgPool,
    master: Arc<MasterKey>,
    subjects: Arc<Mutex<LruCache<String, Arc<tokio::sync::Mutex<Subject>>>>>,
    keys: Arc<Mutex<LruCache<Uuid, Arc<SubjectKey>>>>,
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyStore").finish_non_exhaustive()
    }
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| StoreError::Randomness(e.to_string()))?;
    Ok(bytes)
}

impl KeyStore {
    /// Migrates the key database if it has to be, and holds the master key against the one that
    /// wrapped what is there.
    ///
    /// # Errors
    /// [`StoreError::MasterKey`] if it is another one; or if the database cannot be used, or was
    /// written by a newer build.
    pub async fn open(database: &str, master: MasterKey) -> Result<Self, StoreError> {
        let server = connect::options(database, "sovereign migration")?;
        let mut connection = connect::connect(&server).await?;
        let migrated = migrate::KEYS.run(&mut connection).await;
        migrated.map_err(|error| error.at(&connect::address(&server)))?;
        master::check(&mut connection, &master).await?;
        Self::connect(database, master)
    }

    /// Uses a key database that is migrated, for reading. Connects when first used.
    ///
    /// # Errors
    /// If the URL is none.
    pub fn connect(database: &str, master: MasterKey) -> Result<Self, StoreError> {
        Ok(Self {
            pool: connect::pool(database, "sovereign keys", CONNECTIONS_MAX)?,
            master: Arc::new(master),
            subjects: Arc::new(Mutex::new(LruCache::new(SUBJECTS_CACHED_MAX))),
            keys: Arc::new(Mutex::new(LruCache::new(KEYS_CACHED_MAX))),
        })
    }

    /// `count` leaves of the subject's tree, each never given out before: indexes are reserved in
    /// blocks by one durable statement, so several processes and crashes only leave gaps. A
    /// subject that is new gets its key now.
    ///
    /// # Errors
    /// If the database or the random source fails, or the key does not unwrap.
    pub async fn leaves(&self, subject: &str, count: usize) -> Result<Vec<Leaf>, StoreError> {
        let entry = {
            let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(subjects.get_or_insert_ref(subject, Arc::default))
        };
        let mut entry = entry.lock().await;
        let mut leaves = Vec::with_capacity(count);
        while leaves.len() < count {
            match entry.next()? {
                Some((key_id, index, key)) => {
                    let likeness_key = entry.likeness().cloned();
                    leaves.push(Leaf {
                        key_id,
                        index,
                        key,
                        likeness_key: likeness_key.ok_or_else(|| {
                            StoreError::Internal("a subject has no likeness key".to_owned())
                        })?,
                        nonce: random()?,
                    });
                }
                None => self.reserve(subject, &mut entry).await?,
            }
        }
        Ok(leaves)
    }

    /// Reserves the next block; creates the key of a subject that has none.
    async fn reserve(&self, subject: &str, entry: &mut Subject) -> Result<(), StoreError> {
        let (fresh_id, nonce) = (Uuid::from_bytes(random()?), random()?);
        let fresh = SubjectKey::from_bytes(random()?);
        let wrapped = self.master.wrap(&fresh, nonce, fresh_id.into_bytes())?;
        let row = sqlx::query(
            "insert into keys.subjects as s (subject, key_id, wrapped, nonce, next_index) \
             values ($1, $2, $3, $4, $5) \
             on conflict (subject) do update set next_index = s.next_index + $5 \
             returning key_id, wrapped, nonce, next_index",
        )
        .bind(subject)
        .bind(fresh_id)
        .bind(&wrapped)
        .bind(nonce.as_slice())
        .bind(subject::BLOCK.cast_signed())
        .fetch_one(&self.pool)
        .await?;
        let (key_id, key) = self.unwrap(&row)?;
        let end: i64 = row.try_get("next_index")?;
        Ok(entry.refill(key_id, &key, end.cast_unsigned())?)
    }

    fn unwrap(&self, row: &sqlx::postgres::PgRow) -> Result<(Uuid, SubjectKey), StoreError> {
        let key_id: Uuid = row.try_get("key_id")?;
        let wrapped: Vec<u8> = row.try_get("wrapped")?;
        let nonce: Vec<u8> = row.try_get("nonce")?;
        let nonce: [u8; 12] = nonce
            .try_into()
            .map_err(|_| StoreError::Internal("nonce of a key has not 12 bytes".to_owned()))?;
        Ok((
            key_id,
            self.master.unwrap(&wrapped, nonce, key_id.into_bytes())?,
        ))
    }

    /// The key of one subject, for handing it out; `None` if there is none, or it was destroyed.
    ///
    /// # Errors
    /// If the database fails, or the key does not unwrap.
    pub async fn show(&self, subject: &str) -> Result<Option<(Uuid, SubjectKey)>, StoreError> {
        let row =
            sqlx::query("select key_id, wrapped, nonce from keys.subjects where subject = $1")
                .bind(subject)
                .fetch_optional(&self.pool)
                .await?;
        row.as_ref().map(|row| self.unwrap(row)).transpose()
    }

    async fn key_of(&self, key_id: Uuid) -> Result<Arc<SubjectKey>, StoreError> {
        let cached = self
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key_id)
            .map(Arc::clone);
        if let Some(key) = cached {
            return Ok(key);
        }
        let row = sqlx::query("select key_id, wrapped, nonce from keys.subjects where key_id = $1")
            .bind(key_id)
            .fetch_optional(&self.pool)
            .await?
            .ok_or(StoreError::KeyMissing(key_id))?;
        let key = Arc::new(self.unwrap(&row)?.1);
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(key_id, Arc::clone(&key));
        Ok(key)
    }

    /// A name for something whose own name must not travel: 64 hexadecimal digits, the same for the
    /// same parts under the same master key.
    #[must_use]
    pub fn pseudonym(&self, parts: &[&[u8]]) -> String {
        let mut message = Vec::new();
        for part in parts {
            message.extend_from_slice(&(part.len() as u64).to_be_bytes());
            message.extend_from_slice(part);
        }
        sovereign_schemas::Digest(self.master.pseudonym(&message)).to_string()
    }

    /// The words of a text, for those who may read them.
    ///
    /// # Errors
    /// [`StoreError::KeyMissing`] if its key is not here, [`StoreError::Key`] if it does not open.
    pub async fn reveal(&self, text: &Text) -> Result<String, StoreError> {
        if let Some(plain) = text.as_plain() {
            return Ok(plain.to_owned());
        }
        let key = self.key_of(text.key_id()).await?.derive(text.index())?;
        Ok(admit::open(text, &key)?)
    }
}
