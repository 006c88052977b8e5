//! What comes by TCP: the segments in the ring are put together, and what messages they make is handed to the engine one by one.

use std::collections::VecDeque;

use serde_json::json;
use st_core::{
    Command, Direction, Packet, Time,
    stream::{Message, Missed, StreamStats, Streams, Tcp},
};
use tracing::warn;

use super::Driver;
use crate::acting::is_own;

/// What is being put together, and what is whole.
#[derive(Default)]
pub(super) struct Streamed {
    streams: Streams,
    whole: VecDeque<(Time, Message)>,
    /// As last told of.
    told: StreamStats,
}

impl Streamed {
    /// A segment was seen.
    pub(super) fn segment(&mut self, now: Time, packet: &Packet<'_>, tcp: Tcp) {
        let Self { streams, whole, .. } = self;
        streams.handle_segment(now, packet, tcp, &mut |packet| whole.push_back((now, Message::of(packet))));
    }

    /// What is missing is not waited for without end.
    pub(super) fn timeout(&mut self, now: Time) {
        let Self { streams, whole, .. } = self;
        streams.handle_timeout(now, &mut |packet| whole.push_back((now, Message::of(packet))));
        self.tell();
    }

    /// On which connections something went by unseen since this was last asked.
    pub(super) fn missed(&mut self) -> Missed {
        self.streams.missed()
    }

    /// What was counted, and how many connections are followed.
    pub(super) fn counts(&self) -> (StreamStats, usize) {
        (self.streams.stats(), self.streams.connections())
    }

    /// The same for an operator.
    pub(super) fn status(&self) -> serde_json::Value {
        let (stats, connections) = self.counts();
        let StreamStats { messages, gaps, lost, evicted, tls, websocket, unknown, .. } = stats;
        json!({
            "connections": connections,
            "messages": messages,
            "gaps": gaps,
            "lost": lost,
            "evicted": evicted,
            "tls": tls,
            "websocket": websocket,
            "unknown": unknown,
        })
    }

    /// Says in the log that there are connections that cannot be read, the first time of each kind.
    fn tell(&mut self) {
        let stats = self.streams.stats();
        let StreamStats { tls, websocket, unknown, .. } = self.told;
        for (now, before, what) in [
            (stats.tls, tls, "TLS"),
            (stats.websocket, websocket, "WebSocket"),
            (stats.unknown, unknown, "something that is no SIP"),
        ] {
            if now > 0 && before == 0 {
                warn!(
                    "{what} on a port of `ports`: calls on such connections go by unseen (`sipst status` counts them)"
                );
            }
        }
        self.told = stats;
    }
}

impl Driver<'_> {
    /// Hands on what is whole by now.
    pub(super) fn hear_streamed(&mut self) {
        while let Some((time, message)) = self.streamed.whole.pop_front() {
            let packet = message.packet();
            if packet.direction == Direction::Egress && self.kernel.plans.acts() && is_own(packet.bytes) {
                // The programs tell whether it has left as such.
                continue;
            }
            self.leftovers.saw(time, &packet, |call_id, tag, side| self.kernel.maps.key(call_id, tag, side).ok());
            self.trace.saw(time, &packet, false);
            self.engine.handle_packet(time, &packet);
            self.outputs();
        }
    }

    /// Tells of what went by unseen on connections since the last time: so many segments, and what was missing when the others were put
    /// together.
    pub(super) fn unheard(&mut self, segments: u64) {
        if segments > 0 {
            warn!(segments, "a flood of TCP segments: some went by unseen");
        }
        let Missed { peers, others } = self.streamed.missed();
        if segments > 0 || others {
            self.command(Command::Unheard { peer: None });
        }
        for peer in peers {
            self.command(Command::Unheard { peer: Some(peer) });
        }
    }
}
