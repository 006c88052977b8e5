//! `cargo xtask fuzz`: the fuzzer on properties that hold for any bytes. The suite runs them over its corpus.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use st_fuzz::PROPERTIES;

use crate::{
    setup,
    shell::{self, step},
};

/// The longest input, in bytes: a message has a few hundred, and a course of steps as many.
const LONGEST: &str = "2048";

#[derive(Args)]
pub(crate) struct Options {
    /// Which property; all of them by default, one after the other
    #[arg(value_parser = PROPERTIES.map(|(name, _)| name))]
    target: Option<String>,
    /// How long for each, in minutes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::fuzzer()?;
    for (name, _) in PROPERTIES {
        if options.target.as_deref().is_none_or(|wanted| wanted == name) {
            fuzz(name, options.minutes)?;
        }
    }
    Ok(())
}

/// What is found anew lies in `target/fuzz`; the corpus that is committed is only read.
fn fuzz(name: &str, minutes: u64) -> Result<()> {
    let work = shell::target().join("fuzz");
    let [found, failures] = ["corpus", "failures"].map(|folder| work.join(folder).join(name));
    for folder in [&found, &failures] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    step("fuzz", format_args!("{name}: {minutes} min"));
    let mut cargo = shell::clean("rustup");
    cargo
        .env("PATH", path(&shell::tools().join("bin"))?)
        .env("CARGO_TARGET_DIR", work.join("build"))
        .args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir", "fuzz/targets"])
        // There is no unsafe code to watch, and without it twice as much is tried.
        .args(["--sanitizer", "none", name])
        .arg(&found)
        .arg(shell::root().join("fuzz/corpus").join(name))
        .arg("--")
        .args([&format!("-max_total_time={}", minutes * 60), &format!("-max_len={LONGEST}")])
        .args(["-print_final_stats=1", "-timeout=20"])
        .arg(format!("-artifact_prefix={}/", failures.display()));
    if shell::run(&mut cargo).is_err() {
        bail!("{name} does not hold: the input is in {}", failures.display());
    }
    Ok(())
}

/// The search path with one more folder in front.
fn path(folder: &Path) -> Result<std::ffi::OsString> {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&rest)))
        .context("the path of the tools cannot stand in PATH")
}
