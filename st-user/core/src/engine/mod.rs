//! The engine: from packets and time to events and requests in the server's name.
//!
//! `dialog` knows who talks and `exchange` what about, `negotiate` reads RFC 4028 out of it, `session` runs the
//! interval by the moments of `schedule`, `refresh` acts, `own` and `verdict` follow what was sent. What all
//! sessions have in common is in `shared`. Events of the engine itself carry no `call_id`.

mod ahead;
mod aside;
mod asleep;
mod assist;
mod assume;
pub(crate) mod bounded;
mod breach;
mod breaker;
mod by_id;
mod by_key;
mod census;
mod changes;
mod demand;
mod dialog;
mod errand;
mod evidence;
mod exchange;
mod follow;
mod gate;
mod habits;
mod hangup;
mod hash;
mod heard;
mod invite;
mod joined;
mod keepalive;
pub mod limits;
mod media;
mod negotiate;
mod numbers;
mod others;
mod outage;
mod own;
mod pace;
mod packed;
mod peers;
pub mod reason;
pub mod record;
mod refresh;
mod respond;
mod resume;
mod schedule;
mod sdp;
mod session;
mod shared;
mod streamed;
mod target;
mod telling;
mod template;
mod timers;
mod turn;
mod verdict;
pub mod view;
mod written;

use std::sync::Arc;

pub use ahead::Read;
pub use breaker::BREAKER_DIALOGS;
pub use census::Tally;
pub use dialog::SILENCE;
pub use evidence::MEDIA_SILENCE;
pub use habits::HABIT_AGE;
pub use limits::{LOOK_AHEAD, Limits, Stats};
pub use numbers::RESERVE;
pub use timers::TRANSACTION;
pub use view::{Denial, Standing, View, Wish};

use crate::{
    Assist, By, Command, Datagram, EventKind, Output, Packet, Policy, SessionId, Side, Time,
    message::{Message, MethodName},
};
use by_id::ById;
use by_key::ByKey;
use changes::Changes;
use dialog::{Dialog, Ids};
use hash::{Fingerprint, Secret};
use heard::{Heard, Named};
use invite::{Early, Invite, Invites};
use limits::{MAX_FORKS, MAX_INVITE, PACKED_PER_CALL, PACKED_PER_MESSAGE, TIMERS_PER_CALL};
use packed::{Entry, Packing};
use resume::Strays;
use shared::Shared;
use timers::{Due, Key, Timer};

/// Whether anything can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On a host: refreshes where the policy says so.
    Live,
    /// On a capture: nothing is ever sent; requests of sipst's own in it are recognised by their branch.
    Replay,
}

/// What an [`Engine`] is made from.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What the operator wants.
    pub policy: Arc<Policy>,
    /// Live or replay.
    pub mode: Mode,
    /// For tokens, random delays and the keys of tables; runs with the same seed and input are the same. Secret in a
    /// daemon: from the system's random numbers.
    pub seed: u64,
    /// Bounds.
    pub limits: Limits,
}

/// The protocol, without clock or socket. After every call of a `handle_` method drain [`Engine::poll_output`] until it says
/// [`Output::Timeout`].
pub struct Engine {
    sx: Shared,
    dialogs: Dialogs,
    invites: Invites,
    strays: Strays,
    next: u64,
}

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(config: EngineConfig) -> Self {
        let secret = Secret::new(config.seed);
        Self::with(config, secret)
    }

    /// One that finds things by a secret of its own.
    fn with(config: EngineConfig, secret: Secret) -> Self {
        let invites = Invites::new(&config.limits);
        let sx = Shared::new(config, secret);
        let strays = Strays::new(sx.limits.strangers, sx.secret);
        let mut dialogs = Dialogs::default();
        dialogs.census.follow(&sx.policy);
        Self { sx, dialogs, invites, strays, next: 1 }
    }

    /// Other rules from now on: each is read when its moment comes, moments of running intervals stay. What has to be done
    /// in each session for that, [`Engine::handle_policy`] does in pieces: it is to be called until it has gone through all.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.sx.gate.follow(&policy);
        self.sx.demands.clear();
        self.sx.unassisted.clear();
        self.dialogs.census.follow(&policy);
        self.sx.policy = policy;
        self.sx.policy_number = self.sx.policy_number.wrapping_add(1);
    }

    /// Whether a session is not forgotten yet.
    pub fn knows(&self, session: SessionId) -> bool {
        self.dialogs.keys.get(session).is_some()
    }

    /// Whether any session still needs the shift entry of that side's numbers: forks of one INVITE have one together.
    pub fn follows(&self, side: Side, call_id: &[u8], tag: &[u8]) -> bool {
        self.sx.entries.contains_key(&self.sx.secret.entry_of(side, call_id, tag))
    }

    /// What there is and what was counted; goes through all sessions.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { sessions: 0, ..self.counted() };
        for dialog in self.dialogs.see_all() {
            let is_up = !dialog.is_over();
            stats.sessions += usize::from(is_up);
            stats.timed += usize::from(is_up && dialog.session.agreed.is_some());
            stats.unsure += usize::from(is_up && dialog.may_be_over(&self.sx));
            stats.tombstones += usize::from(!is_up);
            stats.own_requests += dialog.own.len();
        }
        stats
    }

    /// The same without what it takes a look at each session to know, which is 0; tombstones are among the sessions.
    pub fn counted(&self) -> Stats {
        let [(pending, evicted_pending), (strangers, evicted_strangers)] = self.invites.counts();
        let gate = self.sx.gate.counts();
        Stats {
            sessions: self.dialogs.all.len(),
            packed: self.dialogs.packing.sessions(),
            flows: self.sx.flows.len(),
            kept_alive: self.sx.keepalives.len(),
            waiting: self.sx.gate.waiting(),
            open_breakers: self.sx.gate.open_breakers(),
            delayed: gate.delayed,
            evicted_waiting: gate.evicted,
            breakers_opened: gate.opened,
            probes: gate.probes,
            pending,
            strangers,
            refused_forks: self.invites.refused_forks(),
            evicted_tries: self.invites.evicted_tries(),
            evicted_remembered: self.sx.evicted_remembered(),
            evicted_pending,
            evicted_strangers: evicted_strangers + self.strays.evicted(),
            ..self.sx.stats
        }
    }

    /// Whether an INVITE of sipst's own waits for its final response: a 2xx would need its ACK (R44); or a 2xx in the server's
    /// name for its own. Goes through all sessions.
    pub fn is_inviting(&self) -> bool {
        self.dialogs.opened().any(|dialog| dialog.is_inviting() || dialog.wants_ack())
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.sx.take_output() {
            return output;
        }
        let now = self.sx.now;
        self.dialogs.recount(&mut self.sx, now);
        // What has changed may have something kept alive.
        self.sx.poll()
    }

    /// Takes in a packet. Time never goes back: an earlier `now` counts as the latest one.
    pub fn handle_packet(&mut self, now: Time, packet: &Packet<'_>) {
        let read = self.read(*packet);
        self.take_in(now, &read, None);
    }

    /// The same of an INVITE that the kernel programs have looked at, because its trunk says so ([`crate::Rules::assist`]).
    pub fn handle_assisted(&mut self, now: Time, packet: &Packet<'_>, assist: Assist) {
        let read = self.read(*packet);
        self.take_in(now, &read, Some(assist));
    }

    /// The same of one of several datagrams that the kernel handed over as one packet, which goes on as it is: no number in it was
    /// shifted, and an answer to sipst has reached the server too.
    pub fn handle_joined(&mut self, now: Time, packet: &Packet<'_>) {
        self.sx.sees_joined(packet);
        self.handle_packet(now, packet);
        self.sx.joined = false;
    }

    fn take_in(&mut self, now: Time, read: &Read<'_>, assist: Option<Assist>) {
        self.advance(now);
        self.sx.keepalives.saw(self.sx.now, read.packet());
        if !read.is_message() {
            self.sx.stats.unparsable += 1;
            return;
        }
        self.sx.stats.messages += 1;
        match read.heard(assist) {
            Some(heard) => self.hear(&heard, read.key(), read.invite()),
            None => self.sx.stats.unidentified += 1,
        }
        self.give_turns();
        self.dialogs.settle(&mut self.sx, PACKED_PER_MESSAGE);
    }

    /// Takes in a response of the server's that the kernel programs have held back, because its dialog is marked
    /// ([`Output::Mark`]). It goes out again, or something else does in its place.
    pub fn handle_held(&mut self, now: Time, packet: &Packet<'_>) {
        self.advance(now);
        let scanned = Message::scan(packet.bytes, packet.truncated);
        let heard = scanned.as_ref().ok().and_then(|message| Heard::read(packet, message, None));
        let key = heard.as_ref().and_then(|heard| heard.ids).map(|ids| self.key(ids));
        let dialog = key.and_then(|key| self.dialogs.at(&mut self.sx, &key));
        match heard.zip(dialog).filter(|(heard, dialog)| !heard.is_request && dialog.responding.is_some()) {
            Some((heard, dialog)) => {
                self.sx.stats.messages += 1;
                dialog.held(&mut self.sx, &heard);
            }
            None => self.sx.output(Output::Send(Datagram::of(packet))),
        }
        self.give_turns();
    }

    /// The same of one that was read too late, so that it has gone out as it was: nothing else is said to the peer's request.
    pub fn handle_passed(&mut self, now: Time, packet: &Packet<'_>) {
        self.advance(now);
        let scanned = Message::scan(packet.bytes, packet.truncated);
        let heard = scanned.as_ref().ok().and_then(|message| Heard::read(packet, message, None));
        let key = heard.as_ref().and_then(|heard| heard.ids).map(|ids| self.key(ids));
        if let Some((heard, dialog)) = heard.zip(key.and_then(|key| self.dialogs.at(&mut self.sx, &key))) {
            dialog.passed(&self.sx, &heard);
        }
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
        self.run_timers();
        self.sx.run_keepalives();
        self.give_turns();
        self.dialogs.settle(&mut self.sx, PACKED_PER_CALL);
    }

    fn run_timers(&mut self) {
        for _ in 0..TIMERS_PER_CALL {
            let sx = &mut self.sx;
            let Some(due) = sx.timers.pop(sx.now) else { return };
            let (Due::Timer(Key { session, .. }) | Due::Away(session)) = due;
            let Some(dialog) = self.dialogs.of(sx, session) else {
                sx.timers.lose(session);
                continue;
            };
            // Now it is known which one of its timers it is.
            let Due::Timer(Key { timer, .. }) = due else { continue };
            match timer {
                Timer::Retransmit(token) => dialog.repeat(sx, token),
                Timer::Fallback(token) => dialog.fall_back(sx, token),
                Timer::GiveUp(token) => dialog.own_gives_up(sx, token),
                Timer::Retire(token) => dialog.own_retires(sx, token),
                Timer::Retry => dialog.attempt(sx),
                Timer::Armed => dialog.arm_again(sx),
                Timer::TooLate => dialog.comes_too_late(sx),
                Timer::Tell => dialog.tell_timer(sx),
                Timer::Answer => dialog.answer_again(sx),
                Timer::Ignored => dialog.peer_is_ignored(sx),
                Timer::TakeOver => dialog.take_over(sx),
                Timer::HangUp => dialog.hang_up_timer(sx),
                Timer::Act => dialog.act(sx),
                Timer::Expiring => dialog.expiring(sx),
                Timer::Expired => dialog.expired(sx),
                Timer::Unanswered => dialog.unanswered(sx),
                Timer::Forget => {
                    if dialog.forget(sx) {
                        self.dialogs.forget(session);
                    }
                }
            }
        }
    }

    /// Takes in what the driver has to say.
    pub fn handle_command(&mut self, now: Time, command: Command) {
        self.advance(now);
        let sx = &mut self.sx;
        match command {
            Command::Armed { .. } | Command::Refused { .. } if sx.mode == Mode::Replay => {}
            Command::Armed { session, side, result } => {
                if let Some(dialog) = self.dialogs.of(sx, session)
                    && !dialog.bye_armed(sx, side, result)
                {
                    match side {
                        Side::Server => dialog.armed(sx, result),
                        Side::Peer => dialog.peer_armed(sx, result),
                    }
                }
            }
            Command::Refused { token, refusal } => {
                if let Some(dialog) = self.dialogs.of_token(sx, token)
                    && !dialog.peers_refused(sx, token, refusal)
                    && !dialog.bye_refused(sx, token, refusal)
                {
                    dialog.own_refused(sx, token, refusal);
                }
            }
            Command::Media { session, seen } => {
                if let Some(dialog) = self.dialogs.of(sx, session) {
                    dialog.saw_media(sx, seen);
                }
            }
            Command::Weighed { session } => {
                if let Some(dialog) = self.dialogs.of(sx, session) {
                    dialog.weighed(sx);
                }
            }
            Command::Unsent { session, refusal } => {
                if let Some(dialog) = self.dialogs.of(sx, session) {
                    dialog.unsent(sx, refusal);
                }
            }
            Command::Blind => sx.blind = sx.now,
            Command::Outage => {
                sx.resumed = sx.now;
                self.dialogs.after_outage(sx);
                sx.spread_keepalives();
            }
            Command::HostRestarted => self.dialogs.each(sx, Dialog::after_restart),
            Command::Unheard { peer } => sx.unheard_from(peer),
            Command::Loss { packets: 0 } => {}
            Command::Loss { packets } => {
                sx.losses += 1;
                sx.lost = sx.now;
                sx.changed = true;
                sx.stats.lost = sx.stats.lost.saturating_add(packets);
                sx.tell(EventKind::CaptureLoss, format!("{}: {packets}", reason::PACKETS_LOST));
            }
        }
        self.give_turns();
    }

    /// Lets those refreshes leave whose turn has come.
    fn give_turns(&mut self) {
        let sx = &mut self.sx;
        if sx.gate.is_at_rest() {
            return;
        }
        for _ in 0..TIMERS_PER_CALL {
            let Some(session) = sx.gate.release(sx.now) else { break };
            match self.dialogs.of(sx, session) {
                Some(dialog) => dialog.has_turn(sx),
                None => sx.gate.leave(sx.now, session),
            }
        }
        while let Some(session) = sx.gate.displaced() {
            if let Some(dialog) = self.dialogs.of(sx, session) {
                dialog.is_displaced(sx);
            }
        }
        while let Some(session) = sx.gate.suspended() {
            if let Some(dialog) = self.dialogs.of(sx, session) {
                dialog.is_suspended(sx);
            }
        }
    }

    /// The capture is at its end: tells what it cannot have had.
    pub fn finish(&mut self, now: Time) {
        self.advance(now);
        if self.sx.mode == Mode::Replay && self.dialogs.opened().any(|dialog| dialog.lacks_answer(&self.sx)) {
            own::tell_capture_on_host(&mut self.sx);
        }
    }

    /// The daemon ends: gives up the shift entries of dialogs that are over.
    pub fn close(&mut self, now: Time) {
        self.advance(now);
        for session in
            self.dialogs.opened().filter(|dialog| dialog.is_over()).map(|dialog| dialog.id).collect::<Vec<_>>()
        {
            if let Some(dialog) = self.dialogs.of(&mut self.sx, session) {
                dialog.close(&mut self.sx);
            }
        }
    }

    fn advance(&mut self, now: Time) {
        self.sx.now = self.sx.now.max(now);
    }

    /// Finds out what a message belongs to. `key`: what its dialog is found by, where it names one; `invite`: what its INVITE is, where
    /// it is about one.
    fn hear(&mut self, heard: &Heard<'_>, key: Option<Fingerprint>, invite: Option<invite::Key>) {
        let Heard { packet, message, named: Named { client, is_request, cseq, via, .. }, .. } = *heard;
        let token = via.filter(|_| client == Side::Server).and_then(|via| via.our_token());
        // In the peer's name; it is seen on its way out, where it is turned round.
        let peers = via.and_then(|via| via.peer_token()).filter(|token| self.sx.tokens.contains_key(token));
        if let Some(token) = peers {
            let dialog = self.dialogs.of_token(&mut self.sx, token);
            match dialog {
                Some(dialog) if cseq.method == MethodName::Bye => {
                    dialog.bye_heard(&mut self.sx, packet, token, message)
                }
                Some(dialog) if is_request => dialog.peers_left(token),
                Some(dialog) => dialog.peers_answer(&mut self.sx, token, message, cseq),
                None => {}
            }
        } else if let Some(token) = token {
            self.own(heard, token, key);
        } else if let Some(dialog) = key.and_then(|key| self.dialogs.at(&mut self.sx, &key)) {
            if is_request {
                dialog.request(&mut self.sx, heard);
            } else {
                dialog.response(&mut self.sx, heard);
            }
        } else if is_request {
            self.request_outside(heard, invite);
        } else if matches!(cseq.method, MethodName::Invite | MethodName::Update) {
            self.response_outside(heard, invite);
        }
    }

    /// A request of ours, or the answer to one.
    fn own(&mut self, heard: &Heard<'_>, token: u64, key: Option<Fingerprint>) {
        let Heard { packet, message, named: Named { is_request, cseq, .. }, .. } = *heard;
        // The token names the session; in a capture only the dialog does.
        let dialog = match self.sx.mode {
            Mode::Live => self.dialogs.of_token(&mut self.sx, token),
            Mode::Replay => key.and_then(|key| self.dialogs.at(&mut self.sx, &key)),
        };
        if cseq.method == MethodName::Bye {
            return self.own_bye(heard, token, key);
        }
        match dialog {
            Some(dialog) if is_request => dialog.own_left(&mut self.sx, packet, token, message, cseq),
            Some(dialog) => dialog.own_answer(&mut self.sx, packet, token, message, cseq),
            None if is_request => {}
            None => self.sx.stats.unknown_answers += 1,
        }
    }

    /// A BYE of ours, or the answer to one.
    fn own_bye(&mut self, heard: &Heard<'_>, token: u64, key: Option<Fingerprint>) {
        let known = self.dialogs.of_token(&mut self.sx, token);
        match known.filter(|_| self.sx.mode == Mode::Live) {
            Some(dialog) => dialog.bye_heard(&mut self.sx, heard.packet, token, heard.message),
            // It is in a capture, or an earlier daemon's.
            None if heard.is_request => {
                if let Some(dialog) = key.and_then(|key| self.dialogs.at(&mut self.sx, &key)) {
                    dialog.end(&mut self.sx, Some(By::Sipst), reason::EXPIRED.into());
                }
            }
            None => self.sx.stats.unknown_answers += 1,
        }
    }

    /// A request of no known dialog.
    fn request_outside(&mut self, heard: &Heard<'_>, invite: Option<invite::Key>) {
        let Heard { packet, named: Named { client, call_id, cseq, .. }, .. } = *heard;
        let is_kept = matches!(cseq.method, MethodName::Invite | MethodName::Update);
        self.sx.stats.too_long += u64::from(is_kept && packet.bytes.len() > MAX_INVITE);
        let Some(ids) = heard.ids else {
            if let Some(key) = invite {
                let evicted = self.invites.counts()[0].1;
                self.invites.request(self.sx.now, key, heard);
                if self.invites.counts()[0].1 > evicted {
                    self.sx.tell_limit("pending", self.sx.limits.pending);
                }
            }
            return;
        };
        // An early dialog: the caller's tag is one of the two.
        let keys = [(Side::Server, ids.local), (Side::Peer, ids.remote)]
            .map(|(caller, tag)| invite::Key::new(self.sx.secret, caller, call_id, tag));
        if !keys.iter().any(|key| self.invites.early(key, heard)) {
            self.sx.stats.unknown_dialog += 1;
            if matches!(cseq.method, MethodName::Invite | MethodName::Update) {
                let key = (self.key(ids), client);
                self.strays.request(self.sx.now, key, heard);
            }
        }
    }

    /// A response to an INVITE or UPDATE in no known dialog.
    fn response_outside(&mut self, heard: &Heard<'_>, invite: Option<invite::Key>) {
        let Heard { message, named: Named { client, .. }, .. } = *heard;
        let Some(invite) = invite else {
            if let Some(ids) = heard.ids.filter(|_| matches!(message.status(), Some(200..300))) {
                self.resume(heard, ids);
            }
            return;
        };
        match (message.status(), heard.ids) {
            (Some(..200), ids) => {
                let callee = ids.map(|ids| ids.callee(client));
                self.invites.provisional(self.sx.now, &invite, callee, heard);
            }
            (Some(200..300), Some(ids)) => self.establish(heard, ids, &invite),
            (Some(200..300), None) | (None, _) => {}
            (Some(status @ 300..), _) => {
                if let Some(invite) = self.invites.turned_down(&invite, heard) {
                    demand::tell(&mut self.sx, heard, &invite, status);
                    assist::refused(&mut self.sx, heard, &invite, status);
                }
            }
        }
    }

    /// A 2xx to an INVITE makes a dialog, one for each tag (forks).
    fn establish(&mut self, heard: &Heard<'_>, ids: Ids<'_>, invite: &invite::Key) {
        let refused = self.invites.refused_forks();
        match self.invites.answered(self.sx.now, invite, ids.callee(heard.client), heard) {
            Some((invite, early)) => self.make(heard, ids, &invite, early),
            None if self.invites.refused_forks() > refused => self.sx.tell_limit("forks", MAX_FORKS),
            None => self.resume(heard, ids),
        }
    }

    /// A 2xx to an INVITE or UPDATE in a dialog that is not known: it is known from now on.
    fn resume(&mut self, heard: &Heard<'_>, ids: Ids<'_>) {
        let timed = heard.message.session_expires().is_some() || self.assumes(heard);
        match self.strays.answered(&(self.key(ids), heard.client), heard).filter(|_| timed) {
            Some((request, early)) => self.make(heard, ids, &request, early),
            None => self.sx.stats.unknown_dialog += 1,
        }
    }

    /// Whether its trunk's rules assume an interval where a 2xx says nothing of one.
    fn assumes(&self, heard: &Heard<'_>) -> bool {
        let peers = match heard.client {
            Side::Server => heard.message.to(),
            Side::Peer => heard.message.from(),
        };
        let domain = peers.map(|party| String::from_utf8_lossy(party.host())).unwrap_or_default();
        self.sx.policy.find(heard.packet.peer.ip(), &domain).1.assume_interval.is_some()
    }

    /// Makes a dialog from a request and its 2xx.
    fn make(&mut self, heard: &Heard<'_>, ids: Ids<'_>, request: &Invite, mut early: Early) {
        if self.dialogs.all.len() >= self.sx.limits.sessions {
            self.sx.stats.refused_sessions += 1;
            return self.sx.tell_limit("sessions", self.sx.limits.sessions);
        }
        // The same call the other way round: this host passes it on.
        let mirror = self.key(Ids { local: ids.remote, remote: ids.local, ..ids });
        if let Some(mirror) = self.dialogs.at(&mut self.sx, &mirror) {
            mirror.relayed = true;
            early.relayed = true;
        }
        let id = SessionId(self.next);
        if let Some(dialog) = Dialog::new(&mut self.sx, id, ids, heard, request, &early) {
            self.next += 1;
            let key = self.key(ids);
            self.dialogs.insert(&self.sx, key, dialog);
        }
    }

    /// What a dialog is found by.
    fn key(&self, ids: Ids<'_>) -> Fingerprint {
        self.sx.secret.key([ids.call_id, ids.local, ids.remote])
    }
}

/// All of them, by what a message names them with. Whoever gets one to change it has it put on the list of changes.
#[derive(Default)]
struct Dialogs {
    all: ByKey,
    keys: ById,
    changes: Changes,
    census: census::Census,
    packing: Packing,
}

impl Dialogs {
    fn of(&mut self, sx: &mut Shared, session: SessionId) -> Option<&mut Box<Dialog>> {
        let key = self.keys.get(session)?;
        self.at(sx, &key)
    }

    /// That which has sent a request of sipst's own.
    fn of_token(&mut self, sx: &mut Shared, token: u64) -> Option<&mut Box<Dialog>> {
        let session = sx.tokens.get(&token).copied()?;
        self.of(sx, session)
    }

    fn at(&mut self, sx: &mut Shared, key: &Fingerprint) -> Option<&mut Box<Dialog>> {
        let Self { all, packing, changes, census, .. } = self;
        let dialog = packing.open(sx, all.get_mut(key)?)?;
        changes.list(dialog);
        census.touch(*key, dialog);
        Some(dialog)
    }

    fn each(&mut self, sx: &mut Shared, change: impl FnMut(&mut Dialog, &mut Shared)) {
        self.each_of(sx, |_| true, change);
    }

    /// The same of those that are wanted.
    fn each_of(
        &mut self,
        sx: &mut Shared,
        wants: impl Fn(&Entry) -> bool,
        mut change: impl FnMut(&mut Dialog, &mut Shared),
    ) {
        let Self { all, packing, changes, census, .. } = self;
        for (key, entry) in all.iter_mut().filter(|(_, entry)| wants(entry)) {
            let Some(dialog) = packing.open(sx, entry) else { continue };
            changes.list(dialog);
            census.touch(*key, dialog);
            change(dialog, sx);
        }
    }

    fn insert(&mut self, sx: &Shared, key: Fingerprint, mut dialog: Dialog) {
        self.changes.list(&mut dialog);
        self.census.touch(key, &mut dialog);
        self.packing.opened(sx, dialog.id);
        self.keys.insert(dialog.id, key);
        self.all.insert(key, Entry::Open(Box::new(dialog)));
    }

    /// One that was looked at for that.
    fn forget(&mut self, session: SessionId) {
        if let Some(Entry::Open(dialog)) = self.keys.remove(session).and_then(|key| self.all.remove(&key)) {
            self.changes.gone(&dialog);
            self.census.gone(&dialog);
        }
    }
}
