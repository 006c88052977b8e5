//! One direction of a connection: segments in whatever order, cut however, become the bytes that were sent, each once.

use std::collections::VecDeque;

use super::{
    MAX_AHEAD, MAX_AHEAD_BYTES, WINDOW,
    framing::{Found, Framer},
};

/// What becomes of a segment's bytes beside messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Its bytes had all been there before.
    pub(super) repeated: bool,
    /// It came before its turn.
    pub(super) early: bool,
    /// It is so far from what was expected that the direction is taken for another.
    pub(super) elsewhere: bool,
    /// What had to be gone over because too much was waiting for it.
    pub(super) gap: u32,
}

#[derive(Debug)]
pub(super) struct Half {
    /// The number of the byte that comes next, once one was seen.
    next: Option<u32>,
    framer: Framer,
    /// What came before its turn: where it begins, in order and without overlap.
    ahead: VecDeque<(u32, Vec<u8>)>,
    ahead_bytes: usize,
    /// The number behind its last byte, once its FIN was seen.
    end: Option<u32>,
}

impl Half {
    /// One of which nothing is known.
    pub(super) fn new() -> Self {
        Self { next: None, framer: Framer::new(false), ahead: VecDeque::new(), ahead_bytes: 0, end: None }
    }

    /// One whose first byte has this number.
    pub(super) fn beginning(next: u32) -> Self {
        Self { next: Some(next), framer: Framer::new(true), ..Self::new() }
    }

    /// Whether nothing but its SYN with this first number was seen of it, or that was the one before its first byte.
    pub(super) fn begins_with(&self, first: u32) -> bool {
        self.next.is_some_and(|next| distance(next, first) >= 0 && distance(next, first) < WINDOW)
    }

    /// The number of the byte that comes next.
    pub(super) fn next(&self) -> Option<u32> {
        self.next
    }

    /// How many bytes are kept.
    pub(super) fn held(&self) -> usize {
        self.framer.held() + self.ahead_bytes
    }

    /// Whether something is missing.
    pub(super) fn has_gap(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Whether all of it was seen.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some_and(|end| self.next.is_none_or(|next| distance(next, end) >= 0))
    }

    /// How many bytes were gone through in vain since the last message.
    pub(super) fn hunted(&self) -> u64 {
        self.framer.hunted()
    }

    /// No byte comes behind this number.
    pub(super) fn finish(&mut self, end: u32) {
        self.end = Some(end);
    }

    /// Takes in a segment.
    pub(super) fn segment(&mut self, first: u32, bytes: &[u8], found: &mut dyn FnMut(Found<'_>)) -> Told {
        let mut told = Told::default();
        let next = *self.next.get_or_insert(first);
        let ahead = distance(first, next);
        if ahead.unsigned_abs() as usize >= WINDOW as usize {
            told.elsewhere = true;
            *self = Self { next: Some(first), ..Self::new() };
            self.take(bytes, found);
            return told;
        }
        if ahead <= 0 {
            let before = ahead.unsigned_abs() as usize;
            match bytes.get(before..).filter(|new| !new.is_empty()) {
                Some(new) => self.take(new, found),
                None => told.repeated = !bytes.is_empty(),
            }
        } else if !bytes.is_empty() {
            told.early = true;
            self.keep(first, bytes);
            while self.ahead.len() > MAX_AHEAD || self.ahead_bytes > MAX_AHEAD_BYTES {
                told.gap = told.gap.saturating_add(self.go_over(found));
            }
        }
        told
    }

    /// Goes over what is missing; how many bytes that is.
    pub(super) fn go_over(&mut self, found: &mut dyn FnMut(Found<'_>)) -> u32 {
        let (Some(next), Some((first, _))) = (self.next, self.ahead.front()) else { return 0 };
        let missing = first.wrapping_sub(next);
        self.framer.gap(missing as usize, found);
        self.next = Some(next.wrapping_add(missing));
        self.follow(found);
        missing
    }

    /// Takes in what comes next, and what has waited for it.
    fn take(&mut self, bytes: &[u8], found: &mut dyn FnMut(Found<'_>)) {
        self.next = self.next.map(|next| next.wrapping_add(bytes.len() as u32));
        self.framer.push(bytes, found);
        self.follow(found);
    }

    fn follow(&mut self, found: &mut dyn FnMut(Found<'_>)) {
        while let (Some(next), Some((first, _))) = (self.next, self.ahead.front()) {
            let before = distance(next, *first);
            if before < 0 {
                return;
            }
            let Some((_, bytes)) = self.ahead.pop_front() else { return };
            self.ahead_bytes -= bytes.len();
            let new = bytes.get(before.unsigned_abs() as usize..).unwrap_or_default();
            self.next = Some(next.wrapping_add(new.len() as u32));
            self.framer.push(new, found);
        }
    }

    /// Keeps of a segment that came before its turn what is not there yet: what was seen first counts.
    fn keep(&mut self, mut first: u32, mut bytes: &[u8]) {
        let mut place = 0;
        while !bytes.is_empty() {
            let Some((there, kept)) = self.ahead.get(place) else {
                return self.put(place, first, bytes);
            };
            let before = distance(*there, first);
            if before > 0 {
                let new = bytes.len().min(before.unsigned_abs() as usize);
                let (now, later) = bytes.split_at(new);
                self.put(place, first, now);
                (first, bytes) = (first.wrapping_add(new as u32), later);
                // What was there is behind it now.
                place += 1;
                continue;
            }
            let end = there.wrapping_add(kept.len() as u32);
            let known = distance(end, first).max(0).unsigned_abs() as usize;
            bytes = bytes.get(known..).unwrap_or_default();
            first = first.wrapping_add(known as u32);
            place += 1;
        }
    }

    fn put(&mut self, place: usize, first: u32, bytes: &[u8]) {
        self.ahead_bytes += bytes.len();
        self.ahead.insert(place, (first, bytes.to_vec()));
    }
}

/// How far one number is behind another one, round the end of the scale (RFC 9293, section 3.4).
const fn distance(number: u32, from: u32) -> i32 {
    number.wrapping_sub(from) as i32
}
