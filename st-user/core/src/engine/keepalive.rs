//! `keepalive`: while calls are up, translators and firewalls on the way are reminded of the flow between the server's address and the
//! peer's by empty lines from the server's own address and port. One flow has one timer, however many calls it carries; the least of
//! their periods counts, and what else leaves on the flow puts it off.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Mode, dialog::Dialog, hash::Secret, limits::TIMERS_PER_CALL, shared::Shared};
use crate::{Action, Direction, KeepAlive, Output, Packet, Rules, SessionId, Time, Transport};

/// How long one waits until it is known what another policy says of its calls.
const POLICY: Duration = Duration::from_millis(100);

/// The server's address and the peer's.
type Flow = (SocketAddr, SocketAddr);

/// What a dialog wants of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    period: Duration,
    /// Whether it is among those that the flow is kept open for; if not, there was no room.
    counts: bool,
}

/// A flow that is kept open.
#[derive(Debug)]
struct Kept {
    /// By which policy a dialog last wanted that ([`Shared::policy_number`]).
    policy: u16,
    /// How many of its dialogs want which period.
    periods: Vec<(Duration, usize)>,
    /// When something last left on it, where that is known.
    left: Option<Time>,
    /// Where it stands in the queue.
    due: Time,
    /// The dialog that says what it is sent with: the last that was made.
    by: SessionId,
    cookie: u64,
    tos: u8,
    ttl: u8,
}

impl Kept {
    fn period(&self) -> Option<Duration> {
        self.periods.iter().map(|(period, _)| *period).min()
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Keepalives {
    kept: HashMap<Flow, Kept, Secret>,
    queue: BTreeSet<(Time, Flow)>,
}

impl Keepalives {
    pub(super) fn new(secret: Secret) -> Self {
        Self { kept: HashMap::with_hasher(secret), queue: BTreeSet::new() }
    }

    /// When the first one is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// A packet was seen.
    pub(super) fn saw(&mut self, now: Time, packet: &Packet<'_>) {
        if packet.direction == Direction::Egress
            && packet.transport == Transport::Udp
            && !self.kept.is_empty()
            && let Some(kept) = self.kept.get_mut(&(packet.server, packet.peer))
        {
            kept.left = Some(now);
        }
    }

    fn put_off(&mut self, flow: Flow, until: Time) {
        if let Some(kept) = self.kept.get_mut(&flow) {
            self.queue.remove(&(kept.due, flow));
            kept.due = until;
            self.queue.insert((until, flow));
        }
    }
}

impl Shared {
    /// Sends what is due.
    pub(super) fn run_keepalives(&mut self) {
        for _ in 0..TIMERS_PER_CALL {
            let Some((_, flow)) = self.keepalives.queue.first().copied().filter(|(due, _)| *due <= self.now) else {
                return;
            };
            let kept = self.keepalives.kept.get_mut(&flow);
            let Some((period, kept)) = kept.and_then(|kept| Some((kept.period()?, kept))) else {
                self.keepalives.queue.pop_first();
                continue;
            };
            if kept.policy != self.policy_number {
                // There is another policy, and what that says of these calls is about to be seen.
                self.keepalives.put_off(flow, self.now + POLICY);
                continue;
            }
            if let Some(later) = kept.left.map(|left| left + period).filter(|later| *later > self.now) {
                self.keepalives.put_off(flow, later);
                continue;
            }
            kept.left = Some(self.now);
            let (server, peer) = flow;
            let keep_alive = KeepAlive { server, peer, cookie: kept.cookie, tos: kept.tos, ttl: kept.ttl };
            self.keepalives.put_off(flow, self.now + period);
            self.stats.keepalives += 1;
            self.output(Output::KeepAlive(keep_alive));
        }
    }

    /// Nobody was there for a while: those that would all be due at once are spread over their periods anew.
    pub(super) fn spread_keepalives(&mut self) {
        let flows: Vec<Flow> = self.keepalives.queue.iter().map(|(_, flow)| *flow).collect();
        for flow in flows {
            let Some(period) = self.keepalives.kept.get(&flow).and_then(Kept::period) else { continue };
            let due = self.now + self.random(Duration::ZERO, period);
            self.keepalives.put_off(flow, due);
        }
    }

    /// A dialog more on a flow; false where it is a new one and there is no room.
    fn keep_open(&mut self, flow: Flow, dialog: &Dialog, period: Duration) -> bool {
        if !self.keepalives.kept.contains_key(&flow) {
            if self.keepalives.len() >= self.limits.keepalives {
                return false;
            }
            let due = self.now + self.random(Duration::ZERO, period);
            let Dialog { id: by, cookie, tos, ttl, .. } = *dialog;
            let policy = self.policy_number;
            let kept = Kept { policy, periods: Vec::new(), left: None, due, by, cookie, tos, ttl };
            self.keepalives.kept.insert(flow, kept);
            self.keepalives.queue.insert((due, flow));
        }
        let Some(kept) = self.keepalives.kept.get_mut(&flow) else { return false };
        match kept.periods.iter_mut().find(|(known, _)| *known == period) {
            Some((_, dialogs)) => *dialogs += 1,
            None => kept.periods.push((period, 1)),
        }
        let soonest = self.now + period;
        if kept.due > soonest {
            self.keepalives.put_off(flow, soonest);
        }
        true
    }

    /// A dialog less.
    fn let_go(&mut self, flow: Flow, period: Duration) {
        let Some(kept) = self.keepalives.kept.get_mut(&flow) else { return };
        if let Some((_, dialogs)) = kept.periods.iter_mut().find(|(known, _)| *known == period) {
            *dialogs -= 1;
        }
        kept.periods.retain(|(_, dialogs)| *dialogs > 0);
        if kept.periods.is_empty() {
            self.keepalives.queue.remove(&(kept.due, flow));
            self.keepalives.kept.remove(&flow);
        }
    }
}

impl Dialog {
    fn flow(&self) -> Flow {
        (self.names.server, self.names.peer)
    }

    /// Has its flow kept open, or not any more, as it is now and its rules are.
    pub(super) fn keep_alive(&mut self, sx: &mut Shared, rules: &Rules) {
        let by_datagrams = !self.relayed && self.streamed.is_none();
        let is_up = !self.is_over() && by_datagrams && !self.held && sx.mode == Mode::Live;
        let period = rules.keeps_alive().filter(|_| is_up && self.is_confirmed(sx));
        let Some(period) = period else { return self.stop_keeping_alive(sx) };
        if self.keeps.is_some_and(|keeps| keeps.period != period) {
            self.stop_keeping_alive(sx);
        }
        if !self.keeps.is_some_and(|keeps| keeps.counts) {
            let counts = sx.keep_open(self.flow(), self, period);
            // Where it finds no room, it is counted once and tries again.
            sx.stats.refused_keepalives += u64::from(!counts && self.keeps.is_none());
            self.keeps = Some(Wanted { period, counts });
        }
        if let Some(kept) = sx.keepalives.kept.get_mut(&self.flow()) {
            kept.policy = sx.policy_number;
        }
        // The server's socket and marks, as the newest call on the flow has them.
        if let Some(kept) = sx.keepalives.kept.get_mut(&self.flow()).filter(|kept| kept.by <= self.id) {
            (kept.by, kept.cookie, kept.tos, kept.ttl) = (self.id, self.cookie, self.tos, self.ttl);
        }
    }

    /// Its flow need not be kept open any more on its account.
    pub(super) fn stop_keeping_alive(&mut self, sx: &mut Shared) {
        if let Some(Wanted { period, counts: true }) = self.keeps.take() {
            sx.let_go(self.flow(), period);
        }
    }
}

impl Rules {
    /// How often a flow with a call of these rules sees a packet of the server's at least: only where anything is sent.
    pub(super) fn keeps_alive(&self) -> Option<Duration> {
        self.keepalive.filter(|_| self.action == Action::Refresh)
    }
}
