//! `cargo xtask setup`: the kernel toolchain, bpf-linker, and the programs that the tests run.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::{
    bare::{Arch, Bare, MUSL_COMPILER},
    matrix::KEYRING,
    shell::{self, step},
    toolchain::{LLVM, Toolchain},
};

const BPF_LINKER: &str = "0.13.0";

const CARGO_FUZZ: &str = "0.13.2";

const CARGO_DEB: &str = "3.8.0";

/// What bpf-linker is built from.
const LINKER_PACKAGES: [&str; 4] = ["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"];

/// Debian's toolchain for the kernel programs.
const DEBIAN_TOOLCHAIN: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A program that has to be there, or a command that has to succeed, and the Debian package that brings it.
type Need = (&'static [&'static str], &'static str);

/// What the laboratory runs.
const PROGRAMS: [Need; 4] =
    [(&["sipp"], "sip-tester"), (&["ip"], "iproute2"), (&["tc"], "iproute2"), (&["ethtool"], "ethtool")];

/// SIP software, a browser, a terminal and what tries alert rules, which only tests run, and what sets a clock for one process.
const STACKS: [Need; 13] = [
    (&["promtool"], PROMETHEUS),
    (&["chromium"], "chromium"),
    (&["chromedriver"], "chromium-driver"),
    (&["faketime"], "faketime"),
    (&["tmux"], "tmux"),
    (&["nft", "--version"], "nftables"),
    (&["kamailio"], KAMAILIO),
    (&["baresip"], "baresip-core"),
    (&["perl", "-MNet::SIP", "-e1"], "libnet-sip-perl"),
    (&["cc"], "gcc"),
    (&["pkg-config"], "pkg-config"),
    (&["pkg-config", "--exists", "sofia-sip-ua"], "libsofia-sip-ua-dev"),
    (&["python3", "-c", "import venv, ensurepip"], "python3-venv"),
];

/// What runs guests, and what goes into them beside the laboratory.
const GUESTS: [Need; 4] = [
    (&["qemu-system-x86_64"], "qemu-system-x86"),
    (&["busybox"], "busybox-static"),
    (&["dpkg-deb"], "dpkg"),
    (&["test", "-f", KEYRING], "debian-archive-keyring"),
];

/// What makes packages, and the Debian in which they are tried.
const PACKAGERS: [Need; 4] = [
    (&["dpkg-deb"], "dpkg"),
    (&["mmdebstrap"], "mmdebstrap"),
    (&["unshare"], "util-linux"),
    (&["test", "-f", KEYRING], "debian-archive-keyring"),
];

/// What reads captures and interfaces, beside which sipst is measured, and what keeps it on a processor.
const READERS: [Need; 5] = [
    (&["sipgrep"], "sipgrep"),
    (&["sngrep"], "sngrep"),
    (&["tshark"], "tshark"),
    (&["tcpdump"], "tcpdump"),
    (&["taskset"], "util-linux"),
];

/// What tries them at a terminal.
const TERMINAL: [Need; 2] = [(&["tmux"], "tmux"), (&["nsenter"], "util-linux")];

/// Its package would start a proxy on port 5060.
const KAMAILIO: &str = "kamailio";

/// Its package would start a server on port 9090; what tries alert rules is in it.
const PROMETHEUS: &str = "prometheus";

/// Packages of which nothing is to be started.
const SERVICES: [&str; 2] = [KAMAILIO, PROMETHEUS];

/// Sippy's B2BUA and what it imports, of PyPI.
const SIPPY: [&str; 4] = ["sippy==2.5.0", "ElPeriodic==1.5.2", "pycryptodome==4.4.0", "websockets==17.4"];

/// Which parts of the set-up a task needs.
#[derive(Clone, Copy)]
pub(crate) struct Wants {
    /// What builds the kernel programs.
    pub(crate) kernel: bool,
    /// What the laboratory runs.
    pub(crate) laboratory: bool,
    /// SIP software that only tests run.
    pub(crate) stacks: bool,
    /// What runs guests with other kernels.
    pub(crate) guests: bool,
    /// What makes packages and tries them.
    pub(crate) packages: bool,
    /// What else reads captures.
    pub(crate) readers: bool,
    /// What somebody at a terminal needs.
    pub(crate) terminal: bool,
}

impl Wants {
    const NOTHING: Self = Self {
        kernel: false,
        laboratory: false,
        stacks: false,
        guests: false,
        packages: false,
        terminal: false,
        readers: false,
    };
    // But what only `cargo xtask bench` runs: it brings that itself.
    pub(crate) const EVERYTHING: Self = Self {
        kernel: true,
        laboratory: true,
        stacks: true,
        guests: true,
        packages: true,
        terminal: true,
        readers: false,
    };
    pub(crate) const KERNEL: Self = Self { kernel: true, ..Self::NOTHING };
    pub(crate) const LABORATORY: Self = Self { laboratory: true, ..Self::NOTHING };
    pub(crate) const TESTS: Self = Self { stacks: true, ..Self::LABORATORY };
    pub(crate) const MATRIX: Self = Self { guests: true, ..Self::LABORATORY };
    pub(crate) const DIST: Self = Self { packages: true, ..Self::KERNEL };
    pub(crate) const TRIAL: Self = Self { laboratory: true, terminal: true, ..Self::DIST };
}

/// Brings what is wanted and missing.
pub(crate) fn run(wants: Wants) -> Result<()> {
    if wants.kernel {
        toolchain()?;
        linker()?;
    }
    if wants.laboratory {
        programs(&PROGRAMS)?;
        step("setup", "sipp, ip, tc, ethtool");
    }
    if wants.stacks {
        programs(&STACKS)?;
        sippy()?;
        step("setup", "kamailio, baresip, Net::SIP, sofia-sip, sippy, faketime, chromium, promtool, tmux");
    }
    if wants.guests {
        programs(&GUESTS)?;
        bare()?;
        step("setup", "qemu, busybox");
    }
    if wants.packages {
        programs(&PACKAGERS)?;
        bare()?;
        packager()?;
    }
    if wants.readers {
        programs(&READERS)?;
        step("setup", "sipgrep, sngrep, tshark, tcpdump, taskset");
    }
    if wants.terminal {
        programs(&TERMINAL)?;
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
    cargo_tool("cargo-fuzz", CARGO_FUZZ)?;
    if shell::output(shell::clean("rustup").args(["run", "nightly", "rustc", "-V"])).is_none() {
        bail!("the fuzzer needs a nightly compiler: run `rustup toolchain install nightly --profile minimal`");
    }
    step("setup", format_args!("cargo-fuzz {CARGO_FUZZ}, rustup's nightly"));
    Ok(())
}

/// What makes Debian packages.
fn packager() -> Result<()> {
    cargo_tool("cargo-deb", CARGO_DEB)?;
    step("setup", format_args!("cargo-deb {CARGO_DEB}"));
    Ok(())
}

/// What builds programs that need no library. Where musl cannot be had, glibc is linked in.
fn bare() -> Result<()> {
    if !Bare::find().is_musl() {
        if shell::find(MUSL_COMPILER).is_none() {
            apt(&["musl-tools"])?;
        }
        library(Bare::musl(Arch::HERE));
    }
    step("setup", format_args!("programs without libraries: {}", Bare::find().target()));
    Ok(())
}

/// What builds them for another kind of machine, and runs them here.
pub(crate) fn foreign(arch: Arch) -> Result<()> {
    let bare = Bare::of(arch);
    if shell::find(&arch.compiler()).is_none() {
        let name = arch.name().replace('_', "-");
        apt(&[&format!("gcc-{name}-linux-gnu"), &format!("libc6-dev-{}-cross", arch.debian())])?;
    }
    if shell::find(&arch.emulator()).is_none() {
        apt(&["qemu-user-static"])?;
    }
    if !bare.has_library() {
        library(bare);
    }
    if !bare.has_library() {
        bail!("Rust has no library for {target} here: run `rustup target add {target}`", target = bare.target());
    }
    step("setup", format_args!("programs for {}: {}, {}", arch.name(), arch.compiler(), arch.emulator()));
    Ok(())
}

/// Asks for Rust's own library. Who asked looks whether it came.
fn library(bare: Bare) {
    if shell::find("rustup").is_some() {
        let target = bare.target();
        step("setup", format_args!("asking rustup for {target}"));
        let _ = shell::run(shell::clean("rustup").args(["target", "add", &target]));
    }
}

/// Builds a program of cargo's into `target/tools`, unless it is there.
fn cargo_tool(name: &str, version: &str) -> Result<()> {
    // As cargo runs it: the first argument is its own name.
    let program = shell::tools().join("bin").join(name);
    let own_name = name.trim_start_matches("cargo-");
    let installed = || shell::output(shell::clean(&program).args([own_name, "--version"]));
    if installed().is_some_and(|said| said.split_whitespace().any(|word| word == version)) {
        return Ok(());
    }
    step("setup", format_args!("{name} {version}: building it (a minute, once)"));
    shell::run(
        shell::cargo()
            .env_remove("CARGO_TARGET_DIR")
            .args(["install", "--quiet", name, "--version", version, "--locked", "--force", "--root"])
            .arg(shell::tools()),
    )
}

fn programs(needs: &[Need]) -> Result<()> {
    let is_missing = |probe: &[&str]| match shell::find(probe[0]) {
        Some(program) => probe.len() > 1 && shell::output(shell::clean(program).args(&probe[1..])).is_none(),
        None => true,
    };
    let mut missing: Vec<_> =
        needs.iter().filter(|(probe, _)| is_missing(probe)).map(|(_, package)| *package).collect();
    missing.dedup();
    let services: Vec<_> = SERVICES.into_iter().filter(|service| missing.contains(service)).collect();
    if services.is_empty() { apt(&missing) } else { without(&services, || apt(&missing)) }
        .context("the tests and the demo run these programs")?;
    for (probe, package) in needs {
        if is_missing(probe) {
            bail!("`{}` fails: install the package {package}", probe.join(" "));
        }
    }
    Ok(())
}

/// Installs, and sees to it that systemd, where there is one, does not start these services now or at the next boot.
fn without(services: &[&str], install: impl FnOnce() -> Result<()>) -> Result<()> {
    let systemctl = |args: &[&str]| {
        // Where there is none, the package's own script starts nothing that is not configured.
        shell::find("systemctl").and_then(|program| shell::output(shell::clean(program).args(args).args(services)));
    };
    // sd_booted(3). A mask would make that directory, and every package believe that systemd runs.
    let runs = Path::new("/run/systemd/system").is_dir();
    if runs {
        systemctl(&["--quiet", "--runtime", "mask"]);
    }
    let result = install();
    if runs {
        systemctl(&["--quiet", "--runtime", "unmask"]);
    }
    systemctl(&["--quiet", "disable"]);
    result
}

/// A virtual environment of its own: nothing else on this machine is to see these packages.
fn sippy() -> Result<()> {
    let home = shell::tools().join("sippy");
    // The list is written last, so that what was cut short is begun anew.
    let list = home.join("packages");
    if std::fs::read_to_string(&list).is_ok_and(|text| text == SIPPY.join("\n")) {
        return Ok(());
    }
    step("setup", format_args!("installing {}", SIPPY.join(" ")));
    let python = shell::find("python3").context("python3 is missing: install the package python3-venv")?;
    shell::run(shell::clean(python).args(["-m", "venv", "--clear"]).arg(&home))?;
    // Only these four: the rest of what sippy names is for media and for a web page.
    let mut pip = shell::clean(home.join("bin/python"));
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps"]).args(SIPPY);
    shell::run(&mut pip).context("PyPI's sippy is a server that the tests run")?;
    if shell::output(shell::clean(home.join("bin/python")).args(["-c", "import sippy.b2bua"])).is_none() {
        bail!("sippy is installed but does not start: see `target/tools/sippy/bin/b2bua`");
    }
    std::fs::write(&list, SIPPY.join("\n")).with_context(|| list.display().to_string())
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
