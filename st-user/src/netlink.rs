//! One request, its answers: what `route`, `owner` and the interface list ask of the kernel by netlink.

use std::{io, os::fd::AsFd as _, time::Duration};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tracing::debug;

/// The kernel answers at once or never: what takes longer is an error, not a wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// The kernel fills at most 32 KiB of a dump at a time.
const BUFFER: usize = 64 << 10;

/// How much is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// One answer.
    One,
    /// All there is.
    Dump,
    /// No answer but that it is done.
    Done,
}

/// A netlink socket and its receive buffer.
pub(crate) struct Netlink {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Netlink {
    /// A socket of one of `netlink_sys::protocols`.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(socket.as_fd(), Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, buffer: vec![0; BUFFER], sequence: 0 })
    }

    /// Sends `message` and hands over every answer. An answer that cannot be parsed is left out: kernels add attributes.
    pub(crate) fn request<M>(&mut self, message: M, want: Want, mut each: impl FnMut(M)) -> io::Result<()>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.sequence_number = self.sequence;
        header.flags = match want {
            Want::One => NLM_F_REQUEST,
            Want::Dump => NLM_F_REQUEST | NLM_F_DUMP,
            Want::Done => NLM_F_REQUEST | NLM_F_ACK,
        };
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        loop {
            let received = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            let mut rest = self.buffer.get(..received).unwrap_or_default();
            while !rest.is_empty() {
                let buffer = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
                let (length, sequence) = (buffer.length() as usize, buffer.sequence_number());
                let (one, after) = rest.split_at(length);
                // Messages begin at multiples of four.
                rest = after.get(length.next_multiple_of(4) - length..).unwrap_or_default();
                if sequence != self.sequence {
                    continue;
                }
                match NetlinkMessage::<M>::deserialize(one) {
                    Err(error) => debug!(%error, "a netlink answer that cannot be parsed"),
                    Ok(answer) => match answer.payload {
                        NetlinkPayload::Done(_) => return Ok(()),
                        NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                        NetlinkPayload::InnerMessage(inner) => {
                            each(inner);
                            if want == Want::One {
                                return Ok(());
                            }
                        }
                        NetlinkPayload::Error(_) if want == Want::Done => return Ok(()),
                        NetlinkPayload::Error(_) | NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
                    },
                }
            }
        }
    }
}
