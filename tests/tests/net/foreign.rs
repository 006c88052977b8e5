//! A program of somebody else's on an interface: `r0 = 2; exit`, which drops all at TC and passes all at XDP.

use std::{
    ffi::c_long,
    mem::size_of,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use st_tests::Host;

/// Where it stands, and so what it does.
#[derive(Clone, Copy)]
pub(crate) enum Hook {
    /// TCX on ingress, behind all others: drops (`TC_ACT_SHOT`).
    DropIngress,
    /// The same on egress.
    DropEgress,
    /// XDP: passes (`XDP_PASS`).
    PassXdp,
}

impl Hook {
    /// Attaches it to `eth0`; the link holds it.
    pub(crate) fn attach(self, host: &Host) -> OwnedFd {
        // Of `bpf_prog_type` and `bpf_attach_type`.
        let (prog_type, attach_type) = match self {
            Self::DropIngress => (3, 46),
            Self::DropEgress => (3, 47),
            Self::PassXdp => (6, 37),
        };
        host.enter(move || attach(prog_type, attach_type))
    }
}

fn attach(prog_type: u32, attach_type: u32) -> OwnedFd {
    /// `BPF_PROG_LOAD`, as far as it is needed.
    #[repr(C)]
    #[derive(Default)]
    struct ProgLoad {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log: [u64; 2],
        kern_version: u32,
        prog_flags: u32,
        name: [u8; 16],
        ifindex: u32,
        expected_attach_type: u32,
    }
    /// `BPF_LINK_CREATE`, as far as it is needed.
    #[repr(C)]
    #[derive(Default)]
    struct LinkCreate {
        prog_fd: u32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
        more: [u64; 4],
    }
    // r0 = 2; exit
    let code: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
    let load = ProgLoad {
        prog_type,
        insn_cnt: 2,
        insns: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: attach_type,
        ..ProgLoad::default()
    };
    let program = bpf(5, &load);
    let index = std::fs::read_to_string("/sys/class/net/eth0/ifindex").unwrap().trim().parse().unwrap();
    let prog_fd = program.as_raw_fd().try_into().unwrap();
    bpf(28, &LinkCreate { prog_fd, target_ifindex: index, attach_type, ..LinkCreate::default() })
}

/// bpf(2) for the commands that return a descriptor.
fn bpf<T>(command: c_long, attributes: &T) -> OwnedFd {
    // SAFETY: the attributes are valid for reads of the given size, as are the buffers that they point to; both
    // commands used here only read them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    assert!(fd >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd.try_into().unwrap()) }
}
