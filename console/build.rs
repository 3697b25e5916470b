//! Compiles the help pages of the error codes in: the engine shows them in the browser.

#![allow(clippy::expect_used, missing_docs)]

use std::fmt::Write as _;
use std::path::PathBuf;

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where we are");
    let folder = PathBuf::from(here).join("../docs/errors");
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut pages: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("docs/errors is there")
        .map(|entry| entry.expect("docs/errors can be listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "md") && !path.ends_with("README.md"))
        .collect();
    pages.sort();
    let mut code = String::from("static HELP: &[(&str, &str)] = &[\n");
    for page in &pages {
        println!("cargo:rerun-if-changed={}", page.display());
        let name = page.file_stem().expect("a file has a name");
        let name = name.to_str().expect("codes are ASCII");
        writeln!(code, "    ({name:?}, include_str!({page:?})),").expect("a string takes it");
    }
    code.push_str("];\n");
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo says where to"));
    std::fs::write(out.join("help.rs"), code).expect("the build folder is writable");
}
