//! Places in the workspace, and running other programs: one line per step, errors that name the program and the cure.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// The workspace's root directory.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Where cargo puts what it builds for this machine.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where the kernel toolchain's own programs live.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// The kernel programs, as `sipst` embeds them and the kernel tests load them.
pub(crate) fn kernel_object() -> PathBuf {
    root().join("target/bpf/st-ebpf")
}

/// The `sipst` binary of a profile.
pub(crate) fn sipst(release: bool) -> PathBuf {
    target().join(if release { "release" } else { "debug" }).join("sipst")
}

/// One line per step, to stderr: stdout is for results.
pub(crate) fn step(task: &str, text: impl std::fmt::Display) {
    eprintln!("{task:>8}  {text}");
}

/// The cargo that runs this task.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The compiler that this cargo runs.
pub(crate) fn rustc() -> Command {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(root());
    command
}

/// A program with none of the settings that the cargo above us made for its own children.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_SOURCE_"];
        let of_cargo = text.starts_with("CARGO") && !ours.iter().any(|keep| text.starts_with(keep));
        if of_cargo || ["RUSTUP_TOOLCHAIN", "RUSTC", "RUSTFLAGS", "RUSTDOC", "LD_LIBRARY_PATH"].contains(&text.as_ref())
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Where a program is, by `PATH` and the administrator's directories that a user's `PATH` may lack.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// The command as a person would type it.
pub(crate) fn text(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

/// Runs to the end; an error unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run `{}`", text(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status}); its own message stands above", text(command));
    }
    Ok(())
}

/// What it prints; `None` where it cannot be run or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An error with the cure unless we are root.
pub(crate) fn need_root(what: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "{what} needs root (network namespaces, kernel programs): run it with sudo, e.g. \
         `sudo -E env PATH=$PATH cargo xtask ...`"
    )
}
