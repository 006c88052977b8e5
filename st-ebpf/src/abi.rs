//! Records, map keys and map values that cross between the kernel programs and user space. Every type is `repr(C)`
//! without padding; addresses and ports are byte arrays in network order, IPv4 as IPv4-mapped IPv6.

use core::net::IpAddr;

use crate::cseq::{RANGES, Range};

/// An address as the records and maps have it.
pub const fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Raised with every change of a record, of a map that is pinned or of its meaning: it is part of the pin directory's name.
pub const VERSION: u32 = 11;

/// How many bytes of a SIP message reach user space. Longer ones are cut and flagged [`flags::CUT`].
pub const CAPTURE: usize = 16_384;

/// How many records one TCP segment becomes at most. What offloads hand over as one is 65,535 bytes long, unless somebody has set
/// it higher (`gso_max_size`); the rest of a longer one is counted ([`Counter::SegmentCut`]).
pub const PIECES: u32 = 4;

/// How many datagrams are read of a packet that stands for several. The kernel joins no more (`UDP_MAX_SEGMENTS`: 64, and 128 since
/// Linux 6.9).
pub const JOINED: u32 = 128;

/// Size of the ring buffer in bytes.
pub const RING_BYTES: u32 = 4 << 20;

/// Strangers' INVITEs are no longer sampled once this much of the ring is in use: the rest is for known calls.
pub const RING_STRANGERS: u64 = (RING_BYTES as u64) * 3 / 4;

/// How many dialogs can have a shift entry at once.
pub const SHIFTS: u32 = 1 << 20;

/// Of how many dialogs the last number of the server's is kept ([`Latest`]).
pub const LATEST: u32 = 65_536;

/// How many injected requests can be on record at once.
pub const TOKENS: u32 = 65_536;

/// How many ACKs can be kept ready at once ([`Ack`]).
pub const ACKS: u32 = 4_096;

/// The longest ACK that is kept ready, in bytes of SIP.
pub const ACK_BYTES: usize = 2_048;

/// A daemon whose heartbeat is older than this is dead or hangs, in nanoseconds. It beats once a second at
/// the least.
pub const SILENT_NS: u64 = 3_000_000_000;

/// How many dialogs can be marked at once, so that the server's refusals of the peer's refreshes are held back ([`Hold`]).
pub const HOLDS: u32 = 65_536;

/// The longest response that is held back, in bytes of SIP: it has to leave again in one packet.
pub const HELD_BYTES: usize = 1_400;

/// Nothing is held back once the daemon's heartbeat is older than this, in nanoseconds. While a dialog is marked it beats five
/// times as often.
pub const HOLD_SILENT_NS: u64 = 500_000_000;

/// How many media flows of the server's can be watched at once.
pub const FLOWS: u32 = 65_536;

/// How many networks of peers can be told apart by whether INVITEs from and to there are changed ([`assist`]).
pub const ASSISTED: u32 = 65_536;

/// The longest INVITE that `timer` is added to, as it is then, in bytes of SIP: more should not go by UDP where the path's MTU is not
/// known (RFC 3261, section 18.1.1).
pub const ASSIST_BYTES: usize = 1_300;

/// Of how many datagrams in IP fragments it is kept what became of the first ([`Follow`]).
pub const FRAGMENTS: u32 = 8_192;

/// For how long that counts, in nanoseconds: identifications come round again.
pub const FRAGMENT_NS: u64 = 1_000_000_000;

/// How many fragments that come before the first of their datagram are put into the ring, for each CPU in a period: nothing tells what
/// they belong to.
pub const EARLY_FRAGMENTS: u64 = 1_024;

/// A period of these: two to the power of this, in nanoseconds.
pub const EARLY_PERIOD: u32 = 30;

/// How many of this host's addresses can have shifted dialogs.
pub const SHIFTED_HOSTS: u32 = 1_024;

/// What every Via branch of an injected request begins with; 16 lower-case hexadecimal digits of the token follow.
pub const BRANCH_PREFIX: [u8; 12] = *b"z9hG4bKsipst";

/// What the branch of an injected request begins with that goes to the server in the peer's name: never that of
/// another sipst, on the peer's host.
pub const PEER_BRANCH_PREFIX: [u8; 12] = *b"z9hG4bKsipsp";

/// Length of an injected request's Via branch.
pub const BRANCH_LEN: usize = BRANCH_PREFIX.len() + 16;

/// Names of the programs and maps in the kernel object.
pub mod names {
    #![allow(missing_docs)]
    pub const INGRESS_XDP: &str = "st_ingress";
    pub const INGRESS_TC: &str = "st_ingress_tc";
    pub const EGRESS: &str = "st_egress";
    pub const SETTINGS: &str = "SETTINGS";
    pub const PORTS: &str = ".bss.ports";
    pub const OPAQUE_PORTS: &str = ".bss.opaque_ports";
    pub const RING: &str = "RING";
    pub const COUNTERS: &str = "COUNTERS";
    pub const SHIFTS: &str = "SHIFTS";
    pub const SHIFTED: &str = "SHIFTED";
    pub const LATEST: &str = "LATEST";
    pub const TOKENS: &str = "TOKENS";
    pub const ACKS: &str = "ACKS";
    pub const HEARTBEAT: &str = "HEARTBEAT";
    pub const HOLDS: &str = "HOLDS";
    pub const HELD_ACKS: &str = "HELD_ACKS";
    pub const FLOWS: &str = "FLOWS";
    pub const FLOW_PORTS: &str = ".bss.flow_ports";
    /// A constant of the programs, one byte: whether they copy what they rewrite into the ring.
    pub const RECORDING: &str = "RECORDING";
    /// The same: whether UDP of other ports is looked at too, where it begins as SIP does.
    pub const ANY_PORT: &str = "ANY_PORT";
    pub const ASSISTED: &str = "ASSISTED";
    pub const FRAGMENTS: &str = "FRAGMENTS";
    pub const EARLY: &str = "EARLY";
    pub const STREAM_EGRESS: &str = "st_stream_egress";
    pub const STREAM_INGRESS: &str = "st_stream_ingress";
    pub const PLANS: &str = "PLANS";
    /// The programs that write into connections, by direction; those that are not there are not asked.
    pub const ACTING: &str = "ACTING";
    pub const JOINED_EGRESS: &str = "st_joined_egress";
    pub const JOINED_INGRESS: &str = "st_joined_ingress";
    /// The programs that read several datagrams as one packet, by direction.
    pub const JOINED: &str = "JOINED";
}

/// What a ring record tells ([`SampleHeader::kind`]).
pub mod kind {
    #![allow(missing_docs)]
    /// A SIP message of the server's or the peer's, as it was on the wire at this host's edge: before the shift on
    /// egress, before the shift back on ingress.
    pub const MESSAGE: u8 = 0;
    /// A request of sipst's own that has left; `token` is set.
    pub const INJECTED: u8 = 1;
    /// A request of sipst's own that was dropped instead; `token` and `reason` are set.
    pub const REFUSED: u8 = 2;
    /// A response to a request of sipst's own, taken off the wire; `token` is set.
    pub const ANSWER: u8 = 3;
    /// A refusal of the server's that was taken off the wire, whole: the daemon answers in its place or lets it out ([`Hold`](super::Hold)).
    pub const HELD: u8 = 4;
    /// A message that is about to be rewritten, as it is before; `token` has the number in CSeq, or the one that another header
    /// quotes, in its upper half, and the one that takes its place in its lower. Only for the flight recorder, as all that follow:
    /// what the daemon has to know of the message is told apart.
    pub const BEFORE: u8 = 5;
    /// The same message, rewritten; the same `token`. None comes where that could not be.
    pub const REWRITTEN: u8 = 6;
    /// An ACK of the peer's that was taken off the wire.
    pub const TAKEN: u8 = 7;
    /// A TCP segment from or to a SIP port that carries something, or begins or ends a connection; or a piece of one. `token` has the
    /// number of its first byte in its upper half and the number that it acknowledges in its lower, `reason` bits of
    /// [`tcp`](super::tcp).
    pub const SEGMENT: u8 = 8;
}

/// Bits of [`SampleHeader::reason`] of a TCP segment, as in its header (RFC 9293, section 3.1). Of a segment in pieces the first has
/// its SYN and the last its FIN.
pub mod tcp {
    #![allow(missing_docs)]
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

/// Bits of [`Hold::methods`]: refusals of what are held back.
pub mod holds {
    /// Of INVITE.
    pub const INVITE: u32 = 1;
    /// Of UPDATE.
    pub const UPDATE: u32 = 2;
}

/// What became of an INVITE that was to make a dialog, with a peer of a network that is marked in the map `ASSISTED`
/// ([`SampleHeader::reason`]). The key there is a network, IPv4 as IPv4-mapped IPv6; the value is 1 where they are changed, else 0: the
/// longest prefix counts. Not pinned: whoever loads the programs begins with none.
pub mod assist {
    /// It was changed: the server's lists `timer` in Supported, the peer's does so instead of demanding it. Its sample is of what
    /// it was before.
    pub const DONE: u8 = 16;
    /// It was let be: the server speaks of session timers itself.
    pub const OWN: u8 = 17;
    /// The same: what its header says is not clear enough.
    pub const UNCLEAR: u8 = 18;
    /// The same: it demands other extensions too.
    pub const OTHERS: u8 = 19;
    /// The same: it would have become too long.
    pub const TOO_LONG: u8 = 20;
    /// The same: it is not of this host's making, but passed on.
    pub const RELAYED: u8 = 21;
    /// The same: no daemon lives, or reads what is in the ring in time.
    pub const ASLEEP: u8 = 22;
}

/// Why `st_egress` dropped a request of sipst's own ([`SampleHeader::reason`]).
pub mod refused {
    /// The token is not on record.
    pub const UNKNOWN_TOKEN: u8 = 1;
    /// The dialog has no shift entry, or one of another dialog.
    pub const NO_ENTRY: u8 = 2;
    /// The server sent a request meanwhile: the number is stale.
    pub const MOVED: u8 = 3;
    /// All closed ranges are in use and the oldest is younger than 64*T1.
    pub const RANGES_FULL: u8 = 4;
}

/// Bits of [`SampleHeader::flags`].
pub mod flags {
    /// The message is longer than what follows the header.
    pub const CUT: u8 = 1;
    /// The packet came in by the XDP program.
    pub const XDP: u8 = 2;
    /// What follows the header is what one IP fragment holds of the message: `identification` and `place` are set. Of the first,
    /// `wire_len` is the length of the whole message, and `kind` tells what it is; of the others the ports are 0.
    pub const FRAGMENT: u8 = 4;
    /// The message stands in a TCP segment.
    pub const STREAM: u8 = 8;
    /// The message was one of several datagrams as one packet, and went on as it was, whatever it is.
    pub const JOINED: u8 = 16;
}

/// Bits of [`SampleHeader::place`], as IPv4 has them.
pub mod place {
    /// More fragments follow.
    pub const MORE: u16 = 0x2000;
    /// Where the fragment belongs, in units of eight bytes of what IP carries: the UDP header is a part of that.
    pub const OFFSET: u16 = 0x1fff;
}

/// Bits of [`Follow::what`]: what becomes of the fragments after the first. Without any they pass unread.
pub mod follow {
    /// They go into the ring, as the first has.
    pub const SAMPLE: u32 = 1;
    /// They are taken off the wire, as the first was.
    pub const TAKE: u32 = 2;
    /// They are turned round, as the first was.
    pub const TURN: u32 = 4;
}

/// Directions, as [`SampleHeader::direction`] has them.
pub mod direction {
    /// Peer to server.
    pub const INGRESS: u8 = 0;
    /// Server to peer.
    pub const EGRESS: u8 = 1;
}

/// What stands before the SIP bytes in a ring record.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SampleHeader {
    /// `CLOCK_MONOTONIC` when the packet met the program, in nanoseconds.
    pub time_ns: u64,
    /// Cookie of the sending socket (egress only), else 0.
    pub cookie: u64,
    /// The token in the branch of a request of sipst's own or of an answer to it, else 0; for what [`kind`] says so, two
    /// numbers.
    pub token: u64,
    /// Interface index.
    pub ifindex: u32,
    /// Length of the SIP message on the wire, in bytes.
    pub wire_len: u16,
    /// How many bytes of it follow.
    pub captured_len: u16,
    /// The address on this host's side.
    pub server: [u8; 16],
    /// The address on the other side.
    pub peer: [u8; 16],
    /// The port on this host's side, network order.
    pub server_port: [u8; 2],
    /// The port on the other side, network order.
    pub peer_port: [u8; 2],
    /// One of [`direction`].
    pub direction: u8,
    /// One of [`kind`].
    pub kind: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// One of [`refused`] or [`assist`], bits of [`tcp`], else 0.
    pub reason: u8,
    /// Of a fragment: the identification of its datagram, that of IPv4 behind two zeroes, network order; else 0.
    pub identification: [u8; 4],
    /// Of a fragment: bits of [`place`], network order; else 0.
    pub place: [u8; 2],
}

/// What the programs are told at start; one element.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Settings {
    /// Key of the dialog hash, made when the maps are made and kept as long as they live, and carried over into those of the
    /// next version. Of version 1 this is all there is.
    pub hash_key: [u64; 2],
    /// When the programs that are attached were loaded, in seconds since 1970.
    pub loaded_s: u64,
    /// The version of sipst that they came with, in ASCII, with zeroes behind it.
    pub version: [u8; 16],
}

/// Ports, one bit each; one element. There are three of these, none of which is pinned: those that are looked at, those of them
/// whose traffic cannot be read, and those of the media flows that are watched.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ports {
    /// Bit `port % 64` of word `port / 64`.
    pub words: [u64; 1024],
}

/// The numbers of one side of a dialog, the server's or the peer's; the key is [`crate::key::DialogKey::map`].
///
/// `st_egress` alone writes `ranges` and `closed_ns` of a live entry; `word` too, but for the peer's requests, which raise it
/// where they come in.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Shift {
    /// [`crate::key::DialogKey::check`]: compared after the rest has been copied.
    pub check: u64,
    /// Odd while `ranges` is being moved.
    pub generation: u64,
    /// [`crate::cseq::State::to_word`].
    pub word: u64,
    /// When each range was closed, `CLOCK_MONOTONIC` nanoseconds.
    pub closed_ns: [u64; RANGES],
    /// Closed ranges, lowest first.
    pub ranges: [Range; RANGES],
}

/// The highest number that the server has used in a dialog, ACK and CANCEL left out, whether or not the ring had room for the
/// request; the key is [`crate::key::DialogKey::map`] of the server's numbers. What was written longest ago goes for others.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Latest {
    /// [`crate::key::DialogKey::check`].
    pub check: u64,
    /// As the server wrote it.
    pub number: u64,
}

/// A request of sipst's own, on record before it leaves; the key is the token.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Token {
    /// Key of the [`Shift`] of the side in whose name it goes.
    pub dialog: u64,
    /// Its check.
    pub check: u64,
    /// The state the request was made for, as a word.
    pub expected: u64,
    /// Not 0 once the number is committed; ACK and CANCEL are put on record committed.
    pub committed: u64,
}

/// The finished ACK to the 2xx that a re-INVITE of sipst's own may get; the key is the re-INVITE's token. The
/// programs send it where no daemon does: a 2xx without its ACK ends the call (RFC 3261, section 13.3.1.4).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ack {
    /// The token in its own Via branch.
    pub token: u64,
    /// The server's end.
    pub server: [u8; 16],
    /// The peer's; a 2xx between two others gets none.
    pub peer: [u8; 16],
    /// The server's UDP port, network order.
    pub server_port: [u8; 2],
    /// The peer's, network order.
    pub peer_port: [u8; 2],
    /// Not 0: the daemon that sent the re-INVITE is gone, and no other knows of it.
    pub orphan: u32,
    /// Length of the IP header and the UDP header.
    pub header_len: u32,
    /// Length of the message.
    pub len: u32,
    /// The sum of its 16-bit words as they stand in memory, with zeroes behind it; not complemented (RFC 1071).
    pub sum: u32,
    /// The UDP checksum.
    pub checksum: [u8; 2],
    /// Always 0.
    pub reserved: [u8; 6],
    /// The IP header and the UDP header, but for the UDP checksum.
    pub headers: [u8; 48],
    /// The message.
    pub message: [u8; ACK_BYTES],
}

/// The mark on a dialog in which the server's refusals of the peer's refreshes are held back; the key is
/// [`crate::key::DialogKey::map`] of the peer's numbers. Not pinned: whoever loads the programs begins with none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Hold {
    /// [`crate::key::DialogKey::check`].
    pub check: u64,
    /// Cookie of the server's socket: what another sends is not held back, sipst's own messages among that.
    pub cookie: u64,
    /// An INVITE of the peer's that was answered by a 2xx in the server's name: [`crate::key::branch`] of its branch.
    pub branch: u64,
    /// Until when its ACKs are told apart, `CLOCK_MONOTONIC` nanoseconds; 0: there is none.
    pub until_ns: u64,
    /// Its number, as the server knows it: an ACK with this and the same branch is for the server's own refusal.
    pub answered: u32,
    /// Its number on the wire: an ACK with this and another branch is for the 2xx, and not for the server.
    pub wire: u32,
    /// Bits of [`holds`].
    pub methods: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Where media of the server's come from, and the peer's go to; the value is [`Seen`]. Not pinned: whoever loads the programs
/// begins with none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The server's address.
    pub address: [u8; 16],
    /// Its UDP port, network order.
    pub port: [u8; 2],
    /// Always 0.
    pub reserved: [u8; 6],
}

/// When a datagram was last seen each way, in nanoseconds of `CLOCK_MONOTONIC_COARSE`, 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    /// From there.
    pub left_ns: u64,
    /// To there.
    pub came_ns: u64,
}

/// A datagram in IP fragments; the value is [`Follow`]. Not pinned: whoever loads the programs begins with none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Fragmented {
    /// From there.
    pub source: [u8; 16],
    /// To there.
    pub destination: [u8; 16],
    /// As [`SampleHeader::identification`].
    pub identification: [u8; 4],
    /// One of [`direction`].
    pub direction: u8,
    /// Always 0.
    pub reserved: [u8; 3],
}

/// What became of the first fragment of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Follow {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// Bits of [`follow`].
    pub what: u32,
    /// Always 0.
    pub reserved: u32,
}

/// The fragments that came before the first of their datagram, on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Early {
    /// In which period of `CLOCK_MONOTONIC` ([`EARLY_PERIOD`]).
    pub period: u64,
    /// How many of them were put into the ring.
    pub count: u64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What the programs count, one element of the `COUNTERS` array each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        #[allow(missing_docs)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// All of them, in the array's order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in logs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

counters! {
    /// Packets on a SIP port that were looked at.
    Seen = "seen",
    /// SIP messages put into the ring.
    Sampled = "sampled",
    /// Not sampled: an IP fragment of what is no SIP, or of a message that is none to be sampled.
    Fragment = "fragment",
    /// Not sampled: a TCP segment of a SIP port that carries nothing, and begins and ends no connection.
    SegmentBare = "segment_bare",
    /// TCP segments of SIP ports that were put into the ring, in as many pieces as each took.
    Segment = "segment",
    /// Of these, such as were larger than [`PIECES`] records hold: the rest was not sampled.
    SegmentCut = "segment_cut",
    /// Lost: a TCP segment that came in while the ring's last quarter was kept for known calls and for what leaves.
    SegmentReserved = "segment_reserved",
    /// TCP segments of ports whose traffic cannot be read (`opaque_ports`).
    OpaqueSegment = "opaque_segment",
    /// Connections that were made there.
    OpaqueConnection = "opaque_connection",
    /// Not sampled: headers cut short or contradictory.
    Malformed = "malformed",
    /// Not sampled: over the loopback between two SIP ports, so that either end may be the server.
    Loopback = "loopback",
    /// Packets that stand for several datagrams, which were read one by one and went on as they were: of a socket that sends so
    /// (`UDP_SEGMENT`) or reads so (`UDP_GRO`), or of an interface that hands them over so.
    Joined = "joined",
    /// Lost: datagrams of such packets past as many as are read ([`JOINED`]).
    JoinedUnread = "joined_unread",
    /// Answers to requests of sipst's own in such packets: handed to the daemon where their token is on record, and not taken off the wire.
    JoinedAnswer = "joined_answer",
    /// Messages in such packets whose number is another one on the other side; passed as they were.
    JoinedUnshifted = "joined_unshifted",
    /// Not sampled: an empty datagram or a keep-alive (CRLF, STUN, one NUL).
    KeepAlive = "keep_alive",
    /// Not sampled: not SIP.
    NotSip = "not_sip",
    /// Not sampled: a request outside dialogs.
    OutsideRequest = "outside_request",
    /// Not sampled: a response to a request outside dialogs.
    OutsideResponse = "outside_response",
    /// Lost: the ring was full.
    RingFull = "ring_full",
    /// Not sampled: a stranger's INVITE while the ring's last quarter was kept for known calls.
    RingReserved = "ring_reserved",
    /// Messages cut to the capture length.
    Cut = "cut",
    /// Answers to requests of sipst's own, taken off the wire and handed to the daemon.
    AnswerTaken = "answer_taken",
    /// The same with a token that is not on record: taken off the wire all the same.
    AnswerUnknown = "answer_unknown",
    /// 2xx to re-INVITEs of sipst's own that were ACKed by the programs, because no daemon did: so many ACKs went back to the
    /// interface. What it does with them is not known here: a veth loses what XDP sends where no XDP program is at its far end.
    AckedHere = "acked_here",
    /// The same, where the ACK could not be sent.
    AckFailed = "ack_failed",
    /// Refusals of the server's that were held back and handed to the daemon.
    Held = "held",
    /// ACKs of the peer's to a 2xx in the server's name, taken off the wire.
    AckTaken = "ack_taken",
    /// ACKs in the peer's name to a refusal of the server's, turned round to the server.
    AckTurned = "ack_turned",
    /// ICMP errors that quote a request of sipst's own, taken off the wire.
    IcmpTaken = "icmp_taken",
    /// Requests of sipst's own that committed their number.
    Committed = "committed",
    /// Later copies of them.
    Repeated = "repeated",
    /// Requests of sipst's own that were dropped.
    Refused = "refused",
    /// Requests whose CSeq was rewritten: the server's on their way out, the peer's on their way in.
    ShiftedOut = "shifted_out",
    /// Responses to them whose CSeq was rewritten back.
    ShiftedIn = "shifted_in",
    /// The server's requests that were lengthened, because the number did not fit in its place.
    Lengthened = "lengthened",
    /// Requests whose number did not fit in its place; passed as they were.
    ShiftNoRoom = "shift_no_room",
    /// Responses with a number that is nobody's; passed as they were.
    ShiftNoNumber = "shift_no_number",
    /// Rewrites that a helper of the kernel refused; passed as they were.
    ShiftFailed = "shift_failed",
    /// Copies for the flight recorder that found no room in the ring, or only in what is kept for messages.
    Unrecorded = "unrecorded",
    /// INVITEs of the server's to whose Supported `timer` was added.
    AssistedOut = "assisted_out",
    /// INVITEs of peers' that had demanded it.
    AssistedIn = "assisted_in",
    /// INVITEs that were let be because the server speaks of session timers itself.
    AssistOwn = "assist_own",
    /// The same, because what their header says is not clear enough.
    AssistUnclear = "assist_unclear",
    /// The same, because they demand other extensions too.
    AssistOthers = "assist_others",
    /// The same, because they would have become too long.
    AssistTooLong = "assist_too_long",
    /// The same, because this host only passes them on.
    AssistRelayed = "assist_relayed",
    /// The same, because no daemon lives, or does not keep up.
    AssistAsleep = "assist_asleep",
    /// Later fragments of sampled messages, put into the ring.
    FragmentSampled = "fragment_sampled",
    /// Fragments that came before the first of their datagram, put into the ring in case it is SIP.
    FragmentEarly = "fragment_early",
    /// The same past what is put there in a second, or while the ring's last quarter was kept for known calls: passed unread.
    FragmentUnread = "fragment_unread",
    /// Later fragments that were taken off the wire, because the first was.
    FragmentTaken = "fragment_taken",
    /// Messages whose number could not be looked at, because the header goes on behind the first fragment; passed as they were.
    FragmentUnshifted = "fragment_unshifted",
    /// Answers to requests of sipst's own over TCP that were made a `100` in place.
    AnswerWritten = "answer_written",
    /// Requests of sipst's own over TCP whose number could not be committed, made a `100` in place.
    RequestWritten = "request_written",
    /// Segments that had bytes of a plan written over theirs: further copies of what was planned among them.
    Patched = "patched",
    /// Patches that went for newer ones before they were acknowledged.
    PatchEvicted = "patch_evicted",
    /// Segments that the kernel would not have written; passed as they were.
    PatchFailed = "patch_failed",
    /// Messages over TCP whose number could not be looked at, because the header goes on in the next segment; passed as they were.
    StreamUnshifted = "stream_unshifted",
}
