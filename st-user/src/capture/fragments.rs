//! IP datagrams out of their fragments, within bounds.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use etherparse::{IpFragOffset, IpNumber, defrag::IpDefragBuf};
use st_core::Time;

/// How many datagrams are put together at the same time; past that the oldest goes.
const MAX_DATAGRAMS: usize = 256;
/// How many fragments a datagram may have: 64 KiB in the shortest that IPv6 allows, and some to spare.
const MAX_FRAGMENTS: usize = 64;
/// How long fragments wait for the others (RFC 791 has 15 s as the least, RFC 8200 has 60 s).
const PATIENCE: Duration = Duration::from_secs(60);

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) identification: u32,
    pub(super) protocol: IpNumber,
}

/// One fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) id: Id,
    pub(super) offset: IpFragOffset,
    pub(super) more: bool,
    pub(super) payload: &'a [u8],
}

struct Waiting {
    buffer: IpDefragBuf,
    fragments: usize,
    since: Time,
}

/// The datagrams that are incomplete so far.
#[derive(Default)]
pub(super) struct Fragments {
    waiting: HashMap<Id, Waiting>,
    given_up: u64,
}

impl Fragments {
    /// The payload of the datagram, if `fragment` was the last of it that was missing.
    pub(super) fn add(&mut self, now: Time, fragment: Fragment<'_>) -> Option<Vec<u8>> {
        let Fragment { id, offset, more, payload } = fragment;
        self.make_room(now, &id);
        let waiting = self.waiting.entry(id).or_insert_with(|| Waiting {
            buffer: IpDefragBuf::new(id.protocol, Vec::new(), Vec::new()),
            fragments: 0,
            since: now,
        });
        waiting.fragments += 1;
        if waiting.fragments > MAX_FRAGMENTS || waiting.buffer.add(offset, more, payload).is_err() {
            self.waiting.remove(&id);
            self.given_up += 1;
            return None;
        }
        if !waiting.buffer.is_complete() {
            return None;
        }
        self.waiting.remove(&id).map(|waiting| waiting.buffer.take_bufs().0)
    }

    /// How many datagrams lack a part, those that are waiting included.
    pub(super) fn incomplete(&self) -> u64 {
        self.given_up + self.waiting.len() as u64
    }

    fn make_room(&mut self, now: Time, id: &Id) {
        let before = self.waiting.len();
        self.waiting.retain(|_, waiting| now.since(waiting.since) <= PATIENCE);
        if self.waiting.len() >= MAX_DATAGRAMS
            && !self.waiting.contains_key(id)
            && let Some(oldest) = self.waiting.iter().min_by_key(|(_, waiting)| waiting.since).map(|(id, _)| *id)
        {
            self.waiting.remove(&oldest);
        }
        self.given_up += (before - self.waiting.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(identification: u32, offset: u16, more: bool, payload: &[u8]) -> Fragment<'_> {
        let address = IpAddr::from([192, 0, 2, 1]);
        let id = Id { source: address, destination: address, identification, protocol: IpNumber::UDP };
        Fragment { id, offset: (offset / 8).try_into().unwrap(), more, payload }
    }

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn fragments_in_any_order_and_twice_make_the_datagram() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.add(at(0), fragment(1, 8, false, b"ijk")), None);
        assert_eq!(fragments.add(at(0), fragment(2, 0, true, b"ABCDEFGH")), None);
        assert_eq!(fragments.add(at(0), fragment(1, 8, false, b"ijk")), None);
        assert_eq!(fragments.add(at(1), fragment(1, 0, true, b"abcdefgh")).as_deref(), Some(&b"abcdefghijk"[..]));
        assert_eq!(fragments.incomplete(), 1);
    }

    #[test]
    fn what_waits_too_long_or_too_much_or_contradicts_itself_is_given_up() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.add(at(0), fragment(1, 8, false, b"ijk")), None);
        assert_eq!(fragments.add(at(61), fragment(1, 0, true, b"abcdefgh")), None);
        assert_eq!(fragments.incomplete(), 2);
        assert_eq!(fragments.add(at(61), fragment(1, 16, false, b"x")), None);
        assert_eq!(fragments.add(at(61), fragment(1, 24, false, b"y")), None);
        assert_eq!(fragments.incomplete(), 2);
        for _ in 0..=MAX_FRAGMENTS {
            assert_eq!(fragments.add(at(62), fragment(3, 0, true, b"abcdefgh")), None);
        }
        assert!(fragments.waiting.is_empty());
    }

    #[test]
    fn a_flood_of_first_fragments_stays_within_bounds() {
        let mut fragments = Fragments::default();
        for identification in 0..10_000 {
            assert_eq!(fragments.add(at(1), fragment(identification, 0, true, b"abcdefgh")), None);
        }
        assert_eq!(fragments.waiting.len(), MAX_DATAGRAMS);
        assert_eq!(fragments.incomplete(), 10_000);
    }
}
