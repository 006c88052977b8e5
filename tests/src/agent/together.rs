//! Datagrams that leave together, as one packet of the kernel's.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

/// `UDP_SEGMENT` of linux/udp.h.
const SEGMENT: i32 = 103;

/// What leaves behind each message: not what sipst itself keeps a flow open with.
pub(super) const KEEP_ALIVE: &[u8] = b"\r\n";

/// Sends a message and a keep-alive in one system call.
pub(super) fn send(socket: &UdpSocket, message: &[u8], to: SocketAddr) -> io::Result<()> {
    let size = i32::try_from(message.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the kernel reads four bytes.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            SEGMENT,
            (&raw const size).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.send_to(&[message, KEEP_ALIVE].concat(), to).map(drop)
}
