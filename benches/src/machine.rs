//! What the numbers were measured on.

use std::collections::BTreeMap;

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_kib: u64,
    kernel: String,
    /// Median time of writing 8 KiB and waiting until it is on the disk.
    fdatasync_ms: f64,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|l| l.starts_with(name));
            line.and_then(|l| l.split_once(':'))
                .map(|(_, v)| v.trim().to_owned())
        };
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib = field(&memory, "MemTotal")
            .and_then(|v| v.split(' ').next().and_then(|n| n.parse().ok()))
            .unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: field(&cpu, "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_kib,
            kernel: kernel.trim().to_owned(),
            fdatasync_ms: fdatasync_ms().unwrap_or(f64::NAN),
        }
    }
}

fn fdatasync_ms() -> std::io::Result<f64> {
    use std::io::Write as _;
    let mut file = tempfile::tempfile()?;
    let mut times = Vec::new();
    for _ in 0..100 {
        let started = std::time::Instant::now();
        file.write_all(&[1; 8192])?;
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(crate::protocol::Spread::of(&times).median)
}

/// Of the peers, as locked, and of our own build.
pub(crate) fn versions() -> BTreeMap<String, String> {
    let lock: &str = include_str!("../Cargo.lock");
    let mut versions = BTreeMap::new();
    for wanted in [
        "cqrs-es",
        "postgres-es",
        "umadb-server",
        "rdkafka",
        "rdkafka-sys",
        "apache-avro",
        "sqlx",
    ] {
        let found = lock.split("[[package]]").find_map(|package| {
            let named = package.contains(&format!("\nname = \"{wanted}\"\n"));
            let version = package.split("version = \"").nth(1)?.split('"').next()?;
            named.then(|| version.to_owned())
        });
        versions.insert(wanted.to_owned(), found.unwrap_or_default());
    }
    versions.insert("sovereign".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    versions.insert(
        "profile".to_owned(),
        if cfg!(debug_assertions) {
            "dev: not for comparison"
        } else {
            "release"
        }
        .to_owned(),
    );
    versions
}
