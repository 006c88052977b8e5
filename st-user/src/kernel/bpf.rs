//! The operations of bpf(2) that aya does not have, or only for those with more capabilities: to open, ask and detach
//! pinned links, and to ask which programs are attached.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_DETACH: libc::c_long = 34;

const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// As many programs as the kernel takes at one TCX hook.
const MAX_PROGRAMS: usize = 64;

const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;

/// What holds a program at its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    Tcx,
    Xdp,
    /// A clsact filter, which is no link; its program is pinned instead.
    Filter,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// `None` for a hook that sipst does not use.
    pub(crate) kind: Option<LinkKind>,
    /// The link's own id.
    pub(crate) id: u32,
    /// The program's id.
    pub(crate) program: u32,
    /// The interface's index, 0 once that is gone.
    pub(crate) interface: u32,
}

/// A pinned link or program.
pub(crate) struct Pinned(OwnedFd);

impl Pinned {
    /// `BPF_OBJ_GET`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        #[repr(C)]
        struct Attr {
            path: u64,
            fd: u32,
            flags: u32,
        }
        let path = CString::new(path.as_os_str().as_bytes())?;
        let fd = bpf(BPF_OBJ_GET, &Attr { path: path.as_ptr() as u64, fd: 0, flags: 0 })?;
        // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Of a link.
    pub(crate) fn info(&self) -> io::Result<LinkInfo> {
        // The head of `struct bpf_link_info`: type, id, prog_id, padding, then the hook's own part, where both hooks
        // begin with the interface.
        let [kind, id, program, _, interface, ..] = self.words()?;
        let kind = match kind {
            BPF_LINK_TYPE_TCX => Some(LinkKind::Tcx),
            BPF_LINK_TYPE_XDP => Some(LinkKind::Xdp),
            _ => None,
        };
        Ok(LinkInfo { kind, id, program, interface })
    }

    /// A program's id: `struct bpf_prog_info` begins with type and id.
    pub(crate) fn program(&self) -> io::Result<u32> {
        self.words().map(|[_, id, ..]| id)
    }

    /// `BPF_OBJ_GET_INFO_BY_FD`.
    fn words(&self) -> io::Result<[u32; 8]> {
        #[repr(C)]
        struct Attr {
            fd: u32,
            len: u32,
            info: u64,
        }
        let mut info = [0_u32; 8];
        let len = size_of_val(&info) as u32;
        bpf(BPF_OBJ_GET_INFO_BY_FD, &Attr { fd: self.0.as_raw_fd() as u32, len, info: info.as_mut_ptr() as u64 })?;
        Ok(info)
    }

    /// `BPF_LINK_DETACH`: at once, where closing the last descriptor leaves it to a worker of the kernel's.
    pub(crate) fn detach(&self) -> io::Result<()> {
        #[repr(C)]
        struct Attr {
            fd: u32,
        }
        bpf(BPF_LINK_DETACH, &Attr { fd: self.0.as_raw_fd() as u32 }).map(drop)
    }
}

/// Ids of the programs at an interface's TCX egress hook (`BPF_PROG_QUERY`).
pub(crate) fn egress_programs(interface: u32) -> io::Result<Vec<u32>> {
    programs(interface, BPF_TCX_EGRESS)
}

/// The same at the ingress hook.
pub(crate) fn ingress_programs(interface: u32) -> io::Result<Vec<u32>> {
    programs(interface, BPF_TCX_INGRESS)
}

fn programs(interface: u32, attach_type: u32) -> io::Result<Vec<u32>> {
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
    let mut ids = [0_u32; MAX_PROGRAMS];
    let attr = Attr {
        interface,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        reserved: 0,
        more: [0; 4],
    };
    bpf(BPF_PROG_QUERY, &attr)?;
    // What the kernel did not write is 0, which is no program's id.
    Ok(ids.into_iter().filter(|id| *id != 0).collect())
}

fn bpf<T>(operation: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` of the length that is told; the kernel takes the rest as zeros. The
    // addresses in it point to memory that outlives the call and, for the one that is written to, is of the told length.
    let result = unsafe { libc::syscall(libc::SYS_bpf, operation, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
