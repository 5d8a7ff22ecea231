//! Builds the two programs that run inside sandboxes, as static binaries, and leaves them for `include_bytes!`.
//!
//! A nested `cargo build` is what lets a plain `pip install .` work: maturin builds no program next to an extension.
//! The programs go to a target folder of their own, since the outer build holds the lock of its folder.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set for the nested build, which inherits `CARGO_FEATURE_*` from this one and must not nest again.
const INNER: &str = "INSPECT_DAYTONA_INNER_BUILD";

/// Chooses the target of the programs where more than one would do, for example to test the one without musl.
const TARGET: &str = "INSPECT_DAYTONA_STATIC_TARGET";

const MUSL: &str = "x86_64-unknown-linux-musl";
const GNU: &str = "x86_64-unknown-linux-gnu";

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={INNER}");
    println!("cargo::rerun-if-env-changed={TARGET}");
    if env::var_os(INNER).is_some() {
        return Ok(());
    }
    if env::var_os("CARGO_FEATURE_PROVIDER").is_some() {
        embed("shim", "inspect-daytona-shim", "INSPECT_DAYTONA_SHIM", &["src/shim"])?;
    }
    if env::var_os("CARGO_FEATURE_LOCAL").is_some() {
        let sources = [
            "src/api",
            "src/local/runner",
            "src/local/toolbox",
            "src/local/mod.rs",
            "src/local/spec.rs",
            "src/local/wire.rs",
        ];
        embed("runner", "inspect-daytona-runner", "INSPECT_DAYTONA_RUNNER", &sources)?;
    }
    Ok(())
}

/// Builds program `name` with `feature` and tells the crate its path through the variable `variable`.
fn embed(feature: &str, name: &str, variable: &str, sources: &[&str]) -> Result<(), String> {
    for source in sources.iter().chain(&["Cargo.toml", "Cargo.lock", "src/lib.rs", "src/error.rs"]) {
        println!("cargo::rerun-if-changed={source}");
    }
    let out = PathBuf::from(variable_of_cargo("OUT_DIR")?);
    let (target, flags) = static_target()?;
    let target_dir = embedded_target_dir(&out);
    let mut cargo = Command::new(variable_of_cargo("CARGO")?);
    cargo
        .args(["build", "--quiet", "--profile", "embedded", "--no-default-features", "--bin", name])
        .args(["--features", feature, "--target", target, "--target-dir"])
        .arg(&target_dir)
        .env(INNER, "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        // a wrapper such as clippy's is meant for the outer build
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTFLAGS");
    if Path::new("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    let status = cargo.status().map_err(|error| format!("cannot run cargo again: {error}"))?;
    if !status.success() {
        return Err(format!(
            "the program {name}, which runs inside sandboxes, could not be built for {target}"
        ));
    }
    let built = target_dir.join(target).join("embedded").join(name);
    let copy = out.join(name);
    std::fs::copy(&built, &copy).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    println!("cargo::rustc-env={variable}={}", copy.display());
    Ok(())
}

/// A variable that cargo sets for build scripts.
fn variable_of_cargo(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}

/// `<target>/embedded`, found from `<target>/<profile>/build/<package>/out`.
fn embedded_target_dir(out: &Path) -> PathBuf {
    out.ancestors().nth(4).map_or_else(|| out.join("embedded"), |target| target.join("embedded"))
}

/// The target of a static program for linux/amd64, Daytona's only platform, and the compiler flags it needs.
/// musl makes the smaller program (0.5 against 1.1 MB for an empty one); static glibc needs nothing installed.
fn static_target() -> Result<(&'static str, &'static str), String> {
    const STATIC_GLIBC: &str = "-Ctarget-feature=+crt-static";
    match env::var(TARGET).as_deref() {
        Ok(MUSL) => return Ok((MUSL, "")),
        Ok(GNU) => return Ok((GNU, STATIC_GLIBC)),
        Ok("") | Err(_) => {}
        Ok(other) => return Err(format!("{TARGET} is {other}; it may be {MUSL} or {GNU}")),
    }
    let rustc = variable_of_cargo("RUSTC")?;
    let installed = |target: &str| {
        let output = Command::new(&rustc).args(["--print", "target-libdir", "--target", target]).output();
        output.is_ok_and(|output| {
            let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
        })
    };
    if installed(MUSL) {
        return Ok((MUSL, ""));
    }
    if env::var("HOST").is_ok_and(|host| host == GNU) {
        return Ok((GNU, STATIC_GLIBC));
    }
    Err(format!("no Rust target for the program inside sandboxes; run: rustup target add {MUSL}"))
}
