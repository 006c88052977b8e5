//! `cargo xtask dist`: sipst as a program without libraries, in a Debian package and in an archive for other distributions. Both
//! are the same, byte for byte, wherever and whenever one commit is packed.

mod check;
mod foreign;
mod machine;
mod walk;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

pub(crate) use self::{check::check, foreign::foreign};
use crate::{
    bare::{Arch, Bare},
    build, setup,
    shell::{self, step},
};

/// The version of the workspace's packages.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is packed beside what is built: from the workspace's root, to the archive's.
const FILES: [(&str, &str); 6] = [
    ("README.md", "README.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("config", "config"),
    ("docs", "docs"),
    ("ARCHITECTURE.md", "docs/ARCHITECTURE.md"),
];

#[derive(Args)]
pub(crate) struct Options {
    /// For which kind of machine; this one's by default
    #[arg(long)]
    arch: Option<Arch>,
}

/// Brings what is missing, builds and packs.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run(setup::Wants::DIST)?;
    let arch = options.arch.unwrap_or(Arch::HERE);
    if arch == Arch::HERE {
        build::kernel()?;
    } else {
        setup::foreign(arch)?;
        build::run(&build::Options { release: false })?;
    }
    step("dist", "sipst, optimised: some minutes");
    stage(arch, true)?;
    for file in [deb(arch, VERSION, &directory(), Packing::Small)?, archive(arch, &directory(), Packing::Small)?] {
        step("dist", file.display());
    }
    Ok(())
}

/// Where packages are left.
fn directory() -> PathBuf {
    shell::root().join("target/dist")
}

/// What both packages are made of.
fn staged() -> PathBuf {
    directory().join("stage")
}

/// Builds sipst, and has it write what describes it: where it cannot run here, the one that [`build::run`] has left does.
fn stage(arch: Arch, release: bool) -> Result<()> {
    let bare = Bare::of(arch);
    let mut cargo = bare.build();
    cargo.args(["--package", "sipst"]);
    if release {
        cargo.arg("--release");
    }
    shell::run(&mut cargo)?;
    let stage = staged();
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))?;
    }
    let sipst = stage.join("bin/sipst");
    make(&stage.join("bin"))?;
    fs::copy(bare.built("sipst", release), &sipst).context("cannot copy sipst")?;
    let writer = if arch == Arch::HERE { sipst } else { shell::sipst(false) };
    let man = stage.join("share/man/man1");
    make(&man)?;
    shell::run(shell::clean(&writer).arg("man").arg(&man))?;
    for (name, file) in [
        ("bash", "share/bash-completion/completions/sipst"),
        ("zsh", "share/zsh/vendor-completions/_sipst"),
        ("fish", "share/fish/vendor_completions.d/sipst.fish"),
    ] {
        let script = shell::output(shell::clean(&writer).args(["completions", name]));
        let (script, file) = (script.with_context(|| format!("no completions for {name}"))?, stage.join(file));
        file.parent().map_or(Ok(()), make)?;
        fs::write(&file, script).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// How well a package is compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    /// As well as can be.
    Small,
    /// For a moment: what is in it is the same.
    Fast,
}

/// The Debian package of what is staged.
fn deb(arch: Arch, version: &str, to: &Path, packing: Packing) -> Result<PathBuf> {
    make(to)?;
    let file = to.join(format!("sipst_{version}_{}.deb", arch.debian()));
    let mut cargo_deb = shell::clean(shell::tools().join("bin/cargo-deb"));
    cargo_deb
        .env("SOURCE_DATE_EPOCH", epoch()?)
        .args(["deb", "--quiet", "--no-build", "--no-strip", "--package", "sipst", "--deb-version", version])
        .args(["--target", &Bare::of(arch).target(), "--output"])
        .arg(&file);
    if packing == Packing::Fast {
        cargo_deb.arg("--fast");
    }
    shell::run(&mut cargo_deb)?;
    Ok(file)
}

/// The archive of what is staged, with the files that the package puts elsewhere.
fn archive(arch: Arch, to: &Path, packing: Packing) -> Result<PathBuf> {
    make(to)?;
    let name = format!("sipst-{VERSION}-{}", arch.name());
    let file = to.join(format!("{name}.tar.gz"));
    let tree = directory().join("archive");
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    make(&tree)?;
    let home = tree.join(&name);
    shell::run(Command::new("cp").arg("-r").arg(staged()).arg(&home))?;
    for (from, to) in FILES {
        shell::run(Command::new("cp").arg("-r").arg(shell::root().join(from)).arg(home.join(to)))?;
    }
    // The package's own scripts.
    fs::remove_dir_all(home.join("config/deb")).context("cannot leave out config/deb")?;
    let level = if packing == Packing::Fast { 1 } else { 9 };
    let tar = format!(
        "tar --sort=name --mtime=@{} --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -c {name} | gzip -{level}n > '{}'",
        epoch()?,
        file.display(),
    );
    shell::run(shell::clean("sh").args(["-c", &tar]).current_dir(&tree))?;
    Ok(file)
}

/// When the commit was made that is packed, in seconds: what files in packages are dated.
fn epoch() -> Result<String> {
    if let Ok(set) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(set);
    }
    let said = shell::output(shell::clean("git").args(["log", "-1", "--format=%ct"]));
    match said.map(|said| said.trim().to_owned()) {
        Some(seconds) if !seconds.is_empty() => Ok(seconds),
        _ => bail!("no git repository tells the date of what is packed: set SOURCE_DATE_EPOCH to it, in seconds"),
    }
}

fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}
