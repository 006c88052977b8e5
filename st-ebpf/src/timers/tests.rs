use std::{boxed::Box, string::String, vec::Vec};

use super::*;
use crate::scan::MAX_STEPS;

fn window(text: &[u8]) -> Box<Window> {
    let mut window = Box::new(Window { bytes: [0; CAPTURE + 16] });
    let len = text.len().min(CAPTURE);
    window.bytes[..len].copy_from_slice(&text[..len]);
    window
}

fn read(text: &[u8], list: List) -> Reading {
    let window = window(text);
    let mut reading = Reading::default();
    reading.begin(text.len() as u32, list);
    for step in 0.. {
        assert!(step < MAX_STEPS, "it never ends");
        if reading.step(&window) {
            break;
        }
    }
    reading
}

fn invite(more: &str) -> String {
    ["INVITE sip:b@c SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n", more, "\r\nv=0\r\n"].concat()
}

#[test]
fn a_list_is_added_to_behind_its_last_tag_and_one_that_is_not_there_is_made_before_the_empty_line() {
    let text = invite("CSeq: 1 INVITE\r\n");
    let blank = text.find("\r\n\r\n").unwrap() as u32 + 2;
    assert_eq!(read(text.as_bytes(), List::Supported).offer(), Ok(Edit::Line(blank)));
    let text = invite("k: 100rel , gruu \r\nCSeq: 1 INVITE\r\n");
    let last = text.find(" \r\nCSeq").unwrap() as u32;
    assert_eq!(read(text.as_bytes(), List::Supported).offer(), Ok(Edit::Item(last)));
    for empty in ["Supported:\r\n", "Supported : \t\r\n"] {
        let text = invite(empty);
        let colon = text.find("\r\nSupp").unwrap() + 2 + empty.find(':').unwrap();
        assert_eq!(read(text.as_bytes(), List::Supported).offer(), Ok(Edit::Only(colon as u32 + 1)));
    }
}

#[test]
fn a_demand_for_timer_and_nothing_else_is_softened_where_it_stands() {
    let text = invite("CSeq: 1 INVITE\r\nrequire: Timer\r\n");
    let at = text.find("require").unwrap() as u32;
    assert_eq!(read(text.as_bytes(), List::Require).soften(), Some(Ok(Edit::Soften(at))));
    assert_eq!(read(invite("").as_bytes(), List::Require).soften(), None);
    assert_eq!(read(invite("Require: x\r\n").as_bytes(), List::Require).soften(), None);
    let others = invite("Require: timer, x\r\n");
    assert_eq!(read(others.as_bytes(), List::Require).soften(), Some(Err(assist::OTHERS)));
}

#[test]
fn a_header_without_its_end_is_let_be_wherever_it_is_cut() {
    let text = invite("Supported: 100rel\r\nRequire: timer\r\n");
    let blank = text.find("\r\n\r\n").unwrap() + 2;
    for len in 0..blank {
        let (cut, list) = (&text.as_bytes()[..len], [List::Supported, List::Require]);
        assert_eq!(read(cut, list[0]).offer().ok(), None, "{len}");
        assert_eq!(read(cut, list[1]).soften().and_then(Result::ok), None, "{len}");
    }
}

#[test]
fn no_bytes_lead_outside_the_message() {
    let mut seed = 7_u32;
    for len in 0..600 {
        let bytes: Vec<u8> = (0..len)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b"Supported:, \r\n\tRequire:timerkxv"[(seed >> 16) as usize % 31]
            })
            .collect();
        for list in [List::Supported, List::Require] {
            let reading = read(&bytes, list);
            if let Ok(Edit::Line(at) | Edit::Item(at) | Edit::Only(at)) = reading.offer() {
                assert!(at < len, "{at} of {len}");
            }
            if let Some(Ok(Edit::Soften(at))) = reading.soften() {
                assert!(at + REQUIRE.len() as u32 <= len, "{at} of {len}");
            }
        }
    }
}

#[test]
fn what_is_inserted_adds_the_same_to_a_checksum_as_all_of_the_text_then_differs_by() {
    let total = |bytes: &[u8]| {
        let pairs = bytes.chunks(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
        let mut sum: u32 = pairs.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum
    };
    let text = b"an INVITE of any length, with an odd or even number of bytes";
    for len in 0..text.len() {
        for at in 0..=len {
            for what in [&LINE[..], &ITEM[..], &ONLY[..]] {
                let inserted = [&text[..at], what, &text[at..len]].concat();
                let mut expected = total(&text[..len]) + sum(what, at as u32);
                while expected > 0xffff {
                    expected = (expected & 0xffff) + (expected >> 16);
                }
                assert_eq!(total(&inserted), expected, "{len} {at}");
            }
        }
    }
}
