//! `cargo xtask load` and `unload`: the kernel programs without the daemon.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{build, shell};

#[derive(Args)]
pub(crate) struct Load {
    /// Attach to this interface; may be given several times
    #[arg(long, required = true)]
    interface: Vec<String>,
    /// Build with optimisation
    #[arg(long)]
    release: bool,
}

#[derive(Args)]
pub(crate) struct Unload {
    /// Also while calls depend on the programs
    #[arg(long)]
    force: bool,
    /// Use the optimised build
    #[arg(long)]
    release: bool,
}

pub(crate) fn load(options: &Load) -> Result<ExitCode> {
    shell::need_root("loading kernel programs")?;
    build::run(&build::Options { release: options.release })?;
    let interfaces = options.interface.iter().flat_map(|name| ["--interface", name]);
    sipst(options.release, std::iter::once("load").chain(interfaces))
}

pub(crate) fn unload(options: &Unload) -> Result<ExitCode> {
    shell::need_root("unloading kernel programs")?;
    build::run(&build::Options { release: options.release })?;
    sipst(options.release, std::iter::once("unload").chain(options.force.then_some("--force")))
}

/// Runs sipst, whose message and exit code are then the task's own.
fn sipst<'a>(release: bool, args: impl Iterator<Item = &'a str>) -> Result<ExitCode> {
    let program = shell::sipst(release);
    let status =
        shell::clean(&program).args(args).status().with_context(|| format!("cannot run {}", program.display()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
