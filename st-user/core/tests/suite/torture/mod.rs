//! The torture messages of RFC 4475, byte for byte: what the scanner, the engine and the kernel's scan make of each.

mod table;

use crate::{hostile::packet, sim::Sim};
use st_core::{
    Action, Direction, EventKind, Side,
    engine::Stats,
    message::{Body, HeaderName, Message, MethodName, Start},
};
use st_ebpf::{
    abi::CAPTURE,
    scan::{MAX_STEPS, Scan, Span, Window, part},
};
use table::{Fate, Kernel, MESSAGES, Torture};

/// What the engine and the kernel programs go by, in one line.
fn told(message: &Message<'_>) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let or_none = |value: Option<&[u8]>| value.map_or_else(|| "-".into(), text);
    let start = match message.start() {
        Start::Request { method_text, uri, .. } => format!("{} {}", text(method_text), text(uri)),
        Start::Response { status, reason } => format!("{status} {} bytes of reason", reason.len()),
    };
    let cseq = message.cseq().map_or_else(|| "-".into(), |cseq| format!("{} {}", cseq.number, cseq.method.name()));
    let body = match message.body() {
        Body::None => "none".into(),
        Body::Whole(bytes) => format!("{}", bytes.len()),
        Body::Cut => "cut".into(),
    };
    format!(
        "{start} | call {} | from {} | to {} | cseq {cseq} | branch {} of {} | contact {} | body {body}",
        or_none(message.call_id()),
        or_none(message.from().and_then(|from| from.tag)),
        or_none(message.to().and_then(|to| to.tag)),
        or_none(message.top_via().and_then(|via| via.branch)),
        message.values(HeaderName::Via).count(),
        or_none(message.contact().map(|contact| contact.uri)),
    )
}

/// The engine gets a message of that side's, as it stands.
fn feed(sim: &mut Sim, side: Side, bytes: &[u8]) {
    let direction = if side == Side::Server { Direction::Egress } else { Direction::Ingress };
    sim.engine.handle_packet(sim.now, &packet(direction, bytes, false));
    sim.settle();
}

/// A 200 to it, with the headers that it has.
fn ok_to(message: &Message<'_>) -> Vec<u8> {
    let via = message.top_via().map_or(&b"SIP/2.0/UDP nowhere"[..], |via| via.value);
    let line = |name: &[u8], value: &[u8]| [name, b": ", value, b"\r\n"].concat();
    let [from, to] = [message.from(), message.to()].map(|party| party.map_or(&b""[..], |party| party.value));
    let tag: &[u8] = if message.to().is_some_and(|to| to.tag.is_some()) { b"" } else { b";tag=callee" };
    let number = message.cseq().map_or_else(String::new, |cseq| format!("{} {}", cseq.number, cseq.method.name()));
    [
        b"SIP/2.0 200 OK\r\n".to_vec(),
        line(b"Via", via),
        line(b"From", from),
        line(b"To", &[to, tag].concat()),
        line(b"Call-ID", message.call_id().unwrap_or_default()),
        line(b"CSeq", number.as_bytes()),
        line(b"Session-Expires", b"90;refresher=uac"),
        b"\r\n".to_vec(),
    ]
    .concat()
}

/// How an engine that knew nothing counts it.
fn fate(stats: &Stats) -> Fate {
    match *stats {
        Stats { unparsable: 1, messages: 0, .. } => Fate::Unparsable,
        Stats { messages: 1, unidentified: 1, .. } => Fate::Unidentified,
        Stats { messages: 1, unknown_dialog: 1, .. } => Fate::UnknownDialog,
        Stats { messages: 1, strangers: 1, .. } => Fate::Invite,
        Stats { messages: 1, .. } => Fate::Passed,
        _ => panic!("counted otherwise: {stats:?}"),
    }
}

#[test]
fn the_scanner_reads_each_as_the_table_says() {
    for Torture { name, odd, bytes, read, .. } in MESSAGES {
        let found = Message::scan(bytes, false).map(|message| told(&message));
        assert_eq!(found.as_deref().map_err(|error| *error), *read, "{name}: {odd}");
    }
}

#[test]
fn the_engine_counts_each_and_makes_a_dialog_only_of_what_can_be_one() {
    for Torture { name, odd, bytes, fate: expected, dialog, .. } in MESSAGES {
        let mut sim = Sim::new(Action::Refresh);
        feed(&mut sim, Side::Peer, bytes);
        assert_eq!(fate(&sim.engine.stats()), *expected, "{name}: {odd}");
        assert_eq!(sim.events, [], "{name}");
        if let Ok(message) = Message::scan(bytes, false) {
            feed(&mut sim, Side::Server, &ok_to(&message));
        }
        assert_eq!(sim.count(EventKind::SessionStarted) == 1, *dialog, "{name}: {odd}");
        sim.secs(300);
        assert_eq!(sim.ours().len(), 0, "{name}: nothing is sent in a call that nobody ACKed");
    }
}

#[test]
fn none_of_them_disturbs_a_call_that_is_up_whoever_sends_it() {
    for side in [Side::Server, Side::Peer] {
        for Torture { name, bytes, .. } in MESSAGES {
            let mut sim = Sim::new(Action::Refresh);
            let mut call = sim.call("a", Side::Server, "Session-Expires: 90;refresher=uac\r\n");
            feed(&mut sim, side, bytes);
            sim.secs(46);
            assert_eq!(sim.methods(), [MethodName::Update], "{name}");
            sim.hang_up(&mut call);
            sim.assert_numbers();
        }
    }
}

#[test]
fn all_of_them_at_once_and_cut_anywhere_are_survived() {
    let mut sim = Sim::new(Action::Refresh);
    for Torture { bytes, .. } in MESSAGES {
        for side in [Side::Server, Side::Peer] {
            feed(&mut sim, side, bytes);
            for end in (0..bytes.len()).step_by(7) {
                feed(&mut sim, side, &bytes[..end]);
            }
        }
    }
    let stats = sim.engine.stats();
    let fed: u64 = MESSAGES.iter().map(|message| 2 * (1 + message.bytes.len().div_ceil(7) as u64)).sum();
    assert_eq!(stats.messages + stats.unparsable, fed);
    assert_eq!(stats.sessions, 0);
}

#[test]
fn the_kernels_scan_agrees_or_finds_nothing_to_touch() {
    for Torture { name, odd, bytes, kernel, .. } in MESSAGES {
        let mut window = Window { bytes: [0; CAPTURE + 16] };
        window.bytes[..bytes.len()].copy_from_slice(bytes);
        let mut scan = Scan::default();
        scan.begin(bytes.len() as u32, part::VIA | part::FROM | part::TO | part::CALL_ID | part::CSEQ);
        assert!((0..MAX_STEPS).any(|_| scan.step(&window)), "{name}: the scan did not end");
        let needed = part::CALL_ID | part::FROM | part::CSEQ;
        let found = if scan.found & needed == needed { Kernel::Agrees } else { Kernel::Untouched };
        assert_eq!(found, *kernel, "{name}: {odd}");
        if found == Kernel::Untouched {
            continue;
        }
        let text = |span: Span| Some(&window.bytes[span.at as usize..][..span.len as usize]);
        let Ok(message) = Message::scan(bytes, false) else { continue };
        assert_eq!(message.call_id(), text(scan.call_id), "{name}");
        assert_eq!(message.from().and_then(|from| from.tag), text(scan.from_tag), "{name}");
        let to = message.to().and_then(|to| to.tag);
        assert_eq!(to, text(scan.to_tag).filter(|tag| !tag.is_empty()), "{name}");
        assert_eq!(message.cseq().map(|cseq| u64::from(cseq.number)), Some(scan.number), "{name}");
    }
}
