//! Acting over TCP: which connections may be written into, what the kernel programs are to do in them, and the writing. Nothing but the
//! server's own messages shows where one ends: an empty send queue does not. So a process counts only once very many of its messages
//! were each seen to leave in one write, and one in pieces is the end of it.

mod process;
mod track;
mod writing;

use std::{collections::HashMap, net::SocketAddr};

use socket2::Socket;
use st_core::{Direction, Packet, Policy, Refusal, Time, message::Message, stream::Tcp};
use st_ebpf::abi::CAPTURE;
use tracing::{info, warn};

use self::{
    process::{Place, ProcessId, duplicate, find},
    track::{Seen, Track},
    writing::{Written, segment_size, write},
};
use crate::{kernel::Plans, site::Sites};

/// How many messages of a process have to have left in one write each.
pub(crate) const PROOF: u32 = 1_000;

/// How many connections are followed; past that a new one is not acted upon.
pub(crate) const MAX_CONNECTIONS: usize = st_ebpf::plan::PLANS as usize;

/// How many processes are kept in mind; past that those go that have no connection.
const MAX_PROCESSES: usize = 256;

/// How many records the pieces of one segment may be.
const MAX_PIECES: usize = st_ebpf::abi::PIECES as usize * CAPTURE;

/// How often it is looked whether connections are still there, in seconds.
const SWEEP: u64 = 60;

/// The server's end and the other.
type Ends = (SocketAddr, SocketAddr);

/// What was seen of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Proof {
    /// So many messages left in one write each.
    whole: u32,
    /// One did not.
    in_pieces: bool,
}

impl Proof {
    fn verdict(self) -> Result<(), Refusal> {
        match self {
            Self { in_pieces: true, .. } => Err(Refusal::TcpInPieces),
            Self { whole, .. } if whole < PROOF => Err(Refusal::TcpUnproven),
            Self { .. } => Ok(()),
        }
    }
}

/// Records of one segment that is longer than one of them.
#[derive(Debug, Default)]
struct Pieces {
    first: u32,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    egress: Track,
    ingress: Track,
    pieces: [Pieces; 2],
    cookie: u64,
    place: Option<Place>,
    /// Nothing is written into it any more.
    spoilt: bool,
    /// It was not there any more at the last look.
    gone: bool,
}

impl Connection {
    fn new() -> Self {
        let pieces = [Pieces::default(), Pieces::default()];
        Self { egress: Track::new(), ingress: Track::new(), pieces, cookie: 0, place: None, spoilt: false, gone: false }
    }

    fn is_mixed(&self) -> bool {
        self.egress.is_broken() || self.ingress.is_broken()
    }

    /// Whether a message may be written between the server's. `ends`: one that brings to its end what was begun before, which goes
    /// where nothing new does: what becomes of its answer does no harm.
    fn verdict(&self, ends: bool) -> Result<(), Refusal> {
        if self.spoilt || (self.is_mixed() && !ends) {
            Err(Refusal::TcpMixed)
        } else if !(ends || self.egress.is_ordered() && self.ingress.is_ordered()) {
            Err(Refusal::TcpUnproven)
        } else if self.egress.is_within() {
            Err(Refusal::TcpBusy)
        } else {
            Ok(())
        }
    }
}

/// The connections, and the processes that have them.
#[derive(Debug, Default)]
pub(crate) struct Acting {
    connections: HashMap<Ends, Connection>,
    processes: HashMap<ProcessId, Proof>,
    /// Where the last socket was found: the next one may be there too.
    last: Option<ProcessId>,
    swept: Option<Time>,
}

impl Acting {
    /// What an earlier daemon has left in the kernel goes on, until its connections are gone.
    pub(crate) fn adopt(&mut self, plans: &Plans) {
        for ends in plans.connections() {
            self.connections.insert(ends, Connection::new());
        }
    }

    /// A segment was seen, or a piece of one, in the order in which they passed.
    pub(crate) fn segment(
        &mut self,
        policy: &Policy,
        plans: &mut Plans,
        sites: &mut Sites,
        packet: &Packet<'_>,
        tcp: Tcp,
    ) {
        let &Packet { direction, server, peer, cookie, bytes, .. } = packet;
        let ends = (server, peer);
        if tcp.rst || (tcp.syn && !tcp.ack) {
            return self.forget(plans, ends);
        }
        if tcp.fin
            && let Some(connection) = self.connections.get_mut(&ends)
        {
            // What was sent before may come again: the plan goes on.
            connection.spoilt = true;
        }
        if bytes.is_empty() {
            return;
        }
        if !self.connections.contains_key(&ends) {
            if !policy.may_refresh_over_tcp(peer.ip())
                || self.connections.len() >= MAX_CONNECTIONS
                || !plans.follow(ends)
            {
                return;
            }
            self.connections.insert(ends, Connection::new());
        }
        let Some(connection) = self.connections.get_mut(&ends) else { return };
        if direction == Direction::Egress && cookie != 0 && connection.cookie != cookie {
            (connection.cookie, connection.place) = (cookie, None);
        }
        let at = usize::from(direction == Direction::Egress);
        let pieces = &mut connection.pieces[at];
        let goes_on = !pieces.bytes.is_empty()
            && pieces.first.wrapping_add(pieces.bytes.len() as u32) == tcp.sequence
            && pieces.bytes.len() + bytes.len() <= MAX_PIECES;
        if !goes_on {
            (pieces.first, pieces.bytes) = (tcp.sequence, Vec::new());
        }
        if bytes.len() == CAPTURE || goes_on {
            pieces.bytes.extend_from_slice(bytes);
        }
        if bytes.len() == CAPTURE {
            // More of it follows, but where it ends just here.
            return;
        }
        let gathered = std::mem::take(&mut pieces.bytes);
        let (first, whole) = if goes_on { (pieces.first, &gathered[..]) } else { (tcp.sequence, bytes) };
        let was_mixed = connection.is_mixed();
        let seen = match direction {
            Direction::Egress => connection.egress.segment(first, whole),
            Direction::Ingress => connection.ingress.segment(first, whole),
        };
        if connection.is_mixed() && !was_mixed {
            info!(%server, %peer, ?seen, "not every message of this connection begins a segment: its numbers are left alone, and nothing is refreshed by it");
            plans.leave_numbers(ends);
        }
        if direction == Direction::Egress && seen != Seen::Nothing {
            self.judge(sites, ends, seen, is_own(whole));
        }
    }

    /// What the server's segment says of its process.
    fn judge(&mut self, sites: &mut Sites, ends: Ends, seen: Seen, own: bool) {
        let Some(place) = self.place(sites, ends) else { return };
        let cut = matches!(seen, Seen::Unended(_) | Seen::Torn(_));
        let socket = if cut { self.socket(sites, ends) } else { None };
        if !self.processes.contains_key(&place.program) && self.processes.len() >= MAX_PROCESSES {
            let used: Vec<ProcessId> =
                self.connections.values().filter_map(|known| known.place).map(|place| place.program).collect();
            self.processes.retain(|process, _| used.contains(process));
        }
        let proof = self.processes.entry(place.program).or_default();
        match seen {
            Seen::Whole if !own => {
                proof.whole = proof.whole.saturating_add(1);
                if proof.whole == PROOF && !proof.in_pieces {
                    info!(
                        pid = place.program.pid,
                        "this process writes its messages at once: its connections may be written into"
                    );
                }
            }
            Seen::Unended(len) | Seen::Torn(len) if !proof.in_pieces => {
                let size = socket.as_ref().and_then(segment_size);
                // Where the connection takes no longer segments, that is where it was cut.
                if size.is_none_or(|size| len % size != 0) {
                    proof.in_pieces = true;
                    warn!(
                        pid = place.program.pid,
                        length = len,
                        "this process writes messages in pieces: nothing is written into its connections until it is restarted"
                    );
                }
            }
            Seen::Whole | Seen::Unended(_) | Seen::Torn(_) | Seen::Mixed | Seen::Nothing => {}
        }
    }

    /// Where the server's socket is.
    fn place(&mut self, sites: &mut Sites, (server, peer): Ends) -> Option<Place> {
        let Self { connections, last, .. } = self;
        let connection = connections.get_mut(&(server, peer)).filter(|connection| connection.cookie != 0)?;
        if connection.place.is_none() {
            let inode = sites.connection(server, peer, connection.cookie).ok()?;
            connection.place = find(inode, connection.cookie, *last);
            *last = connection.place.map(|place| place.process).or(*last);
        }
        connection.place
    }

    /// A duplicate of the server's socket, wherever it is by now.
    fn socket(&mut self, sites: &mut Sites, ends: Ends) -> Option<Socket> {
        let cookie = self.connections.get(&ends)?.cookie;
        let known = self.place(sites, ends)?;
        duplicate(&known, cookie).or_else(|| {
            self.connections.get_mut(&ends)?.place = None;
            duplicate(&self.place(sites, ends)?, cookie)
        })
    }

    /// Whether a message of sipst's could be written there now; `last`: one that brings to its end what was begun.
    pub(crate) fn check(&mut self, sites: &mut Sites, ends: Ends, cookie: u64, last: bool) -> Result<(), Refusal> {
        sites.connection(ends.0, ends.1, cookie)?;
        let connection = self.connections.get(&ends).ok_or(Refusal::TcpUnproven)?;
        if connection.cookie != cookie || cookie == 0 {
            return Err(Refusal::TcpClosed);
        }
        connection.verdict(last)?;
        let place = self.place(sites, ends).ok_or(Refusal::TcpNoSocket)?;
        self.processes.get(&place.program).copied().unwrap_or_default().verdict()
    }

    /// Writes a message of sipst's.
    pub(crate) fn send(&mut self, sites: &mut Sites, ends: Ends, message: &[u8]) -> Result<(), Refusal> {
        let cookie = self.connections.get(&ends).ok_or(Refusal::TcpClosed)?.cookie;
        // An ACK, a CANCEL and a BYE.
        let last = !(message.starts_with(b"INVITE ") || message.starts_with(b"UPDATE "));
        self.check(sites, ends, cookie, last)?;
        let header = Message::scan(message, false).ok().and_then(|message| message.body_at()).ok_or(Refusal::Send)?;
        let socket = self.socket(sites, ends).ok_or(Refusal::TcpNoSocket)?;
        match write(&socket, message, header)? {
            Written::Whole => Ok(()),
            Written::Part => {
                if let Some(connection) = self.connections.get_mut(&ends) {
                    connection.spoilt = true;
                }
                Err(Refusal::Send)
            }
        }
    }

    /// Forgets connections that are gone, now and then.
    pub(crate) fn sweep(&mut self, plans: &mut Plans, sites: &mut Sites, now: Time) {
        if self.swept.is_some_and(|swept| now.since(swept).as_secs() < SWEEP) {
            return;
        }
        self.swept = Some(now);
        let mut over = Vec::new();
        for (ends, connection) in &mut self.connections {
            let gone = sites.connection(ends.0, ends.1, 0) == Err(Refusal::TcpClosed);
            // Copies of what it sent last have come by the next look.
            if std::mem::replace(&mut connection.gone, gone) && gone {
                over.push(*ends);
            }
        }
        over.into_iter().for_each(|ends| self.forget(plans, ends));
    }

    /// What is told to an operator: connections, of these such as nothing is written into, and processes as far as they are proven.
    pub(crate) fn status(&self) -> serde_json::Value {
        let process = |(process, proof): (&ProcessId, &Proof)| {
            let verdict = proof.verdict().err().map(Refusal::reason);
            serde_json::json!({"pid": process.pid, "in_one_write": proof.whole, "not_written_into": verdict})
        };
        serde_json::json!({
            "connections": self.connections.len(),
            "mixed": self.connections.values().filter(|connection| connection.is_mixed()).count(),
            "processes": self.processes.iter().map(process).collect::<Vec<_>>(),
        })
    }

    fn forget(&mut self, plans: &mut Plans, ends: Ends) {
        if self.connections.remove(&ends).is_some() {
            plans.forget(ends);
        }
    }
}

/// Whether a message that leaves is a request of sipst's own.
pub(crate) fn is_own(message: &[u8]) -> bool {
    let message = Message::scan(message, true);
    message.is_ok_and(|message| {
        message.status().is_none() && message.top_via().is_some_and(|via| via.our_token().is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &[u8] =
        b"OPTIONS sip:a@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn a_program_counts_from_its_thousandth_message_on_and_one_in_pieces_is_the_end() {
        let of = |whole, in_pieces| Proof { whole, in_pieces }.verdict();
        assert_eq!([of(0, false), of(PROOF - 1, false)], [Err(Refusal::TcpUnproven); 2]);
        assert_eq!([of(PROOF, false), of(u32::MAX, false)], [Ok(()); 2]);
        assert_eq!([of(0, true), of(u32::MAX, true)], [Err(Refusal::TcpInPieces); 2]);
    }

    #[test]
    fn a_connection_is_written_into_only_between_messages_and_where_both_ways_are_in_order() {
        let mut connection = Connection::new();
        assert_eq!(connection.verdict(false), Err(Refusal::TcpUnproven), "nothing was seen");
        connection.egress.segment(1, OPTIONS);
        assert_eq!(connection.verdict(false), Err(Refusal::TcpUnproven), "nothing of the peer's");
        connection.ingress.segment(1, OPTIONS);
        assert_eq!(connection.verdict(false), Ok(()));
        let behind = 1 + OPTIONS.len() as u32;
        // Something went by unseen.
        connection.egress.segment(behind + 10, b"x");
        assert_eq!(connection.verdict(false), Err(Refusal::TcpBusy));
        connection.egress.segment(behind + 11, OPTIONS);
        assert_eq!(connection.verdict(false), Ok(()));
        connection.ingress.segment(behind, &[OPTIONS, OPTIONS].concat());
        assert_eq!(connection.verdict(false), Err(Refusal::TcpMixed));
        assert_eq!(connection.verdict(true), Ok(()), "what was begun is brought to its end");
        connection.egress.segment(behind + 11 + OPTIONS.len() as u32, &[OPTIONS, OPTIONS].concat());
        assert_eq!(connection.verdict(true), Err(Refusal::TcpBusy), "where the next one begins is not known");
        let spoilt = Connection { spoilt: true, ..Connection::new() };
        assert_eq!(spoilt.verdict(true), Err(Refusal::TcpMixed));
    }

    #[test]
    fn a_request_of_sipsts_own_counts_for_nothing() {
        let own = String::from_utf8_lossy(OPTIONS).replace("z9hG4bK1", "z9hG4bKsipst00000000000000ff");
        assert!(is_own(own.as_bytes()) && !is_own(OPTIONS));
        assert!(!is_own(own.replace("OPTIONS sip:a@192.0.2.1 SIP/2.0", "SIP/2.0 200 OK").as_bytes()));
        assert!(!is_own(b"") && !is_own(&own.as_bytes()[..40]));
    }
}
