//! What a process takes, to the nanosecond, and what the kernel programs do.

use std::{fs, path::Path, time::Duration};

use sipst::kernel::Kernel;
use st_tests::Host;

/// Where the daemon pins its programs, unless it is told otherwise.
const PIN_DIR: &str = "/sys/fs/bpf/sipst";

/// What a process has taken so far, all of its threads together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// On a processor, the kernel's work for it included.
    pub(crate) busy: Duration,
    /// Ready to run while others did.
    pub(crate) waited: Duration,
    /// How often it has waited for something, which is how often it was woken up.
    pub(crate) wakeups: u64,
}

impl Usage {
    /// Of a process. One that is gone has taken nothing.
    pub(crate) fn of(process: u32) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        tasks.map(|task| Self::of_thread(&task.path())).fold(Self::default(), |sum, one| Self {
            busy: sum.busy + one.busy,
            waited: sum.waited + one.waited,
            wakeups: sum.wakeups + one.wakeups,
        })
    }

    fn of_thread(task: &Path) -> Self {
        let read = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
        // Nanoseconds on a processor and waiting for one (CONFIG_SCHED_INFO).
        let stat = read("schedstat");
        let mut times = stat.split_whitespace().filter_map(|time| time.parse().ok()).map(Duration::from_nanos);
        Self {
            busy: times.next().unwrap_or_default(),
            waited: times.next().unwrap_or_default(),
            wakeups: field(&read("status"), "voluntary_ctxt_switches:"),
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(before.busy),
            waited: self.waited.saturating_sub(before.waited),
            wakeups: self.wakeups.saturating_sub(before.wakeups),
        }
    }
}

/// Resident memory of a process, in megabytes.
pub(crate) fn resident_mb(process: u32) -> f64 {
    field(&fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default(), "VmRSS:") as f64 / 1_024.0
}

/// A number that stands behind its name.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// sipst's programs on a host, and what they have done while this process counted.
pub(crate) struct Programs(Vec<u32>);

impl Programs {
    pub(crate) fn on(host: &Host) -> Self {
        let attached = host.enter(|| Kernel::status(Path::new(PIN_DIR)));
        Self(attached.expect("a look at what is attached").into_iter().map(|attached| attached.program).collect())
    }

    /// How long they have run, and how often.
    pub(crate) fn ran(&self) -> (Duration, u64) {
        let loaded = aya::programs::loaded_programs().flatten().filter(|program| self.0.contains(&program.id()));
        loaded.fold((Duration::ZERO, 0), |(time, count), program| {
            (time + program.run_time(), count + program.run_count())
        })
    }
}
