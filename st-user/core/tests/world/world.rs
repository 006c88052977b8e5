//! A host and the calls on it, in virtual time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    net::SocketAddr,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    agent::{Act, Agent, Life, Us, Why},
    driver::Driver,
    faults::{Fault, Tally},
    judge::Judge,
    kernel::{Kernel, Leaves, SERVERS_COOKIE},
    network::Packet,
    plan::Plan,
    proxy::Proxy,
    sip::Msg,
    stacks::{PEERS, SERVERS},
    trunk::Trunk,
};

/// How old the daemon's heartbeat may be for anything to be held back.
pub(crate) const SILENT: Us = st_ebpf::abi::HOLD_SILENT_NS / 1_000;

/// Steps of one world, at most: it must come to rest.
const MOST_STEPS: u32 = 100_000;

pub(crate) struct Call {
    pub(crate) server: Agent,
    pub(crate) peer: Agent,
    /// The other phone that rings.
    pub(crate) fork: Option<Agent>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) judge: Judge,
    /// The server's next hop.
    pub(crate) hop: SocketAddr,
    /// The peer's refreshes are turned down, and its trunk's rules are for that.
    pub(crate) promised: bool,
    pub(crate) rng: StdRng,
    was_up: [bool; 2],
    /// When the network or the firewall last did something to one of its packets.
    pub(crate) spoilt: Option<Us>,
    /// When a firewall last kept something from the server.
    pub(crate) kept: bool,
    /// What it has met, but for what its ends and its proxy have counted.
    pub(crate) met: Tally,
    /// The start of the peer's interval that was last compared, and when the next comparison is due.
    pub(crate) compared: Option<Us>,
    pub(crate) compare_at: Option<Us>,
}

impl Call {
    /// Whether both sides were up.
    pub(crate) fn came_up(&self) -> bool {
        self.was_up == [true, true]
    }

    /// All that it has met.
    pub(crate) fn faults(&self) -> Tally {
        let mut all = self.met.clone();
        for agent in [&self.server, &self.peer].into_iter().chain(&self.fork) {
            all.take_in(&agent.diary.tally);
        }
        if let Some(proxy) = &self.proxy {
            all.take_in(&proxy.tally);
        }
        all.add(Fault::ByServer, self.server.diary.refreshes.into());
        all.add(Fault::ByPeer, self.peer.diary.refreshes.into());
        for (agent, why, fault) in [
            (&self.server, Why::Crashed, Fault::ServerCrashed),
            (&self.server, Why::Restarted, Fault::ServerRestarted),
            (&self.peer, Why::Restarted, Fault::PeerRestarted),
        ] {
            let met = matches!(agent.life, Life::Over(_, ended) if ended == why);
            all.add(fault, met.into());
        }
        all
    }

    /// Whether it has begun and is not over on both sides.
    pub(crate) fn is_on(&self) -> bool {
        [&self.server, &self.peer].iter().any(|agent| matches!(agent.life, Life::Setup | Life::Up))
    }

    fn due(&self) -> Option<Us> {
        let fork = self.fork.as_ref().and_then(Agent::due);
        let proxy = self.proxy.as_ref().and_then(Proxy::due);
        [self.server.due(), self.peer.due(), fork, proxy, self.compare_at].into_iter().flatten().min()
    }
}

pub(crate) struct World {
    pub(crate) now: Us,
    pub(crate) plan: Plan,
    pub(crate) calls: Vec<Call>,
    pub(crate) kernel: Kernel,
    pub(crate) driver: Driver,
    pub(crate) rng: StdRng,
    /// Every packet as it leaves somebody and arrives somewhere, where that is wanted.
    pub(crate) trace: Option<Vec<String>>,
    /// When a sample was last lost.
    pub(crate) spoilt: Option<Us>,
    /// Calls and outages that have taken a packet of theirs.
    pub(crate) outages: BTreeSet<(usize, usize)>,
    /// How often the engine's idea of a session was compared with the peer's.
    pub(crate) compared: u64,
    pub(crate) packets: BinaryHeap<Reverse<Packet>>,
    pub(crate) sequence: u64,
}

impl World {
    /// `watched`: whether sipst runs on the host.
    pub(crate) fn new(plan: &Plan, watched: bool) -> Self {
        let kernel = Kernel::new(&plan.weather, StdRng::seed_from_u64(!plan.seed));
        Self {
            now: 0,
            plan: plan.clone(),
            calls: (0..plan.calls.len()).map(|index| new_call(plan, index)).collect(),
            kernel,
            driver: Driver::new(plan, watched),
            rng: StdRng::seed_from_u64(plan.seed),
            trace: None,
            spoilt: None,
            outages: BTreeSet::new(),
            compared: 0,
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
            let calls = self.calls.iter().map(Call::due);
            let packet = self.packets.peek().map(|Reverse((at, ..))| *at);
            let Some(next) = calls.chain([begins, packet, driver]).flatten().min() else { return };
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
        for agent in [&mut call.server, &mut call.peer].into_iter().chain(&mut call.fork) {
            if agent.due().is_some_and(|at| at <= now) {
                agent.wake(now);
            }
        }
        let compares = call.compare_at.is_some_and(|at| at <= now);
        if let Some(proxy) = call.proxy.as_mut().filter(|proxy| proxy.due().is_some_and(|at| at <= now)) {
            let byes = proxy.kill(now);
            self.proxy_says(index, byes);
        }
        if compares {
            self.compare(index);
        }
        self.speak(index);
    }

    /// What the agents have to say goes out.
    pub(crate) fn speak(&mut self, index: usize) {
        for side in [0, 1, 2] {
            let call = &mut self.calls[index];
            let agent = match side {
                0 => &mut call.server,
                1 => &mut call.peer,
                _ => match &mut call.fork {
                    Some(fork) => fork,
                    None => continue,
                },
            };
            if side < 2 && agent.is_up() && !std::mem::replace(&mut call.was_up[side], true) {
                let now = self.now;
                agent.agenda = self.plan.calls[index].agenda(side == 0);
                agent.agenda.iter_mut().for_each(|(at, _)| *at += now);
            }
            let spelling = agent.stack.spelling;
            for msg in agent.take() {
                let bytes = msg.write(spelling);
                if side == 0 {
                    if msg.is_request() {
                        self.calls[index].judge.wrote(msg.number);
                    }
                    let hop = self.calls[index].hop;
                    self.leaves(index, hop, SERVERS_COOKIE, &bytes);
                } else {
                    self.peer_says(index, bytes);
                }
            }
        }
        self.watch(index);
        self.bridge(index);
    }

    /// The legs of a B2BUA end together.
    fn bridge(&mut self, index: usize) {
        if self.plan.bridge.is_none() || index > 1 {
            return;
        }
        let other = 1 - index;
        let over =
            matches!(self.calls[index].server.life, Life::Over(_, why) if why != Why::Crashed && why != Why::Restarted);
        if over && self.calls[other].server.is_up() {
            self.calls[other].server.hang_up(self.now, Why::Planned);
            self.speak(other);
        }
    }

    /// The 2xx that came first makes the call; the other phone is the fork.
    pub(crate) fn choose(&mut self, index: usize) {
        let call = &mut self.calls[index];
        let Some(fork) = call.fork.as_mut().filter(|fork| call.server.remote_tag.as_ref() == Some(&fork.tag)) else {
            return;
        };
        std::mem::swap(fork, &mut call.peer);
        fork.agenda.clear();
        call.was_up[1] = false;
    }

    /// Whether the daemon's heartbeat is fresh: its loop gives it, whatever it does.
    fn daemon_lives(&self) -> bool {
        let stalled = self.plan.weather.stalls.iter().find(|stall| stall.contains(&self.now)).map(|stall| stall.start);
        let died = self.driver.killed.map(|_| self.driver.died);
        let silent = [stalled, died].into_iter().flatten().min();
        silent.is_none_or(|since| self.now - since <= SILENT)
    }

    /// A packet leaves the host by the kernel programs, if they let it. `cookie`: its socket's.
    pub(crate) fn leaves(&mut self, index: usize, hop: SocketAddr, cookie: u64, bytes: &[u8]) -> bool {
        self.kernel.awake = self.daemon_lives();
        let fate = self.kernel.egress(self.now, hop, cookie, bytes);
        self.kernel_met(index);
        let bytes = match fate {
            Leaves::On(bytes) => bytes,
            Leaves::Back(bytes) => {
                self.returns(index, bytes);
                return true;
            }
            Leaves::Held => {
                self.remark(&format!("c{index} held back: {} {:?}", Msg::read(bytes).status, Msg::read(bytes).verb));
                let Call { judge, server, .. } = &mut self.calls[index];
                judge.withheld(self.now, &Msg::read(bytes), bytes, server);
                self.kill_on_hold();
                return false;
            }
            Leaves::Nothing => return false,
        };
        let msg = Msg::read(&bytes);
        let call = &mut self.calls[index];
        call.judge.left(&msg);
        call.judge.answer_leaves(&msg);
        if hop != call.hop {
            call.judge.breaches.push(format!("{:?} went to {hop}", msg.verb));
        }
        self.server_says(index, bytes);
        true
    }

    /// The server may send a request of its own at this very moment.
    pub(crate) fn race(&mut self, index: usize, moment: Fault) {
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
        self.meets(index, moment);
        self.speak(index);
    }

    pub(crate) fn meets(&mut self, index: usize, fault: Fault) {
        self.calls[index].met.count(fault);
    }

    /// All calls that are on meet it.
    pub(crate) fn calls_on(&mut self, fault: Fault) {
        self.calls.iter_mut().filter(|call| call.is_on()).for_each(|call| call.met.count(fault));
    }

    /// What the kernel programs met with the last packet is the packet's call's.
    pub(crate) fn kernel_met(&mut self, index: usize) {
        self.calls[index].met.take_in(&std::mem::take(&mut self.kernel.tally));
    }

    /// What the driver does.
    pub(crate) fn remark(&mut self, what: &str) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:.3} {what}", self.now as f64 / 1e6));
        }
    }

    /// Which call a message belongs to, by its tags.
    pub(crate) fn index_of<'a>(&self, tags: impl IntoIterator<Item = &'a str>) -> usize {
        let number = |tag: &str| {
            let (index, _) = tag.strip_prefix(['s', 'p', 'f'])?.split_once('x')?;
            index.parse().ok().filter(|index| *index < self.calls.len())
        };
        tags.into_iter().find_map(number).expect("a tag of a call")
    }

    /// Whether the ring lost anything of this call.
    pub(crate) fn lost_samples(&self, index: usize) -> bool {
        let of_call = |bytes: &[u8]| self.index_of(Msg::read(bytes).tags()) == index;
        self.kernel.lost.iter().any(|record| record.bytes().is_none_or(of_call))
    }
}

fn new_call(plan: &Plan, index: usize) -> Call {
    let call = &plan.calls[index];
    let call_id = if plan.bridge == Some(true) && index == 1 { "c0@world".into() } else { format!("c{index}@world") };
    let mut rng = StdRng::seed_from_u64(call.seed);
    let mut met = Tally::default();
    if let Some(same) = plan.bridge.filter(|_| index < 2) {
        met.count(Fault::BothLegs);
        met.add(Fault::SameCallId, same.into());
    }
    let peer_host = format!("198.51.100.{}:5060", call.peer + 1);
    let server_host = format!("192.0.2.{}:5060", call.server + 1);
    let proxy_host = format!("203.0.113.{}:5060", call.peer + 1);
    let proxy = call.proxy.map(|manner| {
        let interval = match manner {
            super::proxy::Manner::Lowers => call.interval * 3 / 4,
            super::proxy::Manner::Inserts | super::proxy::Manner::Refuses => call.interval,
        };
        Proxy::new(&proxy_host, interval, manner)
    });
    let hop = if proxy.is_some() { &proxy_host } else { &peer_host };
    let asked = match call.proxy {
        Some(super::proxy::Manner::Refuses) => call.interval - 10,
        _ => call.interval,
    };
    let mut agent = |stack, host: &str, name: &str, remote: &str| {
        let (name, remote) = (format!("{name}{index}x"), format!("{remote}{index}x"));
        let mut agent = Agent::new(stack, host, &name, &remote, &call_id, rng.random());
        agent.interval = asked;
        agent.reliable = call.reliable;
        agent.early_update = call.early_update;
        agent.late_offer = call.late_offer;
        agent.cancels = call.cancels;
        agent.belongs_to(call.trunk.domain());
        agent
    };
    let mut server = agent(&SERVERS[call.server], &server_host, "s", "p");
    let mut peer = agent(&PEERS[call.peer], &peer_host, "p", "s");
    let mut fork = call.fork.then(|| agent(&PEERS[call.peer], &peer_host, "f", "s"));
    server.rejects = call.rejects;
    for peer in [&mut peer].into_iter().chain(&mut fork) {
        peer.min_se = asked.min(90);
        peer.refusals.clone_from(&call.refusals);
    }
    Call {
        server,
        peer,
        fork,
        proxy,
        judge: Judge::new(call.trunk.takes_over()),
        promised: call.rejects.is_some() && call.trunk != Trunk::Plain,
        hop: hop.parse().expect("an address"),
        rng,
        was_up: [false; 2],
        spoilt: None,
        kept: false,
        met,
        compared: None,
        compare_at: None,
    }
}
