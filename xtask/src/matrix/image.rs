//! The first root of a guest, in memory: sipst, the checks, the tools that make namespaces and veth pairs, and the modules
//! that the kernel asks for by itself.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{built, directory, kernels::only_entry};
use crate::shell;

/// What a guest is started from.
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) root: PathBuf,
}

/// What the laboratory runs, and busybox, which is the kernel's `modprobe`.
const TOOLS: [&str; 4] = ["ip", "tc", "ethtool", "busybox"];

/// Where the modules stand that may be asked for.
const MODULES: [&str; 2] = ["kernel/net", "kernel/drivers/net"];

/// From an unpacked kernel package. Made anew each time: sipst changes.
pub(crate) fn make(package: &Path, suite: &str) -> Result<Image> {
    let home = directory().join(suite);
    let stage = home.join("root");
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))?;
    }
    for (name, to) in [("matrix", "init"), ("sipst", "sipst")] {
        copy(&built(name), &stage.join(to))?;
    }
    for tool in TOOLS {
        let program =
            shell::find(tool).with_context(|| format!("there is no {tool}: `cargo xtask setup` brings it"))?;
        copy(&program, &stage.join("sbin").join(tool))?;
        for library in libraries(&shell::output(shell::clean("ldd").arg(&program)).unwrap_or_default()) {
            copy(&library, &stage.join(library.strip_prefix("/").unwrap_or(&library)))?;
        }
    }
    symlink("busybox", stage.join("sbin/modprobe")).context("cannot link modprobe")?;
    modules(package, &stage)?;
    let root = home.join("root.cpio");
    let pack = format!("find . | busybox cpio -o -H newc > '{}' 2>/dev/null", root.display());
    shell::run(shell::clean("sh").args(["-c", &pack]).current_dir(&stage))?;
    let boot = fs::read_dir(package.join("boot")).context("the package has no boot/")?;
    let is_kernel = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    let kernel = boot.flatten().map(|entry| entry.path()).find(is_kernel).context("the package has no kernel")?;
    Ok(Image { kernel, root })
}

/// The shared libraries in what ldd shows, the loader among them; none of a program that is linked without.
fn libraries(shown: &str) -> Vec<PathBuf> {
    shown.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// The modules that may be asked for, with what tells `modprobe` which they are.
fn modules(package: &Path, stage: &Path) -> Result<()> {
    let all = ["lib/modules", "usr/lib/modules"].map(|path| package.join(path)).into_iter().find(|path| path.is_dir());
    let from = only_entry(&all.context("the package has no modules")?)?;
    let release = from.file_name().unwrap_or_default();
    let to = stage.join("lib/modules").join(release);
    for part in MODULES {
        copy_all(&from.join(part), &to.join(part))?;
    }
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        copy(&from.join(name), &to.join(name))?;
    }
    shell::run(shell::clean("busybox").args(["depmod", "-b"]).arg(stage).arg(release))
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?.flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy_all(&from, &to)? } else { copy(&from, &to)? }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let text = || format!("cannot copy {} to {}", from.display(), to.display());
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).with_context(text)?;
    }
    fs::copy(from, to).map(drop).with_context(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_shows() {
        let shown = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                     \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(shown), paths);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }
}
