//! For tests: threads in namespaces of their own, which end with them. They need root.

use std::{process::Command, thread};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

/// A directory that is empty at first, and gone with the namespace.
pub(crate) const STATE_DIR: &str = "/run";

/// Runs a test on a thread with its own mounts, a bpf file system of its own and a veth pair `v0` and `v1`.
pub(crate) fn in_a_namespace(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS);
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None).unwrap();
            mount("tmpfs", STATE_DIR, "tmpfs", MountFlags::empty(), None).unwrap();
            ip("link add v0 type veth peer name v1");
            ip("link set v0 up");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Puts this thread into new namespaces.
pub(crate) fn unshare(flags: UnshareFlags) {
    // SAFETY: only namespaces change, and no other thread counts on this one's.
    unsafe { unshare_unsafe(flags) }.unwrap();
}

pub(crate) fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}
