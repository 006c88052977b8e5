use std::net::Ipv4Addr;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

fn id(identification: u32) -> Id {
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    Id { source: address, destination: address, identification, protocol: 17 }
}

fn fragment(identification: u32, offset: u16, more: bool, bytes: &[u8]) -> Fragment<'_> {
    Fragment { id: id(identification), offset, more, bytes }
}

fn at(seconds: u64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

/// Takes it in with its offset as what is known of it.
fn add(all: &mut Reassembly<u16>, now: Time, fragment: Fragment<'_>) -> Outcome<u16> {
    all.add(now, &fragment, || fragment.offset)
}

/// A datagram cut at those places, in units of eight bytes: where each part begins, whether more follow, and what it holds.
fn cut(bytes: &[u8], places: &[Index]) -> Vec<(u16, bool, Vec<u8>)> {
    let units = bytes.len().div_ceil(8);
    let mut begins: Vec<_> = places.iter().map(|place| place.index(units)).chain([0]).collect();
    begins.sort_unstable();
    begins.dedup();
    let ends = begins.iter().skip(1).map(|unit| unit * 8).chain([bytes.len()]);
    let part = |(begin, end): (&usize, usize)| {
        (u16::try_from(*begin).unwrap(), end < bytes.len(), bytes[begin * 8..end].to_vec())
    };
    begins.iter().zip(ends).map(part).collect()
}

proptest! {
    #[test]
    fn in_any_order_and_with_copies_it_is_put_together_once(
        bytes in vec(any::<u8>(), 9..4_000),
        places in vec(any::<Index>(), 1..40),
        swaps in vec((any::<Index>(), any::<Index>()), 0..60),
        copies in vec(any::<Index>(), 0..10),
    ) {
        let mut parts = cut(&bytes, &places);
        for (a, b) in swaps {
            let (a, b) = (a.index(parts.len()), b.index(parts.len()));
            parts.swap(a, b);
        }
        for copy in copies {
            let (from, to) = (copy.index(parts.len()), copy.index(parts.len() + 1));
            parts.insert(to, parts[from].clone());
        }
        let mut all = Reassembly::default();
        let mut seen = std::collections::HashSet::new();
        let mut lacking = cut(&bytes, &places).len();
        for (offset, more, part) in &parts {
            let outcome = add(&mut all, at(1), fragment(7, *offset, *more, part));
            lacking -= usize::from(seen.insert(*offset));
            if lacking == 0 {
                prop_assert_eq!(outcome, Outcome::Whole(0, bytes));
                break;
            }
            prop_assert_eq!(outcome, Outcome::Waits);
        }
        prop_assert_eq!(lacking, 0);
        prop_assert_eq!(all.waiting(), (0, 0));
        prop_assert_eq!(all.counts(), Counts { whole: 1, ..Counts::default() });
    }

    #[test]
    fn one_that_overlaps_in_any_way_spoils_the_datagram(
        bytes in vec(any::<u8>(), 64..2_000),
        places in vec(any::<Index>(), 2..20),
        swaps in vec((any::<Index>(), any::<Index>()), 0..30),
        (from, length) in (any::<Index>(), 1..40_usize),
        when in any::<Index>(),
    ) {
        let parts = cut(&bytes, &places);
        let begin = from.index(bytes.len() / 8 - 1);
        let end = (begin + length) * 8;
        prop_assume!(end < bytes.len());
        let bad = (u16::try_from(begin).unwrap(), true, bytes[begin * 8..end].to_vec());
        prop_assume!(parts.len() > 1 && !parts.contains(&bad));
        let mut parts = parts;
        for (a, b) in swaps {
            let (a, b) = (a.index(parts.len()), b.index(parts.len()));
            parts.swap(a, b);
        }
        // After one that it overlaps, and before the last one comes.
        let overlaps = |(offset, _, part): &(u16, bool, Vec<u8>)| {
            let unit = usize::from(*offset);
            unit * 8 < end && begin * 8 < unit * 8 + part.len()
        };
        let first = parts.iter().position(overlaps).unwrap();
        parts.swap(0, first);
        parts.insert(1 + when.index(parts.len() - 1), bad);
        let mut all = Reassembly::default();
        for (offset, more, part) in &parts {
            let outcome = add(&mut all, at(1), fragment(7, *offset, *more, part));
            prop_assert!(!matches!(outcome, Outcome::Whole(..)));
        }
        prop_assert_eq!(all.counts().overlapping, 1);
        prop_assert_eq!(all.waiting(), (0, 0));
    }

    #[test]
    fn whatever_comes_bounds_hold(
        steps in vec((0..2_000_u32, 0..0x2000_u16, any::<bool>(), 0..1_500_usize, 0..3_u64), 0..300),
    ) {
        let mut all = Reassembly::default();
        let mut now = 0;
        for (identification, offset, more, length, pause) in steps {
            now += pause / 2;
            add(&mut all, at(now), fragment(identification, offset, more, &vec![7; length]));
            let held: usize = all.waiting.values().map(|one| one.held).sum();
            let pieces = all.waiting.values().filter_map(|one| one.pieces.as_ref());
            let bytes: usize = pieces.flatten().map(|piece| piece.bytes.len()).sum();
            prop_assert_eq!((held, bytes), (all.held, all.held));
            prop_assert!(all.waiting.len() <= MAX_DATAGRAMS && all.queue.len() <= 2 * MAX_DATAGRAMS);
            prop_assert!(all.held <= MAX_BYTES);
        }
        all.expire(at(now + 31));
        prop_assert_eq!((all.waiting.len(), all.queue.len(), all.held), (0, 0, 0));
    }
}

#[test]
fn what_waits_too_long_is_given_up_and_a_late_one_begins_anew() {
    let mut all = Reassembly::default();
    assert_eq!(add(&mut all, at(0), fragment(1, 0, true, b"abcdefgh")), Outcome::Waits);
    assert_eq!(add(&mut all, at(0), fragment(2, 1, false, b"ijk")), Outcome::Waits);
    assert_eq!(add(&mut all, at(30), fragment(3, 0, true, b"abcdefgh")), Outcome::Waits);
    assert_eq!(all.waiting(), (3, 19));
    assert_eq!(add(&mut all, at(31), fragment(1, 1, false, b"ijk")), Outcome::Waits);
    assert_eq!(all.counts(), Counts { incomplete: 1, headless: 1, ..Counts::default() });
    assert_eq!(add(&mut all, at(32), fragment(1, 0, true, b"ABCDEFGH")), Outcome::Whole(0, b"ABCDEFGHijk".into()));
    assert_eq!((all.given_up(at(62)), all.given_up(at(62))), (2, 0));
    assert_eq!(all.waiting(), (0, 0));
}

#[test]
fn nothing_is_used_of_what_contradicts_itself() {
    let first = || fragment(1, 0, true, b"abcdefgh");
    for bad in [
        fragment(1, 0, true, b"abcdefgX"),
        fragment(1, 0, true, b"abcdefghijklmnop"),
        fragment(1, 0, false, b"abcdefgh"),
        fragment(1, 2, false, b"q"),
        fragment(1, 3, true, b"yyyyyyyy"),
        fragment(1, 1, false, b"ijklmnopqr"),
    ] {
        let mut all = Reassembly::default();
        assert_eq!(add(&mut all, at(0), first()), Outcome::Waits);
        assert_eq!(add(&mut all, at(0), fragment(1, 2, false, b"rst")), Outcome::Waits);
        assert_eq!(add(&mut all, at(0), bad), Outcome::Refused(Refused::Overlap), "{bad:?}");
        // Also what comes later, until its time is over.
        assert_eq!(add(&mut all, at(29), fragment(1, 1, true, b"ijklmnop")), Outcome::Refused(Refused::Overlap));
        assert_eq!(all.counts(), Counts { overlapping: 1, ..Counts::default() });
        assert_eq!(all.waiting(), (0, 0));
        assert_eq!(add(&mut all, at(31), first()), Outcome::Waits);
    }
}

#[test]
fn a_fragment_that_cannot_be_one_is_left_out_and_harms_nothing() {
    let mut all = Reassembly::default();
    assert_eq!(add(&mut all, at(0), fragment(1, 0, true, b"abcdefgh")), Outcome::Waits);
    for bad in [
        fragment(1, 1, true, b"short"),
        fragment(1, 1, false, b""),
        fragment(1, 0x1fff, false, b"12345678"),
        fragment(1, 1, true, &[0; MAX_LENGTH - 7]),
    ] {
        assert_eq!(add(&mut all, at(0), bad), Outcome::Refused(Refused::Malformed));
    }
    assert_eq!(add(&mut all, at(0), fragment(1, 1, false, b"i")), Outcome::Whole(0, b"abcdefghi".into()));
    assert_eq!(all.counts(), Counts { whole: 1, malformed: 4, ..Counts::default() });
}

#[test]
fn more_fragments_than_the_limit_are_refused() {
    let mut all = Reassembly::default();
    for offset in 0..MAX_FRAGMENTS as u16 {
        assert_eq!(add(&mut all, at(0), fragment(1, offset, true, b"abcdefgh")), Outcome::Waits);
    }
    let one_more = fragment(1, MAX_FRAGMENTS as u16, false, b"x");
    assert_eq!(add(&mut all, at(0), one_more), Outcome::Refused(Refused::TooMany));
    assert_eq!((all.counts().too_many, all.waiting()), (1, (0, 0)));
}

#[test]
fn a_flood_displaces_what_lacks_its_beginning_first_and_stays_within_bounds() {
    let mut all = Reassembly::default();
    assert_eq!(add(&mut all, at(0), fragment(1, 0, true, b"abcdefgh")), Outcome::Waits);
    for identification in 10..4_000 {
        assert_eq!(add(&mut all, at(1), fragment(identification, 5, true, b"xxxxxxxx")), Outcome::Waits);
        assert!(all.waiting.len() <= MAX_DATAGRAMS);
    }
    assert_eq!(all.counts().displaced, 3_991 - MAX_DATAGRAMS as u64);
    assert_eq!(add(&mut all, at(2), fragment(1, 1, false, b"ijk")), Outcome::Whole(0, b"abcdefghijk".into()));
    // Of beginnings alone the oldest go.
    for identification in 30_000..33_000 {
        add(&mut all, at(2), fragment(identification, 0, true, b"xxxxxxxx"));
    }
    assert_eq!(all.waiting(), (MAX_DATAGRAMS, MAX_DATAGRAMS * 8));
    assert_eq!(all.given_up(at(2)), 3_000 - MAX_DATAGRAMS as u64);
    assert_eq!(add(&mut all, at(2), fragment(32_999, 1, false, b"y")), Outcome::Whole(0, b"xxxxxxxxy".into()));
}

#[test]
fn long_ones_stay_within_their_bytes() {
    let mut all = Reassembly::default();
    let long = vec![7; 60_000];
    for identification in 0..200 {
        assert_eq!(add(&mut all, at(1), fragment(identification, 0, true, &long)), Outcome::Waits);
        assert!(all.waiting().1 <= MAX_BYTES);
    }
    assert_eq!(all.waiting().0, MAX_BYTES / 60_000);
}
