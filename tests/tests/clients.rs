//! Stock clients in other languages read what we write, and the blocks of the README that are
//! marked `<!-- test: NAME -->` run exactly as they are printed.
//!
//! Needs python3 with venv, node and npm. What the clients need is fetched once into the cache.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sovereign_tests::packages::{Done, FETCH_LIMIT_S, bash, needs, node_packages, packages};
use sovereign_tests::root;

/// Bars of each of two shares that go into the market file, and how many before them are left out:
/// a stretch in which both traders propose a trade.
const BARS: usize = 70;
const BARS_BEFORE: usize = 60;
/// What a script that hangs is given.
const SCRIPT_LIMIT_S: u32 = 120;

/// Stops the engine and removes its folder when its standard input ends, which also happens when
/// this process is killed.
const KEEPER: &str = r#"
trap "" INT TERM HUP
cat >/dev/null
timeout 90 "$SOVEREIGN" down --data "$HOME_FOLDER/.sovereign" --quiet
rm -rf "$HOME_FOLDER"
"#;

/// A program that cargo built beside this test.
fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let profile = own.parent().and_then(Path::parent).unwrap();
    let path = profile.join(name);
    let path_text = path.display();
    assert!(
        path.exists(),
        "{path_text} is missing: run cargo build --workspace --all-targets"
    );
    path
}

/// Content of a fenced block of the README that has this mark.
fn block(name: &str) -> String {
    let page = fs::read_to_string(root().join("README.md")).unwrap();
    let mark = format!("<!-- test: {name} -->\n```");
    let (_, rest) = page
        .split_once(&mark)
        .unwrap_or_else(|| panic!("the README has no block {name}"));
    let (_, rest) = rest.split_once('\n').unwrap();
    let (content, _) = rest.split_once("\n```").unwrap();
    format!("{content}\n")
}

fn python_packages() -> PathBuf {
    needs(
        "python3",
        "sudo apt-get install -y python3 python3-pip python3-venv",
    );
    packages(
        "python",
        &["tests/clients/python/requirements.txt"],
        |folder| bash(folder, &block("python-install"), FETCH_LIMIT_S, &[]),
    )
}

/// A folder that looks to the README's blocks like a clone after `make up`.
struct Clone {
    folder: PathBuf,
    keeper: Child,
}

impl Clone {
    fn with_engine(python: &Path) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("sovereign-clients-")
            .tempdir()
            .unwrap()
            .keep();
        // the servers' user must reach the data folder if root runs the tests
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).unwrap();
        let keeper = Command::new("bash")
            .args(["-c", KEEPER])
            .env("SOVEREIGN", built("sovereign"))
            .env("HOME_FOLDER", &folder)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        symlink(root().join("tests"), folder.join("tests")).unwrap();
        symlink(python.join(".venv"), folder.join(".venv")).unwrap();
        let clone = Self { folder, keeper };
        fs::write(clone.folder.join("bars.csv"), clone.bars()).unwrap();
        let target = built("sovereign")
            .parent()
            .and_then(Path::parent)
            .unwrap()
            .to_owned();
        let up = "export PATH=\"$CARGO_TARGET_DIR/debug:$PATH\" SOVEREIGN_DATA=\"$PWD/.sovereign\"
                  sovereign up --quiet && sovereign trade bars.csv --quiet";
        let done = bash(&clone.folder, up, 300, &[("CARGO_TARGET_DIR", &target)]);
        assert_eq!(done.code, Some(0), "{done:?}");
        clone
    }

    /// The first bars of two shares of the vendored market file.
    fn bars(&self) -> String {
        let file = root().join("agents/data/stocks.csv.gz");
        let all = bash(&self.folder, "gzip -dc \"$FILE\"", 30, &[("FILE", &file)]).stdout;
        let of = |share: &str| -> String {
            let rows = all.lines().filter(|line| line.starts_with(share));
            rows.skip(BARS_BEFORE)
                .take(BARS)
                .map(|row| format!("{row}\n"))
                .collect()
        };
        format!(
            "{}\n{}{}",
            all.lines().next().unwrap(),
            of("AAPL,"),
            of("IBM,")
        )
    }

    /// Runs a script in a shell in which the README's setup has been done.
    fn run(&self, script: &str) -> Done {
        let target = built("sovereign")
            .parent()
            .and_then(Path::parent)
            .unwrap()
            .to_owned();
        let script = format!("{}\n{script}", block("setup"));
        bash(
            &self.folder,
            &script,
            SCRIPT_LIMIT_S,
            &[("CARGO_TARGET_DIR", &target)],
        )
    }

    #[track_caller]
    fn ok(&self, script: &str) -> String {
        let done = self.run(script);
        assert_eq!(
            done.code,
            Some(0),
            "{script}: {} {}",
            done.stdout,
            done.stderr
        );
        done.stdout
    }

    /// The status, once the topics have all events.
    #[allow(
        clippy::disallowed_methods,
        reason = "no async runtime here: this thread may wait"
    )]
    fn settled(&self) -> Value {
        for _ in 0..100 {
            let status: Value =
                serde_json::from_str(&self.ok("sovereign status --json || true")).unwrap();
            if status["healthy"] == true && status["relay"]["position"] == status["head"] {
                return status;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        panic!("the topics do not catch up");
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn json_lines(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn stock_clients_and_the_blocks_of_the_readme_work_as_printed() {
    let python = python_packages();
    let node = node_packages("node");
    let clone = Clone::with_engine(&python);
    sending(&clone);
    python_commands(&clone);
    let status = clone.settled();
    let (head, hash) = (&status["head"], status["head_hash"].as_str().unwrap());
    assert!(head.as_u64().unwrap() > 400, "head is {head}");
    clone.ok(&block("look"));
    python_reads(&clone, head, hash);
    node_reads(&clone, &node, head);
    let positions = positions_of_trader(&clone);
    java_reads(&clone, positions.len());
    rust_follows(&clone, &positions);
    replays(&clone);
    files_verify(&clone, hash);
}

fn sending(clone: &Clone) {
    let without_positions = |text: &str| -> Vec<Value> {
        let mut lines = json_lines(text);
        for line in &mut lines {
            line.as_object_mut().unwrap().remove("positions");
        }
        lines
    };
    let printed = clone.ok(&block("send"));
    let promised = block("send-output");
    assert_eq!(without_positions(&printed), without_positions(&promised));
    assert_eq!(json_lines(&printed).len(), 5);
    assert!(printed.contains("exit code 2\n"), "{printed}");
    assert!(
        printed.contains("our node [IP_ADDRESS_REDACTED] answers slowly"),
        "{printed}"
    );
    assert!(!printed.contains("10.1.2.3"), "{printed}");
}

fn python_commands(clone: &Clone) {
    let script = block("python-command");
    fs::write(clone.folder.join("command.py"), script).unwrap();
    for expected in ["accepted", "refused"] {
        let printed = clone.ok(".venv/bin/python command.py");
        assert_eq!(json_lines(&printed)[0]["status"], expected, "{printed}");
    }
}

fn python_reads(clone: &Clone, head: &Value, hash: &str) {
    let reports = json_lines(&clone.ok(&block("python-check")));
    assert_eq!(&reports[0]["events"], head);
    assert_eq!(&reports[1]["head"], head);
    assert_eq!(reports[1]["head_hash"], hash);
    assert!(
        reports[1]["schemas"].as_u64().unwrap() >= 8,
        "{}",
        reports[1]
    );

    let consumer = block("python-consumer");
    let file = root().join("tests/clients/python/read_thought.py");
    assert_eq!(
        consumer,
        fs::read_to_string(file).unwrap(),
        "README and read_thought.py differ"
    );
    fs::write(clone.folder.join("thought.py"), consumer).unwrap();
    let thought = clone.ok(".venv/bin/python thought.py");
    assert!(
        thought.starts_with("trader-") && thought.contains(": close "),
        "{thought}"
    );

    let one_more = "--head $(( $(field head) + 1 ))";
    let script =
        ".venv/bin/python tests/clients/python/consume.py --brokers $BROKERS --registry $REGISTRY";
    let done = clone.run(&format!("{script} {one_more}"));
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains(" is missing"), "{done:?}");
}

fn node_reads(clone: &Clone, packages: &Path, head: &Value) {
    let modules = packages.join("node_modules");
    let script = format!(
        "NODE_PATH='{}' node --preserve-symlinks --preserve-symlinks-main \
         tests/clients/node/consume.js --brokers $BROKERS --registry $REGISTRY --head {head}",
        modules.display()
    );
    assert_eq!(&json_lines(&clone.ok(&script))[0]["events"], head);
}

fn positions_of_trader(clone: &Clone) -> Vec<u64> {
    let events = json_lines(&clone.ok("sovereign log --department trader --json"));
    events
        .iter()
        .map(|event| event["position"].as_u64().unwrap())
        .collect()
}

fn java_reads(clone: &Clone, events: usize) {
    let cache = sovereign_servers::default_cache();
    let script = format!(
        "libs=$(echo '{}'/kafka-4.3.0-*/libs)
         tests/clients/java/consume.sh \"$libs\" \"$BROKERS\" dept.trader {events}",
        cache.display()
    );
    assert_eq!(json_lines(&clone.ok(&script))[0]["events"], events);
}

fn rust_follows(clone: &Clone, positions: &[u64]) {
    let source = fs::read_to_string(root().join("tests/examples/follow.rs")).unwrap();
    assert_eq!(
        block("rust-consumer"),
        source,
        "README and follow.rs differ"
    );
    let brokers = clone.settled()["brokers"].as_str().unwrap().to_owned();
    let mut follower = Command::new(built("examples/follow"))
        .env("BROKERS", brokers)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut found: Vec<u64> = lines
        .take(positions.len())
        .map(|line| line.unwrap().split(' ').next().unwrap().parse().unwrap())
        .collect();
    follower.kill().unwrap();
    follower.wait().unwrap();
    found.sort_unstable();
    assert_eq!(found, positions);
}

fn replays(clone: &Clone) {
    clone.ok(&block("dead-letters"));
    let printed = clone.ok(&block("replay"));
    let digests: Vec<&str> = printed
        .lines()
        .filter(|line| line.starts_with("all "))
        .collect();
    assert_eq!(digests.len(), 3, "{printed}");
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{printed}"
    );
}

/// `ledger.avro` was exported by the README's block.
fn files_verify(clone: &Clone, hash: &str) {
    let verify = ".venv/bin/python tests/clients/python/verify_chain.py --file";
    let report = &json_lines(&clone.ok(&format!("{verify} ledger.avro --expect {hash}")))[0];
    assert_eq!(report["head_hash"], hash);

    let page = fs::read_to_string(root().join("docs/FORMATS.md")).unwrap();
    let script = page
        .split("```python\n")
        .find(|part| part.starts_with("\"\"\"Verifies a recorded"));
    let (script, _) = script.unwrap().split_once("```").unwrap();
    fs::write(clone.folder.join("verify_file.py"), script).unwrap();
    let printed = clone.ok(".venv/bin/python verify_file.py ledger.avro");
    assert!(printed.contains(hash), "{printed}");

    let mut bytes = fs::read(clone.folder.join("ledger.avro")).unwrap();
    let middle = bytes.len() - bytes.len() / 4;
    bytes[middle] ^= 1;
    fs::write(clone.folder.join("damaged.avro"), bytes).unwrap();
    let done = clone.run(&format!("{verify} damaged.avro"));
    assert_eq!(done.code, Some(1), "{done:?}");
    let done = clone.run("sovereign verify --source damaged.avro");
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.stderr.contains("position "), "{done:?}");
}
