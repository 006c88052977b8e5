//! A host, a network that is not kind, and the calls between them, in virtual time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    agent::{Act, Agent, MS, Us},
    driver::Driver,
    judge::Judge,
    kernel::Kernel,
    plan::Plan,
    proxy::Proxy,
    sip::{Msg, Verb},
    stacks::{PEERS, SERVERS},
};

/// Steps of one world, at most: it must come to rest.
const MOST_STEPS: u32 = 1_000_000;

/// Where a packet is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Edge,
    Proxy { from_server: bool },
    Peer,
}

/// How often each fault was met.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

pub(crate) struct Call {
    pub(crate) server: Agent,
    pub(crate) peer: Agent,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) judge: Judge,
    /// The server's next hop.
    pub(crate) hop: SocketAddr,
    pub(crate) call_id: String,
    rng: StdRng,
    was_up: [bool; 2],
}

impl Call {
    /// Whether both sides were up.
    pub(crate) fn came_up(&self) -> bool {
        self.was_up == [true, true]
    }
}

type Packet = (Us, u64, usize, Place, Vec<u8>);

pub(crate) struct World {
    pub(crate) now: Us,
    pub(crate) plan: Plan,
    pub(crate) calls: Vec<Call>,
    pub(crate) kernel: Kernel,
    pub(crate) driver: Driver,
    pub(crate) tally: Tally,
    pub(crate) rng: StdRng,
    /// Every packet as it leaves somebody and arrives somewhere, where that is wanted.
    pub(crate) trace: Option<Vec<String>>,
    packets: BinaryHeap<Reverse<Packet>>,
    sequence: u64,
}

impl World {
    /// `watched`: whether sipst runs on the host.
    pub(crate) fn new(plan: &Plan, watched: bool) -> Self {
        let calls = plan.calls.iter().enumerate().map(|(index, call)| {
            let call_id = format!("c{index}@world");
            let mut rng = StdRng::seed_from_u64(call.seed);
            let peer_host = format!("198.51.100.{}:5060", call.peer + 1);
            let server_host = format!("192.0.2.{}:5060", call.server + 1);
            let proxy_host = format!("203.0.113.{}:5060", call.peer + 1);
            let proxy = call.has_proxy().then(|| Proxy::new(&proxy_host, call.interval));
            let hop = if proxy.is_some() { &proxy_host } else { &peer_host };
            let mut agent =
                |stack, host: &str, name, remote| Agent::new(stack, host, name, remote, &call_id, rng.random());
            let mut server = agent(&SERVERS[call.server], &server_host, "s", "p");
            let mut peer = agent(&PEERS[call.peer], &peer_host, "p", "s");
            (server.interval, peer.interval) = (call.interval, call.interval);
            peer.min_se = call.interval.min(90);
            peer.refusals.clone_from(&call.refusals);
            let hop = hop.parse().expect("an address");
            Call { server, peer, proxy, judge: Judge::default(), hop, call_id, rng, was_up: [false; 2] }
        });
        let calls = calls.collect();
        let kernel = Kernel::new(f64::from(plan.weather.ring) / 1000.0, StdRng::seed_from_u64(!plan.seed));
        Self {
            now: 0,
            plan: plan.clone(),
            calls,
            kernel,
            driver: Driver::new(plan, watched),
            tally: Tally::new(),
            rng: StdRng::seed_from_u64(plan.seed),
            trace: None,
            packets: BinaryHeap::new(),
            sequence: 0,
        }
    }

    /// Lets everything happen until nothing is left to happen.
    pub(crate) fn run(&mut self) {
        let mut begun = vec![false; self.calls.len()];
        for _ in 0..MOST_STEPS {
            let driver = self.driver_due();
            let begins =
                self.plan.calls.iter().zip(&begun).filter(|(_, begun)| !**begun).map(|(call, _)| call.begins).min();
            let agents = self
                .calls
                .iter()
                .flat_map(|call| [call.server.due(), call.peer.due(), call.proxy.as_ref().and_then(Proxy::due)]);
            let packet = self.packets.peek().map(|Reverse((at, ..))| *at);
            let Some(next) = agents.chain([begins, packet, driver]).flatten().min() else { return };
            self.now = self.now.max(next);
            if packet == Some(next) {
                if let Some(Reverse((_, _, call, place, bytes))) = self.packets.pop() {
                    self.arrives(call, place, &bytes);
                }
            } else if driver == Some(next) {
                self.turn();
            } else {
                for (call, begun) in begun.iter_mut().enumerate() {
                    if !*begun && self.plan.calls[call].begins <= self.now {
                        *begun = true;
                        let from_server = self.plan.calls[call].server_calls;
                        let Call { server, peer, .. } = &mut self.calls[call];
                        if from_server { server.call(self.now) } else { peer.call(self.now) }
                    }
                    self.wake(call);
                }
            }
        }
        panic!("the world does not come to rest: {:?}", self.plan);
    }

    fn wake(&mut self, index: usize) {
        let (now, call) = (self.now, &mut self.calls[index]);
        for agent in [&mut call.server, &mut call.peer] {
            if agent.due().is_some_and(|at| at <= now) {
                agent.wake(now);
            }
        }
        if let Some(proxy) = call.proxy.as_mut().filter(|proxy| proxy.due().is_some_and(|at| at <= now)) {
            let [to_server, to_peer] = proxy.kill(now);
            let spelling = call.server.stack.spelling;
            self.travels(index, Place::Edge, to_server.write(spelling));
            self.travels(index, Place::Peer, to_peer.write(spelling));
        }
        self.speak(index);
    }

    /// What the agents have to say goes out.
    pub(crate) fn speak(&mut self, index: usize) {
        for side in [0, 1] {
            let call = &mut self.calls[index];
            let agent = if side == 0 { &mut call.server } else { &mut call.peer };
            if agent.is_up() && !std::mem::replace(&mut call.was_up[side], true) {
                let now = self.now;
                agent.agenda = self.plan.calls[index].agenda(side == 0);
                agent.agenda.iter_mut().for_each(|(at, _)| *at += now);
            }
            let spelling = agent.stack.spelling;
            let said = agent.take();
            for msg in said {
                let bytes = msg.write(spelling);
                if side == 0 {
                    if msg.is_request() {
                        self.calls[index].judge.wrote(msg.number);
                    }
                    let hop = self.calls[index].hop;
                    self.leaves(index, hop, &bytes);
                } else {
                    let proxied = self.calls[index].proxy.is_some();
                    let place = if proxied { Place::Proxy { from_server: false } } else { Place::Edge };
                    self.travels(index, place, bytes);
                }
            }
        }
    }

    /// A packet leaves the host by the kernel programs.
    pub(crate) fn leaves(&mut self, index: usize, hop: SocketAddr, bytes: &[u8]) {
        let Some(bytes) = self.kernel.egress(self.now, hop, bytes) else { return };
        let msg = Msg::read(&bytes);
        let call = &mut self.calls[index];
        let ours = msg.is_request() && msg.branch().starts_with("z9hG4bKsipst");
        call.judge.left(&msg, ours);
        if hop != call.hop {
            call.judge.breaches.push(format!("{:?} went to {hop}", msg.verb));
        }
        let place = if call.proxy.is_some() { Place::Proxy { from_server: true } } else { Place::Peer };
        self.travels(index, place, bytes);
    }

    /// The network.
    fn travels(&mut self, index: usize, place: Place, bytes: Vec<u8>) {
        let weather = self.plan.weather.clone();
        let proxied = self.calls[index].proxy.is_some();
        let rng = &mut self.calls[index].rng;
        // The proxy stands next to the peer: what is lost is lost on this host's side of it.
        let far = place == Place::Proxy { from_server: false } || place == Place::Peer && proxied;
        let lost = !far && rng.random_bool(f64::from(weather.lost) / 100.0);
        self.note(index, if lost { "lost on the way to" } else { "to" }, place, &bytes);
        if lost {
            return self.count("packet lost");
        }
        let rng = &mut self.calls[index].rng;
        let mut chance = |percent: u32| rng.random_bool(f64::from(percent) / 100.0);
        let (copies, late) = (1 + u32::from(chance(weather.doubled)), chance(weather.late));
        if copies > 1 {
            self.count("packet doubled");
        }
        for _ in 0..copies {
            let rng = &mut self.calls[index].rng;
            let mut delay = weather.delay + rng.random_range(0..=weather.delay / 4);
            if late {
                delay += rng.random_range(50 * MS..2_000 * MS);
            }
            self.sequence += 1;
            self.packets.push(Reverse((self.now + delay, self.sequence, index, place, bytes.clone())));
        }
        if late {
            self.count("packet reordered");
        }
    }

    fn note(&mut self, index: usize, what: &str, place: Place, bytes: &[u8]) {
        let Some(trace) = &mut self.trace else { return };
        let Msg { verb, status, number, expires, vias, .. } = Msg::read(bytes);
        let branch = vias.last().map_or("", |(_, branch)| branch);
        let seconds = self.now as f64 / 1e6;
        let line = format!("{seconds:.3} c{index} {what} {place:?}: {status} {verb:?} {number} {branch} {expires:?}");
        trace.push(line);
    }

    /// What the driver does.
    pub(crate) fn remark(&mut self, what: &str) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:.3} {what}", self.now as f64 / 1e6));
        }
    }

    fn arrives(&mut self, index: usize, place: Place, bytes: &[u8]) {
        let now = self.now;
        self.note(index, "at", place, bytes);
        match place {
            Place::Peer => self.calls[index].peer.hear(now, &Msg::read(bytes)),
            Place::Proxy { from_server } => {
                let call = &mut self.calls[index];
                let msg = Msg::read(bytes);
                // A response goes back to where its request came from.
                let passed = call.proxy.as_mut().and_then(|proxy| proxy.pass(now, msg, from_server));
                let spelling = if from_server { call.server.stack.spelling } else { call.peer.stack.spelling };
                if let Some(msg) = passed {
                    self.travels(index, if from_server { Place::Peer } else { Place::Edge }, msg.write(spelling));
                }
            }
            Place::Edge => {
                let hop = self.calls[index].hop;
                if let Some(bytes) = self.kernel.ingress(now, hop, bytes) {
                    if self.calls[index].rng.random_bool(f64::from(self.plan.weather.firewall) / 100.0) {
                        return self.count("dropped by a firewall");
                    }
                    self.calls[index].server.hear(now, &Msg::read(&bytes));
                }
            }
        }
        self.speak(index);
    }

    /// The server may send a request of its own at this very moment.
    pub(crate) fn race(&mut self, index: usize, moment: &'static str) {
        let call = &mut self.calls[index];
        let hits = call.rng.random_bool(f64::from(self.plan.weather.races) / 100.0);
        if !hits || !call.server.is_up() {
            return;
        }
        let act = match call.rng.random_range(0..10) {
            0 => Act::HangUp,
            1..=3 if !call.server.is_busy() => Act::Reinvite,
            _ => Act::Info,
        };
        call.server.act(self.now, act);
        self.count(moment);
        self.speak(index);
    }

    /// Which call a message belongs to.
    pub(crate) fn index_of(&self, call_id: &str) -> usize {
        self.calls.iter().position(|call| call.call_id == call_id).expect("a call")
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Whether the ring lost a request of the server's in this call.
    pub(crate) fn lost_requests(&self, call_id: &str) -> bool {
        use super::kernel::Record;
        self.kernel.lost.iter().any(|record| match record {
            Record::Seen { bytes, direction, .. } => {
                let msg = Msg::read(bytes);
                *direction == st_core::Direction::Egress
                    && msg.is_request()
                    && msg.call_id == call_id
                    && msg.verb != Verb::Ack
            }
            Record::Refused { .. } => false,
        })
    }
}
