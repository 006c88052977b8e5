//! A user agent: one dialog, its transactions over UDP (RFC 3261, section 17), and what its stack does with them.

mod hear;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    sip::{Msg, Party, Verb, sdp},
    stacks::{First, OnUpdate, Stack},
    timer::Timer,
};

/// Microseconds since the world began.
pub(crate) type Us = u64;

pub(crate) const MS: Us = 1_000;
pub(crate) const S: Us = 1_000 * MS;
const T1: Us = 500 * MS;
const T2: Us = 4 * S;
pub(crate) const TRANSACTION: Us = 64 * T1;

/// Something that a user does, or that happens to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    HangUp,
    Info,
    Hold,
    Resume,
    /// A re-INVITE that is no refresh of its own making.
    Reinvite,
    /// The process is gone.
    Crash,
}

/// Why a dialog is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The user hung up here.
    Planned,
    /// The other side's BYE.
    RemoteBye,
    /// Nothing refreshed the session.
    Expired,
    /// No ACK came to a 2xx (R44).
    NoAck,
    /// The other side knows nothing of it.
    Unknown,
    /// It never came up.
    NoSetup,
    Crashed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Idle,
    Setup,
    Up,
    Over(Us, Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Setup,
    Refresh,
    Change,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Calling,
    Proceeding,
    Done,
}

#[derive(Debug)]
struct Client {
    msg: Msg,
    purpose: Purpose,
    began: Us,
    copy: Option<Us>,
    gap: Us,
    stage: Stage,
    ack: Option<Msg>,
}

#[derive(Debug)]
struct Served {
    request: Msg,
    answer: Option<Msg>,
    /// When an INVITE is answered.
    answers: Option<Us>,
    copy: Option<Us>,
    gap: Us,
    since: Us,
    acked: bool,
}

impl Served {
    fn is_open(&self) -> bool {
        self.request.verb == Verb::Invite && (self.answer.is_none() || !self.acked)
    }
}

/// What a test can see of how an agent fared.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    /// What nobody should ever have sent here.
    pub(crate) oddities: Vec<String>,
    /// Answers to its own BYE.
    pub(crate) bye: Option<u16>,
    /// Requests whose number was not above the last one.
    pub(crate) stale: u32,
    pub(crate) refreshes: u32,
    pub(crate) glare: u32,
    /// Final responses to its own refreshes that were no 2xx.
    pub(crate) turned_down: u32,
    /// The branch of the INVITE whose 2xx had no ACK.
    pub(crate) unacked: Option<String>,
    /// Scripted refusals given.
    pub(crate) refused: Vec<u16>,
}

pub(crate) struct Agent {
    pub(crate) stack: &'static Stack,
    pub(crate) host: String,
    pub(crate) life: Life,
    pub(crate) diary: Diary,
    /// The interval that it wants, and the least that it takes.
    pub(crate) interval: u32,
    pub(crate) min_se: u32,
    /// What it answers to the first refreshes that it gets.
    pub(crate) refusals: Vec<u16>,
    pub(crate) agenda: Vec<(Us, Act)>,
    pub(crate) timer: Option<Timer>,
    /// Since when its clock runs.
    pub(crate) since: Us,
    pub(crate) refresh_at: Option<Us>,
    pub(crate) kill_at: Option<Us>,
    /// An UPDATE was turned down, or had no answer.
    pub(crate) no_update: bool,
    pub(crate) remote_updates: bool,
    /// The highest Min-SE of a 422.
    pub(crate) told_min: u32,
    pub(crate) holding: bool,
    pub(crate) rng: StdRng,
    pub(crate) caller: bool,
    call_id: String,
    tag: String,
    remote_tag: Option<String>,
    local_uri: String,
    remote_uri: String,
    target: String,
    routes: Vec<String>,
    next: u32,
    branches: u32,
    remote_high: Option<u32>,
    sdp: String,
    version: u32,
    port: u32,
    remote_sdp: String,
    clients: Vec<Client>,
    served: Vec<Served>,
    out: Vec<Msg>,
}

impl Agent {
    pub(crate) fn new(stack: &'static Stack, host: &str, name: &str, remote: &str, call_id: &str, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let next = match stack.first {
            First::One => 1,
            First::Two => 2,
            First::Ten => 10,
            First::Random15 => rng.random_range(1..32_768),
            First::Billion => rng.random_range(500_000_000..1_500_000_000),
        };
        let plain = host.split(':').next().unwrap_or(host);
        Self {
            stack,
            host: host.into(),
            life: Life::Idle,
            diary: Diary::default(),
            interval: 90,
            min_se: 0,
            refusals: Vec::new(),
            agenda: Vec::new(),
            timer: None,
            since: 0,
            refresh_at: None,
            kill_at: None,
            no_update: false,
            remote_updates: false,
            told_min: 0,
            holding: false,
            caller: false,
            call_id: call_id.into(),
            tag: format!("{name}{:x}", rng.random::<u32>()),
            remote_tag: None,
            local_uri: format!("sip:{name}@{plain}"),
            remote_uri: format!("sip:{remote}@carrier.example"),
            target: format!("sip:{remote}@carrier.example"),
            routes: Vec::new(),
            next,
            branches: 0,
            remote_high: None,
            sdp: sdp(plain, 1, 4000, "sendrecv"),
            version: 1,
            port: 4000,
            remote_sdp: String::new(),
            clients: Vec::new(),
            served: Vec::new(),
            out: Vec::new(),
            rng,
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Msg> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.life == Life::Up
    }

    pub(crate) fn call(&mut self, now: Us) {
        self.caller = true;
        self.life = Life::Setup;
        self.ask(now, Verb::Invite, Purpose::Setup, self.sdp.clone());
    }

    // What is due

    pub(crate) fn due(&self) -> Option<Us> {
        if self.life == Life::Idle || matches!(self.life, Life::Over(_, Why::Crashed)) {
            return None;
        }
        let clients = self.clients.iter().filter(|client| client.stage != Stage::Done);
        let clients = clients.flat_map(|client| [client.copy, Some(client.began + TRANSACTION)]);
        let served = self.served.iter().filter(|served| served.is_open());
        let served =
            served.flat_map(|one| [one.answers, one.copy, one.answer.is_some().then_some(one.since + TRANSACTION)]);
        let up = self.is_up().then_some([self.refresh_at, self.kill_at]).into_iter().flatten();
        let agenda = self.is_up().then(|| self.agenda.first().map(|(at, _)| *at));
        clients.chain(served).chain(up).chain(agenda).flatten().min()
    }

    pub(crate) fn wake(&mut self, now: Us) {
        for at in 0..self.clients.len() {
            self.wake_client(now, at);
        }
        for at in 0..self.served.len() {
            self.wake_served(now, at);
        }
        if self.is_up() && self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh(now);
        }
        if self.is_up() && self.kill_at.is_some_and(|at| at <= now) {
            self.hang_up(now, Why::Expired);
        }
        while self.is_up() && self.agenda.first().is_some_and(|(at, _)| *at <= now) {
            let (_, act) = self.agenda.remove(0);
            self.act(now, act);
        }
    }

    fn wake_client(&mut self, now: Us, at: usize) {
        let client = &mut self.clients[at];
        if client.stage == Stage::Done {
            return;
        }
        if now >= client.began + TRANSACTION {
            client.stage = Stage::Done;
            return self.failed(now, at, 408, None);
        }
        if client.copy.is_some_and(|copy| copy <= now) {
            client.gap *= 2;
            if client.msg.verb != Verb::Invite {
                client.gap = client.gap.min(T2);
            }
            client.copy = Some(now + client.gap);
            self.out.push(client.msg.clone());
        }
    }

    fn wake_served(&mut self, now: Us, at: usize) {
        if self.served[at].answers.is_some_and(|answers| answers <= now) {
            self.served[at].answers = None;
            return self.accept(now, at);
        }
        let up = self.is_up();
        let served = &mut self.served[at];
        let Some(answer) = served.answer.as_ref().filter(|_| !served.acked && served.request.verb == Verb::Invite)
        else {
            return;
        };
        if now >= served.since + TRANSACTION {
            served.acked = true;
            if answer.status < 300 && up {
                self.diary.unacked = Some(served.request.branch().into());
                self.hang_up(now, Why::NoAck);
            }
        } else if served.copy.is_some_and(|copy| copy <= now) {
            served.gap = (served.gap * 2).min(T2);
            served.copy = Some(now + served.gap);
            self.out.push(answer.clone());
        }
    }

    // What the user does

    pub(crate) fn act(&mut self, now: Us, act: Act) {
        match act {
            Act::HangUp => self.hang_up(now, Why::Planned),
            Act::Crash => self.life = Life::Over(now, Why::Crashed),
            Act::Info => self.ask(now, Verb::Info, Purpose::Other, String::new()),
            Act::Hold | Act::Resume | Act::Reinvite if self.is_busy() => self.agenda.insert(0, (now + S, act)),
            Act::Hold | Act::Resume => {
                self.version += 1;
                let flow = if act == Act::Hold { "sendonly" } else { "sendrecv" };
                let body = self.describe(self.version, flow);
                self.ask(now, Verb::Invite, Purpose::Change, body);
            }
            Act::Reinvite => self.ask(now, Verb::Invite, Purpose::Change, self.sdp.clone()),
        }
        self.agenda.sort_by_key(|(at, _)| *at);
    }

    pub(crate) fn hang_up(&mut self, now: Us, why: Why) {
        self.life = Life::Over(now, why);
        self.ask(now, Verb::Bye, Purpose::Other, String::new());
    }

    /// Whether no INVITE can be sent just now (RFC 3261, section 14.1).
    pub(crate) fn is_busy(&self) -> bool {
        self.served.iter().any(Served::is_open)
            || self
                .clients
                .iter()
                .any(|client| client.stage != Stage::Done && matches!(client.msg.verb, Verb::Invite | Verb::Update))
    }

    pub(crate) fn current_sdp(&self) -> String {
        self.sdp.clone()
    }

    fn describe(&self, version: u32, flow: &str) -> String {
        sdp(self.host.split(':').next().unwrap_or_default(), version, self.port, flow)
    }

    // Requests of its own

    pub(crate) fn ask(&mut self, now: Us, verb: Verb, purpose: Purpose, body: String) {
        let number = self.next;
        self.next += 1;
        let mut msg = self.request(verb, number, body);
        if matches!(purpose, Purpose::Setup | Purpose::Refresh | Purpose::Change) {
            self.ask_timer(&mut msg);
        }
        self.out.push(msg.clone());
        let stage = Stage::Calling;
        self.clients.push(Client { msg, purpose, began: now, copy: Some(now + T1), gap: T1, stage, ack: None });
    }

    fn request(&mut self, verb: Verb, number: u32, body: String) -> Msg {
        self.branches += 1;
        let contact = matches!(verb, Verb::Invite | Verb::Update).then(|| self.contact());
        Msg {
            verb,
            status: 0,
            uri: self.target.clone(),
            vias: vec![(self.host.clone(), format!("z9hG4bK{}.{}", self.tag, self.branches))],
            routes: self.routes.clone(),
            record_routes: Vec::new(),
            from: Party { uri: self.local_uri.clone(), tag: Some(self.tag.clone()) },
            to: Party { uri: self.remote_uri.clone(), tag: self.remote_tag.clone() },
            call_id: self.call_id.clone(),
            number,
            allows_update: contact.is_some().then(|| self.lists_update()),
            contact,
            supports_timer: self.stack.lists_timer && !matches!(verb, Verb::Ack | Verb::Cancel),
            requires_timer: false,
            expires: None,
            min_se: None,
            retry_after: None,
            digest: false,
            body,
        }
    }

    fn contact(&self) -> String {
        format!("sip:{}@{}", if self.caller { "a" } else { "b" }, self.host)
    }

    fn lists_update(&self) -> bool {
        matches!(self.stack.on_update, OnUpdate::Accepts | OnUpdate::Swallows)
    }
}
