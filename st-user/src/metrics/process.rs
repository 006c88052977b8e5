//! What the daemon's process takes.

use procfs::{WithCurrentSystemInfo as _, process::Process};

use super::declaration::Families;

/// Publishes it, as far as /proc tells.
pub(crate) fn publish(families: &Families) {
    let Ok(own) = Process::myself() else { return };
    if let Ok(stat) = own.stat() {
        families.process_cpu.set((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64);
        families.process_resident.set([], stat.rss_bytes().get() as f64);
        families.process_virtual.set([], stat.vsize as f64);
        families.process_threads.set([], stat.num_threads as f64);
    }
    if let Ok(open) = own.fd_count() {
        families.process_fds.set([], open as f64);
    }
    if let Some(procfs::process::LimitValue::Value(most)) =
        own.limits().ok().map(|limits| limits.max_open_files.soft_limit)
    {
        families.process_max_fds.set([], most as f64);
    }
}
