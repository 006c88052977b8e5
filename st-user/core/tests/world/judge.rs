//! What must never be, judged at the host's edge: by the RFCs, from the packets on the wire and those that the engine was
//! shown, and by what the two ends themselves hold to be true. Nothing of the engine's own reckoning is in it.
//!
//! Does it bite? Each of these was tried in the engine by hand, and each fails within 1,500 calls: half of the repeated
//! ACKs not sent; a refresh at the end of the interval instead of its middle; no wait after a 491; uac and uas taken for
//! roles of the call (R14); a CSeq used twice; refreshes after the server's BYE; no `timer` in Supported; no regard for open
//! transactions; copies of a 2xx that start the interval anew (R16); the Min-SE of a 422 forgotten (R17); the Contact of the
//! peer's re-INVITE ignored (R24); `100rel` listed in a re-INVITE; a 200 to INFO that counts as a refresh.

mod answers;

use std::collections::{BTreeMap, BTreeSet};

use answers::Answers;
pub(crate) use answers::Word;

use super::{
    agent::{Agent, MS, S, Us},
    sip::{Expires, Msg, Role, Spelling, Verb},
};

/// The least wait after a 491 of whoever owns the Call-ID (RFC 3261, section 14.1).
const OWNERS_WAIT: Us = 2_100 * MS;

/// How long a request of the peer's is waited for to which the server does not say a word: anybody can send one, and a
/// whole transaction is longer than some intervals have room for. A re-INVITE that meets it gets 491.
const SILENCE: Us = 8 * S;

/// How long before the peer's own refresh sipst sends one where it takes that over, at the latest.
const AHEAD: Us = 40 * S;

/// A transaction as the engine was shown it.
#[derive(Clone, Debug)]
struct Seen {
    since: Us,
    branch: String,
    verb: Verb,
    by_server: bool,
    number: u32,
    /// Whether sipst began it.
    ours: bool,
    /// A 2xx or another final response.
    status: Option<u16>,
    /// When that was shown.
    until: Us,
    acked: bool,
    /// Whether it began before the dialog was there: no refresh, unless nothing else is known.
    early: bool,
}

impl Seen {
    /// Whether it is over by what was shown.
    fn is_over(&self) -> bool {
        self.acked || self.status.is_some() && self.verb != Verb::Invite
    }
}

/// One call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judge {
    /// What must never be.
    pub(crate) breaches: Vec<String>,
    /// Numbers that went down, came twice, or changed.
    pub(crate) stale: Vec<String>,
    /// The highest number on the wire in each dialog, by the peer's tag, and the highest that the server wrote itself.
    wire: BTreeMap<String, u32>,
    own: u32,
    sent: BTreeMap<(String, Verb), u32>,
    shown: Vec<Seen>,
    /// A 2xx to an INVITE was shown.
    established: bool,
    /// It was being set up when the daemon was killed: nothing of that is written down.
    pub(crate) cut_short: bool,
    /// Interval, whether the server refreshes, and since when.
    pub(crate) agreed: Option<(u32, bool)>,
    pub(crate) since: Us,
    /// Whether the last 2xx belongs to one of two refreshes of both sides that crossed: which of the two came last is another
    /// one at either end, and both are right.
    pub(crate) crossed: bool,
    /// Contact in the last 2xx to sipst: the server knows nothing of it.
    contact: Option<String>,
    /// The highest Min-SE that the peer has named (R17).
    min_se: u32,
    /// When it answered 491 to sipst, and to what: what is tried once more has to wait.
    glared: Option<(Us, Verb)>,
    /// sipst has had to act since the server last refreshed.
    helped: bool,
    /// One of its requests is not known to the new daemon: the next one may come early.
    repeats: bool,
    /// The branches of requests of sipst's that it has answered so.
    turned: BTreeSet<String>,
    /// The peer has said that it knows nothing of the dialog: it minds no numbers in it.
    dismissed: bool,
    /// A BYE has ended it.
    over: bool,
    /// ACKs that sipst owes for 2xx that it was shown.
    owed: BTreeMap<u32, i64>,
    pub(crate) injected: u32,
    /// Whether the operator has sipst refresh where the peer has to.
    takes_over: bool,
    /// The server has turned a refresh of the peer's down in this interval, or said nothing to it for a while.
    turned_down: bool,
    answers: Answers,
}

/// What an injection is judged by.
pub(crate) struct Ends<'a> {
    pub(crate) server: &'a Agent,
    pub(crate) peer: &'a Agent,
    /// Whether the engine or the server has missed something that the other one saw.
    pub(crate) blind: bool,
}

impl Judge {
    /// `takes_over`: whether the operator has sipst refresh where the peer has to.
    pub(crate) fn new(takes_over: bool) -> Self {
        Self { takes_over, ..Self::default() }
    }

    /// A packet has left the host: no number goes down or comes twice (RFC 3261, section 12.2.1.1).
    pub(crate) fn left(&mut self, msg: &Msg) {
        if !msg.is_request() || self.dismissed {
            return;
        }
        if msg.is_ours() && msg.verb == Verb::Ack {
            *self.owed.entry(msg.number).or_default() -= 1;
        }
        let known = self.sent.insert((msg.branch().into(), msg.verb), msg.number);
        if let Some(known) = known {
            if known != msg.number {
                self.stale.push(format!("{:?} {known} came again as {}", msg.verb, msg.number));
            }
            return;
        }
        if matches!(msg.verb, Verb::Ack | Verb::Cancel) {
            let of_invite =
                |((_, verb), number): (&(String, Verb), &u32)| *verb == Verb::Invite && *number == msg.number;
            if !self.sent.iter().any(of_invite) {
                self.stale.push(format!("{:?} {} is for no INVITE", msg.verb, msg.number));
            }
            return;
        }
        let tag = msg.to.tag.clone().unwrap_or_default();
        // Whatever came before there was a dialog counts in each that comes of it.
        let high = [&tag, ""].into_iter().filter_map(|tag| self.wire.get(tag)).max().copied();
        if let Some(high) = high.filter(|high| msg.number <= *high) {
            self.stale.push(format!("{:?} {} after {high}, sipst's: {}", msg.verb, msg.number, msg.is_ours()));
        }
        self.wire.insert(tag, high.max(Some(msg.number)).unwrap_or(0));
    }

    /// The server writes a number of its own.
    pub(crate) fn wrote(&mut self, number: u32) {
        self.own = self.own.max(number);
    }

    /// The engine is shown a packet of the dialog that was kept.
    pub(crate) fn shown(&mut self, now: Us, msg: &Msg, from_server: bool) {
        let by_server = if msg.is_request() { from_server } else { !from_server };
        let agrees = matches!(msg.verb, Verb::Invite | Verb::Update);
        if msg.verb == Verb::Ack {
            let acked = self.shown.iter_mut().filter(|seen| seen.verb == Verb::Invite && seen.by_server == by_server);
            return acked.filter(|seen| seen.number == msg.number).for_each(|seen| seen.acked = true);
        }
        // What was said before there was a dialog is forgotten with it (R17), and so are later copies of it.
        let within = msg.status == 422 || (msg.is_request() && msg.to.tag.is_some());
        if self.established && !from_server && agrees && within {
            self.min_se = self.min_se.max(msg.min_se.unwrap_or(0));
        }
        if msg.is_ours() && msg.verb == Verb::Invite && (200..300).contains(&msg.status) {
            // R32: each copy has its ACK.
            *self.owed.entry(msg.number).or_default() += 1;
        }
        if msg.is_ours() && (200..300).contains(&msg.status) {
            self.contact.clone_from(&msg.contact);
        }
        self.dismissed |= !from_server && msg.status == 481;
        if msg.is_ours() && msg.status == 491 && self.turned.insert(msg.branch().into()) {
            self.glared = Some((now, msg.verb));
        }
        if !agrees && msg.verb != Verb::Bye {
            return;
        }
        // Whose beginning went by unseen, that has to be asked for.
        self.over |= msg.verb == Verb::Bye && from_server && msg.is_request();
        let of = |seen: &&mut Seen| seen.by_server == by_server && seen.verb == msg.verb && seen.branch == msg.origin();
        let Some(seen) = self.shown.iter_mut().find(of) else {
            if msg.is_request() {
                self.shown.push(Seen {
                    since: now,
                    branch: msg.origin().into(),
                    verb: msg.verb,
                    by_server,
                    number: msg.number,
                    ours: msg.is_ours(),
                    status: None,
                    until: Us::MAX,
                    // What sipst began itself is its own affair.
                    acked: msg.is_ours(),
                    early: msg.to.tag.is_some() && !self.established,
                });
            }
            return;
        };
        if msg.status >= 200 && seen.status.is_none() {
            (seen.status, seen.until) = (Some(msg.status), now);
            let began = seen.since;
            self.over |= msg.verb == Verb::Bye && msg.status < 300;
            self.turned_down |= agrees && !by_server && msg.status >= 300;
            if agrees && msg.status < 300 && (!seen.early || self.agreed.is_none()) {
                self.established = true;
                self.turned_down = false;
                self.helped = self.helped && (msg.is_ours() || !by_server);
                self.since = now;
                let refreshes = |other: &Seen| matches!(other.verb, Verb::Invite | Verb::Update);
                let crosses = |other: &Seen| other.by_server != by_server && refreshes(other) && other.until > began;
                self.crossed = self.shown.iter().any(crosses);
                if let Some(Expires { seconds, refresher }) = msg.expires {
                    let uac = refresher != Some(Role::Uas);
                    self.agreed = Some((seconds, uac == by_server));
                }
            }
        }
    }

    /// What was shown since `before` is forgotten: the daemon was killed, and had not written it down.
    pub(crate) fn forget(&mut self, before: Self) {
        let now = std::mem::replace(self, before);
        let Self { breaches, stale, wire, own, sent, dismissed, owed, injected, answers, .. } = now;
        let helped = self.helped || now.helped;
        self.cut_short |= !self.established && !self.shown.is_empty();
        let before = std::mem::take(self);
        let mut answers = answers;
        answers.begin_anew();
        *self = Self { breaches, stale, wire, own, sent, dismissed, owed, injected, answers, helped, ..before };
    }

    /// A request of sipst's that had left is not known to the daemon that goes on.
    pub(crate) fn forgets_own(&mut self) {
        self.repeats = true;
    }

    /// The engine has a refresh sent. Whether the peer would have had to.
    pub(crate) fn injects(&mut self, now: Us, msg: &Msg, ends: &Ends<'_>) -> bool {
        self.injected += 1;
        let taken = self.takes_over && self.agreed.is_some_and(|(_, server)| !server);
        if ends.blind && msg.to.tag != ends.server.remote_tag {
            // The BYE to a fork went by unseen: that has to be asked for.
            return taken;
        }
        let repeats = std::mem::take(&mut self.repeats);
        let breach = [
            self.outside_its_time(now).filter(|_| !repeats),
            self.beside_the_server(now, ends.server),
            self.inside_a_transaction(now, msg, ends),
            self.says_wrong(now, msg, ends),
        ];
        self.breaches.extend(breach.into_iter().flatten().map(|why| format!("{:?} {}: {why}", msg.verb, msg.number)));
        self.glared = None;
        self.helped = true;
        taken
    }

    fn outside_its_time(&self, now: Us) -> Option<String> {
        let Some((seconds, server)) = self.agreed else { return Some("there is no interval".into()) };
        let half = Us::from(seconds) * S / 2;
        // Where the peer is to refresh by then, a transaction and a little more is left before that.
        let (taken, share) = (!server && self.takes_over, Us::from(seconds) * S * 2 / 5);
        let from = if taken { share.min(half.saturating_sub(AHEAD)) } else { half };
        // A packet of the very moment may not have been read.
        let early = now + 20 * MS < self.since + from && !(taken && self.is_turned_down(now, seconds));
        match () {
            () if self.over => Some("the call is over".into()),
            () if !server && !taken => Some("the peer has to refresh".into()),
            () if early => Some("the session was refreshed in this half of the interval".into()),
            () => None,
        }
    }

    /// Whether a refresh of the peer's has come to nothing in this interval.
    fn is_turned_down(&self, now: Us, seconds: u32) -> bool {
        let patience = SILENCE.min(Us::from(seconds) * S / 3);
        let ignored = |seen: &Seen| {
            let refreshes = !seen.by_server && matches!(seen.verb, Verb::Invite | Verb::Update);
            refreshes && seen.status.is_none() && seen.since >= self.since && seen.since + patience <= now
        };
        self.turned_down || self.shown.iter().any(ignored)
    }

    /// A refresh is not sent by both: one that refreshes by itself has its chance.
    fn beside_the_server(&self, now: Us, server: &Agent) -> Option<String> {
        // One that has let an interval pass is not waited for again.
        if self.helped {
            return None;
        }
        let same_interval = server.since.abs_diff(self.since) < S;
        // Where the peer's 2xx said nothing (R12), the server goes on with what it asked for, and nobody has agreed to that.
        let asked = server.timer.map(|timer| timer.seconds);
        if server.alone && asked != self.agreed.map(|(seconds, _)| seconds) {
            return None;
        }
        let due = server.first_due.filter(|at| *at > now && same_interval && server.is_up())?;
        Some(format!("the server is about to refresh by itself, at {due}"))
    }

    /// RFC 3261, section 14.1; RFC 3311, section 5.1. What began is known from what was shown; whether it goes on, from
    /// the end in question.
    fn inside_a_transaction(&self, now: Us, msg: &Msg, Ends { server, peer, blind }: &Ends<'_>) -> Option<String> {
        let open = |seen: &&Seen| match seen.by_server {
            true => server.is_asking(now, seen.verb, &seen.branch),
            false if server.is_answering(now, seen.verb, &seen.branch) => true,
            // The server never got it, or passes it over; the peer does not know that.
            false => {
                let waited_for = seen.verb == Verb::Invite && now < seen.since + SILENCE;
                waited_for && msg.verb == Verb::Invite && peer.is_asking(now, seen.verb, &seen.branch)
            }
        };
        let Seen { verb, number, by_server, .. } = self.shown.iter().filter(|seen| !seen.is_over()).find(open)?;
        let whose = if *by_server { "server" } else { "peer" };
        (!blind).then(|| format!("inside {verb:?} {number} of the {whose}'s"))
    }

    /// R14, R17 to R19, R22 to R24, R30.
    fn says_wrong(&self, now: Us, msg: &Msg, Ends { server, blind, .. }: &Ends<'_>) -> Option<String> {
        if *blind {
            return None;
        }
        let (seconds, _) = self.agreed?;
        let glared = self.glared.filter(|(_, verb)| server.caller && *verb == msg.verb);
        let expires = msg.expires.filter(|expires| expires.refresher == Some(Role::Uac));
        let body_fits = if msg.verb == Verb::Invite { msg.body == server.sdp } else { msg.body.is_empty() };
        let checks = [
            (expires.is_none_or(|expires| expires.seconds < seconds), "its Session-Expires"),
            (!msg.supports_timer, "timer is not in Supported"),
            // RFC 3262: it would owe PRACKs.
            (msg.verb == Verb::Invite && msg.supports_reliable, "100rel is in Supported"),
            (msg.min_se.unwrap_or(0) < self.min_se, "its Min-SE"),
            (msg.to.tag != server.remote_tag || msg.from.tag.as_ref() != Some(&server.tag), "its tags"),
            (msg.uri != server.target && self.contact.as_ref() != Some(&msg.uri), "its Request-URI"),
            (msg.routes != server.routes, "its routes"),
            (!body_fits, "its body is not the server's last SDP"),
            (glared.is_some_and(|(at, _)| now < at + OWNERS_WAIT), "too soon after a 491"),
        ];
        let (_, what) = checks.into_iter().find(|(wrong, _)| *wrong)?;
        Some(format!("{what}: {msg:?}"))
    }

    /// What it owes in the end.
    pub(crate) fn last_breach(&self) -> Option<String> {
        let (number, times) = self.owed.iter().find(|(_, times)| **times > 0)?;
        Some(format!("{times} copies of the 2xx to INVITE {number} had no ACK"))
    }

    /// Whether the server's numbers leave no room for more of sipst's: the next one and four of the server's must fit into
    /// their digits, the blanks that it writes, and four more where its requests can become longer. Where there is no blank at
    /// all, the numbers below the next digit have no room, and are kept a thousand away.
    pub(crate) fn is_full(&self, spelling: Spelling) -> bool {
        // What it writes is not known before it has written anything.
        let added = if spelling.long || self.own == 0 { 0 } else { 4 };
        let width = self.own.to_string().len() + spelling.cseq.matches(' ').count() + added;
        let limit = (10_u64.pow(u32::try_from(width).unwrap_or(12)) - 1).min(0x7fff_ffff);
        let high = self.wire.values().max().copied().unwrap_or(0);
        let reserve = if width == self.own.to_string().len() && self.own > 0 { 1_000 } else { 4 };
        u64::from(high) + 1 + reserve > limit
    }
}
