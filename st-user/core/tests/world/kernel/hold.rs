//! The server's refusals of the peer's refreshes, held back as `st_egress` does it, and the ACKs that belong to what is answered in
//! their place.

use rand::RngExt as _;
use st_core::Mark;
use st_ebpf::{
    abi::{HELD_BYTES, holds},
    key,
    scan::{Scan, is_refusal, method, part},
};

use super::{HASH_KEY, Kernel, Record, dialog};
use crate::{
    agent::{S, Us},
    faults::Fault,
};

/// How long an ACK may come after its 2xx.
const ACKS: Us = 64 * S;

/// A marked dialog.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    check: u64,
    cookie: u64,
    methods: u32,
    /// Branch, own number and number on the wire of the INVITE that was answered, and until when its ACK is waited for.
    answered: Option<(u64, u32, u32, Us)>,
}

/// What became of a response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    No,
    Yes,
    NoRoom,
}

/// Whose an ACK from the peer is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Acks {
    Other,
    Refusal,
    Success,
}

impl Kernel {
    pub(crate) fn mark(&mut self, now: Us, mark: &Mark) {
        let Some(dialog) = Self::key(&mark.call_id, &mark.tag) else { return };
        let answered = mark.answered.as_ref().map(|one| {
            let branch = key::branch(HASH_KEY, &one.branch).expect("a branch that fits");
            (branch, one.number, one.wire, now + ACKS)
        });
        let hold = Hold { check: dialog.check, cookie: mark.cookie, methods: mark.methods, answered };
        self.holds.insert(dialog.map, hold);
    }

    pub(crate) fn unmark(&mut self, call_id: &[u8], tag: &[u8]) {
        if let Some(dialog) = Self::key(call_id, tag) {
            self.holds.remove(&dialog.map);
        }
    }

    /// A new daemon begins with no marks.
    pub(crate) fn unmark_all(&mut self) {
        self.holds.clear();
    }

    fn hold_of(&self, bytes: &[u8], scan: &Scan) -> Option<&Hold> {
        let key = dialog(bytes, scan, scan.from_tag)?;
        self.holds.get(&key.map).filter(|hold| hold.check == key.check)
    }

    /// Puts a response of the server's into the ring instead of letting it out, if all says that it may be held back.
    pub(super) fn hold(&mut self, now: Us, record: Record, bytes: &[u8], cookie: u64, scan: &Scan) -> Held {
        let refused = match scan.method {
            method::INVITE => holds::INVITE,
            method::UPDATE => holds::UPDATE,
            _ => return Held::No,
        };
        let read = part::CSEQ | part::FROM | part::CALL_ID;
        let may_be = is_refusal(&self.window)
            && bytes.len() <= HELD_BYTES
            && scan.found & (read | part::RETRY_AFTER) == read
            && self.hold_of(bytes, scan).is_some_and(|hold| hold.methods & refused != 0 && hold.cookie == cookie);
        if !may_be {
            return Held::No;
        }
        if !self.awake {
            self.tally.count(Fault::HoldAsleep);
            return Held::No;
        }
        if now < self.calm && self.rng.random_bool(self.crammed) {
            self.lost.push(record);
            self.tally.count(Fault::HoldNoRoom);
            return Held::NoRoom;
        }
        if !self.submit(now, record) {
            self.tally.count(Fault::HoldNoRoom);
            return Held::NoRoom;
        }
        self.tally.count(Fault::HeldBack);
        Held::Yes
    }

    /// Tells what an ACK with the peer's tag in From is for.
    pub(super) fn acks(&mut self, now: Us, bytes: &[u8], scan: &Scan) -> Acks {
        let Some((branch, own, wire, until)) = self.hold_of(bytes, scan).and_then(|hold| hold.answered) else {
            return Acks::Other;
        };
        let cut = &bytes[scan.branch.at as usize..][..scan.branch.len as usize];
        let same = key::branch(HASH_KEY, cut) == Some(branch);
        match () {
            () if now >= until || scan.found & part::CSEQ == 0 => Acks::Other,
            () if same && scan.number == u64::from(own) => Acks::Refusal,
            () if !same && scan.number == u64::from(wire) => Acks::Success,
            () => Acks::Other,
        }
    }
}
