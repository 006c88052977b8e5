//! The engine: a course of packets from both sides, answers of the kernel's and time, around a dialog that is up.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use st_core::{
    Action, Arm, AssumeMode, Command, Credentials, Datagram, Direction, Engine, Inject, MediaSeen, Method, OnExpired,
    OnMoved, Output, Packet, Policy, Refusal, Respond, Rules, SessionId, Side, Time,
    engine::{EngineConfig, Limits, Mode},
    message::{Body, Message, MethodName},
};
use st_ebpf::cseq::State;

use crate::input::Input;

const SERVER: &str = "192.0.2.10:5060";
const PEER: &str = "198.51.100.20:5060";
const STRANGER: &str = "203.0.113.66:5060";

/// Steps of one course.
const STEPS: usize = 80;

/// Outputs after one step, at most: each timer that is due has a few, and each of ours may be answered at once.
const OUTPUTS: usize = 10_000;

/// Header lines that a message may have beside those that every one has.
const LINES: [&str; 16] = [
    "Session-Expires: 90;refresher=uac\r\n",
    "Session-Expires: 90;refresher=uas\r\n",
    "x: 1800\r\n",
    "Session-Expires: 4294967295;refresher=uac\r\n",
    "Session-Expires: 0;refresher=uas\r\n",
    "Min-SE: 120\r\n",
    "Min-SE: 4294967295\r\n",
    "Supported: timer, 100rel\r\nRequire: 100rel\r\nRSeq: 7\r\n",
    "Allow: INVITE, ACK, BYE\r\n",
    "Allow: INVITE, ACK, BYE, UPDATE\r\n",
    "Contact: <sip:other@198.51.100.99:5070>\r\n",
    "Record-Route: <sip:198.51.100.20;lr>, <sip:p2.example>\r\n",
    "Route: <sip:198.51.100.20>\r\n",
    "Retry-After: 5\r\n",
    "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n",
    "Via: SIP/2.0/UDP 192.0.2.99;branch=z9hG4bKbelow\r\n",
];

/// Names of header lines whose value the fuzzer writes.
const NAMES: [&str; 16] = [
    "Session-Expires",
    "Min-SE",
    "Contact",
    "Record-Route",
    "Route",
    "Allow",
    "Supported",
    "Require",
    "Retry-After",
    "Proxy-Authenticate",
    "Content-Type",
    "Content-Length",
    "Reason",
    "Via",
    "User-Agent",
    "To",
];

const METHODS: [&str; 9] = ["INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "PRACK", "INFO", "NOTIFY", "OPTIONS"];

const STATUSES: [u16; 16] = [100, 180, 183, 200, 202, 302, 401, 405, 407, 408, 422, 481, 487, 491, 500, 603];

const ACTIONS: [Action; 4] = [Action::Refresh, Action::Refresh, Action::Alert, Action::Observe];

/// The first bytes make policy, limits and the dialog; then each step is a byte and what it needs.
pub fn engine(data: &[u8]) {
    let mut input = Input::new(data);
    let mut course = Course::new(&mut input);
    course.establish(&mut input);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        course.step(&mut input);
    }
    course.wind_up();
}

struct Course {
    engine: Engine,
    mode: Mode,
    rules: Rules,
    limits: Limits,
    now: Time,
    timeout: Option<Time>,
    /// Whether [`Output::Arm`] is answered at once, with what the engine proposes.
    honest: bool,
    sent: Vec<Inject>,
    armed: Vec<Arm>,
    /// Media flows that are watched.
    flows: HashSet<SocketAddr>,
    /// When any of them was last seen.
    media_seen: Time,
    /// Dialogs that are marked, by Call-ID and the peer's tag.
    marks: HashSet<(Vec<u8>, Vec<u8>)>,
    /// What was held back last.
    held: Vec<u8>,
    /// Tokens on record: put there by a request, taken away once.
    tokens: HashSet<u64>,
    retired: HashSet<u64>,
    /// Dialogs of which the kernel may follow that side's numbers.
    followed: HashSet<(SessionId, Side)>,
    /// Those of them that it follows because the engine asked: each is given up in the end.
    owed: HashSet<(SessionId, Side)>,
}

impl Course {
    fn new(input: &mut Input<'_>) -> Self {
        let setup = input.byte();
        let mode = if setup & 0x0f == 0x0f { Mode::Replay } else { Mode::Live };
        let limits = match setup >> 4 {
            0 => Limits {
                sessions: 1,
                pending: 1,
                strangers: 1,
                remembered: 1,
                waiting: 1,
                flows: 1,
                keepalives: 1,
                unpacked: 1,
            },
            1 => Limits {
                sessions: 2,
                pending: 2,
                strangers: 2,
                remembered: 1,
                waiting: 1,
                flows: 1,
                keepalives: 1,
                unpacked: 1,
            },
            _ => Limits {
                sessions: 64,
                pending: 16,
                strangers: 16,
                remembered: 4,
                waiting: 4,
                flows: 8,
                keepalives: 8,
                unpacked: 0,
            },
        };
        let rules = Rules {
            action: input.pick(&ACTIONS),
            method: input.pick(&[Method::Auto, Method::Update, Method::Reinvite]),
            min_se: Duration::from_secs(input.pick(&[90, 0, 1_800])),
            interval_floor: Duration::from_secs(input.pick(&[4, 90])),
            credentials: Some(Credentials { username: "u".into(), password: "p".into() }),
            strict_r12: input.flag(),
            on_moved: OnMoved::TellServer,
            take_over: setup & 1 == 1,
            respond: Respond::OnReject,
            on_expired: OnExpired::Bye,
            mode: if setup & 4 == 4 { AssumeMode::HandOff } else { AssumeMode::Hold },
            assume_interval: (setup & 2 == 2).then(|| Duration::from_secs(120)),
            keepalive: (setup & 8 == 8).then(|| Duration::from_secs(30)),
            ..Rules::default()
        };
        let policy = Arc::new(Policy { default: rules.clone(), ..Policy::default() });
        Self {
            engine: Engine::new(EngineConfig { policy, mode, seed: 1, limits }),
            mode,
            rules,
            limits,
            now: Time::from_micros(1_000_000_000),
            timeout: None,
            honest: !input.flag(),
            sent: Vec::new(),
            armed: Vec::new(),
            flows: HashSet::new(),
            marks: HashSet::new(),
            held: Vec::new(),
            media_seen: Time::from_micros(1_000_000_000),
            tokens: HashSet::new(),
            retired: HashSet::new(),
            followed: HashSet::new(),
            owed: HashSet::new(),
        }
    }

    /// A call that is up, whose refresher is the server.
    fn establish(&mut self, input: &mut Input<'_>) {
        let caller = input.pick(&[Side::Server, Side::Peer]);
        let expires = match caller {
            Side::Server => LINES[0],
            Side::Peer => LINES[1],
        };
        let expires = match input.byte() & 3 {
            0 | 1 => expires,
            2 => "",
            _ => "Session-Expires: 6;refresher=uac\r\n",
        };
        let call = Talk { caller, ..Talk::default() };
        let manners = |side: Side| format!("{}{}", contact(side), LINES[9]);
        let (asks, answers) = (manners(caller), manners(caller.other()) + expires);
        let invite = Talk { tagged: false, extra: asks.into_bytes(), body: sdp(caller), ..call.clone() };
        self.wire(caller, &invite.request("INVITE"));
        let ok = Talk { extra: answers.into_bytes(), body: sdp(caller.other()), ..call.clone() };
        self.wire(caller.other(), &ok.response(200, "INVITE"));
        self.wire(caller, &Talk { branch: 1, ..call }.request("ACK"));
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=4 => {
                let (side, talk) = self.talk(input);
                let bytes = talk.request(input.pick(&METHODS));
                self.spoil(input, side, bytes);
            }
            5..=7 => {
                let (side, talk) = self.talk(input);
                let status = input.pick(&STATUSES);
                let bytes = talk.response(status, input.pick(&METHODS));
                self.spoil(input, side, bytes);
            }
            8 => {
                let side = input.pick(&[Side::Server, Side::Peer]);
                let bytes = input.bytes().to_vec();
                self.wire(side, &bytes);
            }
            9 => {
                let seconds = match input.byte() {
                    most @ ..250 => u64::from(most),
                    longest => u64::from(longest - 249) * 40_000,
                };
                self.now = self.now + Duration::from_secs(seconds);
                self.wake();
            }
            10 | 11 => {
                if let Some(at) = self.timeout {
                    self.now = self.now.max(at);
                    self.wake();
                }
            }
            12 | 13 => self.answer(input),
            14 => self.kernel(input),
            _ => {
                self.rules.action = input.pick(&ACTIONS);
                let policy = Policy { default: self.rules.clone(), ..Policy::default() };
                self.engine.set_policy(Arc::new(policy));
                self.drain();
            }
        }
    }

    /// What a message of the dialog, or of one like it, says.
    fn talk(&mut self, input: &mut Input<'_>) -> (Side, Talk) {
        let (kind, side) = (input.byte(), input.pick(&[Side::Server, Side::Peer]));
        let mut talk = Talk {
            caller: input.pick(&[Side::Server, Side::Peer]),
            call: if kind & 0x30 == 0x30 { input.byte() & 3 } else { 0 },
            tagged: kind & 0x0f != 0,
            fork: if kind & 0xc0 == 0xc0 { input.byte() & 7 } else { 0 },
            branch: u32::from(input.byte() & 7),
            number: match input.byte() {
                small @ ..250 => u32::from(small),
                _ => input.word(),
            },
            ..Talk::default()
        };
        let wanted = u16::from(input.byte()) << 8 | u16::from(input.byte());
        for (at, line) in LINES.iter().enumerate().filter(|(at, _)| wanted >> at & 1 == 1) {
            debug_assert!(at < 16);
            talk.extra.extend_from_slice(line.as_bytes());
        }
        match input.byte() & 7 {
            0..=2 => {}
            3 | 4 => {
                talk.extra.extend_from_slice(contact(side).as_bytes());
                talk.body = sdp(side);
            }
            5 => {
                talk.body = [&sdp(side), input.bytes()].concat();
            }
            _ => {
                let name = input.pick(&NAMES);
                talk.extra.extend_from_slice(name.as_bytes());
                talk.extra.extend_from_slice(b": ");
                talk.extra.extend_from_slice(input.bytes());
                talk.extra.extend_from_slice(b"\r\n");
            }
        }
        (side, talk)
    }

    /// Sends it as it is, or with a few other bytes, or cut.
    fn spoil(&mut self, input: &mut Input<'_>, side: Side, mut bytes: Vec<u8>) {
        match input.byte() {
            0..200 => {}
            200..230 => {
                let at = (usize::from(input.byte()) << 4 | usize::from(input.byte() & 15)) % bytes.len();
                let new = input.bytes();
                let end = (at + new.len()).min(bytes.len());
                bytes.splice(at..end, new.iter().copied());
            }
            _ => {
                let at = (usize::from(input.byte()) << 4 | usize::from(input.byte() & 15)) % bytes.len();
                bytes.truncate(at);
                return self.packet(side, PEER, &bytes, true);
            }
        }
        self.packet(side, if input.byte() == 255 { STRANGER } else { PEER }, &bytes, false);
    }

    /// The peer answers one of ours, or it is only seen leaving.
    fn answer(&mut self, input: &mut Input<'_>) {
        let Some(last) = self.sent.len().checked_sub(1 + usize::from(input.byte() & 1)) else { return };
        let request = self.sent[last].bytes.clone();
        let how = input.byte();
        if how & 3 != 0 {
            self.wire(Side::Server, &request);
        }
        if how & 7 == 7 {
            return;
        }
        let status = input.pick(&STATUSES);
        let mut text = format!("SIP/2.0 {status} Because\r\n").into_bytes();
        for line in request.split_inclusive(|&b| b == b'\n') {
            let named = [&b"Via:"[..], b"From:", b"To:", b"Call-ID:", b"CSeq:"];
            if named.iter().any(|name| line.starts_with(name)) {
                text.extend_from_slice(line);
            }
        }
        let wanted = u16::from(input.byte()) << 8 | u16::from(input.byte());
        for (_, line) in LINES.iter().enumerate().filter(|(at, _)| wanted >> at & 1 == 1) {
            text.extend_from_slice(line.as_bytes());
        }
        let body = if how & 8 == 8 { [&sdp(Side::Peer), input.bytes()].concat() } else { Vec::new() };
        text.extend_from_slice(
            format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        );
        text.extend_from_slice(&body);
        self.spoil(input, Side::Peer, text);
    }

    /// The kernel or the driver says something, asked or not.
    fn kernel(&mut self, input: &mut Input<'_>) {
        let refusal = input.pick(&Refusal::ALL);
        let command = match input.byte() & 7 {
            0 => match input.byte() {
                0 => Command::Blind,
                packets => Command::Loss { packets: u64::from(packets) },
            },
            1 => match self.sent.last() {
                Some(sent) => Command::Refused { token: sent.token, refusal },
                None => return,
            },
            how => {
                let (session, side) = match self.armed.last() {
                    Some(arm) if how > 2 => (arm.session, arm.side),
                    _ => (SessionId(u64::from(input.byte() & 7)), Side::Server),
                };
                let state = State { known: input.flag(), number: input.word() >> 1, delta: input.word() >> 8 };
                if how & 1 == 1 {
                    Command::Armed { session, side, result: Err(refusal) }
                } else {
                    Command::Armed { session, side, result: Ok(state) }
                }
            }
        };
        self.command(command);
    }

    fn command(&mut self, command: Command) {
        if let Command::Armed { session, side, result: Ok(_) } = command
            && self.engine.knows(session)
        {
            self.followed.insert((session, side));
        }
        self.engine.handle_command(self.now, command);
        self.drain();
    }

    fn wire(&mut self, side: Side, bytes: &[u8]) {
        self.packet(side, PEER, bytes, false);
    }

    fn packet(&mut self, side: Side, peer: &str, bytes: &[u8], truncated: bool) {
        let packet = packet(side, peer, u64::from(side == Side::Server), bytes, truncated);
        let refuses =
            [&b"SIP/2.0 405 "[..], b"SIP/2.0 420 ", b"SIP/2.0 488 ", b"SIP/2.0 500 ", b"SIP/2.0 501 ", b"SIP/2.0 503 "];
        let is_held = side == Side::Server && !truncated && refuses.iter().any(|refuses| bytes.starts_with(refuses));
        if is_held && !self.marks.is_empty() {
            self.held = bytes.to_vec();
            self.engine.handle_held(self.now, &packet);
        } else {
            self.engine.handle_packet(self.now, &packet);
        }
        self.drain();
    }

    /// What leaves as it is: what was held back, or one whole message in its place.
    fn send(&mut self, datagram: Datagram) {
        let Datagram { session, server, peer, bytes, .. } = datagram;
        assert_eq!(server.to_string(), SERVER);
        if !self.honest
            && let Some(session) = session
        {
            return self.engine.handle_command(self.now, Command::Unsent { session, refusal: Refusal::Send });
        }
        let Ok(message) = Message::scan(&bytes, false) else {
            return assert_eq!(bytes, self.held, "it is no message, and was not held back either");
        };
        let text = bytes.escape_ascii();
        let is_held = message.status().is_some_and(|status| [405, 420, 488, 501, 503].contains(&status));
        if !is_held && bytes != self.held {
            assert_eq!(self.rules.action, Action::Refresh, "nobody has asked for an answer: {text}");
            assert!(message.cseq().is_some() && message.top_via().is_some() && message.body() != Body::Cut, "{text}");
        }
        let peer = peer.to_string();
        let side = if message.status().is_some() { Side::Server } else { Side::Peer };
        self.engine
            .handle_packet(self.now, &packet(side, &peer, if side == Side::Server { 7 } else { 0 }, &bytes, false));
    }

    /// Runs the timers that are due: none may be due for ever.
    fn wake(&mut self) {
        for _ in 0..OUTPUTS {
            self.engine.handle_timeout(self.now);
            self.drain();
            if self.timeout.is_none_or(|at| at > self.now) {
                return;
            }
        }
        panic!("a timer that is due for ever");
    }

    /// Does what the engine wants, and looks at it.
    fn drain(&mut self) {
        for _ in 0..OUTPUTS {
            let output = self.engine.poll_output();
            if self.mode == Mode::Replay {
                assert!(matches!(output, Output::Event(_) | Output::Timeout(_)), "replay sends nothing: {output:?}");
            }
            match output {
                Output::Event(_) => {}
                Output::Mark(mark) => {
                    assert_eq!(self.rules.action, Action::Refresh, "nobody has asked for an answer");
                    self.marks.insert((mark.call_id, mark.tag));
                }
                Output::Unmark { call_id, tag } => {
                    assert!(self.marks.remove(&(call_id, tag)), "nothing is marked");
                }
                Output::Weigh { session, media } => {
                    assert!(media.iter().all(|flow| self.flows.contains(flow)), "{media:?} are not watched");
                    self.engine.handle_command(self.now, Command::Media { session, seen: self.media_seen() });
                    self.engine.handle_command(self.now, Command::Weighed { session });
                }
                Output::Send(datagram) => self.send(datagram),
                Output::KeepAlive(_) => {
                    assert!(self.mode == Mode::Live && self.rules.action == Action::Refresh);
                    assert!(self.rules.keepalive.is_some() && self.engine.stats().sessions > 0);
                }
                Output::Watch { flow } => assert!(self.flows.insert(flow), "{flow} is watched twice"),
                Output::Unwatch { flow } => assert!(self.flows.remove(&flow), "{flow} is not watched"),
                Output::Arm(arm) => {
                    assert!(arm.media.iter().all(|flow| self.flows.contains(flow)), "{:?} are not watched", arm.media);
                    self.is_asked_for(arm.session, arm.ends);
                    let (session, side, state) = (arm.session, arm.side, arm.state);
                    self.armed.push(arm);
                    if self.honest {
                        self.engine.handle_command(self.now, Command::Media { session, seen: self.media_seen() });
                        self.engine.handle_command(self.now, Command::Armed { session, side, result: Ok(state) });
                        if self.engine.knows(session) {
                            self.followed.insert((session, side));
                            self.owed.insert((session, side));
                        }
                    }
                }
                Output::StopAssisting { trunk } => panic!("nothing is assisted in {trunk}"),
                Output::Look { session, media } => {
                    assert!(media.iter().all(|flow| self.flows.contains(flow)), "{media:?} are not watched");
                    if self.honest {
                        self.engine.handle_command(self.now, Command::Media { session, seen: self.media_seen() });
                    }
                }
                Output::Inject(inject) => self.inject(inject),
                Output::Retire { token } => {
                    self.tokens.remove(&token);
                    assert!(self.retired.insert(token), "{token:x} is retired twice");
                }
                Output::Disarm { session, side, call_id, tag, .. } => {
                    assert!(self.followed.remove(&(session, side)), "nobody follows {session:?}");
                    self.owed.remove(&(session, side));
                    assert!(!self.engine.follows(side, &call_id, &tag), "a fork of {session:?} needs it");
                    // Forks that were forgotten before have needed it too.
                    let same = |arm: &&Arm| arm.side == side && arm.call_id == call_id && arm.tag == tag;
                    for Arm { session, .. } in self.armed.iter().filter(same) {
                        self.followed.remove(&(*session, side));
                        self.owed.remove(&(*session, side));
                    }
                }
                Output::Timeout(at) => {
                    self.timeout = at;
                    return self.bounds();
                }
            }
        }
        panic!("outputs without end");
    }

    /// Nothing is sent but where the rules say so, or to end what was ended for one side while they did.
    fn is_asked_for(&self, session: SessionId, ends: bool) {
        let ended = |sent: &Inject| sent.session == session && sent.bytes.starts_with(b"BYE ");
        let begun = ends && self.sent.iter().any(ended);
        assert!(self.rules.action == Action::Refresh || begun, "nobody has asked for it");
    }

    fn media_seen(&self) -> MediaSeen {
        MediaSeen { left: Some(self.media_seen), came: Some(self.media_seen) }
    }

    /// What leaves is one whole message of that dialog's, with the number that the kernel will commit.
    fn inject(&mut self, inject: Inject) {
        assert!(!self.retired.contains(&inject.token), "an answer to it would be nobody's");
        self.tokens.insert(inject.token);
        assert_eq!(inject.server.to_string(), SERVER);
        let text = inject.bytes.escape_ascii();
        let Ok(message) = Message::scan(&inject.bytes, false) else { panic!("no message: {text}") };
        assert_eq!(message.call_id(), Some(&inject.call_id[..]), "{text}");
        assert_eq!(message.from().and_then(|from| from.tag), Some(&inject.tag[..]), "{text}");
        let Some(cseq) = message.cseq() else { panic!("no number: {text}") };
        assert_eq!(Some(cseq.method), message.request_method());
        let token = message.top_via().and_then(|via| match inject.side {
            Side::Server => via.our_token(),
            Side::Peer => via.peer_token(),
        });
        assert!(token.is_some(), "{text}");
        assert!(message.body() != Body::Cut, "{text}");
        if let Some(state) = inject.commit {
            self.is_asked_for(inject.session, cseq.method == MethodName::Bye);
            assert_eq!(token, Some(inject.token));
            assert!(message.to().is_some_and(|to| to.tag.is_some()), "{text}");
            assert_eq!(cseq.number, state.next_injected());
            assert!(self.followed.contains(&(inject.session, inject.side)), "its numbers are not followed");
        }
        self.sent.push(inject);
    }

    fn bounds(&self) {
        let stats = self.engine.stats();
        assert!(stats.sessions + stats.tombstones <= self.limits.sessions);
        assert!(stats.kept_alive <= self.limits.keepalives.min(stats.sessions));
        assert!(stats.pending <= self.limits.pending && stats.strangers <= self.limits.strangers);
        assert!(stats.timed <= stats.sessions && stats.unsure <= stats.sessions);
    }

    /// Once everybody has been silent for long enough, nothing is left.
    fn wind_up(&mut self) {
        for _ in 0..4 {
            self.now = self.now + Duration::from_secs(49 * 3_600);
            self.wake();
        }
        let stats = self.engine.stats();
        assert_eq!((stats.sessions, stats.tombstones, stats.own_requests), (0, 0, 0));
        assert_eq!(self.timeout, None, "a timer of nobody's");
        assert!(self.tokens.is_empty(), "tokens that stay on record");
        assert!(self.owed.is_empty(), "dialogs that the kernel follows for ever");
        self.engine.finish(self.now);
        self.engine.close(self.now);
        self.drain();
    }
}

/// A message as one of both sides writes it.
#[derive(Clone)]
struct Talk {
    /// Who asks.
    caller: Side,
    call: u8,
    tagged: bool,
    fork: u8,
    branch: u32,
    number: u32,
    extra: Vec<u8>,
    body: Vec<u8>,
}

impl Default for Talk {
    fn default() -> Self {
        Self {
            caller: Side::Server,
            call: 0,
            tagged: true,
            fork: 0,
            branch: 0,
            number: 1,
            extra: Vec::new(),
            body: Vec::new(),
        }
    }
}

impl Talk {
    fn request(&self, method: &str) -> Vec<u8> {
        self.finish(format!("{method} sip:x@198.51.100.20 SIP/2.0\r\n"), self.tagged, method)
    }

    fn response(&self, status: u16, method: &str) -> Vec<u8> {
        self.finish(format!("SIP/2.0 {status} Because\r\n"), status > 100, method)
    }

    fn finish(&self, first: String, tagged: bool, method: &str) -> Vec<u8> {
        let Self { caller, call, fork, branch, number, extra, body, .. } = self;
        let (from, to) = match caller {
            Side::Server => ("server".to_owned(), format!("peer{fork}")),
            Side::Peer => (format!("peer{fork}"), "server".to_owned()),
        };
        let to = if tagged { format!(";tag={to}") } else { String::new() };
        let host = if *caller == Side::Server { SERVER } else { PEER };
        let head = format!(
            "{first}Via: SIP/2.0/UDP {host};branch=z9hG4bK{branch}\r\nFrom: <sip:a@x.example>;tag={from}\r\n\
             To: <sip:b@y.example>{to}\r\nCall-ID: call{call}\r\nCSeq:    {number} {method}\r\n"
        );
        let kind: &[u8] = if body.is_empty() { b"" } else { b"Content-Type: application/sdp\r\n" };
        let length = format!("Content-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), extra, kind, length.as_bytes(), body].concat()
    }
}

fn contact(side: Side) -> &'static str {
    match side {
        Side::Server => "Contact: <sip:server@192.0.2.10:5060>\r\n",
        Side::Peer => "Contact: <sip:peer@198.51.100.20:5060>\r\n",
    }
}

fn sdp(side: Side) -> Vec<u8> {
    let host = if side == Side::Server { "192.0.2.10" } else { "198.51.100.20" };
    format!("v=0\r\no=- 7 7 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n")
        .into_bytes()
}

fn packet<'a>(side: Side, peer: &str, cookie: u64, bytes: &'a [u8], truncated: bool) -> Packet<'a> {
    let address = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is an address"));
    Packet {
        direction: if side == Side::Server { Direction::Egress } else { Direction::Ingress },
        server: address(SERVER),
        peer: address(peer),
        transport: st_core::Transport::Udp,
        interface: 1,
        tos: 0,
        ttl: 64,
        cookie,
        truncated,
        bytes,
    }
}
