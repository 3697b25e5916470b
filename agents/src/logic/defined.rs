//! What the built-in agents are made of, as data: recorded before they do anything.

use std::collections::{BTreeMap, BTreeSet};

use sovereign_aggregates::agent::Definition;
use sovereign_effects::Exchange;
use sovereign_schemas::events::AgentState;
use sovereign_schemas::{IdError, Identifier};

use super::{auditor, trader::strategy};

/// The definition of a built-in agent in this role. Its parameters are the constants of its logic,
/// so a build with other constants has another digest.
///
/// # Errors
/// If the role's name cannot be part of a program's.
pub(crate) fn definition(role: &str) -> Result<Definition, IdError> {
    let mut definition = Definition::of(format!("built-in:{role}").parse::<Identifier>()?);
    if role != "trader" {
        // they observe and judge, and never walk
        definition.states = BTreeSet::from([AgentState::Idle]);
    }
    definition.parameters = parameters(role)
        .into_iter()
        .map(|(name, value)| Ok((name.parse()?, value.to_string().parse()?)))
        .collect::<Result<BTreeMap<Identifier, Identifier>, IdError>>()?;
    Ok(definition)
}

fn parameters(role: &str) -> Vec<(&'static str, i64)> {
    match role {
        "trader" => vec![
            ("fast_bars", strategy::FAST as i64),
            ("slow_bars", strategy::SLOW as i64),
            ("volatility_moves", strategy::VOLATILITY_MOVES as i64),
            ("momentum_bars", strategy::MOMENTUM_BARS as i64),
            ("volatility_percent_max", strategy::VOLATILITY_PERCENT_MAX),
            ("stop_percent", strategy::STOP_PERCENT),
            ("amount_min", strategy::AMOUNT_MIN),
            ("amount_per_percent", strategy::AMOUNT_PER_PERCENT),
            ("amount_max", strategy::AMOUNT_MAX),
            ("quantity_digits", i64::from(strategy::QUANTITY_DIGITS)),
        ],
        "auditor" => vec![
            ("price_off_percent_max", auditor::PRICE_OFF_PERCENT_MAX),
            ("amount_cap", auditor::AMOUNT_CAP),
            ("jump_percent", auditor::JUMP_PERCENT),
            ("jump_bars", auditor::JUMP_BARS as i64),
            ("range_percent_max", auditor::RANGE_PERCENT_MAX),
            ("loss_budget", auditor::LOSS_BUDGET),
        ],
        "exchange" => vec![("commission_per_mille", Exchange::COMMISSION_PER_MILLE)],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::super::SHARED;
    use super::*;

    #[test]
    fn every_built_in_agent_has_a_definition_that_the_machine_takes() {
        let shared = SHARED.iter().map(|role| role.name);
        for role in shared.chain(["trader", "hunter"]) {
            let definition = definition(role).unwrap();
            assert_eq!(definition.check(), Ok(()), "{role}");
            assert_eq!(definition.program.as_str(), format!("built-in:{role}"));
        }
    }
}
