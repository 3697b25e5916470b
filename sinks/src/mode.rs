use std::fmt;
use std::str::FromStr;

/// Who carries effects out in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SinkMode {
    /// The world.
    Live,
    /// A script.
    Mock,
    /// What a log holds.
    Recorded,
}

impl SinkMode {
    /// As on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Mock => "mock",
            Self::Recorded => "recorded",
        }
    }
}

impl fmt::Display for SinkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SinkMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Live, Self::Mock, Self::Recorded]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or("expected live, mock or recorded")
    }
}
