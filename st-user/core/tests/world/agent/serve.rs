//! What an agent is asked, and what it answers.

use rand::RngExt as _;

use super::{Act, Agent, Life, MS, S, Served, Stage, T1, TRANSACTION, Us, Why};
use crate::{
    faults::Fault,
    sip::{Kind, Msg, Verb},
    stacks::{AnswersAllow, AsUas, First, OnUpdate, Stale},
};

/// The lines of a session description without the version in `o=`.
pub(crate) fn unversioned(sdp: &str) -> impl Iterator<Item = String> {
    let plain = |line: &str| match line.strip_prefix("o=") {
        Some(origin) => {
            let words: Vec<_> =
                origin.split(' ').enumerate().filter(|(at, _)| *at != 2).map(|(_, word)| word).collect();
            words.join(" ")
        }
        None => line.into(),
    };
    sdp.lines().map(plain)
}

impl Agent {
    pub(super) fn asked(&mut self, now: Us, msg: &Msg) {
        if msg.verb == Verb::Ack {
            return self.acked(msg);
        }
        if let Some(known) =
            self.served.iter().find(|one| one.request.branch() == msg.branch() && one.request.verb == msg.verb)
        {
            return self.out.extend(known.answer.clone());
        }
        if msg.verb == Verb::Cancel {
            return self.cancelled(now, msg);
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
            self.diary.tally.count(Fault::StaleRefused);
            match if msg.number == high { self.stack.equal } else { self.stack.lower } {
                Stale::Accepts => {}
                Stale::Refuses => return self.reply(now, msg, 500, |_| {}),
                Stale::IgnoresInvites if msg.verb != Verb::Invite => return self.reply(now, msg, 500, |_| {}),
                Stale::IgnoresInvites | Stale::Ignores => return,
            }
        }
        self.remote_high = self.remote_high.max(Some(msg.number));
        match msg.verb {
            Verb::Bye => {
                self.reply(now, msg, 200, |_| {});
                self.life = Life::Over(now, Why::RemoteBye);
            }
            Verb::Invite | Verb::Update => self.offered(now, msg),
            Verb::Prack => self.pracked(now, msg),
            Verb::Refer => {
                self.reply(now, msg, 202, |_| {});
                let (soon, later) = (self.rng.random_range(S..5 * S), self.rng.random_range(20 * S..60 * S));
                for after in [soon, later] {
                    self.plans(now + after, Act::Notify(msg.number));
                }
            }
            Verb::Notify => {
                self.reply(now, msg, 200, |_| {});
                self.diary.tally.count(Fault::Referred);
                if msg.refer.is_none_or(|id| !self.refers.contains(&id)) {
                    let told = format!("a NOTIFY of REFER {:?}; it sent {:?}", msg.refer, self.refers);
                    self.diary.oddities.push(told);
                }
            }
            Verb::Info | Verb::Options | Verb::Ack | Verb::Cancel => self.reply(now, msg, 200, |_| {}),
        }
    }

    fn acked(&mut self, msg: &Msg) {
        let of = |one: &&mut Served| one.request.verb == Verb::Invite && one.request.number == msg.number;
        match self.served.iter_mut().find(of) {
            Some(served) => {
                served.acked = true;
                if !msg.body.is_empty() {
                    self.remote_sdp.clone_from(&msg.body);
                }
            }
            None => self.diary.oddities.push(format!("an ACK for {}, which no INVITE had", msg.number)),
        }
        if self.stack.ack_lowers {
            self.remote_high = self.remote_high.min(Some(msg.number));
        }
    }

    fn cancelled(&mut self, now: Us, msg: &Msg) {
        let of = |one: &&mut Served| one.request.verb == Verb::Invite && one.request.branch() == msg.branch();
        let tag = self.tag.clone();
        let Some(invite) = self.served.iter_mut().find(of) else { return self.reply(now, msg, 481, |_| {}) };
        if invite.answer.is_none() {
            let answer = invite.request.response(487, &tag);
            let first = invite.request.to.tag.is_none();
            self.out.push(answer.clone());
            (invite.answer, invite.answers, invite.early) = (Some(answer), None, None);
            (invite.since, invite.copy, invite.gap) = (now, Some(now + T1), T1);
            if first {
                self.life = Life::Over(now, Why::NoSetup);
            }
        }
        self.reply(now, msg, 200, |_| {});
    }

    fn pracked(&mut self, now: Us, msg: &Msg) {
        let of = |one: &&mut Served| {
            let rseq = one.early.as_ref().and_then(|early| early.rseq);
            one.request.verb == Verb::Invite && rseq.is_some() && rseq.zip(Some(one.request.number)) == msg.rack
        };
        if let Some(invite) = self.served.iter_mut().find(of) {
            (invite.early, invite.copy) = (None, None);
            self.diary.tally.count(Fault::Reliable);
        } else {
            let known = |one: &Served| {
                one.request.verb == Verb::Invite && msg.rack.is_some_and(|(_, number)| number == one.request.number)
            };
            if !self.served.iter().any(known) {
                self.diary.oddities.push(format!("a PRACK for {:?}, which no INVITE had", msg.rack));
            }
        }
        self.reply(now, msg, 200, |_| {});
    }

    /// The INVITE that makes the dialog.
    fn rings(&mut self, now: Us, msg: &Msg) {
        if let Some(status) = self.too_small(msg) {
            let least = self.min_se;
            return self.reply(now, msg, status, |answer| answer.min_se = Some(least));
        }
        self.life = Life::Setup;
        self.lists &= msg.supports_timer || self.stack.as_uas != AsUas::VolunteersIfListed;
        self.remote_tag.clone_from(&msg.from.tag);
        self.remote_uri.clone_from(&msg.from.uri);
        self.target = msg.contact.clone().unwrap_or_default();
        self.routes.clone_from(&msg.record_routes);
        self.remote_high = Some(msg.number);
        match self.stack.first {
            // They count on from the INVITE that they got.
            First::Two => self.next = msg.number + 1,
            First::Twenty => self.next = msg.number + 11,
            First::One | First::Ten | First::Random15 | First::Billion => {}
        }
        self.remote_updates = msg.allows_update.unwrap_or(false);
        let after = self.rng.random_range(200 * MS..3 * S);
        self.begin_answer(now, msg, after);
        if !self.reliable {
            let mut ringing = msg.response(180, &self.tag);
            ringing.contact = Some(self.contact());
            self.out.push(ringing);
        }
    }

    fn begin_answer(&mut self, now: Us, msg: &Msg, after: Us) {
        self.out.push(msg.response(100, &self.tag));
        let (mut early, mut copy) = (None, None);
        if self.reliable && msg.supports_reliable {
            let mut progress = msg.response(183, &self.tag);
            progress.contact = Some(self.contact());
            progress.rseq = Some(self.rng.random_range(1..10_000));
            if msg.to.tag.is_none() && !msg.body.is_empty() {
                progress.body.clone_from(&self.sdp);
            }
            self.out.push(progress.clone());
            // RFC 6141, section 4.6: whatever the final response is.
            self.target = msg.contact.clone().unwrap_or_else(|| self.target.clone());
            (early, copy) = (Some(progress), Some(now + T1));
        }
        let (request, answers) = (msg.clone(), Some(now + after));
        self.served.push(Served { request, answer: None, answers, copy, gap: T1, since: now, acked: false, early });
    }

    /// An INVITE is to be answered, if its reliable response was acknowledged.
    pub(super) fn answer_is_due(&mut self, now: Us, at: usize) {
        let served = &mut self.served[at];
        served.answers = None;
        if served.early.is_none() || matches!(self.life, Life::Over(..)) {
            return self.accept(now, at);
        }
        if now < served.since + TRANSACTION {
            served.answers = Some(now + S / 2);
            return;
        }
        let answer = served.request.response(504, &self.tag);
        let first = served.request.to.tag.is_none();
        self.out.push(answer.clone());
        (served.answer, served.early) = (Some(answer), None);
        (served.since, served.copy, served.gap) = (now, Some(now + T1), T1);
        if first {
            self.life = Life::Over(now, Why::NoSetup);
        }
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
        if asking && (msg.verb == Verb::Invite || !msg.body.is_empty()) {
            self.diary.tally.count(Fault::Glare);
            return self.reply(now, msg, 491, |_| {});
        }
        if self.rejects(now, msg) {
            return;
        }
        if msg.verb == Verb::Update {
            match self.stack.on_update {
                OnUpdate::Accepts => {}
                OnUpdate::Refuses(status) => return self.reply(now, msg, status, |_| {}),
                OnUpdate::Ignores => return,
                OnUpdate::Swallows => return self.diary.tally.count(Fault::Swallowed),
            }
        }
        if let Some(status) = self.refusal(msg) {
            let least = msg.expires.map_or(0, |expires| expires.seconds) + 10;
            if status == 422 {
                self.min_se = self.min_se.max(least);
            }
            return self.reply(now, msg, status, |answer| {
                answer.digest = matches!(status, 401 | 407);
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
        let body = self.answer_to(&msg.body);
        let mut agreed = msg.response(200, &self.tag);
        self.agree(&mut agreed, msg);
        // Before that, the timer is agreed on with the INVITE.
        if self.is_up() {
            self.agree_timer(now, msg, &mut agreed);
        }
        agreed.body = body.unwrap_or_default();
        self.reply(now, msg, 200, |answer| *answer = agreed);
    }

    /// Whether a request in the dialog is more than a refresh, as far as it is known here.
    pub(crate) fn would_change(&self, msg: &Msg) -> bool {
        let moves = msg.contact.as_ref().is_some_and(|contact| *contact != self.target);
        let refreshes = match &*msg.body {
            "" => msg.verb == Verb::Update,
            offer => unversioned(offer).eq(unversioned(&self.remote_sdp)),
        };
        moves || !refreshes
    }

    /// What is in store for a refresh; a challenge stays until it is answered.
    fn refusal(&mut self, msg: &Msg) -> Option<u16> {
        let status = *self.refusals.first()?;
        if matches!(status, 401 | 407) && msg.digest {
            self.refusals.remove(0);
            return None;
        }
        let fault = match status {
            302 => Fault::Says302,
            401 => Fault::Says401,
            407 => Fault::Says407,
            408 => Fault::Says408,
            422 => Fault::Says422,
            481 => Fault::Says481,
            491 => Fault::Says491,
            503 => Fault::Says503,
            504 => Fault::Says504,
            _ => Fault::Says500,
        };
        msg.expires?;
        if !matches!(status, 401 | 407) {
            self.refusals.remove(0);
        }
        self.diary.tally.count(fault);
        Some(status)
    }

    fn too_small(&self, msg: &Msg) -> Option<u16> {
        let asked = msg.expires.filter(|_| msg.supports_timer && self.stack.refuses_small);
        asked.filter(|expires| expires.seconds < self.min_se).map(|_| 422)
    }

    /// Its answer to an offer; `None` where there is none.
    fn answer_to(&mut self, offer: &str) -> Option<String> {
        if offer.is_empty() {
            return None;
        }
        self.remote_sdp = offer.into();
        let kind = match offer {
            _ if offer.contains("m=image") => Kind::Fax,
            _ if offer.contains("AVP 9") => Kind::Wide,
            _ => Kind::Voice,
        };
        let flow = match offer.lines().find_map(|line| line.strip_prefix("a=")) {
            _ if self.stack.ignores_hold => "sendrecv",
            _ if offer.contains("a=inactive") => "inactive",
            _ if offer.contains("a=sendonly") => "recvonly",
            _ if self.holding => "sendonly",
            _ => "sendrecv",
        };
        if self.describe(self.version, flow, kind) != self.sdp {
            self.version += 1;
            self.sdp = self.describe(self.version, flow, kind);
        }
        Some(self.sdp.clone())
    }

    /// A 200 to an INVITE.
    fn accept(&mut self, now: Us, at: usize) {
        if matches!(self.life, Life::Over(..)) {
            let served = &mut self.served[at];
            (served.acked, served.early, served.copy) = (true, None, None);
            return;
        }
        let request = self.served[at].request.clone();
        let inside = request.to.tag.is_some();
        self.life = Life::Up;
        self.target = request.contact.clone().unwrap_or_else(|| self.target.clone());
        self.remote_updates = request.allows_update.unwrap_or(self.remote_updates);
        if self.stack.moves_media && inside {
            self.port += 2;
        }
        let body = self.answer_to(&request.body).unwrap_or_else(|| self.sdp.clone());
        let mut answer = request.response(200, &self.tag);
        self.agree(&mut answer, &request);
        self.agree_timer(now, &request, &mut answer);
        answer.body = body;
        self.out.push(answer.clone());
        let served = &mut self.served[at];
        (served.answer, served.since, served.copy, served.gap) = (Some(answer), now, Some(now + T1), T1);
    }

    /// What every 2xx to an INVITE or UPDATE says.
    fn agree(&self, answer: &mut Msg, request: &Msg) {
        answer.contact = Some(self.contact());
        let says_allow = match self.stack.answers_allow {
            AnswersAllow::Never => false,
            AnswersAllow::AtFirst => request.to.tag.is_none(),
            AnswersAllow::WithSdp => !request.body.is_empty(),
            AnswersAllow::Always => true,
        };
        answer.allows_update = says_allow.then(|| self.lists_update());
        answer.supports_timer = self.lists || self.stack.lists_in_updates && request.verb == Verb::Update;
    }

    /// A final response at once.
    pub(crate) fn reply(&mut self, now: Us, msg: &Msg, status: u16, dress: impl FnOnce(&mut Msg)) {
        let mut answer = msg.response(status, &self.tag);
        dress(&mut answer);
        self.out.push(answer.clone());
        let (request, copy) = (msg.clone(), (msg.verb == Verb::Invite).then_some(now + T1));
        let answer = Some(answer);
        self.served.push(Served {
            request,
            answer,
            answers: None,
            copy,
            gap: T1,
            since: now,
            acked: false,
            early: None,
        });
    }
}
