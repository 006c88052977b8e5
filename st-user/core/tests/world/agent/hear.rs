//! What an agent hears, and what it says to that.

use rand::RngExt as _;

use super::{Agent, Client, Life, MS, Purpose, S, Served, Stage, T1, T2, Us, Why};
use crate::{
    sip::{Msg, Verb},
    stacks::{First, OnUpdate, Stale},
};

impl Agent {
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

    pub(super) fn failed(&mut self, now: Us, at: usize, status: u16, msg: Option<&Msg>) {
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
        if let Some(known) =
            self.served.iter().find(|one| one.request.branch() == msg.branch() && one.request.verb == msg.verb)
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
    pub(super) fn accept(&mut self, now: Us, at: usize) {
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
