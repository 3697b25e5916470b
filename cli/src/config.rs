//! `sovereign.toml`: what an organisation configures.

use std::path::Path;

use serde::Deserialize;
use sovereign_agents::programs::{self, Program};
use sovereign_effects::Programs;
use sovereign_effects::tools::ProgramTexts;
use sovereign_schemas::{Department, Departments, ErrorCode, Problem};

use crate::failure::Result;

/// Settings of one engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    pub(crate) departments: Departments,
    /// What effects may run on this machine.
    pub(crate) processes: Programs,
    /// Programs that act as agents.
    pub(crate) programs: Vec<Program>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    departments: Vec<Department>,
    #[serde(default)]
    processes: ProgramTexts,
    #[serde(default)]
    programs: Vec<Program>,
}

/// Reads the file; the defaults if there is none.
pub(crate) fn load(path: Option<&Path>) -> Result<Config> {
    let Some(path) = path else {
        return Ok(Config::default());
    };
    let text = std::fs::read_to_string(path).map_err(|e| crate::failure::file(path, &e))?;
    Ok(parse(&text).map_err(|p| p.found(path.display().to_string()))?)
}

fn parse(text: &str) -> Result<Config, Problem> {
    let file: File = toml::from_str(text).map_err(|e| {
        let line = e
            .span()
            .map(|s| text[..s.start.min(text.len())].matches('\n').count() as u64 + 1);
        let problem = Problem::new(ErrorCode::InvalidConfig, e.message().to_owned());
        match line {
            Some(line) => problem.line(line),
            None => problem,
        }
    })?;
    let processes = Programs::check(&file.processes)
        .map_err(|fault| fault.problem(ErrorCode::InvalidConfig, text))?;
    programs::check(&file.programs)?;
    let programs = file.programs;
    if file.departments.is_empty() {
        let departments = Departments::default();
        return Ok(Config {
            departments,
            processes,
            programs,
        });
    }
    let departments = Departments::new(file.departments)
        .map_err(|e| Problem::new(ErrorCode::InvalidConfig, e.to_string()).field("departments"))?;
    Ok(Config {
        departments,
        processes,
        programs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_setting_is_named_with_its_line() {
        let problem = parse("[[departments]]\nid = 1\nnam = \"x\"\n").unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidConfig);
        assert_eq!(problem.line, Some(3));
        let problem = parse("[[departments]]\nid = 1\nname = \"orchestrator\"\n").unwrap_err();
        assert!(problem.message.contains("is missing"), "{problem}");
    }

    #[test]
    fn a_program_out_of_its_range_is_named() {
        let text = "[[programs]]\nname = \"m\"\ncommand = \"/bin/cat\"\nagents = [\"m\"]\n\
                    events = [\"MarketObserved\"]\n";
        assert_eq!(parse(text).unwrap().programs.len(), 1);
        for (more, field) in [
            ("window = 0", "programs.window"),
            ("answer_ms = 1", "programs.answer_ms"),
            ("faults = 1000", "programs.faults"),
        ] {
            let problem = parse(&format!("{text}{more}\n")).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some(field), "{problem}");
        }
        let problem = parse(&text.replace("MarketObserved", "Nonsense")).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("programs.events"));
        let problem = parse(&format!("{text}{text}")).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("programs.name"));
        let problem = parse(&text.replace("/bin/cat", "cat")).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("programs.command"));
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse("").unwrap().departments, Departments::default());
    }
}
