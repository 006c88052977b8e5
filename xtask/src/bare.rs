//! Programs that need no library of the machine that they run on: for hosts of any distribution, and for guests in which there
//! is nothing else.

use std::{env, path::PathBuf, process::Command};

use crate::shell;

/// What such a program is linked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    /// musl: names are looked up without any library too.
    Musl,
    /// glibc: names that the host looks up by more than its files and DNS need the libraries of the same glibc.
    Glibc,
}

/// Finds musl's compiler for what is written in C.
pub(crate) const MUSL_COMPILER: &str = "musl-gcc";

impl Bare {
    /// The better one of those that cargo can build here.
    pub(crate) fn find() -> Self {
        let can = |target: &str| {
            let dir = shell::output(shell::rustc().args(["--print", "target-libdir", "--target", target]));
            dir.is_some_and(|dir| PathBuf::from(dir.trim()).is_dir())
        };
        let musl = can(Self::Musl.target()) && shell::find(MUSL_COMPILER).is_some();
        if musl { Self::Musl } else { Self::Glibc }
    }

    /// Its target.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::Musl => "x86_64-unknown-linux-musl",
            Self::Glibc => "x86_64-unknown-linux-gnu",
        }
    }

    /// A `cargo build` for it. What it leaves names no directory of this machine.
    pub(crate) fn build(self) -> Command {
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
        flags.extend(home.map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
        flags.push(format!("--remap-path-prefix={}=sipst", shell::root().display()));
        let mut cargo = shell::cargo();
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        cargo.args(["build", "--quiet", "--target", self.target()]);
        cargo
    }

    /// A program that [`Self::build`] has left.
    pub(crate) fn built(self, name: &str, release: bool) -> PathBuf {
        shell::target().join(self.target()).join(if release { "release" } else { "debug" }).join(name)
    }
}
