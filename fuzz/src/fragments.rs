//! Fragments put together, beside a plain model of what each byte was said to be.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use st_core::{
    Time,
    reassembly::{Fragment, Id, MAX_BYTES, MAX_DATAGRAMS, Outcome, PATIENCE, Reassembly},
};

use crate::input::Input;

/// What was said of one datagram since it was last whole or began anew.
#[derive(Default)]
struct Said {
    since: u64,
    bytes: HashMap<usize, u8>,
    contradicts: bool,
}

/// Each step is a fragment of one of sixteen datagrams, and now and then some time.
pub fn fragments(data: &[u8]) {
    let mut input = Input::new(data);
    let mut all = Reassembly::default();
    let mut said: HashMap<u32, Said> = HashMap::new();
    let mut now: u64 = 0;
    while !input.is_empty() {
        let step = input.byte();
        if step >= 0xf0 {
            now += u64::from(input.byte());
        }
        let identification = u32::from(step & 15);
        let offset = u16::from(input.byte());
        let more = input.flag();
        let bytes = input.bytes();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let id = Id { source: address, destination: address, identification, protocol: 17 };
        let fragment = Fragment { id, offset, more, bytes };
        let one = said.entry(identification).or_insert_with(|| Said { since: now, ..Said::default() });
        if now - one.since > PATIENCE.as_secs() {
            *one = Said { since: now, ..Said::default() };
        }
        let begin = usize::from(offset) * 8;
        if bytes.is_empty() || more && !bytes.len().is_multiple_of(8) {
            assert!(matches!(all.add(at(now), &fragment, || ()), Outcome::Refused(_)));
            if one.bytes.is_empty() {
                said.remove(&identification);
            }
            continue;
        }
        for (place, byte) in (begin..).zip(bytes) {
            one.contradicts |= one.bytes.insert(place, *byte).is_some_and(|before| before != *byte);
        }
        match all.add(at(now), &fragment, || ()) {
            Outcome::Whole((), whole) => {
                assert!(!one.contradicts, "of contradicting fragments nothing is used");
                assert_eq!(one.bytes.len(), whole.len(), "all there is, and no more");
                assert!(whole.iter().enumerate().all(|(place, byte)| one.bytes.get(&place) == Some(byte)));
                said.remove(&identification);
            }
            Outcome::Waits | Outcome::Refused(_) => {}
        }
        let (datagrams, bytes) = all.waiting();
        assert!(datagrams <= MAX_DATAGRAMS && bytes <= MAX_BYTES);
    }
    all.given_up(at(now + PATIENCE.as_secs() + 1));
    assert_eq!(all.waiting(), (0, 0));
}

fn at(seconds: u64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}
