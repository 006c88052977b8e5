//! `cargo xtask setup`: the kernel toolchain, bpf-linker, and the programs that the tests run.

use anyhow::{Context as _, Result, bail};

use crate::{
    shell::{self, step},
    toolchain::{LLVM, Toolchain},
};

const BPF_LINKER: &str = "0.13.0";

const CARGO_FUZZ: &str = "0.13.2";

/// What bpf-linker is built from.
const LINKER_PACKAGES: [&str; 4] = ["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"];

/// Debian's toolchain for the kernel programs.
const DEBIAN_TOOLCHAIN: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Programs that the laboratory runs, and their Debian packages.
const PROGRAMS: [(&str, &str); 4] =
    [("sipp", "sip-tester"), ("ip", "iproute2"), ("tc", "iproute2"), ("ethtool", "ethtool")];

/// Which parts of the set-up a task needs.
#[derive(Clone, Copy)]
pub(crate) struct Wants {
    /// What builds the kernel programs.
    pub(crate) kernel: bool,
    /// What the laboratory runs.
    pub(crate) laboratory: bool,
}

impl Wants {
    pub(crate) const EVERYTHING: Self = Self { kernel: true, laboratory: true };
    pub(crate) const KERNEL: Self = Self { kernel: true, laboratory: false };
    pub(crate) const LABORATORY: Self = Self { kernel: false, laboratory: true };
}

/// Brings what is wanted and missing.
pub(crate) fn run(wants: Wants) -> Result<()> {
    if wants.kernel {
        toolchain()?;
        linker()?;
    }
    if wants.laboratory {
        programs()?;
    }
    Ok(())
}

fn toolchain() -> Result<Toolchain> {
    if let Ok(toolchain) = Toolchain::find() {
        step("setup", format_args!("kernel toolchain: {}", toolchain.name()));
        return Ok(toolchain);
    }
    if shell::find("rustup").is_some() {
        step("setup", "kernel toolchain: asking rustup for nightly with rust-src");
        // What is there is added to, not exchanged: a newer nightly may have a newer LLVM than bpf-linker's.
        let mut add = shell::clean("rustup");
        add.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
        let mut install = shell::clean("rustup");
        install.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
        if let Err(error) = shell::run(&mut add).or_else(|_| shell::run(&mut install)) {
            step("setup", format_args!("rustup cannot have it ({error:#}); trying Debian's packages"));
        } else if let Err(reason) = Toolchain::Rustup.check() {
            step("setup", format_args!("rustup's nightly cannot serve ({reason}); trying Debian's packages"));
        }
    }
    if Toolchain::find().is_err() {
        apt(&DEBIAN_TOOLCHAIN).context("the kernel programs need a compiler with its library source")?;
    }
    let toolchain = Toolchain::find().map_err(|reasons| {
        anyhow::anyhow!(
            "no compiler for the kernel programs ({reasons}): run `rustup toolchain install nightly --component rust-src` \
             or `apt-get install {}`",
            DEBIAN_TOOLCHAIN.join(" ")
        )
    })?;
    step("setup", format_args!("kernel toolchain: {}", toolchain.name()));
    Ok(toolchain)
}

fn linker() -> Result<()> {
    let installed = || shell::output(shell::clean(shell::tools().join("bin/bpf-linker")).arg("--version"));
    if installed().is_some_and(|version| version.split_whitespace().any(|word| word == BPF_LINKER)) {
        step("setup", format_args!("bpf-linker {BPF_LINKER}"));
        return Ok(());
    }
    let missing: Vec<_> = LINKER_PACKAGES.into_iter().filter(|package| !has_package(package)).collect();
    apt(&missing).with_context(|| format!("bpf-linker is built from LLVM {LLVM}"))?;
    step("setup", format_args!("bpf-linker {BPF_LINKER}: building it (some minutes, once)"));
    shell::run(
        shell::cargo()
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"))
            .env_remove("CARGO_TARGET_DIR")
            .args(["install", "--quiet", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"])
            .args(["--no-default-features", "--features", &format!("llvm-{LLVM}"), "--root"])
            .arg(shell::tools()),
    )?;
    if installed().is_none() {
        bail!("bpf-linker was built but does not start: see `target/tools/bin/bpf-linker --version`");
    }
    Ok(())
}

/// What `cargo xtask fuzz` runs: nobody else needs it.
pub(crate) fn fuzzer() -> Result<()> {
    let installed = || shell::output(shell::clean(shell::tools().join("bin/cargo-fuzz")).args(["fuzz", "--version"]));
    if installed().is_none_or(|version| !version.split_whitespace().any(|word| word == CARGO_FUZZ)) {
        step("setup", format_args!("cargo-fuzz {CARGO_FUZZ}: building it (a minute, once)"));
        shell::run(
            shell::cargo()
                .env_remove("CARGO_TARGET_DIR")
                .args(["install", "--quiet", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked", "--force", "--root"])
                .arg(shell::tools()),
        )?;
    }
    if shell::output(shell::clean("rustup").args(["run", "nightly", "rustc", "-V"])).is_none() {
        bail!("the fuzzer needs a nightly compiler: run `rustup toolchain install nightly --profile minimal`");
    }
    step("setup", format_args!("cargo-fuzz {CARGO_FUZZ}, rustup's nightly"));
    Ok(())
}

fn programs() -> Result<()> {
    let mut missing: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| shell::find(program).is_none())
        .map(|(_, package)| package)
        .collect();
    missing.dedup();
    apt(&missing).context("the tests and the demo run these programs")?;
    for (program, package) in PROGRAMS {
        if shell::find(program).is_none() {
            bail!("`{program}` is missing: install the package {package}");
        }
    }
    step("setup", "sipp, ip, tc, ethtool");
    Ok(())
}

fn has_package(package: &str) -> bool {
    shell::output(shell::clean("dpkg-query").args(["-W", "-f=${Status}", package]))
        .is_some_and(|status| status.trim() == "install ok installed")
}

/// Installs Debian packages, with fresh lists where the ones here do not know them.
fn apt(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if shell::find("apt-get").is_none() {
        bail!("missing: {names} (names of Debian's packages; there is no apt-get here, so install their like by hand)");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("missing packages: run `sudo apt-get install {names}`");
    }
    step("setup", format_args!("installing {names}"));
    let apt_get = |args: &[&str]| {
        shell::run(shell::clean("apt-get").env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").args(args))
    };
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(packages);
    if apt_get(&install).is_err() {
        apt_get(&["update"])?;
        apt_get(&install)?;
    }
    Ok(())
}
