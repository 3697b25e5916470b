//! Starting programs through the shim, from a thread that never ends.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::account::Account;
use crate::error::{Error, Result};
use crate::logs;
use crate::shim::CHILD_SUBCOMMAND;

/// Starts waiting for the spawning thread; more callers wait in line.
const WAITING_MAX: usize = 16;

/// A program to start. The environment is cleared, so that `PGHOST`, `JAVA_TOOL_OPTIONS` and the
/// like of the caller change nothing.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) death_signal: &'static str,
    pub(crate) folder: PathBuf,
}

impl Launch {
    pub(crate) fn new(program: PathBuf, death_signal: &'static str) -> Self {
        Self {
            program,
            args: Vec::new(),
            death_signal,
            folder: PathBuf::from("/"),
        }
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(crate) fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
}

/// Starts programs as the servers' account through the shim.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    pub(crate) shim: PathBuf,
    pub(crate) account: Account,
}

impl Launcher {
    fn command(&self, launch: &Launch) -> Command {
        let mut command = Command::new(&self.shim);
        command
            .arg(CHILD_SUBCOMMAND)
            .args(["--death-signal", launch.death_signal]);
        command.args(["--parent", &std::process::id().to_string()]);
        if self.account.switch {
            command.args(["--uid", &self.account.uid.to_string()]);
            command.args(["--gid", &self.account.gid.to_string()]);
        }
        command.arg("--").arg(&launch.program).args(&launch.args);
        command.env_clear();
        command.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        command.envs([("LC_ALL", "C.UTF-8"), ("TZ", "UTC"), ("HOME", "/")]);
        command.current_dir(&launch.folder);
        // Out of the terminal's process group: an interrupt reaches the engine, which stops its
        // servers in order.
        command.process_group(0);
        command
    }

    /// Starts a server whose output goes to `log`.
    pub(crate) async fn server(&self, launch: &Launch, log: &Path) -> Result<Child> {
        let out = logs::open(log)?;
        let err = out
            .try_clone()
            .map_err(Error::io("duplicating the handle of", log))?;
        let mut command = self.command(launch);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        spawn(command)
            .await
            .map_err(Error::io("starting", &launch.program))
    }

    /// Runs a helper program to its end, `input` on its stdin, and returns its output.
    pub(crate) async fn run(
        &self,
        launch: &Launch,
        input: &str,
        limit: Duration,
    ) -> Result<String> {
        let failed = |why: String, tail: String| Error::Program {
            program: launch.program.display().to_string(),
            why,
            tail,
        };
        let mut command = self.command(launch);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.kill_on_drop(true);
        let started = spawn(command).await;
        let mut child = started.map_err(Error::io("starting", &launch.program))?;
        let mut stdin = child.stdin.take();
        let both = async {
            let write = async {
                if let Some(mut stdin) = stdin.take() {
                    // A program that does not read says why on its stderr.
                    let _ = stdin.write_all(input.as_bytes()).await;
                }
            };
            tokio::join!(write, child.wait_with_output()).1
        };
        let output = tokio::time::timeout(limit, both)
            .await
            .map_err(|_| failed(format!("no end after {} s", limit.as_secs()), String::new()))?
            .map_err(Error::io("waiting for", &launch.program))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        let text = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
        Err(failed(output.status.to_string(), logs::last_lines(&text)))
    }
}

struct Request {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// The parent-death signal fires when the *thread* that started a child ends, and the runtime's
/// threads come and go; so one thread of the process does it all and lives as long as the process.
static SPAWNER: Mutex<Option<mpsc::Sender<Request>>> = Mutex::new(None);

pub(crate) async fn spawn(command: Command) -> io::Result<Child> {
    let sender = spawner()?;
    let (reply, answer) = oneshot::channel();
    let request = Request {
        command,
        runtime: Handle::current(),
        reply,
    };
    let gone = || io::Error::other("the spawning thread has ended");
    sender.send(request).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

fn spawner() -> io::Result<mpsc::Sender<Request>> {
    let mut spawner = SPAWNER
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(sender) = spawner.as_ref() {
        return Ok(sender.clone());
    }
    let (sender, mut requests) = mpsc::channel::<Request>(WAITING_MAX);
    std::thread::Builder::new()
        .name("server-spawner".into())
        .spawn(move || {
            while let Some(mut request) = requests.blocking_recv() {
                let _runtime = request.runtime.enter();
                let child = request.command.spawn();
                // The caller gave up in the meantime, so nobody would watch it.
                if let Err(Ok(mut child)) = request.reply.send(child) {
                    let _ = child.start_kill();
                }
            }
        })?;
    *spawner = Some(sender.clone());
    Ok(sender)
}
