//! What the server's and the peer's own messages change in a dialog.

use std::borrow::Cow;

use super::{
    dialog::{Dialog, Phase},
    exchange::{Exchange, Stage},
    heard::{Heard, Named},
    limits::has_too_long,
    reason,
    sdp::Said,
    session::Deal,
    shared::Shared,
    streamed::length,
    timers::{TRANSACTION, Timer},
};
use crate::{
    By, Side,
    message::{Body, CSeq, HeaderName, Message, MethodName, Transport},
};

/// How much of a BYE's Reason is told, in bytes.
const MAX_CAUSE: usize = 256;

impl Dialog {
    /// Takes in a request of the server's or the peer's.
    pub(super) fn request(&mut self, sx: &mut Shared, heard: &Heard<'_>) {
        let Heard { packet, message, named: Named { client: sender, cseq, .. }, .. } = *heard;
        self.hear(sx, heard, sender);
        let method = cseq.method;
        if sender == Side::Server {
            let shows_the_way = self.is_first(heard);
            self.numbers.saw(cseq, length(packet));
            if sx.mode == super::Mode::Live {
                sx.remember_spaces(packet.server, cseq.layout.spaces);
            }
            self.relayed |= heard.has_more_vias;
            if let Some(target) = self.target.as_mut().filter(|_| shows_the_way) {
                target.saw(sx.secret, packet.peer, message, heard.via);
            }
        } else {
            self.peer_numbers.saw_peers(cseq);
        }
        if self.is_over() {
            return;
        }
        self.catch_up(packet.peer, message, heard.via, sender, method);
        match method {
            MethodName::Ack => {
                if sender == Side::Peer {
                    self.answer_acked(sx, heard);
                }
                self.acknowledged(sx, message, sender, cseq);
            }
            MethodName::Invite | MethodName::Update | MethodName::Bye => {
                let branch = heard.transaction(sx.secret);
                if let Some(known) = self.exchanges.of_request(sender, cseq, branch) {
                    // What another host sends under its name proves nothing.
                    known.copies = known.copies.saturating_add(u32::from(known.from == packet.peer));
                    if sender == Side::Peer {
                        self.asked_again(sx, heard);
                    }
                } else {
                    let full = self.exchanges.push(Exchange::new(sx.now, sender, packet.peer, message, cseq, branch));
                    sx.stats.evicted_exchanges += u64::from(full);
                    if sender == Side::Peer && method != MethodName::Bye {
                        self.keep_asked(sx, heard);
                    }
                    self.asked(sx, message, sender, method);
                }
            }
            MethodName::Cancel => {}
            MethodName::Prack
            | MethodName::Info
            | MethodName::Options
            | MethodName::Register
            | MethodName::Subscribe
            | MethodName::Notify
            | MethodName::Refer
            | MethodName::Message
            | MethodName::Publish
            | MethodName::Other => {
                if sender == Side::Server {
                    let full = self.others.asked(sx.now, method, heard.any_branch(sx.secret));
                    sx.stats.evicted_exchanges += u64::from(full);
                }
                if method == MethodName::Prack && message.body() != Body::None {
                    // An offer or answer on the way of a reliable provisional response: not followed.
                    (self.sdp, self.peer_sdp, self.media_read) = (None, None, false);
                }
            }
        }
    }

    /// Whether a request of the server's is one of this moment, which shows the way: a copy goes where it went at first, however
    /// the target has moved since, and what goes hop by hop goes where its INVITE went.
    fn is_first(&mut self, heard: &Heard<'_>) -> bool {
        if heard.cseq.method == MethodName::Ack {
            let invite = self.exchanges.of_ack(Side::Server, heard.cseq);
            return invite.is_some_and(|invite| matches!(invite.stage, Stage::Succeeded(_)) && !invite.acked);
        }
        heard.cseq.method != MethodName::Cancel && self.numbers.is_new(heard.cseq)
    }

    /// A new INVITE, UPDATE or BYE.
    fn asked(&mut self, sx: &mut Shared, message: &Message<'_>, sender: Side, method: MethodName) {
        match (sender, method) {
            (Side::Server, MethodName::Bye) => self.end(sx, Some(By::Server), bye_reason(message)),
            (Side::Peer, MethodName::Bye) => {
                self.parting = Some(bye_reason(message));
                // An earlier one's time goes on.
                if self.exchanges.leaving(Side::Peer).filter(|bye| !bye.is_given_up(sx.now)).count() == 1 {
                    sx.timers.set(self.id, Timer::Unanswered, sx.now + TRANSACTION);
                }
            }
            (Side::Server, MethodName::Invite) => {
                self.look.saw(&mut sx.own_headers, message);
                self.session.saw_server(message);
            }
            (Side::Server, _) => {
                self.look.saw_contact(message);
                self.session.saw_server(message);
            }
            // What it says counts once the server has answered it.
            (Side::Peer, _) => self.peer_asks(sx),
        }
    }

    /// Takes in a response to a request of `sender`'s.
    pub(super) fn response(&mut self, sx: &mut Shared, heard: &Heard<'_>) {
        let Heard { message, named: Named { client: sender, cseq, .. }, .. } = *heard;
        let responder = sender.other();
        if sender == Side::Peer && self.is_own_answer(sx, heard) {
            return self.answer_left(sx, heard);
        }
        self.hear(sx, heard, responder);
        let (Some(status), now) = (message.status(), sx.now) else { return };
        self.overhear(sx, cseq.method, status);
        let of_dialog =
            matches!(cseq.method, MethodName::Invite | MethodName::Update | MethodName::Info | MethodName::Options);
        if responder == Side::Server && status == 481 && of_dialog {
            // It has forgotten the dialog, in a restart say: nothing is kept alive in its name.
            self.barred.get_or_insert(reason::SERVER_LOST_DIALOG);
        }
        if !matches!(cseq.method, MethodName::Invite | MethodName::Update | MethodName::Bye) {
            let is_answer = sender == Side::Server
                && status >= 200
                && self.others.answered(cseq.method, || heard.any_branch(sx.secret));
            if is_answer {
                (self.losses, self.restored) = (sx.losses, false);
                self.answer_was_joined(sx, responder);
            }
            return;
        }
        let transaction = heard.transaction(sx.secret);
        if sx.joined
            && self.exchanges.of_response(sender, cseq, transaction).is_some_and(|known| known.stage == Stage::Open)
        {
            self.answer_was_joined(sx, responder);
        }
        let Some(exchange) = self.exchanges.of_response(sender, cseq, transaction) else {
            sx.stats.unknown_request += 1;
            return;
        };
        (self.losses, self.restored) = (sx.losses, false);
        if exchange.stage != Stage::Open {
            // R16: a copy changes nothing.
            return;
        }
        match status {
            ..200 => {
                exchange.rings(now, message);
                // R24; RFC 6141, sections 4.6 and 4.7: even where the final response is a failure.
                if message.reliable() {
                    let contact = exchange.talk.as_ref().and_then(|talk| talk.contact.clone());
                    self.redirect(match sender {
                        Side::Server => message.contact().map(|contact| contact.uri),
                        Side::Peer => contact.as_deref(),
                    });
                }
            }
            200..300 => {
                exchange.stage = Stage::Succeeded(now);
                let Some(mut talk) = exchange.talk.take() else { return };
                talk.hear_body(message);
                let (contact, terms) = (talk.contact.take(), talk.terms);
                let says = if sender == Side::Peer { talk.update } else { message.allows(b"UPDATE") };
                self.peer_update = says.or(self.peer_update);
                let unchanged = if talk.asked == Said::Nothing {
                    // The 2xx may make an offer, which the ACK answers.
                    exchange.talk = Some(talk).filter(|talk| talk.answered != Said::Nothing);
                    cseq.method == MethodName::Update
                } else if self.is_over() {
                    cseq.method == MethodName::Update
                } else {
                    self.settle(sx, sender, talk.asked, talk.answered)
                };
                let (by, method) = (sender.into(), cseq.method);
                let deal = Deal { sender, by, answered: false, method, terms, unchanged };
                self.succeeded(sx, message, deal, contact);
            }
            300.. => {
                exchange.stage = Stage::Failed(now);
                let Some(talk) = exchange.talk.take() else { return };
                let terms = talk.terms;
                if sender == Side::Peer && cseq.method != MethodName::Bye {
                    self.peer_turned_down(sx, cseq.method, &talk, message, status);
                }
                self.demands_timers(sx, message, sender, cseq.method, status);
                if status == 422 {
                    // R17
                    self.min_se = self.min_se.max(message.min_se());
                    self.too_short(sx, message, sender, terms);
                }
                if cseq.method == MethodName::Bye && sender == Side::Server && status == 500 {
                    self.bye_was_refused(sx);
                }
                if cseq.method == MethodName::Bye && sender == Side::Peer {
                    sx.timers.cancel(self.id, Timer::Unanswered);
                    if status == 481 {
                        self.end_by_peer(sx);
                    }
                }
            }
        }
    }

    /// The first 2xx to an INVITE, UPDATE or BYE of the server's or the peer's.
    fn succeeded(&mut self, sx: &mut Shared, message: &Message<'_>, deal: Deal, contact: Option<Vec<u8>>) {
        let Deal { sender, method, .. } = deal;
        if self.is_over() {
            return;
        }
        if method == MethodName::Bye {
            if sender == Side::Peer {
                self.end_by_peer(sx);
            }
            return;
        }
        self.heard_by_server(method);
        match sender {
            Side::Server => self.redirect(message.contact().map(|contact| contact.uri)),
            Side::Peer => {
                if method == MethodName::Invite {
                    self.look.saw(&mut sx.own_headers, message);
                } else {
                    self.look.saw_contact(message);
                }
                self.session.saw_server(message);
                self.redirect(contact.as_deref());
                self.peer_was_taken(sx, method);
                // R17
                self.min_se = self.min_se.max(deal.terms.min_se);
            }
        }
        self.agree(sx, message, deal);
    }

    fn acknowledged(&mut self, sx: &mut Shared, message: &Message<'_>, sender: Side, cseq: CSeq) {
        let Some(exchange) = self.exchanges.of_ack(sender, cseq) else { return };
        let Stage::Succeeded(_) = exchange.stage else {
            exchange.acked = true;
            return;
        };
        if std::mem::replace(&mut exchange.acked, true) {
            return;
        }
        // The 2xx made the offer, the ACK answers it.
        if let Some(talk) = exchange.talk.take() {
            self.settle(sx, sender.other(), talk.answered, Said::by(message));
            self.watch(sx);
        }
        // R26
        if sender == self.caller && self.phase == Phase::Started {
            self.phase = Phase::Confirmed;
            self.mark(sx);
        }
    }

    /// What every message of the dialog tells.
    pub(super) fn hear(&mut self, sx: &mut Shared, heard: &Heard<'_>, sender: Side) {
        let Heard { packet, .. } = *heard;
        self.heard = sx.now;
        sx.stats.too_long += u64::from(has_too_long(heard));
        match sender {
            Side::Server => {
                (self.losses, self.restored) = (sx.losses, false);
                self.server_heard = sx.now;
                sx.hear_server(packet.server);
                (self.tos, self.ttl) = (packet.tos, packet.ttl);
                if self.cookie == 0 {
                    self.cookie = packet.cookie;
                }
                if packet.transport != Transport::Udp {
                    self.is_streamed(sx, packet);
                }
                if sx.joined {
                    self.was_joined(sx);
                }
            }
            // What it says counts once it has answered the server, or the server it.
            Side::Peer => {}
        }
    }
}

/// [`reason::BYE`] and the Reason of a BYE, if it has one.
fn bye_reason(bye: &Message<'_>) -> Cow<'static, str> {
    let cause = bye.first(HeaderName::Reason).map(|cause| &cause[..cause.len().min(MAX_CAUSE)]);
    cause.map_or(reason::BYE.into(), |cause| format!("{}: {}", reason::BYE, String::from_utf8_lossy(cause)).into())
}
