//! A machine on which nothing runs but this program: what an init would have done, and the way out.

use std::{
    fs::{self, create_dir_all},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, reboot},
};

/// Where the machine that runs the guest reads what it says; the kernel's own words leave by the first line.
pub(crate) const LINE: &str = "/dev/ttyS1";

/// Mounts what the laboratory needs. The kernel loads its modules by itself (`/sbin/modprobe`).
pub(crate) fn set_up() -> Result<()> {
    for (what, at) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("bpf", "/sys/fs/bpf")]
    {
        create_dir_all(at).with_context(|| format!("cannot make {at}"))?;
        mount(what, at, what, MountFlags::empty(), None).with_context(|| format!("cannot mount {what} on {at}"))?;
    }
    Ok(())
}

/// What is locked down, and to which level.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Locks the kernel down to a level that is higher than the one before; which one holds then, in brackets among all. `None` where the
/// kernel knows nothing of it.
pub(crate) fn lock_down(level: &str) -> Result<Option<String>> {
    if !Path::new(LOCKDOWN).exists() {
        let at = "/sys/kernel/security";
        if mount("securityfs", at, "securityfs", MountFlags::empty(), None).is_err() || !Path::new(LOCKDOWN).exists() {
            return Ok(None);
        }
    }
    fs::write(LOCKDOWN, level).with_context(|| format!("cannot lock down to {level}"))?;
    fs::read_to_string(LOCKDOWN).context(LOCKDOWN).map(Some)
}

/// Switches it off.
pub(crate) fn switch_off() -> ! {
    loop {
        if let Err(error) = reboot(RebootCommand::PowerOff) {
            eprintln!("cannot switch off: {error}");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}
