//! The kernel programs' part, as `st_egress` and `st_ingress` play it: numbers are committed and shifted here.

use std::{collections::HashMap, time::Duration};

use st_core::{Inject, Refusal, Time};
use st_ebpf::cseq::{Close, RANGES, Range, State, close, from_wire, to_wire};

/// Call-ID and the tag of the side whose numbers they are.
pub type Key = (Vec<u8>, Vec<u8>);

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    state: State,
    ranges: [Range; RANGES],
    closed: [Option<Time>; RANGES],
}

#[derive(Debug)]
struct Token {
    key: Key,
    expected: Option<State>,
    committed: bool,
}

#[derive(Debug, Default)]
pub struct Kernel {
    entries: HashMap<Key, Entry>,
    tokens: HashMap<u64, Token>,
    /// Taken off the record again.
    pub retired: Vec<u64>,
    pub disarmed: Vec<Key>,
}

impl Kernel {
    /// The dialog's state, from an entry that is made if there is none.
    pub fn arm(&mut self, key: Key, fresh: State) -> State {
        self.entries.entry(key).or_insert(Entry { state: fresh, ..Entry::default() }).state
    }

    /// A request of that side's: its number for the other.
    pub fn server(&mut self, key: &Key, number: u32) -> u32 {
        let Some(entry) = self.entries.get_mut(key) else { return number };
        entry.state = entry.state.after_server(number);
        to_wire(&entry.ranges, entry.state.delta, number)
    }

    /// A response to a request of the server's: the server's own number.
    pub fn back(&self, key: &Key, wire: u32) -> u32 {
        let Some(entry) = self.entries.get(key) else { return wire };
        from_wire(&entry.ranges, entry.state.delta, wire).unwrap_or(wire)
    }

    /// A request of sipst's own.
    pub fn inject(&mut self, now: Time, inject: &Inject) -> Result<(), Refusal> {
        let key = (inject.call_id.clone(), inject.tag.clone());
        let fresh = Token { key: key.clone(), expected: inject.commit, committed: inject.commit.is_none() };
        let token = self.tokens.entry(inject.token).or_insert(fresh);
        assert_eq!(token.key, key, "a token belongs to one dialog");
        if token.committed {
            return Ok(());
        }
        let expected = token.expected.expect("a commit");
        let entry = self.entries.get_mut(&key).ok_or(Refusal::Send)?;
        let word = entry.state;
        if word.known && !expected.known || word.delta != expected.delta || word.number > expected.number {
            return Err(Refusal::Moved);
        }
        match close(&entry.ranges, expected) {
            Close::Nothing => {}
            Close::Write { index, range } => {
                entry.ranges[index] = range;
                entry.closed[index] = Some(now);
            }
            Close::Shift { range } => {
                if entry.closed[0].is_some_and(|at| now.since(at) < Duration::from_secs(32)) {
                    return Err(Refusal::Ranges);
                }
                entry.ranges.rotate_left(1);
                entry.closed.rotate_left(1);
                (entry.ranges[RANGES - 1], entry.closed[RANGES - 1]) = (range, Some(now));
            }
        }
        entry.state = expected.after_injection();
        token.committed = true;
        Ok(())
    }

    pub fn retire(&mut self, token: u64) {
        assert!(self.tokens.remove(&token).is_some() || !self.retired.contains(&token), "retired twice: {token:x}");
        self.retired.push(token);
    }

    pub fn disarm(&mut self, key: Key) {
        assert!(self.entries.remove(&key).is_some(), "disarmed without an entry");
        self.disarmed.push(key);
    }

    /// Tokens and entries on record.
    pub fn holds(&self) -> (usize, usize) {
        (self.tokens.len(), self.entries.len())
    }
}
