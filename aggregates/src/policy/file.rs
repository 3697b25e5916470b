//! A policy as people write it: TOML, read strictly, every complaint with its line.

use std::collections::BTreeMap;

use serde::Deserialize;
use sovereign_effects::Tools;
use sovereign_effects::tools::{ExchangeText, ToolText, ToolTexts};
use sovereign_schemas::{Decimal, ErrorCode, Identifier, Problem};
use toml::Spanned;

use super::{Approver, Policy, Rule, Tier};

/// Longest text of a policy, bytes.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
const RULES_MAX: usize = 256;
const TIERS_MAX: usize = 8;
const APPROVERS_MAX: usize = 256;
/// Nobody reaches more people within a request's time.
const PEOPLE_MAX: u8 = 9;
/// Shortest and longest time for an answer, seconds.
const TTL_S: std::ops::RangeInclusive<i64> = 60..=604_800;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<i32>,
    #[serde(default)]
    approval_ttl_s: Option<Spanned<i64>>,
    #[serde(default)]
    rules: Vec<Spanned<RuleText>>,
    #[serde(default)]
    approvers: BTreeMap<Spanned<String>, ApproverText>,
    #[serde(default)]
    tools: BTreeMap<Spanned<String>, ToolText>,
    #[serde(default)]
    exchanges: BTreeMap<Spanned<String>, ExchangeText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: Identifier,
    #[serde(default)]
    department: Option<Identifier>,
    #[serde(default)]
    action: Option<Identifier>,
    #[serde(default)]
    asset: Option<Identifier>,
    approvals: Vec<Spanned<TierText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierText {
    above: Decimal,
    people: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproverText {
    #[serde(default)]
    amount_max: Option<Decimal>,
}

/// Where in the text a problem lies.
struct At<'t>(&'t str);

impl At<'_> {
    fn line(&self, offset: usize) -> u64 {
        let before = self.0.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count() as u64
    }

    fn problem(&self, offset: usize, message: impl Into<String>) -> Problem {
        Problem::new(ErrorCode::InvalidPolicy, message).line(self.line(offset))
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidPolicy`], with the line: no TOML, a field that does not exist, a number
    /// out of range, or rules that contradict each other, such as one that is never reached.
    ///
    /// # Examples
    /// ```
    /// use sovereign_aggregates::policy::Policy;
    /// let problem = Policy::parse("version = 2\ncolour = \"red\"\n").unwrap_err();
    /// assert_eq!(problem.line, Some(2));
    /// ```
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let at = At(text);
        if text.len() > TEXT_BYTES_MAX {
            return Err(
                Problem::new(ErrorCode::InvalidPolicy, "the policy is too long")
                    .found(format!("{} bytes", text.len()))
                    .expected(format!("at most {TEXT_BYTES_MAX} bytes")),
            );
        }
        let file: File = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            at.problem(offset, error.message())
        })?;
        let version = *file.version.get_ref();
        if version < 1 {
            let start = file.version.span().start;
            return Err(at.problem(start, "the version must be 1 or more"));
        }
        let approval_ttl_s = match &file.approval_ttl_s {
            None => super::APPROVAL_TTL_S,
            Some(ttl) if TTL_S.contains(ttl.get_ref()) => *ttl.get_ref(),
            Some(ttl) => {
                let problem = at.problem(ttl.span().start, "approval_ttl_s is out of range");
                let (least, most) = (TTL_S.start(), TTL_S.end());
                return Err(problem.expected(format!("{least} to {most} seconds")));
            }
        };
        let approvers = approvers(&at, file.approvers)?;
        let rules = rules(&at, &file.rules)?;
        let (tools, exchanges) = (file.tools, file.exchanges);
        let tools = Tools::check(ToolTexts { tools, exchanges })
            .map_err(|fault| fault.problem(ErrorCode::InvalidPolicy, text))?;
        let policy = Self {
            version,
            approval_ttl_s,
            rules,
            approvers,
            tools,
            text: text.to_owned(),
            closed: false,
        };
        policy.must_be_answerable(&at, &file.rules)?;
        Ok(policy)
    }

    /// Wherever people are asked, so many of the approvers may say yes.
    fn must_be_answerable(&self, at: &At<'_>, texts: &[Spanned<RuleText>]) -> Result<(), Problem> {
        if self.approvers.is_empty() {
            return Ok(());
        }
        for text in texts {
            for tier in &text.get_ref().approvals {
                let TierText { above, people } = *tier.get_ref();
                let may = |a: &&Approver| a.amount_max.is_none_or(|most| most > above);
                let able = self.approvers.values().filter(may).count();
                if able < usize::from(people) {
                    let message = format!(
                        "nobody could answer: above {above}, {people} must approve, and {able} of the approvers may"
                    );
                    return Err(at.problem(tier.span().start, message));
                }
            }
        }
        Ok(())
    }
}

fn approvers(
    at: &At<'_>,
    texts: BTreeMap<Spanned<String>, ApproverText>,
) -> Result<BTreeMap<String, Approver>, Problem> {
    if texts.len() > APPROVERS_MAX {
        let message = format!("more than {APPROVERS_MAX} approvers");
        return Err(Problem::new(ErrorCode::InvalidPolicy, message));
    }
    let mut approvers = BTreeMap::new();
    for (name, ApproverText { amount_max }) in texts {
        let start = name.span().start;
        let name = name.into_inner();
        if let Err(error) = name.parse::<Identifier>() {
            return Err(at.problem(start, format!("an approver's name {error}")));
        }
        if amount_max.is_some_and(|most| !most.is_positive()) {
            let message = format!("approvers.{name}: amount_max must be above zero");
            return Err(at.problem(start, message));
        }
        approvers.insert(name, Approver { amount_max });
    }
    Ok(approvers)
}

fn rules(at: &At<'_>, texts: &[Spanned<RuleText>]) -> Result<Vec<Rule>, Problem> {
    if texts.len() > RULES_MAX {
        let message = format!("more than {RULES_MAX} rules");
        return Err(Problem::new(ErrorCode::InvalidPolicy, message));
    }
    let mut rules: Vec<(Rule, u64)> = Vec::with_capacity(texts.len());
    for text in texts {
        let start = text.span().start;
        let line = at.line(start);
        let text = text.get_ref();
        let rule = Rule {
            name: text.name.clone(),
            department: text.department.clone(),
            action: text.action.clone(),
            asset: text.asset.clone(),
            tiers: tiers(at, &text.approvals)?,
        };
        if let Some((other, earlier)) = rules.iter().find(|(other, _)| other.name == rule.name) {
            let message = format!("rule {} is there already, on line {earlier}", other.name);
            return Err(at.problem(start, message));
        }
        if let Some((other, earlier)) = rules.iter().find(|(other, _)| other.covers(&rule)) {
            let message = format!(
                "rule {} is never reached: rule {} on line {earlier} comes first and applies to all that it applies to",
                rule.name, other.name
            );
            return Err(at.problem(start, message));
        }
        rules.push((rule, line));
    }
    if !rules
        .last()
        .is_some_and(|(rule, _)| rule.is_for_everything())
    {
        let message = "the last rule must apply to everything: no department, action or asset";
        let start = texts.last().map_or(0, |text| text.span().start);
        return Err(at.problem(start, message));
    }
    Ok(rules.into_iter().map(|(rule, _)| rule).collect())
}

fn tiers(at: &At<'_>, texts: &[Spanned<TierText>]) -> Result<Vec<Tier>, Problem> {
    let mut tiers: Vec<Tier> = Vec::with_capacity(texts.len());
    for text in texts {
        let start = text.span().start;
        let TierText { above, people } = *text.get_ref();
        if tiers.len() == TIERS_MAX {
            return Err(at.problem(start, format!("more than {TIERS_MAX} steps")));
        }
        if above.is_negative() {
            return Err(at.problem(start, "above must not be negative"));
        }
        if !(1..=PEOPLE_MAX).contains(&people) {
            let problem = at.problem(start, "people is out of range");
            return Err(problem.expected(format!("1 to {PEOPLE_MAX}")));
        }
        if let Some(last) = tiers.last()
            && (above <= last.above || people <= last.people)
        {
            let message = format!(
                "contradicts the step before: above {} asks {}; a step asks more people for a larger amount",
                last.above, last.people
            );
            return Err(at.problem(start, message));
        }
        tiers.push(Tier { above, people });
    }
    Ok(tiers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_and_message(text: &str) -> (u64, String) {
        let problem = Policy::parse(text).unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidPolicy);
        (problem.line.unwrap_or(0), problem.message)
    }

    const REST: &str =
        "[[rules]]\nname = \"rest\"\napprovals = [{ above = \"1000\", people = 1 }]\n";

    #[test]
    fn complaints_name_the_line() {
        let rule = |lines: &str| format!("version = 2\n[[rules]]\nname = \"a\"\n{lines}\n{REST}");
        let cases: Vec<(String, u64, &str)> = vec![
            ("version = ".into(), 1, ""),
            ("version = 0\n".into(), 1, "1 or more"),
            (
                format!("version = 2\napproval_ttl_s = 5\n{REST}"),
                2,
                "out of range",
            ),
            (
                format!("version = 2\n\ncolour = 1\n{REST}"),
                3,
                "unknown field",
            ),
            (rule("colour = 1\napprovals = []"), 4, "unknown field"),
            (rule("asset = \"a b\"\napprovals = []"), 4, ""),
            (rule("asset = \"X\""), 2, "missing field"),
            (
                rule("asset = \"X\"\napprovals = [\n{ above = \"1\", people = 0 }]"),
                6,
                "out of range",
            ),
            (
                rule("asset = \"X\"\napprovals = [\n{ above = \"-1\", people = 1 }]"),
                6,
                "negative",
            ),
            (
                rule(
                    "asset = \"X\"\napprovals = [{ above = \"10\", people = 2 },\n{ above = \"20\", people = 1 }]",
                ),
                6,
                "contradicts",
            ),
            (
                rule(
                    "asset = \"X\"\napprovals = [{ above = \"10\", people = 1 },\n{ above = \"10\", people = 2 }]",
                ),
                6,
                "contradicts",
            ),
            (rule("approvals = []"), 5, "never reached"),
            (
                format!(
                    "version = 2\n{REST}{}",
                    REST.replace("[[rules]]\n", "[[rules]]\nasset = \"X\"\n")
                ),
                5,
                "there already",
            ),
            (
                "version = 2\n[[rules]]\nname = \"a\"\nasset = \"X\"\napprovals = []\n".into(),
                2,
                "must apply to everything",
            ),
            ("version = 2\n".into(), 1, "must apply to everything"),
            (
                format!("version = 2\n{REST}[approvers.alice]\namount_max = \"1000\"\n"),
                4,
                "nobody could answer",
            ),
            (
                format!("version = 2\n{REST}[approvers.alice]\namount_max = \"0\"\n"),
                5,
                "above zero",
            ),
            (
                format!("version = 2\n{REST}[approvers.\"a b\"]\n"),
                5,
                "name",
            ),
            (
                format!(
                    "version = 2\n{REST}[tools.t]\nbase = \"ftp://x\"\nmethods = [\"GET\"]\npaths = [\"/\"]\n"
                ),
                6,
                "https://",
            ),
            (
                format!("version = 2\n{REST}[exchanges.e]\ncolour = 1\n"),
                6,
                "unknown field",
            ),
        ];
        for (text, line, says) in cases {
            let (found, message) = line_and_message(&text);
            assert_eq!(found, line, "{message}\n{text}");
            assert!(message.contains(says), "{message}\n{text}");
        }
    }

    #[test]
    fn too_much_is_refused() {
        let long = format!("version = 2\n#{}\n{REST}", "x".repeat(TEXT_BYTES_MAX));
        assert!(line_and_message(&long).1.contains("too long"));
        let many: String = (0..300)
            .map(|n| format!("[[rules]]\nname = \"r{n}\"\nasset = \"A{n}\"\napprovals = []\n"))
            .collect();
        assert!(
            line_and_message(&format!("version = 2\n{many}{REST}"))
                .1
                .contains("rules")
        );
    }
}
