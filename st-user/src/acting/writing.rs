//! One whole message into a server's connection, by one write, or nothing.

use rustix::{
    io::Errno,
    ioctl::{Getter, Opcode, ioctl},
    net::{SendFlags, send},
};
use socket2::Socket;
use st_core::Refusal;
use tracing::{debug, error};

/// `SIOCOUTQ` (tcp(7)): how many bytes were written and are not acknowledged yet.
const OUTSTANDING: Opcode = libc::TIOCOUTQ as Opcode;

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it is in the connection.
    Whole,
    /// A part of it: the connection is of no use any more.
    Part,
}

/// The largest segment that the connection sends, in bytes of what it carries.
pub(super) fn segment_size(socket: &Socket) -> Option<u32> {
    socket.tcp_mss().ok().filter(|size| *size > 0)
}

/// Writes a message whose header has `header` bytes. Only where nothing else waits: so it begins a segment, and is taken whole or not at
/// all.
pub(super) fn write(socket: &Socket, message: &[u8], header: usize) -> Result<Written, Refusal> {
    let failed = |what| {
        move |error: std::io::Error| {
            debug!(%error, "the server's connection does not say {what}");
            Refusal::TcpNoSocket
        }
    };
    let size = segment_size(socket).ok_or(Refusal::TcpNoSocket)?;
    // A write of an empty buffer takes all that is no longer than half of it, whatever the kernel keeps beside the bytes.
    let room = socket.send_buffer_size().map_err(failed("how much it takes"))? / 2;
    if header > size as usize || message.len() > room {
        return Err(Refusal::TooLong);
    }
    if socket.tcp_cork().map_err(failed("whether it holds back"))? || outstanding(socket)? > 0 {
        return Err(Refusal::TcpBusy);
    }
    match send(socket, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(written) if written == message.len() => Ok(Written::Whole),
        Ok(written) => {
            error!(
                written,
                length = message.len(),
                "the server's connection has taken a part of a message: nothing is written into it any more"
            );
            Ok(Written::Part)
        }
        Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => Err(Refusal::TcpBusy),
        Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::TIMEDOUT) => Err(Refusal::TcpClosed),
        Err(error) => {
            debug!(%error, "the server's connection cannot be written into");
            Err(Refusal::Send)
        }
    }
}

fn outstanding(socket: &Socket) -> Result<i32, Refusal> {
    // SAFETY: the request writes one int, and reads nothing (tcp(7)).
    let count = unsafe { ioctl(socket, Getter::<OUTSTANDING, libc::c_int>::new()) };
    count.map_err(|error| {
        debug!(%error, "the server's connection does not say what it has sent");
        Refusal::TcpNoSocket
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use super::*;

    fn connection() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        (Socket::from(ours), theirs)
    }

    #[test]
    fn a_message_arrives_whole() {
        let (ours, mut theirs) = connection();
        assert_eq!(write(&ours, b"OPTIONS", 7), Ok(Written::Whole));
        let mut read = [0; 7];
        theirs.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"OPTIONS");
    }

    #[test]
    fn nothing_is_written_while_something_waits_or_is_held_back() {
        let (mut ours, mut theirs) = connection();
        ours.set_tcp_cork(true).unwrap();
        assert_eq!(write(&ours, b"OPTIONS", 7), Err(Refusal::TcpBusy));
        ours.set_tcp_cork(false).unwrap();
        // Who reads nothing lets it wait.
        theirs.set_nonblocking(true).unwrap();
        ours.set_nonblocking(true).unwrap();
        while ours.write(&[b'x'; 65_536]).is_ok() {}
        assert_eq!(write(&ours, b"OPTIONS", 7), Err(Refusal::TcpBusy));
        let until = Instant::now() + Duration::from_secs(10);
        let mut sink = vec![0; 1 << 20];
        while write(&ours, b"OPTIONS", 7) != Ok(Written::Whole) {
            let _ = theirs.read(&mut sink);
            assert!(Instant::now() < until);
        }
        ours.set_nonblocking(false).unwrap();
        drop(ours);
        let mut rest = vec![];
        theirs.set_nonblocking(false).unwrap();
        theirs.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(b"OPTIONS"), "once, and behind all else");
    }

    #[test]
    fn what_does_not_fit_is_not_begun() {
        let (ours, mut theirs) = connection();
        let long = vec![b'x'; ours.send_buffer_size().unwrap() / 2 + 1];
        assert_eq!(write(&ours, &long, 7), Err(Refusal::TooLong));
        let size = segment_size(&ours).unwrap() as usize;
        assert_eq!(
            write(&ours, &[b'x'; 70_000], size + 1),
            Err(Refusal::TooLong),
            "its header needs a segment of its own"
        );
        drop(ours);
        let mut read = vec![];
        theirs.read_to_end(&mut read).unwrap();
        assert!(read.is_empty());
    }

    #[test]
    fn a_connection_that_is_over_says_so_and_sends_no_signal() {
        let (ours, theirs) = connection();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        // Its FIN waits to be acknowledged as everything else does.
        while write(&ours, b"OPTIONS", 7) == Err(Refusal::TcpBusy) {
            assert!(Instant::now() < until);
        }
        assert_eq!(write(&ours, b"OPTIONS", 7), Err(Refusal::TcpClosed));
        drop(theirs);
    }
}
