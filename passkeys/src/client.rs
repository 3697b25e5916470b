use serde::Deserialize;

use crate::bytes::{from_base64url, to_base64url};
use crate::{Challenge, RelyingParty};

/// Longest client data: browsers write about 150 bytes and the origin.
pub(crate) const CLIENT_DATA_BYTES_MAX: usize = 8 << 10;

/// Why client data is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientDataError {
    /// Too long.
    #[error("client data has {found} bytes; at most {CLIENT_DATA_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Not the JSON object that browsers write.
    #[error("client data is not the JSON object that browsers write: {0}")]
    Malformed(String),
    /// Made for something else.
    #[error("client data is of type {found:?}; expected {expected:?}")]
    Type {
        /// Found, cut to 40 characters.
        found: String,
        /// Expected.
        expected: &'static str,
    },
    /// Another challenge was signed: another approval, another action, another policy or expiry.
    #[error("the challenge signed is {found:?}; expected {expected:?}")]
    Challenge {
        /// Found, cut to 60 characters.
        found: String,
        /// Expected.
        expected: String,
    },
    /// A page of somebody else.
    #[error("the page's origin is {found:?}; expected one of {expected:?}")]
    Origin {
        /// Found, cut to 120 characters.
        found: String,
        /// Expected.
        expected: Vec<String>,
    },
    /// The page stood inside one of another origin.
    #[error("the page was embedded in one of another origin; expected a page of its own")]
    CrossOrigin,
}

#[derive(Debug, Deserialize)]
struct ClientData {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(default, rename = "crossOrigin")]
    cross_origin: Option<bool>,
    #[serde(default, rename = "topOrigin")]
    top_origin: Option<String>,
}

fn cut(text: &str, characters_max: usize) -> String {
    text.chars().take(characters_max).collect()
}

/// Checks what the browser says of the ceremony: its type, the challenge, and the page.
pub(crate) fn check(
    json: &[u8],
    expected_type: &'static str,
    challenge: &Challenge,
    party: &RelyingParty,
) -> Result<(), ClientDataError> {
    if json.len() > CLIENT_DATA_BYTES_MAX {
        return Err(ClientDataError::TooLong { found: json.len() });
    }
    // serde names the field and the place, and refuses a field that stands there twice
    let data: ClientData = serde_json::from_slice(json)
        .map_err(|error| ClientDataError::Malformed(error.to_string()))?;
    if data.r#type != expected_type {
        return Err(ClientDataError::Type {
            found: cut(&data.r#type, 40),
            expected: expected_type,
        });
    }
    if from_base64url(&data.challenge).as_deref() != Some(&challenge.0[..]) {
        return Err(ClientDataError::Challenge {
            found: cut(&data.challenge, 60),
            expected: to_base64url(&challenge.0),
        });
    }
    if !party.origins().contains(&data.origin) {
        return Err(ClientDataError::Origin {
            found: cut(&data.origin, 120),
            expected: party.origins().to_vec(),
        });
    }
    if data.cross_origin == Some(true) || data.top_origin.is_some() {
        return Err(ClientDataError::CrossOrigin);
    }
    Ok(())
}
