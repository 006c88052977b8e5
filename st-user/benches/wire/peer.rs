//! The peers of all calls: one socket at all of their addresses, which answers each refresh and keeps when it came.

use std::{
    io,
    mem::MaybeUninit,
    net::UdpSocket,
    os::fd::AsRawFd as _,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use rustix::time::{ClockId, clock_gettime};
use sipst::clock::monotonic_ns;

use crate::sessions::number;

/// What has come.
pub(crate) struct Seen {
    /// When the first refresh of each call came, in nanoseconds of `CLOCK_MONOTONIC`; 0: none has.
    pub(crate) first: Vec<AtomicU64>,
    /// How many calls had one.
    pub(crate) calls: AtomicUsize,
    /// Refreshes that came again.
    pub(crate) again: AtomicU64,
    /// What is no refresh of any of these calls.
    pub(crate) others: AtomicU64,
}

/// Answers at this socket from now on, on a thread of the caller's host.
pub(crate) fn answer(socket: UdpSocket, calls: usize) -> Arc<Seen> {
    let first = (0..calls).map(|_| AtomicU64::new(0)).collect();
    let seen = Arc::new(Seen { first, calls: 0.into(), again: 0.into(), others: 0.into() });
    let shared = Arc::clone(&seen);
    for (level, option) in [(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS), (libc::IPPROTO_IP, libc::IP_PKTINFO)] {
        set(&socket, level, option, 1).expect("a socket of Linux's");
    }
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20).expect("room in the socket");
    thread::spawn(move || {
        let mut letter = Letter::default();
        while letter.receive(&socket).is_ok() {
            let text = String::from_utf8_lossy(&letter.bytes[..letter.length]);
            match reply(&text) {
                Some((reply, call)) if call < shared.first.len() => {
                    let new = shared.first[call].compare_exchange(0, letter.came_ns, Relaxed, Relaxed).is_ok();
                    shared.calls.fetch_add(usize::from(new), Relaxed);
                    shared.again.fetch_add(u64::from(!new), Relaxed);
                    letter.reply(&socket, reply.as_bytes());
                }
                Some(_) | None => _ = shared.others.fetch_add(1, Relaxed),
            }
        }
    });
    seen
}

/// The 200 to a refresh by UPDATE, and which call's it is.
fn reply(request: &str) -> Option<(String, usize)> {
    let target = request.strip_prefix("UPDATE ")?.split(' ').next()?;
    let (head, _) = request.split_once("\r\n\r\n")?;
    let mut reply = String::from("SIP/2.0 200 OK\r\n");
    let mut call = None;
    for line in head.split("\r\n") {
        if let Some(call_id) = line.strip_prefix("Call-ID: ") {
            call = number(call_id);
        }
        if ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name)) {
            reply.push_str(line);
            reply.push_str("\r\n");
        }
    }
    reply.push_str(&format!(
        "Contact: <{target}>\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK\r\nSupported: timer, replaces\r\n\
         Session-Expires: 1800;refresher=uac\r\nRequire: timer\r\nContent-Length: 0\r\n\r\n"
    ));
    Some((reply, call?))
}

fn set(socket: &UdpSocket, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: an open socket, and an integer that the kernel reads.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, ptr::from_ref(&value).cast(), size_of::<i32>() as u32)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A datagram that has come, with what the kernel says of it: std tells neither to which of this host's addresses it went, nor when
/// it came.
struct Letter {
    bytes: [u8; 2_048],
    length: usize,
    came_ns: u64,
    to: libc::in_addr,
    from: libc::sockaddr_in,
}

impl Default for Letter {
    fn default() -> Self {
        // SAFETY: zeros are an address.
        let from = unsafe { MaybeUninit::zeroed().assume_init() };
        Self { bytes: [0; 2_048], length: 0, came_ns: 0, to: libc::in_addr { s_addr: 0 }, from }
    }
}

/// Room for what the kernel says, where it is looked for.
#[repr(C, align(8))]
struct Control([u8; 128]);

impl Letter {
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let mut control = Control([0; 128]);
        let mut place = libc::iovec { iov_base: self.bytes.as_mut_ptr().cast(), iov_len: self.bytes.len() };
        // SAFETY: zeros are an empty header; what it is made to point to outlives the call.
        let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        (header.msg_name, header.msg_namelen) = (ptr::from_mut(&mut self.from).cast(), size_of_val(&self.from) as u32);
        (header.msg_iov, header.msg_iovlen) = (&raw mut place, 1);
        (header.msg_control, header.msg_controllen) = (control.0.as_mut_ptr().cast(), control.0.len());
        // SAFETY: as above.
        let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
        self.length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        // The kernel's stamp is of the wall clock.
        let wall = clock_gettime(ClockId::Realtime);
        let ago = |sec: i64, nsec: i64| (wall.tv_sec - sec) * 1_000_000_000 + (wall.tv_nsec - nsec);
        self.came_ns = monotonic_ns();
        // SAFETY: the header is the one that the kernel has filled in, and each message is of the type that it says.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(&raw const header);
            while let Some(found) = message.as_ref() {
                let data = libc::CMSG_DATA(message);
                match (found.cmsg_level, found.cmsg_type) {
                    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS) => {
                        let libc::timespec { tv_sec, tv_nsec } = data.cast::<libc::timespec>().read_unaligned();
                        self.came_ns -= u64::try_from(ago(tv_sec, tv_nsec)).unwrap_or_default();
                    }
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        self.to = data.cast::<libc::in_pktinfo>().read_unaligned().ipi_addr;
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(&raw const header, message);
            }
        }
        Ok(())
    }

    /// From where it went to, back to where it came from. What does not leave is as if it were lost on the way.
    fn reply(&mut self, socket: &UdpSocket, bytes: &[u8]) {
        let mut control = Control([0; 128]);
        let mut place = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: self.to, ipi_addr: libc::in_addr { s_addr: 0 } };
        // SAFETY: zeros are an empty header; what it is made to point to outlives the call, and there is room for one message.
        unsafe {
            let mut header: libc::msghdr = MaybeUninit::zeroed().assume_init();
            (header.msg_name, header.msg_namelen) =
                (ptr::from_mut(&mut self.from).cast(), size_of_val(&self.from) as u32);
            (header.msg_iov, header.msg_iovlen) = (&raw mut place, 1);
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(size_of_val(&info) as u32) as usize;
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            ((*message).cmsg_level, (*message).cmsg_type) = (libc::IPPROTO_IP, libc::IP_PKTINFO);
            (*message).cmsg_len = libc::CMSG_LEN(size_of_val(&info) as u32) as usize;
            libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().write_unaligned(info);
            libc::sendmsg(socket.as_raw_fd(), &raw const header, 0);
        }
    }
}
