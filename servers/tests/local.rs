//! The real servers: fetched, started, killed, started again.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sovereign_servers::{
    Activity, DataFolder, Error, Options, SecretUrl, Servers, ServersHealth, State, Wanted,
};
use tempfile::TempDir;

const CHILD: &str = env!("CARGO_BIN_EXE_sovereign-servers-child");

/// A folder that every user can enter, as that of a clone in a usual place.
fn base() -> TempDir {
    let permissions = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new()
        .permissions(permissions)
        .tempdir_in("/tmp")
        .unwrap()
}

fn options(wanted: Wanted) -> Options {
    Options {
        wanted,
        shim: Some(PathBuf::from(CHILD)),
        ..Options::default()
    }
}

async fn start(folder: &DataFolder, wanted: Wanted) -> Servers {
    Servers::start(folder, options(wanted))
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

fn psql(servers: &Servers, url: &SecretUrl, sql: &str) -> Result<String, String> {
    let programs = servers.installation().postgres.as_ref().unwrap();
    let mut command = Command::new(programs.join("psql"));
    command.args(["-X", "-q", "-A", "-t", "-w", "-c", sql, url.expose()]);
    let output = command.output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    Err(String::from_utf8(output.stderr).unwrap())
}

fn topics(servers: &Servers, args: &[&str]) -> String {
    let files = servers.installation().kafka.as_ref().unwrap();
    let mut command = Command::new(&files.java);
    command.args(["-Xmx64m", "-cp"]).arg(files.libs.join("*"));
    command.arg("org.apache.kafka.tools.TopicCommand");
    command
        .args(["--bootstrap-server", servers.brokers().unwrap()])
        .args(args);
    let output = command.stderr(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// An engine in a process of its own, with both servers ready.
fn engine(folder: &Path) -> Child {
    let mut command = Command::new(CHILD);
    command
        .arg("up")
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut engine = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(engine.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    engine
}

fn state(folder: &Path) -> State {
    serde_json::from_slice(&fs::read(folder.join("servers.json")).unwrap()).unwrap()
}

fn pids(state: &State) -> [u32; 2] {
    let postgres = state.postgres.as_ref().unwrap().pid.unwrap();
    [postgres, state.kafka.as_ref().unwrap().pid.unwrap()]
}

fn lives(pid: u32) -> bool {
    // A zombie has no command line.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| !text.is_empty())
}

fn kill(pid: u32) {
    kill_process(
        Pid::from_raw(pid.try_into().unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
}

async fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn restarted_and_running(health: &ServersHealth) -> bool {
    [&health.postgres, &health.kafka]
        .into_iter()
        .flatten()
        .all(|server| {
            server.activity == Activity::Running && server.restarts >= 1 && server.pid.is_some()
        })
}

#[tokio::test]
async fn servers_start_unprivileged_answer_and_keep_their_data_over_a_restart() {
    let base = base();
    let folder = DataFolder::open(&base.path().join("data")).unwrap();
    let servers = start(&folder, Wanted::ALL).await;

    for pid in pids(&servers.state()) {
        assert_ne!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 0);
    }
    let url = servers.database_url().unwrap();
    let vector = psql(&servers, url, "select '[1,2]'::vector <=> '[1,2]'::vector").unwrap();
    assert_eq!(vector, "0");
    let role = "select current_user, rolsuper from pg_roles where rolname = current_user";
    assert_eq!(psql(&servers, url, role).unwrap(), "sovereign|f");
    psql(&servers, url, "create table kept as select 42 as answer").unwrap();
    let keys = servers.keys_database_url().unwrap();
    let elsewhere = psql(
        &servers,
        keys,
        "select to_regclass('kept') is null, current_database()",
    );
    assert_eq!(elsewhere.unwrap(), "t|sovereign_keys");
    let checked = psql(
        &servers,
        servers.superuser_url().unwrap(),
        "show data_checksums",
    )
    .unwrap();
    assert_eq!(checked, "on");
    let (head, tail) = url.expose().rsplit_once('@').unwrap();
    assert!(!format!("{servers:?}").contains(head.rsplit_once(':').unwrap().1));
    let without_password = format!("postgresql://sovereign@{tail}");
    let programs = servers.installation().postgres.as_ref().unwrap();
    let mut refused = Command::new(programs.join("psql"));
    refused.args(["-w", "-c", "select 1", &without_password]);
    assert!(!refused.output().unwrap().status.success());
    topics(
        &servers,
        &["--create", "--topic", "kept", "--partitions", "3"],
    );

    let before = servers.state();
    servers.stop().await;
    assert!(pids(&before).into_iter().all(|pid| !lives(pid)));
    assert_eq!(servers.health().kafka.unwrap().activity, Activity::Stopped);

    // Only the controller's port is taken by now: it moves, the others stay.
    let controller = before.kafka.as_ref().unwrap().controller_port;
    let _taken = TcpListener::bind(("127.0.0.1", controller)).unwrap();
    let servers = start(&folder, Wanted::ALL).await;
    let after = servers.state();
    assert_ne!(after.kafka.as_ref().unwrap().controller_port, controller);
    assert_eq!(
        after.postgres.as_ref().unwrap().port,
        before.postgres.as_ref().unwrap().port
    );
    assert_eq!(
        after.kafka.as_ref().unwrap().port,
        before.kafka.as_ref().unwrap().port
    );
    let url = servers.database_url().unwrap();
    assert_eq!(
        psql(&servers, url, "select answer from kept").unwrap(),
        "42"
    );
    assert_eq!(topics(&servers, &["--list"]).trim(), "kept");
    servers.stop().await;
}

#[tokio::test]
async fn killed_servers_are_started_again() {
    let base = base();
    let folder = DataFolder::open(base.path()).unwrap();
    let servers = start(&folder, Wanted::ALL).await;
    let first = pids(&servers.state());
    first.into_iter().for_each(kill);
    until("both run again", Duration::from_secs(30), || {
        restarted_and_running(&servers.health())
    })
    .await;
    let health = servers.health();
    assert!(
        health
            .kafka
            .unwrap()
            .last_exit
            .unwrap()
            .contains("signal: 9")
    );
    let second = pids(&servers.state());
    assert!(
        first
            .iter()
            .zip(second)
            .all(|(first, second)| *first != second)
    );
    psql(&servers, servers.database_url().unwrap(), "select 1").unwrap();
    servers.stop().await;
    assert!(second.into_iter().all(|pid| !lives(pid)));
}

#[tokio::test]
async fn servers_end_with_a_killed_engine_and_a_start_at_once_waits_for_them() {
    let base = base();
    let path = base.path().join("data");
    let mut engine = engine(&path);
    let refused = DataFolder::open(&path).unwrap_err();
    let Error::DataFolderHeld { pid, .. } = refused else {
        panic!("{refused}")
    };
    assert_eq!(pid, engine.id().to_string());

    let state = state(&path);
    engine.kill().unwrap();
    engine.wait().unwrap();
    let folder = DataFolder::open(&path).unwrap();
    let servers = start(&folder, Wanted::ALL).await;
    assert!(!pids(&state).into_iter().any(lives));
    let log = fs::read_to_string(path.join("logs/postgres.log")).unwrap();
    assert!(log.contains("database system is shut down"), "{log}");
    assert_eq!(servers.health().postgres.unwrap().restarts, 0);
    assert_eq!(servers.health().kafka.unwrap().restarts, 0);
    psql(&servers, servers.database_url().unwrap(), "select 1").unwrap();
    servers.stop().await;
}

#[tokio::test]
async fn servers_of_a_killed_engine_end_alone() {
    let base = base();
    let folder = base.path().join("data");
    let mut engine = engine(&folder);
    let orphans = pids(&state(&folder));
    engine.kill().unwrap();
    engine.wait().unwrap();
    until("servers gone", Duration::from_secs(15), || {
        !orphans.into_iter().any(lives)
    })
    .await;
}

#[tokio::test]
async fn leftovers_of_a_broken_start_are_no_obstacle() {
    let base = base();
    let left = base.path().join("postgres/staging.0123456789abcdef");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("PG_VERSION"), "18\n").unwrap();
    let folder = DataFolder::open(base.path()).unwrap();
    let wanted = Wanted {
        postgres: true,
        kafka: false,
    };
    let servers = start(&folder, wanted).await;
    assert!(!left.exists());
    assert_eq!(servers.brokers(), None);
    servers.stop().await;

    // A pid file whose number is another program of the same user by now.
    let pid_file = servers.home().join("postgres/data/postmaster.pid");
    let owner = fs::metadata(pid_file.parent().unwrap()).unwrap().uid();
    let mut command = Command::new("sleep");
    command.arg("60");
    if rustix::process::geteuid().is_root() {
        command.uid(owner);
    }
    let mut other = command.spawn().unwrap();
    let text = format!(
        "{}\n{}\n1\n2\n/tmp\n",
        other.id(),
        pid_file.parent().unwrap().display()
    );
    fs::write(&pid_file, text).unwrap();
    let servers = start(&folder, wanted).await;
    assert_eq!(servers.health().postgres.unwrap().restarts, 0);
    servers.stop().await;
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn server_that_cannot_start_is_an_error_that_quotes_its_log() {
    let base = base();
    let folder = DataFolder::open(base.path()).unwrap();
    let wanted = Wanted {
        postgres: true,
        kafka: false,
    };
    fs::create_dir(base.path().join("postgres")).unwrap();
    fs::write(
        base.path().join("postgres/local.conf"),
        "no_such_setting = 1\n",
    )
    .unwrap();
    let error = Servers::start(&folder, options(wanted)).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotReady {
                server: "postgres",
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn closed_data_folder_of_root_gets_a_place_that_its_servers_can_reach() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let closed = base();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let path = closed.path().join("data");
    let folder = DataFolder::open(&path).unwrap();
    let wanted = Wanted {
        postgres: true,
        kafka: false,
    };
    let servers = start(&folder, wanted).await;
    let home = servers.home().to_path_buf();
    assert!(home.starts_with("/var/lib/sovereign"));
    assert_eq!(servers.state().home, home);
    psql(
        &servers,
        servers.database_url().unwrap(),
        "create table kept ()",
    )
    .unwrap();
    servers.stop().await;
    assert_eq!(
        fs::metadata(closed.path()).unwrap().permissions().mode() & 0o777,
        0o700
    );

    // The folder moves, its ledger stays its own.
    drop(folder);
    let moved = closed.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    let folder = DataFolder::open(&moved).unwrap();
    let servers = start(&folder, wanted).await;
    psql(
        &servers,
        servers.database_url().unwrap(),
        "select from kept",
    )
    .unwrap();
    servers.stop().await;
    remove_home(&home);
}

fn remove_home(home: &Path) {
    assert!(home.starts_with("/var/lib/sovereign") && home.components().count() == 5);
    fs::remove_dir_all(home).unwrap();
}
