//! The scanner: whatever is cut off a message, the rest reads as before or not at all.

use st_core::message::{Body, HeaderName, MAX_LINES, Message, has_lr, route_uri};

use crate::input::Input;

/// Two bytes say where to cut, the rest is the message.
pub fn scanner(data: &[u8]) {
    let mut input = Input::new(data);
    let cut = usize::from(input.byte()) << 8 | usize::from(input.byte());
    let bytes = input.rest();
    let Ok(whole) = Message::scan(bytes, false) else { return };
    read(&whole, bytes);
    let cut = cut % (bytes.len() + 1);
    let Ok(part) = Message::scan(&bytes[..cut], true) else { return };
    read(&part, &bytes[..cut]);
    assert_eq!(part.start(), whole.start());
    for &name in HeaderName::ALL {
        let kept = part.lines(name).count();
        assert!(part.lines(name).eq(whole.lines(name).take(kept)), "{name:?} reads otherwise when cut at {cut}");
        if part.headers_complete() {
            assert_eq!(kept, whole.lines(name).count(), "{name:?}");
        }
    }
    match (part.body(), whole.body()) {
        (Body::Whole(kept), Body::Whole(all)) => assert_eq!(kept, all),
        (Body::None, all) => assert_eq!(all, Body::None),
        (Body::Whole(_), Body::None | Body::Cut) => panic!("a body that the whole message has not"),
        (Body::Cut, _) => {}
    }
}

/// Reads all that can be read.
fn read(message: &Message<'_>, bytes: &[u8]) {
    let mut lines = 0;
    for &name in HeaderName::ALL {
        lines += message.lines(name).count();
        for value in message.values(name) {
            let outer = [value.first(), value.last()];
            assert!(outer.iter().all(|byte| byte.is_some_and(|byte| !b" \t\r\n".contains(byte))), "{value:?}");
        }
        assert_eq!(message.spaces_before(name).is_some(), message.first(name).is_some());
    }
    assert!(lines <= MAX_LINES);
    for party in [message.from(), message.to()].into_iter().flatten() {
        assert!(party.value.len() >= party.name_addr.len() && party.name_addr.len() >= party.uri.len());
        assert!(party.tag.is_none_or(|tag| !tag.is_empty()));
    }
    for route in message.routes().chain(message.record_routes()) {
        assert!(route_uri(route).len() <= route.len());
        has_lr(route);
    }
    let vias = message.values(HeaderName::Via).count();
    assert!(message.top_via().is_none() || vias > 0);
    if let Some(cseq) = message.cseq() {
        assert!(cseq.number < 1 << 31 && cseq.layout.digits > 0);
    }
    if let Some(call_id) = message.call_id() {
        assert!(!call_id.is_empty());
    }
    if let Body::Whole(body) = message.body() {
        assert!(!body.is_empty() && body.len() <= bytes.len());
    }
    for option in [&b"timer"[..], b"100rel", b""] {
        let _ = (message.supports(option), message.requires(option), message.allows(option));
    }
    let _ = (message.session_expires(), message.min_se(), message.retry_after(), message.rack(), message.reliable());
    let _ = (message.contact(), message.content_type(), message.is_sdp(), message.challenges().count());
}
