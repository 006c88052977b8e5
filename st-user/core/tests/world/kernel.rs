//! The kernel programs' part, step for step as `st_egress` and `st_ingress` do it, with their own scan, key and mapping.

mod hold;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    ops::Range,
};

use rand::{RngExt as _, rngs::StdRng};
use st_core::{Arm, Direction, Inject, ReadyAck, Refusal, Time, engine::record::Unrecorded};
use st_ebpf::{
    abi::CAPTURE,
    cseq::{self, BLANKS, Close, RANGES, State, close, from_wire, to_wire},
    key::DialogKey,
    scan::{MAX_STEPS, Scan, Span, Start, Window, has_our_prefix, is_500, method, our_token, part, start},
};

use hold::{Acks, Held, Hold};

use super::{
    agent::{TRANSACTION, Us},
    faults::{Fault, Tally},
    plan::Weather,
};

const HASH_KEY: [u64; 2] = [11, 12];
const MAX_SPACES: u32 = 10;
/// What a datagram can hold, in bytes, where the MTU is 1,500.
const MOST: usize = 1_472;

#[derive(Clone, Copy, Debug, Default)]
struct Shift {
    check: u64,
    state: State,
    ranges: [cseq::Range; RANGES],
    closed: [Us; RANGES],
}

#[derive(Clone, Debug)]
struct Token {
    key: DialogKey,
    expected: State,
    committed: bool,
    /// Of a re-INVITE: where it went, and its ACK.
    reinvite: Option<(SocketAddr, ReadyAck)>,
}

/// A ring record.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Seen {
        at: Us,
        direction: Direction,
        peer: SocketAddr,
        cookie: u64,
        bytes: Vec<u8>,
    },
    /// A refusal of the server's that is held back.
    Held {
        at: Us,
        peer: SocketAddr,
        bytes: Vec<u8>,
    },
    Refused {
        token: u64,
        refusal: Refusal,
    },
}

impl Record {
    /// The message, where there is one.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Seen { bytes, .. } | Self::Held { bytes, .. } => Some(bytes),
            Self::Refused { .. } => None,
        }
    }
}

/// Sends of one socket have one.
pub(crate) const SERVERS_COOKIE: u64 = 7;
/// That of the daemon's raw socket.
pub(crate) const SIPSTS_COOKIE: u64 = 8;

/// What becomes of a packet that is about to leave.
pub(crate) enum Leaves {
    On(Vec<u8>),
    /// It comes in again.
    Back(Vec<u8>),
    /// It is in the ring, and nowhere else.
    Held,
    Nothing,
}

pub(crate) struct Kernel {
    pub(crate) ring: VecDeque<Record>,
    pub(crate) tally: Tally,
    /// The chance that the ring is full.
    full: f64,
    /// The chance that it is when a refusal comes.
    crammed: f64,
    calm: Us,
    /// From when to when it is full for certain.
    overflows: Vec<Range<Us>>,
    rng: StdRng,
    /// What was lost, oldest first.
    pub(crate) lost: Vec<Record>,
    /// The server's tags of dialogs in which a number did not fit.
    pub(crate) cramped: Vec<String>,
    /// Media flows that are watched; nobody sends any here.
    pub(crate) flows: HashSet<SocketAddr>,
    shifts: HashMap<u64, Shift>,
    /// The highest number of the server's in each dialog, whether or not the ring had room.
    latest: HashMap<u64, u32>,
    tokens: HashMap<u64, Token>,
    /// Dialogs with entries of which a new daemon knows nothing: it takes these away once they are over.
    leftovers: HashSet<u64>,
    /// Dialogs that are marked.
    holds: HashMap<u64, Hold>,
    /// Whether the daemon's heartbeat is fresh.
    pub(crate) awake: bool,
    window: Box<Window>,
}

impl Kernel {
    pub(crate) fn new(weather: &Weather, rng: StdRng) -> Self {
        Self {
            ring: VecDeque::new(),
            tally: Tally::default(),
            full: f64::from(weather.ring) / 1000.0,
            crammed: f64::from(weather.crammed) / 100.0,
            calm: weather.calm,
            overflows: weather.overflows.clone(),
            rng,
            lost: Vec::new(),
            cramped: Vec::new(),
            flows: HashSet::new(),
            shifts: HashMap::new(),
            latest: HashMap::new(),
            tokens: HashMap::new(),
            leftovers: HashSet::new(),
            holds: HashMap::new(),
            awake: true,
            window: Box::new(Window { bytes: [0; CAPTURE + 16] }),
        }
    }

    // The driver's side

    pub(crate) fn key(call_id: &[u8], tag: &[u8]) -> Option<DialogKey> {
        DialogKey::new(HASH_KEY, call_id, tag)
    }

    /// Makes the entry, if there is none.
    pub(crate) fn arm(&mut self, arm: &Arm) -> Result<DialogKey, Refusal> {
        let key = Self::key(&arm.call_id, &arm.tag).ok_or(Refusal::Identifiers)?;
        self.leftovers.remove(&key.map);
        self.shifts.entry(key.map).or_insert(Shift { check: key.check, state: arm.state, ..Shift::default() });
        Ok(key)
    }

    /// What was noted from before the entry was made counts too.
    pub(crate) fn state(&self, key: DialogKey) -> Result<State, Refusal> {
        let state = self.shifts.get(&key.map).map(|shift| shift.state).ok_or(Refusal::Send)?;
        Ok(self.latest.get(&key.map).map_or(state, |number| state.after_server(*number)))
    }

    pub(crate) fn record(&mut self, inject: &Inject) -> Result<(), Refusal> {
        let key = Self::key(&inject.call_id, &inject.tag).ok_or(Refusal::Identifiers)?;
        let (expected, committed) = (inject.commit.unwrap_or_default(), inject.commit.is_none());
        let reinvite = inject.ack.clone().map(|ack| (inject.peer, ack));
        self.tokens.entry(inject.token).or_insert(Token { key, expected, committed, reinvite });
        if let Some(ReadyAck { token, .. }) = &inject.ack {
            let expected = State::default();
            self.tokens.entry(*token).or_insert(Token { key, expected, committed: true, reinvite: None });
        }
        Ok(())
    }

    /// Whether a dialog has an entry.
    pub(crate) fn follows(&self, key: DialogKey) -> bool {
        self.shifts.contains_key(&key.map)
    }

    /// Requests that are on record, ACKs left out: the dialog, and what there is to know. The second: whether it has left.
    pub(crate) fn requests(&self, at: Time) -> Vec<(DialogKey, bool, Unrecorded)> {
        let acks: Vec<u64> =
            self.tokens.values().filter_map(|token| token.reinvite.as_ref().map(|(_, ack)| ack.token)).collect();
        let requests = self.tokens.iter().filter(|(token, _)| !acks.contains(token));
        let mut found: Vec<_> = requests
            .map(|(token, Token { key, expected, committed, reinvite })| {
                let number = expected.next_injected();
                (*key, *committed, Unrecorded { token: *token, number, at, reinvite: reinvite.clone() })
            })
            .collect();
        found.sort_by_key(|(_, _, found)| found.token);
        found
    }

    pub(crate) fn retire(&mut self, token: u64) {
        self.tokens.remove(&token);
    }

    pub(crate) fn disarm(&mut self, key: DialogKey) {
        self.shifts.remove(&key.map);
    }

    /// The entry stays, and is nobody's.
    pub(crate) fn leave(&mut self, key: DialogKey) {
        self.leftovers.insert(key.map);
    }

    /// A new daemon knows these dialogs and no others.
    pub(crate) fn leave_over(&mut self, known: impl Fn(u64) -> bool) {
        self.leftovers = self.shifts.keys().copied().filter(|key| !known(*key)).collect();
    }

    /// Tokens and entries on record, those left out that are nobody's.
    pub(crate) fn holds(&self) -> (usize, usize) {
        (self.tokens.len(), self.shifts.keys().filter(|key| !self.leftovers.contains(key)).count())
    }

    // The programs

    fn scan(&mut self, bytes: &[u8]) -> (Start, Scan) {
        assert!(bytes.len() <= CAPTURE);
        self.window.bytes[..bytes.len()].copy_from_slice(bytes);
        self.window.bytes[bytes.len()..].fill(0);
        let start = start(&self.window);
        let quoted = match start {
            Start::Request(method::PRACK) => part::RACK,
            Start::Request(method::NOTIFY | method::SUBSCRIBE) => part::EVENT,
            // It makes a 500 into something that passes by itself.
            Start::Response if is_500(&self.window) => part::RETRY_AFTER,
            Start::Request(_) | Start::Response | Start::KeepAlive | Start::NotSip => 0,
        };
        let mut scan = Scan::default();
        scan.begin(bytes.len() as u32, part::VIA | part::FROM | part::TO | part::CALL_ID | part::CSEQ | quoted);
        assert!((0..MAX_STEPS).any(|_| scan.step(&self.window)), "the scan did not end");
        (start, scan)
    }

    /// Whether there was room.
    fn submit(&mut self, now: Us, record: Record) -> bool {
        let overflow = self.overflows.iter().any(|one| one.contains(&now));
        self.tally.add(Fault::RingOverflow, overflow.into());
        if overflow || now < self.calm && self.full > 0.0 && self.rng.random_bool(self.full) {
            self.tally.count(Fault::SampleLost);
            self.lost.push(record);
            return false;
        }
        self.ring.push_back(record);
        true
    }

    /// A packet that is about to leave the host.
    pub(crate) fn egress(&mut self, now: Us, peer: SocketAddr, cookie: u64, bytes: &[u8]) -> Leaves {
        let (start, scan) = self.scan(bytes);
        let seen = Record::Seen { at: now, direction: Direction::Egress, peer, cookie, bytes: bytes.to_vec() };
        let method = match start {
            Start::Request(method) => method,
            Start::Response => {
                let record = Record::Held { at: now, peer, bytes: bytes.to_vec() };
                match self.hold(now, record, bytes, cookie, &scan) {
                    Held::Yes => return Leaves::Held,
                    Held::No if scan.method != method::OPTIONS => _ = self.submit(now, seen),
                    Held::No | Held::NoRoom => {}
                }
                return Leaves::On(bytes.to_vec());
            }
            Start::KeepAlive | Start::NotSip => return Leaves::On(bytes.to_vec()),
        };
        if has_our_prefix(&self.window, scan.branch) {
            let token = our_token(&self.window, scan.branch).unwrap_or(0);
            return match self.commit(now, token) {
                Ok(()) => {
                    self.submit(now, seen);
                    Leaves::On(bytes.to_vec())
                }
                Err(refusal) => {
                    self.submit(now, Record::Refused { token, refusal });
                    Leaves::Nothing
                }
            };
        }
        if method == method::ACK && self.acks(now, bytes, &scan) == Acks::Refusal {
            // In the peer's name.
            self.tally.count(Fault::AckTurned);
            return Leaves::Back(bytes.to_vec());
        }
        let inside = scan.to_tag.len > 0;
        if inside || matches!(method, method::INVITE | method::CANCEL) {
            self.submit(now, seen);
        }
        Leaves::On(if inside { self.shift(bytes, &scan, method) } else { bytes.to_vec() })
    }

    fn shift(&mut self, bytes: &[u8], scan: &Scan, method: u32) -> Vec<u8> {
        let key = dialog(bytes, scan, scan.from_tag);
        // ACK and CANCEL raise nothing.
        let raises = method != method::ACK && method != method::CANCEL;
        if let Some(key) = key.filter(|_| raises) {
            let number = u32::try_from(scan.number).expect("a number");
            self.latest.entry(key.map).and_modify(|latest| *latest = number.max(*latest)).or_insert(number);
        }
        let entry = key.and_then(|key| self.shifts.get_mut(&key.map).filter(|entry| entry.check == key.check));
        let Some(entry) = entry else { return bytes.to_vec() };
        let number = u32::try_from(scan.number).expect("a number");
        if raises {
            entry.state = entry.state.after_server(number);
        }
        let wire = to_wire(&entry.ranges, entry.state.delta, number);
        let quoted = match method {
            method::PRACK => scan.found & part::RACK != 0,
            method::SUBSCRIBE => scan.found & part::EVENT != 0,
            _ => false,
        };
        let quoted = u32::try_from(scan.quoted_number).ok().filter(|_| quoted);
        let quoted = quoted.map(|number| (number, to_wire(&entry.ranges, entry.state.delta, number)));
        let mut bytes = bytes.to_vec();
        // No blank may stand before the number in `refer;id`.
        let left = method == method::SUBSCRIBE;
        let numbers = [
            (Fault::ShiftedOut, Some((number, wire)), scan.cseq, scan.cseq_spaces, false),
            // One blank has to stay before it: there is less room than in CSeq.
            (Fault::Quoted, quoted, scan.quoted, if left { 0 } else { scan.quoted_spaces }, left),
        ];
        let mut moved = 0;
        for (fault, shift, mut digits, mut spaces, left) in numbers {
            let Some((_, wire)) = shift.filter(|(number, wire)| number != wire) else { continue };
            if digits.at > scan.cseq.at {
                digits.at += moved;
            }
            if lacks(&bytes, digits, spaces, wire) {
                self.tally.count(Fault::Lengthened);
                let at = digits.at + if left { digits.len } else { 0 };
                let (head, tail) = bytes.split_at(at as usize);
                bytes = [head, &[b' '; BLANKS as usize], tail].concat();
                if left {
                    digits.len += BLANKS;
                } else {
                    (digits.at, spaces) = (digits.at + BLANKS, spaces + BLANKS);
                }
                moved = BLANKS;
            }
            if let Some(rewritten) = rewrite(&bytes, digits, spaces, wire, left) {
                self.tally.count(fault);
                bytes = rewritten;
            } else {
                self.tally.count(Fault::NoRoom);
                let tag = &bytes[scan.from_tag.at as usize..][..scan.from_tag.len as usize];
                self.cramped.push(String::from_utf8_lossy(tag).into_owned());
            }
        }
        bytes
    }

    fn commit(&mut self, now: Us, token: u64) -> Result<(), Refusal> {
        let &Token { key, expected, committed, .. } = self.tokens.get(&token).ok_or(Refusal::Send)?;
        if committed {
            return Ok(());
        }
        let entry = self.shifts.get_mut(&key.map).filter(|entry| entry.check == key.check).ok_or(Refusal::Send)?;
        let state = entry.state;
        if state.known && !expected.known || state.delta != expected.delta || state.number > expected.number {
            self.tally.count(Fault::Moved);
            return Err(Refusal::Moved);
        }
        match close(&entry.ranges, expected) {
            Close::Nothing => {}
            Close::Write { index, range } => (entry.ranges[index], entry.closed[index]) = (range, now),
            Close::Shift { range } => {
                if now - entry.closed[0] < TRANSACTION {
                    self.tally.count(Fault::RangesFull);
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
        let seen = Record::Seen { at: now, direction: Direction::Ingress, peer, cookie: 0, bytes: bytes.to_vec() };
        match start {
            Start::Request(method) => {
                if method != method::OPTIONS || scan.to_tag.len > 0 {
                    self.submit(now, seen);
                }
                if method == method::ACK && self.acks(now, bytes, &scan) == Acks::Success {
                    self.tally.count(Fault::AckTaken);
                    return None;
                }
                if method != method::NOTIFY || scan.found & part::EVENT == 0 {
                    return Some(bytes.to_vec());
                }
                // `refer;id` quotes the number that the server's REFER had on the wire.
                let Some(number) = self.own_number(bytes, &scan, scan.to_tag, scan.quoted_number) else {
                    return Some(bytes.to_vec());
                };
                self.tally.count(Fault::Quoted);
                return Some(rewrite(bytes, scan.quoted, 0, number, true).unwrap_or_else(|| bytes.to_vec()));
            }
            Start::Response => {}
            Start::KeepAlive | Start::NotSip => return Some(bytes.to_vec()),
        }
        if has_our_prefix(&self.window, scan.branch) {
            self.tally.count(Fault::AnswerTaken);
            let token = our_token(&self.window, scan.branch);
            if token.is_some_and(|token| self.tokens.contains_key(&token)) {
                self.submit(now, seen);
            }
            return None;
        }
        if scan.method != method::OPTIONS {
            self.submit(now, seen);
        }
        let Some(number) = self.own_number(bytes, &scan, scan.from_tag, scan.number) else {
            return Some(bytes.to_vec());
        };
        self.tally.count(Fault::ShiftedBack);
        Some(rewrite(bytes, scan.cseq, scan.cseq_spaces, number, false).unwrap_or_else(|| bytes.to_vec()))
    }

    /// The server's own number behind `wire`, if that is another one. `tag`: the server's.
    fn own_number(&self, bytes: &[u8], scan: &Scan, tag: Span, wire: u64) -> Option<u32> {
        let key = dialog(bytes, scan, tag)?;
        let entry = self.shifts.get(&key.map).filter(|entry| entry.check == key.check)?;
        let wire = u32::try_from(wire).ok()?;
        from_wire(&entry.ranges, entry.state.delta, wire).filter(|number| *number != wire)
    }
}

fn dialog(bytes: &[u8], scan: &Scan, tag: Span) -> Option<DialogKey> {
    let cut = |span: Span| &bytes[span.at as usize..][..span.len as usize];
    Kernel::key(cut(scan.call_id), cut(tag))
}

/// Whether a number of a request needs blanks before it, and can have them.
fn lacks(bytes: &[u8], digits: Span, spaces: u32, number: u32) -> bool {
    let (room, needed) = (digits.len + spaces.min(MAX_SPACES), number.checked_ilog10().unwrap_or(0) + 1);
    needed > room && needed <= room + BLANKS && bytes.len() + BLANKS as usize <= MOST
}

/// Another number in the same width, with its blanks before it, or behind it (`left`); `None` where it does not fit.
fn rewrite(bytes: &[u8], digits: Span, spaces: u32, number: u32, left: bool) -> Option<Vec<u8>> {
    let (from, to) = ((digits.at - spaces.min(MAX_SPACES)) as usize, (digits.at + digits.len) as usize);
    let width = to - from;
    let text = if left { format!("{number:<width$}") } else { format!("{number:>width$}") };
    (text.len() == to - from).then(|| [&bytes[..from], text.as_bytes(), &bytes[to..]].concat())
}
