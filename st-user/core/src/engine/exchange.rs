//! The server's and the peer's own transactions in one dialog, as seen from beside: enough of each INVITE, UPDATE and BYE to
//! know what its answer means and when none of them is open.

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
const RINGING: std::time::Duration = std::time::Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No final response yet.
    Open,
    /// A 2xx, since then.
    Succeeded(Time),
    /// Another final response, since then.
    Failed(Time),
}

/// How long a request of the peer's counts that the server says nothing to: a firewall may have dropped it.
const IGNORED: std::time::Duration = std::time::Duration::from_secs(8);

/// One transaction.
#[derive(Clone, Debug)]
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
    /// How often its request was seen.
    pub(super) copies: u32,
    /// What was said, until it has been settled.
    pub(super) talk: Option<Box<Talk>>,
}

/// What the messages of a transaction say.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    /// The body of the request.
    pub(super) asked: Said,
    /// The body of its last response that had one.
    pub(super) answered: Said,
    /// Contact of a request of the peer's.
    pub(super) contact: Option<Vec<u8>>,
    /// What the request says about session timers.
    pub(super) terms: Terms,
}

impl Exchange {
    /// `branch`: what stands for the one that names it.
    pub(super) fn new(now: Time, sender: Side, request: &Message<'_>, cseq: CSeq, branch: Option<Fingerprint>) -> Self {
        Self {
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
                terms: Terms::of(request),
            })),
        }
    }

    pub(super) fn is(&self, sender: Side, method: MethodName) -> bool {
        self.sender == sender && self.method == method
    }

    /// Takes in a provisional response.
    pub(super) fn rings(&mut self, now: Time, response: &Message<'_>) {
        self.heard = now;
        self.provisional = true;
        if let Some(talk) = &mut self.talk {
            talk.hear_body(response);
        }
    }

    /// Whether a new INVITE or offer of ours has to wait for it (R27, R28): an INVITE until it is ACKed.
    pub(super) fn is_open(&self, now: Time) -> bool {
        match self.stage {
            // Its final response went by unseen.
            Stage::Open if self.acked => false,
            Stage::Open if self.provisional && self.method == MethodName::Invite => now.since(self.heard) < RINGING,
            // Else whoever can send into the dialog could keep it from being refreshed.
            Stage::Open if self.sender == Side::Peer && self.method != MethodName::Bye => {
                now.since(self.heard) < IGNORED
            }
            Stage::Open => now.since(self.heard) < TRANSACTION,
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
#[derive(Clone, Debug, Default)]
pub(super) struct Exchanges {
    all: Vec<Exchange>,
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
        self.all.iter_mut().rev().find(|known| known.is(sender, cseq.method) && known.branch == branch)
    }

    /// The INVITE that an ACK is for.
    pub(super) fn of_ack(&mut self, sender: Side, cseq: CSeq) -> Option<&mut Exchange> {
        self.all.iter_mut().rev().find(|known| known.is(sender, MethodName::Invite) && known.number == cseq.number)
    }

    /// Takes in a new one; whether an older one had to go.
    pub(super) fn push(&mut self, exchange: Exchange) -> bool {
        let full = self.all.len() >= MAX_EXCHANGES;
        if full {
            let first = |which: &dyn Fn(&Exchange) -> bool| self.all.iter().position(which);
            let over = first(&|known| known.stage != Stage::Open);
            // The peer cannot displace what the server has asked.
            let at = over.or_else(|| first(&|known| known.sender == Side::Peer)).unwrap_or(0);
            self.all.remove(at);
        }
        self.all.push(exchange);
        full
    }

    /// The open one that is in the way of a refresh of ours, BYEs among them.
    pub(super) fn open(&self, now: Time) -> Option<&Exchange> {
        self.all.iter().find(|known| known.is_open(now))
    }

    /// Whether a refresh by `sender` is under way.
    pub(super) fn refreshing(&self, now: Time, sender: Side) -> bool {
        let refreshes = |method| matches!(method, MethodName::Invite | MethodName::Update);
        self.all.iter().any(|known| {
            known.sender == sender && refreshes(known.method) && known.stage == Stage::Open && known.is_open(now)
        })
    }

    /// The BYE of `sender`'s that has no final response.
    pub(super) fn leaving(&self, sender: Side) -> Option<&Exchange> {
        self.all.iter().find(|known| known.is(sender, MethodName::Bye) && known.stage == Stage::Open)
    }
}
