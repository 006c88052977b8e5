//! What all sessions of an engine share: time, policy, timers, outputs, memory of peers.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::{
    EngineConfig, Mode,
    bounded::Bounded,
    demand::Demands,
    gate::Gate,
    habits::Habit,
    hash::{Fingerprint, Secret},
    keepalive::Keepalives,
    limits::{Limits, Stats},
    reason,
    target::OwnHeaders,
    timers::{Timers, Together},
};
use crate::{Event, EventKind, Output, Policy, SessionId, Time};

/// How long the same limit is not told again.
const LIMIT_PAUSE: Duration = Duration::from_secs(60);

/// What was learnt about a peer's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ways {
    /// It does not take UPDATE (F7).
    pub(super) no_update: bool,
    /// Its last UPDATE had no answer, and a re-INVITE had one: it swallows them, or a packet was lost.
    pub(super) silent_update: bool,
    /// Its answers move the media (F9).
    pub(super) moves_media: bool,
}

pub(super) struct Shared {
    pub(super) mode: Mode,
    pub(super) policy: Arc<Policy>,
    /// Another one for each policy: what was found out by which.
    pub(super) policy_number: u16,
    pub(super) limits: Limits,
    pub(super) secret: Secret,
    pub(super) now: Time,
    pub(super) timers: Timers,
    /// When requests of ours that are over are taken off the record.
    pub(super) retiring: Together,
    /// When refreshes may leave.
    pub(super) gate: Gate,
    pub(super) stats: Stats,
    /// What holds flows open.
    pub(super) keepalives: Keepalives,
    /// Tokens of requests of ours, ACKs included.
    pub(super) tokens: HashMap<u64, SessionId, Secret>,
    pub(super) peers: Bounded<SocketAddr, Ways, Secret>,
    /// The fewest spaces that a server was seen to write before its CSeq numbers.
    pub(super) servers: Bounded<SocketAddr, u8, Secret>,
    /// What becomes of peers' refreshes.
    pub(super) habits: Bounded<Fingerprint, Habit, Secret>,
    /// When servers were last heard of; the one that was last heard is not among them.
    heard: Bounded<SocketAddr, Time, Secret>,
    /// The server that was last heard of, and when.
    last_heard: Option<(SocketAddr, Time)>,
    /// Shift entries that the kernel has been given, and by how many dialogs each is needed: forks of one INVITE have one together.
    pub(super) entries: HashMap<Fingerprint, u32, Secret>,
    /// Media flows that are watched, and by how many dialogs.
    pub(super) flows: HashMap<SocketAddr, u32, Secret>,
    /// What the server that was last heard writes in its own name: most dialogs have the same.
    pub(super) own_headers: OwnHeaders,
    /// When an outage was over, if there was one.
    pub(super) resumed: Time,
    /// How often packets were lost.
    pub(super) losses: u64,
    /// When they last were.
    pub(super) lost: Time,
    /// When something went by unseen on a connection with a peer of this address.
    unheard: Bounded<IpAddr, Time, Secret>,
    /// The same of any connection.
    unheard_anywhere: Option<Time>,
    /// Until when some media may have gone by unseen.
    pub(super) blind: Time,
    /// Replay: whether any answer to a request of ours was in the capture.
    pub(super) has_answers: bool,
    /// Whether it was told that there are none.
    pub(super) told_capture_on_host: bool,
    /// The server of whom that was last looked up, and what it is.
    last_server: Option<(SocketAddr, u8)>,
    told_limits: Vec<(&'static str, Time)>,
    /// What was told of calls that come to nothing for want of session timers, by trunk.
    pub(super) demands: Demands,
    /// Trunks whose INVITEs are let be, whatever their rules say.
    pub(super) unassisted: HashSet<String>,
    /// Whether what is being read was one of several datagrams as one packet.
    pub(super) joined: bool,
    /// Cookies of the servers' sockets that have sent such packets.
    pub(super) joining: Bounded<u64, (), Secret>,
    /// Whether what all sessions have in common has changed since it was last written.
    pub(super) changed: bool,
    outputs: VecDeque<Output>,
    rng: StdRng,
}

/// The earlier of two moments, where there are any.
fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    one.zip(other).map(|(one, other)| one.min(other)).or(one).or(other)
}

impl Shared {
    pub(super) fn new(config: EngineConfig, secret: Secret) -> Self {
        let EngineConfig { policy, mode, seed, limits } = config;
        Self {
            mode,
            gate: Gate::new(limits.waiting, policy.refresh_rate),
            keepalives: Keepalives::new(secret),
            policy,
            policy_number: 0,
            limits,
            secret,
            now: Time::from_micros(0),
            timers: Timers::default(),
            retiring: Together::default(),
            stats: Stats::default(),
            tokens: HashMap::with_hasher(secret),
            peers: Bounded::new(limits.remembered, secret),
            servers: Bounded::new(limits.remembered, secret),
            habits: Bounded::new(limits.remembered, secret),
            heard: Bounded::new(limits.remembered, secret),
            last_heard: None,
            entries: HashMap::with_hasher(secret),
            flows: HashMap::with_hasher(secret),
            own_headers: OwnHeaders::default(),
            resumed: Time::from_micros(0),
            losses: 0,
            lost: Time::from_micros(0),
            unheard: Bounded::new(limits.remembered, secret),
            unheard_anywhere: None,
            blind: Time::from_micros(0),
            has_answers: false,
            told_capture_on_host: false,
            last_server: None,
            told_limits: Vec::new(),
            demands: Demands::default(),
            unassisted: HashSet::new(),
            joined: false,
            joining: Bounded::new(limits.remembered, secret),
            changed: true,
            outputs: VecDeque::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    pub(super) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// What is to be done at once, if anything.
    pub(super) fn take_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The same, or until when there is nothing to be done.
    pub(super) fn poll(&mut self) -> Output {
        self.take_output().unwrap_or_else(|| {
            let others = earlier(self.gate.next(), self.keepalives.next());
            Output::Timeout(earlier(self.timers.next(), others))
        })
    }

    /// Tells what concerns no one dialog.
    pub(super) fn tell(&mut self, kind: EventKind, reason: String) {
        let event = Event { reason: Some(reason.into()), ..Event::new(self.now, kind) };
        self.output(Output::Event(event));
    }

    /// Tells that a limit was reached.
    pub(super) fn tell_limit(&mut self, name: &'static str, limit: usize) {
        let now = self.now;
        match self.told_limits.iter_mut().find(|(told, _)| *told == name) {
            Some((_, at)) if now.since(*at) < LIMIT_PAUSE => return,
            Some((_, at)) => *at = now,
            None => self.told_limits.push((name, now)),
        }
        self.tell(
            EventKind::CaptureLoss,
            format!("{}: {name} ({limit}) reached, the calls beyond it are not watched", reason::LIMIT),
        );
    }

    /// A token that no live request has.
    pub(super) fn token(&mut self, session: SessionId) -> u64 {
        loop {
            let token = self.rng.random();
            if token != 0 && !self.tokens.contains_key(&token) {
                self.tokens.insert(token, session);
                return token;
            }
        }
    }

    /// Takes a token off the record.
    pub(super) fn retire(&mut self, token: u64) {
        if self.tokens.remove(&token).is_some() && self.mode == Mode::Live {
            self.output(Output::Retire { token });
        }
    }

    /// A random time of whole units of 10 ms in `from..=to` (R30).
    pub(super) fn random(&mut self, from: Duration, to: Duration) -> Duration {
        let units = |time: Duration| u64::try_from(time.as_millis() / 10).unwrap_or(u64::MAX);
        Duration::from_millis(self.rng.random_range(units(from)..=units(to.max(from))) * 10)
    }

    /// A random word for a digest.
    pub(super) fn word(&mut self) -> String {
        format!("{:016x}", self.rng.random::<u64>())
    }

    pub(super) fn ways(&self, peer: SocketAddr) -> Ways {
        self.peers.get(&peer).copied().unwrap_or_default()
    }

    pub(super) fn remember(&mut self, peer: SocketAddr, learn: impl FnOnce(&mut Ways)) {
        if let Some(ways) = self.peers.touch(peer, Ways::default) {
            let before = *ways;
            learn(ways);
            self.changed |= *ways != before;
        }
    }

    /// How many peers, servers and habits had to go because of [`Limits::remembered`].
    pub(super) fn evicted_remembered(&self) -> u64 {
        self.peers.evicted()
            + self.servers.evicted()
            + self.habits.evicted()
            + self.heard.evicted()
            + self.joining.evicted()
    }

    /// Something went by unseen on a connection.
    pub(super) fn unheard_from(&mut self, peer: Option<IpAddr>) {
        match peer {
            Some(peer) if self.unheard.len() < self.limits.remembered || self.unheard.get(&peer).is_some() => {
                self.unheard.insert(peer, self.now);
            }
            // One that is not remembered by itself.
            Some(_) | None => self.unheard_anywhere = Some(self.now),
        }
    }

    /// Whether anything has on one with this peer since then, or in that moment.
    pub(super) fn is_unheard_since(&self, peer: IpAddr, since: Time) -> bool {
        self.unheard.get(&peer).copied().max(self.unheard_anywhere).is_some_and(|at| at >= since)
    }

    /// A server has sent something in a dialog.
    pub(super) fn hear_server(&mut self, server: SocketAddr) {
        // It has sent most messages of late.
        if let Some((last, at)) = self.last_heard.replace((server, self.now)).filter(|(last, _)| *last != server) {
            self.heard.insert(last, at);
        }
    }

    /// When it last did; long ago where that is not known.
    pub(super) fn server_heard(&self, server: SocketAddr) -> Time {
        let last = self.last_heard.filter(|(last, _)| *last == server).map(|(_, at)| at);
        last.or_else(|| self.heard.get(&server).copied()).unwrap_or(Time::from_micros(0))
    }

    pub(super) fn remember_spaces(&mut self, server: SocketAddr, spaces: u8) {
        // It has sent most messages of late.
        if self.last_server.is_some_and(|(last, fewest)| last == server && fewest <= spaces) {
            return;
        }
        let fewest = self.servers.get(&server).copied();
        if fewest.is_none_or(|fewest| spaces < fewest) {
            self.servers.insert(server, spaces);
            self.changed = true;
        }
        self.last_server = Some((server, fewest.map_or(spaces, |fewest| fewest.min(spaces))));
    }
}
