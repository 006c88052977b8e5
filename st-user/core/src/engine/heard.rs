//! What a message of the server's or the peer's belongs to, each part read once.

use std::ops::Deref;

use super::{
    dialog::Ids,
    hash::{Fingerprint, Secret},
    limits::MAX_IDENTIFIER,
};
use crate::{
    Assist, Direction, Packet, Side,
    message::{CSeq, Message, Via},
};

/// What every branch since RFC 3261 begins with; others do not name a transaction.
const COOKIE: &[u8] = b"z9hG4bK";

/// What a message belongs to, as it says itself.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    /// Who sent the request.
    pub(super) client: Side,
    /// Whether this is the request, and not a response to it.
    pub(super) is_request: bool,
    pub(super) call_id: &'a [u8],
    /// The tag in From.
    pub(super) from: &'a [u8],
    /// Where there is a tag in To as well.
    pub(super) ids: Option<Ids<'a>>,
    pub(super) cseq: CSeq,
    /// The topmost Via.
    pub(super) via: Option<Via<'a>>,
    /// Whether there are others below it.
    pub(super) has_more_vias: bool,
}

impl<'a> Named<'a> {
    /// `None` where something is missing, contradictory or too long.
    pub(super) fn read(direction: Direction, message: &Message<'a>) -> Option<Self> {
        let (call_id, cseq) = (message.call_id()?, message.cseq()?);
        let (from, to) = (message.from()?.tag?, message.to()?.tag);
        if [call_id, from, to.unwrap_or_default()].iter().any(|id| id.len() > MAX_IDENTIFIER) {
            return None;
        }
        let sender = match direction {
            Direction::Egress => Side::Server,
            Direction::Ingress => Side::Peer,
        };
        let (client, is_request) = match message.request_method() {
            Some(method) if method != cseq.method => return None,
            Some(_) => (sender, true),
            None => (sender.other(), false),
        };
        let ids = to.map(|to| match client {
            Side::Server => Ids { call_id, local: from, remote: to },
            Side::Peer => Ids { call_id, local: to, remote: from },
        });
        let (via, has_more_vias) = message.vias();
        Some(Self { client, is_request, call_id, from, ids, cseq, via, has_more_vias })
    }
}

/// A message and what it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Heard<'a> {
    pub(super) packet: &'a Packet<'a>,
    pub(super) message: &'a Message<'a>,
    pub(super) named: Named<'a>,
    /// What the kernel programs have made of it.
    pub(super) assist: Option<Assist>,
}

impl<'a> Deref for Heard<'a> {
    type Target = Named<'a>;

    fn deref(&self) -> &Named<'a> {
        &self.named
    }
}

impl<'a> Heard<'a> {
    /// `None` where something is missing, contradictory or too long.
    pub(super) fn read(packet: &'a Packet<'a>, message: &'a Message<'a>, assist: Option<Assist>) -> Option<Self> {
        Some(Self { packet, message, named: Named::read(packet.direction, message)?, assist })
    }

    /// The branch of the topmost Via; one that is too long to be kept counts as none.
    pub(super) fn branch(&self) -> Option<&'a [u8]> {
        self.via?.branch.filter(|branch| branch.len() <= MAX_IDENTIFIER)
    }

    /// What stands for the branch, whatever it names.
    pub(super) fn any_branch(&self, secret: Secret) -> Option<Fingerprint> {
        self.branch().map(|branch| secret.fingerprint([branch]))
    }

    /// What stands for the branch, where that names a transaction.
    pub(super) fn transaction(&self, secret: Secret) -> Option<Fingerprint> {
        self.branch().filter(|branch| branch.starts_with(COOKIE)).map(|branch| secret.fingerprint([branch]))
    }
}
