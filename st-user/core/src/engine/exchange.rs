//! The server's and the peer's own transactions in one dialog, as seen from beside: enough of each INVITE, UPDATE and BYE to
//! know what its answer means and when none of them is open.

use super::{
    breach::Terms,
    limits::{MAX_EXCHANGES, MAX_IDENTIFIER, MAX_TARGET},
    sdp::Said,
    timers::TRANSACTION,
};
use crate::{
    Side, Time,
    message::{CSeq, Message, MethodName},
};

/// What every branch since RFC 3261 begins with; others do not name a transaction.
const COOKIE: &[u8] = b"z9hG4bK";

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
    branch: Option<Vec<u8>>,
    pub(super) stage: Stage,
    /// Whether the ACK was seen.
    pub(super) acked: bool,
    /// When it was last heard of.
    pub(super) heard: Time,
    provisional: bool,
    /// How often its request was seen.
    pub(super) copies: u32,
    /// The body of the request.
    pub(super) asked: Said,
    /// The body of its last response that had one.
    pub(super) answered: Said,
    /// Contact of the request.
    pub(super) contact: Option<Vec<u8>>,
    /// What the request says about session timers.
    pub(super) terms: Terms,
}

impl Exchange {
    pub(super) fn new(now: Time, sender: Side, request: &Message<'_>, cseq: CSeq) -> Self {
        Self {
            sender,
            method: cseq.method,
            number: cseq.number,
            branch: branch(request).map(<[u8]>::to_vec),
            stage: Stage::Open,
            acked: false,
            heard: now,
            provisional: false,
            copies: 1,
            asked: Said::by(request),
            answered: Said::Nothing,
            contact: request.contact().map(|contact| contact.uri.to_vec()).filter(|uri| uri.len() <= MAX_TARGET),
            terms: Terms::of(request),
        }
    }

    /// The INVITE that a dialog begins with, as its 2xx names it: several copies may have come by several ways.
    pub(super) fn first(now: Time, sender: Side, invite: &Message<'_>, cseq: CSeq, answer: &Message<'_>) -> Self {
        Self { branch: branch(answer).map(<[u8]>::to_vec), ..Self::new(now, sender, invite, cseq) }
    }

    pub(super) fn is(&self, sender: Side, method: MethodName) -> bool {
        self.sender == sender && self.method == method
    }

    /// Takes in a provisional response.
    pub(super) fn rings(&mut self, now: Time, response: &Message<'_>) {
        self.heard = now;
        self.provisional = true;
        self.hear_body(response);
    }

    /// Takes in the body of a response; where it has none, an earlier one stands.
    pub(super) fn hear_body(&mut self, response: &Message<'_>) {
        let said = Said::by(response);
        if said != Said::Nothing {
            self.answered = said;
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

/// The branch of the topmost Via; one that is too long to be kept counts as none.
pub(super) fn top_branch<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    message.top_via()?.branch.filter(|branch| branch.len() <= MAX_IDENTIFIER)
}

/// The branch that names a transaction.
fn branch<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    top_branch(message).filter(|branch| branch.starts_with(COOKIE))
}

/// Those of one dialog, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Exchanges {
    all: Vec<Exchange>,
}

impl Exchanges {
    /// The one that a request belongs to; `None` for a new one.
    pub(super) fn of_request(&mut self, sender: Side, message: &Message<'_>, cseq: CSeq) -> Option<&mut Exchange> {
        let branch = branch(message);
        self.all.iter_mut().rev().find(|known| {
            known.is(sender, cseq.method)
                && known.branch.as_deref() == branch
                && (branch.is_some() || known.number == cseq.number)
        })
    }

    /// The one that a response belongs to: by branch and method, and where the branch is from before RFC 3261 by the method
    /// alone, for numbers differ on both sides of the shift.
    pub(super) fn of_response(&mut self, sender: Side, message: &Message<'_>, cseq: CSeq) -> Option<&mut Exchange> {
        let branch = branch(message);
        self.all.iter_mut().rev().find(|known| known.is(sender, cseq.method) && known.branch.as_deref() == branch)
    }

    /// The INVITE that an ACK is for.
    pub(super) fn of_ack(&mut self, sender: Side, cseq: CSeq) -> Option<&mut Exchange> {
        self.all.iter_mut().rev().find(|known| known.is(sender, MethodName::Invite) && known.number == cseq.number)
    }

    /// Whether an ACK belongs to a failure (R33): it has the branch of its INVITE.
    pub(super) fn acks_failure(&self, sender: Side, ack: &Message<'_>) -> bool {
        let branch = branch(ack);
        let failed = |known: &Exchange| matches!(known.stage, Stage::Failed(_));
        let is_its = |known: &&Exchange| known.is(sender, MethodName::Invite) && known.branch.as_deref() == branch;
        branch.is_some() && self.all.iter().find(is_its).is_some_and(failed)
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
