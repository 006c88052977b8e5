//! What only bpf(2) tells: programs at TCX hooks, what is loaded at all, and whether a helper is there.

use std::{
    ffi::CStr,
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
const BPF_MAP_GET_NEXT_ID: libc::c_long = 12;
const BPF_PROG_QUERY: libc::c_long = 16;

/// A side of an interface's TCX hook (`enum bpf_attach_type`).
#[derive(Clone, Copy)]
pub(crate) enum Tcx {
    Ingress = 46,
    Egress = 47,
}

/// A kind of program (`enum bpf_prog_type`).
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Tc = 3,
    Xdp = 6,
}

/// Ids of the programs at a TCX hook; none where the kernel has no such hooks.
pub(crate) fn tcx(interface: u32, hook: Tcx) -> Vec<u32> {
    #[repr(C)]
    struct Attr {
        interface: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        reserved: u32,
        more: [u64; 4],
    }
    let mut ids = [0_u32; 64];
    let mut attr = Attr {
        interface,
        attach_type: hook as u32,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        reserved: 0,
        more: [0; 4],
    };
    if bpf(BPF_PROG_QUERY, &mut attr).is_err() {
        return Vec::new();
    }
    ids.into_iter().filter(|id| *id != 0).collect()
}

/// How many programs and maps are loaded, of whomever.
pub(crate) fn loaded() -> usize {
    #[repr(C)]
    struct Attr {
        id: u32,
        next: u32,
        flags: u32,
    }
    let count = |operation| {
        let mut attr = Attr { id: 0, next: 0, flags: 0 };
        let mut found = 0;
        while bpf(operation, &mut attr).is_ok() {
            found += 1;
            attr.id = attr.next;
        }
        found
    };
    count(BPF_PROG_GET_NEXT_ID) + count(BPF_MAP_GET_NEXT_ID)
}

/// Whether a helper (`enum bpf_func_id`) is known to programs of a kind: one that calls it is refused for its arguments
/// then, and otherwise for the call.
pub(crate) fn has_helper(kind: Kind, helper: i32) -> bool {
    #[repr(C)]
    struct Instruction {
        code: u8,
        registers: u8,
        offset: i16,
        immediate: i32,
    }
    #[repr(C)]
    struct Attr {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    let instructions =
        [(CALL, helper), (EXIT, 0)].map(|(code, immediate)| Instruction { code, registers: 0, offset: 0, immediate });
    let mut log = [0_u8; 4096];
    let mut attr = Attr {
        kind: kind as u32,
        count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        kernel_version: 0,
        flags: 0,
    };
    if let Ok(program) = bpf(BPF_PROG_LOAD, &mut attr) {
        // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
        drop(unsafe { OwnedFd::from_raw_fd(program) });
        return true;
    }
    let log = CStr::from_bytes_until_nul(&log).map(|log| log.to_string_lossy().into_owned()).unwrap_or_default();
    !log.is_empty() && !["invalid func", "unknown func", "cannot use helper"].iter().any(|word| log.contains(word))
}

fn bpf<T>(operation: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` has the layout that this operation reads and writes, and lives through the call, as does what it
    // points to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, operation, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
