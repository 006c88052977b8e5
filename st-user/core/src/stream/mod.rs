//! SIP over TCP, from the segments that pass by: each direction put together by itself, then cut into messages by their
//! Content-Length. Sans-IO: time is an argument.
//!
//! Segments come in any order, cut anyhow, more than once, or not at all, and a connection may have been there before anybody
//! looked. What is missing is waited for [`GAP_PATIENCE`], then gone over; where it is not known where a message begins, one is
//! looked for that begins a line. What is not SIP (TLS, WebSocket) is named and counted: the calls on it go by unseen.

mod framing;
mod half;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use framing::Found;
use half::{Half, Told};

use crate::{Direction, Packet, Time, engine::bounded::Bounded, message::Transport};

/// The longest header of a message, in bytes. One that is longer is gone through for the next one.
pub const MAX_HEADER: usize = 16_384;

/// The longest first line of a message, in bytes.
pub const MAX_LINE: usize = 4_096;

/// The longest message that is kept until it is whole, in bytes. Of a longer one the header is told of, and the rest is passed over
/// by its Content-Length, kept nowhere.
pub const MAX_STREAMED: usize = crate::message::MAX_MESSAGE;

/// How many pieces may wait in one direction for what comes before them.
pub const MAX_AHEAD: usize = 64;

/// How many bytes they may have together.
pub const MAX_AHEAD_BYTES: usize = 65_536;

/// How far a segment may be from what was expected: past that the direction is taken for one that was not seen before.
const WINDOW: i32 = 1 << 20;

/// How long what is missing is waited for: its sender sends it again within that, if it was lost on its way.
pub const GAP_PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing may come on a connection before it is forgotten. What comes later is looked at as that of a new one.
pub const IDLE: Duration = Duration::from_secs(600);

/// How much is gone through in vain before a connection counts as one that cannot be read.
pub const UNREADABLE: u64 = 16_384;

/// How many idle connections are forgotten in one call.
const FORGOTTEN_PER_CALL: usize = 64;

/// Bounds of all connections together.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// How many are followed; past that the one goes on which nothing has come for longest.
    pub connections: usize,
    /// How many bytes are kept of messages that are not whole yet, in all; past that likewise.
    pub bytes: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { connections: 16_384, bytes: 32 << 20 }
    }
}

/// Why a connection cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// TLS.
    Tls,
    /// WebSocket.
    WebSocket,
    /// Neither, and no SIP either as far as was seen.
    Unknown,
}

/// What a segment's header says beside its two ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// The number of its first byte, or of its SYN.
    pub sequence: u32,
    /// It begins a direction.
    pub syn: bool,
    /// It acknowledges something: a SYN without is the first of a connection.
    pub ack: bool,
    /// It ends a direction.
    pub fin: bool,
    /// It ends the connection.
    pub rst: bool,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Segments, or pieces of them.
    pub segments: u64,
    /// Messages found.
    pub messages: u64,
    /// Of these, such as were cut: too long, or with a gap in them.
    pub cut: u64,
    /// Segments that had all been there before.
    pub repeated: u64,
    /// Segments that came before their turn.
    pub early: u64,
    /// Times that something was missing and gone over.
    pub gaps: u64,
    /// How many bytes that were.
    pub missing_bytes: u64,
    /// Times that it was no longer known where a message begins.
    pub lost: u64,
    /// Connections that had to go for others.
    pub evicted: u64,
    /// Connections with TLS on a port of SIP's.
    pub tls: u64,
    /// Connections with WebSocket on one.
    pub websocket: u64,
    /// Connections with neither, and no SIP.
    pub unknown: u64,
}

/// With how many peers is remembered that something went by unseen on a connection, until somebody asks.
pub const MAX_MISSED: usize = 64;

/// On which connections something went by unseen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// The addresses at their other ends.
    pub peers: BTreeSet<IpAddr>,
    /// There were more than [`MAX_MISSED`].
    pub others: bool,
}

impl Missed {
    fn add(&mut self, peer: IpAddr) {
        if self.peers.len() < MAX_MISSED || self.peers.contains(&peer) {
            self.peers.insert(peer);
        } else {
            self.others = true;
        }
    }
}

/// The two ends.
type Ends = (SocketAddr, SocketAddr);

/// What messages of a direction are told with.
#[derive(Clone, Copy, Debug)]
struct Envelope {
    direction: Direction,
    interface: u32,
    tos: u8,
    ttl: u8,
    cookie: u64,
}

#[derive(Debug)]
struct Connection {
    egress: Half,
    ingress: Half,
    opaque: Option<Opaque>,
    /// As of the last segment, egress and ingress.
    envelopes: [Option<Envelope>; 2],
    heard: Time,
    /// Since when something has been missing, egress and ingress.
    gaps: [Option<Time>; 2],
}

impl Connection {
    fn new(now: Time) -> Self {
        let (egress, ingress) = (Half::new(), Half::new());
        Self { egress, ingress, opaque: None, envelopes: [None; 2], heard: now, gaps: [None; 2] }
    }

    fn half(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }

    fn held(&self) -> usize {
        self.egress.held() + self.ingress.held()
    }
}

const fn index(direction: Direction) -> usize {
    match direction {
        Direction::Egress => 0,
        Direction::Ingress => 1,
    }
}

/// A message that outlives the bytes that it was found in.
#[derive(Clone, Debug)]
pub struct Message {
    server: SocketAddr,
    peer: SocketAddr,
    envelope: Envelope,
    truncated: bool,
    bytes: Vec<u8>,
}

impl Message {
    /// From what [`Messages`] gets.
    pub fn of(packet: &Packet<'_>) -> Self {
        let &Packet { direction, server, peer, transport: _, interface, tos, ttl, cookie, truncated, bytes } = packet;
        let envelope = Envelope { direction, interface, tos, ttl, cookie };
        Self { server, peer, envelope, truncated, bytes: bytes.to_vec() }
    }

    /// As the engine takes it.
    pub fn packet(&self) -> Packet<'_> {
        let &Self { server, peer, envelope, truncated, ref bytes } = self;
        let Envelope { direction, interface, tos, ttl, cookie } = envelope;
        let transport = Transport::Tcp;
        Packet { direction, server, peer, transport, interface, tos, ttl, cookie, truncated, bytes }
    }
}

/// Who gets the messages.
pub type Messages<'a> = dyn FnMut(&Packet<'_>) + 'a;

/// All connections.
#[derive(Debug)]
pub struct Streams {
    connections: Bounded<Ends, Box<Connection>, RandomState>,
    limits: StreamLimits,
    /// What is missing, by when it was first.
    gaps: BTreeSet<(Time, Ends, usize)>,
    /// How many bytes are kept.
    held: usize,
    now: Time,
    stats: StreamStats,
    missed: Missed,
}

impl Default for Streams {
    fn default() -> Self {
        Self::new(StreamLimits::default())
    }
}

impl Streams {
    /// None yet.
    pub fn new(limits: StreamLimits) -> Self {
        let connections = Bounded::new(limits.connections, RandomState::new());
        let (gaps, now) = (BTreeSet::new(), Time::from_micros(0));
        Self { connections, limits, gaps, held: 0, now, stats: StreamStats::default(), missed: Missed::default() }
    }

    /// What was counted.
    pub fn stats(&self) -> StreamStats {
        self.stats
    }

    /// On which connections something went by unseen since this was last asked.
    pub fn missed(&mut self) -> Missed {
        std::mem::take(&mut self.missed)
    }

    /// How many connections are followed.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many bytes are kept of messages that are not whole yet.
    pub fn held(&self) -> usize {
        self.held
    }

    /// When [`Streams::handle_timeout`] has something to do.
    pub fn timeout(&self) -> Option<Time> {
        self.gaps.first().map(|(since, ..)| *since + GAP_PATIENCE)
    }

    /// Takes in a segment: `packet` is as of a message, its bytes are those of the segment. Time never goes back.
    pub fn handle_segment(&mut self, now: Time, packet: &Packet<'_>, tcp: Tcp, messages: &mut Messages<'_>) {
        self.advance(now, messages);
        self.stats.segments += 1;
        let &Packet { direction, server, peer, interface, tos, ttl, cookie, bytes, .. } = packet;
        let ends = (server, peer);
        if tcp.rst || (tcp.syn && !tcp.ack && !self.goes_on(&ends, direction, tcp)) {
            self.forget(&ends);
        }
        if tcp.rst {
            return;
        }
        let now = self.now;
        if self.connections.get(&ends).is_none() {
            // What only ends something that is not known is of no use.
            if bytes.is_empty() && !tcp.syn {
                return;
            }
            while self.connections.len() >= self.limits.connections.max(1) && self.evict() {}
        }
        let Some(connection) = self.connections.touch(ends, || Box::new(Connection::new(now))) else { return };
        connection.heard = now;
        connection.envelopes[index(direction)] = Some(Envelope { direction, interface, tos, ttl, cookie });
        let first = tcp.sequence.wrapping_add(u32::from(tcp.syn));
        let before = connection.held();
        let half = connection.half(direction);
        if tcp.syn && !half.begins_with(first) {
            *half = Half::beginning(first);
        }
        if tcp.fin {
            half.finish(first.wrapping_add(bytes.len() as u32));
        }
        self.held -= before;
        self.step(ends, direction, messages, |half, found| half.segment(first, bytes, found));
        while self.held > self.limits.bytes && self.evict() {}
    }

    /// Goes over what has been missing for too long, and forgets connections that are idle.
    pub fn handle_timeout(&mut self, now: Time, messages: &mut Messages<'_>) {
        self.advance(now, messages);
    }

    fn advance(&mut self, now: Time, messages: &mut Messages<'_>) {
        self.now = self.now.max(now);
        while let Some(&(since, ends, at)) = self.gaps.first() {
            if self.now.since(since) < GAP_PATIENCE {
                break;
            }
            let direction = if at == index(Direction::Egress) { Direction::Egress } else { Direction::Ingress };
            let Some(connection) = self.connections.get_mut(&ends) else {
                self.gaps.pop_first();
                continue;
            };
            self.held -= connection.held();
            self.step(ends, direction, messages, |half, found| Told { gap: half.go_over(found), ..Told::default() });
        }
        for _ in 0..FORGOTTEN_PER_CALL {
            let idle = self.connections.oldest().filter(|(_, connection)| self.now.since(connection.heard) >= IDLE);
            let Some(ends) = idle.map(|(ends, _)| *ends) else { break };
            self.forget(&ends);
        }
    }

    /// Whether a SYN is a copy of the one that has begun the connection.
    fn goes_on(&mut self, ends: &Ends, direction: Direction, tcp: Tcp) -> bool {
        let connection = self.connections.get_mut(ends);
        connection.is_some_and(|known| known.half(direction).begins_with(tcp.sequence.wrapping_add(1)))
    }

    /// Does something to one direction, tells of the messages that come of it, and takes into account what is kept now. What was
    /// kept before is no longer counted.
    fn step(
        &mut self,
        ends: Ends,
        direction: Direction,
        messages: &mut Messages<'_>,
        act: impl FnOnce(&mut Half, &mut dyn FnMut(Found<'_>)) -> Told,
    ) {
        let (now, at) = (self.now, index(direction));
        let Self { connections, stats, gaps, held, missed, .. } = self;
        let Some(connection) = connections.get_mut(&ends) else { return };
        let Some(envelope) = connection.envelopes[at] else { return };
        let Envelope { direction, interface, tos, ttl, cookie } = envelope;
        let (server, peer) = ends;
        let mut opaque = None;
        let (mut readable, mut lost) = (false, false);
        let half = connection.half(direction);
        let before = half.next();
        let told = act(half, &mut |found| match found {
            Found::Message { bytes, truncated } => {
                stats.messages += 1;
                stats.cut += u64::from(truncated);
                readable = true;
                let transport = Transport::Tcp;
                messages(&Packet { direction, server, peer, transport, interface, tos, ttl, cookie, truncated, bytes });
            }
            Found::Lost => {
                stats.lost += 1;
                lost = true;
            }
            Found::Opaque(what) => opaque = Some(what),
        });
        stats.repeated += u64::from(told.repeated);
        stats.early += u64::from(told.early);
        stats.lost += u64::from(told.elsewhere);
        stats.gaps += u64::from(told.gap > 0);
        stats.missing_bytes += u64::from(told.gap);
        if told.gap > 0 || told.elsewhere || lost {
            missed.add(peer.ip());
        }
        let (has_gap, hunted, moved) = (half.has_gap(), half.hunted(), half.next() != before);
        // One that has been filled, but for another behind it, begins anew.
        let since = has_gap.then(|| connection.gaps[at].filter(|_| !moved).unwrap_or(now));
        if connection.gaps[at] != since {
            if let Some(before) = connection.gaps[at] {
                gaps.remove(&(before, ends, at));
            }
            if let Some(since) = since {
                gaps.insert((since, ends, at));
            }
            connection.gaps[at] = since;
        }
        if readable {
            connection.opaque = None;
        } else if connection.opaque.is_none() {
            let opaque = opaque.or((hunted >= UNREADABLE).then_some(Opaque::Unknown));
            match opaque {
                Some(Opaque::Tls) => stats.tls += 1,
                Some(Opaque::WebSocket) => stats.websocket += 1,
                Some(Opaque::Unknown) => stats.unknown += 1,
                None => {}
            }
            connection.opaque = opaque;
        }
        *held += connection.held();
        if connection.egress.is_over() && connection.ingress.is_over() {
            self.forget(&ends);
        }
    }

    /// Forgets the connection on which nothing has come for longest; false where there is none.
    fn evict(&mut self) -> bool {
        let Some(oldest) = self.connections.oldest().map(|(ends, _)| *ends) else { return false };
        self.forget(&oldest);
        self.stats.evicted += 1;
        true
    }

    fn forget(&mut self, ends: &Ends) {
        let Some(connection) = self.connections.remove(ends) else { return };
        if connection.held() > 0 {
            // What a message is half of.
            self.missed.add(ends.1.ip());
        }
        self.held -= connection.held();
        for (at, since) in connection.gaps.into_iter().enumerate() {
            if let Some(since) = since {
                self.gaps.remove(&(since, *ends, at));
            }
        }
    }
}
