//! `respond: on-reject`: where the server turns a refresh of the peer's down, sipst answers it in the server's name. The kernel
//! programs hold the server's refusal back in a dialog that is marked; here it is decided what becomes of it. What is no refresh and
//! nothing else is let out as it is, and so is all that is not clear.

use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration};

use st_ebpf::{abi::holds, key::MAX_TAG};

use super::{
    Mode,
    dialog::Dialog,
    exchange::{Exchange, Stage},
    hash::Fingerprint,
    heard::Heard,
    limits::MAX_INVITE,
    negotiate::Agreed,
    reason,
    sdp::{Said, is_repeated},
    session::{Deal, LEAST_INTERVAL},
    shared::Shared,
    timers::{T1, T2, TRANSACTION, Timer},
};
use crate::{
    Action, AnsweredInvite, By, Datagram, Event, EventKind, Mark, Output, Policy, Refusal, Respond, Side, Time, build,
    message::{Body, CSeq, HeaderName, Message, MethodName, Role},
};

/// The longest Retry-After that R29 allows is 10 s; this many seconds are enough for what is in the way.
const RETRY_AFTER: u32 = 2;

/// A dialog that is marked.
#[derive(Clone, Debug)]
pub(super) struct Responding {
    /// Bits of [`holds`].
    methods: u32,
    cookie: u64,
    /// The peer's last INVITE or UPDATE.
    asked: Option<Asked>,
    /// A refusal that was held back, while it is found out whether the server still lives.
    weighed: Option<Refused>,
    answer: Option<Answer>,
    /// The request whose refusal went out last: nothing else is said to it.
    passed: Option<Fingerprint>,
    /// [`Shared::losses`] when the two session descriptions were last settled.
    pub(super) losses: u64,
}

/// A request of the peer's, whole.
#[derive(Clone, Debug)]
struct Asked {
    branch: Fingerprint,
    bytes: Vec<u8>,
    from: SocketAddr,
}

/// A refusal that was held back, and how it is to be let out.
#[derive(Clone, Debug)]
struct Refused {
    branch: Fingerprint,
    cseq: CSeq,
    status: u16,
    datagram: Datagram,
}

/// What was answered in the server's place.
#[derive(Clone, Debug)]
struct Answer {
    refused: Refused,
    status: u16,
    /// The number of the peer's request, as it sent it.
    wire: u32,
    datagram: Datagram,
    /// The ACK to the server's refusal, in the peer's name.
    ack: Option<Datagram>,
    /// What names the INVITE for the kernel programs, where a 2xx to it may be ACKed.
    invite: Option<AnsweredInvite>,
    /// Whether it was seen leaving.
    left: bool,
    /// Whether the peer's ACK has come.
    acked: bool,
    sent: Time,
    /// Until the next copy.
    wait: Duration,
}

/// What a refusal gives way to.
enum Plan {
    Accept { interval: u32, role: Role },
    Decline { status: u16, retry_after: Option<u32> },
}

/// Why a refusal goes out as it is; `None` where that is not worth a word.
type Withheld = Option<Cow<'static, str>>;

impl Answer {
    const fn accepts(&self) -> bool {
        self.status < 300
    }

    /// Whether an ACK of the peer's is waited for.
    fn wants_ack(&self) -> bool {
        self.accepts() && self.refused.cseq.method == MethodName::Invite && !self.acked
    }
}

impl Dialog {
    // The mark.

    /// Has the dialog marked, or its mark taken away, as the rules and its state have it now.
    pub(super) fn mark(&mut self, sx: &mut Shared) {
        let methods = self.holds(sx);
        let Some(responding) = &mut self.responding else {
            if methods != 0 {
                let (cookie, losses) = (self.cookie, sx.losses);
                let fresh =
                    Responding { methods, cookie, asked: None, weighed: None, answer: None, passed: None, losses };
                self.responding = Some(Box::new(fresh));
                self.set_mark(sx);
            }
            return;
        };
        if methods == 0 {
            return self.unmark(sx);
        }
        if (responding.methods, responding.cookie) != (methods, self.cookie) {
            (responding.methods, responding.cookie) = (methods, self.cookie);
            self.set_mark(sx);
        }
    }

    /// Whose refusals are held back: bits of [`holds`].
    fn holds(&self, sx: &Shared) -> u32 {
        let by_datagrams = !self.relayed && self.streamed.is_none();
        let usable = sx.mode == Mode::Live && !self.is_over() && by_datagrams && !self.held && self.cookie != 0;
        if !usable || self.session.agreed.is_none() || !self.is_confirmed(sx) || !self.responds(&sx.policy) {
            return 0;
        }
        let reinvite = self.sdp.is_some() && self.peer_sdp.is_some();
        holds::UPDATE | if reinvite { holds::INVITE } else { 0 }
    }

    fn responds(&self, policy: &Policy) -> bool {
        let rules = self.rules(policy).1;
        rules.action == Action::Refresh && rules.respond == Respond::OnReject
    }

    fn set_mark(&self, sx: &mut Shared) {
        let Some(responding) = &self.responding else { return };
        sx.output(Output::Mark(Mark {
            call_id: self.names.call_id().to_vec(),
            tag: self.names.remote_tag().to_vec(),
            server: self.names.server,
            peer: self.names.peer,
            cookie: responding.cookie,
            methods: responding.methods,
            answered: responding.answer.as_ref().and_then(|answer| answer.invite.clone()),
        }));
    }

    /// Nothing is held back any more.
    pub(super) fn unmark(&mut self, sx: &mut Shared) {
        let Some(responding) = self.responding.take() else { return };
        sx.timers.cancel(self.id, Timer::Answer);
        let (call_id, tag) = (self.names.call_id().to_vec(), self.names.remote_tag().to_vec());
        sx.output(Output::Unmark { call_id, tag });
        if let Some(Refused { datagram, .. }) = responding.weighed {
            sx.output(Output::Send(datagram));
        }
    }

    // The peer's requests.

    /// A new INVITE or UPDATE of the peer's: it may be refused.
    pub(super) fn keep_asked(&mut self, sx: &Shared, heard: &Heard<'_>) {
        let branch = heard.transaction(sx.secret);
        if let (Some(responding), Some(branch)) = (&mut self.responding, branch)
            && !heard.packet.truncated
            && heard.packet.bytes.len() <= MAX_INVITE
        {
            let (bytes, from) = (heard.packet.bytes.to_vec(), heard.packet.peer);
            responding.asked = Some(Asked { branch, bytes, from });
        }
    }

    /// A copy of one: what was answered may have been lost. The server says nothing more to a copy of an INVITE.
    pub(super) fn asked_again(&mut self, sx: &mut Shared, heard: &Heard<'_>) {
        let Some(answer) = self.answer_to(sx, heard).filter(|answer| answer.left && !answer.acked) else { return };
        sx.output(Output::Send(answer.datagram.clone()));
    }

    /// An ACK of the peer's.
    pub(super) fn answer_acked(&mut self, sx: &mut Shared, heard: &Heard<'_>) {
        let branch = heard.transaction(sx.secret);
        let answer = self.responding.as_mut().and_then(|responding| responding.answer.as_mut());
        let number = heard.cseq.number;
        let Some(answer) = answer.filter(|answer| answer.wants_ack() && answer.wire == number) else { return };
        if branch == Some(answer.refused.branch) {
            return;
        }
        // Only now does the server's own transaction end: until then its copies would tell the peer, if nobody lived to.
        answer.acked = true;
        let ack = answer.ack.clone();
        sx.timers.cancel(self.id, Timer::Answer);
        if let Some(ack) = ack {
            sx.output(Output::Send(ack));
        }
    }

    /// What was answered to the request that a message belongs to.
    fn answer_to(&self, sx: &Shared, heard: &Heard<'_>) -> Option<&Answer> {
        let answer = self.responding.as_ref()?.answer.as_ref()?;
        let branch = heard.transaction(sx.secret)?;
        (answer.refused.branch == branch && answer.refused.cseq.method == heard.cseq.method).then_some(answer)
    }

    /// Whether an INVITE was answered in the server's name, and its ACK is waited for.
    pub(super) fn wants_ack(&self) -> bool {
        let answer = self.responding.as_ref().and_then(|responding| responding.answer.as_ref());
        answer.is_some_and(Answer::wants_ack)
    }

    // The server's refusals.

    /// A refusal of the server's that was held back.
    pub(super) fn held(&mut self, sx: &mut Shared, heard: &Heard<'_>) {
        self.hear(sx, heard, Side::Server);
        let datagram = Datagram { session: Some(self.id), ..Datagram::of(heard.packet) };
        if let Some(answer) = self.answer_to(sx, heard) {
            // A copy.
            let ack = answer.ack.as_ref().filter(|_| answer.acked);
            let again = if answer.accepts() { ack } else { Some(&answer.datagram) };
            let again = again.cloned();
            if let Some(again) = again {
                sx.output(Output::Send(again));
            }
            return;
        }
        let policy = Arc::clone(&sx.policy);
        let status = heard.message.status().unwrap_or_default();
        match self.plan(sx, &policy, heard) {
            Ok(_) => {
                let Some(branch) = heard.transaction(sx.secret) else { return };
                let (session, cseq) = (self.id, heard.cseq);
                let media = self.watched_flows();
                if let Some(responding) = &mut self.responding {
                    let before = responding.weighed.replace(Refused { branch, cseq, status, datagram });
                    // Two transactions at once: the first one's goes out.
                    if let Some(before) = before.filter(|before| before.branch != branch) {
                        sx.output(Output::Send(before.datagram));
                    }
                    sx.output(Output::Weigh { session, media });
                }
            }
            Err(why) => {
                self.passed(sx, heard);
                self.let_out(sx, datagram, heard.cseq.method, status, why);
            }
        }
    }

    /// A refusal of the server's goes out as it is.
    pub(super) fn passed(&mut self, sx: &Shared, heard: &Heard<'_>) {
        let branch = heard.transaction(sx.secret);
        if let Some(responding) = &mut self.responding {
            responding.passed = branch;
        }
    }

    /// Lets a refusal go as it is, and says why it is not answered.
    fn let_out(
        &mut self,
        sx: &mut Shared,
        datagram: Datagram,
        method: MethodName,
        status: u16,
        why: Option<Cow<'static, str>>,
    ) {
        sx.output(Output::Send(datagram));
        if let Some(reason) = why.filter(|_| !self.is_over()) {
            let event = Event {
                by: Some(By::Sipst),
                method: Some(method.name()),
                status: Some(status),
                reason: Some(reason),
                ..self.timed_event(sx, EventKind::AnswerWithheld)
            };
            self.tell(sx, event);
        }
    }

    /// What a refusal gives way to, or why it goes out as it is.
    fn plan(&self, sx: &Shared, policy: &Policy, heard: &Heard<'_>) -> Result<Plan, Withheld> {
        let because = |why: &'static str| Err(Some(why.into()));
        let changes = |what: &str| Err(Some(format!("{}: {what}", reason::CHANGES_SESSION).into()));
        let (now, method) = (sx.now, heard.cseq.method);
        let status = heard.message.status().unwrap_or_default();
        let is_refusal = match status {
            405 | 420 | 488 | 501 | 503 => true,
            500 => heard.message.retry_after().is_none() && heard.message.first(HeaderName::RetryAfter).is_none(),
            _ => false,
        };
        let branch = heard.transaction(sx.secret);
        let is_it = |known: &&Exchange| known.is(Side::Peer, method) && known.is_named(branch);
        // Where the peer has ACKed a refusal, that has gone out unseen.
        let exchange = self.exchanges.all().iter().rev().find(is_it).filter(|known| known.is_unanswered());
        let talk = exchange.and_then(Exchange::of_peers).map(|(_, talk)| talk);
        let (Some(responding), Some(agreed)) = (&self.responding, self.session.agreed) else { return Err(None) };
        let passed = branch.is_some() && responding.passed == branch;
        let (Some(talk), true) = (talk, is_refusal && !passed && self.responds(policy) && !self.is_over()) else {
            return Err(None);
        };
        let Some(asked) = responding.asked.as_ref().filter(|asked| Some(asked.branch) == branch) else {
            return because(reason::REQUEST_UNKNOWN);
        };
        let Ok(request) = Message::scan(&asked.bytes, false) else { return because(reason::REQUEST_UNKNOWN) };
        let (_, rules, peers) = self.rules(policy);

        // Whether it is a refresh and nothing else.
        match (method, &talk.asked) {
            (MethodName::Update, Said::Nothing) => {}
            // sofia-sip's UPDATEs repeat the offer, and so do pjsip's where one without was turned down.
            (_, Said::Nothing) => return changes("no offer"),
            (_, Said::Unclear) => return changes("an offer that cannot be read"),
            (_, Said::Sdp(offer)) => {
                let (Some(before), Some(own)) = (&self.peer_sdp, &self.sdp) else { return because(reason::NO_SDP) };
                if !is_repeated(before, &offer.bytes) {
                    return changes("another offer than before");
                }
                // What changed unseen would have raised the version.
                if responding.losses != sx.losses && *before != offer.bytes {
                    return because(reason::PACKETS_LOST);
                }
                let both = self.server_media().zip(super::media::Media::read(&offer.bytes));
                if own.bytes.is_empty() || both.is_none_or(|(server, peer)| peer.hold_would_be_lifted_by(&server)) {
                    return changes("the server's session description does not answer it");
                }
            }
        }
        let remote = self.target.as_ref().map(super::target::Target::remote);
        if talk.contact.is_some() && talk.contact.as_deref() != remote {
            return changes("another Contact");
        }
        if let Some(what) = self.aside.of(talk.asked != Said::Nothing) {
            return changes(what);
        }
        if request.values(HeaderName::Require).any(|option| !option.eq_ignore_ascii_case(b"timer")) {
            return changes("it requires more than timers");
        }

        // Whether it is to be answered.
        if let Some(why) = self.forbidden(sx).filter(|why| ![reason::CSEQ_ROOM].contains(why)) {
            return because(why);
        }
        if now.since(self.started) > policy.max_session {
            return because(reason::MAX_SESSION);
        }
        let is_peers = |from: SocketAddr| {
            from.ip() == self.names.peer.ip()
                || self.target.as_ref().and_then(|target| target.hop(peers)).is_some_and(|hop| hop.ip() == from.ip())
                || peers.iter().any(|net| net.contains(&from.ip()))
        };
        if !is_peers(asked.from) || asked.from.ip() != heard.packet.peer.ip() {
            return because(reason::NOT_THE_PEER);
        }
        if self.look.contact().is_none() {
            return because(reason::NO_TARGET);
        }
        let (interval, role) = promise(talk.terms, agreed);
        if Duration::from_secs(interval.into()) < rules.interval_floor.max(LEAST_INTERVAL) {
            return because(reason::BELOW_FLOOR);
        }
        if let Some(open) = self.exchanges.open_of(now, Side::Server) {
            let invites = open.method == MethodName::Invite;
            return because(if invites { reason::INVITE_IN_PROGRESS } else { reason::REQUEST_IN_PROGRESS });
        }
        // R29; RFC 3311, section 5.2: an UPDATE with an offer is bound by the same.
        let offers = talk.asked != Said::Nothing;
        if offers && self.own.iter().any(|own| own.method == MethodName::Invite && own.is_open()) {
            return Ok(Plan::Decline { status: 491, retry_after: None });
        }
        let other = |known: &Exchange| {
            let asks = known.talk.as_ref().is_some_and(|talk| talk.asked != Said::Nothing);
            (known.method == method || offers && asks) && !known.is_named(branch)
        };
        let busy =
            || self.exchanges.all_open_of(now, Side::Peer).filter(|known| other(known) && known.stage == Stage::Open);
        if busy().any(|known| known.waits_since(sx.lost))
            || offers && self.telling.as_ref().is_some_and(|t| t.is_open())
        {
            return Ok(Plan::Decline { status: 500, retry_after: Some(RETRY_AFTER) });
        }
        // Its answer may have gone by unseen: what the server says then is no worse than what it would have said without sipst.
        if busy().next().is_some() {
            return because(reason::REQUEST_IN_PROGRESS);
        }
        Ok(Plan::Accept { interval, role })
    }

    /// [`crate::Command::Weighed`]: what the server's media tell is known.
    pub(super) fn weighed(&mut self, sx: &mut Shared) {
        let Some(refused) = self.responding.as_mut().and_then(|responding| responding.weighed.take()) else { return };
        let policy = Arc::clone(&sx.policy);
        let (method, status) = (refused.cseq.method, refused.status);
        let silent = self.is_silent(sx).then_some(reason::MEDIA_SILENT);
        let answer = match silent {
            Some(why) => Err(Some(why.into())),
            None => self.answer(sx, &policy, &refused),
        };
        match answer {
            Ok(answer) => self.give(sx, answer),
            Err(why) => self.let_out(sx, refused.datagram, method, status, why),
        }
    }

    /// The answer in the server's place.
    fn answer(&self, sx: &Shared, policy: &Policy, refused: &Refused) -> Result<Answer, Withheld> {
        let unknown = || Some(Cow::from(reason::REQUEST_UNKNOWN));
        let asked = self.responding.as_ref().and_then(|responding| responding.asked.as_ref());
        let asked = asked.filter(|asked| asked.branch == refused.branch).ok_or_else(unknown)?;
        let packet = refused.datagram.packet();
        let (request, refusal) = (Message::scan(&asked.bytes, false), Message::scan(packet.bytes, false));
        let (Ok(request), Ok(refusal)) = (&request, &refusal) else { return Err(unknown()) };
        let heard = Heard::read(&packet, refusal, None).ok_or_else(unknown)?;
        // Once more: the world may have moved.
        let plan = self.plan(sx, policy, &heard)?;
        let own = self.look.own();
        let invites = refused.cseq.method == MethodName::Invite;
        let (status, bytes) = match plan {
            Plan::Decline { status, retry_after } => (status, build::decline(refusal, status, retry_after)),
            Plan::Accept { interval, role } => {
                let offers = Message::body(request) != Body::None;
                let sdp = self.sdp.as_ref().filter(|_| offers);
                let accept = build::Accept {
                    contact: self.look.contact(),
                    own: &own,
                    interval_s: interval,
                    role,
                    // R10
                    require: role == Role::Uac || request.supports(b"timer"),
                    body: sdp.map(|sdp| (&*sdp.content_type, &*sdp.bytes)),
                };
                (200, build::accept(request, refusal, &accept))
            }
        };
        let bytes = bytes.ok_or_else(unknown)?;
        let wire = request.cseq().ok_or_else(unknown)?.number;
        let (mut ack, mut invite) = (None, None);
        if invites && status < 300 {
            let branch = heard.branch().ok_or_else(unknown)?.to_vec();
            if branch.len() > MAX_TAG {
                return Err(Some(Refusal::Identifiers.reason().into()));
            }
            let to = refusal.first(HeaderName::To).ok_or_else(unknown)?;
            let message = build::peers_ack_failure(&asked.bytes, to, refused.cseq.number).ok_or_else(unknown)?;
            ack = Some(Datagram { bytes: message, ..refused.datagram.clone() });
            invite = Some(AnsweredInvite { branch, number: refused.cseq.number, wire });
        }
        let datagram = Datagram { bytes, ..refused.datagram.clone() };
        let (refused, sent) = (refused.clone(), sx.now);
        Ok(Answer { refused, status, wire, datagram, ack, invite, left: false, acked: false, sent, wait: T1 })
    }

    fn give(&mut self, sx: &mut Shared, answer: Answer) {
        let (datagram, invite) = (answer.datagram.clone(), answer.invite.is_some());
        let Some(responding) = &mut self.responding else { return };
        let told_apart = responding.answer.replace(answer).is_some_and(|before| before.invite.is_some());
        if invite || told_apart {
            // Before it leaves: its ACK is not for the server.
            self.set_mark(sx);
        }
        sx.output(Output::Send(datagram));
        sx.timers.set(self.id, Timer::Answer, sx.now + T1);
    }

    /// [`Timer::Answer`]
    pub(super) fn answer_again(&mut self, sx: &mut Shared) {
        let Some(responding) = &mut self.responding else { return };
        let Some(answer) = &mut responding.answer else { return };
        if answer.left && !answer.wants_ack() {
            return;
        }
        let wants_ack = answer.wants_ack() && answer.left;
        if sx.now.since(answer.sent) >= TRANSACTION {
            // R44 would have a BYE follow.
            if wants_ack {
                self.fault(sx, reason::ANSWER_NOT_ACKED, "no ACK to the 200 in the server's name");
            }
            return;
        }
        answer.wait = (answer.wait * 2).min(T2);
        let (wait, datagram) = (answer.wait, answer.datagram.clone());
        sx.output(Output::Send(datagram));
        sx.timers.set(self.id, Timer::Answer, sx.now + wait);
    }

    /// [`crate::Command::Unsent`]: the answer has not left, so the server's own does.
    pub(super) fn unsent(&mut self, sx: &mut Shared, refusal: Refusal) {
        let Some(responding) = &mut self.responding else { return };
        let Some(answer) = responding.answer.take_if(|answer| !answer.left) else { return };
        let Refused { cseq, status, datagram, .. } = answer.refused;
        sx.timers.cancel(self.id, Timer::Answer);
        if answer.invite.is_some() {
            self.set_mark(sx);
        }
        self.let_out(sx, datagram, cseq.method, status, Some(refusal.reason().into()));
    }

    /// Whether a response that was seen leaving is sipst's own: the server has said something else, by another socket.
    pub(super) fn is_own_answer(&self, sx: &Shared, heard: &Heard<'_>) -> bool {
        let status = heard.message.status();
        heard.packet.cookie != self.cookie
            && self.answer_to(sx, heard).is_some_and(|answer| Some(answer.status) == status)
    }

    /// An answer in the server's name was seen leaving: from now on it is as if the server had given it.
    pub(super) fn answer_left(&mut self, sx: &mut Shared, heard: &Heard<'_>) {
        let now = sx.now;
        let answer = self.responding.as_mut().and_then(|responding| responding.answer.as_mut());
        let Some(answer) = answer.filter(|answer| !answer.left) else { return };
        answer.left = true;
        let (accepts, status, cseq) = (answer.accepts(), answer.refused.status, answer.refused.cseq);
        let exchange = self.exchanges.of_response(Side::Peer, heard.cseq, heard.transaction(sx.secret));
        let Some(exchange) = exchange.filter(|exchange| exchange.stage == Stage::Open) else { return };
        let talk = exchange.talk.take();
        exchange.stage = if accepts { Stage::Succeeded(now) } else { Stage::Failed(now) };
        if self.is_over() {
            return;
        }
        let event = Event {
            by: Some(By::Sipst),
            method: Some(cseq.method.name()),
            status: Some(status),
            ..self.timed_event(sx, EventKind::RefreshAnswered)
        };
        let Some(talk) = talk.filter(|_| accepts) else {
            let reason = format!("{}: {}", reason::DECLINED, heard.message.status().unwrap_or_default()).into();
            let event = Event { kind: EventKind::AnswerWithheld, reason: Some(reason), ..event };
            return self.tell(sx, event);
        };
        self.tell(sx, event);
        self.peer_update = talk.update.or(self.peer_update);
        self.min_se = self.min_se.max(talk.terms.min_se);
        let unchanged =
            talk.asked == Said::Nothing || self.settle(sx, Side::Peer, talk.asked.clone(), Said::by(heard.message));
        let (by, method, terms) = (By::Peer, cseq.method, talk.terms);
        let deal = Deal { sender: Side::Peer, by, answered: true, method, terms, unchanged };
        self.agree(sx, heard.message, deal);
    }
}

/// The interval and the refresher of the 200, as the role in this transaction (R8, R9).
fn promise(terms: super::breach::Terms, agreed: Agreed) -> (u32, Role) {
    let role = match terms.refresher {
        Some(role) => role,
        // It goes on as it was.
        None if terms.timer && agreed.refresher == Side::Peer => Role::Uac,
        None => Role::Uas,
    };
    (terms.interval.unwrap_or(agreed.interval), role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::breach::Terms;

    #[test]
    fn r08_r09_the_refresher_is_whom_the_request_names_and_the_interval_what_it_asks_for() {
        let agreed = |refresher| Agreed { interval: 1_800, refresher };
        for (timer, interval, refresher, before, expected) in [
            (true, Some(600), Some(Role::Uac), Side::Peer, (600, Role::Uac)),
            (true, Some(600), Some(Role::Uas), Side::Peer, (600, Role::Uas)),
            (true, Some(600), None, Side::Peer, (600, Role::Uac)),
            (true, Some(600), None, Side::Server, (600, Role::Uas)),
            (true, None, None, Side::Peer, (1_800, Role::Uac)),
            (false, None, None, Side::Peer, (1_800, Role::Uas)),
            (false, Some(90), Some(Role::Uac), Side::Peer, (90, Role::Uac)),
        ] {
            let terms = Terms { timer, interval, refresher, min_se: None };
            assert_eq!(promise(terms, agreed(before)), expected, "{terms:?} {before:?}");
        }
    }
}
