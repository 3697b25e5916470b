//! Runs programs of this machine: named ones only, without a shell, in an empty environment, in a
//! process group of their own that is killed as a whole.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use sovereign_effects::tools::Program;
use sovereign_effects::{Outcome, ProcessRun, Request};
use sovereign_schemas::{ErrorCode, Problem};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::Live;
use super::run::{Run, Stage};

/// So long is output still read after the program has ended: something that it started may hold
/// its pipes open.
const GRACE: Duration = Duration::from_secs(1);
/// "Temporary failure, try again" (sysexits.h).
const EX_TEMPFAIL: u8 = 75;

impl Live {
    pub(super) async fn process(
        &self,
        request: &Request,
        wanted: &ProcessRun,
        run: &Run,
    ) -> Outcome {
        let Some(program) = self.programs.get(&wanted.program) else {
            return Outcome::refused(
                Problem::new(ErrorCode::EffectRefused, "this machine has no such program")
                    .field("program")
                    .found(wanted.program.as_str())
                    .expected(self.programs.names()),
            );
        };
        if let Err(problem) = check(program, wanted) {
            return Outcome::refused(problem);
        }
        let target = format!("program:{}", wanted.program);
        let place = self.gates.pass(&target, program.concurrent_max, None).await;
        run.reach(Stage::Connecting);
        let mut command = command(program, wanted, request);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let problem =
                    Problem::new(ErrorCode::ProcessFailed, "the program cannot be started")
                        .found(error.kind().to_string());
                return Outcome::refused(problem);
            }
        };
        run.reach(Stage::Sent);
        let outcome = follow(child, program, wanted, run).await;
        drop(place);
        outcome
    }
}

fn check(program: &Program, wanted: &ProcessRun) -> Result<(), Problem> {
    let refused =
        |message: &str| Problem::new(ErrorCode::EffectRefused, message).field("arguments");
    if wanted.arguments.len() > program.more_arguments_max {
        return Err(refused("the program takes fewer arguments from effects")
            .found(wanted.arguments.len().to_string())
            .expected(format!("at most {}", program.more_arguments_max)));
    }
    // an argument of an effect must not become an option that nobody thought of
    let stray =
        |argument: &&String| argument.starts_with('-') && !program.flags.contains(*argument);
    if wanted.arguments.iter().any(|argument| stray(&argument)) {
        let flags: Vec<&str> = program.flags.iter().map(String::as_str).collect();
        let expected = if flags.is_empty() {
            "none".to_owned()
        } else {
            flags.join(" ")
        };
        return Err(
            refused("the program does not take this option from effects").expected(expected),
        );
    }
    Ok(())
}

fn command(program: &Program, wanted: &ProcessRun, request: &Request) -> Command {
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .args(&wanted.arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LANG", "C.UTF-8")
        .env("SOVEREIGN_EFFECT_ID", request.id.to_string())
        .current_dir(&program.folder)
        .process_group(0)
        .kill_on_drop(true)
        .stdin(if wanted.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Kills the group when it is dropped: also when the work on the effect is cut off.
struct Group(Option<Pid>);

impl Group {
    fn kill(&self) {
        if let Some(leader) = self.0 {
            // it fails if the group is gone, which is what is wanted
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Why a program was stopped.
enum Stop {
    TooMuch,
    Lost,
}

async fn follow(mut child: Child, program: &Program, wanted: &ProcessRun, run: &Run) -> Outcome {
    let leader = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let group = Group(leader);
    let ended = CancellationToken::new();
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let most = program.output_bytes_max;
    let feed = async {
        if let (Some(mut pipe), Some(text)) = (input, &wanted.input) {
            // a program may end without reading all
            let _ = pipe.write_all(text.as_bytes()).await;
        }
        Ok::<(), Stop>(())
    };
    let wait = async {
        let status = child.wait().await.map_err(|_| Stop::Lost);
        // what it left behind would hold the pipes open, and outlive the effect
        group.kill();
        ended.cancel();
        status
    };
    let all = tokio::try_join!(
        feed,
        read(output, most, &ended),
        read(errors, most, &ended),
        wait
    );
    match all {
        Ok(((), output, errors, status)) => judge(program, status, &output, &errors, run),
        Err(Stop::TooMuch) => run.unsure(
            Problem::new(ErrorCode::AnswerTooLarge, "the program writes too much")
                .expected(format!("at most {most} bytes")),
            false,
        ),
        Err(Stop::Lost) => {
            let message = "what became of the program is not known";
            run.unsure(Problem::new(ErrorCode::ProcessFailed, message), false)
        }
    }
}

async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    most: usize,
    ended: &CancellationToken,
) -> Result<Vec<u8>, Stop> {
    let Some(mut pipe) = pipe else {
        return Ok(Vec::new());
    };
    let late = async {
        ended.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::pin!(late);
    let mut out = Vec::new();
    let mut piece = [0; 8_192];
    loop {
        let count = tokio::select! {
            count = pipe.read(&mut piece) => count.unwrap_or(0),
            () = &mut late => 0,
        };
        if count == 0 {
            return Ok(out);
        }
        if out.len() + count > most {
            return Err(Stop::TooMuch);
        }
        out.extend_from_slice(&piece[..count]);
    }
}

fn judge(
    program: &Program,
    status: ExitStatus,
    output: &[u8],
    errors: &[u8],
    run: &Run,
) -> Outcome {
    if status.success() {
        return Outcome::done(json!({
            "exit": 0,
            "stdout": String::from_utf8_lossy(output),
            "stderr": String::from_utf8_lossy(errors),
        }));
    }
    let problem = Problem::new(
        ErrorCode::ProcessFailed,
        "the program ended with another exit code than 0",
    );
    let Some(code) = status.code().and_then(|code| u8::try_from(code).ok()) else {
        let message = "the program was ended by a signal";
        return run.unsure(Problem::new(ErrorCode::ProcessFailed, message), true);
    };
    let problem = problem.found(code.to_string());
    let retry = code == EX_TEMPFAIL;
    if program.not_done_exits.contains(&code) {
        return Outcome::Failed { problem, retry };
    }
    run.unsure(problem, retry)
}
