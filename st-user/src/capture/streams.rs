//! TCP segments of a capture, put together by what the daemon uses for those that it sees.

use std::borrow::Cow;

use st_core::{
    Direction, Packet, Time, Transport,
    stream::{GAP_PATIENCE, Messages, StreamStats, Streams},
};

use super::{Datagram, Segment};

/// Puts segments together.
#[derive(Default)]
pub struct Joiner {
    streams: Streams,
}

impl Joiner {
    /// Takes in a segment; what messages are whole by that goes to `out`.
    pub fn segment(&mut self, now: Time, segment: &Segment<'_>, out: &mut dyn FnMut(Datagram<'_>)) {
        let &Segment { source, destination, tos, ttl, tcp, payload: bytes } = segment;
        // Which end is the server is not known yet: one of them stands for it.
        let (direction, server, peer) = if source < destination {
            (Direction::Egress, source, destination)
        } else {
            (Direction::Ingress, destination, source)
        };
        let (interface, cookie, truncated, transport) = (0, 0, false, Transport::Tcp);
        let packet = Packet { direction, server, peer, transport, interface, tos, ttl, cookie, truncated, bytes };
        self.streams.handle_segment(now, &packet, tcp, &mut *told(out));
    }

    /// The time is now `now`: what is missing is not waited for without end.
    pub fn time(&mut self, now: Time, out: &mut dyn FnMut(Datagram<'_>)) {
        if self.streams.timeout().is_some_and(|due| due <= now) {
            self.streams.handle_timeout(now, &mut *told(out));
        }
    }

    /// Nothing comes any more: what is missing is missing.
    pub fn finish(&mut self, now: Time, out: &mut dyn FnMut(Datagram<'_>)) {
        self.streams.handle_timeout(now + GAP_PATIENCE, &mut *told(out));
    }

    /// What was counted.
    pub fn stats(&self) -> StreamStats {
        self.streams.stats()
    }
}

fn told<'a>(out: &'a mut dyn FnMut(Datagram<'_>)) -> Box<Messages<'a>> {
    Box::new(move |packet: &Packet<'_>| {
        let &Packet { direction, server, peer, transport, tos, ttl, truncated: cut, bytes, .. } = packet;
        let (source, destination) = match direction {
            Direction::Egress => (server, peer),
            Direction::Ingress => (peer, server),
        };
        out(Datagram { transport, source, destination, tos, ttl, payload: Cow::Borrowed(bytes), cut });
    })
}
