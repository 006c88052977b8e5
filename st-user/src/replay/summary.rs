//! What a replay says at its end.

use std::fmt;

use st_core::{Direction, Event, EventKind};

use super::{Calls, Stories, sides::Nowhere};
use crate::capture::{Decoded, Frame, Link};

/// How many pairs of hosts are named.
const MAX_SIDES: usize = 16;
/// How the engine's word for a capture of this kind begins.
const ON_HOST: &str = "capture_on_host";

/// Counts of a replay.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Packets of any kind.
    pub packets: u64,
    /// SIP messages.
    pub messages: u64,
    /// Sessions that began in the capture.
    pub sessions: u64,
    /// Events that are alerts.
    pub alerts: u64,
    /// SIP messages of which only the beginning was kept.
    pub cut: u64,
    /// Of the messages, those that came over TCP.
    pub tcp: u64,
    /// Times that a part of a TCP connection was missing.
    pub gaps: u64,
    /// TCP connections with TLS or WebSocket.
    pub opaque: u64,
    /// Datagrams put together from fragments.
    pub reassembled: u64,
    /// Datagrams that lack fragments.
    pub incomplete: u64,
    /// SIP messages between two servers.
    pub both: u64,
    /// SIP messages of no server.
    pub neither: u64,
    /// Packets of link types that are not understood.
    pub unknown_link: u64,
    /// Packets with a time before the one of the packet before them.
    pub backwards: u64,
    /// Whether the capture was taken on sipst's own host.
    pub on_host: bool,
    /// Who was taken for the server, and why.
    pub sides: Vec<String>,
    /// What became of each call, where that is asked for.
    pub calls: Option<Calls>,
    /// What happened in each of them and when, where a page is to be made of it; goes with `calls`.
    pub stories: Option<Stories>,
    /// The link type that is not understood, the first of them.
    pub(super) only_link: Option<u16>,
}

impl Summary {
    pub(super) fn count(&mut self, frame: &Frame<'_>, decoded: &Decoded<'_>) {
        self.packets += 1;
        match decoded {
            Decoded::UnknownLink => self.unknown_link += 1,
            Decoded::Udp(_) | Decoded::Tcp(_) | Decoded::Fragment | Decoded::Other => {}
        }
        if let Link::Unknown(link) = frame.link {
            self.only_link.get_or_insert(link);
        }
    }

    pub(super) fn place(&mut self, direction: Result<Direction, Nowhere>) -> Option<Direction> {
        match direction {
            Ok(direction) => return Some(direction),
            Err(Nowhere::Both) => self.both += 1,
            Err(Nowhere::Neither) => self.neither += 1,
        }
        None
    }

    pub(super) fn event(&mut self, event: &Event) {
        let call = self.calls.as_mut().and_then(|calls| calls.event(event));
        if let (Some(stories), Some(call)) = (&mut self.stories, call) {
            stories.event(call, event);
        }
        self.sessions += u64::from(event.kind == EventKind::SessionStarted);
        self.alerts += u64::from(event.kind.is_alert());
        let on_host = event.reason.as_deref().is_some_and(|reason| reason.starts_with(ON_HOST));
        self.on_host |= event.kind == EventKind::CaptureLoss && on_host;
    }
}

/// Lines, each with its newline.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.sides.iter().take(MAX_SIDES) {
            writeln!(f, "{line}")?;
        }
        if self.sides.len() > MAX_SIDES {
            writeln!(f, "and {} more", self.sides.len() - MAX_SIDES)?;
        }
        let Self { packets, messages, sessions, alerts, .. } = self;
        writeln!(f, "packets: {packets}, SIP messages: {messages}, sessions: {sessions}, alerts: {alerts}")?;
        let notes = [
            (self.tcp, "of these over TCP"),
            (self.gaps, "parts of TCP connections that the capture lacks"),
            (self.opaque, "TCP connections with TLS or WebSocket, not read: calls on them go by unseen"),
            (self.cut, "SIP messages cut short when captured (`tcpdump -s 0` keeps all)"),
            (self.reassembled, "datagrams put together from fragments"),
            (self.incomplete, "datagrams that lack fragments, not read"),
            (self.both, "SIP messages between two servers, not read"),
            (self.neither, "SIP messages of no server, not read"),
            (self.unknown_link, "packets of link types that are not understood"),
            (self.backwards, "packets with a time earlier than the one before, taken as simultaneous"),
        ];
        for (count, what) in notes.iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "{what}: {count}")?;
        }
        if self.on_host {
            writeln!(
                f,
                "partial capture: taken on the host itself, where sipst takes the answers to its own requests off the wire \
                 and rewrites numbers; a capture at the peer's end shows all"
            )?;
        }
        Ok(())
    }
}
