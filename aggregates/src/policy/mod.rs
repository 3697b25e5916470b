//! The policy that says when a human is asked: data, with a version, adopted as an event.

mod adopted;
mod file;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use sovereign_effects::Tools;
use sovereign_schemas::{Decimal, Digest, Identifier};

pub use adopted::{Adopt, Adopted, POLICY_ID, PolicyCommand};
pub use file::TEXT_BYTES_MAX;

/// A request nobody answers expires after so many seconds, where the policy says nothing else.
pub const APPROVAL_TTL_S: i64 = 3_600;

/// The policy of a ledger that has adopted none.
pub const BUILT_IN: &str = "\
version = 1

[[rules]]
name = \"everything\"
approvals = [{ above = \"1000\", people = 1 }]
";

/// Who is asked about what. Rules are looked at in their order, and the first that applies counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Version; each policy that is adopted has the next.
    pub version: i32,
    /// How long a request waits, seconds.
    pub approval_ttl_s: i64,
    /// The last applies to everything.
    pub rules: Vec<Rule>,
    /// Who may approve, if it is not everybody with a passkey.
    pub approvers: BTreeMap<String, Approver>,
    /// What effects may reach.
    pub tools: Tools,
    /// As it was written.
    pub text: String,
    /// Nobody may approve anything.
    closed: bool,
}

/// What applies to some actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: Identifier,
    /// Of actions of this department; of all if there is none.
    pub department: Option<Identifier>,
    /// Of this action; of all if there is none.
    pub action: Option<Identifier>,
    /// Of actions on this asset; of all if there is none.
    pub asset: Option<Identifier>,
    /// How many people must approve, by amount; from small to large.
    pub tiers: Vec<Tier>,
}

/// From which amount on how many people must approve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// Amounts above this.
    pub above: Decimal,
    /// So many different people.
    pub people: u8,
}

/// What one person may approve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approver {
    /// Up to and including this amount; any if there is none.
    pub amount_max: Option<Decimal>,
}

/// What is to be done, as far as a policy looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Action<'a> {
    /// Name of the department.
    pub department: &'a str,
    /// Name of the action.
    pub action: &'a str,
    /// What it is about; empty if nothing is traded.
    pub asset: &'a str,
    /// How much.
    pub amount: Decimal,
}

/// What a policy says about an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The rule that applies; none if this build cannot read the policy.
    pub rule: Option<&'a Identifier>,
    /// How many people must approve; 0 if it is automatic.
    pub people: u8,
}

impl Rule {
    fn applies_to(&self, action: &Action<'_>) -> bool {
        let fits = |wanted: &Option<Identifier>, found: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.as_str() == found)
        };
        fits(&self.department, action.department)
            && fits(&self.action, action.action)
            && fits(&self.asset, action.asset)
    }

    /// Whether it applies to all that the other applies to.
    fn covers(&self, other: &Self) -> bool {
        let wider =
            |own: &Option<Identifier>, other: &Option<Identifier>| own.is_none() || own == other;
        wider(&self.department, &other.department)
            && wider(&self.action, &other.action)
            && wider(&self.asset, &other.asset)
    }

    fn is_for_everything(&self) -> bool {
        self.department.is_none() && self.action.is_none() && self.asset.is_none()
    }
}

static BUILT_IN_POLICY: LazyLock<Arc<Policy>> = LazyLock::new(|| {
    #[allow(clippy::expect_used)]
    Arc::new(Policy::parse(BUILT_IN).expect("a test reads it"))
});

impl Policy {
    /// The policy of a ledger that has adopted none.
    ///
    /// # Panics
    /// Never: it is a constant that a test reads.
    #[must_use]
    pub fn built_in() -> Arc<Self> {
        Arc::clone(&BUILT_IN_POLICY)
    }

    /// In the place of a policy that cannot be read: asks about everything, and nobody may answer.
    fn closed(version: i32, text: &str) -> Self {
        Self {
            version,
            approval_ttl_s: APPROVAL_TTL_S,
            rules: Vec::new(),
            approvers: BTreeMap::new(),
            tools: Tools::default(),
            text: text.to_owned(),
            closed: true,
        }
    }

    /// SHA-256 of the text.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&[self.text.as_bytes()])
    }

    /// How many people must approve this, and the rule that says so.
    #[must_use]
    pub fn asks(&self, action: &Action<'_>) -> Asked<'_> {
        let Some(rule) = self.rules.iter().find(|rule| rule.applies_to(action)) else {
            // the last of those that can be read is for everything
            return Asked {
                rule: None,
                people: u8::MAX,
            };
        };
        let over = |tier: &&Tier| action.amount > tier.above;
        let tier = rule.tiers.iter().rev().find(over);
        Asked {
            rule: Some(&rule.name),
            people: tier.map_or(0, |tier| tier.people),
        }
    }

    /// How many people must approve this; 0 if it is automatic.
    ///
    /// # Examples
    /// ```
    /// use sovereign_aggregates::policy::{Action, Policy};
    /// let buy = |amount: &str| Action {
    ///     department: "trader",
    ///     action: "trade.execute",
    ///     asset: "AAPL",
    ///     amount: amount.parse().unwrap(),
    /// };
    /// let policy = Policy::built_in();
    /// assert_eq!(policy.people_for(&buy("1000")), 0);
    /// assert_eq!(policy.people_for(&buy("1000.01")), 1);
    /// ```
    #[must_use]
    pub fn people_for(&self, action: &Action<'_>) -> u8 {
        self.asks(action).people
    }

    /// Whether this person may say yes to anything: everybody may where no approver is named.
    #[must_use]
    pub fn names(&self, approver: &str) -> bool {
        !self.closed && (self.approvers.is_empty() || self.approvers.contains_key(approver))
    }

    /// Whether this person may say yes to this amount: everybody may where no approver is named.
    #[must_use]
    pub fn may_approve(&self, approver: &str, amount: Decimal) -> bool {
        if self.closed {
            return false;
        }
        let within = |approver: &Approver| approver.amount_max.is_none_or(|most| amount <= most);
        self.approvers.is_empty() || self.approvers.get(approver).is_some_and(within)
    }

    /// What `TradeAuthorized` and `ExecutionCleared` name when this policy alone authorized.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("policy:{}", self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
version = 7
approval_ttl_s = 600

[[rules]]
name = "btc-of-traders"
department = "trader"
asset = "BTC-USD"
approvals = [{ above = "100", people = 1 }, { above = "50000", people = 2 }]

[[rules]]
name = "btc"
asset = "BTC-USD"
approvals = []

[[rules]]
name = "rest"
approvals = [{ above = "1000", people = 1 }]

[approvers.alice]

[approvers.bob]
amount_max = "60000"
"#;

    fn people(policy: &Policy, department: &str, asset: &str, amount: &str) -> u8 {
        policy.people_for(&Action {
            department,
            action: "trade.execute",
            asset,
            amount: amount.parse().unwrap(),
        })
    }

    #[test]
    fn the_first_rule_that_applies_counts() {
        let policy = Policy::parse(FULL).unwrap();
        assert_eq!((policy.version, policy.approval_ttl_s), (7, 600));
        for (department, asset, amount, expected) in [
            ("trader", "BTC-USD", "100", 0),
            ("trader", "BTC-USD", "100.01", 1),
            ("trader", "BTC-USD", "50000", 1),
            ("trader", "BTC-USD", "50000.000000001", 2),
            ("hunter", "BTC-USD", "1000000", 0),
            ("trader", "AAPL", "1000", 0),
            ("trader", "AAPL", "1000.01", 1),
            ("hunter", "", "1000.01", 1),
        ] {
            let found = people(&policy, department, asset, amount);
            assert_eq!(found, expected, "{department} {asset} {amount}");
        }
    }

    #[test]
    fn approvers_have_limits_and_others_have_no_say() {
        let policy = Policy::parse(FULL).unwrap();
        let may = |who: &str, amount: &str| policy.may_approve(who, amount.parse().unwrap());
        assert!(may("alice", "1000000000") && may("bob", "60000"));
        assert!(!may("bob", "60000.01") && !may("carol", "1"));
        let open = Policy::built_in();
        assert!(open.may_approve("carol", "9999".parse().unwrap()));
    }

    #[test]
    fn the_built_in_one_asks_one_person_above_a_thousand() {
        let policy = Policy::built_in();
        assert_eq!(policy.version, 1);
        assert_eq!(policy.approval_ttl_s, 3_600);
        assert_eq!(policy.authority(), "policy:1");
        assert_eq!(policy.digest(), Digest::of(&[BUILT_IN.as_bytes()]));
        assert_eq!(people(&policy, "trader", "AAPL", "1000"), 0);
        assert_eq!(people(&policy, "trader", "AAPL", "1000.01"), 1);
    }
}
