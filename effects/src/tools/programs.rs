use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Deserialize;
use sovereign_schemas::{ErrorCode, Identifier, Problem};
use toml::Spanned;

use super::file::{At, Fault, read};

const PROGRAMS_MAX: usize = 256;
const TIME_MS: RangeInclusive<u64> = 1..=3_600_000;
const TIME_MS_DEFAULT: u64 = 60_000;
const OUTPUT_BYTES: RangeInclusive<u64> = 0..=(80 << 10);
const OUTPUT_BYTES_DEFAULT: u64 = 32 << 10;
const ARGUMENTS: RangeInclusive<u64> = 0..=64;
const CONCURRENT: RangeInclusive<u64> = 1..=64;
const CONCURRENT_DEFAULT: u64 = 2;

/// The programs of this machine that effects may run: sections `[processes.NAME]` of
/// `sovereign.toml`. They are not part of the policy, which administrators of the ledger change:
/// that must not let them run programs on the machines of workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programs(BTreeMap<Identifier, Program>);

/// One program, and how it may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The file, an absolute path.
    pub path: PathBuf,
    /// Always in front.
    pub arguments: Vec<String>,
    /// So many more may come from the effect.
    pub more_arguments_max: usize,
    /// Arguments of the effect that begin with `-` must be among these.
    pub flags: BTreeSet<String>,
    /// Where it runs, an absolute path; `/` if left out.
    pub folder: PathBuf,
    /// Longest time, milliseconds. Then it is killed with all it started in its process group.
    pub time_ms_max: u64,
    /// Longest standard output, and longest standard error, bytes.
    pub output_bytes_max: usize,
    /// So many at once from one process.
    pub concurrent_max: usize,
    /// Whether running it twice does nothing more than running it once.
    pub repeatable: bool,
    /// Exit codes that promise that nothing was done.
    pub not_done_exits: BTreeSet<u8>,
}

/// The section as it is written; a field of a larger file.
pub type ProgramTexts = BTreeMap<Spanned<String>, ProgramText>;

/// One section `[processes.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramText {
    path: Spanned<PathBuf>,
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    more_arguments_max: Option<Spanned<u64>>,
    #[serde(default)]
    flags: BTreeSet<Spanned<String>>,
    #[serde(default)]
    folder: Option<Spanned<PathBuf>>,
    #[serde(default)]
    time_ms_max: Option<Spanned<u64>>,
    #[serde(default)]
    output_bytes_max: Option<Spanned<u64>>,
    #[serde(default)]
    concurrent_max: Option<Spanned<u64>>,
    #[serde(default)]
    repeatable: bool,
    #[serde(default)]
    not_done_exits: BTreeSet<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    processes: ProgramTexts,
}

impl Programs {
    /// Reads sections `[processes.NAME]` and nothing else.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfig`], with line and setting.
    ///
    /// # Examples
    /// ```
    /// use sovereign_effects::Programs;
    /// let programs = Programs::parse("[processes.report]\npath = \"/usr/local/bin/report\"\n")?;
    /// assert!(programs.get(&"report".parse().unwrap()).is_some());
    /// let problem = Programs::parse("[processes.report]\npath = \"report\"\n").unwrap_err();
    /// assert_eq!(problem.field.as_deref(), Some("processes.report.path"));
    /// # Ok::<(), sovereign_schemas::Problem>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let file: File = read(text)?;
        Self::check(&file.processes).map_err(|fault| fault.problem(ErrorCode::InvalidConfig, text))
    }

    /// Checks what was read as part of a larger file.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(texts: &ProgramTexts) -> Result<Self, Fault> {
        let mut programs = BTreeMap::new();
        for (name, text) in texts {
            let at = At::of("processes", name);
            if programs.len() == PROGRAMS_MAX {
                return Err(at.fault(format!("more than {PROGRAMS_MAX} programs")));
            }
            programs.insert(at.identifier()?, program(&at, text)?);
        }
        Ok(Self(programs))
    }

    /// The program of this name.
    #[must_use]
    pub fn get(&self, name: &Identifier) -> Option<&Program> {
        self.0.get(name)
    }

    /// All programs by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Identifier, &Program)> {
        self.0.iter()
    }

    /// The names of all, for a complaint that one is missing.
    #[must_use]
    pub fn names(&self) -> String {
        super::names(self.0.keys())
    }
}

fn program(at: &At<'_>, text: &ProgramText) -> Result<Program, Fault> {
    for (field, path) in [("path", Some(&text.path)), ("folder", text.folder.as_ref())] {
        if let Some(path) = path
            && !path.get_ref().is_absolute()
        {
            return Err(at.wrong(field, path, "must be an absolute path"));
        }
    }
    if let Some(flag) = text
        .flags
        .iter()
        .find(|flag| !flag.get_ref().starts_with('-'))
    {
        return Err(at.wrong("flags", flag, "must begin with -"));
    }
    let more = text.more_arguments_max.as_ref();
    Ok(Program {
        path: text.path.get_ref().clone(),
        arguments: text.arguments.clone(),
        more_arguments_max: at.size("more_arguments_max", more, &ARGUMENTS, 0)?,
        flags: text.flags.iter().map(|f| f.get_ref().clone()).collect(),
        folder: match &text.folder {
            Some(folder) => folder.get_ref().clone(),
            None => PathBuf::from("/"),
        },
        time_ms_max: at.number(
            "time_ms_max",
            text.time_ms_max.as_ref(),
            &TIME_MS,
            TIME_MS_DEFAULT,
        )?,
        output_bytes_max: at.size(
            "output_bytes_max",
            text.output_bytes_max.as_ref(),
            &OUTPUT_BYTES,
            OUTPUT_BYTES_DEFAULT,
        )?,
        concurrent_max: at.size(
            "concurrent_max",
            text.concurrent_max.as_ref(),
            &CONCURRENT,
            CONCURRENT_DEFAULT,
        )?,
        repeatable: text.repeatable,
        not_done_exits: text.not_done_exits.clone(),
    })
}
