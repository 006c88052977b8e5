//! Debian's kernels as packages: taken from the mirror that this machine is set up with, unpacked under target/ and never
//! installed. What was fetched once stays there.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::directory;
use crate::shell::{self, step};

/// A kernel line and the release of Debian that it belongs to.
pub(crate) struct Release {
    pub(crate) version: &'static str,
    pub(crate) suite: &'static str,
}

/// The long-term kernels of hosts that are in use. 5.10 is too old, and the matrix shows why.
pub(crate) const RELEASES: [Release; 3] = [
    Release { version: "5.10", suite: "bullseye" },
    Release { version: "6.1", suite: "bookworm" },
    Release { version: "6.12", suite: "trixie" },
];

/// Depends on the newest kernel of a release. The one for clouds is the smallest.
const META: &str = "linux-image-cloud-amd64";

/// What Debian signs its lists with.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Names another mirror than the one in apt's configuration.
const MIRROR: &str = "DEBIAN_MIRROR";

/// Where a release's kernel is unpacked: `boot/vmlinuz-*`, `lib/modules/*`.
pub(crate) fn fetch(release: &Release) -> Result<PathBuf> {
    let Release { version, suite } = release;
    let home = directory().join(suite);
    let kernel = home.join("kernel");
    if kernel.is_dir() {
        return Ok(kernel);
    }
    step("matrix", format_args!("Linux {version}: fetching Debian {suite}'s"));
    let mirror = mirror()?;
    let cure = || format!("{mirror} should have Debian {suite} for amd64: name a mirror that has it by {MIRROR}=URI");
    let apt = Apt::new(home.join("apt"), &mirror, suite)?;
    apt.run("apt-get", &["-qq", "update"], &home).with_context(cure)?;
    let shown = apt.run("apt-cache", &["show", META], &home).with_context(cure)?;
    let package =
        image_package(&shown).with_context(|| format!("its {META} depends on no kernel")).with_context(cure)?;
    if !package.starts_with(&format!("linux-image-{version}.")) {
        return Err(anyhow!("its kernel is {package}, not {version}")).with_context(cure);
    }
    let (packages, partial) = (home.join("packages"), home.join("partial"));
    // An earlier attempt may have been cut short.
    for leftover in [&packages, &partial].into_iter().filter(|path| path.exists()) {
        fs::remove_dir_all(leftover).with_context(|| format!("cannot remove {}", leftover.display()))?;
    }
    fs::create_dir_all(&packages).with_context(|| format!("cannot make {}", packages.display()))?;
    apt.run("apt-get", &["-qq", "download", &package], &packages).with_context(cure)?;
    shell::run(shell::clean("dpkg-deb").arg("-x").arg(only_entry(&packages)?).arg(&partial))?;
    fs::rename(&partial, &kernel).with_context(|| format!("cannot make {}", kernel.display()))?;
    fs::remove_dir_all(&packages).with_context(|| format!("cannot remove {}", packages.display()))?;
    Ok(kernel)
}

/// What stands alone in a directory.
pub(crate) fn only_entry(directory: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut entries = entries.flatten().map(|entry| entry.path());
    match (entries.next(), entries.next()) {
        (Some(one), None) => Ok(one),
        _ => bail!("there should be one entry in {}", directory.display()),
    }
}

/// The kernel that the meta package depends on, in what apt-cache shows of it.
fn image_package(shown: &str) -> Option<String> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    let mut names = depends.split(',').filter_map(|one| one.split_whitespace().next());
    names.find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

/// An apt with lists and sources of its own, which knows one release and nothing that is installed.
struct Apt {
    home: PathBuf,
}

impl Apt {
    fn new(home: PathBuf, mirror: &str, suite: &str) -> Result<Self> {
        let source = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        let make = |path| fs::create_dir_all(home.join(path));
        let made = ["state/lists/partial", "cache/archives/partial", "preferences.d"].into_iter().try_for_each(make);
        made.with_context(|| format!("cannot make {}", home.display()))?;
        for (name, contents) in [("sources.list", source.as_str()), ("status", "")] {
            fs::write(home.join(name), contents).with_context(|| format!("cannot write {name}"))?;
        }
        Ok(Self { home })
    }

    /// What it prints; an error in its own words.
    fn run(&self, program: &str, args: &[&str], directory: &Path) -> Result<String> {
        let mut command = self.command(program);
        let output = command.args(args).current_dir(directory).output();
        let output = output.with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = shell::clean(program);
        for (option, file) in [
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::preferencesparts", "preferences.d"),
        ] {
            command.arg("-o").arg(format!("{option}={}", self.home.join(file).display()));
        }
        for option in [
            "Dir::Etc::sourceparts=-",
            "Dir::Etc::preferences=/dev/null",
            "APT::Architecture=amd64",
            "APT::Architectures::=amd64",
            "APT::Sandbox::User=root",
            // A list that could not be had is no list.
            "APT::Update::Error-Mode=any",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ] {
            command.args(["-o", option]);
        }
        command
    }
}

/// The mirror of Debian that this machine is set up with.
pub(crate) fn mirror() -> Result<String> {
    if let Ok(mirror) = env::var(MIRROR) {
        return Ok(mirror);
    }
    let mut apt = shell::clean("apt-get");
    apt.args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"]);
    mirror_among(&shell::output(&mut apt).unwrap_or_default())
        .with_context(|| format!("apt is set up with no mirror of Debian: name one by {MIRROR}=http://HOST/debian"))
}

/// A repository that calls itself Debian's; where apt has not asked yet, one whose place is called so.
fn mirror_among(targets: &str) -> Option<String> {
    let named = targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|"));
    let placed = || targets.lines().filter_map(|line| line.rsplit('|').next()).find(|uri| uri.ends_with("/debian/"));
    named.or_else(placed).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debians_own_and_not_that_of_its_security_updates() {
        let asked = "Other|Other|http://other.example/apt/\nDebian|Debian-Security|http://mirror.example/security/\n\
                     Debian|Debian|http://mirror.example/deb/\n";
        assert_eq!(mirror_among(asked).as_deref(), Some("http://mirror.example/deb/"));
        let fresh = "$(ORIGIN)|$(LABEL)|http://mirror.example/debian-security/\n\
                     $(ORIGIN)|$(LABEL)|http://mirror.example/debian/\n";
        assert_eq!(mirror_among(fresh).as_deref(), Some("http://mirror.example/debian/"));
        assert_eq!(mirror_among("Ubuntu|Ubuntu|http://mirror.example/ubuntu/\n"), None);
    }

    #[test]
    fn the_kernel_is_what_the_meta_package_depends_on() {
        let shown =
            "Package: linux-image-cloud-amd64\nDepends: linux-base, linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)\n";
        assert_eq!(image_package(shown).as_deref(), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(image_package("Package: x\n"), None);
    }
}
