//! The compiler for the kernel programs: one that has its library source, and LLVM no newer than bpf-linker's.

use std::{path::Path, process::Command};

use crate::shell;

/// The LLVM that bpf-linker is built with.
pub(crate) const LLVM: u32 = 22;

/// Where such a compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// rustup's nightly with the component rust-src.
    Rustup,
    /// Debian's rustc-web, cargo-web and rust-web-src.
    Debian,
}

impl Toolchain {
    /// The first that works here, or why each does not.
    pub(crate) fn find() -> Result<Self, String> {
        let mut reasons = Vec::new();
        for toolchain in [Self::Rustup, Self::Debian] {
            match toolchain.check() {
                Ok(()) => return Ok(toolchain),
                Err(reason) => reasons.push(format!("{}: {reason}", toolchain.name())),
            }
        }
        Err(reasons.join("; "))
    }

    /// What a person calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup's nightly with rust-src",
            Self::Debian => "Debian's rustc-web with rust-web-src",
        }
    }

    /// Whether it can build the kernel programs.
    pub(crate) fn check(self) -> Result<(), String> {
        let version = shell::output(self.rustc().arg("-vV")).ok_or("not installed")?;
        let sysroot = shell::output(self.rustc().args(["--print", "sysroot"])).ok_or("it does not start")?;
        if !Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
            return Err("its library source is missing".into());
        }
        match llvm(&version) {
            Some(major) if major <= LLVM => Ok(()),
            Some(major) => Err(format!("it has LLVM {major}, newer than bpf-linker's {LLVM}")),
            None => Err("it does not tell its LLVM version".into()),
        }
    }

    /// Its compiler.
    fn rustc(self) -> Command {
        match self {
            Self::Rustup => {
                let mut command = shell::clean("rustup");
                command.args(["run", "nightly", "rustc"]);
                command
            }
            Self::Debian => shell::clean("/usr/bin/rustc"),
        }
    }

    /// Its cargo, with what lets it build `core`.
    pub(crate) fn cargo(self) -> Command {
        match self {
            Self::Rustup => {
                let mut command = shell::clean("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
            Self::Debian => {
                let mut command = shell::clean("/usr/bin/cargo");
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }
}

/// The major LLVM version in what `rustc -vV` prints.
fn llvm(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_llvm_version() {
        assert_eq!(llvm("rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n"), Some(22));
        assert_eq!(llvm("rustc 1.97.0-nightly\n"), None);
    }
}
