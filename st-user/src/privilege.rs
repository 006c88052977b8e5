//! What the daemon may do: which capabilities it goes on with once all is attached, and how the rest is given up for good.
//! `docs/security.md` has the reason of each.
//!
//! Capabilities belong to threads. Only the daemon's main thread keeps any; the threads beside it are started by
//! [`without_any`] and never hold one.

use std::{io, panic::resume_unwind, thread};

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs,
    },
};

/// What the daemon goes on with once it reads: NET_RAW for the raw socket of an address of the server's that it meets later. Where
/// filters hold the programs (`filters`: below Linux 6.6), NET_ADMIN as well, for an interface that comes back and for the end.
/// Links need none: the programs are loaded, and pins are files.
pub fn running(filters: bool) -> CapabilitySet {
    if filters { CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN } else { CapabilitySet::NET_RAW }
}

/// The same beside, where the network namespaces of containers are attached in: SYS_ADMIN to enter the next one of a container that is
/// started again, SYS_PTRACE for one that nothing but a process stands for.
pub const ELSEWHERE: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYS_PTRACE);

/// The same beside, where calls over TCP are refreshed: to find the server's socket and to duplicate it.
pub const ACTING: CapabilitySet = CapabilitySet::SYS_PTRACE;

/// Gives up all of this thread's capabilities but those in `keep`, for good: nothing inheritable or ambient, no program that
/// it runs gains any (`no_new_privs`), and nothing is in the bounding set, unless CAP_SETPCAP is lacking to empty that.
///
/// # Errors
/// The kernel refuses, which it has no reason to.
pub fn keep_only(keep: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let held = capabilities(None)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set()?;
    }
    let left = held.permitted & keep;
    let sets = CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// Runs `start` on a thread of its own without any capability, so that the threads which it starts have none either.
///
/// # Errors
/// There is no thread left, or as [`keep_only`].
pub fn without_any<T: Send>(start: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let run = || keep_only(CapabilitySet::empty()).map(|()| start());
        let thread = thread::Builder::new().name("unprivileged".into()).spawn_scoped(scope, run)?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn empty_bounding_set() -> io::Result<()> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) if number > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What the kernel says of this thread: permitted, effective, inheritable, bounding, ambient, no_new_privs.
    fn state() -> [u64; 6] {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        ["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs"].map(|name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
        })
    }

    const KEPT: CapabilitySet = CapabilitySet::NET_RAW;

    #[test]
    fn what_is_given_up_is_gone_from_every_set_and_cannot_be_had_back() {
        thread::spawn(|| {
            keep_only(KEPT).unwrap();
            assert_eq!(state(), [KEPT.bits(), KEPT.bits(), 0, 0, 0, 1]);
            keep_only(KEPT | CapabilitySet::BPF).unwrap();
            assert_eq!(state(), [KEPT.bits(), KEPT.bits(), 0, 0, 0, 1]);
            let sets = CapabilitySets {
                effective: CapabilitySet::BPF,
                permitted: CapabilitySet::BPF,
                inheritable: CapabilitySet::empty(),
            };
            assert_eq!(set_capabilities(None, sets), Err(Errno::PERM));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_that_is_started_without_any_has_none_and_the_one_that_started_it_keeps_its_own() {
        let before = state();
        let inner = without_any(|| thread::spawn(state)).unwrap().join().unwrap();
        assert_eq!(inner, [0, 0, 0, 0, 0, 1]);
        assert_eq!(state(), before);
    }
}
