//! The grammar of single headers, each against a plainer reading of the same value, and what is built from them.

use st_core::{
    Credentials,
    build::{Path, REPEATED, Refresh, Template, own_headers, reinvite, update},
    digest,
    message::{Body, Elements, HeaderFault, HeaderName, Message, MethodName, Role, SessionExpires, Uri},
};

use crate::input::Input;

/// One byte says which header, the rest is its value.
pub fn headers(data: &[u8]) {
    let mut input = Input::new(data);
    let name = input.pick(HeaderName::ALL);
    // A line end inside makes a fold.
    let value = input.rest().split(|&b| b == b'\n').collect::<Vec<_>>().join(&b"\n "[..]);
    if value.len() > 8_192 {
        return;
    }
    let bytes = [b"INVITE sip:a SIP/2.0\r\n", name.name().as_bytes(), b":", &value, b"\r\n\r\n"].concat();
    let Ok(message) = Message::scan(&bytes, false) else { panic!("a plain request line") };
    let Some(value) = message.first(name) else { panic!("its only header") };
    assert_eq!(value, trim(value));
    elements(value);
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others have no grammar that is read")]
    match name {
        HeaderName::SessionExpires => session_expires(&message, value),
        HeaderName::MinSe => {
            assert!(message.min_se().is_none_or(|least| digits_of(value).any(|n| n == u64::from(least))))
        }
        HeaderName::CSeq => cseq(&message, value),
        HeaderName::RAck => {
            let numbers: Vec<_> = digits_of(value).collect();
            assert!(message.rack().is_none_or(|rack| numbers[..2] == [rack.rseq.into(), rack.number.into()]));
        }
        HeaderName::RetryAfter => {
            let said = digits_of(value).next().map(|seconds| seconds.min(u32::MAX.into()));
            assert!(message.retry_after().is_none_or(|seconds| said == Some(seconds.into())));
        }
        HeaderName::Via => via(&message, value),
        HeaderName::Contact => {
            if let Some(contact) = message.contact() {
                uri(contact.uri);
            }
        }
        HeaderName::WwwAuthenticate | HeaderName::ProxyAuthenticate => challenge(&message),
        HeaderName::ContentLength => assert!(!matches!(message.body(), Body::Whole(_)), "there is no body"),
        _ => {}
    }
    built(&message, value);
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn trim(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|&b| !is_blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|&b| !is_blank(b)).map_or(start, |at| at + 1);
    &value[start..end]
}

/// The runs of digits in a value, as far as they fit.
fn digits_of(value: &[u8]) -> impl Iterator<Item = u64> {
    value
        .split(|b| !b.is_ascii_digit())
        .filter(|run| !run.is_empty())
        .map(|run| run.iter().fold(0_u64, |sum, b| sum.saturating_mul(10).saturating_add(u64::from(b - b'0'))))
}

/// Commas part elements, and nothing is lost between them but blanks and commas.
fn elements(value: &[u8]) {
    let commas = value.iter().filter(|&&b| b == b',').count();
    let found: Vec<_> = Elements::new(value).collect();
    assert!(found.len() <= commas + 1);
    let kept: usize = found.iter().map(|element| element.len()).sum();
    let parting = value.iter().filter(|&&b| b == b',' || is_blank(b)).count();
    assert!(kept <= value.len() && value.len() - kept <= parting);
    if !value.iter().any(|b| b"\"<".contains(b)) {
        let plain = value.split(|&b| b == b',').map(trim).filter(|element| !element.is_empty());
        assert!(found.iter().copied().eq(plain));
    }
}

/// Where no quotes and brackets complicate it: `seconds *(";" name ["=" value])`.
fn session_expires(message: &Message<'_>, value: &[u8]) {
    let Some(found) = message.session_expires() else { panic!("it is there") };
    if value.iter().any(|b| b"\"<,".contains(b)) {
        return;
    }
    let mut parts = value.split(|&b| b == b';');
    let seconds = parts.next().map(trim).and_then(|text| {
        let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        let sum =
            text.iter().fold(0_u64, |sum, b| sum.saturating_mul(10).saturating_add(u64::from(b.wrapping_sub(b'0'))));
        u32::try_from(sum).ok().filter(|_| digits)
    });
    let roles: Vec<_> = parts
        .filter_map(|part| {
            let mut halves = part.splitn(2, |&b| b == b'=');
            let name = halves.next().map(trim)?;
            let value = trim(halves.next().unwrap_or_default()).to_ascii_lowercase();
            name.eq_ignore_ascii_case(b"refresher").then_some(value)
        })
        .collect();
    let expected = match (seconds, &roles[..]) {
        (None, _) => Err(HeaderFault::Seconds),
        (Some(interval_s), []) => Ok(SessionExpires { interval_s, refresher: None }),
        (Some(interval_s), [first, rest @ ..]) if rest.iter().all(|other| other == first) => match &first[..] {
            b"uac" => Ok(SessionExpires { interval_s, refresher: Some(Role::Uac) }),
            b"uas" => Ok(SessionExpires { interval_s, refresher: Some(Role::Uas) }),
            _ => Err(HeaderFault::Refresher),
        },
        (Some(_), _) => Err(HeaderFault::Refresher),
    };
    assert_eq!(found, expected, "{}", value.escape_ascii());
}

fn cseq(message: &Message<'_>, value: &[u8]) {
    let Some(cseq) = message.cseq() else { return };
    assert_eq!(digits_of(value).next(), Some(cseq.number.into()));
    assert!(cseq.number < 1 << 31 && value.first().is_some_and(u8::is_ascii_digit));
    let word = value.split(|&b| is_blank(b)).next_back().unwrap_or_default();
    assert!(cseq.method == MethodName::Other || word == cseq.method.name().as_bytes());
}

fn via(message: &Message<'_>, value: &[u8]) {
    let Some(via) = message.top_via() else { return };
    assert!(!via.sent_by.is_empty() && message.values(HeaderName::Via).count() >= 1);
    assert!(via.value.len() <= value.len());
    if let Some(token) = via.our_token() {
        let branch = via.branch.unwrap_or_default();
        assert_eq!(branch, format!("z9hG4bKsipst{token:016x}").as_bytes());
    }
}

fn uri(uri: &[u8]) {
    let Some(parsed) = Uri::parse(uri) else { return };
    assert!(!parsed.host.is_empty());
    let _ = (parsed.param(b"lr"), parsed.param(b"transport"));
}

/// An answer to a challenge has no line end, and its quotes are closed.
fn challenge(message: &Message<'_>) {
    let user = Credentials { username: "u\"\\".into(), password: "p".into() };
    let request = digest::Request { method: MethodName::Update, uri: b"sip:a@b", cnonce: "c" };
    for challenge in message.challenges() {
        let Ok(answer) = digest::answer(&challenge, &request, &user) else { continue };
        assert!(!answer.value().iter().any(u8::is_ascii_control));
        let (mut quoted, mut escaped) = (false, false);
        for &byte in answer.value() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
        }
        assert!(!quoted && !escaped, "{}", answer.value().escape_ascii());
    }
}

/// A value that goes into a message of ours adds no line to it, and leaves the others as they are.
fn built(message: &Message<'_>, value: &[u8]) {
    let target = message.contact().map_or(value, |contact| contact.uri);
    let path = Path::new(target, message.record_routes());
    let own: Vec<_> = own_headers(message).collect();
    let template = Template {
        path: &path,
        transport: st_core::Transport::Udp,
        sent_by: message.top_via().map_or(b"192.0.2.1", |via| via.sent_by),
        from: b"<sip:a@b>;tag=1",
        to: message.to().map_or(b"<sip:c@d>;tag=2", |to| to.value),
        call_id: b"call",
        contact: message.contact().map(|contact| contact.value),
        own: &own,
    };
    let refresh = Refresh { cseq: 7, token: 0xab, interval_s: 90, refreshes: true, min_se: Some(90), answers: &[] };
    for (bytes, body) in [
        (update(&template, &refresh), &b""[..]),
        (reinvite(&template, &refresh, message.content_type().unwrap_or(b"application/sdp"), b"v=0\r\n"), b"v=0\r\n"),
    ] {
        let Some(head) = bytes.strip_suffix(body) else { panic!("the body comes last") };
        let lines = head.split(|&b| b == b'\n').count();
        // The request line, eight headers or nine, the blank line and what is behind it; Supported may be among them.
        let fixed = 1 + 5 + 1 + 2 + 1 + usize::from(!body.is_empty()) + 2;
        let routes = path.routes.len() + usize::from(template.contact.is_some());
        let repeated = own.iter().filter(|(name, _)| REPEATED.contains(name) && *name != HeaderName::Supported).count();
        let supported = own.iter().filter(|(name, _)| *name == HeaderName::Supported).count().max(1);
        assert_eq!(lines, fixed + routes + repeated + supported, "{}", bytes.escape_ascii());
        let Ok(again) = Message::scan(&bytes, false) else { continue };
        assert_eq!(again.call_id(), Some(&b"call"[..]));
        assert_eq!(again.cseq().map(|cseq| cseq.number), Some(7));
        assert_eq!(again.from().and_then(|from| from.tag), Some(&b"1"[..]));
        assert_eq!(again.session_expires(), Some(Ok(SessionExpires { interval_s: 90, refresher: Some(Role::Uac) })));
        assert!(again.supports(b"timer") || own.iter().any(|(name, _)| *name == HeaderName::Supported));
        assert_eq!(again.body(), if body.is_empty() { Body::None } else { Body::Whole(body) });
    }
}
