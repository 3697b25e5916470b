use std::time::Duration;

/// What happened, line by line.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    mode: Mode,
    pub(crate) lines: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing is kept: many seeds.
    #[default]
    Off,
    /// Lines are kept.
    Kept,
    /// Lines are printed as well.
    Printed,
}

impl Trace {
    pub(crate) const fn new(mode: Mode) -> Self {
        let lines = Vec::new();
        Self { mode, lines }
    }

    pub(crate) fn note(&mut self, at: Duration, line: impl FnOnce() -> String) {
        if self.mode == Mode::Off {
            return;
        }
        let line = format!("{:>7} ms  {}", at.as_millis(), line());
        if self.mode == Mode::Printed {
            println!("{line}");
        }
        self.lines.push(line);
    }
}
