//! The kernel programs' part, step for step as `st_egress` and `st_ingress` do it, with their own scan, key and mapping.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

use rand::{RngExt as _, rngs::StdRng};
use st_core::{Arm, Direction, Inject, Refusal};
use st_ebpf::{
    abi::CAPTURE,
    cseq::{Close, RANGES, Range, State, close, from_wire, to_wire},
    key::DialogKey,
    scan::{MAX_STEPS, Scan, Span, Start, Window, has_our_prefix, method, our_token, part, start},
};

use super::agent::{TRANSACTION, Us};

const HASH_KEY: [u64; 2] = [11, 12];
const MAX_SPACES: u32 = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Shift {
    check: u64,
    state: State,
    ranges: [Range; RANGES],
    closed: [Us; RANGES],
}

#[derive(Clone, Copy, Debug)]
struct Token {
    key: DialogKey,
    expected: State,
    committed: bool,
}

/// A ring record.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Seen { at: Us, direction: Direction, peer: SocketAddr, bytes: Vec<u8> },
    Refused { token: u64, refusal: Refusal },
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) ring_full: u64,
    pub(crate) shifted_out: u64,
    pub(crate) shifted_in: u64,
    pub(crate) no_room: u64,
    pub(crate) taken: u64,
    pub(crate) moved: u64,
    pub(crate) ranges_full: u64,
}

pub(crate) struct Kernel {
    pub(crate) ring: VecDeque<Record>,
    pub(crate) counts: Counts,
    /// The chance that the ring is full.
    pub(crate) full: f64,
    pub(crate) rng: StdRng,
    /// What was lost, oldest first.
    pub(crate) lost: Vec<Record>,
    shifts: HashMap<u64, Shift>,
    tokens: HashMap<u64, Token>,
    window: Box<Window>,
}

impl Kernel {
    pub(crate) fn new(full: f64, rng: StdRng) -> Self {
        Self {
            ring: VecDeque::new(),
            counts: Counts::default(),
            full,
            rng,
            lost: Vec::new(),
            shifts: HashMap::new(),
            tokens: HashMap::new(),
            window: Box::new(Window { bytes: [0; CAPTURE + 16] }),
        }
    }

    // The driver's side

    pub(crate) fn key(call_id: &[u8], tag: &[u8]) -> Option<DialogKey> {
        DialogKey::new(HASH_KEY, call_id, tag)
    }

    /// Makes the entry, if there is none.
    pub(crate) fn arm(&mut self, arm: &Arm) -> Result<DialogKey, Refusal> {
        let key = Self::key(&arm.call_id, &arm.local_tag).ok_or(Refusal::Identifiers)?;
        self.shifts.entry(key.map).or_insert(Shift { check: key.check, state: arm.state, ..Shift::default() });
        Ok(key)
    }

    pub(crate) fn state(&self, key: DialogKey) -> Result<State, Refusal> {
        self.shifts.get(&key.map).map(|shift| shift.state).ok_or(Refusal::Send)
    }

    pub(crate) fn record(&mut self, inject: &Inject) -> Result<(), Refusal> {
        let key = Self::key(&inject.call_id, &inject.local_tag).ok_or(Refusal::Identifiers)?;
        let (expected, committed) = (inject.commit.unwrap_or_default(), inject.commit.is_none());
        self.tokens.entry(inject.token).or_insert(Token { key, expected, committed });
        Ok(())
    }

    pub(crate) fn retire(&mut self, token: u64) {
        self.tokens.remove(&token);
    }

    pub(crate) fn disarm(&mut self, key: DialogKey) {
        self.shifts.remove(&key.map);
    }

    /// Tokens and entries on record.
    pub(crate) fn holds(&self) -> (usize, usize) {
        (self.tokens.len(), self.shifts.len())
    }

    // The programs

    fn scan(&mut self, bytes: &[u8]) -> (Start, Scan) {
        assert!(bytes.len() <= CAPTURE);
        self.window.bytes[..bytes.len()].copy_from_slice(bytes);
        self.window.bytes[bytes.len()..].fill(0);
        let mut scan = Scan::default();
        scan.begin(bytes.len() as u32, part::VIA | part::FROM | part::TO | part::CALL_ID | part::CSEQ);
        assert!((0..MAX_STEPS).any(|_| scan.step(&self.window)), "the scan did not end");
        (start(&self.window), scan)
    }

    fn submit(&mut self, record: Record) {
        if self.full > 0.0 && self.rng.random_bool(self.full) {
            self.counts.ring_full += 1;
            self.lost.push(record);
        } else {
            self.ring.push_back(record);
        }
    }

    /// A packet that leaves the host; what is on the wire, if anything.
    pub(crate) fn egress(&mut self, now: Us, peer: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let (start, scan) = self.scan(bytes);
        let seen = Record::Seen { at: now, direction: Direction::Egress, peer, bytes: bytes.to_vec() };
        let method = match start {
            Start::Request(method) => method,
            Start::Response => {
                if scan.method != method::OPTIONS {
                    self.submit(seen);
                }
                return Some(bytes.to_vec());
            }
            Start::KeepAlive | Start::NotSip => return Some(bytes.to_vec()),
        };
        if has_our_prefix(&self.window, scan.branch) {
            let token = our_token(&self.window, scan.branch).unwrap_or(0);
            return match self.commit(now, token) {
                Ok(()) => {
                    self.submit(seen);
                    Some(bytes.to_vec())
                }
                Err(refusal) => {
                    self.submit(Record::Refused { token, refusal });
                    None
                }
            };
        }
        let inside = scan.to_tag.len > 0;
        if inside || matches!(method, method::INVITE | method::CANCEL) {
            self.submit(seen);
        }
        Some(if inside { self.shift(bytes, &scan, method) } else { bytes.to_vec() })
    }

    fn dialog(&self, bytes: &[u8], scan: &Scan) -> Option<DialogKey> {
        let cut = |span: Span| &bytes[span.at as usize..][..span.len as usize];
        Self::key(cut(scan.call_id), cut(scan.from_tag))
    }

    fn shift(&mut self, bytes: &[u8], scan: &Scan, method: u32) -> Vec<u8> {
        let key = self.dialog(bytes, scan);
        let entry = key.and_then(|key| self.shifts.get_mut(&key.map).filter(|entry| entry.check == key.check));
        let Some(entry) = entry else { return bytes.to_vec() };
        let number = u32::try_from(scan.number).expect("a number");
        // ACK and CANCEL raise nothing.
        if method != method::ACK && method != method::CANCEL {
            entry.state = entry.state.after_server(number);
        }
        let wire = to_wire(&entry.ranges, entry.state.delta, number);
        if wire == number {
            return bytes.to_vec();
        }
        match rewrite(bytes, scan, wire) {
            Some(bytes) => {
                self.counts.shifted_out += 1;
                bytes
            }
            None => {
                self.counts.no_room += 1;
                bytes.to_vec()
            }
        }
    }

    fn commit(&mut self, now: Us, token: u64) -> Result<(), Refusal> {
        let Token { key, expected, committed } = *self.tokens.get(&token).ok_or(Refusal::Send)?;
        if committed {
            return Ok(());
        }
        let entry = self.shifts.get_mut(&key.map).filter(|entry| entry.check == key.check).ok_or(Refusal::Send)?;
        let state = entry.state;
        if state.known && !expected.known || state.delta != expected.delta || state.number > expected.number {
            self.counts.moved += 1;
            return Err(Refusal::Moved);
        }
        match close(&entry.ranges, expected) {
            Close::Nothing => {}
            Close::Write { index, range } => (entry.ranges[index], entry.closed[index]) = (range, now),
            Close::Shift { range } => {
                if now - entry.closed[0] < TRANSACTION {
                    self.counts.ranges_full += 1;
                    return Err(Refusal::Ranges);
                }
                entry.ranges.rotate_left(1);
                entry.closed.rotate_left(1);
                (entry.ranges[RANGES - 1], entry.closed[RANGES - 1]) = (range, now);
            }
        }
        entry.state = expected.after_injection();
        self.tokens.entry(token).and_modify(|token| token.committed = true);
        Ok(())
    }

    /// A packet that comes in; what the server gets, if anything.
    pub(crate) fn ingress(&mut self, now: Us, peer: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let (start, scan) = self.scan(bytes);
        let seen = Record::Seen { at: now, direction: Direction::Ingress, peer, bytes: bytes.to_vec() };
        match start {
            Start::Request(method) => {
                if method != method::OPTIONS || scan.to_tag.len > 0 {
                    self.submit(seen);
                }
                return Some(bytes.to_vec());
            }
            Start::Response => {}
            Start::KeepAlive | Start::NotSip => return Some(bytes.to_vec()),
        }
        if has_our_prefix(&self.window, scan.branch) {
            self.counts.taken += 1;
            let token = our_token(&self.window, scan.branch);
            if token.is_some_and(|token| self.tokens.contains_key(&token)) {
                self.submit(seen);
            }
            return None;
        }
        if scan.method != method::OPTIONS {
            self.submit(seen);
        }
        let key = self.dialog(bytes, &scan);
        let entry = key.and_then(|key| self.shifts.get(&key.map).filter(|entry| entry.check == key.check));
        let wire = u32::try_from(scan.number).expect("a number");
        let number = entry.and_then(|entry| from_wire(&entry.ranges, entry.state.delta, wire)).unwrap_or(wire);
        if number == wire {
            return Some(bytes.to_vec());
        }
        self.counts.shifted_in += 1;
        Some(rewrite(bytes, &scan, number).unwrap_or_else(|| bytes.to_vec()))
    }
}

/// Another number in the same width; `None` where it does not fit.
fn rewrite(bytes: &[u8], scan: &Scan, number: u32) -> Option<Vec<u8>> {
    let spaces = scan.cseq_spaces.min(MAX_SPACES);
    let (from, to) = ((scan.cseq.at - spaces) as usize, (scan.cseq.at + scan.cseq.len) as usize);
    let text = format!("{number:>width$}", width = to - from);
    (text.len() == to - from).then(|| [&bytes[..from], text.as_bytes(), &bytes[to..]].concat())
}
