//! What bounds the engine's memory and work, and what it counts.

/// How much the engine holds at most. What does not fit is refused or forgotten as each field says, counted in [`Stats`]
/// and told by a `capture_loss` event with the reason `limit`, once a minute at most for each limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Dialogs, tombstones included; when full, new ones are not tracked.
    pub sessions: usize,
    /// INVITEs of the server's, and peers' INVITEs that the server has answered, without a final response yet. When full,
    /// the one that was silent longest is forgotten.
    pub pending: usize,
    /// Peers' INVITEs that the server has not answered; as many INVITEs and UPDATEs of dialogs that are not known. When full,
    /// the oldest is forgotten, which is no event.
    pub strangers: usize,
    /// Peers whose ways are remembered, and servers; when full, the one used longest ago is forgotten.
    pub remembered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 1_000_000, pending: 65_536, strangers: 16_384, remembered: 4_096 }
    }
}

/// The longest Call-ID or tag of a dialog that is tracked, in bytes.
pub const MAX_IDENTIFIER: usize = 512;

/// INVITEs of one call that are kept until a 2xx; of more the oldest is forgotten.
pub const MAX_TRIES: usize = 4;

/// How much of an INVITE is kept until its 2xx, in bytes; of a longer one the rest counts as cut off.
pub const MAX_INVITE: usize = 16_384;

/// The longest session description that is kept for a re-INVITE, in bytes; a longer one counts as unknown.
pub const MAX_SDP: usize = 8_192;

/// The most that is kept of a dialog's addresses, routes and headers, in bytes; with more, nothing is sent in it.
pub const MAX_HEADERS: usize = 8_192;

/// Exchanges of one dialog that are followed at once; when full, the oldest is forgotten.
pub const MAX_EXCHANGES: usize = 16;

/// Requests of sipst's own on record in one dialog; when full, no more is sent until one has aged away.
pub const MAX_OWN: usize = 16;

/// Requests of sipst's own in one interval; after that many nothing is sent before the next one.
pub const MAX_ATTEMPTS: u32 = 16;

/// How often in one attempt a number that has moved is asked for again at once.
pub const MAX_MOVED: u32 = 16;

/// Pauses in one interval after which a host that cannot send is told of.
pub const MAX_WAITS: u32 = 4;

/// Timers that one call of [`crate::Engine::handle_timeout`] runs; the rest are due at once again.
pub const TIMERS_PER_CALL: usize = 1_024;

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
    /// INVITEs without a final response, strangers' not counted.
    pub pending: usize,
    /// Peers' INVITEs that the server has not answered.
    pub strangers: usize,
    /// Requests of sipst's own on record.
    pub own_requests: usize,
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
    /// INVITEs forgotten because of [`Limits::pending`].
    pub evicted_pending: u64,
    /// INVITEs and UPDATEs forgotten because of [`Limits::strangers`].
    pub evicted_strangers: u64,
    /// Packets lost before the engine could see them.
    pub lost: u64,
}
