//! `cargo xtask build`: the kernel programs with their own compiler and flags, then `sipst`, which embeds them.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    setup,
    shell::{self, step},
    toolchain::Toolchain,
};

const KERNEL_TARGET: &str = "bpfel-unknown-none";

/// BTF is what lets the verifier accept `bpf_loop` callbacks; v3 brings compare-and-swap; packets are not aligned. What clears or copies
/// a few bytes is written out: by itself the linker has them call a loop over single bytes, which costs more than a header.
const KERNEL_CODEGEN: [&str; 5] = [
    "debuginfo=2",
    "link-arg=--btf",
    "link-arg=--disable-expand-memcpy-in-order",
    "target-cpu=v3",
    "target-feature=+allows-misaligned-mem-access",
];

#[derive(Args)]
pub(crate) struct Options {
    /// Leave target/release/sipst
    #[arg(long)]
    pub(crate) release: bool,
}

/// Brings what is missing, then builds both.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run(setup::Wants::KERNEL)?;
    kernel()?;
    step("build", format_args!("sipst ({})", if options.release { "release" } else { "debug" }));
    let mut cargo = shell::cargo();
    cargo.args(["build", "--quiet", "--package", "sipst"]);
    if options.release {
        cargo.arg("--release");
    }
    shell::run(&mut cargo)?;
    step("build", shell::sipst(options.release).display());
    Ok(())
}

/// Builds the kernel programs into [`shell::kernel_object`].
pub(crate) fn kernel() -> Result<()> {
    let toolchain = Toolchain::find().map_err(anyhow::Error::msg)?;
    step("build", "kernel programs");
    let build = shell::root().join("target/bpf-build");
    let linker = format!("linker={}", shell::tools().join("bin/bpf-linker").display());
    let flags: Vec<_> = std::iter::once(linker.as_str()).chain(KERNEL_CODEGEN).flat_map(|flag| ["-C", flag]).collect();
    let mut cargo = toolchain.cargo();
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args(["build", "--quiet", "--release", "--package", "st-ebpf", "--bin", "st-ebpf"])
        .args(["--features", "programs", "--target", KERNEL_TARGET, "-Zbuild-std=core", "--target-dir"])
        .arg(&build);
    let output = cargo.output().with_context(|| format!("cannot run `{}`", shell::text(&cargo)))?;
    eprint!("{}", without_known_warning(&String::from_utf8_lossy(&output.stderr)));
    if !output.status.success() {
        bail!("the kernel programs do not build ({}): the compiler's message stands above", output.status);
    }
    let built = build.join(KERNEL_TARGET).join("release/st-ebpf");
    copy_if_changed(&built, &shell::kernel_object())
}

/// The compiler warns of every target feature that is not stable; it cannot be told that this one is meant.
fn without_known_warning(messages: &str) -> String {
    let known =
        |block: &&str| block.trim_start().starts_with("warning: unstable feature specified for `-Ctarget-feature`");
    messages.split_inclusive("\n\n").filter(|block| !known(block)).collect()
}

/// Copies only what differs, so that what embeds the file is not built again for nothing.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_known_warning_is_left_out() {
        let known = "warning: unstable feature specified for `-Ctarget-feature`: `x`\n  |\n  = note: not stable\n\n";
        let other = "warning: unused variable: `y`\n --> src/main.rs:1:1\n\n";
        assert_eq!(without_known_warning(&format!("{known}{other}{known}")), other);
    }
}
