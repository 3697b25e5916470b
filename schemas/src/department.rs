use std::collections::BTreeMap;
use std::fmt;

use crate::{ErrorCode, Identifier, Problem};

/// Number of a department.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct DepartmentId(pub u16);

impl DepartmentId {
    /// Coordinates the others; where an event goes that belongs nowhere else.
    pub const ORCHESTRATOR: Self = Self(1);
    /// Trades.
    pub const TRADER: Self = Self(5);
    /// Watches markets and chains.
    pub const HUNTER: Self = Self(7);
    /// Watches for attacks.
    pub const SENTRY: Self = Self(8);
    /// Keeps limits and approvals.
    pub const GUARDIAN: Self = Self(10);
    /// Judges intents.
    pub const AUDITOR: Self = Self(12);
    /// Records results.
    pub const HISTORIAN: Self = Self(15);
}

impl fmt::Display for DepartmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One department.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Department {
    /// Its number, as in event headers.
    pub id: DepartmentId,
    /// Its name, lower case.
    pub name: Identifier,
    /// Its Kafka topic; `dept.<name>` if left out.
    #[serde(default)]
    pub topic: Option<String>,
    /// Whether its free text is sealed (the default) or plain on topics.
    #[serde(default = "yes")]
    pub seal: bool,
}

const fn yes() -> bool {
    true
}

impl Department {
    /// The Kafka topic that carries its events.
    #[must_use]
    pub fn topic(&self) -> String {
        self.topic
            .clone()
            .unwrap_or_else(|| format!("dept.{}", self.name))
    }
}

/// What is wrong with a list of departments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DepartmentsError {
    /// Two with the same number, name or topic.
    #[error("two departments have the {what} {value}")]
    Twice {
        /// Number, name or topic.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// A built-in agent's department is missing.
    #[error("department {0} is missing; the built-in agents need 1, 5, 7, 8, 10, 12 and 15")]
    Missing(u16),
    /// A topic name that Kafka does not take.
    #[error("topic {0:?} must match dept.[A-Za-z0-9._-]+ and be at most 249 characters long")]
    Topic(String),
}

/// All departments of an organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departments(BTreeMap<DepartmentId, Department>);

impl Default for Departments {
    /// orchestrator 1, trader 5, hunter 7, sentry 8, guardian 10, auditor 12, historian 15.
    fn default() -> Self {
        let names = [
            (1, "orchestrator"),
            (5, "trader"),
            (7, "hunter"),
            (8, "sentry"),
            (10, "guardian"),
            (12, "auditor"),
            (15, "historian"),
        ];
        let all = names.into_iter().filter_map(|(id, name)| {
            let name = name.parse().ok()?;
            Some((
                DepartmentId(id),
                Department {
                    id: DepartmentId(id),
                    name,
                    topic: None,
                    seal: true,
                },
            ))
        });
        Self(all.collect())
    }
}

impl Departments {
    /// Checks and takes a configured list.
    ///
    /// # Errors
    /// If numbers, names or topics are not unique, or a built-in one is missing.
    pub fn new(list: Vec<Department>) -> Result<Self, DepartmentsError> {
        let mut all: BTreeMap<DepartmentId, Department> = BTreeMap::new();
        for department in list {
            let twice = |what, value: String| Err(DepartmentsError::Twice { what, value });
            let topic = department.topic();
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if !topic.starts_with("dept.") || topic.len() > 249 || !topic.chars().all(plain) {
                return Err(DepartmentsError::Topic(topic));
            }
            if all.values().any(|d| d.name == department.name) {
                return twice("name", department.name.to_string());
            }
            if all.values().any(|d| d.topic() == topic) {
                return twice("topic", topic);
            }
            let id = department.id;
            if all.insert(id, department).is_some() {
                return twice("id", id.to_string());
            }
        }
        for id in Self::default().0.keys() {
            if !all.contains_key(id) {
                return Err(DepartmentsError::Missing(id.0));
            }
        }
        Ok(Self(all))
    }

    /// By number.
    #[must_use]
    pub fn get(&self, id: DepartmentId) -> Option<&Department> {
        self.0.get(&id)
    }

    /// By name, or by number written as text.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownDepartment`], naming those that exist.
    pub fn find(&self, text: &str) -> Result<&Department, Problem> {
        let by_number = text.parse().ok().and_then(|n| self.get(DepartmentId(n)));
        by_number
            .or_else(|| self.0.values().find(|d| d.name.as_str() == text))
            .ok_or_else(|| {
                let names: Vec<&str> = self.iter().map(|d| d.name.as_str()).collect();
                Problem::new(ErrorCode::UnknownDepartment, "no such department")
                    .field("department")
                    .found(text)
                    .expected(names.join(", "))
            })
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Department> {
        self.0.values()
    }
}
