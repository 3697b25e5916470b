//! Ids that say what a job is: `trade_eth_040226_1201`.

use sovereign_schemas::{AggregateId, Timestamp};

/// Most characters of the name in front of the time: so that the id fits with any number behind.
const NAME_CHARACTERS_MAX: usize = 100;

/// A name and the minute in UTC: `NAME_MMDDYY_HHMM`, the name in small letters.
///
/// # Examples
/// ```
/// use sovereign_jobs::name_of;
/// let at = "2026-04-02T12:01:59Z".parse().unwrap();
/// assert_eq!(name_of("trade_eth", at), "trade_eth_040226_1201");
/// ```
#[must_use]
pub fn name_of(name: &str, at: Timestamp) -> String {
    let name: String = name.chars().take(NAME_CHARACTERS_MAX).collect();
    let moment = at.to_string();
    // 2026-04-02T12:01:59.000000Z
    let part = |from: usize, to: usize| moment.get(from..to).unwrap_or("00");
    format!(
        "{}_{}{}{}_{}{}",
        name.to_ascii_lowercase(),
        part(5, 7),
        part(8, 10),
        part(2, 4),
        part(11, 13),
        part(14, 16),
    )
}

/// The `number`-th job of this name: the first has no number behind it.
///
/// # Examples
/// ```
/// use sovereign_jobs::numbered;
/// assert_eq!(numbered("trade_eth_040226_1201", 1).unwrap().as_str(), "trade_eth_040226_1201");
/// assert_eq!(numbered("trade_eth_040226_1201", 2).unwrap().as_str(), "trade_eth_040226_1201_2");
/// ```
#[must_use]
pub fn numbered(name: &str, number: u64) -> Option<AggregateId> {
    if number <= 1 {
        return name.parse().ok();
    }
    format!("{name}_{number}").parse().ok()
}
