//! `cargo xtask test dist`: the package is installed, upgraded, removed and purged in a Debian 12 of its own, in which nothing else
//! is; then in one that runs, with a call, by README. Nothing of it outlives the check, and nothing of this machine's is touched.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{Packing, VERSION, archive, deb, directory, make, stage, walk::walk};
use crate::{
    bare::Arch,
    build,
    matrix::mirror,
    shell::{self, step},
    test::Outcome,
};

/// What is in it beside the least of a Debian: what an installed one has, and no more than sipst and the checks need.
const PACKAGES: &str = "--include=systemd-sysv,procps,iproute2";

/// What a newer version is called.
const NEWER: &str = "99.0.0";

/// A Debian, as files.
pub(super) struct Debian {
    root: PathBuf,
}

/// Makes the packages without optimisation, and tries them.
pub(crate) fn check() -> Result<Outcome> {
    build::kernel()?;
    step("dist", "the packages, without optimisation");
    stage(Arch::HERE, false)?;
    let home = directory().join("check");
    let package = deb(Arch::HERE, VERSION, &home, Packing::Fast)?;
    let mut tally = Tally::default();
    tally.says(
        "packed twice, the package is the same",
        same(&package, &deb(Arch::HERE, VERSION, &home.join("again"), Packing::Fast)?),
    );
    tally.says(
        "and the archive",
        same(&archive(Arch::HERE, &home, Packing::Fast)?, &archive(Arch::HERE, &home.join("again"), Packing::Fast)?),
    );
    let newer = deb(Arch::HERE, NEWER, &home, Packing::Fast)?;
    let debian = Debian::fresh()?;
    debian.has(&package)?;
    debian.has(&newer)?;
    life(&debian, &mut tally);
    // Another one: what was purged may have left something that the walk would find.
    let debian = Debian::fresh()?;
    debian.has(&package)?;
    walk(&debian, &mut tally)?;
    Ok(tally.outcome())
}

/// From the first installation to the purge.
fn life(debian: &Debian, tally: &mut Tally) {
    let install = |version| format!("dpkg -i /root/sipst_{version}_{}.deb", Arch::HERE.debian());
    let (older, newer) = (install(VERSION), install(NEWER));
    let unit = "/lib/systemd/system/sipst.service";
    let score = "systemd-analyze security --no-pager --offline=true --threshold=40";
    for (what, script) in [
        ("it is installed", older.as_str()),
        ("it runs", &format!("sipst --version | grep -qx 'sipst {VERSION}'")),
        (
            "its configuration is sound and observes",
            "sipst check-config /etc/sipst/config.yaml | grep 'refreshes nothing'",
        ),
        ("the group is there", "getent group sipst"),
        ("nothing was started", "! pgrep -x sipst"),
        ("nothing is started at boot", "! systemctl is-enabled sipst"),
        ("the unit is sound", &format!("systemd-analyze verify --man=no {unit}")),
        ("the unit is confined", &format!("{score} {unit}")),
        ("manual pages", "ls /usr/share/man/man1/sipst.1.gz /usr/share/man/man1/sipst-run.1.gz"),
        ("completions", "bash -n /usr/share/bash-completion/completions/sipst"),
        (
            "documents",
            "ls /usr/share/doc/sipst/README.md /usr/share/doc/sipst/security.md /usr/share/doc/sipst/LICENSE-MIT",
        ),
        (
            "alert rules and a dashboard",
            "ls /usr/share/sipst/prometheus/sipst.rules.yml /usr/share/sipst/grafana/sipst.json",
        ),
        ("a changed configuration", "echo '# mine' >> /etc/sipst/config.yaml"),
        ("state", "mkdir -p /var/lib/sipst && touch /var/lib/sipst/state"),
        ("it is upgraded", &newer),
        ("to the newer version", &format!("dpkg -s sipst | grep -qx 'Version: {NEWER}'")),
        ("and the changed configuration stays", "tail -1 /etc/sipst/config.yaml | grep -qx '# mine'"),
        ("it is removed", "dpkg -r sipst"),
        (
            "with all but configuration and state",
            "! ls /usr/bin/sipst && ls /etc/sipst/config.yaml /var/lib/sipst/state",
        ),
        ("it is purged", "dpkg -P sipst"),
        ("with these", "! ls -d /etc/sipst /var/lib/sipst /usr/share/doc/sipst /usr/share/sipst"),
    ] {
        tally.says(what, debian.run(script));
    }
}

impl Debian {
    /// Unpacked anew; fetched once.
    fn fresh() -> Result<Self> {
        let (packed, root) = (directory().join("bookworm.tar"), directory().join("debian"));
        if !packed.is_file() {
            step("dist", "fetching a Debian 12 (a minute, once)");
            let partial = directory().join("partial.tar");
            let mut bootstrap = shell::clean("mmdebstrap");
            bootstrap.args(["--quiet", "--variant=minbase", PACKAGES, "bookworm"]);
            shell::run(bootstrap.arg(&partial).arg(mirror()?))?;
            fs::rename(&partial, &packed).with_context(|| format!("cannot make {}", packed.display()))?;
        }
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
        }
        make(&root)?;
        // Devices cannot be made everywhere, and none is used.
        let mut unpack = shell::clean("tar");
        shell::run(unpack.arg("-xf").arg(&packed).arg("--exclude=./dev/*").arg("-C").arg(&root))?;
        make(&root.join("dev"))?;
        fs::write(root.join("dev/null"), "").context("cannot make dev/null")?;
        Ok(Self { root })
    }

    /// Its files.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Puts a package where root finds it.
    fn has(&self, package: &Path) -> Result<()> {
        let to = self.root.join("root").join(package.file_name().unwrap_or_default());
        fs::copy(package, to).map(drop).with_context(|| format!("cannot copy {}", package.display()))
    }

    /// Whether a script succeeds in it. Its processes and mounts are its own and end with it.
    fn run(&self, script: &str) -> Result<(), String> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--net", "--uts", "--ipc", "--mount-proc"]);
        unshare.arg("--root").arg(&self.root).args(["/bin/sh", "-c", script]);
        unshare.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DEBIAN_FRONTEND", "noninteractive");
        let output = unshare.output().map_err(|error| format!("cannot run unshare: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!("`{script}` failed ({}): {}", output.status, String::from_utf8_lossy(&said).trim()))
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn same(one: &Path, other: &Path) -> Result<(), String> {
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    if read(one)? == read(other)? { Ok(()) } else { Err("they differ".into()) }
}

#[derive(Default)]
pub(super) struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    pub(super) fn outcome(self) -> Outcome {
        Outcome { passed: self.passed, failed: self.failed }
    }

    pub(super) fn says(&mut self, what: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(_) => self.failed += 1,
        }
        println!("dist {what} ... {}", result.map_or_else(|why| format!("FAILED: {why}"), |()| "ok".into()));
    }
}
