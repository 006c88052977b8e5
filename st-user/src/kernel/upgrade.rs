//! Taking over from an older version: its links go on with the new programs inside, its dialogs and the plans of its TCP connections
//! with their entries copied into the new maps. At no moment are two programs attached, or none.
//!
//! What stood in its ring is not read: a daemon that starts knows nothing of the calls before it either way. Its tokens are
//! not copied: answers to what it sent are taken off the wire by their branch.

use std::path::Path;

use aya::maps::{HashMap, MapData};
use st_ebpf::{
    abi::{self, Shift, names},
    cseq::State,
    plan::{Connection, Plan},
};

use super::{
    KernelError,
    maps::{self, Maps},
    pins::{Lock, Pins},
    plans::{self, Plans},
};

/// What an older version left, held so that no daemon of its own starts meanwhile.
pub(crate) struct Older {
    pins: Pins,
    hash_key: [u64; 2],
    shifts: HashMap<MapData, u64, Shift>,
    shifted: HashMap<MapData, [u8; 16], u64>,
    /// The dialogs as they were copied.
    copied: Vec<(u64, Shift)>,
    plans: Option<HashMap<MapData, Connection, Plan>>,
    /// The plans as they were copied.
    planned: Vec<(Connection, Plan)>,
    _lock: Lock,
}

impl Older {
    /// What is there of another version beside `pins`. A newer one is nothing to touch, and one whose daemon runs neither.
    pub(crate) fn find(pin_dir: &Path, pins: &Pins) -> Result<Option<Self>, KernelError> {
        let Some(number) = pins.other_number()? else { return Ok(None) };
        let older = Pins::of(pin_dir, number);
        let path = older.root().to_owned();
        if number > abi::VERSION {
            return Err(KernelError::NewerVersion { path });
        }
        let lock = older.lock()?;
        // So far the entries of all versions have one shape.
        let other = |_| KernelError::OtherVersion { path: path.clone() };
        let hash_key = maps::pinned_hash_key(&older).map_err(other)?;
        // What is there already comes from a take-over that did not come to its end, or from somewhere else.
        if pins.complete() && ![[0, 0], hash_key].contains(&maps::pinned_hash_key(pins)?) {
            return Err(KernelError::OtherVersion { path });
        }
        let plans = plans::pinned(&older).map_err(other)?;
        Ok(Some(Self {
            hash_key,
            planned: plans.iter().flat_map(HashMap::iter).flatten().collect(),
            plans,
            shifts: maps::pinned(&older, names::SHIFTS).map_err(other)?,
            shifted: maps::pinned(&older, names::SHIFTED).map_err(other)?,
            copied: Vec::new(),
            pins: older,
            _lock: lock,
        }))
    }

    /// The key that its entries were made with.
    pub(crate) fn hash_key(&self) -> [u64; 2] {
        self.hash_key
    }

    /// The plans of its TCP connections, to be copied before its links are taken over.
    pub(crate) fn plans(&self) -> &[(Connection, Plan)] {
        &self.planned
    }

    /// Copies its dialogs, and takes its links over into `pins`, with its programs still in them.
    pub(crate) fn hand_over(&mut self, maps: &mut Maps, pins: &Pins) -> Result<(), KernelError> {
        self.copied = self.shifts.iter().flatten().collect();
        maps.take_over(self.copied.iter().copied(), self.shifted.iter().flatten())?;
        pins.take_links(&self.pins)
    }

    /// The server sends a request by the older programs.
    #[cfg(test)]
    pub(super) fn server_sent(&mut self, key: u64, state: State) {
        let entry = Shift { word: state.to_word(), ..self.shifts.get(&key, 0).unwrap() };
        self.shifts.insert(key, entry, 0).unwrap();
    }

    /// Something is planned by the older programs.
    #[cfg(test)]
    pub(super) fn plans_for(&mut self, connection: Connection, plan: Plan) {
        self.plans.as_mut().unwrap().insert(connection, plan, 0).unwrap();
    }

    /// Once the new programs are in the links: what the server sent, and what was planned, while that was copied. Then nothing of the
    /// older version is left.
    pub(crate) fn retire(self, maps: &mut Maps, plans: &mut Plans) -> Result<usize, KernelError> {
        for (key, copied) in &self.copied {
            if let Ok(now) = self.shifts.get(key, 0)
                && now.word != copied.word
            {
                maps.catch_up(*key, State::from_word(now.word))?;
            }
        }
        for (connection, copied) in &self.planned {
            if let Some(now) = self.plans.as_ref().and_then(|table| table.get(connection, 0).ok())
                && now != *copied
            {
                plans.catch_up(*connection, &now)?;
            }
        }
        self.pins.remove().map(|_| self.copied.len())
    }
}
