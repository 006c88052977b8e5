//! What goes into the engine and what comes out.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use st_ebpf::cseq::State;

use crate::{Event, Side, Time, message::Transport};

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Server to peer.
    Egress,
    /// Peer to server.
    Ingress,
}

/// One SIP message as it was seen at this host's edge.
///
/// The server's requests carry the server's own CSeq (before the shift) when they come from the kernel programs, and the
/// number on the wire when they come from a capture; the engine relies on neither.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Which way it went.
    pub direction: Direction,
    /// The address on this host's side.
    pub server: SocketAddr,
    /// The address on the other side.
    pub peer: SocketAddr,
    /// What it came by.
    pub transport: Transport,
    /// Interface index, 0 where there is none (captures).
    pub interface: u32,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Cookie of the sending socket; 0 on ingress, in captures, and where no local socket sent the packet.
    pub cookie: u64,
    /// Whether `bytes` is cut short.
    pub truncated: bool,
    /// The message.
    pub bytes: &'a [u8],
}

/// What became of an INVITE that was to make a dialog, where the kernel programs change those of its peer's ([`crate::Rules::assist`]).
/// The packet is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assist {
    /// The server's lists `timer` in Supported now; the peer's does so instead of demanding it by Require.
    Done,
    /// It is what it was, for this reason.
    LetBe(LetBe),
}

/// Why an INVITE is let be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetBe {
    /// The server speaks of session timers itself.
    Own,
    /// What its header says is not clear enough.
    Unclear,
    /// It demands other extensions too.
    Others,
    /// It would have become too long, or was already.
    TooLong,
    /// It is not of this host's making.
    Relayed,
    /// The daemon had given no sign of life for some time.
    Asleep,
}

impl LetBe {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Own, Self::Unclear, Self::Others, Self::TooLong, Self::Relayed, Self::Asleep];

    /// In an event's words.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Own => "the server speaks of session timers itself",
            Self::Unclear => "what its header says is not clear enough",
            Self::Others => "it demands other extensions too",
            Self::TooLong => "it is too long",
            Self::Relayed => "it is not of this host's making",
            Self::Asleep => "sipst did not keep up",
        }
    }
}

/// Names a session between the engine and its driver. Never used twice in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// Why a refresh is not sent though it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The socket that the server's packets came from is closed: the server has forgotten the call.
    ServerGone,
    /// What is sent to that socket lies unread, and the server sends nothing: it stands still.
    ServerHangs,
    /// No local socket sent the server's packets, or under another address: they are forwarded or translated here.
    Translated,
    /// The route to the peer leaves by an interface that is not attached.
    Unattached,
    /// The kernel programs cannot find this dialog's numbers: identifiers too long.
    Identifiers,
    /// A kernel map is full.
    MapFull,
    /// The message does not fit into one packet.
    TooLong,
    /// The server sent a request meanwhile: the number is stale. Try again.
    Moved,
    /// Too many numbers in too short a time. Try again later.
    Ranges,
    /// The kernel would not send it, or st_egress does not know it.
    Send,
    /// TCP: too few messages of this process were seen to leave in one write each.
    TcpUnproven,
    /// TCP: something of the server's waits to be sent or to be acknowledged, or is held back. Try again.
    TcpBusy,
    /// TCP: this process has written a message in pieces.
    TcpInPieces,
    /// TCP: not every message of this connection began a segment and had its header in it.
    TcpMixed,
    /// TCP: the connection is not there any more.
    TcpClosed,
    /// TCP: the server's socket cannot be found or duplicated.
    TcpNoSocket,
    /// TCP: the programs that write into connections are not there, or do not see what comes in.
    TcpUnattached,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::ServerGone,
        Self::ServerHangs,
        Self::Translated,
        Self::Unattached,
        Self::Identifiers,
        Self::MapFull,
        Self::TooLong,
        Self::Moved,
        Self::Ranges,
        Self::Send,
        Self::TcpUnproven,
        Self::TcpBusy,
        Self::TcpInPieces,
        Self::TcpMixed,
        Self::TcpClosed,
        Self::TcpNoSocket,
        Self::TcpUnattached,
    ];

    /// The word in an event's `reason`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ServerGone => "server_gone",
            Self::ServerHangs => "server_hangs",
            Self::Translated => "address_translated",
            Self::Unattached => "route_unattached",
            Self::Identifiers => "identifiers_too_long",
            Self::MapFull => "map_full",
            Self::TooLong => "message_too_long",
            Self::Moved => "number_moved",
            Self::Ranges => "ranges_full",
            Self::Send => "send_failed",
            Self::TcpUnproven => "tcp_unproven",
            Self::TcpBusy => "tcp_busy",
            Self::TcpInPieces => "tcp_in_pieces",
            Self::TcpMixed => "tcp_mixed",
            Self::TcpClosed => "tcp_closed",
            Self::TcpNoSocket => "tcp_no_socket",
            Self::TcpUnattached => "tcp_unattached",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// When any of several media flows was last seen each way; `None`: not since they are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaSeen {
    /// The server's own, leaving.
    pub left: Option<Time>,
    /// What came in for the server.
    pub came: Option<Time>,
}

impl MediaSeen {
    /// The later of both, each way.
    pub fn or_later(self, other: Self) -> Self {
        Self { left: self.left.max(other.left), came: self.came.max(other.came) }
    }
}

/// What the driver tells the engine beside packets and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The answer to [`Output::Arm`].
    Armed {
        /// Which session.
        session: SessionId,
        /// Whose numbers.
        side: Side,
        /// They as the kernel has them, or why there can be no injection.
        result: Result<State, Refusal>,
    },
    /// The answer to [`Output::Look`], and what comes before that to [`Output::Arm`] where it names flows.
    Media {
        /// Which session.
        session: SessionId,
        /// When the flows were last seen.
        seen: MediaSeen,
    },
    /// Until now an interface of those that media cross had no programs: what passed there was not seen.
    Blind,
    /// A request that [`Output::Inject`] asked for did not leave.
    Refused {
        /// Its token.
        token: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The answer to [`Output::Weigh`].
    Weighed {
        /// Which session.
        session: SessionId,
    },
    /// What [`Output::Send`] asked for did not leave.
    Unsent {
        /// Which session.
        session: SessionId,
        /// Why.
        refusal: Refusal,
    },
    /// The engine was restored, and has been told what was heard since its records ended: until now nobody has kept its
    /// deadlines.
    Outage,
    /// The engine was restored on a host that was started anew: its servers have forgotten their calls.
    HostRestarted,
    /// Packets were lost before the engine could see them.
    Loss {
        /// How many since the last time.
        packets: u64,
    },
    /// Something went by unseen on a connection: what calls over TCP have become of is not certain until their servers speak again.
    Unheard {
        /// The address at its other end; `None` where it may have been any connection.
        peer: Option<IpAddr>,
    },
}

/// Make the kernel follow one side's numbers in a dialog, and tell what they are.
///
/// The driver checks that the dialog can be refreshed from here (the server's socket lives, its address is its own, the
/// route is attached), makes that side's shift entry from `state` if there is none, reads the state of the entry, **then
/// hands every packet that the kernel had sampled by then to the engine**, then answers with [`Command::Armed`] and the
/// state as it was read. Where no session needs the entry then (`Engine::follows`), nobody will say [`Output::Disarm`], and the
/// driver takes it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// Which session.
    pub session: SessionId,
    /// Whose numbers.
    pub side: Side,
    /// Call-ID, as on the wire.
    pub call_id: Vec<u8>,
    /// That side's tag.
    pub tag: Vec<u8>,
    /// The server's address.
    pub server: SocketAddr,
    /// The next hop.
    pub peer: SocketAddr,
    /// By what the message goes. By TCP: `server` and `peer` are the two ends of the server's own connection.
    pub transport: Transport,
    /// Cookie of the server's socket, 0 if none was seen.
    pub cookie: u64,
    /// The state of a fresh entry.
    pub state: State,
    /// The server's media flows that are watched: when each was last seen decides whether the call lives.
    pub media: Vec<SocketAddr>,
    /// Whether what is to be sent ends the dialog: a server that stands still may have it, and one that is gone is no obstacle to
    /// what goes to the peer.
    pub ends: bool,
}

/// The ACK to the 2xx that a re-INVITE may get, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyAck {
    /// The token in its Via branch.
    pub token: u64,
    /// The message.
    pub bytes: Vec<u8>,
}

/// Send a message in one side's name to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inject {
    /// Which session.
    pub session: SessionId,
    /// In whose name.
    pub side: Side,
    /// The token in its Via branch.
    pub token: u64,
    /// `Some`: the message takes the next number, on condition that the kernel's state is this one. `None`: it needs no
    /// number of its own (ACK, CANCEL, a retransmission).
    pub commit: Option<State>,
    /// Call-ID, as on the wire.
    pub call_id: Vec<u8>,
    /// The first copy of a re-INVITE: what its 2xx has to get even if the engine's process is gone by then. The driver keeps
    /// it where it outlives the process, until the re-INVITE's token is retired.
    pub ack: Option<ReadyAck>,
    /// That side's tag.
    pub tag: Vec<u8>,
    /// The server's address.
    pub server: SocketAddr,
    /// The next hop: to here, or in the peer's name from here.
    pub peer: SocketAddr,
    /// By what it goes. By TCP it is never a copy.
    pub transport: Transport,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The message.
    pub bytes: Vec<u8>,
}

/// Hold back what the server answers to refreshes of the peer's in a dialog, where that is a refusal.
///
/// The driver marks the dialog in the kernel, unless something could not be sent from here in the server's name. What is held back
/// comes by [`crate::Engine::handle_held`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Call-ID, as on the wire.
    pub call_id: Vec<u8>,
    /// The peer's tag.
    pub tag: Vec<u8>,
    /// The server's address.
    pub server: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// Cookie of the server's socket: only what that sends is held back.
    pub cookie: u64,
    /// Bits of [`st_ebpf::abi::holds`].
    pub methods: u32,
    /// The INVITE of the peer's that was last answered by a 2xx in the server's name.
    pub answered: Option<AnsweredInvite>,
}

/// What tells the ACK to a 2xx in the server's name, which the server must not get, from the one to its own refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredInvite {
    /// The INVITE's branch.
    pub branch: Vec<u8>,
    /// Its number, as the server has it.
    pub number: u32,
    /// Its number on the wire.
    pub wire: u32,
}

/// A message that leaves the server's address for the peer's as it is: a response, or an ACK in the peer's name that the kernel
/// programs turn round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Which session; `None` where it is of none that is known.
    pub session: Option<SessionId>,
    /// From here.
    pub server: SocketAddr,
    /// To here.
    pub peer: SocketAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The message.
    pub bytes: Vec<u8>,
}

impl Datagram {
    /// What was held back, as it was.
    pub fn of(packet: &Packet<'_>) -> Self {
        let &Packet { server, peer, tos, ttl, bytes, .. } = packet;
        Self { session: None, server, peer, tos, ttl, bytes: bytes.to_vec() }
    }

    /// The other way round.
    pub(crate) fn packet(&self) -> Packet<'_> {
        let Self { server, peer, tos, ttl, ref bytes, .. } = *self;
        let direction = Direction::Egress;
        let transport = Transport::Udp;
        Packet { direction, server, peer, transport, interface: 0, tos, ttl, cookie: 0, truncated: false, bytes }
    }
}

/// An empty message that holds a flow open in whatever translates and filters on the way: it leaves the server's address and port for the
/// peer's. Only while the server's socket is there under that address; nothing is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// From here.
    pub server: SocketAddr,
    /// To here.
    pub peer: SocketAddr,
    /// Cookie of the server's socket, 0 if none was seen.
    pub cookie: u64,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
}

impl KeepAlive {
    /// What it says: the keep-alive of RFC 5626, section 3.5.1, which has it for connections; over UDP servers take it likewise.
    pub const BYTES: &[u8] = b"\r\n\r\n";
}

/// What the engine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Tell the world.
    Event(Event),
    /// Follow a dialog's numbers; answer with [`Command::Armed`].
    Arm(Arm),
    /// Send a message in one side's name.
    Inject(Inject),
    /// Watch a media flow of the server's: keep in mind when a datagram from this address last left, and when one last came in
    /// for it.
    Watch {
        /// The server's end.
        flow: SocketAddr,
    },
    /// Watch it no longer.
    Unwatch {
        /// The server's end.
        flow: SocketAddr,
    },
    /// Mark a dialog, or change its mark.
    Mark(Mark),
    /// Take a dialog's mark away.
    Unmark {
        /// Call-ID, as on the wire.
        call_id: Vec<u8>,
        /// The peer's tag.
        tag: Vec<u8>,
    },
    /// Say by [`Command::Media`] when these flows were seen, then [`Command::Weighed`], both at once: a refusal is held back
    /// meanwhile.
    Weigh {
        /// Which session.
        session: SessionId,
        /// The server's media flows that are watched.
        media: Vec<SocketAddr>,
    },
    /// Send a message as it is, at once; [`Command::Unsent`] where that cannot be.
    Send(Datagram),
    /// Hold a flow open.
    KeepAlive(KeepAlive),
    /// Tell when these flows, which are watched, were last seen; answer with [`Command::Media`].
    Look {
        /// Which session.
        session: SessionId,
        /// The server's ends.
        media: Vec<SocketAddr>,
    },
    /// Have the kernel programs let INVITEs from and to this trunk be from now on, until there are other rules.
    StopAssisting {
        /// Its name.
        trunk: String,
    },
    /// Take this token off the record: no answer to it is expected any more.
    Retire {
        /// The token.
        token: u64,
    },
    /// The dialog is over for good, and so are its forks: take a shift entry of its away.
    Disarm {
        /// Which session.
        session: SessionId,
        /// Whose numbers.
        side: Side,
        /// Call-ID, as on the wire.
        call_id: Vec<u8>,
        /// That side's tag.
        tag: Vec<u8>,
        /// The server's address.
        server: SocketAddr,
        /// The server may be in another dialog with the same numbers, which went by unseen: not before that is over.
        left: bool,
    },
    /// Nothing more now; call [`crate::Engine::handle_timeout`] at this time, if any.
    Timeout(Option<Time>),
}
