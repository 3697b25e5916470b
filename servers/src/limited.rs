//! Programs of others: started through the shim with an empty environment, limits, and as root in
//! an account of their own, so that they reach neither the servers nor each other.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::launch::spawn;
use crate::shim::CHILD_SUBCOMMAND;

/// Accounts from here on belong to nobody: systemd's list of user ids has the range unused
/// (<https://systemd.io/UIDS-GIDS/>). Its last one, `0x7fff_ffff`, is kept free.
const UID_FIRST: u32 = 0x7000_0000;
const UIDS: u64 = 0x0fff_ffff;
/// How often the processes of a program are looked for when it is ended: one that forks meanwhile
/// is found by the next look.
const LOOKS_MAX: usize = 20;
/// Tells the processes of one start from all others.
const RUN_VARIABLE: &str = "SOVEREIGN_PROGRAM_RUN";
/// No file of a program grows larger.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Files that a program may have open.
const FILES_MAX: u64 = 256;

/// What a program may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Address space of each of its processes, bytes.
    pub memory_bytes: u64,
    /// CPU time of each of its processes, seconds.
    pub cpu_s: u64,
    /// Processes and threads at one time.
    pub processes: u64,
}

/// A program to start.
#[derive(Debug, Clone)]
pub struct LimitedLaunch {
    /// This build's own binary, which becomes the program.
    pub shim: PathBuf,
    /// Its name.
    pub name: String,
    /// Whose it is: no two that start programs on one machine have the same. The account follows
    /// from it and the name, since whoever ends a program ends all that runs in its account.
    pub owner: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its limits.
    pub limits: Limits,
    /// A name for this start that no other start has.
    pub run: String,
}

/// A started program with its pipes. Dropping it kills the process; [`Limited::end`] ends all of
/// its processes.
#[derive(Debug)]
pub struct Limited {
    child: Child,
    pid: Option<Pid>,
    uid: Option<u32>,
    run: String,
    /// Its standard input, until somebody takes it.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, until somebody takes it.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, until somebody takes it.
    pub stderr: Option<ChildStderr>,
}

/// 64-bit FNV-1a (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>), for accounts.
fn fnv(text: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    text.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

impl LimitedLaunch {
    /// The user id that it runs as where root starts it.
    fn account(&self) -> u32 {
        // a path and a name have no zero byte, so this is nobody else's
        let whole = [self.owner.as_bytes(), &[0], self.name.as_bytes()].concat();
        UID_FIRST + u32::try_from(fnv(&whole) % UIDS).unwrap_or_default()
    }

    /// Starts it. As root it gets an account of its own, in which nothing else runs.
    ///
    /// # Errors
    /// If no process can be made; that the program does not exist shows only by its end.
    pub async fn start(&self) -> io::Result<Limited> {
        let root = rustix::process::geteuid().is_root();
        let uid = root.then(|| self.account());
        // the kernel counts all processes of the account: as somebody else's guest add ours
        let others = if root {
            0
        } else {
            tasks_of(rustix::process::geteuid().as_raw())
        };
        let mut command = Command::new(&self.shim);
        command
            .arg(CHILD_SUBCOMMAND)
            .args(["--death-signal", "KILL"]);
        command.args(["--parent", &std::process::id().to_string()]);
        if let Some(uid) = uid {
            let uid = uid.to_string();
            command.args(["--uid", &uid, "--gid", &uid]);
        }
        for (name, value) in [
            ("memory", self.limits.memory_bytes),
            ("cpu", self.limits.cpu_s),
            ("processes", others + self.limits.processes),
            ("file", FILE_BYTES_MAX),
            ("files", FILES_MAX),
            ("core", 0),
        ] {
            command.args([format!("--limit-{name}"), value.to_string()]);
        }
        command.arg("--").arg(&self.program).args(&self.args);
        command.env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.envs([("LC_ALL", "C.UTF-8"), ("TZ", "UTC"), ("HOME", "/")]);
        command.env("SOVEREIGN_PROGRAM", &self.name);
        command.env(RUN_VARIABLE, &self.run);
        command.current_dir("/").process_group(0).kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(command).await?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Limited {
            child,
            pid,
            uid,
            run: self.run.clone(),
            stdin,
            stdout,
            stderr,
        })
    }
}

impl Limited {
    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it has ended; how, in words.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Kills it with all its processes, also those that left its process group.
    pub async fn end(mut self) {
        if let Some(pid) = self.pid {
            // it may have ended by itself
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.start_kill();
        for _ in 0..LOOKS_MAX {
            let left = self.left();
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = self.child.wait().await;
    }

    /// What still runs of it: the processes of its account, and those that carry this start's name.
    fn left(&self) -> Vec<Pid> {
        let mark = format!("{RUN_VARIABLE}={}", self.run);
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let own = |entry: &fs::DirEntry| {
            let uid = entry.metadata().ok()?.uid();
            if self.uid == Some(uid) {
                return Some(());
            }
            let variables = fs::read(entry.path().join("environ")).ok()?;
            let mut variables = variables.split(|b| *b == 0);
            variables.any(|v| v == mark.as_bytes()).then_some(())
        };
        let processes = entries.flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let state = fs::read_to_string(entry.path().join("stat")).ok()?;
            // what is dead already waits only for its parent
            if state.rsplit(')').next()?.trim_start().starts_with('Z') {
                return None;
            }
            own(&entry)?;
            Pid::from_raw(pid)
        });
        processes.collect()
    }
}

/// How many processes and threads an account has now.
fn tasks_of(uid: u32) -> u64 {
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    let own = entries.flatten().filter(|entry| {
        let number = entry
            .file_name()
            .to_str()
            .is_some_and(|n| n.parse::<u32>().is_ok());
        number && entry.metadata().is_ok_and(|m| m.uid() == uid)
    });
    own.map(|entry| fs::read_dir(entry.path().join("task")).map_or(0, |tasks| tasks.count() as u64))
        .sum()
}
