//! Data to stdout, all else to stderr; colours only on a terminal.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::args::Global;
use crate::failure::{Failure, Result};

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    quiet: bool,
    color: bool,
}

/// A colour that means the same everywhere.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tone {
    Good,
    Bad,
    Dim,
    Strong,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        let wanted = !global.no_color && std::env::var_os("NO_COLOR").is_none();
        Self {
            json: global.json,
            quiet: global.quiet,
            color: wanted && io::stdout().is_terminal(),
        }
    }

    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// One line of data. A reader that went away ends the command quietly.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> Result<()> {
        writeln!(io::stdout().lock(), "{}", text.as_ref()).map_err(broken_pipe)
    }

    /// One JSON object on one line.
    pub(crate) fn object(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(crate::failure::internal)?;
        self.line(text)
    }

    /// A hint on stderr.
    pub(crate) fn hint(&self, text: impl AsRef<str>) {
        if !self.quiet {
            // nothing is lost if stderr is closed
            let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
        }
    }

    /// A failure on stderr (also as JSON where that is asked for).
    pub(crate) fn failure(&self, failure: &Failure) {
        let Failure::Problem(problem) = failure else {
            return;
        };
        let mut stderr = io::stderr().lock();
        let _ = if self.json {
            let text = serde_json::to_string(&serde_json::json!({ "error": problem }));
            writeln!(stderr, "{}", text.unwrap_or_default())
        } else {
            writeln!(
                stderr,
                "error: {problem}\n  what to do: {}\n  more: {}",
                problem.remedy, problem.help
            )
        };
    }

    /// A bar for work of known length; hidden where nobody looks.
    pub(crate) fn bar(&self, length: u64, what: &'static str) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(length), self.target());
        let style = ProgressStyle::with_template(
            "{msg:24} [{bar:30}] {human_pos}/{human_len} {per_sec} {eta}",
        );
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        bar
    }

    /// A spinner for work of unknown length.
    pub(crate) fn spinner(&self) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(None, self.target());
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
        bar
    }

    fn target(&self) -> ProgressDrawTarget {
        if self.quiet || !io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        }
    }
}

pub(crate) fn broken_pipe(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::Exit(0)
    } else {
        crate::failure::internal(error)
    }
}

/// Rows with aligned columns.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned).to_vec()],
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Prints head and rows; numbers are set to the right.
    pub(crate) fn print(&self, output: &Output) -> Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| {
            self.rows
                .iter()
                .filter_map(|r| r.get(c))
                .map(|t| t.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let number = index > 0
                    && cell
                        .chars()
                        .all(|c| c.is_ascii_digit() || ".,-%".contains(c));
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                if number {
                    line.push_str(&format!("{pad}{cell}  "));
                } else {
                    line.push_str(&format!("{cell}{pad}  "));
                }
            }
            let line = line.trim_end();
            output.line(if index == 0 {
                output.paint(Tone::Dim, line)
            } else {
                line.to_owned()
            })?;
        }
        Ok(())
    }
}
