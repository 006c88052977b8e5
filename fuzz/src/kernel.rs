//! The kernel's scan beside the engine's scanner, and the arithmetic of the CSeq mapping.

use st_core::message::Message;
use st_ebpf::{
    abi::CAPTURE,
    cseq::{Close, RANGES, Range, State, close, from_wire, to_wire},
    key::DialogKey,
    scan::{MAX_STEPS, Scan, Span, Window, our_token, part, start},
};

use crate::input::Input;

/// One byte says which property, the rest is a message or a course of numbers.
pub fn kernel(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() & 3 {
        0 => numbers(input),
        _ => message(input.rest()),
    }
}

/// What both identify is the same dialog and the same number.
fn message(bytes: &[u8]) {
    let captured = &bytes[..bytes.len().min(CAPTURE)];
    let mut window = Window { bytes: [0; CAPTURE + 16] };
    window.bytes[..captured.len()].copy_from_slice(captured);
    start(&window);
    let all = part::VIA | part::FROM | part::TO | part::CALL_ID | part::CSEQ;
    let mut scan = Scan::default();
    scan.begin(bytes.len().min(u32::MAX as usize) as u32, all | part::RACK | part::EVENT);
    assert!((0..MAX_STEPS).any(|_| scan.step(&window)), "the scan did not end");
    for span in [scan.call_id, scan.from_tag, scan.to_tag, scan.branch, scan.cseq, scan.quoted] {
        assert!((span.at + span.len) as usize <= captured.len());
    }
    our_token(&window, scan.branch);
    let text = |span: Span| &window.bytes[span.at as usize..][..span.len as usize];
    if scan.found & part::CSEQ != 0 && scan.cseq.len <= 10 {
        let written = text(scan.cseq).iter().fold(0_u64, |sum, b| sum * 10 + u64::from(b.wrapping_sub(b'0')));
        assert_eq!(scan.number, written);
    }

    let Ok(core) = Message::scan(captured, bytes.len() > CAPTURE) else { return };
    let (Some(call_id), Some(from), Some(cseq)) = (core.call_id(), core.from().and_then(|from| from.tag), core.cseq())
    else {
        return;
    };
    if DialogKey::new([1, 2], call_id, from).is_none() {
        return;
    }
    let identified = part::CALL_ID | part::FROM | part::CSEQ;
    if scan.found & identified != identified || text(scan.call_id) != call_id || text(scan.from_tag) != from {
        // Another dialog's key or none: the kernel lets it pass as it is.
        return;
    }
    assert_eq!(scan.number, u64::from(cseq.number), "the same dialog, another number");
    assert!(scan.cseq_spaces >= u32::from(cseq.layout.spaces), "less room than the engine counts upon");
    assert_eq!(scan.cseq.len, u32::from(cseq.layout.digits), "another width");
}

/// The peer sees each number once and none that is lower; each of the server's keeps its place, there and back.
fn numbers(mut input: Input<'_>) {
    let mut state = State::default();
    let mut ranges = [Range::default(); RANGES];
    let mut next = match input.byte() {
        first @ ..200 => u32::from(first),
        _ => input.word() & 0x7fff_0000,
    };
    let mut placed: Vec<(u32, u32)> = Vec::new();
    let mut ours: Vec<u32> = Vec::new();
    let mut highest = None;
    while !input.is_empty() {
        let step = input.byte();
        if step & 3 == 0 {
            let number = next;
            next += 1 + u32::from(step >> 5);
            state = state.after_server(number);
            let wire = to_wire(&ranges, state.delta, number);
            assert!(highest.is_none_or(|highest| wire > highest), "{wire} after {highest:?}");
            highest = Some(wire);
            placed.push((number, wire));
        } else {
            match close(&ranges, state) {
                Close::Nothing => {}
                Close::Write { index, range } => ranges[index] = range,
                // The kernel turns such a request away while the oldest range is young.
                Close::Shift { .. } => continue,
            }
            if step & 3 == 1 {
                // It closed the range, and then lost its number.
                continue;
            }
            let wire = state.next_injected();
            state = state.after_injection();
            assert!(highest.is_none_or(|highest| wire > highest), "{wire} after {highest:?}");
            highest = Some(wire);
            if state.known {
                ours.push(wire);
            }
        }
        assert_eq!(State::from_word(state.to_word()), state);
        for &(number, wire) in &placed {
            assert_eq!(to_wire(&ranges, state.delta, number), wire);
            assert_eq!(from_wire(&ranges, state.delta, wire), Some(number));
        }
        for &wire in &ours {
            assert_eq!(from_wire(&ranges, state.delta, wire), None, "{wire} was ours");
        }
    }
}
