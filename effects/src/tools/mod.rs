//! What effects may reach: tools and exchanges of the adopted policy, programs of this machine.

mod file;
mod network;
mod programs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use sovereign_schemas::{ErrorCode, Identifier, Problem};

use crate::{Base, EffectId, Exchange, Method, Order, Outcome, Path};

pub use file::{ExchangeText, Fault, ToolText, ToolTexts};
pub use network::Network;
pub use programs::{Program, ProgramText, ProgramTexts, Programs};

/// What effects of the kinds `http`, `model` and `order` may reach: sections `[tools.NAME]` and
/// `[exchanges.NAME]`, see `docs/EFFECTS.md`. What is not named cannot be reached.
///
/// # Examples
/// ```
/// use sovereign_effects::Tools;
/// let tools = Tools::parse(r#"
/// [tools.orders]
/// base = "https://api.example.com"
/// methods = ["GET", "POST"]
/// paths = ["/v1/orders"]
/// idempotency_header = "idempotency-key"
/// "#)?;
/// assert!(tools.tool(&"orders".parse().unwrap()).is_some());
/// let problem = Tools::parse("[tools.orders]\nbase = \"https://example.com\"\ncolour = 1\n").unwrap_err();
/// assert_eq!(problem.line, Some(3));
/// # Ok::<(), sovereign_schemas::Problem>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    tools: BTreeMap<Identifier, Tool>,
    exchanges: BTreeMap<Identifier, Exchange>,
}

impl Default for Tools {
    /// No tool, and the exchange `mock`.
    fn default() -> Self {
        Self::new(BTreeMap::new(), BTreeMap::new())
    }
}

impl Tools {
    /// Adds the exchange `mock` if there is none of this name.
    fn new(
        tools: BTreeMap<Identifier, Tool>,
        mut exchanges: BTreeMap<Identifier, Exchange>,
    ) -> Self {
        exchanges.entry(Exchange::mock_name()).or_default();
        Self { tools, exchanges }
    }

    /// The tool of this name.
    #[must_use]
    pub fn tool(&self, name: &Identifier) -> Option<&Tool> {
        self.tools.get(name)
    }

    /// The exchange of this name.
    #[must_use]
    pub fn exchange(&self, name: &Identifier) -> Option<&Exchange> {
        self.exchanges.get(name)
    }

    /// What the order's exchange makes of it.
    #[must_use]
    pub fn fill(&self, id: EffectId, order: &Order) -> Outcome {
        let Some(exchange) = self.exchange(&order.exchange) else {
            return Outcome::refused(
                Problem::new(ErrorCode::EffectRefused, "there is no such exchange")
                    .field("exchange")
                    .found(order.exchange.as_str())
                    .expected(names(self.exchanges.keys())),
            );
        };
        match exchange.fill(id, order) {
            Ok(filled) => Outcome::done(serde_json::json!(filled)),
            Err(problem) => Outcome::refused(problem),
        }
    }

    /// All tools by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Identifier, &Tool)> {
        self.tools.iter()
    }

    /// The names of all tools, for a complaint that one is missing.
    #[must_use]
    pub fn names(&self) -> String {
        names(self.tools.keys())
    }
}

fn names<'a>(keys: impl Iterator<Item = &'a Identifier>) -> String {
    let names: Vec<&str> = keys.map(Identifier::as_str).collect();
    if names.is_empty() {
        "none is configured".to_owned()
    } else {
        names.join(", ")
    }
}

/// What an answer with a status of 500 or above says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerErrors {
    /// It may have happened.
    #[default]
    InDoubt,
    /// It certainly did not happen: this server promises it.
    Failed,
}

/// A secret that is sent along: its name only. The sink reads its value from a file or the
/// environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    /// Name of the secret.
    pub name: Identifier,
    /// Header that it is sent in, lower case.
    pub header: String,
    /// In front of it, such as `Bearer `.
    pub prefix: String,
}

/// How often a tool may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallRate {
    /// On average, times a second.
    pub per_second: std::num::NonZeroU32,
    /// At once, after a pause.
    pub burst: std::num::NonZeroU32,
}

/// One HTTP server, and what may be asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Where it is.
    pub base: Base,
    /// Methods that may be used.
    pub methods: BTreeSet<Method>,
    /// Paths that may be used, each with all below it.
    pub paths: Vec<Path>,
    /// Networks besides the public one that it may be in.
    pub reach: BTreeSet<Network>,
    /// The header that carries the effect's id, where the server knows such keys.
    pub idempotency_header: Option<String>,
    /// Sent along with each request.
    pub secret: Option<SecretUse>,
    /// Sent along with each request.
    pub headers: BTreeMap<String, String>,
    /// What a status of 500 or above says.
    pub on_5xx: ServerErrors,
    /// Path of chat completions, for the kind `model`.
    pub chat_path: Path,
    /// Longest wait for a connection, milliseconds.
    pub connect_ms_max: u64,
    /// Longest time for the whole effect, with all waits and redirects, milliseconds.
    pub time_ms_max: u64,
    /// Longest body of a request, bytes.
    pub request_bytes_max: usize,
    /// Longest head of an answer, bytes.
    pub head_bytes_max: usize,
    /// Longest body of an answer, bytes; also after decompression.
    pub answer_bytes_max: usize,
    /// So many redirects are followed, within the tool's own base, methods and paths.
    pub redirects_max: u32,
    /// So many calls at once from one process.
    pub concurrent_max: usize,
    /// So many calls a second from one process.
    pub rate: Option<CallRate>,
}

impl Tool {
    /// Whether this may be asked.
    #[must_use]
    pub fn allows(&self, method: Method, path: &Path) -> bool {
        self.methods.contains(&method) && self.paths.iter().any(|allowed| allowed.holds(path))
    }
}
