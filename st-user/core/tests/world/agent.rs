//! A user agent: one dialog, its transactions over UDP (RFC 3261, section 17), and what its stack does with them.

mod hear;
mod serve;
mod user;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

pub(crate) use serve::unversioned;

use super::{
    faults::Tally,
    sip::{Kind, Msg, Party, Verb, sdp},
    stacks::{First, OnUpdate, Stack},
    timer::Timer,
    trunk::Rejects,
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
    /// A re-INVITE that says `sendonly`.
    Hold,
    /// A re-INVITE that says `inactive`.
    Freeze,
    Resume,
    /// A re-INVITE that is no refresh of its own making.
    Reinvite,
    /// One without an offer.
    LateOffer,
    /// One that goes over to T.38, and one that comes back.
    Fax,
    Voice,
    /// One with another codec.
    Codec,
    /// One with another Contact.
    Move,
    /// One that is cancelled at once.
    Flinch,
    Refer,
    /// The NOTIFY that follows a REFER with this number.
    Notify(u32),
    /// The process is gone.
    Crash,
    /// It is back at once, and knows nothing of the dialog.
    Restart,
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
    /// Its own refresh was turned down or had no answer, and its stack makes an end of it.
    GaveUp,
    /// It never came up.
    NoSetup,
    Crashed,
    Restarted,
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
    /// An UPDATE before the dialog is confirmed.
    Early,
    Refresh,
    Change,
    /// The BYE to a fork that is not kept.
    Leave,
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
    /// When it is cancelled.
    cancels: Option<Us>,
    cancelled: bool,
    /// The last reliable response that has had its PRACK.
    rseq: u32,
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
    /// The reliable response that waits for its PRACK.
    early: Option<Msg>,
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
    /// The branch of the INVITE whose 2xx had no ACK.
    pub(crate) unacked: Option<String>,
    pub(crate) refreshes: u32,
    pub(crate) tally: Tally,
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
    /// How it turns down whatever it is asked for in the dialog.
    pub(crate) rejects: Option<Rejects>,
    pub(crate) agenda: Vec<(Us, Act)>,
    /// Whether it answers INVITEs with a reliable 183 first.
    pub(crate) reliable: bool,
    /// Whether it sends an UPDATE in the early dialog.
    pub(crate) early_update: bool,
    /// Whether it calls without an offer.
    pub(crate) late_offer: bool,
    /// How long after the first provisional response it cancels its call.
    pub(crate) cancels: Option<Us>,
    pub(crate) timer: Option<Timer>,
    /// Whether the other side said nothing of a timer to its last request.
    pub(crate) alone: bool,
    /// Since when its clock runs.
    pub(crate) since: Us,
    pub(crate) refresh_at: Option<Us>,
    /// When its first refresh of the interval is due; `None` once that was tried.
    pub(crate) first_due: Option<Us>,
    pub(crate) kill_at: Option<Us>,
    /// How often its refreshes were turned down in this interval.
    pub(crate) asked_in_vain: u32,
    /// An UPDATE was turned down, or had no answer.
    pub(crate) no_update: bool,
    pub(crate) remote_updates: bool,
    /// The highest Min-SE of a 422.
    pub(crate) told_min: u32,
    pub(crate) holding: bool,
    pub(crate) rng: StdRng,
    pub(crate) caller: bool,
    /// Whether its refreshes by UPDATE have an offer.
    pub(crate) offers: bool,
    /// Whether it lists `timer` in this dialog.
    lists: bool,
    /// Of its BYE.
    cause: Option<u32>,
    call_id: String,
    pub(crate) tag: String,
    pub(crate) remote_tag: Option<String>,
    local_uri: String,
    remote_uri: String,
    pub(crate) target: String,
    pub(crate) routes: Vec<String>,
    pub(crate) next: u32,
    branches: u32,
    remote_high: Option<u32>,
    pub(crate) sdp: String,
    version: u32,
    port: u32,
    remote_sdp: String,
    /// Offer and answer are done before the INVITE is answered.
    early_sdp: bool,
    /// How often its Contact changed.
    moves: u32,
    /// Numbers of its REFERs.
    refers: Vec<u32>,
    /// Tags of forks that it has taken leave of.
    parted: Vec<String>,
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
            First::Twenty => 20,
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
            rejects: None,
            agenda: Vec::new(),
            reliable: false,
            early_update: false,
            late_offer: false,
            cancels: None,
            timer: None,
            alone: false,
            since: 0,
            refresh_at: None,
            first_due: None,
            kill_at: None,
            asked_in_vain: 0,
            no_update: false,
            remote_updates: false,
            told_min: 0,
            holding: false,
            caller: false,
            offers: false,
            lists: stack.lists_timer,
            cause: None,
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
            sdp: sdp(plain, 1, 4000, "sendrecv", Kind::Voice),
            version: 1,
            port: 4000,
            remote_sdp: String::new(),
            early_sdp: false,
            moves: 0,
            refers: Vec::new(),
            parted: Vec::new(),
            clients: Vec::new(),
            served: Vec::new(),
            out: Vec::new(),
            rng,
        }
    }

    /// Both sides of its calls are named in this domain.
    pub(crate) fn belongs_to(&mut self, domain: &str) {
        for uri in [&mut self.local_uri, &mut self.remote_uri, &mut self.target] {
            let user = uri.split('@').next().unwrap_or_default();
            *uri = format!("{user}@{domain}");
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
        self.ask(now, Verb::Invite, Purpose::Setup, self.first_offer());
    }

    fn first_offer(&self) -> String {
        if self.late_offer { String::new() } else { self.sdp.clone() }
    }

    /// Whether it is there and answers, if only with 481.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.life, Life::Over(_, Why::Crashed | Why::Restarted))
    }

    /// Whether this transaction of its own, named by its branch, waits for a final response.
    pub(crate) fn is_asking(&self, now: Us, verb: Verb, branch: &str) -> bool {
        let of = |client: &&Client| client.msg.verb == verb && client.msg.branch() == branch;
        !self.is_gone()
            && self
                .clients
                .iter()
                .find(of)
                .is_some_and(|client| client.stage != Stage::Done && now < client.began + TRANSACTION)
    }

    /// Whether it has not answered this request, or an INVITE's answer has had no ACK.
    pub(crate) fn is_answering(&self, now: Us, verb: Verb, branch: &str) -> bool {
        let of = |one: &&Served| one.request.verb == verb && one.request.origin() == branch;
        let lasts = |one: &Served| one.answer.is_none() || one.is_open() && now < one.since + TRANSACTION;
        !self.is_gone() && self.served.iter().find(of).is_some_and(lasts)
    }

    /// A request that it was sent, named by its topmost branch, and its final answer.
    pub(crate) fn has_answered(&self, verb: Verb, branch: &str) -> Option<(&Msg, &Msg)> {
        let served = self.served.iter().find(|one| one.request.verb == verb && one.request.branch() == branch)?;
        served.answer.as_ref().map(|answer| (&served.request, answer))
    }

    /// The other side's session description, as it was last agreed upon.
    pub(crate) fn heard_sdp(&self) -> &str {
        &self.remote_sdp
    }

    pub(crate) fn plans(&mut self, at: Us, act: Act) {
        self.agenda.push((at, act));
        self.agenda.sort_by_key(|(at, _)| *at);
    }

    // What is due

    pub(crate) fn due(&self) -> Option<Us> {
        if self.life == Life::Idle || self.is_gone() {
            return None;
        }
        let clients = self.clients.iter().filter(|client| client.stage != Stage::Done);
        let clients = clients.flat_map(|client| [client.copy, client.cancels, Some(client.began + TRANSACTION)]);
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
            if self.served[at].is_open() {
                self.wake_served(now, at);
            }
        }
        if self.is_up() && self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh(now);
        }
        if self.is_up() && self.kill_at.is_some_and(|at| at <= now) {
            self.end(now, Why::Expired, self.stack.cause);
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
        if client.cancels.is_some_and(|at| at <= now) {
            return self.cancel(now, at);
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
            return self.answer_is_due(now, at);
        }
        let served = &mut self.served[at];
        if let Some(early) = served.early.as_ref().filter(|_| served.copy.is_some_and(|copy| copy <= now)) {
            served.gap *= 2;
            served.copy = Some(now + served.gap);
            return self.out.push(early.clone());
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

    /// Whether no INVITE can be sent just now (RFC 3261, section 14.1).
    pub(crate) fn is_busy(&self) -> bool {
        self.served.iter().any(Served::is_open)
            || self
                .clients
                .iter()
                .any(|client| client.stage != Stage::Done && matches!(client.msg.verb, Verb::Invite | Verb::Update))
    }

    fn describe(&self, version: u32, flow: &str, kind: Kind) -> String {
        sdp(self.host.split(':').next().unwrap_or_default(), version, self.port, flow, kind)
    }

    // Requests of its own

    pub(crate) fn ask(&mut self, now: Us, verb: Verb, purpose: Purpose, body: String) {
        self.ask_with(now, verb, purpose, |msg| msg.body = body);
    }

    fn ask_with(&mut self, now: Us, verb: Verb, purpose: Purpose, dress: impl FnOnce(&mut Msg)) {
        let number = self.next;
        self.next += 1;
        let mut msg = self.request(verb, number, String::new());
        dress(&mut msg);
        if matches!(purpose, Purpose::Setup | Purpose::Refresh | Purpose::Change) {
            self.ask_timer(&mut msg);
        }
        self.sends(now, purpose, msg);
    }

    /// Begins a transaction.
    fn sends(&mut self, now: Us, purpose: Purpose, msg: Msg) {
        self.out.push(msg.clone());
        self.clients.push(Client {
            msg,
            purpose,
            began: now,
            copy: Some(now + T1),
            gap: T1,
            stage: Stage::Calling,
            ack: None,
            cancels: None,
            cancelled: false,
            rseq: 0,
        });
    }

    fn request(&mut self, verb: Verb, number: u32, body: String) -> Msg {
        self.branches += 1;
        let contact = matches!(verb, Verb::Invite | Verb::Update).then(|| self.contact());
        let says_allow =
            verb == Verb::Invite && self.stack.invites_allow || verb == Verb::Update && self.stack.updates_allow;
        Msg {
            uri: self.target.clone(),
            vias: vec![(self.host.clone(), format!("z9hG4bK{}.{}", self.tag, self.branches))],
            routes: self.routes.clone(),
            from: Party { uri: self.local_uri.clone(), tag: Some(self.tag.clone()) },
            to: Party { uri: self.remote_uri.clone(), tag: self.remote_tag.clone() },
            call_id: self.call_id.clone(),
            number,
            allows_update: says_allow.then(|| self.lists_update()),
            contact,
            supports_timer: self.lists && !matches!(verb, Verb::Ack | Verb::Cancel),
            cause: self.cause.filter(|_| verb == Verb::Bye),
            supports_reliable: verb == Verb::Invite,
            body,
            ..Msg::blank(verb)
        }
    }

    pub(crate) fn contact(&self) -> String {
        format!("sip:{}{}@{}", if self.caller { "a" } else { "b" }, self.moves, self.host)
    }

    fn lists_update(&self) -> bool {
        self.rejects.is_some_and(|rejects| rejects.lists_update)
            || matches!(self.stack.on_update, OnUpdate::Accepts | OnUpdate::Swallows)
    }
}
