//! The daemon's loop around the engine: it reads the ring, keeps the deadlines, arms and sends, late now and then.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use rand::RngExt as _;
use st_core::{
    Action, Arm, Command, Credentials, Direction, Engine, Event, Inject, Output, Packet, Policy, Refusal, Rules, Time,
    engine::{EngineConfig, Limits, Mode},
};

use super::{
    agent::{Life, MS, S, Us, Why},
    kernel::{Kernel, Record},
    plan::Plan,
    sip::Msg,
    world::World,
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
    watched: bool,
    wake: Option<Us>,
    /// When it will have noticed the ring.
    reads: Option<Us>,
    arming: VecDeque<Arm>,
    /// Losses that it has told the engine.
    told: u64,
    /// When it looks at the counters.
    tick: Option<Us>,
}

impl Driver {
    pub(crate) fn new(plan: &Plan, watched: bool) -> Self {
        let credentials = Some(Credentials { username: "u".into(), password: "p".into() });
        let floor = Duration::from_secs(60);
        let rules = Rules { action: Action::Refresh, credentials, interval_floor: floor, ..Rules::default() };
        let policy = Arc::new(Policy { default: rules, ..Policy::default() });
        let seed = plan.seed;
        let engine = Engine::new(EngineConfig { policy, mode: Mode::Live, seed, limits: Limits::default() });
        Self {
            engine,
            events: Vec::new(),
            watched,
            wake: None,
            reads: None,
            arming: VecDeque::new(),
            told: 0,
            tick: None,
        }
    }
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
                self.count("daemon slept");
            }
        }
        if self.kernel.counts.ring_full > self.driver.told && self.driver.tick.is_none() {
            self.driver.tick = Some(self.now + S);
        }
        [self.driver.reads, self.driver.wake, self.driver.tick].into_iter().flatten().min()
    }

    /// One turn of the daemon's loop.
    pub(crate) fn turn(&mut self) {
        self.driver.reads = None;
        self.drain();
        if self.driver.wake.is_some_and(|at| at <= self.now) {
            self.driver.wake = None;
            self.driver.engine.handle_timeout(time(self.now));
            self.outputs();
        }
        while let Some(arm) = self.driver.arming.pop_front() {
            let index = self.index_of(std::str::from_utf8(&arm.call_id).expect("UTF-8"));
            self.race(index, "a request before the entry was made");
            let prepared = self.prepare(&arm, index);
            self.race(index, "a request before the numbers were read");
            // What the numbers tell of stands in the ring by now; what comes later moves them.
            let result = prepared.and_then(|key| self.kernel.state(key));
            self.race(index, "a request before the ring was drained");
            self.drain();
            self.unseen();
            self.remark(&format!("c{index} armed: {result:?}"));
            self.race(index, "a request after the ring was drained");
            self.command(Command::Armed { session: arm.session, result });
        }
        if self.driver.tick.is_some_and(|at| at <= self.now) {
            self.driver.tick = None;
            self.unseen();
        }
    }

    fn prepare(&mut self, arm: &Arm, index: usize) -> Result<st_ebpf::key::DialogKey, Refusal> {
        if matches!(self.calls[index].server.life, Life::Over(_, Why::Crashed)) {
            self.count("server was gone");
            return Err(Refusal::ServerGone);
        }
        self.kernel.arm(arm)
    }

    fn unseen(&mut self) {
        let packets = self.kernel.counts.ring_full - self.driver.told;
        self.driver.told = self.kernel.counts.ring_full;
        if packets > 0 {
            self.command(Command::Loss { packets });
        }
    }

    fn command(&mut self, command: Command) {
        self.driver.engine.handle_command(time(self.now), command);
        self.outputs();
    }

    fn drain(&mut self) {
        while let Some(record) = self.kernel.ring.pop_front() {
            match record {
                Record::Seen { at, direction, peer, bytes } => self.show(at, direction, peer, &bytes),
                Record::Refused { token, refusal } => {
                    self.kernel.retire(token);
                    self.count("injected request refused");
                    self.remark(&format!("{token:x} refused: {refusal:?}"));
                    self.command(Command::Refused { token, refusal });
                }
            }
        }
    }

    fn show(&mut self, at: Us, direction: Direction, peer: SocketAddr, bytes: &[u8]) {
        let egress = direction == Direction::Egress;
        let msg = Msg::read(bytes);
        let ours = msg.branch().starts_with("z9hG4bKsipst");
        let index = self.index_of(&msg.call_id);
        self.calls[index].judge.shown(at, &msg, egress, ours);
        let packet = Packet {
            direction,
            server: self.calls[index].server.host.parse().expect("an address"),
            peer,
            interface: 2,
            tos: 0,
            ttl: 64,
            cookie: if egress && !ours { 7 } else { 0 },
            truncated: false,
            bytes,
        };
        self.driver.engine.handle_packet(time(at), &packet);
        self.outputs();
    }

    /// Does what the engine wants; what has to be armed waits until the engine is at rest.
    fn outputs(&mut self) {
        for _ in 0..MOST_OUTPUTS {
            match self.driver.engine.poll_output() {
                Output::Event(event) => {
                    self.remark(&format!("{:?} {:?}", event.kind, event.reason));
                    self.driver.events.push(event);
                }
                Output::Arm(arm) => self.driver.arming.push_back(arm),
                Output::Inject(inject) => self.inject(&inject),
                Output::Retire { token } => self.kernel.retire(token),
                Output::Disarm { call_id, local_tag, .. } => {
                    if let Some(key) = Kernel::key(&call_id, &local_tag) {
                        self.kernel.disarm(key);
                    }
                }
                Output::Timeout(at) => {
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

    fn inject(&mut self, inject: &Inject) {
        let msg = Msg::read(&inject.bytes);
        let index = self.index_of(&msg.call_id);
        if inject.commit.is_some() {
            self.remark(&format!("c{index} injects {:?} {} for {:?}", msg.verb, msg.number, inject.commit));
            self.calls[index].judge.injects(self.now, &msg);
            self.race(index, "a request before the injected one left");
        }
        if let Err(refusal) = self.kernel.record(inject) {
            return self
                .driver
                .engine
                .handle_command(time(self.now), Command::Refused { token: inject.token, refusal });
        }
        self.leaves(index, inject.peer, &inject.bytes);
        if inject.commit.is_some() {
            self.race(index, "a request after the injected one left");
        }
    }
}
