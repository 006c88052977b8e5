//! Calls whose messages the server sends by TCP. What sipst sends in them has to enter the server's own connection, where the trunk's rules
//! and the driver allow it; nothing is sent twice there (RFC 3261, section 17.1.1.2), and nothing in the peer's name.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::{dialog::Dialog, reason, shared::Shared};
use crate::{Packet, Transport};

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streamed {
    /// The server's end.
    pub(super) server: SocketAddr,
    /// The other.
    pub(super) peer: SocketAddr,
    /// Of the server's socket.
    pub(super) cookie: u64,
}

/// How long a request of the server's is, for what may be added to it: in a stream nothing becomes longer.
pub(super) fn length(packet: &Packet<'_>) -> usize {
    if packet.transport == Transport::Udp { packet.bytes.len() } else { usize::MAX }
}

impl Dialog {
    /// The server speaks in it by this connection. Only the server's own messages tell so: anybody can send one by TCP.
    pub(super) fn is_streamed(&mut self, sx: &mut Shared, packet: &Packet<'_>) {
        let &Packet { server, peer, cookie, .. } = packet;
        let before = self.streamed.replace(Streamed { server, peer, cookie });
        if before.is_none() {
            self.mark(sx);
        }
    }

    /// Of a session that was restored: by the connection that made it, until the server says otherwise.
    pub(super) fn was_streamed(&mut self) {
        let (server, peer, cookie) = (self.names.server, self.names.peer, self.cookie);
        self.streamed = Some(Streamed { server, peer, cookie });
    }

    /// Whether it is one over TCP in which nothing is sent.
    pub(super) fn is_out_of_reach(&self, sx: &Shared) -> Option<&'static str> {
        (self.streamed.is_some() && !self.rules(&sx.policy).1.refreshes_over_tcp()).then_some(reason::OVER_TCP)
    }

    /// Where a request in the server's name comes from.
    pub(super) fn sends_from(&self) -> SocketAddr {
        self.streamed.map_or(self.names.server, |streamed| streamed.server)
    }

    /// By what its messages go.
    pub(super) const fn transport(&self) -> Transport {
        if self.streamed.is_some() { Transport::Tcp } else { Transport::Udp }
    }

    /// Where a request in the server's name goes; of a connection that is its other end, wherever the route leads.
    pub(super) fn hop(&self, peers: &[IpNet]) -> Option<SocketAddr> {
        let target = self.target.as_ref()?;
        self.streamed.map(|streamed| streamed.peer).or_else(|| target.hop(peers))
    }
}
