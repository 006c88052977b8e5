//! Dialogs in which the server's refusals are held back, as the kernel has them marked. A fresh map with every daemon: what an
//! earlier one marked is no concern of this one's, and nothing is held back for a daemon that is gone.

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
};
use st_core::{AnsweredInvite, Refusal};
use st_ebpf::{
    abi::{Hold, names},
    key::{self, DialogKey},
};

use super::{KernelError, error::errno};

/// How long an ACK may come after its 2xx, in nanoseconds: for 64*T1 copies of that are sent, and each may be as long on its way.
const ACKS_NS: u64 = 64_000_000_000;

/// The marks.
pub struct Holds {
    hash_key: [u64; 2],
    marks: HashMap<MapData, u64, Hold>,
    acks: Array<MapData, u64>,
    /// How many dialogs are marked.
    count: usize,
}

impl Holds {
    pub(crate) fn take(ebpf: &mut Ebpf, hash_key: [u64; 2]) -> Result<Self, KernelError> {
        let mut take = |name| ebpf.take_map(name).ok_or(KernelError::Lacks { name });
        let (marks, acks) = (take(names::HOLDS)?, take(names::HELD_ACKS)?);
        let failed = |name| move |source| KernelError::Map { name, source };
        let marks = HashMap::try_from(marks).map_err(failed(names::HOLDS))?;
        Ok(Self { hash_key, marks, acks: Array::try_from(acks).map_err(failed(names::HELD_ACKS))?, count: 0 })
    }

    /// Whether any dialog is marked.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Marks a dialog, or changes its mark. `now_ns`: `CLOCK_MONOTONIC`.
    pub fn mark(
        &mut self,
        key: DialogKey,
        cookie: u64,
        methods: u32,
        answered: Option<&AnsweredInvite>,
        now_ns: u64,
    ) -> Result<(), Refusal> {
        let mut hold = Hold { check: key.check, cookie, methods, ..Hold::default() };
        if let Some(AnsweredInvite { branch, number, wire }) = answered {
            hold.branch = key::branch(self.hash_key, branch).ok_or(Refusal::Identifiers)?;
            (hold.answered, hold.wire, hold.until_ns) = (*number, *wire, now_ns.saturating_add(ACKS_NS));
            // First that there is something to look for.
            self.acks.set(0, hold.until_ns, 0).map_err(|error| refusal(&error))?;
        }
        let new = match self.marks.get(&key.map, 0) {
            Ok(entry) if entry.check == key.check => false,
            Ok(_) => return Err(Refusal::MapFull),
            Err(_) => true,
        };
        self.marks.insert(key.map, hold, 0).map_err(|error| refusal(&error))?;
        self.count += usize::from(new);
        Ok(())
    }

    /// Takes a mark away.
    pub fn unmark(&mut self, key: DialogKey) {
        let is_its = self.marks.get(&key.map, 0).is_ok_and(|entry| entry.check == key.check);
        if is_its && self.marks.remove(&key.map).is_ok() {
            self.count -= 1;
        }
    }

    /// Takes all away: nobody will be there to answer.
    pub fn clear(&mut self) {
        let all: Vec<u64> = self.marks.keys().flatten().collect();
        for key in all {
            // What stays is not held back for long: the heartbeat ends.
            let _ = self.marks.remove(&key);
        }
        self.count = 0;
    }
}

fn refusal(error: &MapError) -> Refusal {
    match errno(error) {
        Some(libc::E2BIG | libc::ENOMEM | libc::ENOSPC) => Refusal::MapFull,
        _ => Refusal::Send,
    }
}
