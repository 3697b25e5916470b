use ciborium::Value;

use crate::RelyingParty;

/// Longest authenticator data: a credential id of 1,023 bytes, an RSA key and extensions fit.
pub(crate) const AUTHENTICATOR_DATA_BYTES_MAX: usize = 8 << 10;
/// How deep CBOR may be nested; keys and extensions are flat.
pub(crate) const CBOR_DEPTH_MAX: usize = 8;

const CREDENTIAL_ID_BYTES_MAX: usize = 1_023;
const HEAD_BYTES: usize = 37;

const USER_PRESENT: u8 = 1;
const USER_VERIFIED: u8 = 1 << 2;
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKED_UP: u8 = 1 << 4;
const CREDENTIAL: u8 = 1 << 6;
const EXTENSIONS: u8 = 1 << 7;

/// Why authenticator data is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticatorDataError {
    /// Too long.
    #[error(
        "authenticator data has {found} bytes; at most {AUTHENTICATOR_DATA_BYTES_MAX} are allowed"
    )]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Ends too early.
    #[error("authenticator data ends within its {part}")]
    Truncated {
        /// In what.
        part: &'static str,
    },
    /// A part that cannot be read.
    #[error("the {part} of the authenticator data cannot be read")]
    Malformed {
        /// Which.
        part: &'static str,
    },
    /// Bytes behind the end.
    #[error("{0} bytes stand behind the authenticator data")]
    Trailing(usize),
    /// For another relying party.
    #[error("the passkey is for another relying party than {0:?}")]
    RelyingParty(String),
    /// Nobody was there.
    #[error("nobody touched the authenticator; expected the flag that a user was present")]
    NotPresent,
    /// Nobody said who he is.
    #[error("the authenticator did not verify the user by PIN or biometrics")]
    NotVerified,
    /// Backed up, though it cannot be.
    #[error("the flags say that the passkey is backed up and cannot be")]
    BackupFlags,
    /// A registration without a key.
    #[error("the authenticator data holds no credential")]
    NoCredential,
    /// An assertion with a key.
    #[error("the authenticator data of an assertion holds a credential")]
    UnexpectedCredential,
}

/// A credential as the authenticator announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attested {
    pub(crate) aaguid: [u8; 16],
    pub(crate) id: Vec<u8>,
    /// A `COSE_Key`, byte for byte.
    pub(crate) key: Vec<u8>,
}

/// What an authenticator signs; section 6.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthenticatorData {
    pub(crate) sign_count: u32,
    pub(crate) backup_eligible: bool,
    pub(crate) backed_up: bool,
    pub(crate) attested: Option<Attested>,
}

fn take<'a>(
    rest: &mut &'a [u8],
    bytes: usize,
    part: &'static str,
) -> Result<&'a [u8], AuthenticatorDataError> {
    let (taken, left) = rest
        .split_at_checked(bytes)
        .ok_or(AuthenticatorDataError::Truncated { part })?;
    *rest = left;
    Ok(taken)
}

/// One CBOR item, and its bytes.
fn item<'a>(
    rest: &mut &'a [u8],
    part: &'static str,
) -> Result<(Value, &'a [u8]), AuthenticatorDataError> {
    let before = *rest;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut *rest, CBOR_DEPTH_MAX)
        .map_err(|_| AuthenticatorDataError::Malformed { part })?;
    Ok((value, &before[..before.len() - rest.len()]))
}

fn attested(rest: &mut &[u8]) -> Result<Attested, AuthenticatorDataError> {
    let mut aaguid = [0; 16];
    aaguid.copy_from_slice(take(rest, 16, "credential")?);
    let length = take(rest, 2, "credential")?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length == 0 || length > CREDENTIAL_ID_BYTES_MAX {
        return Err(AuthenticatorDataError::Malformed {
            part: "credential id",
        });
    }
    let id = take(rest, length, "credential id")?.to_vec();
    let (_, key) = item(rest, "public key")?;
    Ok(Attested {
        aaguid,
        id,
        key: key.to_vec(),
    })
}

impl AuthenticatorData {
    /// Reads it whole, and checks what every ceremony demands: the relying party, that a user was
    /// there and was verified, and flags that do not contradict each other.
    pub(crate) fn check(
        bytes: &[u8],
        party: &RelyingParty,
    ) -> Result<Self, AuthenticatorDataError> {
        if bytes.len() > AUTHENTICATOR_DATA_BYTES_MAX {
            let found = bytes.len();
            return Err(AuthenticatorDataError::TooLong { found });
        }
        let mut rest = bytes;
        let head = take(&mut rest, HEAD_BYTES, "head")?;
        let flags = head[32];
        let sign_count = u32::from_be_bytes([head[33], head[34], head[35], head[36]]);
        let has = |flag: u8| flags & flag != 0;
        let attested = if has(CREDENTIAL) {
            Some(attested(&mut rest)?)
        } else {
            None
        };
        if has(EXTENSIONS) {
            let (value, _) = item(&mut rest, "extensions")?;
            if !value.is_map() {
                return Err(AuthenticatorDataError::Malformed { part: "extensions" });
            }
        }
        if !rest.is_empty() {
            return Err(AuthenticatorDataError::Trailing(rest.len()));
        }
        if head[..32] != party.id_hash()[..] {
            let id = party.id().to_owned();
            return Err(AuthenticatorDataError::RelyingParty(id));
        }
        if !has(USER_PRESENT) {
            return Err(AuthenticatorDataError::NotPresent);
        }
        if !has(USER_VERIFIED) {
            return Err(AuthenticatorDataError::NotVerified);
        }
        if has(BACKED_UP) && !has(BACKUP_ELIGIBLE) {
            return Err(AuthenticatorDataError::BackupFlags);
        }
        Ok(Self {
            sign_count,
            backup_eligible: has(BACKUP_ELIGIBLE),
            backed_up: has(BACKED_UP),
            attested,
        })
    }
}
