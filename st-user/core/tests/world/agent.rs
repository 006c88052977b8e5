//! A user agent: one dialog, its transactions over UDP (RFC 3261, section 17), and what its stack does with them.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    sip::{Msg, Party, Verb, sdp},
    stacks::{First, OnUpdate, Stack, Stale},
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
        let served = served.flat_map(|one| [one.answers, one.copy, one.answer.is_some().then_some(one.since + TRANSACTION)]);
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
        let Some(answer) = served.answer.as_ref().filter(|_| !served.acked && served.request.verb == Verb::Invite) else {
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
            || self.clients.iter().any(|client| {
                client.stage != Stage::Done && matches!(client.msg.verb, Verb::Invite | Verb::Update)
            })
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

    // What it hears

    pub(crate) fn hear(&mut self, now: Us, msg: &Msg) {
        if matches!(self.life, Life::Over(_, Why::Crashed)) {
            return;
        }
        if msg.is_request() { self.asked(now, msg) } else { self.answered(now, msg) }
    }

    fn answered(&mut self, now: Us, msg: &Msg) {
        let of = |client: &Client| client.msg.branch() == msg.branch() && client.msg.verb == msg.verb;
        let Some(at) = self.clients.iter().position(of) else {
            let Msg { status, verb, number, .. } = msg;
            return self.diary.oddities.push(format!("a stray {status} to {verb:?} {number}"));
        };
        let client = &mut self.clients[at];
        if client.msg.number != msg.number {
            let told = format!("an answer to {} for {}", msg.number, client.msg.number);
            return self.diary.oddities.push(told);
        }
        if msg.status < 200 {
            if client.stage == Stage::Calling {
                client.stage = Stage::Proceeding;
                client.copy = client.copy.filter(|_| msg.verb != Verb::Invite);
                client.gap = T2;
            }
            return;
        }
        let first = std::mem::replace(&mut client.stage, Stage::Done) != Stage::Done;
        if msg.verb == Verb::Invite && msg.status >= 300 {
            let ack = Msg { verb: Verb::Ack, to: msg.to.clone(), body: String::new(), ..client.msg.clone() };
            self.out.push(Msg { contact: None, expires: None, allows_update: None, ..ack });
        }
        match (first, msg.status) {
            (true, 200..300) => self.succeeded(now, at, msg),
            (true, _) => self.failed(now, at, msg.status, Some(msg)),
            // A copy, or one that comes after its time.
            (false, 200..300) if msg.verb == Verb::Invite => {
                if self.clients[at].ack.is_none() {
                    self.acknowledge(at);
                } else {
                    self.out.extend(self.clients[at].ack.clone());
                }
            }
            (false, _) => {}
        }
    }

    fn acknowledge(&mut self, at: usize) {
        let number = self.clients[at].msg.number;
        let ack = self.request(Verb::Ack, number, String::new());
        self.out.push(ack.clone());
        self.clients[at].ack = Some(ack);
    }

    fn succeeded(&mut self, now: Us, at: usize, msg: &Msg) {
        let (purpose, body) = (self.clients[at].purpose, self.clients[at].msg.body.clone());
        if purpose == Purpose::Setup {
            self.remote_tag = msg.to.tag.clone();
            self.routes = msg.record_routes.iter().rev().cloned().collect();
            self.life = Life::Up;
        }
        if matches!(msg.verb, Verb::Invite | Verb::Update) {
            self.target = msg.contact.clone().unwrap_or_else(|| self.target.clone());
            self.remote_updates = msg.allows_update.unwrap_or(self.remote_updates);
            if !body.is_empty() {
                self.holding = body.contains("sendonly");
                self.sdp = body;
                self.remote_sdp.clone_from(&msg.body);
            }
            if msg.verb == Verb::Invite {
                self.acknowledge(at);
            }
            let asked = self.clients[at].msg.expires;
            self.agreed_as_uac(now, asked, msg.expires);
        } else if msg.verb == Verb::Bye {
            self.diary.bye = Some(msg.status);
        }
    }

    fn failed(&mut self, now: Us, at: usize, status: u16, msg: Option<&Msg>) {
        let Client { purpose, msg: asked, .. } = &self.clients[at];
        let (purpose, verb, seconds) = (*purpose, asked.verb, asked.expires.map_or(0, |expires| expires.seconds));
        match purpose {
            Purpose::Setup => {
                let least = msg.and_then(|msg| msg.min_se).filter(|least| status == 422 && *least > seconds);
                if let Some(least) = least {
                    self.told_min = least;
                    self.ask(now, Verb::Invite, Purpose::Setup, self.sdp.clone());
                } else {
                    self.life = Life::Over(now, Why::NoSetup);
                }
            }
            Purpose::Refresh | Purpose::Change => {
                self.diary.turned_down += u32::from(purpose == Purpose::Refresh);
                self.diary.glare += u32::from(status == 491);
                self.refresh_failed(now, purpose, verb, status, msg);
            }
            Purpose::Other if verb == Verb::Bye => self.diary.bye = Some(status),
            Purpose::Other => {}
        }
    }

    fn asked(&mut self, now: Us, msg: &Msg) {
        if msg.verb == Verb::Ack {
            return self.acked(msg);
        }
        if let Some(known) = self.served.iter().find(|one| one.request.branch() == msg.branch() && one.request.verb == msg.verb)
        {
            return self.out.extend(known.answer.clone());
        }
        if msg.to.tag.is_none() {
            if msg.verb == Verb::Invite && self.life == Life::Idle {
                self.rings(now, msg);
            }
            return;
        }
        if msg.to.tag.as_ref() != Some(&self.tag) || matches!(self.life, Life::Over(..) | Life::Idle) {
            return self.reply(now, msg, 481, |_| {});
        }
        if let Some(high) = self.remote_high.filter(|high| msg.number <= *high) {
            self.diary.stale += 1;
            match if msg.number == high { self.stack.equal } else { self.stack.lower } {
                Stale::Accepts => {}
                Stale::Refuses => return self.reply(now, msg, 500, |_| {}),
                Stale::Ignores => return,
            }
        }
        self.remote_high = self.remote_high.max(Some(msg.number));
        match msg.verb {
            Verb::Bye => {
                self.reply(now, msg, 200, |_| {});
                self.life = Life::Over(now, Why::RemoteBye);
            }
            Verb::Invite | Verb::Update => self.offered(now, msg),
            Verb::Info | Verb::Options | Verb::Ack | Verb::Cancel => self.reply(now, msg, 200, |_| {}),
        }
    }

    fn acked(&mut self, msg: &Msg) {
        let of = |one: &&mut Served| one.request.verb == Verb::Invite && one.request.number == msg.number;
        match self.served.iter_mut().find(of) {
            Some(served) => served.acked = true,
            None => self.diary.oddities.push(format!("an ACK for {}, which no INVITE had", msg.number)),
        }
        if self.stack.ack_lowers {
            self.remote_high = self.remote_high.min(Some(msg.number));
        }
    }

    /// The INVITE that makes the dialog.
    fn rings(&mut self, now: Us, msg: &Msg) {
        if let Some(status) = self.too_small(msg) {
            let least = self.min_se;
            return self.reply(now, msg, status, |answer| answer.min_se = Some(least));
        }
        self.life = Life::Setup;
        self.remote_tag.clone_from(&msg.from.tag);
        self.remote_uri.clone_from(&msg.from.uri);
        self.target = msg.contact.clone().unwrap_or_default();
        self.routes.clone_from(&msg.record_routes);
        self.remote_high = Some(msg.number);
        if self.stack.first == First::Two {
            // LiveKit counts on from the INVITE that it got.
            self.next = msg.number + 1;
        }
        self.remote_updates = msg.allows_update.unwrap_or(false);
        let after = self.rng.random_range(200 * MS..3 * S);
        self.begin_answer(now, msg, after);
        let mut ringing = msg.response(180, &self.tag);
        ringing.contact = Some(self.contact());
        self.out.push(ringing);
    }

    fn begin_answer(&mut self, now: Us, msg: &Msg, after: Us) {
        self.out.push(msg.response(100, &self.tag));
        let (request, answers) = (msg.clone(), Some(now + after));
        self.served.push(Served { request, answer: None, answers, copy: None, gap: T1, since: now, acked: false });
    }

    /// An INVITE or UPDATE inside the dialog.
    fn offered(&mut self, now: Us, msg: &Msg) {
        let version = |sdp: &str| sdp.lines().find(|line| line.starts_with("o=")).map(str::to_string);
        if !msg.body.is_empty() && msg.body != self.remote_sdp && version(&msg.body) == version(&self.remote_sdp) {
            self.diary.oddities.push("another SDP with the same version".into());
        }
        let pending = self.served.iter().any(|one| one.request.verb == Verb::Invite && one.answer.is_none());
        let asking = self.clients.iter().any(|one| one.stage != Stage::Done && one.msg.verb == Verb::Invite);
        if msg.verb == Verb::Invite && pending {
            return self.reply(now, msg, 500, |answer| answer.retry_after = Some(2));
        }
        if asking && !msg.body.is_empty() {
            self.diary.glare += 1;
            return self.reply(now, msg, 491, |_| {});
        }
        if msg.verb == Verb::Update {
            match self.stack.on_update {
                OnUpdate::Accepts => {}
                OnUpdate::Refuses(status) => return self.reply(now, msg, status, |_| {}),
                OnUpdate::Swallows => return,
            }
        }
        // A challenge stays until it is answered.
        let answered = self.refusals.first() == Some(&401) && msg.digest;
        if answered {
            self.refusals.remove(0);
        } else if msg.expires.is_some() && !self.refusals.is_empty() {
            let status = self.refusals[0];
            if status != 401 {
                self.refusals.remove(0);
            }
            self.diary.refused.push(status);
            let least = msg.expires.map_or(0, |expires| expires.seconds) + 10;
            if status == 422 {
                self.min_se = self.min_se.max(least);
            }
            return self.reply(now, msg, status, |answer| {
                answer.digest = status == 401;
                answer.min_se = (status == 422).then_some(least);
                answer.retry_after = (status == 503).then_some(3);
            });
        }
        if let Some(status) = self.too_small(msg) {
            let least = self.min_se;
            return self.reply(now, msg, status, |answer| answer.min_se = Some(least));
        }
        if msg.verb == Verb::Invite {
            let after = self.rng.random_range(10 * MS..2 * S);
            return self.begin_answer(now, msg, after);
        }
        self.target = msg.contact.clone().unwrap_or_else(|| self.target.clone());
        let (expires, requires, allows) = (self.agreed_as_uas(now, msg), msg.supports_timer, self.lists_update());
        let contact = self.contact();
        self.reply(now, msg, 200, |answer| {
            answer.contact = Some(contact);
            answer.expires = expires;
            answer.requires_timer = expires.is_some() && requires;
            answer.allows_update = Some(allows);
        });
    }

    fn too_small(&self, msg: &Msg) -> Option<u16> {
        let asked = msg.expires.filter(|_| msg.supports_timer && self.stack.asks);
        asked.filter(|expires| expires.seconds < self.min_se).map(|_| 422)
    }

    /// A 200 to an INVITE.
    fn accept(&mut self, now: Us, at: usize) {
        if matches!(self.life, Life::Over(..)) {
            self.served[at].acked = true;
            return;
        }
        let request = self.served[at].request.clone();
        self.life = Life::Up;
        self.target = request.contact.clone().unwrap_or_else(|| self.target.clone());
        self.remote_updates = request.allows_update.unwrap_or(self.remote_updates);
        self.remote_sdp.clone_from(&request.body);
        let inside = request.to.tag.is_some();
        if self.stack.moves_media && inside {
            self.port += 2;
        }
        let flow = match request.body.lines().find_map(|line| line.strip_prefix("a=send")) {
            _ if self.stack.ignores_hold => "sendrecv",
            Some("only") => "recvonly",
            _ if self.holding => "sendonly",
            _ => "sendrecv",
        };
        if self.describe(self.version, flow) != self.sdp {
            self.version += 1;
            self.sdp = self.describe(self.version, flow);
        }
        let expires = self.agreed_as_uas(now, &request);
        let mut answer = request.response(200, &self.tag);
        answer.contact = Some(self.contact());
        answer.allows_update = Some(self.lists_update());
        answer.supports_timer = self.stack.lists_timer;
        answer.expires = expires;
        answer.requires_timer = expires.is_some() && request.supports_timer;
        answer.body.clone_from(&self.sdp);
        self.out.push(answer.clone());
        let served = &mut self.served[at];
        (served.answer, served.since, served.copy) = (Some(answer), now, Some(now + T1));
    }

    /// A final response at once.
    fn reply(&mut self, now: Us, msg: &Msg, status: u16, dress: impl FnOnce(&mut Msg)) {
        let mut answer = msg.response(status, &self.tag);
        dress(&mut answer);
        self.out.push(answer.clone());
        let (request, copy) = (msg.clone(), (msg.verb == Verb::Invite).then_some(now + T1));
        let answer = Some(answer);
        self.served.push(Served { request, answer, answers: None, copy, gap: T1, since: now, acked: false });
    }
}
