//! A program that lets every packet by and does nothing else, and repeated runs of any program. aya loads programs from objects only,
//! and two instructions need none; a run of both goes the same way, so that the same is measured.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use rustix::time::{ClockId, clock_gettime};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const XDP: u32 = 6;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD` (Linux 3.18).
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_TEST_RUN` (Linux 4.12).
#[repr(C)]
#[derive(Default)]
struct Test {
    program: u32,
    verdict: u32,
    in_len: u32,
    out_len: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    /// Nanoseconds of one run, on average; whole ones.
    duration: u32,
}

/// The beginning of `union bpf_attr` for `BPF_LINK_CREATE` (Linux 5.7).
#[repr(C)]
struct Link {
    program: u32,
    index: u32,
    attach_type: u32,
    flags: u32,
}

/// `bpf(2)`.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the attributes are those of the command and live until it returns; the kernel takes what is missing for 0.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// A loaded program of two instructions.
pub(crate) struct Empty(OwnedFd);

impl Empty {
    pub(crate) fn xdp() -> Self {
        // XDP_PASS
        Self::load(XDP, 2)
    }

    pub(crate) fn tc() -> Self {
        // TCX_NEXT, which is TC_ACT_UNSPEC
        Self::load(SCHED_CLS, -1)
    }

    fn load(kind: u32, verdict: i32) -> Self {
        // r0 = verdict; exit
        let verdict = i64::from(verdict) as u64 & 0xffff_ffff;
        let code: [u64; 2] = [0xb7 | verdict << 32, 0x95];
        let license = c"GPL";
        let mut load = Load {
            kind,
            instructions: code.len() as u32,
            code: code.as_ptr() as u64,
            license: license.as_ptr() as u64,
        };
        let fd = bpf(BPF_PROG_LOAD, &mut load).expect("the empty program loads");
        // SAFETY: the kernel has just given it to us.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Nanoseconds of a packet through a program, on average of so many: by this thread's own time, so that what else the machine does is
/// not in it, and to a fraction, of which the kernel tells nothing. The call itself is in it, which takes some microseconds.
pub(crate) fn run(program: RawFd, frame: &[u8], repeat: u32) -> f64 {
    let mut test = Test {
        program: program as u32,
        in_len: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        ..Test::default()
    };
    took(|| _ = bpf(BPF_PROG_TEST_RUN, &mut test).expect("a test run")) / f64::from(repeat)
}

/// Nanoseconds of this thread's own time that something takes.
pub(crate) fn took(what: impl FnOnce()) -> f64 {
    let before = clock_gettime(ClockId::ThreadCPUTime);
    what();
    let after = clock_gettime(ClockId::ThreadCPUTime);
    (after.tv_sec - before.tv_sec) as f64 * 1e9 + (after.tv_nsec - before.tv_nsec) as f64
}

/// Where a program is attached: `enum bpf_attach_type`, and flags.
pub(crate) type Hook = (u32, u32);
pub(crate) const TCX_INGRESS: Hook = (46, 0);
pub(crate) const TCX_EGRESS: Hook = (47, 0);
/// `BPF_XDP` with `XDP_FLAGS_DRV_MODE`.
pub(crate) const XDP_IN_DRIVER: Hook = (37, 1 << 2);

/// Attaches a program to an interface of this thread's network, as long as the result lives (Linux 6.6).
pub(crate) fn attach(program: RawFd, interface: &str, (attach_type, flags): Hook) -> OwnedFd {
    let name = CString::new(interface).expect("a name");
    // SAFETY: a string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let mut link = Link { program: program as u32, index, attach_type, flags };
    let fd = bpf(BPF_LINK_CREATE, &mut link).expect("a link: Linux 6.6 or later");
    // SAFETY: the kernel has just given it to us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
