use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::projector::{StartBuild, start_build};
use crate::table::{Stored, ddl};
use crate::{Agents, Approvals, Departments, Passkeys, ProjectionError, Trades, View};

/// One view in the version that this program knows: enough to make its table and to run it.
#[derive(Clone, Copy)]
pub(crate) struct Definition {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    /// Statements that make an empty table of this name, with its indexes.
    pub(crate) ddl: fn(&str) -> String,
    /// Runs a build of it.
    pub(crate) start: fn(StartBuild) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.name, self.version)
    }
}

/// The views that a program knows, each in one version.
#[derive(Debug, Clone)]
pub struct ViewSet {
    views: Vec<Definition>,
}

impl ViewSet {
    /// The views that ship, in the order in which people list them.
    #[must_use]
    pub fn shipped() -> Self {
        Self { views: Vec::new() }
            .with::<Agents>()
            .with::<Trades>()
            .with::<Approvals>()
            .with::<Departments>()
            .with::<Passkeys>()
    }

    /// With one view more, or in another version. Its table comes from its row, declared by
    /// `table!`; nothing else is needed for it to be built, switched to and rolled back.
    #[must_use]
    pub fn with<V: View>(mut self) -> Self
    where
        V::Row: Stored<Key = V::Key>,
    {
        let definition = Definition {
            name: V::NAME,
            version: V::VERSION,
            ddl: ddl::<V::Row>,
            start: |start| Box::pin(start_build::<V>(start)),
        };
        match self.views.iter_mut().find(|view| view.name == V::NAME) {
            Some(known) => *known = definition,
            None => self.views.push(definition),
        }
        self
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Definition> {
        self.views.iter()
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Definition, ProjectionError> {
        let found = self.views.iter().find(|view| view.name == name);
        found.ok_or_else(|| ProjectionError::UnknownView(name.to_owned()))
    }
}
