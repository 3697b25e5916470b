use std::fmt;

/// A connection URL that holds a password: `Debug` prints a mask, there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub(crate) fn new(url: String) -> Self {
        Self(url)
    }

    /// The URL with its password, for the one call that connects; never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretUrl(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_prints_a_mask() {
        let url = SecretUrl::new("postgresql://sovereign:hunter2@127.0.0.1:1/sovereign".into());
        assert_eq!(format!("{url:?}"), "SecretUrl(***)");
        assert!(url.expose().contains("hunter2"));
    }
}
