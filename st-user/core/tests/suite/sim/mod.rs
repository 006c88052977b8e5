//! A call in simulated time: a server that knows nothing of session timers, the kernel's part, and a strict peer.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::too_many_arguments,
    reason = "each test file is a program of its own and uses its part"
)]

pub mod census;
pub mod disk;
pub mod kernel;
pub mod text;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use disk::Disk;
use kernel::Kernel;
use st_core::{
    Action, Arm, Assist, Command, Datagram, Direction, Engine, Event, EventKind, Inject, KeepAlive, Mark, MediaSeen,
    Output, Packet, Policy, Refusal, Rules, SessionId, Side, Time, Transport,
    engine::{EngineConfig, Limits, Mode, record::Restored},
    message::{Message, MethodName},
};
use st_ebpf::abi::holds;
pub use text::{Call, manners, sdp};

/// Outputs of one call of the engine's, at most.
const MOST_OUTPUTS: usize = 200;

/// A packet in a capture: time, direction, bytes.
pub type Taped = (Time, Direction, Vec<u8>);

/// What the peer answers to a refresh.
#[derive(Clone, Debug)]
pub enum Reply {
    /// 200 with the peer's usual Session-Expires and SDP.
    Ok,
    /// 200 with these header lines and this body.
    OkWith(String, String),
    /// Another final response, with these header lines.
    Status(u16, &'static str),
    /// A provisional one and nothing more.
    Rings,
    /// Nothing.
    Silence,
    /// The usual 200 to a re-INVITE, nothing to an UPDATE.
    OkToInvite,
    /// Answered from another address, with a 200.
    Foreign,
    /// Answered from there with a provisional response and nothing more.
    ForeignRings,
}

/// A request that the peer got.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Time,
    pub method: MethodName,
    pub number: u32,
    pub branch: String,
    pub text: String,
    pub ours: bool,
    pub copy: bool,
}

/// The moments of an injection at which a test can have the server send something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The engine has asked for the numbers; they were not read yet.
    BeforeRead,
    /// They were read; packets sampled by then were not handed over yet.
    AfterRead,
    /// The request is made; the kernel has not seen it.
    BeforeCommit,
    /// It has left; the peer has not answered.
    AfterCommit,
}

pub struct Sim {
    pub engine: Engine,
    pub config: EngineConfig,
    pub now: Time,
    pub events: Vec<Event>,
    pub kernel: Kernel,
    /// What the driver answers to `Arm` instead of reading the numbers.
    pub refusal: Option<Refusal>,
    /// The same for the peer's numbers alone.
    pub peer_refusal: Option<Refusal>,
    /// What becomes of injected requests instead of leaving.
    pub refused: Option<Refusal>,
    pub arms: Vec<Arm>,
    pub injected: Vec<Inject>,
    pub replies: VecDeque<Reply>,
    /// When the script is at its end.
    pub usual: Reply,
    /// The peer's Session-Expires in a 200.
    pub expires: &'static str,
    /// What arrived at the peer.
    pub seen: Vec<Seen>,
    /// Lower or equal numbers that the peer got: there must be none.
    pub violations: Vec<String>,
    /// What the server answers to a re-INVITE in the peer's name; when there is no more, 200.
    pub server_replies: VecDeque<Reply>,
    /// What the peer answers to a BYE of sipst's; when there is no more, 200.
    pub bye_replies: VecDeque<Reply>,
    /// And the server, to one in the peer's name.
    pub server_bye_replies: VecDeque<Reply>,
    /// What arrived at the server in the peer's name.
    pub told: Vec<Seen>,
    /// Another request of the server's at this step.
    pub interject: Option<(Step, Call)>,
    /// Whether the numbers have always moved when a request in the peer's name is to be committed.
    pub peer_moves_on: bool,
    /// A request of the peer's that comes in before the next one in its name is committed.
    pub peer_interjects: Option<Call>,
    /// What a capture at the peer's end has.
    pub tape: Vec<Taped>,
    /// Of each entry that was to be taken away: whether the server may still need it.
    pub left: Vec<bool>,
    /// Whether the driver never answers to `Arm`.
    pub deaf: bool,
    /// Media flows that are watched, and when each was last seen.
    pub flows: HashMap<SocketAddr, MediaSeen>,
    /// Marked dialogs, by Call-ID and the peer's tag.
    pub marks: HashMap<(Vec<u8>, Vec<u8>), Mark>,
    /// Whether the daemon's heartbeat is stale, so that nothing is held back.
    pub stale: bool,
    /// Why nothing of what is to be sent as it is leaves.
    pub unsendable: Option<Refusal>,
    /// Whether what leaves so is not seen leaving.
    pub unseen: bool,
    /// Responses that the peer got, sipst's among them.
    pub responses: Vec<String>,
    /// ACKs that the server got in the peer's name.
    pub acks: Vec<String>,
    /// ACKs of the peer's that the server did not get.
    pub taken: Vec<String>,
    /// Trunks whose INVITEs are let be from now on.
    pub unassisted: Vec<String>,
    /// What was sent to hold flows open, and when.
    pub kept_alive: Vec<(Time, KeepAlive)>,
    /// What the kernel programs make of the INVITEs that are to come.
    pub assist: Option<Assist>,
    /// What the server's and the peer's messages come by, egress and ingress.
    pub transports: [Transport; 2],
    /// Whether they are each one of several datagrams as one packet.
    pub joined: [bool; 2],
    answers: VecDeque<Vec<u8>>,
    highest: HashMap<String, u32>,
    server_highest: HashMap<String, u32>,
    server_branches: HashSet<Vec<u8>>,
    ring: VecDeque<(Direction, SocketAddr, Vec<u8>)>,
    timeout: Option<Time>,
}

/// Cookie of the server's socket.
pub const SERVERS_COOKIE: u64 = 99;

/// That of sipst's.
const SIPSTS_COOKIE: u64 = 77;

fn packet(direction: Direction, peer: SocketAddr, cookie: u64, bytes: &[u8]) -> Packet<'_> {
    let server = text::SERVER.parse().expect("an address");
    let transport = Transport::Udp;
    Packet { direction, server, peer, transport, interface: 2, tos: 0x60, ttl: 64, cookie, truncated: false, bytes }
}

pub fn rules(action: Action) -> Rules {
    Rules { action, ..Rules::default() }
}

impl Sim {
    pub fn new(action: Action) -> Self {
        Self::with(rules(action))
    }

    pub fn with(rules: Rules) -> Self {
        Self::custom(Policy { default: rules, ..Policy::default() }, Mode::Live, Limits::default())
    }

    pub fn custom(policy: Policy, mode: Mode, limits: Limits) -> Self {
        // What lasts is packed, however little there is.
        let limits = Limits { unpacked: 0, ..limits };
        let config = EngineConfig { policy: Arc::new(policy), mode, seed: 7, limits };
        Self {
            engine: Engine::new(config.clone()),
            config,
            now: Time::from_micros(1_800_000_000_000_000),
            events: Vec::new(),
            kernel: Kernel::default(),
            refusal: None,
            peer_refusal: None,
            refused: None,
            arms: Vec::new(),
            injected: Vec::new(),
            replies: VecDeque::new(),
            usual: Reply::Ok,
            expires: "Session-Expires: 90;refresher=uac\r\n",
            seen: Vec::new(),
            violations: Vec::new(),
            server_replies: VecDeque::new(),
            bye_replies: VecDeque::new(),
            server_bye_replies: VecDeque::new(),
            told: Vec::new(),
            interject: None,
            peer_moves_on: false,
            peer_interjects: None,
            tape: Vec::new(),
            left: Vec::new(),
            deaf: false,
            flows: HashMap::new(),
            marks: HashMap::new(),
            stale: false,
            unsendable: None,
            unseen: false,
            responses: Vec::new(),
            acks: Vec::new(),
            taken: Vec::new(),
            unassisted: Vec::new(),
            kept_alive: Vec::new(),
            assist: None,
            transports: [Transport::Udp; 2],
            joined: [false; 2],
            answers: VecDeque::new(),
            highest: HashMap::new(),
            server_highest: HashMap::new(),
            server_branches: HashSet::new(),
            ring: VecDeque::new(),
            timeout: None,
        }
    }

    // Calls

    /// A call from its INVITE to the ACK; `expires` stands in the 200.
    pub fn call(&mut self, name: &str, caller: Side, expires: &str) -> Call {
        let mut call = Call::new(name, caller);
        self.establish(&mut call, expires, true);
        call
    }

    /// The same for a call that is not quite usual; `update`: the peer's Allow lists it.
    pub fn establish(&mut self, call: &mut Call, expires: &str, update: bool) {
        self.invite(call, &manners(call.caller, update), &sdp(call.caller));
        let extra = manners(call.caller.other(), update) + expires;
        self.answer(call, 200, &extra, &sdp(call.caller.other()));
        self.ack(call);
    }

    pub fn invite(&mut self, call: &mut Call, extra: &str, body: &str) {
        let (caller, branch) = (call.caller, call.branch());
        let number = call.next(caller);
        call.invite = (number, branch.clone());
        let text = call.request(caller, "INVITE", number, &branch, false, extra, body);
        self.wire(caller, text.into_bytes());
    }

    /// A response to the INVITE that makes the dialog.
    pub fn answer(&mut self, call: &Call, status: u16, extra: &str, body: &str) {
        let via = self.via(call.caller, &call.invite.1);
        let text = call.response(call.caller.other(), status, "INVITE", call.invite.0, &via, extra, body);
        self.wire(call.caller.other(), text.into_bytes());
    }

    pub fn ack(&mut self, call: &mut Call) {
        let (caller, branch) = (call.caller, call.branch());
        let text = call.request(caller, "ACK", call.invite.0, &branch, true, "", "");
        self.wire(caller, text.into_bytes());
    }

    /// A request inside the dialog; returns number and branch, for its answer.
    pub fn request(&mut self, call: &mut Call, side: Side, method: &str, extra: &str, body: &str) -> (u32, String) {
        let (branch, number) = (call.branch(), call.next(side));
        let text = call.request(side, method, number, &branch, true, extra, body);
        self.wire(side, text.into_bytes());
        (number, branch)
    }

    /// The answer to a request of `asker`'s inside the dialog.
    pub fn respond(&mut self, call: &Call, asker: Side, asked: &(u32, String), method: &str, status: u16, extra: &str) {
        self.respond_with(call, asker, asked, method, status, extra, "");
    }

    pub fn respond_with(
        &mut self,
        call: &Call,
        asker: Side,
        asked: &(u32, String),
        method: &str,
        status: u16,
        extra: &str,
        body: &str,
    ) {
        let via = self.via(asker, &asked.1);
        // The peer answers to the number that it got.
        let number = match asker {
            Side::Server => self.kernel.server(&call.key(), asked.0),
            Side::Peer => self.kernel.server(&call.peer_key(), asked.0),
        };
        let text = call.response(asker.other(), status, method, number, &via, extra, body);
        self.wire(asker.other(), text.into_bytes());
    }

    /// A whole re-INVITE of one side's with that Session-Expires in its 200.
    pub fn reinvite(&mut self, call: &mut Call, side: Side, extra: &str, expires: &str) {
        let asked = self.request(call, side, "INVITE", &(manners(side, true) + extra), &sdp(side));
        let answer = manners(side.other(), true) + expires;
        self.respond_with(call, side, &asked, "INVITE", 200, &answer, &sdp(side.other()));
        let branch = call.branch();
        let text = call.request(side, "ACK", asked.0, &branch, true, "", "");
        self.wire(side, text.into_bytes());
    }

    /// The server hangs up, and its BYE must be good.
    pub fn hang_up(&mut self, call: &mut Call) {
        let asked = self.request(call, Side::Server, "BYE", "", "");
        self.respond(call, Side::Server, &asked, "BYE", 200, "");
    }

    fn via(&self, side: Side, branch: &str) -> String {
        let host = if side == Side::Server { text::SERVER } else { text::PEER };
        format!("SIP/2.0/UDP {host};rport=5060;branch={branch}")
    }

    // The wire

    /// A message of the server's or the peer's passes the kernel programs.
    pub fn wire(&mut self, side: Side, bytes: Vec<u8>) {
        let peer = text::PEER.parse().expect("an address");
        match side {
            Side::Server if self.is_held(&bytes) => {
                self.drain();
                self.engine.handle_held(self.now, &packet(Direction::Egress, peer, SERVERS_COOKIE, &bytes));
            }
            Side::Server => {
                self.ring.push_back((Direction::Egress, peer, bytes.clone()));
                self.pass_shift(&bytes);
            }
            Side::Peer => {
                self.tape.push((self.now, Direction::Ingress, bytes.clone()));
                self.ring.push_back((Direction::Ingress, peer, bytes.clone()));
                self.shift_in(&bytes);
            }
        }
        self.settle();
    }

    /// A refusal that was held back longer than it may be has gone out by itself.
    pub fn held_too_long(&mut self, bytes: &[u8]) {
        let peer = text::PEER.parse().expect("an address");
        self.engine.handle_passed(self.now, &packet(Direction::Egress, peer, SERVERS_COOKIE, bytes));
        self.settle();
    }

    /// The mark on a dialog: From has the peer's tag.
    fn mark_of(&self, message: &Message<'_>) -> Option<&Mark> {
        let tag = message.from().and_then(|from| from.tag)?;
        self.marks.get(&(message.call_id()?.to_vec(), tag.to_vec()))
    }

    /// Whether the programs hold a response of the server's back.
    fn is_held(&self, bytes: &[u8]) -> bool {
        let Ok(message) = Message::scan(bytes, false) else { return false };
        let methods = self.mark_of(&message).map_or(0, |mark| mark.methods);
        let bit = match message.cseq().map(|cseq| cseq.method) {
            Some(MethodName::Invite) => holds::INVITE,
            Some(MethodName::Update) => holds::UPDATE,
            _ => 0,
        };
        let refuses = matches!(message.status(), Some(405 | 420 | 488 | 500 | 501 | 503));
        refuses
            && methods & bit != 0
            && !self.stale
            && !(message.status() == Some(500) && message.retry_after().is_some())
    }

    /// A message of sipst's leaves as it is.
    fn send(&mut self, datagram: Datagram) {
        let Datagram { session, bytes, peer, .. } = datagram;
        if let Some(refusal) = self.unsendable {
            if let Some(session) = session {
                self.engine.handle_command(self.now, Command::Unsent { session, refusal });
            }
            return;
        }
        let message = Message::scan(&bytes, false).expect("SIP");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if message.request_method().is_none() {
            self.responses.push(text);
            if !self.unseen {
                self.answers.push_back(bytes);
            }
            return;
        }
        let answered = self.mark_of(&message).and_then(|mark| mark.answered.clone()).expect("a mark that names it");
        let branch = message.top_via().and_then(|via| via.branch).map(<[u8]>::to_vec);
        assert_eq!((branch, message.cseq().map(|cseq| cseq.number)), (Some(answered.branch), Some(answered.number)));
        self.acks.push(text);
        self.ring.push_back((Direction::Ingress, peer, bytes));
    }

    /// A message of the peer's comes in with the number that the server gets.
    fn shift_in(&mut self, bytes: &[u8]) {
        let Ok(message) = Message::scan(bytes, false) else { return };
        let names = message.call_id().zip(message.from().and_then(|from| from.tag)).zip(message.cseq());
        let (Some(method), Some(((call_id, tag), cseq))) = (message.request_method(), names) else { return };
        let answered = self.mark_of(&message).and_then(|mark| mark.answered.as_ref());
        let branch = message.top_via().and_then(|via| via.branch).unwrap_or_default();
        if method == MethodName::Ack && answered.is_some_and(|one| one.wire == cseq.number && one.branch != branch) {
            return self.taken.push(String::from_utf8_lossy(bytes).into_owned());
        }
        if message.to().and_then(|to| to.tag).is_some() {
            let number = self.kernel.server(&(call_id.to_vec(), tag.to_vec()), cseq.number);
            let raises = !matches!(method, MethodName::Ack | MethodName::Cancel);
            self.at_server(bytes, number, raises);
        }
    }

    /// The server gets a request inside the dialog: it takes no number twice and none that is lower, but for copies.
    fn at_server(&mut self, bytes: &[u8], number: u32, raises: bool) {
        let message = Message::scan(bytes, false).expect("SIP");
        let branch = message.top_via().and_then(|via| via.branch).unwrap_or_default().to_vec();
        let call_id = String::from_utf8_lossy(message.call_id().unwrap_or_default()).into_owned();
        if raises && self.server_branches.insert(branch) {
            let highest = self.server_highest.entry(call_id).or_default();
            if number <= *highest {
                self.violations.push(format!("{number} at the server after {highest}"));
            }
            *highest = number.max(*highest);
        }
    }

    /// A message comes in from somebody else.
    pub fn wire_from(&mut self, host: &str, bytes: Vec<u8>) {
        self.tape.push((self.now, Direction::Ingress, bytes.clone()));
        self.ring.push_back((Direction::Ingress, host.parse().expect("an address"), bytes));
        self.settle();
    }

    /// Queues it in the ring and does not tell the engine yet.
    fn wire_unread(&mut self, bytes: Vec<u8>) {
        self.ring.push_back((Direction::Egress, text::PEER.parse().expect("an address"), bytes.clone()));
        self.pass_shift(&bytes);
    }

    fn pass_shift(&mut self, bytes: &[u8]) {
        let message = Message::scan(bytes, false).expect("SIP");
        let (Some(method), Some(cseq)) = (message.request_method(), message.cseq()) else {
            self.responses.push(String::from_utf8_lossy(bytes).into_owned());
            return self.tape.push((self.now, Direction::Egress, bytes.to_vec()));
        };
        let tagged = message.to().and_then(|to| to.tag).is_some();
        let tag = message.from().and_then(|from| from.tag).expect("a tag");
        let key = (message.call_id().expect("a Call-ID").to_vec(), tag.to_vec());
        let number = if tagged { self.kernel.server(&key, cseq.number) } else { cseq.number };
        match text::renumbered(bytes, number) {
            Some(bytes) => self.at_peer(method, &bytes, false),
            None => self.violations.push(format!("{number} does not fit in place of {}", cseq.number)),
        }
    }

    /// The peer gets a request: it takes no number twice and none that is lower (pjsip's way).
    fn at_peer(&mut self, method: MethodName, bytes: &[u8], ours: bool) {
        self.tape.push((self.now, Direction::Egress, bytes.to_vec()));
        let message = Message::scan(bytes, false).expect("SIP");
        let cseq = message.cseq().expect("CSeq");
        let branch =
            message.top_via().and_then(|via| via.branch).map(String::from_utf8_lossy).expect("a branch").into_owned();
        let copy = self.seen.iter().any(|seen| seen.branch == branch && seen.method == method);
        let call_id = String::from_utf8_lossy(message.call_id().expect("a Call-ID")).into_owned();
        if !copy && !matches!(method, MethodName::Ack | MethodName::Cancel) {
            let highest = self.highest.entry(call_id).or_default();
            let first = *highest == 0 && !self.seen.iter().any(|seen| seen.number == 0);
            if cseq.number <= *highest && !(first && cseq.number == 0) {
                self.violations.push(format!("{} {} after {highest}", cseq.number, method.name()));
            }
            *highest = cseq.number.max(*highest);
        }
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.seen.push(Seen { at: self.now, method, number: cseq.number, branch, text, ours, copy });
    }

    // The driver

    /// Other rules from now on, and what follows from them, a session at a time.
    pub fn set_policy(&mut self, policy: Policy) {
        self.engine.set_policy(Arc::new(policy));
        let mut next = Some(SessionId(0));
        while let Some(from) = next {
            next = self.engine.handle_policy(self.now, from, 1);
        }
    }

    /// Does what the engine wants until it wants nothing more now.
    pub fn settle(&mut self) {
        self.drain();
        for _ in 0..MOST_OUTPUTS {
            match self.engine.poll_output() {
                Output::Timeout(at) => {
                    self.timeout = at;
                    if self.ring.is_empty() && self.answers.is_empty() {
                        if at.is_none_or(|at| at > self.now) {
                            census::agrees(&mut self.engine, self.now);
                        }
                        return;
                    }
                    return self.settle();
                }
                Output::Event(event) => {
                    // The fields that every event of a dialog has; a breaker is a trunk's.
                    let of_trunk = matches!(event.kind, EventKind::BreakerOpened | EventKind::BreakerClosed);
                    assert_eq!(event.names.is_some() || of_trunk, event.trunk.is_some());
                    self.events.push(event);
                }
                Output::Arm(arm) => self.arm(arm),
                Output::Inject(inject) => self.inject(inject),
                Output::Mark(mark) => drop(self.marks.insert((mark.call_id.clone(), mark.tag.clone()), mark)),
                Output::Unmark { call_id, tag } => {
                    assert!(self.marks.remove(&(call_id, tag)).is_some(), "unmarked twice");
                }
                Output::Weigh { session, media } => {
                    let seen = self.media_seen(&media);
                    self.engine.handle_command(self.now, Command::Media { session, seen });
                    self.engine.handle_command(self.now, Command::Weighed { session });
                }
                Output::Send(datagram) => self.send(datagram),
                Output::KeepAlive(keep_alive) => self.kept_alive.push((self.now, keep_alive)),
                Output::Watch { flow } => {
                    assert!(self.flows.insert(flow, MediaSeen::default()).is_none(), "watched twice: {flow}")
                }
                Output::Unwatch { flow } => assert!(self.flows.remove(&flow).is_some(), "not watched: {flow}"),
                Output::StopAssisting { trunk } => self.unassisted.push(trunk),
                Output::Look { session, media } => {
                    let seen = self.media_seen(&media);
                    self.engine.handle_command(self.now, Command::Media { session, seen });
                }
                Output::Retire { token } => self.kernel.retire(token),
                Output::Disarm { call_id, tag, left, .. } => {
                    self.left.push(left);
                    self.kernel.disarm((call_id, tag));
                }
            }
        }
        panic!("more than {MOST_OUTPUTS} outputs at once: {:?}", self.events.last());
    }

    /// Replays a capture up to its last packet.
    pub fn replay(&mut self, tape: &[Taped]) {
        let peer = text::PEER.parse().expect("an address");
        for (at, direction, bytes) in tape {
            while let Some(due) = self.timeout.filter(|due| due <= at) {
                self.now = due;
                self.engine.handle_timeout(due);
                self.settle();
            }
            self.now = *at;
            self.read(*direction, peer, bytes);
            self.settle();
        }
        self.engine.finish(self.now);
        self.settle();
    }

    fn read(&mut self, direction: Direction, peer: SocketAddr, bytes: &[u8]) {
        let cookie = if direction == Direction::Egress { SERVERS_COOKIE } else { 0 };
        let transport = self.transports[usize::from(direction == Direction::Ingress)];
        let packet = Packet { transport, ..packet(direction, peer, cookie, bytes) };
        let begins = bytes.starts_with(b"INVITE ")
            && Message::scan(bytes, false).is_ok_and(|message| message.to().is_some_and(|to| to.tag.is_none()));
        match self.assist.filter(|_| begins) {
            Some(assist) => self.engine.handle_assisted(self.now, &packet, assist),
            None if self.joined[usize::from(direction == Direction::Ingress)] => {
                self.engine.handle_joined(self.now, &packet);
            }
            None => self.engine.handle_packet(self.now, &packet),
        }
    }

    fn drain(&mut self) {
        while let Some((direction, peer, bytes)) = self.ring.pop_front() {
            self.read(direction, peer, &bytes);
        }
        while let Some(bytes) = self.answers.pop_front() {
            let peer = text::PEER.parse().expect("an address");
            self.engine.handle_packet(self.now, &packet(Direction::Egress, peer, SIPSTS_COOKIE, &bytes));
        }
    }

    fn arm(&mut self, arm: Arm) {
        self.arms.push(arm.clone());
        if self.deaf {
            return;
        }
        if let Some(refusal) = self.refusal.or(self.peer_refusal.filter(|_| arm.side == Side::Peer)) {
            return self.engine.handle_command(
                self.now,
                Command::Armed { session: arm.session, side: arm.side, result: Err(refusal) },
            );
        }
        self.step(Step::BeforeRead);
        let key = (arm.call_id, arm.tag);
        let state = self.kernel.arm(key.clone(), arm.state);
        self.step(Step::AfterRead);
        self.drain();
        if !arm.media.is_empty() {
            let seen = self.media_seen(&arm.media);
            self.engine.handle_command(self.now, Command::Media { session: arm.session, seen });
        }
        self.engine
            .handle_command(self.now, Command::Armed { session: arm.session, side: arm.side, result: Ok(state) });
        if !self.engine.follows(arm.side, &key.0, &key.1) {
            self.kernel.disarm(key);
        }
    }

    fn inject(&mut self, inject: Inject) {
        self.injected.push(inject.clone());
        if inject.commit.is_some() && inject.side == Side::Server {
            self.step(Step::BeforeCommit);
        }
        if let Some(mut call) = self.peer_interjects.take_if(|_| inject.commit.is_some() && inject.side == Side::Peer) {
            let (branch, number) = (call.branch(), call.next(Side::Peer));
            let bytes = call.request(Side::Peer, "INFO", number, &branch, true, "", "").into_bytes();
            self.shift_in(&bytes);
            self.ring.push_back((Direction::Ingress, inject.peer, bytes));
        }
        let moved = Some(Refusal::Moved).filter(|_| self.peer_moves_on && inject.side == Side::Peer);
        let result = self.refused.or(moved).map_or_else(|| self.kernel.inject(self.now, &inject), Err);
        if let Err(refusal) = result {
            return self.engine.handle_command(self.now, Command::Refused { token: inject.token, refusal });
        }
        self.ring.push_back((Direction::Egress, inject.peer, inject.bytes.clone()));
        let message = Message::scan(&inject.bytes, false).expect("SIP");
        let method = message.request_method().expect("a request");
        if inject.side == Side::Peer {
            return self.tell(method, &inject);
        }
        self.at_peer(method, &inject.bytes, true);
        if matches!(method, MethodName::Invite | MethodName::Update) {
            let copy = self.seen.last().is_some_and(|seen| seen.copy);
            if inject.commit.is_some() {
                self.step(Step::AfterCommit);
            }
            if !copy {
                let reply = self.replies.pop_front().unwrap_or_else(|| self.usual.clone());
                self.reply(&inject.bytes, &reply);
            }
        } else if method == MethodName::Cancel {
            self.reply(&inject.bytes, &Reply::Status(200, ""));
        } else if method == MethodName::Bye {
            if inject.commit.is_some() {
                self.step(Step::AfterCommit);
            }
            if !self.seen.last().is_some_and(|seen| seen.copy) {
                let reply = self.bye_replies.pop_front().unwrap_or(Reply::Status(200, ""));
                self.reply(&inject.bytes, &reply);
            }
        }
    }

    /// The server gets a request of sipst's in the peer's name, and answers an INVITE.
    fn tell(&mut self, method: MethodName, inject: &Inject) {
        let message = Message::scan(&inject.bytes, false).expect("SIP");
        let number = message.cseq().expect("CSeq").number;
        let raises = !matches!(method, MethodName::Ack | MethodName::Cancel);
        self.at_server(&inject.bytes, number, raises);
        let branch = message.top_via().and_then(|via| via.branch).map(String::from_utf8_lossy).expect("a branch");
        let copy = self.told.iter().any(|seen| seen.branch == branch && seen.method == method);
        let text = String::from_utf8_lossy(&inject.bytes).into_owned();
        self.told.push(Seen { at: self.now, method, number, branch: branch.into_owned(), text, ours: true, copy });
        if method == MethodName::Invite && !copy {
            let reply = self.server_replies.pop_front().unwrap_or(Reply::Ok);
            self.reply(&inject.bytes, &reply);
        } else if method == MethodName::Bye && !copy {
            let reply = self.server_bye_replies.pop_front().unwrap_or(Reply::Status(200, ""));
            self.reply(&inject.bytes, &reply);
        }
    }

    /// The peer answers a request of sipst's own, or the server one in the peer's name.
    pub fn reply(&mut self, request: &[u8], reply: &Reply) {
        let message = Message::scan(request, false).expect("SIP");
        let invite = message.request_method() == Some(MethodName::Invite);
        let told = message.top_via().and_then(|via| via.peer_token()).is_some();
        let usual = || match told {
            true => (manners(Side::Server, false), sdp(Side::Server)),
            false => (manners(Side::Peer, true) + self.expires, if invite { sdp(Side::Peer) } else { String::new() }),
        };
        let mut from: SocketAddr = text::PEER.parse().expect("an address");
        if matches!(reply, Reply::Foreign | Reply::ForeignRings) {
            from.set_ip("203.0.113.66".parse().expect("an address"));
        }
        let (status, (extra, body)) = match reply {
            Reply::OkToInvite if !invite => return,
            Reply::Ok | Reply::OkToInvite | Reply::Foreign => (200, usual()),
            Reply::OkWith(extra, body) => (200, (extra.clone(), body.clone())),
            Reply::Status(status, extra) => (*status, (extra.to_string(), String::new())),
            Reply::Rings | Reply::ForeignRings => (100, Default::default()),
            Reply::Silence => return,
        };
        let head = |name: &str| {
            let text = String::from_utf8_lossy(request).into_owned();
            text.lines().find(|line| line.starts_with(name)).map(|line| format!("{line}\r\n")).expect("a header")
        };
        let [via, sender, to, call_id, cseq] = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].map(head);
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let length = body.len();
        let text = format!(
            "SIP/2.0 {status} Because\r\n{via}{sender}{to}{call_id}{cseq}{extra}{kind}Content-Length: {length}\r\n\r\n{body}"
        );
        if told {
            return self.ring.push_back((Direction::Egress, from, text.into_bytes()));
        }
        self.tape.push((self.now, Direction::Ingress, text.clone().into_bytes()));
        self.ring.push_back((Direction::Ingress, from, text.into_bytes()));
    }

    /// The same answer to a request that was seen already, again.
    pub fn reply_again(&mut self, seen: &Seen, reply: &Reply) {
        self.reply(seen.text.clone().as_bytes(), reply);
        self.settle();
    }

    fn step(&mut self, step: Step) {
        if self.interject.as_ref().is_some_and(|(at, _)| *at == step) {
            let (_, mut call) = self.interject.take().expect("one");
            let (branch, number) = (call.branch(), call.next(Side::Server));
            let text = call.request(Side::Server, "INFO", number, &branch, true, "", "");
            self.wire_unread(text.into_bytes());
        }
    }

    /// The server sends media from there.
    pub fn rtp(&mut self, from: &str) {
        if let Some(seen) = self.flows.get_mut(&from.parse().expect("an address")) {
            seen.left = Some(self.now);
        }
    }

    /// Media come in for the server there.
    pub fn rtp_in(&mut self, to: &str) {
        if let Some(seen) = self.flows.get_mut(&to.parse().expect("an address")) {
            seen.came = Some(self.now);
        }
    }

    fn media_seen(&self, media: &[SocketAddr]) -> MediaSeen {
        let of = |flow| *self.flows.get(flow).expect("a flow that is watched");
        media.iter().map(of).fold(MediaSeen::default(), MediaSeen::or_later)
    }

    // Time

    /// Lets time pass, with all that is due on the way.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.timeout.filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
        self.engine.handle_timeout(self.now);
        self.settle();
    }

    pub fn secs(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    pub fn command(&mut self, command: Command) {
        self.engine.handle_command(self.now, command);
        self.settle();
    }

    // The end of the daemon

    /// The daemon dies and leaves what it has written; after `outage` a new one takes over, which is told what the ring has.
    pub fn restart(&mut self, disk: &Disk, outage: Duration) -> Vec<Restored> {
        let seed = self.config.seed + 1;
        let (engine, restored) = disk.restore(EngineConfig { seed, ..self.config.clone() });
        self.config.seed = seed;
        self.go_on_with(engine);
        self.now = self.now + outage;
        self.settle();
        self.command(Command::Outage);
        restored
    }

    /// Another daemon has this engine. It begins with no flow that is watched.
    pub fn go_on_with(&mut self, engine: Engine) {
        self.engine = engine;
        self.flows.clear();
        self.marks.clear();
    }

    // What came of it

    pub fn kinds(&self) -> Vec<EventKind> {
        self.events.iter().map(|event| event.kind).collect()
    }

    pub fn count(&self, kind: EventKind) -> usize {
        self.events.iter().filter(|event| event.kind == kind).count()
    }

    /// The last event of a kind.
    pub fn last(&self, kind: EventKind) -> &Event {
        self.events
            .iter()
            .rev()
            .find(|event| event.kind == kind)
            .unwrap_or_else(|| panic!("no {kind:?} in {:?}", self.kinds()))
    }

    /// The reasons of a kind's events, their details left out.
    pub fn reasons(&self, kind: EventKind) -> Vec<String> {
        let of = self.events.iter().filter(|event| event.kind == kind);
        of.map(|event| event.reason.as_deref().unwrap_or("").split(':').next().unwrap_or("").to_string()).collect()
    }

    /// Refreshes of sipst's own that the peer got, copies left out.
    pub fn ours(&self) -> Vec<&Seen> {
        let refreshes = |seen: &&Seen| matches!(seen.method, MethodName::Invite | MethodName::Update);
        self.seen.iter().filter(|seen| seen.ours && !seen.copy).filter(refreshes).collect()
    }

    /// Their methods.
    pub fn methods(&self) -> Vec<MethodName> {
        self.ours().iter().map(|seen| seen.method).collect()
    }

    /// No peer ever got a number that it would refuse.
    pub fn assert_numbers(&self) {
        assert_eq!(self.violations, Vec::<String>::new());
    }
}
