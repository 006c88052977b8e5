//! What bounds the engine's memory and work, and what it counts.

use super::heard::Heard;
use crate::{build::own_headers, message::Body};

/// How much the engine holds at most. What does not fit is refused or forgotten as each field says, counted in [`Stats`]
/// and told by a `capture_loss` event with the reason `limit`, once a minute at most for each limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Dialogs, tombstones included; when full, new ones are not tracked.
    pub sessions: usize,
    /// INVITEs of the server's, and peers' INVITEs that the server has answered, without a final response yet. When full,
    /// the one that was silent longest is forgotten.
    pub pending: usize,
    /// Peers' INVITEs that the server has not answered, or with 100 alone; as many INVITEs and UPDATEs of dialogs that are
    /// not known. When full, the oldest is forgotten, which is no event.
    pub strangers: usize,
    /// Peers whose ways are remembered, servers, and what becomes of peers' refreshes; when full, what was used longest ago is
    /// forgotten.
    pub remembered: usize,
    /// Refreshes that wait for their turn because of the rates or a breaker. When full, the one whose turn ends last asks again
    /// a little later, which is no event.
    pub waiting: usize,
    /// Media flows of the server's that are watched, no more than the kernel's map holds; when full, further dialogs are not
    /// judged by their media.
    pub flows: usize,
    /// Flows that are kept open by `keepalive`; when full, further ones are not, which is no event.
    pub keepalives: usize,
    /// Dialogs up to which one that is quiet stays unpacked for a minute; with more of them unpacked, it is packed after ten
    /// seconds, which is no event.
    pub unpacked: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 1_000_000,
            pending: 65_536,
            strangers: 16_384,
            remembered: 4_096,
            waiting: 65_536,
            flows: st_ebpf::abi::FLOWS as usize,
            keepalives: 65_536,
            unpacked: 8_192,
        }
    }
}

/// The longest Call-ID or tag of a dialog that is tracked, in bytes. A longer branch or sent-by counts as none.
pub const MAX_IDENTIFIER: usize = 512;

/// INVITEs of one call that are kept until a 2xx; of more the oldest is forgotten.
pub const MAX_TRIES: usize = 4;

/// Dialogs that one INVITE makes, one for each tag in a 2xx; more are not tracked, counted and told like a limit.
pub const MAX_FORKS: usize = 32;

/// How much of an INVITE is kept until its 2xx, in bytes; of a longer one the rest counts as cut off.
pub const MAX_INVITE: usize = 16_384;

/// The longest session description that is kept for a re-INVITE, its Content-Type included, in bytes; a longer one counts as
/// unknown.
pub const MAX_SDP: usize = 8_192;

/// Streams of a session description that are compared; one with more counts as not understood.
pub const MAX_STREAMS: usize = 8;

/// Formats of one stream, and as many keys; a session description with more counts as not understood.
pub const MAX_FORMATS: usize = 128;

/// The most that is kept of a dialog's addresses, routes and headers, in bytes; with more, nothing is sent in it.
pub const MAX_HEADERS: usize = 8_192;

/// The longest URI of a Contact that becomes the remote target, in bytes; a longer one changes nothing.
pub const MAX_TARGET: usize = MAX_HEADERS / 2;

/// Routes of one dialog; with more, nothing is sent in it.
pub const MAX_ROUTES: usize = 64;

/// The longest host in a peer's URI, in bytes; a longer one is no domain of any trunk's.
pub const MAX_DOMAIN: usize = 255;

/// Exchanges of one dialog that are followed at once; when full, the oldest is forgotten.
pub const MAX_EXCHANGES: usize = 16;

/// Requests of the server's in one dialog, other than INVITE, UPDATE and BYE, whose answers are waited for; when full, the
/// oldest is forgotten.
pub const MAX_OTHERS: usize = 8;

/// Requests of sipst's own on record in one dialog; when full, no more is sent until one has aged away.
pub const MAX_OWN: usize = 16;

/// Requests of sipst's own in one interval; after that many nothing is sent before the next one.
pub const MAX_ATTEMPTS: u32 = 16;

/// How often in one attempt a number that has moved is asked for again at once.
pub const MAX_MOVED: u32 = 16;

/// Pauses in one interval after which a host that cannot send is told of.
pub const MAX_WAITS: u32 = 4;

/// The longest session, in bytes of its record, that is packed while nothing happens in it; a longer one stays as it is.
pub const MAX_PACKED: usize = 16_384;

/// Sessions that others are packed by ([`MAX_PACKED`] bytes each at most), one at least for each trunk and direction; where there is
/// none to spare, another trunk's serves, and packs less well.
pub const MAX_TEMPLATES: usize = 256;

/// Templates that there are in a run one after the other, for as long as records by them may be on the disk; those that there are then
/// serve until the next start.
pub const MAX_NUMBERS: usize = 4_096;

/// Messages that are looked ahead at together ([`crate::Engine::look_ahead`]): what is fetched for more of them would not stay in the
/// cache until their turn comes.
pub const LOOK_AHEAD: usize = 16;

/// Sessions that are looked at for packing with each message, and with each call of [`crate::Engine::handle_timeout`].
pub const PACKED_PER_MESSAGE: usize = 2;
/// See [`PACKED_PER_MESSAGE`].
pub const PACKED_PER_CALL: usize = 64;

/// Timers that one call of [`crate::Engine::handle_timeout`] runs; the rest are due at once again. As many refreshes get their
/// turn in one call of whatever kind.
pub const TIMERS_PER_CALL: usize = 1_024;

/// Whether something in a message is too long to be kept with a dialog.
pub(super) fn has_too_long(heard: &Heard<'_>) -> bool {
    if heard.via.and_then(|via| via.branch).is_some_and(|branch| branch.len() > MAX_IDENTIFIER) {
        return true;
    }
    // Shorter ones have no place for the rest.
    if heard.packet.bytes.len() <= MAX_TARGET {
        return false;
    }
    let message = heard.message;
    let target = message.contact().map_or(0, |contact| contact.uri.len());
    let body = if let Body::Whole(bytes) = message.body() { bytes.len() } else { 0 };
    let headers = own_headers(message).map(|(_, value)| value.len()).sum::<usize>();
    target > MAX_TARGET || body > MAX_SDP || headers > MAX_HEADERS
}

/// What the engine counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Dialogs that are up.
    pub sessions: usize,
    /// Of these, those with a session timer.
    pub timed: usize,
    /// Of these, those whose state is not known for certain.
    pub unsure: usize,
    /// Dialogs that are over and absorb retransmissions.
    pub tombstones: usize,
    /// Dialogs that are packed, because nothing happens in them.
    pub packed: usize,
    /// INVITEs without a final response, strangers' not counted.
    pub pending: usize,
    /// Peers' INVITEs that the server has not answered, or with 100 alone.
    pub strangers: usize,
    /// Requests of sipst's own on record.
    pub own_requests: usize,
    /// Refreshes that wait for their turn because of the rates or a breaker.
    pub waiting: usize,
    /// Media flows of the server's that are watched.
    pub flows: usize,
    /// Flows that are kept open by `keepalive`.
    pub kept_alive: usize,
    /// Trunks whose breaker is open.
    pub open_breakers: usize,
    /// Messages read.
    pub messages: u64,
    /// Packets that are no SIP message.
    pub unparsable: u64,
    /// Messages without the headers that name a dialog and a transaction, or with identifiers that are too long.
    pub unidentified: u64,
    /// Messages of dialogs that are not known.
    pub unknown_dialog: u64,
    /// Responses to requests that are not known.
    pub unknown_request: u64,
    /// Answers to requests of sipst's own from another address than they went to (R43).
    pub foreign_answers: u64,
    /// Answers to requests of sipst's own that are not on record.
    pub unknown_answers: u64,
    /// Sessions not tracked because of [`Limits::sessions`].
    pub refused_sessions: u64,
    /// 2xx that would have made more than [`MAX_FORKS`] dialogs of one INVITE.
    pub refused_forks: u64,
    /// INVITEs forgotten because of [`Limits::pending`].
    pub evicted_pending: u64,
    /// INVITEs and UPDATEs forgotten because of [`Limits::strangers`].
    pub evicted_strangers: u64,
    /// INVITEs forgotten because of [`MAX_TRIES`].
    pub evicted_tries: u64,
    /// Peers and servers forgotten because of [`Limits::remembered`].
    pub evicted_remembered: u64,
    /// Exchanges and other requests of one dialog forgotten because of [`MAX_EXCHANGES`] and [`MAX_OTHERS`].
    pub evicted_exchanges: u64,
    /// Messages with something that is not kept, or not whole, because it is too long: [`MAX_INVITE`], [`MAX_SDP`],
    /// [`MAX_HEADERS`], [`MAX_TARGET`], [`MAX_ROUTES`], and [`MAX_IDENTIFIER`] for a branch.
    pub too_long: u64,
    /// Packets lost before the engine could see them.
    pub lost: u64,
    /// Refreshes that have waited for their turn.
    pub delayed: u64,
    /// Refreshes whose turn did not come in time.
    pub too_late: u64,
    /// Refreshes put off because of [`Limits::waiting`].
    pub evicted_waiting: u64,
    /// Dialogs whose media are not watched because of [`Limits::flows`].
    pub unwatched: u64,
    /// Keep-alives that were due.
    pub keepalives: u64,
    /// Dialogs whose flow is not kept open because of [`Limits::keepalives`].
    pub refused_keepalives: u64,
    /// How often a breaker has opened.
    pub breakers_opened: u64,
    /// Refreshes that were sent to try a trunk whose breaker was open.
    pub probes: u64,
}
