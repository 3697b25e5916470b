//! Processes that end with the test, run as somebody who is not root.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

/// The binary under test, beside the one that tests it.
///
/// # Errors
/// If it is not built.
pub fn engine() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile = own.parent().and_then(Path::parent);
    let path = profile.context("no build folder")?.join("sovereign");
    anyhow::ensure!(
        path.exists(),
        "{} is missing: run cargo build --workspace first",
        path.display()
    );
    Ok(path)
}

/// Whom servers run as: PostgreSQL refuses root.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    switch_to: Option<(u32, u32)>,
}

impl Account {
    /// Ourselves, or `nobody` if we are root.
    ///
    /// # Errors
    /// If root finds no such user.
    pub fn choose() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { switch_to: None });
        }
        let users = std::fs::read_to_string("/etc/passwd")?;
        let nobody = users.lines().find(|line| line.starts_with("nobody:"));
        let ids: Vec<u32> = nobody
            .context("there is no user nobody")?
            .split(':')
            .filter_map(|field| field.parse().ok())
            .collect();
        let [uid, gid] = ids[..] else {
            anyhow::bail!("user nobody has no ids");
        };
        let switch_to = Some((uid, gid));
        Ok(Self { switch_to })
    }

    /// Makes a folder that belongs to this account.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn folder(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
        self.own(path)
    }

    /// Gives a file to this account.
    ///
    /// # Errors
    /// If that is not allowed.
    pub fn own(&self, path: &Path) -> anyhow::Result<()> {
        if let Some((uid, gid)) = self.switch_to {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
        }
        Ok(())
    }
}

/// A program, its arguments, and where its output goes.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Appended to, stdout and stderr.
    pub log: PathBuf,
    /// As whom; as ourselves if `None`.
    pub account: Option<Account>,
}

impl Launch {
    fn command(&self) -> anyhow::Result<Command> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(engine()?);
        command.args(["child", "--death-signal", "KILL", "--parent"]);
        command.arg(std::process::id().to_string());
        if let Some((uid, gid)) = self.account.and_then(|account| account.switch_to) {
            command.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
        }
        command.arg("--").arg(&self.program).args(&self.args);
        // settings of whoever runs the tests must not reach servers and engines
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PG") || text.starts_with("SOVEREIGN_") || text.contains("JAVA") {
                command.env_remove(name);
            }
        }
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }

    /// Starts it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self) -> anyhow::Result<Process> {
        let child = spawn(self.command()?)?;
        let pid = i32::try_from(child.id())?;
        let pid = Pid::from_raw(pid).context("no process id")?;
        Ok(Process { child, pid })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// If it fails, with the end of its log, or takes too long.
    pub fn run(&self, limit: Duration) -> anyhow::Result<()> {
        let mut process = self.start()?;
        let status = process.ended_within(limit).context("no end in time")?;
        anyhow::ensure!(
            status.success(),
            "{} ended with {status}: {}",
            self.program.display(),
            tail(&self.log)
        );
        Ok(())
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// A running program; killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
}

impl Process {
    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; that it has ended already is no error.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::kill_process(self.pid, signal);
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// How it ended, if it did in time.
    #[allow(clippy::disallowed_methods)] // this thread only waits for the process
    pub fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // one that is stopped takes no other signal
        self.kill();
    }
}

type Reply = mpsc::Sender<std::io::Result<Child>>;

/// The parent-death signal fires when the *thread* that started a child ends: one thread that
/// never ends starts them all.
fn spawn(command: Command) -> anyhow::Result<Child> {
    static SPAWNER: Mutex<Option<mpsc::Sender<(Command, Reply)>>> = Mutex::new(None);
    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    let sender = spawner.get_or_insert_with(|| {
        let (sender, requests) = mpsc::channel::<(Command, Reply)>();
        std::thread::spawn(move || {
            for (mut command, reply) in requests {
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, answer) = mpsc::channel();
    sender.send((command, reply))?;
    drop(spawner);
    Ok(answer.recv()??)
}
