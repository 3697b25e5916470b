use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::fetch::{DOWNLOAD_LIMIT, hex_digest, pin, prerequisites, run::run};
use crate::kafka::VERSION;

pub(super) const LIBS: &str = "libs";
const POM: &str = include_str!("../../dist/kafka/pom.xml");
const SUMS: &str = include_str!("../../dist/kafka/SHA256SUMS");

/// Apache Kafka's jars by Maven.
pub(super) struct Package;

impl super::Package for Package {
    fn title(&self) -> String {
        format!(
            "Apache Kafka {VERSION} ({} jars from Maven Central)",
            pinned().len()
        )
    }

    fn folder(&self) -> String {
        format!("kafka-{VERSION}-{}", pin(SUMS))
    }

    fn download(&self, folder: &Path) -> Result<()> {
        let maven = prerequisites::maven()?;
        let pom = folder.join("pom.xml");
        fs::write(&pom, POM).map_err(Error::io("writing", &pom))?;
        let mut command = Command::new(maven);
        command.args(["-B", "-ntp", "-f"]).arg(&pom);
        command.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
        command.arg(format!("-DoutputDirectory={}", folder.join(LIBS).display()));
        command.current_dir(folder);
        run(
            &mut command,
            &self.title(),
            &folder.join("mvn.log"),
            DOWNLOAD_LIMIT,
        )?;
        verify(&folder.join(LIBS), &pinned())
    }

    fn is_whole(&self, folder: &Path) -> bool {
        pinned()
            .keys()
            .all(|jar| folder.join(LIBS).join(jar).is_file())
    }
}

fn pinned() -> BTreeMap<&'static str, &'static str> {
    let lines = SUMS.lines().filter_map(|line| line.split_once("  "));
    lines.map(|(sum, name)| (name, sum)).collect()
}

/// Exactly the pinned files with exactly the pinned content.
fn verify(libs: &Path, pinned: &BTreeMap<&str, &str>) -> Result<()> {
    let differs = |file: &str, expected: &str, found: &str| Error::Checksum {
        file: file.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    let entries = fs::read_dir(libs).map_err(Error::io("reading", libs))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("reading", libs))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !pinned.contains_key(name.as_str()) {
            return Err(differs(&name, "none", "not checked"));
        }
    }
    for (name, expected) in pinned {
        let Ok(bytes) = fs::read(libs.join(name)) else {
            return Err(differs(name, expected, "missing"));
        };
        let found = hex_digest(&bytes);
        if found != *expected {
            return Err(differs(name, expected, &found));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pin_file_names_kafka_and_only_whole_lines() {
        assert_eq!(pinned().len(), SUMS.lines().count());
        assert!(pinned().contains_key("kafka_2.13-4.3.0.jar"));
        assert!(pinned().values().all(|sum| sum.len() == 64));
    }

    #[test]
    fn changed_missing_and_additional_jars_are_named() {
        let base = tempfile::tempdir().unwrap();
        let sum = hex_digest(b"jar");
        let pinned = BTreeMap::from([("a.jar", sum.as_str())]);
        let verify = || verify(base.path(), &pinned).map_err(|error| error.to_string());
        assert!(verify().unwrap_err().contains("a.jar is missing"));
        fs::write(base.path().join("a.jar"), "jar").unwrap();
        verify().unwrap();
        fs::write(base.path().join("b.jar"), "jar").unwrap();
        assert!(verify().unwrap_err().contains("b.jar"));
        fs::remove_file(base.path().join("b.jar")).unwrap();
        fs::write(base.path().join("a.jar"), "jam").unwrap();
        assert!(verify().unwrap_err().contains(&sum));
    }
}
