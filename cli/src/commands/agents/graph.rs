//! `sovereign agents graph`: the machine's table, drawn.

use std::fmt::Write as _;

use sovereign_aggregates::agent::machine;
use sovereign_aggregates::agent::{Agent, Definition};
use sovereign_schemas::events::AgentState::{
    self, Analyzing, Executing, Frozen, Idle, SafeMode, Scanning, Verifying,
};

use super::folded;
use crate::args::GraphFormat;
use crate::failure::Result;
use crate::location::Location;
use crate::output::Output;

type Edge = (AgentState, AgentState);

pub(super) async fn run(
    location: &Location,
    output: Output,
    name: Option<&str>,
    format: GraphFormat,
) -> Result<()> {
    let agent = match name {
        None => None,
        Some(name) => Some(folded(location, name).await?.agent),
    };
    let edges = edges_of(agent.as_ref());
    let current = agent.as_ref().map(|agent| agent.state);
    let drawing = match format {
        GraphFormat::Mermaid => mermaid(&edges, current),
        GraphFormat::Svg => svg(&edges, current),
    };
    output.line(drawing.trim_end())
}

/// The edges of the machine; of one agent those that its definition leaves.
fn edges_of(agent: Option<&Agent>) -> Vec<Edge> {
    let defined = agent.and_then(|agent| agent.definition.as_ref());
    let has = |(from, to): &Edge| {
        let uses = |definition: &Definition| definition.has(*from, *to);
        let used = defined.is_none_or(|d| d.definition.as_ref().is_some_and(uses));
        machine::is_safety(*from, *to) || used
    };
    let states = machine::edges().into_iter().filter(has);
    // safety from a state that cannot be reached says nothing
    let all: Vec<Edge> = states.collect();
    let reached = |state: AgentState| {
        matches!(state, Idle | SafeMode) || all.iter().any(|(_, to)| *to == state)
    };
    all.iter()
        .copied()
        .filter(|(from, _)| reached(*from))
        .collect()
}

fn mermaid(edges: &[Edge], current: Option<AgentState>) -> String {
    let mut text = String::from("stateDiagram-v2\n  [*] --> IDLE\n");
    for (from, to) in edges {
        let needs = if *to == Executing {
            ": only with a clearance"
        } else {
            ""
        };
        let _ = writeln!(text, "  {from} --> {to}{needs}");
    }
    if let Some(state) = current {
        text.push_str("  classDef current fill:#ffd54f,stroke:#b26a00,stroke-width:3px\n");
        let _ = writeln!(text, "  class {state} current");
    }
    text
}

/// Where the middle of a state's box lies: work from left to right, safety below it.
const fn place(state: AgentState) -> (f64, f64) {
    match state {
        Idle => (90.0, 90.0),
        Scanning => (270.0, 90.0),
        Analyzing => (450.0, 90.0),
        Verifying => (630.0, 90.0),
        Executing => (810.0, 90.0),
        SafeMode => (270.0, 330.0),
        Frozen => (630.0, 330.0),
    }
}

const WIDTH: f64 = 120.0;
const HEIGHT: f64 = 40.0;

/// The border of the box around `from`, on the way to `to`.
fn border(from: (f64, f64), to: (f64, f64)) -> (f64, f64) {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let across = (WIDTH / 2.0) / dx.abs().max(0.001);
    let down = (HEIGHT / 2.0) / dy.abs().max(0.001);
    let part = across.min(down).min(1.0);
    (from.0 + dx * part, from.1 + dy * part)
}

fn svg(edges: &[Edge], current: Option<AgentState>) -> String {
    let mut text = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 390\" \
         font-family=\"sans-serif\" font-size=\"14\">\n\
         <defs><marker id=\"arrow\" viewBox=\"0 0 10 10\" refX=\"10\" refY=\"5\" markerWidth=\"8\" \
         markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L10 5L0 10z\"/></marker></defs>\n",
    );
    for (from, to) in edges {
        let (a, b) = (place(*from), place(*to));
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        // bent to its left, so that the way back does not lie on it; far ways bend more
        let bend = if a.1 == b.1 { 0.18 } else { 0.06 } * length;
        let middle = (
            f64::midpoint(a.0, b.0) + (b.1 - a.1) / length * bend,
            f64::midpoint(a.1, b.1) - (b.0 - a.0) / length * bend,
        );
        let (start, end) = (border(a, middle), border(b, middle));
        let dash = if machine::is_safety(*from, *to) {
            " stroke-dasharray=\"4 4\""
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "<path d=\"M{:.0} {:.0}Q{:.0} {:.0} {:.0} {:.0}\" fill=\"none\" stroke=\"#444\"{dash} \
             marker-end=\"url(#arrow)\"><title>{from} to {to}</title></path>",
            start.0, start.1, middle.0, middle.1, end.0, end.1
        );
    }
    for state in AgentState::ALL {
        let drawn = |(from, to): &Edge| from == state || to == state;
        if !edges.iter().any(drawn) {
            continue;
        }
        let (x, y) = place(*state);
        let (fill, stroke) = if current == Some(*state) {
            ("#ffd54f", 3)
        } else {
            ("#eef3f8", 1)
        };
        let _ = writeln!(
            text,
            "<rect x=\"{:.0}\" y=\"{:.0}\" width=\"{WIDTH:.0}\" height=\"{HEIGHT:.0}\" rx=\"8\" \
             fill=\"{fill}\" stroke=\"#234\" stroke-width=\"{stroke}\"/>\n\
             <text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{state}</text>",
            x - WIDTH / 2.0,
            y - HEIGHT / 2.0,
            y + 5.0
        );
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_is_the_one_of_the_documentation() {
        let page = include_str!("../../../../docs/ARCHITECTURE.md");
        let drawn = mermaid(&edges_of(None), None);
        assert!(page.contains(&format!("```mermaid\n{drawn}```")), "{drawn}");
    }

    #[test]
    fn every_edge_and_the_current_state_are_drawn() {
        let edges = edges_of(None);
        let picture = svg(&edges, Some(Verifying));
        assert_eq!(picture.matches("<path d=\"M").count() - 1, edges.len());
        assert_eq!(picture.matches("<rect").count(), AgentState::ALL.len());
        assert_eq!(picture.matches("#ffd54f").count(), 1);
        let text = mermaid(&edges, Some(Verifying));
        assert!(text.contains("class VERIFYING current"));
    }

    #[test]
    fn an_agent_is_drawn_with_the_edges_that_its_definition_leaves() {
        let mut agent = Agent::default();
        let text = "{\"program\":\"x\",\"states\":[\"IDLE\",\"SCANNING\"]}";
        agent.evolve(
            &sovereign_schemas::events::AgentDefined {
                version: 1,
                digest: sovereign_schemas::Digest::ZERO,
                definition: text.to_owned(),
                prompt: None,
                prompt_likeness: vec![],
            }
            .into(),
        );
        let work = [(Idle, Scanning), (Scanning, Idle)];
        let safety = [(Idle, SafeMode), (Scanning, SafeMode), (SafeMode, Idle)];
        let frozen = [(Idle, Frozen), (Scanning, Frozen), (SafeMode, Frozen)];
        let expected: Vec<Edge> = work.into_iter().chain(safety).chain(frozen).collect();
        assert_eq!(edges_of(Some(&agent)), expected);
    }
}
