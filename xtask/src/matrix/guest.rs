//! Runs the checks: on a machine of qemu's that has nothing but the image, or here.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};
use st_tests::{Process, matrix::Line};

use super::{GUEST_MIB, built, directory, image::Image};

/// Longer than any machine should take: a guest that hangs must not hang the tests.
const PATIENCE: Duration = Duration::from_secs(900);

/// How much of what a guest's kernel said is shown where it ended badly.
const LAST_LINES: usize = 30;

/// On a machine without KVM. The kernel's words go to a file, by the first serial line; what the checks say comes by the
/// second.
pub(crate) fn emulated(image: &Image, suite: &str) -> Result<Vec<Line>> {
    let log = directory().join(suite).join("console.log");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", &GUEST_MIB.to_string()]);
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    qemu.arg("-serial").arg(format!("file:{}", log.display())).args(["-serial", "stdio"]);
    qemu.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.root);
    // What the kernel does not know becomes its first process's environment.
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on PATH=/sbin SIPST=/sipst"]);
    lines(qemu).with_context(|| {
        let text = fs::read(&log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        let last = all.get(all.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
        format!("the guest ended badly; its last words ({}):\n{}\n", log.display(), last.join("\n"))
    })
}

/// On the kernel that runs here.
pub(crate) fn here() -> Result<Vec<Line>> {
    let mut matrix = Command::new(built("matrix"));
    matrix.env("SIPST", built("sipst"));
    lines(matrix)
}

/// What it says, to the end.
fn lines(command: Command) -> Result<Vec<Line>> {
    let mut process = Process::spawn(command)?;
    let ended = process.wait(PATIENCE);
    let status = ended.with_context(|| format!("it said, and then nothing more:\n{}", process.printed()))?;
    let lines: Vec<Line> = process.printed().lines().filter_map(|line| line.parse().ok()).collect();
    if lines.last() != Some(&Line::End) {
        bail!("it ended early ({status}); it said:\n{}\n{}", process.printed(), process.said());
    }
    Ok(lines)
}
