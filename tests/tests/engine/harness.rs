//! An engine in a folder of its own, and everything that tests do to it from outside.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What a command that hangs is given.
const COMMAND_LIMIT_S: u32 = 300;

/// Ends the engine and removes its folder when the pipe to it closes, which also happens when this
/// process is killed; with `SOVEREIGN_TEST_LOGS` its logs are kept there. The folder comes in the
/// environment, so that the keeper itself is not found by who looks for processes of that folder.
const KEEPER: &str = r#"
trap "" INT TERM HUP
cat >/dev/null
own=$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' "$FOLDER/engine.json")
timeout 90 "$SOVEREIGN" down --data "$FOLDER" --quiet
[ -n "$own" ] && kill -9 "$own"
pid=$(sed -n 's/.*"engine_pid": \([0-9]*\).*/\1/p' "$FOLDER/servers.json")
[ -n "$pid" ] && kill -9 "$pid"
[ -n "$SOVEREIGN_TEST_LOGS" ] && cp -r "$FOLDER/logs" "$SOVEREIGN_TEST_LOGS/$(basename "$FOLDER")"
for _ in $(seq 100); do
    rm -rf "$FOLDER" && break
    sleep 0.3
done
"#;

/// The binary under test, beside the one that tests it.
pub(crate) fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let profile = own.parent().and_then(Path::parent).unwrap();
    let path = profile.join("sovereign");
    assert!(
        path.exists(),
        "{} is missing: run cargo build --workspace first",
        path.display()
    );
    path
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{} {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}: {:?} {}", self.stdout, self.stderr))
    }

    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap();
        self.stdout.lines().map(parse).collect()
    }

    /// The problem that a command with `--json` leaves on stderr.
    #[track_caller]
    pub(crate) fn problem(&self) -> Value {
        let line = self
            .stderr
            .lines()
            .rev()
            .find(|line| line.starts_with("{\"error\""));
        let line = line.unwrap_or_else(|| panic!("no problem: {self:?}"));
        serde_json::from_str::<Value>(line).unwrap()["error"].take()
    }

    /// A failure with this exit code and code, which says what to do and where it is explained.
    #[track_caller]
    pub(crate) fn fails(&self, exit: i32, code: &str) -> Value {
        let problem = self.problem();
        assert_eq!(
            (self.code, problem["code"].as_str()),
            (exit, Some(code)),
            "{self:?}"
        );
        assert!(
            problem["remedy"].as_str().is_some_and(|r| !r.is_empty()),
            "{problem}"
        );
        assert_eq!(problem["help"], format!("docs/errors/{code}.md"));
        problem
    }
}

/// One engine.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) data: PathBuf,
    /// So many workers are started beside it.
    pub(crate) workers: u8,
    keeper: Child,
}

impl Engine {
    /// One with a worker, as people start it: somebody does the jobs.
    pub(crate) fn with_worker(name: &str) -> Self {
        let mut engine = Self::new(name);
        engine.workers = 1;
        engine
    }

    /// An empty folder that the servers' own user can reach.
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("sovereign-test-{name}-"))
            .tempdir_in("/tmp")
            .unwrap()
            .keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711)).unwrap();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER])
            .env("FOLDER", &folder)
            .env("SOVEREIGN", binary())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            data: folder,
            workers: 0,
            keeper,
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "5", &COMMAND_LIMIT_S.to_string()])
            .arg(binary())
            .args(args);
        command.arg("--data").arg(&self.data).current_dir("/");
        command.env("SOVEREIGN_WORKERS", self.workers.to_string());
        for name in ["DATA", "DATABASE", "KEYS_DATABASE", "BROKERS", "REGISTRY"] {
            command.env_remove(format!("SOVEREIGN_{name}"));
        }
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done::of(&self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        self.run(&[args, &["--json"]].concat()).ok().json()
    }

    #[track_caller]
    pub(crate) fn up(&self) {
        self.run(&["up", "--quiet"]).ok();
    }

    #[track_caller]
    pub(crate) fn ensure_up(&self) {
        self.run(&["up", "--ensure", "--quiet"]).ok();
    }

    /// Sends lines as they are; the exit code and one outcome for each.
    #[track_caller]
    pub(crate) fn send(&self, input: &[u8]) -> (i32, Vec<Value>) {
        let mut child = self
            .command(&["send"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let done = Done::of(&child.wait_with_output().unwrap());
        writer.join().unwrap().unwrap();
        (done.code, done.lines())
    }

    /// Sends commands of which all must be accepted.
    #[track_caller]
    pub(crate) fn send_all(&self, commands: &[Value]) {
        let lines: Vec<String> = commands.iter().map(Value::to_string).collect();
        let (code, outcomes) = self.send(lines.join("\n").as_bytes());
        let bad = outcomes.iter().find(|o| o["status"] != "accepted");
        assert_eq!((code, outcomes.len(), bad), (0, commands.len(), None));
    }

    /// The status, healthy or not.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.run(&["status", "--json"]).json()
    }

    #[track_caller]
    pub(crate) fn head(&self) -> u64 {
        self.status()["head"].as_u64().unwrap()
    }

    pub(crate) fn pid(&self, of: &str) -> u32 {
        let status = self.status();
        let pid = match of {
            "engine" => &status["pid"],
            server => &status["servers"][server]["pid"],
        };
        u32::try_from(pid.as_u64().unwrap()).unwrap()
    }

    /// Waits until the status is as wanted.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status();
            if wanted(&status) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not {what} in {limit:?}: {status}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until topics and views have all events.
    #[track_caller]
    pub(crate) fn settle(&self) {
        self.wait_for("settled", Duration::from_secs(120), |status| {
            let head = &status["head"];
            let views = status["projections"].as_object().unwrap();
            status["healthy"] == true
                && status["relay"]["position"] == *head
                && views.values().all(|view| view["position"] == *head)
        });
    }

    /// SQL as the superuser, over the private socket; what `psql -At` prints.
    #[track_caller]
    pub(crate) fn psql(&self, sql: &str) -> String {
        let done = self.try_psql(sql);
        assert_eq!(done.code, 0, "{sql}: {}", done.stderr);
        done.stdout.trim().to_owned()
    }

    #[track_caller]
    pub(crate) fn try_psql(&self, sql: &str) -> Done {
        let servers = self.servers();
        let postgres = &servers["postgres"];
        let socket = postgres["socket_folder"].as_str().unwrap();
        let port = postgres["port"].to_string();
        let superuser = [
            "-U",
            "postgres",
            "-d",
            "sovereign",
            "-h",
            socket,
            "-p",
            &port,
        ];
        self.psql_at(&superuser, sql)
    }

    /// SQL under the role of this URL.
    #[track_caller]
    pub(crate) fn psql_as(&self, url: &str, sql: &str) -> Done {
        self.psql_at(&[url], sql)
    }

    fn psql_at(&self, at: &[&str], sql: &str) -> Done {
        let program = format!("/proc/{}/exe", self.servers()["postgres"]["pid"]);
        let program = std::fs::read_link(program).unwrap().with_file_name("psql");
        let output = Command::new(program)
            .args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .args(at)
            .output()
            .unwrap();
        Done::of(&output)
    }

    fn servers(&self) -> Value {
        let servers = std::fs::read(self.data.join("servers.json")).unwrap();
        serde_json::from_slice(&servers).unwrap()
    }

    /// Processes whose command line or working folder names the data folder.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let folder = self.data.to_str().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            if line.contains(folder) || cwd.starts_with(folder) {
                found.push((pid, line));
            }
        }
        found
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

pub(crate) fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill {signal} {pid}");
}

pub(crate) fn register(id: &str) -> Value {
    json!({ "aggregate": "agent", "id": id, "command": "register", "data": { "role": "tester" } })
}

pub(crate) fn thought(id: &str, text: &str) -> Value {
    json!({ "aggregate": "agent", "id": id, "command": "record_thought",
        "data": { "text": text } })
}

pub(crate) fn bar(id: &str, number: u64) -> Value {
    let day = format!(
        "20{:02}-{:02}-{:02}",
        number / 336,
        number / 28 % 12 + 1,
        number % 28 + 1
    );
    json!({ "aggregate": "agent", "id": id, "command": "observe_market",
        "data": { "instrument": "TEST", "opened_at": day, "open": "100.25", "high": "101",
            "low": "99.5", "close": "100", "volume": "1200" } })
}

fn lock(engine: &'static LazyLock<Mutex<Engine>>) -> MutexGuard<'static, Engine> {
    // a test that failed leaves an engine behind that others can still use
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine with a few hundred events in several departments.
pub(crate) fn small() -> MutexGuard<'static, Engine> {
    static SMALL: LazyLock<Mutex<Engine>> = LazyLock::new(|| Mutex::new(filled("small")));
    let engine = lock(&SMALL);
    engine.settle();
    engine
}

/// The same for one test: what it does to the ledger stops the engine's parts for good.
pub(crate) fn small_of_its_own() -> Engine {
    let engine = filled("own");
    engine.settle();
    engine
}

fn filled(name: &str) -> Engine {
    let engine = Engine::new(name);
    engine.up();
    let mut commands = vec![register("filler")];
    for number in 0..100 {
        commands.push(bar("filler", number));
        commands.push(thought(
            "filler",
            &format!("bar {number} looks like the last one"),
        ));
        let mut other = register(&format!("filler-{number}"));
        other["department"] = json!(["trader", "hunter", "auditor"][number as usize % 3]);
        commands.push(other);
    }
    engine.send_all(&commands);
    engine
}

/// An engine that tests stop, kill and starve; running when a test gets it.
pub(crate) fn sturdy() -> MutexGuard<'static, Engine> {
    static STURDY: LazyLock<Mutex<Engine>> = LazyLock::new(|| {
        let engine = Engine::new("sturdy");
        engine.up();
        engine.send_all(&[register("first"), thought("first", "I am here")]);
        Mutex::new(engine)
    });
    let engine = lock(&STURDY);
    engine.ensure_up();
    engine.settle();
    engine
}
