//! The daemon's loop around the engine: it reads the ring, keeps the deadlines, arms and sends, late now and then.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    ops::Range,
    sync::Arc,
};

use rand::RngExt as _;
use st_core::{
    Arm, Command, Datagram, Direction, Engine, Event, Inject, MediaSeen, Output, Packet, Refusal, SessionId, Time,
    engine::{EngineConfig, Limits, Mode},
};

use super::{
    agent::{Act, Agent, MS, S, Us},
    disk::Disk,
    faults::Fault,
    judge::{Ends, Judge, Word},
    kernel::{Kernel, Record, SERVERS_COOKIE, SIPSTS_COOKIE},
    plan::Plan,
    sip::{Msg, Verb},
    trunk::Trunk,
    world::{Call, SILENT, World},
};

/// When the world began.
const EPOCH: Us = 1_800_000_000 * S;

/// Outputs of one call of the engine's, at most.
const MOST_OUTPUTS: usize = 200;

pub(crate) fn time(at: Us) -> Time {
    Time::from_micros(EPOCH + at)
}

pub(crate) struct Driver {
    pub(crate) engine: Engine,
    pub(crate) events: Vec<Event>,
    pub(crate) watched: bool,
    pub(crate) config: EngineConfig,
    /// What it has written down, and what it was shown since.
    pub(crate) disk: Disk,
    pub(crate) unwritten: Vec<Record>,
    pub(crate) judges: Vec<Judge>,
    /// The end of its last turn.
    pub(crate) turned: Us,
    /// Stalls at whose end it will have been killed.
    pub(crate) stalls_to_die: Vec<usize>,
    /// Whether it was killed, and when another one is there.
    pub(crate) killed: Option<Us>,
    pub(crate) died: Us,
    /// When there was none.
    pub(crate) away: Vec<Range<Us>>,
    /// When it last gave a sign of life.
    pub(crate) beat: Us,
    pub(crate) wake: Option<Us>,
    /// When it will have noticed the ring.
    pub(crate) reads: Option<Us>,
    pub(crate) arming: VecDeque<Arm>,
    /// Losses that it has told the engine.
    pub(crate) told: usize,
    /// When it looks at the counters.
    pub(crate) tick: Option<Us>,
    pub(crate) slept: bool,
    /// Stalls that have held it up.
    stalled: BTreeSet<usize>,
}

impl Driver {
    pub(crate) fn new(plan: &Plan, watched: bool) -> Self {
        let policy = Arc::new(Trunk::policy());
        let seed = plan.seed;
        // What lasts is packed, however little there is.
        let limits = Limits { unpacked: 0, ..Limits::default() };
        let config = EngineConfig { policy, mode: Mode::Live, seed, limits };
        let mut engine = Engine::new(config.clone());
        engine.follow_changes();
        Self {
            engine,
            config,
            disk: Disk::default(),
            unwritten: Vec::new(),
            judges: Vec::new(),
            turned: 0,
            stalls_to_die: Vec::new(),
            killed: None,
            died: 0,
            away: Vec::new(),
            beat: 0,
            events: Vec::new(),
            watched,
            wake: None,
            reads: None,
            arming: VecDeque::new(),
            told: 0,
            tick: None,
            slept: false,
            stalled: BTreeSet::new(),
        }
    }
}

/// A packet as the ring has it.
fn packet<'a>(direction: Direction, server: &Agent, peer: SocketAddr, cookie: u64, bytes: &'a [u8]) -> Packet<'a> {
    let server = server.host.parse().expect("an address");
    let transport = st_core::Transport::Udp;
    Packet { direction, server, peer, transport, interface: 2, tos: 0, ttl: 64, cookie, truncated: false, bytes }
}

impl World {
    pub(crate) fn driver_due(&mut self) -> Option<Us> {
        if !self.driver.watched {
            self.kernel.ring.clear();
            return None;
        }
        if !self.kernel.ring.is_empty() && self.driver.reads.is_none() {
            let sleeps = self.rng.random_bool(f64::from(self.plan.weather.sleepy) / 100.0);
            let after = if sleeps { self.rng.random_range(MS..500 * MS) } else { self.rng.random_range(20..2 * MS) };
            self.driver.reads = Some(self.now + after);
            if sleeps {
                self.driver.slept = true;
            }
        }
        if self.kernel.lost.len() > self.driver.told && self.driver.tick.is_none() {
            self.driver.tick = Some(self.now + S);
        }
        let due = [self.driver.reads, self.driver.wake, self.driver.tick].into_iter().flatten().min()?;
        let at = due.max(self.driver.killed.unwrap_or(0)).max(self.now);
        let Some(stall) = self.plan.weather.stalls.iter().position(|stall| stall.contains(&at)) else {
            return Some(due.max(self.driver.killed.unwrap_or(0)));
        };
        if self.driver.stalled.insert(stall) {
            if self.plan.kills(stall) {
                self.driver.stalls_to_die.push(stall);
            } else {
                self.calls_on(Fault::DaemonStalled);
            }
        }
        Some(self.plan.weather.stalls[stall].end)
    }

    /// One turn of the daemon's loop.
    pub(crate) fn turn(&mut self) {
        self.driver.reads = None;
        self.begin_anew();
        if std::mem::take(&mut self.driver.slept) {
            self.overslept();
        }
        self.drain();
        if self.driver.wake.is_some_and(|at| at <= self.now) {
            self.driver.wake = None;
            self.driver.engine.handle_timeout(time(self.now));
            self.outputs();
        }
        let mut arms = 0;
        while let Some(arm) = self.driver.arming.pop_front() {
            arms += 1;
            assert!(arms <= MOST_OUTPUTS, "{arms} times the same is asked for: {arm:?}");
            let index = self.index_of(std::str::from_utf8(&arm.tag));
            self.race(index, Fault::RaceEntry);
            let prepared = self.prepare(&arm, index);
            self.race(index, Fault::RaceRead);
            // What the numbers tell of stands in the ring by now; what comes later moves them.
            let result = prepared.and_then(|key| self.kernel.state(key));
            self.race(index, Fault::RaceDrain);
            self.drain();
            self.unseen();
            self.remark(&format!("c{index} armed: {result:?}"));
            self.race(index, Fault::RaceDrained);
            self.command(Command::Armed { session: arm.session, side: arm.side, result });
            if let Ok(key) = prepared
                && !self.driver.engine.follows(arm.side, &arm.call_id, &arm.tag)
            {
                self.kernel.disarm(key);
            }
        }
        if self.driver.tick.is_some_and(|at| at <= self.now) {
            self.driver.tick = None;
            self.unseen();
        }
        self.write_down();
    }

    /// What was in the ring waited for the daemon to wake up.
    fn overslept(&mut self) {
        let waited = self.kernel.ring.iter().filter_map(Record::bytes);
        let waited = waited.map(|bytes| self.index_of(Msg::read(bytes).tags()));
        for index in waited.collect::<BTreeSet<_>>() {
            self.meets(index, Fault::DaemonSlept);
        }
    }

    fn prepare(&mut self, arm: &Arm, index: usize) -> Result<st_ebpf::key::DialogKey, Refusal> {
        if self.calls[index].server.is_gone() {
            self.meets(index, Fault::ServerGone);
            return Err(Refusal::ServerGone);
        }
        self.kernel.arm(arm)
    }

    fn unseen(&mut self) {
        let packets = self.kernel.lost.len() - self.driver.told;
        self.driver.told = self.kernel.lost.len();
        if packets > 0 {
            self.spoilt = Some(self.now);
            self.command(Command::Loss { packets: packets as u64 });
        }
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.driver.engine.handle_command(time(self.now), command);
        self.outputs();
    }

    pub(crate) fn drain(&mut self) {
        while let Some(record) = self.kernel.ring.pop_front() {
            self.driver.unwritten.push(record.clone());
            match record {
                Record::Seen { at, direction, peer, cookie, bytes } => self.show(at, direction, peer, cookie, &bytes),
                Record::Held { at, peer, bytes } => self.show_held(at, peer, &bytes),
                Record::Refused { token, refusal } => {
                    self.kernel.retire(token);
                    self.remark(&format!("{token:x} refused: {refusal:?}"));
                    self.command(Command::Refused { token, refusal });
                }
            }
        }
    }

    /// A refusal that was held back.
    fn show_held(&mut self, at: Us, peer: SocketAddr, bytes: &[u8]) {
        let index = self.index_of(Msg::read(bytes).tags());
        let packet = packet(Direction::Egress, &self.calls[index].server, peer, SERVERS_COOKIE, bytes);
        if self.now - at <= SILENT {
            self.driver.engine.handle_held(time(at), &packet);
            return self.outputs();
        }
        // Nobody was there in time.
        let datagram = Datagram::of(&packet);
        self.driver.engine.handle_passed(time(at), &packet);
        self.outputs();
        self.send(&datagram);
    }

    fn show(&mut self, at: Us, direction: Direction, peer: SocketAddr, cookie: u64, bytes: &[u8]) {
        let egress = direction == Direction::Egress;
        let msg = Msg::read(bytes);
        let index = self.index_of(msg.tags());
        let call = &mut self.calls[index];
        let theirs = if egress == msg.is_request() { &msg.to.tag } else { &msg.from.tag };
        // What goes on between the server and a fork that it does not keep concerns nobody.
        if theirs.is_none() || call.server.remote_tag.is_none() || *theirs == call.server.remote_tag {
            call.judge.shown(at, &msg, egress);
        }
        let packet = packet(direction, &self.calls[index].server, peer, cookie, bytes);
        self.driver.engine.handle_packet(time(at), &packet);
        self.outputs();
    }

    /// Does what the engine wants; what has to be armed waits until the engine is at rest.
    pub(crate) fn outputs(&mut self) {
        for _ in 0..MOST_OUTPUTS {
            match self.driver.engine.poll_output() {
                Output::Event(event) => {
                    self.remark(&format!("{:?} {:?}", event.kind, event.reason));
                    self.driver.events.push(event);
                }
                Output::Arm(arm) => self.driver.arming.push_back(arm),
                Output::Inject(inject) => self.inject(&inject),
                Output::Mark(mark) => self.kernel.mark(self.now, &mark),
                Output::Unmark { call_id, tag } => self.kernel.unmark(&call_id, &tag),
                Output::Weigh { session, media } => {
                    self.look(session, &media);
                    self.driver.engine.handle_command(time(self.now), Command::Weighed { session });
                }
                Output::Send(datagram) => self.send(&datagram),
                // No trunk has `assist` or `keepalive`.
                output @ (Output::KeepAlive(_) | Output::StopAssisting { .. }) => panic!("{output:?}"),
                Output::Watch { flow } => assert!(self.kernel.flows.insert(flow), "watched twice: {flow}"),
                Output::Unwatch { flow } => assert!(self.kernel.flows.remove(&flow), "not watched: {flow}"),
                Output::Look { session, media } => self.look(session, &media),
                Output::Retire { token } => self.kernel.retire(token),
                Output::Disarm { call_id, tag, left, .. } => match Kernel::key(&call_id, &tag) {
                    Some(key) if left => self.kernel.leave(key),
                    Some(key) => self.kernel.disarm(key),
                    None => {}
                },
                Output::Timeout(at) => {
                    let now = time(self.now);
                    if at.is_none_or(|at| at > now) {
                        crate::census::agrees(&mut self.driver.engine, now);
                    }
                    self.driver.wake = at.map(|at| (at.as_micros() - EPOCH).max(self.now));
                    // What is to be armed is not left until the next packet.
                    if !self.driver.arming.is_empty() {
                        self.driver.reads = self.driver.reads.or(Some(self.now));
                    }
                    return;
                }
            }
        }
        panic!("more than {MOST_OUTPUTS} outputs at once: {:?}", self.plan);
    }

    /// Tells when media were seen.
    fn look(&mut self, session: SessionId, media: &[SocketAddr]) {
        assert!(media.iter().all(|flow| self.kernel.flows.contains(flow)), "{media:?} are not watched");
        let seen = MediaSeen::default();
        self.driver.engine.handle_command(time(self.now), Command::Media { session, seen });
    }

    /// A response in the server's name, or an ACK in the peer's.
    fn send(&mut self, datagram: &Datagram) {
        let msg = Msg::read(&datagram.bytes);
        let index = self.index_of(msg.tags());
        let blind = self.calls[index].kept || self.lost_samples(index);
        let Call { server, peer, judge, .. } = &mut self.calls[index];
        let word = judge.says(self.now, &datagram.bytes, &Ends { server, peer, blind });
        self.remark(&format!("c{index} {word:?}: {} {:?} {}", msg.status, msg.verb, msg.number));
        match word {
            Word::LetOut => self.meets(index, Fault::LetOut),
            Word::Accepts if msg.verb == Verb::Invite => self.meets(index, Fault::AnsweredInvite),
            Word::Accepts => self.meets(index, Fault::AnsweredUpdate),
            Word::Repeats => self.meets(index, Fault::AnswerRepeated),
            Word::Declines => self.meets(index, Fault::Declined),
            Word::Acks => {}
        }
        self.leaves(index, datagram.peer, SIPSTS_COOKIE, &datagram.bytes);
        if matches!(word, Word::Accepts | Word::Acks) {
            self.kill_at_once();
        }
    }

    fn inject(&mut self, inject: &Inject) {
        let msg = Msg::read(&inject.bytes);
        let index = self.index_of(msg.tags());
        if inject.commit.is_some() {
            self.remark(&format!("c{index} injects {:?} {} for {:?}", msg.verb, msg.number, inject.commit));
            let blind = self.calls[index].kept || self.lost_samples(index);
            let Call { server, peer, judge, .. } = &mut self.calls[index];
            let taken = judge.injects(self.now, &msg, &Ends { server, peer, blind });
            if taken {
                self.meets(index, Fault::TakenOver);
            }
            self.race(index, Fault::RaceLeaves);
        }
        if let Err(refusal) = self.kernel.record(inject) {
            return self
                .driver
                .engine
                .handle_command(time(self.now), Command::Refused { token: inject.token, refusal });
        }
        let left = self.leaves(index, inject.peer, SIPSTS_COOKIE, &inject.bytes);
        if inject.commit.is_some() {
            self.race(index, Fault::RaceLeft);
            if left {
                self.disturb(index, msg.verb);
                self.kill_at_once();
            }
        }
    }

    /// What the server does while a refresh of sipst's is on its way.
    fn disturb(&mut self, index: usize, verb: Verb) {
        let (now, weather) = (self.now, &self.plan.weather);
        let (refreshed, crossed) = if verb == Verb::Invite {
            (Fault::ByInvite, Fault::CrossedInvite)
        } else {
            (Fault::ByUpdate, Fault::CrossedUpdate)
        };
        let call = &mut self.calls[index];
        call.met.count(refreshed);
        if !call.server.is_up() {
            return;
        }
        if self.plan.calls[index].chatty {
            call.server.plans(now + call.rng.random_range(20 * MS..200 * MS), Act::Info);
        }
        if call.rng.random_bool(f64::from(weather.crossings) / 100.0) && !call.server.is_busy() {
            call.met.count(crossed);
            call.server.plans(now + call.rng.random_range(0..2 * weather.delay + 500 * MS), Act::Reinvite);
        }
    }
}
