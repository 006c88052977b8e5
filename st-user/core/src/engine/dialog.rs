//! One dialog: who takes part in it, what holds in it, how it ends.

use std::{borrow::Cow, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    aside::Aside,
    census::Place,
    evidence::Evidence,
    exchange::{Exchange, Exchanges},
    hangup::Hangup,
    heard::{Heard, Named},
    invite::{Early, Invite},
    keepalive::Wanted,
    limits::{MAX_DOMAIN, MAX_HEADERS},
    media::{Media, same_session},
    numbers::Numbers,
    others::Others,
    own::Own,
    reason,
    record::{self, words, words::Word},
    refresh::Cycle,
    respond::Responding,
    sdp::{Said, Sdp},
    session::Session,
    shared::Shared,
    streamed::Streamed,
    target::{Look, Target},
    telling::Telling,
    timers::{OF_INTERVAL, TRANSACTION, Timer},
};
use crate::{
    Action, Assist, By, Event, EventKind, Names, Output, Policy, Rules, SessionId, Side, Time, message::Message,
};

/// How long nobody may speak in a dialog before it is forgotten.
pub const SILENCE: std::time::Duration = std::time::Duration::from_secs(48 * 3600);

/// The longest that a tombstone stays, however many retransmissions come.
const TOMBSTONE: std::time::Duration = std::time::Duration::from_secs(600);

/// Call-ID and tags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids<'a> {
    pub(super) call_id: &'a [u8],
    /// The server's tag.
    pub(super) local: &'a [u8],
    /// The peer's.
    pub(super) remote: &'a [u8],
}

impl<'a> Ids<'a> {
    /// The tag of whoever `caller` called.
    pub(super) fn callee(&self, caller: Side) -> &'a [u8] {
        match caller {
            Side::Server => self.remote,
            Side::Peer => self.local,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// A 2xx was seen, the ACK not yet (R26).
    Started,
    /// Both were.
    Confirmed,
    /// Over, since then; only retransmissions come (R41).
    Ended(Time),
}

#[derive(Serialize, Deserialize)]
pub(super) struct Dialog {
    pub(super) id: SessionId,
    #[serde(with = "record::names")]
    pub(super) names: Arc<Names>,
    /// Who sent the INVITE that made the dialog, and so owns the Call-ID (R30).
    pub(super) caller: Side,
    /// Host in the peer's URI.
    pub(super) domain: String,
    pub(super) started: Time,
    pub(super) heard: Time,
    /// When the server was last heard of.
    pub(super) server_heard: Time,
    /// [`Shared::losses`] when the dialog began.
    pub(super) losses_before: u64,
    /// [`Shared::losses`] when it was last heard of for certain: the server spoke, or the peer answered it or sipst. Anybody can send
    /// what looks like another message of the peer's.
    pub(super) losses: u64,
    pub(super) phase: Phase,
    /// This host passes the call on: it is no end of it.
    pub(super) relayed: bool,
    /// The INVITE that made it was not seen: `caller` is only who asked first then, and `started` when.
    pub(super) mid_call: bool,
    /// Of the socket that made the dialog.
    pub(super) cookie: u64,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    /// Values of the server's From and To in its own requests.
    #[serde(with = "serde_bytes")]
    pub(super) from: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(super) to: Vec<u8>,
    pub(super) target: Option<Target>,
    pub(super) look: Look,
    pub(super) numbers: Numbers,
    /// The peer's numbers, as far as they were seen.
    pub(super) peer_numbers: Numbers,
    /// R17.
    pub(super) min_se: Option<u32>,
    /// F8: what the server last sent in an offer or answer that held; `None` while that is not known.
    pub(super) sdp: Option<Sdp>,
    /// The peer's, likewise.
    #[serde(with = "serde_bytes")]
    pub(super) peer_sdp: Option<Vec<u8>>,
    /// Whether the peer's Allow lists UPDATE (R21).
    pub(super) peer_update: Option<bool>,
    pub(super) exchanges: Exchanges,
    /// The server's requests of other kinds.
    pub(super) others: Others,
    pub(super) session: Session,
    pub(super) cycle: Cycle,
    pub(super) own: Vec<Own>,
    /// What the server's media tell, where that counts.
    pub(super) evidence: Option<Box<Evidence>>,
    /// Whether that goes by `sdp` and `peer_sdp` as they are: whoever changes one of them takes it back.
    #[serde(skip)]
    pub(super) media_read: bool,
    /// Whether a refresh of sipst's has succeeded in it.
    pub(super) proven: bool,
    /// Why nothing is sent in this dialog any more.
    #[serde(deserialize_with = "words::maybe")]
    pub(super) barred: Option<Word>,
    /// The connection that the server last spoke by in it, where it was one. On record behind the rest that there is one.
    #[serde(skip)]
    pub(super) streamed: Option<Streamed>,
    /// Whether an operator has told sipst to keep its hands off it. On record behind the rest, where it is so.
    #[serde(skip)]
    pub(super) held: bool,
    /// Whether the INVITE that made it was changed, so that it has timers for sipst's sake alone. On record likewise.
    #[serde(skip)]
    pub(super) assisted: bool,
    /// What the peer has said to sipst alone. On record likewise.
    #[serde(skip)]
    pub(super) aside: Aside,
    /// Whether the kernel follows the server's numbers.
    pub(super) followed: bool,
    /// And the peer's.
    pub(super) peer_followed: bool,
    /// What the server has to be told, or was: an earlier daemon's the programs bring to its end.
    #[serde(skip)]
    pub(super) telling: Option<Box<Telling>>,
    /// What is held back and answered in the server's name, while the dialog is marked. An earlier daemon's answers have left, and the
    /// server's copies of what they were in place of do no harm.
    #[serde(skip)]
    pub(super) responding: Option<Box<Responding>>,
    /// What is done about its having expired: an earlier daemon's is not gone on with.
    #[serde(skip)]
    pub(super) hangup: Option<Box<Hangup>>,
    /// What the peer's BYE says.
    pub(super) parting: Option<Cow<'static, str>>,
    /// Whether it was taken back from a record and not heard of for certain since: its end may have gone by unseen.
    #[serde(skip)]
    pub(super) restored: bool,
    /// Whether the peer has forgotten it, and the server has said nothing of an end: of a fork that is not known its numbers may
    /// be needed.
    #[serde(skip)]
    pub(super) forsaken: bool,
    /// Whether it stands on the list of what has changed.
    #[serde(skip)]
    pub(super) listed: bool,
    /// Whether nothing of it was ever written down.
    #[serde(skip)]
    pub(super) unwritten: bool,
    /// As what it is counted, and whether it may be something else by now.
    #[serde(skip)]
    pub(super) counted: Option<Place>,
    #[serde(skip)]
    pub(super) touched: bool,
    /// What it wants of its flow.
    #[serde(skip)]
    pub(super) keeps: Option<Wanted>,
}

impl Dialog {
    /// From an INVITE and its 2xx; `None` where one of them lacks what names the dialog.
    pub(super) fn new(
        sx: &mut Shared,
        id: SessionId,
        ids: Ids<'_>,
        heard: &Heard<'_>,
        invite: &Invite,
        early: &Early,
    ) -> Option<Self> {
        let Heard { packet, message: answer, named: Named { client: caller, .. }, .. } = *heard;
        let request = Message::scan(&invite.bytes, invite.truncated).ok()?;
        let cseq = request.cseq()?;
        let (caller_party, callee_party) = (request.from()?, answer.to()?);
        let (local, remote) = match caller {
            Side::Server => (caller_party, callee_party),
            Side::Peer => (callee_party, caller_party),
        };
        let (servers, peers) = match caller {
            Side::Server => (&request, answer),
            Side::Peer => (answer, &request),
        };
        let mut routes: Vec<Vec<u8>> = match caller {
            Side::Server => answer.record_routes(),
            Side::Peer => request.record_routes(),
        }
        .map(<[u8]>::to_vec)
        .collect();
        if caller == Side::Server {
            routes.reverse();
        }
        // Addresses that are too long are not kept, and a target without them is of no use.
        let fits = local.value.len() + remote.value.len() <= MAX_HEADERS;
        let kept = |value: &[u8]| if fits { value.to_vec() } else { Vec::new() };
        // Where it sends from: the cookie is that socket's.
        let server = if caller == Side::Server { invite.server } else { packet.server };
        let mut dialog = Self {
            id,
            names: Arc::new(Names::new(ids.call_id, ids.local, ids.remote, server, invite.peer)),
            caller,
            domain: String::from_utf8_lossy(
                Some(remote.host()).filter(|host| host.len() <= MAX_DOMAIN).unwrap_or_default(),
            )
            .into_owned(),
            started: sx.now,
            heard: sx.now,
            server_heard: sx.now,
            losses_before: sx.losses,
            losses: sx.losses,
            phase: Phase::Started,
            relayed: early.relayed,
            mid_call: early.mid_call,
            cookie: invite.cookie,
            // The server's own; where it was called, its 2xx tells them at once.
            tos: invite.tos,
            ttl: invite.ttl,
            from: kept(local.value),
            to: kept(remote.value),
            target: peers.contact().filter(|_| fits).and_then(|contact| Target::new(contact.uri, routes, invite.peer)),
            look: Look::default(),
            numbers: early.numbers,
            peer_numbers: early.peer_numbers,
            min_se: None,
            sdp: None,
            peer_sdp: None,
            peer_update: peers.allows(b"UPDATE"),
            exchanges: Exchanges::default(),
            others: Others::default(),
            session: Session::default(),
            cycle: Cycle::default(),
            own: Vec::new(),
            evidence: None,
            media_read: false,
            proven: false,
            barred: None,
            streamed: None,
            held: false,
            assisted: invite.assist == Some(Assist::Done),
            aside: Aside::default(),
            followed: false,
            peer_followed: false,
            telling: None,
            responding: None,
            hangup: None,
            parting: None,
            restored: false,
            forsaken: false,
            listed: false,
            unwritten: true,
            counted: None,
            touched: false,
            keeps: None,
        };
        // There is a Contact: it, the addresses or the routes are too long.
        sx.stats.too_long += u64::from(dialog.target.is_none() && peers.contact().is_some());
        dialog.look.saw(&mut sx.own_headers, servers);
        dialog.session.saw_server(servers);
        if caller == Side::Peer {
            dialog.peer_numbers.saw_peers(cseq);
            dialog.numbers.saw_answer(answer);
        }
        // As the 2xx names it: several copies may have come by several ways.
        let mut exchange = Exchange::new(sx.now, caller, invite.peer, &request, cseq, heard.transaction(sx.secret));
        let said = early.said.as_ref().filter(|(tag, _)| *tag == callee_party.tag.unwrap_or_default());
        if let (Some((_, said)), Some(talk)) = (said, &mut exchange.talk) {
            talk.answered = said.clone();
        }
        if let Some(talk) = exchange.talk.as_mut().filter(|_| dialog.assisted && caller == Side::Server) {
            talk.terms.timer = true;
        }
        dialog.exchanges.push(exchange);
        if early.mid_call {
            dialog.resume(invite.peer, &request, caller, cseq);
        }
        let started = Event {
            by: Some(caller.into()),
            method: Some(cseq.method.name()),
            status: answer.status(),
            reason: [
                (dialog.relayed, reason::RELAYED),
                (dialog.mid_call, reason::MID_CALL),
                (dialog.assisted, reason::ASSISTED),
            ]
            .into_iter()
            .find_map(|(is_so, reason)| is_so.then(|| reason.into())),
            ..dialog.event(sx, EventKind::SessionStarted)
        };
        dialog.tell(sx, started);
        sx.timers.set(id, Timer::Forget, sx.now + SILENCE);
        dialog.response(sx, heard);
        if early.disturbed {
            (dialog.sdp, dialog.peer_sdp, dialog.media_read) = (None, None, false);
        }
        Some(dialog)
    }

    /// An answer to a request of ours is a message of the dialog too.
    pub(super) fn hear_answer(&mut self, sx: &Shared, message: &Message<'_>) {
        self.heard = sx.now;
        (self.losses, self.restored) = (sx.losses, false);
        self.peer_update = message.allows(b"UPDATE").or(self.peer_update);
    }

    /// R24.
    pub(super) fn redirect(&mut self, contact: Option<&[u8]>) {
        if let (Some(target), Some(contact)) = (self.target.as_mut(), contact) {
            target.redirect(contact);
        }
    }

    /// An offer of `offerer`'s was answered (F8). Whether the offer was the same session as before (R22).
    pub(super) fn settle(&mut self, sx: &Shared, offerer: Side, offer: Said, answer: Said) -> bool {
        if let Some(responding) = &mut self.responding {
            responding.losses = sx.losses;
        }
        let (server, peer) = match offerer {
            Side::Server => (offer, answer),
            Side::Peer => (answer, offer),
        };
        self.media_read = false;
        let server_before = std::mem::replace(&mut self.sdp, server.sdp());
        let peer_before = std::mem::replace(&mut self.peer_sdp, peer.sdp().map(|sdp| sdp.bytes));
        let (before, now) = match offerer {
            Side::Server => (server_before.map(|sdp| sdp.bytes), self.sdp.as_ref().map(|sdp| &sdp.bytes)),
            Side::Peer => (peer_before, self.peer_sdp.as_ref()),
        };
        before.zip(now).is_some_and(|(before, now)| same_session(&before, now))
    }

    /// What the server's last SDP says.
    pub(super) fn server_media(&self) -> Option<Media<'_>> {
        self.sdp.as_ref().and_then(|sdp| Media::read(&sdp.bytes))
    }

    /// What the peer's says beside it.
    pub(super) fn peer_media(&self) -> Option<Media<'_>> {
        self.peer_sdp.as_ref().and_then(|sdp| self.peer_media_in(sdp))
    }

    /// What the peer's says by itself.
    pub(super) fn peer_media_as_said(&self) -> Option<Media<'_>> {
        self.peer_sdp.as_ref().and_then(|sdp| Media::read(sdp))
    }

    /// What an SDP of the peer's says beside the server's last one.
    pub(super) fn peer_media_in<'a>(&self, sdp: &'a [u8]) -> Option<Media<'a>> {
        let media = Media::read(sdp)?;
        Some(match self.server_media() {
            Some(server) => media.within(&server),
            None => media,
        })
    }

    /// R26. Where the ACK may have been lost on its way to here: a dialog that has outlived a transaction has had one (R44).
    pub(super) fn is_confirmed(&self, sx: &Shared) -> bool {
        let lost = sx.losses != self.losses_before || self.is_unheard_since(sx, self.started);
        let acked_unseen = lost && sx.now.since(self.started) > TRANSACTION;
        self.phase == Phase::Confirmed || acked_unseen
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Whether packets were lost since the dialog was last heard of for certain.
    pub(super) fn is_unsure(&self, sx: &Shared) -> bool {
        self.losses != sx.losses || self.is_unheard_since(sx, self.server_heard)
    }

    /// Whether anything went by unseen on such connections as its messages take.
    fn is_unheard_since(&self, sx: &Shared, since: Time) -> bool {
        self.streamed.is_some() && sx.is_unheard_since(self.names.peer.ip(), since)
    }

    /// Whether it may be over: what is told of it and what a 481 means depends on that.
    pub(super) fn may_be_over(&self, sx: &Shared) -> bool {
        self.restored || self.is_unsure(sx)
    }

    /// The name of its trunk, its rules, and the networks of the trunk's peers.
    pub(super) fn rules<'p>(&self, policy: &'p Policy) -> (&'p str, &'p Rules, &'p [IpNet]) {
        let (name, rules) = policy.find(self.names.peer.ip(), &self.domain);
        let trunk = policy.trunks.iter().find(|trunk| std::ptr::eq(&trunk.rules, rules));
        (name, rules, trunk.map_or(&[], |trunk| &trunk.matcher.peers))
    }

    /// What is done about it: a dialog that is only relayed is observed.
    pub(super) fn action(&self, sx: &Shared) -> Action {
        if self.relayed { Action::Observe } else { self.rules(&sx.policy).1.action }
    }

    /// An event with all that names the dialog.
    pub(super) fn event(&self, sx: &Shared, kind: EventKind) -> Event {
        Event {
            names: Some(Arc::clone(&self.names)),
            trunk: Some(self.rules(&sx.policy).0.into()),
            ..Event::new(sx.now, kind)
        }
    }

    /// Tells; a dialog that is only observed raises no alert.
    pub(super) fn tell(&mut self, sx: &mut Shared, event: Event) {
        if !event.kind.is_alert() || self.action(sx) != Action::Observe {
            let breaches = self.session.untold();
            sx.output(Output::Event(Event { breaches, ..event }));
        }
    }

    /// The dialog is over; a tombstone stays (R41).
    pub(super) fn end(&mut self, sx: &mut Shared, by: Option<By>, reason: Cow<'static, str>) {
        if self.is_over() {
            return;
        }
        self.phase = Phase::Ended(sx.now);
        let event = Event { by, reason: Some(reason), ..self.event(sx, EventKind::SessionEnded) };
        self.tell(sx, event);
        sx.timers.cancel_all(self.id, &OF_INTERVAL);
        sx.timers.cancel(self.id, Timer::Unanswered);
        self.parts(sx);
        self.unwatch(sx);
        self.stop_keeping_alive(sx);
        self.cycle = Cycle::after(&self.cycle);
        self.hush(sx);
        self.stop_telling(sx);
        self.unmark(sx);
        self.stop_hanging_up(sx);
        // A BYE of the server's that is refused for its number is followed by sipst's own.
        let may_follow = self.followed && (self.streamed.is_some() || self.is_joined());
        if self.own.is_empty() && self.hangup.is_none() && !may_follow {
            // Nothing is sent in it any more, not even an ACK.
            (self.sdp, self.peer_sdp, self.media_read) = (None, None, false);
            (self.target, self.look) = (None, Look::default());
            (self.from, self.to) = (Vec::new(), Vec::new());
        }
        sx.timers.set(self.id, Timer::Forget, sx.now + TRANSACTION);
    }

    pub(super) fn end_by_peer(&mut self, sx: &mut Shared) {
        let reason = self.parting.take().unwrap_or(reason::BYE.into());
        self.end(sx, Some(By::Peer), reason);
    }

    /// The server has let a BYE of the peer's unanswered. Over only if it was silent to its copies, and to everybody else: a
    /// server that speaks has not had it. It may be a stranger's, and a firewall may have dropped it.
    pub(super) fn unanswered(&mut self, sx: &mut Shared) {
        let heard = self.server_heard.max(sx.server_heard(self.names.server));
        let counts = |bye: &Exchange| bye.copies > 1 && bye.is_given_up(sx.now) && heard <= bye.heard;
        if self.exchanges.leaving(Side::Peer).any(counts) {
            return self.end(sx, Some(By::Peer), reason::BYE_UNANSWERED.into());
        }
        if let Some(next) = self.exchanges.leaving(Side::Peer).find(|bye| !bye.is_given_up(sx.now)) {
            sx.timers.set(self.id, Timer::Unanswered, next.heard + TRANSACTION);
        }
    }

    /// Whether the dialog is to be forgotten now; if not, it is asked again later.
    pub(super) fn forget(&mut self, sx: &mut Shared) -> bool {
        let last = match self.phase {
            Phase::Ended(at) => (self.heard + TRANSACTION).max(at + TRANSACTION).min(at + TOMBSTONE),
            Phase::Started | Phase::Confirmed => self.heard + SILENCE,
        };
        if sx.now < last {
            sx.timers.set(self.id, Timer::Forget, last);
            return false;
        }
        self.end(sx, None, reason::SILENT.into());
        sx.timers.cancel(self.id, Timer::Forget);
        for own in std::mem::take(&mut self.own) {
            own.retire(sx, self.id);
        }
        self.retire_telling(sx);
        self.retire_hangup(sx);
        self.disarm(sx);
        true
    }

    /// The kernel follows the numbers of one side from now on.
    pub(super) fn follow(&mut self, sx: &mut Shared, side: Side) {
        if !std::mem::replace(self.follows(side), true) {
            *sx.entries.entry(sx.secret.entry(&self.names, side)).or_default() += 1;
        }
    }

    /// It need not any more on this dialog's account. Whether it was on no other's.
    pub(super) fn unfollow(&mut self, sx: &mut Shared, side: Side) -> bool {
        if !std::mem::take(self.follows(side)) {
            return false;
        }
        let entry = sx.secret.entry(&self.names, side);
        let Some(users) = sx.entries.get_mut(&entry) else { return true };
        *users = users.saturating_sub(1);
        let last = *users == 0;
        if last {
            sx.entries.remove(&entry);
        }
        last
    }

    /// Whether the kernel follows the numbers of that side for this dialog.
    pub(super) fn follows(&mut self, side: Side) -> &mut bool {
        match side {
            Side::Server => &mut self.followed,
            Side::Peer => &mut self.peer_followed,
        }
    }

    /// The kernel need not follow its numbers any more. A fork's may be needed by another one, whose numbers would fall back.
    fn disarm(&mut self, sx: &mut Shared) {
        for side in [Side::Server, Side::Peer] {
            if !self.unfollow(sx, side) {
                continue;
            }
            sx.output(Output::Disarm {
                session: self.id,
                side,
                call_id: self.names.call_id().to_vec(),
                tag: self.names.tag(side).to_vec(),
                server: self.names.server,
                left: self.forsaken && side == Side::Server,
            });
        }
    }

    /// The daemon ends: a dialog that is over needs its numbers no more, once its BYE is answered.
    pub(super) fn close(&mut self, sx: &mut Shared) {
        if self.is_over()
            && [Side::Server, Side::Peer].iter().all(|side| self.exchanges.leaving(*side).next().is_none())
        {
            self.disarm(sx);
        }
    }
}
