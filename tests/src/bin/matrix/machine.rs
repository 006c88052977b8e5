//! A machine on which nothing runs but this program: what an init would have done, and the way out.

use std::{fs::create_dir_all, time::Duration};

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

/// Switches it off.
pub(crate) fn switch_off() -> ! {
    loop {
        if let Err(error) = reboot(RebootCommand::PowerOff) {
            eprintln!("cannot switch off: {error}");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}
