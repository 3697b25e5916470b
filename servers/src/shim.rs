//! The shim between the engine and a server: `child [options] -- program args…`.
//!
//! A server must end with the engine, even after a SIGKILL, and must not run as root. Both are
//! properties of the process that only the process itself can set before it becomes the server,
//! and setting them between fork and exec would need unsafe code. So the engine's own binary is
//! started first, sets them, and replaces itself by the server.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid};

/// Name of the hidden subcommand that calls [`child_main`].
pub const CHILD_SUBCOMMAND: &str = "child";

/// Exit status when the shim could not become the program.
const EXIT_SHIM_FAILED: u8 = 125;

#[derive(Debug, PartialEq, Eq)]
struct Request {
    death_signal: Signal,
    parent: Pid,
    account: Option<(u32, u32)>,
    limits: Vec<(Resource, u64)>,
    program: OsString,
    args: Vec<OsString>,
}

/// Body of the hidden subcommand `child`: drops rights, ties its life to the parent's and becomes
/// the program. `args` are those after the subcommand:
/// `--death-signal TERM|INT|KILL --parent PID [--uid N --gid N] [--limit-memory BYTES] [--limit-cpu S]
/// [--limit-processes N] [--limit-file BYTES] [--limit-files N] [--limit-core BYTES] -- program args…`.
///
/// Call it before any thread is started and return from `main` what it returns: it comes back only
/// when it failed, with status 125 and the reason on stderr.
pub fn child_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let why = match parse(args.into_iter()) {
        Ok(request) => become_program(request),
        Err(why) => why,
    };
    eprintln!("child shim failed: {why}");
    ExitCode::from(EXIT_SHIM_FAILED)
}

fn become_program(request: Request) -> String {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Some((uid, gid)) = request.account
        && let Err(error) = drop_rights(uid, gid)
    {
        return format!("changing to uid {uid}, gid {gid}: {error}");
    }
    for (resource, limit) in request.limits {
        let both = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        if let Err(error) = rustix::process::setrlimit(resource, both) {
            return format!("limiting {resource:?} to {limit}: {error}");
        }
    }
    // After the change of user, which clears it.
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(request.death_signal))
    {
        return format!("setting the parent-death signal: {error}");
    }
    // The parent may have died before the signal was armed.
    if rustix::process::getppid() != Some(request.parent) {
        return "the engine has ended".to_owned();
    }
    let error = Command::new(&request.program).args(&request.args).exec();
    format!("starting {}: {error}", request.program.display())
}

fn drop_rights(uid: u32, gid: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[gid])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Request, String> {
    let (mut death_signal, mut parent, mut uid, mut gid) = (None, None, None, None);
    let mut limits = Vec::new();
    loop {
        let Some(option) = args.next() else {
            return Err("no program after --".to_owned());
        };
        if option == "--" {
            break;
        }
        let option = option.to_string_lossy().into_owned();
        let value = args
            .next()
            .ok_or_else(|| format!("{option} has no value"))?;
        match option.as_str() {
            "--death-signal" => death_signal = Some(signal(&value)?),
            "--parent" => parent = Pid::from_raw(number::<i32>(&option, &value)?),
            "--uid" => uid = Some(number::<u32>(&option, &value)?),
            "--gid" => gid = Some(number::<u32>(&option, &value)?),
            _ => match option.strip_prefix("--limit-").and_then(resource) {
                Some(resource) => limits.push((resource, number::<u64>(&option, &value)?)),
                None => return Err(format!("unknown option {option}")),
            },
        }
    }
    let account = match (uid, gid) {
        (None, None) => None,
        (Some(uid), Some(gid)) if uid != 0 && gid != 0 => Some((uid, gid)),
        _ => return Err("--uid and --gid belong together and are never 0".to_owned()),
    };
    Ok(Request {
        death_signal: death_signal.ok_or("--death-signal is missing")?,
        parent: parent.ok_or("--parent is missing")?,
        account,
        limits,
        program: args.next().ok_or("no program after --")?,
        args: args.collect(),
    })
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "memory" => Resource::As,
        "cpu" => Resource::Cpu,
        "processes" => Resource::Nproc,
        "file" => Resource::Fsize,
        "files" => Resource::Nofile,
        "core" => Resource::Core,
        _ => return None,
    })
}

fn number<T: std::str::FromStr>(option: &str, value: &OsStr) -> Result<T, String> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("{option} needs a number"))
}

fn signal(value: &OsStr) -> Result<Signal, String> {
    match value.to_str() {
        Some("TERM") => Ok(Signal::TERM),
        Some("INT") => Ok(Signal::INT),
        Some("KILL") => Ok(Signal::KILL),
        _ => Err("--death-signal must be TERM, INT or KILL".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(line: &str) -> Result<Request, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn options_end_at_the_double_dash() {
        let request =
            parsed("--death-signal INT --parent 7 --uid 5 --gid 6 -- prog --uid 9").unwrap();
        assert_eq!(request.death_signal, Signal::INT);
        assert_eq!(request.account, Some((5, 6)));
        assert_eq!(request.program, "prog");
        assert_eq!(request.args, ["--uid", "9"]);
    }

    #[test]
    fn limits_are_named() {
        let request = parsed("--death-signal KILL --parent 7 --limit-memory 9 -- prog").unwrap();
        assert_eq!(request.limits, [(Resource::As, 9)]);
        assert!(parsed("--death-signal KILL --parent 7 --limit-fun 9 -- prog").is_err());
        assert!(parsed("--death-signal KILL --parent 7 --limit-cpu x -- prog").is_err());
    }

    #[test]
    fn incomplete_or_root_requests_are_refused() {
        for line in [
            "",
            "--death-signal INT -- prog",
            "--parent 7 -- prog",
            "--death-signal HUP --parent 7 -- prog",
            "--death-signal INT --parent 7 --uid 5 -- prog",
            "--death-signal INT --parent 7 --uid 0 --gid 0 -- prog",
            "--death-signal INT --parent 7 --",
            "--death-signal INT --parent x -- prog",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
