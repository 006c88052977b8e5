//! Ring records that are taken out together, so that the engine can look ahead ([`Engine::look_ahead`]): the ring shows one at a time.
//! No more are taken than are there, and each is handled in its turn, at its own time.

use std::array;

use st_core::engine::{Engine, LOOK_AHEAD, Read};

use crate::ring::{self, Record};

/// Records, one behind the other; [`LOOK_AHEAD`] at most.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

/// One of them.
pub struct Next<'a> {
    /// The record.
    pub bytes: &'a [u8],
    /// What it says by itself; `None` also where it is none.
    pub record: Option<Record<'a>>,
    /// What the engine has read in a message of it.
    pub read: Option<Read<'a>>,
}

impl Batch {
    /// Whether no more go in.
    pub fn is_full(&self) -> bool {
        self.ends.len() >= LOOK_AHEAD
    }

    /// Takes in a copy of one more.
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// Makes room for others.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Reads all of them, in order, and has the engine look ahead.
    pub fn look_ahead(&self, engine: &Engine) -> [Option<Next<'_>>; LOOK_AHEAD] {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let mut records = begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..*end]);
        let next = |bytes| {
            let record = ring::decode(bytes);
            let read = match record {
                Some(Record::Seen { packet, .. }) => Some(engine.read(packet)),
                _ => None,
            };
            Next { bytes, record, read }
        };
        let all = array::from_fn(|_| records.next().map(next));
        engine.look_ahead(all.iter().flatten().filter_map(|next| next.read.as_ref()));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use st_core::{
        Policy,
        engine::{EngineConfig, Limits, Mode},
    };
    use st_ebpf::abi::{SampleHeader, flags, kind};

    use super::*;
    use crate::ring::tests::{header, record};

    #[test]
    fn records_are_taken_in_turn_and_messages_alone_are_read_ahead() {
        let config =
            EngineConfig { policy: Arc::new(Policy::default()), mode: Mode::Live, seed: 1, limits: Limits::default() };
        let engine = Engine::new(config);
        let of = |kind, flags| record(SampleHeader { kind, flags, ..header() }, b"BYE s");
        let records = [
            (of(kind::MESSAGE, 0), true),
            (of(kind::HELD, 0), false),
            (record(SampleHeader { kind: kind::REFUSED, captured_len: 0, ..header() }, b""), false),
            (of(kind::SEGMENT, 0), false),
            (of(kind::MESSAGE, flags::JOINED), false),
            (b"no record".to_vec(), false),
            (of(kind::ANSWER, 0), true),
        ];
        let mut batch = Batch::default();
        for _ in 0..2 {
            batch.clear();
            records.iter().for_each(|(record, _)| batch.push(record));
            let all = batch.look_ahead(&engine);
            let found: Vec<_> = all.iter().flatten().map(|next| (next.bytes.to_vec(), next.read.is_some())).collect();
            assert_eq!(found, records);
            assert!(!batch.is_full());
        }
    }

    #[test]
    fn no_more_are_taken_than_the_engine_looks_ahead_at() {
        let mut batch = Batch::default();
        for _ in 0..LOOK_AHEAD {
            assert!(!batch.is_full());
            batch.push(b"");
        }
        assert!(batch.is_full());
        batch.clear();
        assert!(!batch.is_full());
    }
}
