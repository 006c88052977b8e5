//! The kernel's scan and the engine's scanner come to the same identifiers and the same room for numbers: else a dialog
//! would be armed under a key that `st_egress` never looks up.

use proptest::prelude::*;
use st_core::message::Message;
use st_ebpf::{
    abi::CAPTURE,
    key::DialogKey,
    scan::{MAX_STEPS, Scan, Span, Window, part},
};

fn kernel(message: &[u8]) -> (Scan, Window) {
    let mut window = Window { bytes: [0; CAPTURE + 16] };
    window.bytes[..message.len()].copy_from_slice(message);
    let mut scan = Scan::default();
    scan.begin(message.len() as u32, part::VIA | part::FROM | part::TO | part::CALL_ID | part::CSEQ);
    assert!((0..MAX_STEPS).any(|_| scan.step(&window)), "the scan did not end");
    (scan, window)
}

fn bytes(window: &Window, span: Span) -> &[u8] {
    &window.bytes[span.at as usize..][..span.len as usize]
}

fn check(message: &[u8]) -> Result<(), TestCaseError> {
    let Ok(core) = Message::scan(message, false) else { return Ok(()) };
    let (Some(call_id), Some(tag)) = (core.call_id(), core.from().and_then(|from| from.tag)) else { return Ok(()) };
    let Some(cseq) = core.cseq() else { return Ok(()) };
    if DialogKey::new([1, 2], call_id, tag).is_none() {
        return Ok(());
    }
    let (scan, window) = kernel(message);
    prop_assert_eq!(bytes(&window, scan.call_id), call_id);
    prop_assert_eq!(bytes(&window, scan.from_tag), tag);
    prop_assert_eq!(scan.number, u64::from(cseq.number));
    prop_assert!(scan.found & part::CSEQ != 0);
    prop_assert!(scan.cseq_spaces >= u32::from(cseq.layout.spaces));
    prop_assert_eq!(scan.to_tag.len > 0, core.to().is_some_and(|to| to.tag.is_some()));
    let branch = core.top_via().and_then(|via| via.branch).unwrap_or_default();
    prop_assert_eq!(bytes(&window, scan.branch), branch);
    Ok(())
}

fn name(long: &'static str, short: &'static str) -> impl Strategy<Value = String> {
    let spelled = prop_oneof![
        Just(long.to_owned()),
        Just(short.to_owned()),
        Just(long.to_uppercase()),
        Just(long.to_lowercase())
    ];
    (spelled, prop_oneof![3 => Just(""), 1 => Just(" "), 1 => Just("\t ")])
        .prop_map(|(name, blank)| format!("{name}{blank}:"))
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(" "), 2 => Just(""), 1 => Just("  "), 1 => Just("\t"), 1 => Just("\r\n "), 1 => Just("\r\n\t ")]
}

fn token() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9.!%*_+`'~-]{1,24}"
}

fn party() -> impl Strategy<Value = String> {
    let display = prop_oneof![
        Just(""),
        Just("Bob "),
        Just("\"Bob\" "),
        Just("\";tag=no\" "),
        Just("\"a\\\";tag=no\" "),
        Just("\"<sip:x>;tag=no\""),
    ];
    let before = prop_oneof![Just(""), Just(";x=1"), Just(";stag=no"), Just(";tagx=1"), Just(";flag")];
    let after = prop_oneof![Just(""), Just(";y=2"), Just(" ;z")];
    (display, token(), prop_oneof![Just(""), Just(";tag=no"), Just(";lr")], before, blank(), token(), after).prop_map(
        |(display, user, inside, before, blank, tag, after)| {
            format!("{display}<sip:{user}@h{inside}>{before}{blank};tag={tag}{after}")
        },
    )
}

prop_compose! {
    fn message()(
        via in (name("Via", "v"), blank(), token(),
            prop_oneof![Just(""), Just(";rport"), Just(", SIP/2.0/UDP second;branch=z9hG4bKx")]),
        from in (name("From", "f"), blank(), party()),
        to in (name("To", "t"), blank(), party()),
        call_id in (name("Call-ID", "i"), blank(), token(), prop_oneof![Just(""), Just("@host"), Just(" ")]),
        cseq in (name("CSeq", "cseq"), blank(), 0..=i32::MAX, prop_oneof![Just(" "), Just("  "), Just("\r\n ")]),
        other in prop_oneof![Just(""), Just("X-To: a;tag=no\r\n"), Just("Subject: a\r\n b\r\n"),
            Just("Tolls: x;tag=no\r\n"), Just("C:x\r\n")],
        newline in prop_oneof![3 => Just("\r\n"), 1 => Just("\n")],
        order in Just([0, 1, 2, 3, 4, 5]).prop_shuffle(),
    ) -> Vec<u8> {
        let lines = [
            format!("{}{}SIP/2.0/UDP h;branch=z9hG4bK{}{}\r\n", via.0, via.1, via.2, via.3),
            format!("{}{}{}\r\n", from.0, from.1, from.2),
            format!("{}{}{}\r\n", to.0, to.1, to.2),
            format!("{}{}{}{}\r\n", call_id.0, call_id.1, call_id.2, call_id.3),
            format!("{}{}{}{}BYE\r\n", cseq.0, cseq.1, cseq.2, cseq.3),
            other.to_owned(),
        ];
        let mut text = String::from("BYE sip:a SIP/2.0\r\n");
        for index in order {
            text.push_str(&lines[index]);
        }
        text.push_str("\r\n");
        text.replace("\r\n", newline).into_bytes()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn well_formed_messages_are_read_alike(message in message()) {
        check(&message)?;
    }
}
