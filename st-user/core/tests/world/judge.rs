//! What must never be, judged at the host's edge: from the packets on the wire, and from those that the engine was shown.

use std::collections::BTreeMap;

use super::{
    agent::{MS, S, TRANSACTION, Us},
    sip::{Msg, Role, Verb},
};

/// A transaction as the engine was shown it.
#[derive(Debug)]
struct Seen {
    branch: String,
    verb: Verb,
    by_server: bool,
    number: u32,
    began: Us,
    last: Us,
    rings: bool,
    finished: Option<Us>,
    acked: bool,
}

impl Seen {
    /// Whether nothing may be begun beside it. A request of the peer's that the server leaves unanswered may have been
    /// dropped before it came there: that is no transaction for ever.
    fn is_open(&self, now: Us) -> bool {
        match self.finished {
            None if self.rings => now < self.last + TRANSACTION,
            None if self.by_server => now < self.began + 31 * S,
            None => now < self.began + 7 * S,
            Some(at) => self.verb == Verb::Invite && !self.acked && now < at + 31 * S,
        }
    }
}

/// One call.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// What must never be.
    pub(crate) breaches: Vec<String>,
    /// Numbers that went down, came twice, or changed.
    pub(crate) stale: Vec<String>,
    /// The highest number on the wire, and the highest that the server wrote itself.
    wire: Option<u32>,
    own: u32,
    sent: BTreeMap<(String, Verb), u32>,
    shown: Vec<Seen>,
    /// Interval, whether the server refreshes, and since when.
    pub(crate) agreed: Option<(u32, bool)>,
    pub(crate) since: Us,
    pub(crate) injected: u32,
    pub(crate) acks: u32,
}

impl Judge {
    /// A packet has left the host: no number goes down or comes twice (RFC 3261, section 12.2.1.1).
    pub(crate) fn left(&mut self, msg: &Msg, ours: bool) {
        if !msg.is_request() {
            return;
        }
        let known = self.sent.insert((msg.branch().into(), msg.verb), msg.number);
        if let Some(known) = known {
            if known != msg.number {
                self.stale.push(format!("{:?} {known} came again as {}", msg.verb, msg.number));
            }
            return;
        }
        match msg.verb {
            Verb::Ack | Verb::Cancel => {
                self.acks += u32::from(ours);
                let of_invite = |(_, verb): &(String, Verb)| *verb == Verb::Invite;
                let known = self.sent.iter().any(|(key, number)| of_invite(key) && *number == msg.number);
                if !known {
                    self.stale.push(format!("{:?} {} is for no INVITE", msg.verb, msg.number));
                }
            }
            Verb::Invite | Verb::Bye | Verb::Update | Verb::Info | Verb::Options => {
                if let Some(high) = self.wire.filter(|high| msg.number <= *high) {
                    self.stale.push(format!("{:?} {} after {high}, sipst's: {ours}", msg.verb, msg.number));
                }
                self.wire = self.wire.max(Some(msg.number));
            }
        }
    }

    /// The server writes a number of its own.
    pub(crate) fn wrote(&mut self, number: u32) {
        self.own = self.own.max(number);
    }

    /// The engine is shown a packet; `ours`: a request of sipst's or an answer to one.
    pub(crate) fn shown(&mut self, now: Us, msg: &Msg, from_server: bool, ours: bool) {
        let client = if msg.is_request() { from_server } else { !from_server };
        let agrees = matches!(msg.verb, Verb::Invite | Verb::Update);
        if !agrees && !matches!(msg.verb, Verb::Bye | Verb::Ack) {
            return;
        }
        let of = |seen: &&mut Seen| seen.by_server == client && seen.verb == msg.verb && seen.branch == msg.branch();
        if msg.verb == Verb::Ack {
            let acked = self.shown.iter_mut().filter(|seen| seen.verb == Verb::Invite && seen.by_server == client);
            return acked.filter(|seen| seen.number == msg.number).for_each(|seen| seen.acked = true);
        }
        let Some(seen) = self.shown.iter_mut().find(of) else {
            if msg.is_request() {
                self.shown.push(Seen {
                    branch: msg.branch().into(),
                    verb: msg.verb,
                    by_server: client,
                    number: msg.number,
                    began: now,
                    last: now,
                    rings: false,
                    finished: None,
                    // What sipst began itself is its own affair.
                    acked: ours,
                });
            }
            return;
        };
        if msg.is_request() {
            seen.last = now;
        } else if msg.status < 200 {
            (seen.rings, seen.last) = (true, now);
        } else if seen.finished.is_none() {
            seen.finished = Some(now);
            if agrees && msg.status < 300 {
                self.since = now;
                if let Some(expires) = msg.expires {
                    let uac = expires.refresher != Some(Role::Uas);
                    self.agreed = Some((expires.seconds, uac == client));
                }
            }
        }
    }

    /// The engine has a refresh sent.
    pub(crate) fn injects(&mut self, now: Us, msg: &Msg) {
        self.injected += 1;
        // A packet of the very moment may not have been read.
        let open = self.shown.iter().filter(|seen| !seen.acked || seen.verb != Verb::Invite);
        let is_ours = |seen: &Seen| seen.branch.starts_with("z9hG4bKsipst");
        let mut open = open.filter(|seen| seen.is_open(now) && !is_ours(seen));
        if let Some(Seen { verb, by_server, number, .. }) = open.next() {
            self.breaches.push(format!("{:?} inside {verb:?} {number}, the server's: {by_server}", msg.verb));
        }
        match self.agreed {
            Some((seconds, true)) => {
                let half = Us::from(seconds) * S / 2;
                if now + 20 * MS < self.since + half {
                    self.breaches.push(format!("{:?} though the session was refreshed in this interval", msg.verb));
                }
            }
            Some((_, false)) => self.breaches.push(format!("{:?} though the peer refreshes", msg.verb)),
            None => self.breaches.push(format!("{:?} without an interval", msg.verb)),
        }
    }

    /// Whether the server's numbers, written behind so many `blanks`, leave no room for more of sipst's: the next one and
    /// four of the server's must fit.
    pub(crate) fn is_full(&self, blanks: usize) -> bool {
        let width = self.own.to_string().len() + blanks;
        let limit = (10_u64.pow(u32::try_from(width).unwrap_or(12)) - 1).min(0x7fff_ffff);
        u64::from(self.wire.unwrap_or(0)) + 1 + 4 > limit
    }
}
