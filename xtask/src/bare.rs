//! Programs that need no library of the machine that they run on: for hosts of any distribution, for guests in which there is
//! nothing else, and for machines of another kind than this one.

use std::{env, path::PathBuf, process::Command};

use clap::ValueEnum;

use crate::shell;

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Arch {
    /// 64-bit PCs
    #[value(name = "x86_64")]
    X86,
    /// 64-bit Arm
    #[value(name = "aarch64")]
    Arm,
}

impl Arch {
    /// That of this machine.
    pub(crate) const HERE: Self = if cfg!(target_arch = "aarch64") { Self::Arm } else { Self::X86 };

    /// What Rust, GNU and the kernel call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }

    /// What Debian calls it.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
        }
    }

    /// The one that this machine is not.
    pub(crate) const FOREIGN: Self = match Self::HERE {
        Self::X86 => Self::Arm,
        Self::Arm => Self::X86,
    };

    /// What runs a program for it, elsewhere.
    pub(crate) fn emulator(self) -> String {
        format!("qemu-{}-static", self.name())
    }

    /// What builds C for it, elsewhere.
    pub(crate) fn compiler(self) -> String {
        format!("{}-linux-gnu-gcc", self.name())
    }
}

/// What such a program is linked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Libc {
    /// Names are looked up without any library too.
    Musl,
    /// Names that the host looks up by more than its files and DNS need the libraries of the same glibc.
    Glibc,
}

/// How such a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bare {
    arch: Arch,
    libc: Libc,
}

/// Finds musl's compiler for what is written in C.
pub(crate) const MUSL_COMPILER: &str = "musl-gcc";

impl Bare {
    /// For this machine: the better one of those that cargo can build here.
    pub(crate) fn find() -> Self {
        let musl = Self::musl(Arch::HERE);
        let can = musl.has_library() && shell::find(MUSL_COMPILER).is_some();
        if can { musl } else { Self { libc: Libc::Glibc, ..musl } }
    }

    /// For a kind of machine.
    pub(crate) fn of(arch: Arch) -> Self {
        if arch == Arch::HERE { Self::find() } else { Self::musl(arch) }
    }

    /// With musl.
    pub(crate) const fn musl(arch: Arch) -> Self {
        Self { arch, libc: Libc::Musl }
    }

    /// Whether it is linked with musl.
    pub(crate) fn is_musl(self) -> bool {
        self.libc == Libc::Musl
    }

    /// Whether the compiler has Rust's own library for it.
    pub(crate) fn has_library(self) -> bool {
        let dir = shell::output(shell::rustc().args(["--print", "target-libdir", "--target", &self.target()]));
        dir.is_some_and(|dir| PathBuf::from(dir.trim()).is_dir())
    }

    /// Its target.
    pub(crate) fn target(self) -> String {
        let libc = if self.is_musl() { "musl" } else { "gnu" };
        format!("{}-unknown-linux-{libc}", self.arch.name())
    }

    /// A `cargo build` for it.
    pub(crate) fn build(self) -> Command {
        let mut cargo = self.cargo("build");
        cargo.arg("--quiet");
        cargo
    }

    /// A `cargo test` for it, by emulation where it is not for this machine.
    pub(crate) fn test(self) -> Command {
        let mut cargo = self.cargo("test");
        if self.arch != Arch::HERE {
            let runner = format!("CARGO_TARGET_{}_RUNNER", self.target().replace('-', "_").to_uppercase());
            // Emulation is ten times slower: a tenth of the cases that chance makes.
            cargo.env(runner, self.arch.emulator()).env("PROPTEST_CASES", "25");
        }
        cargo
    }

    /// What cargo leaves names no directory of this machine.
    fn cargo(self, task: &str) -> Command {
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
        flags.extend(home.map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
        flags.push(format!("--remap-path-prefix={}=sipst", shell::root().display()));
        let mut cargo = shell::cargo();
        if self.arch != Arch::HERE {
            // Rust brings musl and a linker that knows every kind of machine.
            flags.push("-Clinker=rust-lld".to_owned());
            cargo.env(format!("CC_{}", self.target().replace('-', "_")), self.arch.compiler());
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        cargo.args([task, "--target", &self.target()]);
        cargo
    }

    /// A program that [`Self::build`] has left.
    pub(crate) fn built(self, name: &str, release: bool) -> PathBuf {
        shell::target().join(self.target()).join(if release { "release" } else { "debug" }).join(name)
    }
}
