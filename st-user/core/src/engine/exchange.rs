//! The server's and the peer's own transactions in one dialog, as seen from beside: enough of each INVITE, UPDATE and BYE to
//! know what its answer means and when none of them is open.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    breach::Terms,
    hash::Fingerprint,
    limits::{MAX_EXCHANGES, MAX_TARGET},
    sdp::Said,
    timers::TRANSACTION,
};
use crate::{
    Side, Time,
    message::{CSeq, Message, MethodName},
};

/// How long an INVITE that rings can be silent (RFC 3261, section 16.6, timer C).
const RINGING: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// No final response yet.
    Open,
    /// A 2xx, since then.
    Succeeded(Time),
    /// Another final response, since then.
    Failed(Time),
}

/// How long a request of the peer's counts that the server says nothing to: a firewall may have dropped it.
pub(super) const IGNORED: Duration = Duration::from_secs(8);

/// One transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Exchange {
    pub(super) sender: Side,
    pub(super) method: MethodName,
    pub(super) number: u32,
    /// What stands for its branch, where that names it.
    branch: Option<Fingerprint>,
    pub(super) stage: Stage,
    /// Whether the ACK was seen.
    pub(super) acked: bool,
    /// When it was last heard of.
    pub(super) heard: Time,
    provisional: bool,
    /// Where its request came from, or went to.
    pub(super) from: SocketAddr,
    /// How often it came from there.
    pub(super) copies: u32,
    /// What was said, until it has been settled.
    pub(super) talk: Option<Box<Talk>>,
}

/// What the messages of a transaction say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Talk {
    /// The body of the request.
    pub(super) asked: Said,
    /// The body of its last response that had one.
    pub(super) answered: Said,
    /// Contact of a request of the peer's.
    #[serde(with = "serde_bytes")]
    pub(super) contact: Option<Vec<u8>>,
    /// Whether the Allow of a request of the peer's lists UPDATE, where there is one.
    pub(super) update: Option<bool>,
    /// What the request says about session timers.
    pub(super) terms: Terms,
}

impl Exchange {
    /// `from`: the peer's address; `branch`: what stands for the one that names it.
    pub(super) fn new(
        now: Time,
        sender: Side,
        from: SocketAddr,
        request: &Message<'_>,
        cseq: CSeq,
        branch: Option<Fingerprint>,
    ) -> Self {
        Self {
            from,
            sender,
            method: cseq.method,
            number: cseq.number,
            branch,
            stage: Stage::Open,
            acked: false,
            heard: now,
            provisional: false,
            copies: 1,
            talk: Some(Box::new(Talk {
                asked: Said::by(request),
                answered: Said::Nothing,
                contact: Some(request)
                    .filter(|_| sender == Side::Peer)
                    .and_then(Message::contact)
                    .filter(|contact| contact.uri.len() <= MAX_TARGET)
                    .map(|contact| contact.uri.to_vec()),
                update: if sender == Side::Peer { request.allows(b"UPDATE") } else { None },
                terms: Terms::of(request),
            })),
        }
    }

    /// For [`super::Engine::look_ahead`].
    pub(super) fn glance(&self) -> usize {
        let (number, heard) = (self.number as usize, self.heard.as_micros() as usize);
        number
            ^ heard
            ^ usize::from(self.stage == Stage::Open)
            ^ self.talk.as_ref().map_or(0, |talk| usize::from(talk.terms.timer))
    }

    pub(super) fn is(&self, sender: Side, method: MethodName) -> bool {
        self.sender == sender && self.method == method
    }

    /// Whether that stands for its branch, which names it.
    pub(super) fn is_named(&self, branch: Option<Fingerprint>) -> bool {
        branch.is_some() && self.branch == branch
    }

    /// Whether its final response is still to come for certain: a provisional one told of it, and no packet was lost after that.
    pub(super) fn waits_since(&self, lost: Time) -> bool {
        self.stage == Stage::Open && self.provisional && self.heard > lost
    }

    /// Takes in a provisional response.
    pub(super) fn rings(&mut self, now: Time, response: &Message<'_>) {
        self.heard = now;
        self.provisional = true;
        if let Some(talk) = &mut self.talk {
            talk.hear_body(response);
        }
    }

    /// How long it counts while nothing answers it.
    fn patience(&self) -> Duration {
        if self.sender == Side::Peer && self.method != MethodName::Bye { IGNORED } else { TRANSACTION }
    }

    /// Whether it is the peer's, and the server has said nothing to it.
    fn is_unheard_of_by_server(&self) -> bool {
        self.sender == Side::Peer && self.stage == Stage::Open && !self.provisional
    }

    /// Whether the server has said something to it, but nothing final.
    pub(super) const fn is_provisional(&self) -> bool {
        self.provisional
    }

    /// Whether it waits for its final response.
    pub(super) fn is_unanswered(&self) -> bool {
        self.stage == Stage::Open && !self.acked
    }

    /// What it says, where it is an INVITE or UPDATE of the peer's.
    pub(super) fn of_peers(&self) -> Option<(MethodName, &Talk)> {
        let refreshes = self.sender == Side::Peer && matches!(self.method, MethodName::Invite | MethodName::Update);
        self.talk.as_deref().filter(|_| refreshes).map(|talk| (self.method, talk))
    }

    /// Whether its sender sends it no more.
    pub(super) fn is_given_up(&self, now: Time) -> bool {
        now.since(self.heard) >= TRANSACTION
    }

    /// Whether it has had its final response, and ACK, and the time of their copies is over.
    fn is_settled(&self, now: Time) -> bool {
        let acked = self.acked || self.method != MethodName::Invite;
        match self.stage {
            Stage::Open => false,
            Stage::Succeeded(at) | Stage::Failed(at) => acked && now.since(at.max(self.heard)) >= TRANSACTION,
        }
    }

    /// Whether a new INVITE or offer of ours has to wait for it (R27, R28): an INVITE until it is ACKed.
    fn is_open(&self, now: Time) -> bool {
        match self.stage {
            // Its final response went by unseen.
            Stage::Open if self.acked => false,
            Stage::Open if self.provisional && self.method == MethodName::Invite => now.since(self.heard) < RINGING,
            Stage::Open => now.since(self.heard) < self.patience(),
            Stage::Succeeded(at) | Stage::Failed(at) => {
                self.method == MethodName::Invite && !self.acked && now.since(at) < TRANSACTION
            }
        }
    }
}

impl Talk {
    /// Takes in the body of a response; where it has none, an earlier one stands.
    pub(super) fn hear_body(&mut self, response: &Message<'_>) {
        let said = Said::by(response);
        if said != Said::Nothing {
            self.answered = said;
        }
    }
}

/// Those of one dialog, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Exchanges {
    all: Vec<Exchange>,
    /// Since when the peer asks and the server has answered nothing.
    unanswered: Option<Time>,
}

impl Exchanges {
    /// The one that a request belongs to; `None` for a new one.
    pub(super) fn of_request(
        &mut self,
        sender: Side,
        cseq: CSeq,
        branch: Option<Fingerprint>,
    ) -> Option<&mut Exchange> {
        self.all.iter_mut().rev().find(|known| {
            known.is(sender, cseq.method) && known.branch == branch && (branch.is_some() || known.number == cseq.number)
        })
    }

    /// The one that a response belongs to: by branch and method, and where the branch is from before RFC 3261 by the method
    /// alone, for numbers differ on both sides of the shift.
    pub(super) fn of_response(
        &mut self,
        sender: Side,
        cseq: CSeq,
        branch: Option<Fingerprint>,
    ) -> Option<&mut Exchange> {
        let found = self.all.iter_mut().rev().find(|known| known.is(sender, cseq.method) && known.branch == branch);
        if sender == Side::Peer && found.is_some() {
            self.unanswered = None;
        }
        found
    }

    /// The INVITE that an ACK is for.
    pub(super) fn of_ack(&mut self, sender: Side, cseq: CSeq) -> Option<&mut Exchange> {
        self.all.iter_mut().rev().find(|known| known.is(sender, MethodName::Invite) && known.number == cseq.number)
    }

    /// Those of `sender`'s that are open.
    pub(super) fn all_open_of(&self, now: Time, sender: Side) -> impl Iterator<Item = &Exchange> {
        self.all.iter().filter(move |known| known.sender == sender && self.is_open(known, now))
    }

    /// The first of them.
    pub(super) fn open_of(&self, now: Time, sender: Side) -> Option<&Exchange> {
        self.all_open_of(now, sender).next()
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Exchange] {
        &self.all
    }

    /// The one that came last.
    pub(super) fn last(&self) -> Option<&Exchange> {
        self.all.last()
    }

    /// Takes in a new one; whether an older one had to go.
    pub(super) fn push(&mut self, exchange: Exchange) -> bool {
        self.all.retain(|known| !known.is_settled(exchange.heard));
        let full = self.all.len() >= MAX_EXCHANGES;
        if full {
            let now = exchange.heard;
            let first = |which: &dyn Fn(&Exchange) -> bool| self.all.iter().position(which);
            // Neither can the peer displace what the server has asked, nor a stranger what the server has answered.
            let at = first(&|known| !known.is_open(now))
                .or_else(|| first(&Exchange::is_unheard_of_by_server))
                .or_else(|| first(&|known| known.sender == Side::Peer))
                .unwrap_or(0);
            self.all.remove(at);
        }
        if exchange.sender == Side::Peer {
            self.unanswered.get_or_insert(exchange.heard);
        }
        self.all.push(exchange);
        full
    }

    /// The open one that is in the way of a refresh of ours, BYEs among them.
    pub(super) fn open(&self, now: Time) -> Option<&Exchange> {
        self.all.iter().find(|known| self.is_open(known, now))
    }

    /// Whether a refresh by `sender` is under way.
    pub(super) fn refreshing(&self, now: Time, sender: Side) -> bool {
        let refreshes = |method| matches!(method, MethodName::Invite | MethodName::Update);
        self.all.iter().any(|known| {
            known.sender == sender && refreshes(known.method) && known.stage == Stage::Open && self.is_open(known, now)
        })
    }

    /// The BYEs of `sender`'s that have no final response.
    pub(super) fn leaving(&self, sender: Side) -> impl Iterator<Item = &Exchange> {
        self.all.iter().filter(move |known| known.is(sender, MethodName::Bye) && known.stage == Stage::Open)
    }

    /// Whether a new INVITE or offer of ours has to wait for that one. What the peer sends counts by the server's answer: while it
    /// gives none, whoever can send into the dialog could keep it from being refreshed, by one new request after the other.
    fn is_open(&self, known: &Exchange, now: Time) -> bool {
        let ignored = |since| known.is_unheard_of_by_server() && now.since(since) >= known.patience();
        known.is_open(now) && !self.unanswered.is_some_and(ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::hash::Secret;

    /// A request of the server's, and what a response names it with.
    fn asked(method: &str, number: u32, branch: &[u8]) -> (Exchange, CSeq, Option<Fingerprint>) {
        let text = format!("{method} sip:a@192.0.2.1 SIP/2.0\r\nCSeq: {number} {method}\r\n\r\n");
        let request = Message::scan(text.as_bytes(), false).unwrap();
        let (cseq, branch) = (request.cseq().unwrap(), Some(Secret::new(1).fingerprint([branch])));
        let peer = "192.0.2.1:5060".parse().unwrap();
        (Exchange::new(Time::from_micros(0), Side::Server, peer, &request, cseq, branch), cseq, branch)
    }

    #[test]
    fn a_response_belongs_to_the_request_with_its_branch_and_its_method() {
        let all = [asked("UPDATE", 1, b"a"), asked("UPDATE", 2, b"b"), asked("BYE", 3, b"a")];
        let mut exchanges = Exchanges::default();
        for (exchange, ..) in &all {
            exchanges.push(exchange.clone());
        }
        for (exchange, cseq, branch) in all {
            let found = exchanges.of_response(Side::Server, cseq, branch).map(|found| found.number);
            assert_eq!(found, Some(exchange.number));
            assert!(exchanges.of_response(Side::Peer, cseq, branch).is_none());
        }
    }

    #[test]
    fn a_request_waits_until_its_final_response_or_the_ack_to_one_that_went_by_unseen() {
        let (open, ..) = asked("INVITE", 1, b"a");
        assert!(open.is_unanswered());
        assert!(!Exchange { acked: true, ..open.clone() }.is_unanswered());
        assert!(!Exchange { stage: Stage::Failed(open.heard), ..open }.is_unanswered());
    }
}
