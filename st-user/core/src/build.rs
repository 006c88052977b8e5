//! Messages in the server's name: refreshes, and the ACK and CANCEL that belong to them (R18-R25, R32, R33); and those in the
//! peer's that tell the server of its media (F9).
//!
//! All values are the server's or the peer's own, as [`crate::message`] read them, byte for byte and whatever their
//! encoding; line ends of folds become spaces, so that no value can add a line.

use serde::{Deserialize, Serialize};
use st_ebpf::abi::{BRANCH_PREFIX, PEER_BRANCH_PREFIX};

use crate::{
    Side,
    digest::Answer,
    message::{HeaderName, Message, MethodName, Role, Start, Transport, Uri, route_uri},
};

/// The Max-Forwards of what is built here (RFC 3261, section 8.1.1.6).
pub const MAX_FORWARDS: u32 = 70;

/// The server's own headers that a refresh repeats, so that the peer's picture of it does not change.
pub const REPEATED: [HeaderName; 7] = [
    HeaderName::Allow,
    HeaderName::Supported,
    HeaderName::UserAgent,
    HeaderName::PAssertedIdentity,
    HeaderName::PPreferredIdentity,
    HeaderName::Privacy,
    HeaderName::SessionId,
];

/// The option tag of RFC 4028.
const TIMER: &[u8] = b"timer";

/// That of RFC 3262: whoever lists it in an INVITE owes each reliable provisional response a PRACK, which sipst does not send.
const RELIABLE: &[u8] = b"100rel";

/// The headers of [`REPEATED`] in one of the server's own messages, a line each, in order.
pub fn own_headers<'a, 'm>(
    message: &'m Message<'a>,
) -> impl Iterator<Item = (HeaderName, &'a [u8])> + Clone + use<'a, 'm> {
    REPEATED.iter().flat_map(|&name| message.lines(name).map(move |value| (name, value)))
}

/// Where a request within a dialog goes: Request-URI and Route elements, as they stand on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The Request-URI.
    #[serde(with = "serde_bytes")]
    pub uri: Vec<u8>,
    /// The Route elements, in order.
    #[serde(with = "lists")]
    pub routes: Vec<Vec<u8>>,
}

/// Lists of bytes in records, as serde has them, but not byte by byte.
pub(crate) mod lists {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use serde_bytes::{ByteBuf, Bytes};

    pub(crate) fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|bytes| Bytes::new(bytes)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let list = Vec::<ByteBuf>::deserialize(deserializer)?;
        Ok(list.into_iter().map(ByteBuf::into_vec).collect())
    }
}

impl Path {
    /// From the remote target's URI and the route set in the order in which it is travelled (R23; RFC 3261, section
    /// 12.2.1.1). Where the first route is a strict router's, it becomes the Request-URI and the target the last route.
    pub fn new<'r>(target: &[u8], route_set: impl IntoIterator<Item = &'r [u8]>) -> Self {
        let mut routes: Vec<Vec<u8>> = route_set.into_iter().map(<[u8]>::to_vec).collect();
        let strict = routes.first().and_then(|first| {
            let uri = route_uri(first);
            Uri::parse(uri)?.param(b"lr").is_none().then(|| without_headers(uri).to_vec())
        });
        match strict {
            Some(uri) => {
                routes.remove(0);
                routes.push([b"<", target, b">"].concat());
                Self { uri, routes }
            }
            None => Self { uri: target.to_vec(), routes },
        }
    }

    /// The way that the server's own request takes; `None` for a response.
    pub fn of(request: &Message<'_>) -> Option<Self> {
        let uri = request.request_uri()?.to_vec();
        Some(Self { uri, routes: request.routes().map(<[u8]>::to_vec).collect() })
    }
}

/// A URI without its headers, which a Request-URI must not have.
fn without_headers(uri: &[u8]) -> &[u8] {
    let host_at = uri.iter().position(|&b| b == b'@').unwrap_or(0);
    let end = uri[host_at..].iter().position(|&b| b == b'?').map_or(uri.len(), |at| host_at + at);
    &uri[..end]
}

/// What all requests within one dialog have in common, in the server's orientation.
#[derive(Clone, Copy, Debug)]
pub struct Template<'a> {
    /// Where it goes.
    pub path: &'a Path,
    /// By what it goes.
    pub transport: Transport,
    /// The server's sent-by, as in its own Vias: host, or host and port.
    pub sent_by: &'a [u8],
    /// The value of the server's From, with its tag.
    pub from: &'a [u8],
    /// The value of its To, with the peer's tag.
    pub to: &'a [u8],
    /// The Call-ID.
    pub call_id: &'a [u8],
    /// The value of the Contact that the server last used, if it did.
    pub contact: Option<&'a [u8]>,
    /// What [`own_headers`] gave for its last INVITE or 2xx.
    pub own: &'a [(HeaderName, &'a [u8])],
}

/// What one refresh has of its own.
#[derive(Clone, Copy, Debug)]
pub struct Refresh<'a> {
    /// The CSeq number on the wire.
    pub cseq: u32,
    /// The token in the Via branch.
    pub token: u64,
    /// The Session-Expires in seconds.
    pub interval_s: u32,
    /// Whether the sender is to be the refresher. Else nothing is said of that, and `timer` is not listed: whoever answers can only
    /// name itself (table 2).
    pub refreshes: bool,
    /// The Min-SE in seconds.
    pub min_se: Option<u32>,
    /// Answers to challenges.
    pub answers: &'a [Answer],
}

/// An UPDATE without a body (RFC 3311; R21).
pub fn update(template: &Template<'_>, refresh: &Refresh<'_>) -> Vec<u8> {
    let mut out = refresh_head(template, refresh, MethodName::Update);
    out.body(None, &[]);
    out.bytes
}

/// A re-INVITE that offers `sdp`, byte for byte (R22).
pub fn reinvite(template: &Template<'_>, refresh: &Refresh<'_>, content_type: &[u8], sdp: &[u8]) -> Vec<u8> {
    let mut out = refresh_head(template, refresh, MethodName::Invite);
    out.body(Some(content_type), sdp);
    out.bytes
}

/// The ACK to a 2xx (R32): the INVITE's number and credentials, a branch of its own.
pub fn ack_2xx(template: &Template<'_>, cseq: u32, token: u64, answers: &[Answer]) -> Vec<u8> {
    let mut out = head(template, &BRANCH_PREFIX, cseq, token, MethodName::Ack);
    out.answers(answers);
    out.body(None, &[]);
    out.bytes
}

/// A re-INVITE in the peer's name, whose orientation `template` has, that offers `sdp`, byte for byte. Of session timers it speaks
/// only where there is an interval in seconds: the server stays the refresher.
pub fn peers_reinvite(template: &Template<'_>, cseq: u32, token: u64, interval_s: Option<u32>, sdp: &[u8]) -> Vec<u8> {
    let mut out = head(template, &PEER_BRANCH_PREFIX, cseq, token, MethodName::Invite);
    if let Some(contact) = template.contact {
        out.line(HeaderName::Contact, contact);
    }
    if let Some(interval_s) = interval_s {
        out.line(HeaderName::Supported, TIMER);
        out.line(HeaderName::SessionExpires, format!("{interval_s};refresher=uas").as_bytes());
    }
    out.body(Some(b"application/sdp"), sdp);
    out.bytes
}

/// The ACK to its 2xx.
pub fn peers_ack_2xx(template: &Template<'_>, cseq: u32, token: u64) -> Vec<u8> {
    let mut out = head(template, &PEER_BRANCH_PREFIX, cseq, token, MethodName::Ack);
    out.body(None, &[]);
    out.bytes
}

/// A BYE (RFC 3261, section 15.1.1), in the name of the side whose orientation `template` has, that says why (RFC 3326).
pub fn bye(template: &Template<'_>, whose: Side, cseq: u32, token: u64, cause: &[u8], answers: &[Answer]) -> Vec<u8> {
    let prefix = match whose {
        Side::Server => &BRANCH_PREFIX,
        Side::Peer => &PEER_BRANCH_PREFIX,
    };
    let mut out = head(template, prefix, cseq, token, MethodName::Bye);
    let says_what_it_can = |name| matches!(name, HeaderName::Allow | HeaderName::Supported);
    template.own.iter().filter(|(name, _)| !says_what_it_can(*name)).for_each(|&(name, value)| out.line(name, value));
    out.line(HeaderName::Reason, cause);
    out.answers(answers);
    out.body(None, &[]);
    out.bytes
}

/// The ACK to another final response (R33) to `invite`, a re-INVITE that was built here; `to` is the value of the
/// response's To. `None` where `invite` is no INVITE.
pub fn ack_failure(invite: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    hop_by_hop(invite, MethodName::Ack, Some(to), None)
}

/// The ACK to the server's refusal (R33) of `invite`, a re-INVITE of the peer's, in the peer's name; `to` is the value of the
/// refusal's To, `number` that of its CSeq. `None` where `invite` is no INVITE.
pub fn peers_ack_failure(invite: &[u8], to: &[u8], number: u32) -> Option<Vec<u8>> {
    hop_by_hop(invite, MethodName::Ack, Some(to), Some(number))
}

/// A 2xx in the server's name to a refresh of the peer's.
#[derive(Clone, Copy, Debug)]
pub struct Accept<'a> {
    /// The value of the Contact that the server last used, if it did.
    pub contact: Option<&'a [u8]>,
    /// What [`own_headers`] gave for its last INVITE or 2xx.
    pub own: &'a [(HeaderName, &'a [u8])],
    /// The Session-Expires in seconds.
    pub interval_s: u32,
    /// Its refresher.
    pub role: Role,
    /// Whether it requires `timer` (R10).
    pub require: bool,
    /// Content-Type and session description.
    pub body: Option<(&'a [u8], &'a [u8])>,
}

/// The 200 to `request`, a refresh of the peer's, in place of `refusal`, the server's own answer, whose headers it takes over as they
/// are: so it goes the same way, and has the number that the server knows. `None` where one of them lacks something.
pub fn accept(request: &Message<'_>, refusal: &Message<'_>, accept: &Accept<'_>) -> Option<Vec<u8>> {
    let &Accept { contact, own, interval_s, role, require, body } = accept;
    let mut out = Writer::answer(refusal, "200 OK", request)?;
    if let Some(contact) = contact {
        out.line(HeaderName::Contact, contact);
    }
    // Those that belong to requests alone are left out.
    let requests = [HeaderName::Supported, HeaderName::UserAgent, HeaderName::PPreferredIdentity];
    own.iter().filter(|(name, _)| !requests.contains(name)).for_each(|&(name, value)| out.line(name, value));
    out.supported(own, request.request_method()?, true);
    if require {
        out.line(HeaderName::Require, TIMER);
    }
    let role = match role {
        Role::Uac => "uac",
        Role::Uas => "uas",
    };
    out.line(HeaderName::SessionExpires, format!("{interval_s};refresher={role}").as_bytes());
    match body {
        Some((content_type, body)) => out.body(Some(content_type), body),
        None => out.body(None, &[]),
    }
    Some(out.bytes)
}

/// A 491, or a 500 with Retry-After in seconds (R29), in place of the server's own `refusal`.
pub fn decline(refusal: &Message<'_>, status: u16, retry_after: Option<u32>) -> Option<Vec<u8>> {
    let line = if status == 491 { "491 Request Pending" } else { "500 Server Internal Error" };
    let mut out = Writer::answer(refusal, line, refusal)?;
    if let Some(seconds) = retry_after {
        out.number(HeaderName::RetryAfter, seconds);
    }
    out.body(None, &[]);
    Some(out.bytes)
}

/// The CANCEL (RFC 3261, section 9.1) of `invite`, a re-INVITE that was built here. `None` where it is no INVITE.
pub fn cancel(invite: &[u8]) -> Option<Vec<u8>> {
    hop_by_hop(invite, MethodName::Cancel, None, None)
}

/// A request of the same transaction as `invite`: its Request-URI, topmost Via, routes and, unless told otherwise, number.
fn hop_by_hop(invite: &[u8], method: MethodName, to: Option<&[u8]>, number: Option<u32>) -> Option<Vec<u8>> {
    let invite = Message::scan(invite, false).ok()?;
    let Start::Request { method: MethodName::Invite, uri, .. } = invite.start() else { return None };
    let to = to.or_else(|| invite.first(HeaderName::To))?;
    let mut out = Writer::new(method, uri);
    out.line(HeaderName::Via, invite.top_via()?.value);
    out.number(HeaderName::MaxForwards, MAX_FORWARDS);
    invite.routes().for_each(|route| out.line(HeaderName::Route, route));
    out.line(HeaderName::From, invite.first(HeaderName::From)?);
    out.line(HeaderName::To, to);
    out.line(HeaderName::CallId, invite.call_id()?);
    out.cseq(number.unwrap_or(invite.cseq()?.number), method);
    out.body(None, &[]);
    Some(out.bytes)
}

fn head(template: &Template<'_>, prefix: &[u8], cseq: u32, token: u64, method: MethodName) -> Writer {
    let mut out = Writer::new(method, &template.path.uri);
    let branch = [prefix, format!("{token:016x}").as_bytes()].concat();
    let via: &[u8] = if template.transport == Transport::Tcp { b"SIP/2.0/TCP " } else { b"SIP/2.0/UDP " };
    out.line(HeaderName::Via, &[via, template.sent_by, b";rport;branch=", &branch].concat());
    out.number(HeaderName::MaxForwards, MAX_FORWARDS);
    template.path.routes.iter().for_each(|route| out.line(HeaderName::Route, route));
    out.line(HeaderName::From, template.from);
    out.line(HeaderName::To, template.to);
    out.line(HeaderName::CallId, template.call_id);
    out.cseq(cseq, method);
    out
}

fn refresh_head(template: &Template<'_>, refresh: &Refresh<'_>, method: MethodName) -> Writer {
    let mut out = head(template, &BRANCH_PREFIX, refresh.cseq, refresh.token, method);
    if let Some(contact) = template.contact {
        out.line(HeaderName::Contact, contact);
    }
    template.own.iter().filter(|(name, _)| *name != HeaderName::Supported).for_each(|&(name, value)| {
        out.line(name, value);
    });
    out.supported(template.own, method, refresh.refreshes);
    // R14, R19
    let role = if refresh.refreshes { ";refresher=uac" } else { "" };
    out.line(HeaderName::SessionExpires, format!("{}{role}", refresh.interval_s).as_bytes());
    if let Some(min_se) = refresh.min_se {
        out.number(HeaderName::MinSe, min_se);
    }
    out.answers(refresh.answers);
    out
}

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn new(method: MethodName, uri: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(method.name().as_bytes());
        bytes.push(b' ');
        // A blank inside would end the Request-URI.
        bytes.extend(uri.iter().filter(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n')));
        bytes.extend_from_slice(b" SIP/2.0\r\n");
        Self { bytes }
    }

    /// A response with another status than `refusal`, and the Record-Route of `routed`.
    fn answer(refusal: &Message<'_>, status: &str, routed: &Message<'_>) -> Option<Self> {
        let mut out = Self { bytes: format!("SIP/2.0 {status}\r\n").into_bytes() };
        refusal.lines(HeaderName::Via).for_each(|via| out.line(HeaderName::Via, via));
        routed.lines(HeaderName::RecordRoute).for_each(|route| out.line(HeaderName::RecordRoute, route));
        for name in [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
            out.line(name, refusal.first(name)?);
        }
        Some(out)
    }

    fn line(&mut self, name: HeaderName, value: &[u8]) {
        self.bytes.extend_from_slice(name.name().as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend(value.iter().map(|&b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }));
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn number(&mut self, name: HeaderName, number: u32) {
        self.line(name, number.to_string().as_bytes());
    }

    fn cseq(&mut self, number: u32, method: MethodName) {
        self.line(HeaderName::CSeq, format!("{number} {}", method.name()).as_bytes());
    }

    fn answers(&mut self, answers: &[Answer]) {
        answers.iter().for_each(|answer| self.line(answer.header(), answer.value()));
    }

    /// The server's own Supported lines, with `timer` or without (R19); without `100rel` in an INVITE.
    fn supported(&mut self, own: &[(HeaderName, &[u8])], method: MethodName, timer: bool) {
        let lines = || own.iter().filter(|(name, _)| *name == HeaderName::Supported).map(|&(_, value)| value);
        let has =
            |value, tag: &[u8]| crate::message::Elements::new(value).any(|option| option.eq_ignore_ascii_case(tag));
        let drops = |option: &[u8]| {
            (method == MethodName::Invite && option.eq_ignore_ascii_case(RELIABLE))
                || (!timer && option.eq_ignore_ascii_case(TIMER))
        };
        let add = timer && !lines().any(|value| has(value, TIMER));
        let last = lines().count().saturating_sub(1);
        for (at, value) in lines().enumerate() {
            let without = crate::message::Elements::new(value).any(drops).then(|| {
                let rest = crate::message::Elements::new(value).filter(|option| !drops(option));
                rest.collect::<Vec<_>>().join(&b", "[..])
            });
            let value = without.as_deref().unwrap_or(value);
            match (add && at == last, value.is_empty()) {
                (false, true) if without.is_some() => {}
                (false, _) => self.line(HeaderName::Supported, value),
                (true, true) => self.line(HeaderName::Supported, TIMER),
                (true, false) => self.line(HeaderName::Supported, &[value, b", ", TIMER].concat()),
            }
        }
        if add && lines().next().is_none() {
            self.line(HeaderName::Supported, TIMER);
        }
    }

    /// Ends the headers.
    fn body(&mut self, content_type: Option<&[u8]>, body: &[u8]) {
        if let Some(content_type) = content_type {
            self.line(HeaderName::ContentType, content_type);
        }
        self.line(HeaderName::ContentLength, body.len().to_string().as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rsip::{
        headers::{ToTypedHeader as _, UntypedHeader as _},
        message::HeadersExt as _,
    };

    use super::*;
    use crate::message::{Body, Role, SessionExpires, has_lr};

    const TOKEN: u64 = 0x0123_4567_89ab_cdef;
    const BRANCH: &[u8] = b"z9hG4bKsipst0123456789abcdef";
    const SDP: &[u8] = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=\xe9\r\n\r\n";

    const OWN: [(HeaderName, &[u8]); 3] = [
        (HeaderName::Allow, b"INVITE, ACK, BYE"),
        (HeaderName::UserAgent, b"LiveKit"),
        (HeaderName::SessionId, b"ab30317f1a784dc48ff824d0d3715d86"),
    ];

    fn path() -> Path {
        Path::new(b"sip:bob@192.0.2.2:5062", [&b"<sip:p1.example.net;lr>"[..], b"<sip:p2.example.net;lr>"])
    }

    fn template<'a>(path: &'a Path, own: &'a [(HeaderName, &'a [u8])]) -> Template<'a> {
        Template {
            path,
            transport: Transport::Udp,
            sent_by: b"192.0.2.1:5060",
            from: b"\"A\" <sip:alice@example.org>;tag=a1",
            to: b"<sip:bob@example.net>;tag=b1",
            call_id: b"c1@192.0.2.1",
            contact: Some(b"<sip:alice@192.0.2.1:5060>"),
            own,
        }
    }

    const REFRESH: Refresh<'_> =
        Refresh { cseq: 11, token: TOKEN, interval_s: 1800, refreshes: true, min_se: Some(90), answers: &[] };

    fn scan(bytes: &[u8]) -> Message<'_> {
        Message::scan(bytes, false).unwrap()
    }

    #[test]
    fn r18_r23_an_update_carries_the_dialog_and_the_timer() {
        let bytes = update(&template(&path(), &OWN), &REFRESH);
        let expected = "UPDATE sip:bob@192.0.2.2:5062 SIP/2.0\r\n\
            Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bKsipst0123456789abcdef\r\n\
            Max-Forwards: 70\r\n\
            Route: <sip:p1.example.net;lr>\r\n\
            Route: <sip:p2.example.net;lr>\r\n\
            From: \"A\" <sip:alice@example.org>;tag=a1\r\n\
            To: <sip:bob@example.net>;tag=b1\r\n\
            Call-ID: c1@192.0.2.1\r\n\
            CSeq: 11 UPDATE\r\n\
            Contact: <sip:alice@192.0.2.1:5060>\r\n\
            Allow: INVITE, ACK, BYE\r\n\
            User-Agent: LiveKit\r\n\
            Session-ID: ab30317f1a784dc48ff824d0d3715d86\r\n\
            Supported: timer\r\n\
            Session-Expires: 1800;refresher=uac\r\n\
            Min-SE: 90\r\n\
            Content-Length: 0\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    #[test]
    fn a_reinvite_does_not_list_what_would_oblige_it_to_a_prack() {
        let own: Vec<(HeaderName, &[u8])> = [&b"100rel"[..], b"replaces, 100REL,timer"]
            .into_iter()
            .map(|value| (HeaderName::Supported, value))
            .collect();
        let path = path();
        let listed = |bytes: &[u8]| {
            let lines = scan(bytes).lines(HeaderName::Supported).map(<[u8]>::to_vec).collect::<Vec<_>>();
            lines.join(&b";"[..])
        };
        let invite = reinvite(&template(&path, &own), &REFRESH, b"application/sdp", SDP);
        assert_eq!(listed(&invite), b"replaces, timer");
        assert_eq!(listed(&update(&template(&path, &own), &REFRESH)), b"100rel;replaces, 100REL,timer");
    }

    #[test]
    fn r19_who_hands_the_refreshing_off_lists_no_timer_and_names_nobody() {
        let off = Refresh { refreshes: false, ..REFRESH };
        let path = path();
        for (listed, left) in [
            (vec![], vec![]),
            (vec![&b"timer"[..]], vec![]),
            (vec![b"Timer, replaces"], vec![&b"replaces"[..]]),
            (vec![b"path", b"timer"], vec![b"path"]),
        ] {
            let own: Vec<_> = listed.into_iter().map(|value| (HeaderName::Supported, value)).collect();
            let bytes = update(&template(&path, &own), &off);
            let m = scan(&bytes);
            assert_eq!(m.lines(HeaderName::Supported).collect::<Vec<_>>(), left);
            assert_eq!(m.session_expires(), Some(Ok(SessionExpires { interval_s: 1800, refresher: None })));
        }
    }

    #[test]
    fn what_is_built_reads_back_here_and_in_rsip() {
        let bytes = reinvite(&template(&path(), &OWN), &REFRESH, b"application/sdp", SDP);
        let m = scan(&bytes);
        assert_eq!(m.request_method(), Some(MethodName::Invite));
        assert_eq!(m.top_via().unwrap().branch, Some(BRANCH));
        assert_eq!(m.top_via().unwrap().our_token(), Some(TOKEN));
        assert_eq!(m.cseq().unwrap().number, 11);
        let timer = SessionExpires { interval_s: 1800, refresher: Some(Role::Uac) };
        assert_eq!(m.session_expires(), Some(Ok(timer)));
        assert!(m.supports(b"timer") && m.is_sdp());
        assert_eq!(m.body(), Body::Whole(SDP));
        assert_eq!(Path::of(&m), Some(path()));

        let witness = rsip::Request::try_from(bytes.as_slice()).unwrap();
        assert_eq!(witness.method, rsip::Method::Invite);
        assert_eq!(witness.uri.to_string(), "sip:bob@192.0.2.2:5062");
        assert_eq!(witness.call_id_header().unwrap().value(), "c1@192.0.2.1");
        assert_eq!(witness.cseq_header().unwrap().typed().unwrap().seq, 11);
        assert_eq!(witness.from_header().unwrap().tag().unwrap().unwrap().value(), "a1");
        assert_eq!(witness.to_header().unwrap().tag().unwrap().unwrap().value(), "b1");
        let via = witness.via_header().unwrap().typed().unwrap();
        assert_eq!(via.branch().unwrap().value().as_bytes(), BRANCH);
        assert_eq!(witness.body, SDP);
    }

    #[test]
    fn r22_the_offer_is_replayed_byte_for_byte_with_its_length() {
        let body: Vec<u8> = (0..=255).collect();
        let bytes = reinvite(&template(&path(), &[]), &REFRESH, b"application/sdp", &body);
        assert!(bytes.ends_with(&body));
        assert_eq!(scan(&bytes).first(HeaderName::ContentLength), Some(&b"256"[..]));
    }

    #[test]
    fn r19_timer_joins_the_servers_own_list_exactly_once() {
        let supported = |lines: &[&[u8]]| {
            let own: Vec<_> = lines.iter().map(|&line| (HeaderName::Supported, line)).collect();
            let bytes = update(&template(&path(), &own), &REFRESH);
            scan(&bytes)
                .lines(HeaderName::Supported)
                .map(|l| String::from_utf8_lossy(l).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(supported(&[]), ["timer"]);
        assert_eq!(supported(&[b""]), ["timer"]);
        assert_eq!(supported(&[b"replaces,100rel"]), ["replaces,100rel, timer"]);
        assert_eq!(supported(&[b"replaces", b"path"]), ["replaces", "path, timer"]);
        assert_eq!(supported(&[b"Timer", b"path"]), ["Timer", "path"]);
        assert_eq!(supported(&[b"x-timer"]), ["x-timer, timer"]);
    }

    #[test]
    fn r23_a_strict_router_becomes_the_request_uri() {
        let path = Path::new(b"sip:bob@h", [&b"<sip:u@p1;x=y?a=b>;p"[..], b"<sip:p2;lr>"]);
        assert_eq!(path.uri, b"sip:u@p1;x=y");
        assert_eq!(path.routes, [&b"<sip:p2;lr>"[..], b"<sip:bob@h>"]);
        let bytes = update(&template(&path, &[]), &REFRESH);
        let m = scan(&bytes);
        assert_eq!(m.request_uri(), Some(&b"sip:u@p1;x=y"[..]));
        assert_eq!(m.routes().map(has_lr).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn r23_loose_routes_and_none_leave_the_target() {
        assert_eq!(Path::new(b"sip:bob@h", []).uri, b"sip:bob@h");
        assert_eq!(Path::new(b"sip:bob@h", [&b"<sip:p;LR=on>"[..]]).uri, b"sip:bob@h");
        assert_eq!(Path::new(b"sip:bob@h", [&b"junk"[..]]).uri, b"sip:bob@h");
    }

    #[test]
    fn the_servers_own_headers_are_gathered_and_nothing_else() {
        let message = b"INVITE sip:a SIP/2.0\r\nk: a\r\nX-Secret: 1\r\nPrivacy: id\r\nSubject: hi\r\nAllow: BYE\r\n\
            Supported: b\r\nServer: s\r\n\r\n";
        assert_eq!(
            own_headers(&scan(message)).collect::<Vec<_>>(),
            [
                (HeaderName::Allow, &b"BYE"[..]),
                (HeaderName::Supported, b"a"),
                (HeaderName::Supported, b"b"),
                (HeaderName::Privacy, b"id"),
            ]
        );
    }

    #[test]
    fn r25_answers_to_challenges_go_along() {
        let asked = b"SIP/2.0 401 x\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n\r\n";
        let request = crate::digest::Request { method: MethodName::Update, uri: &path().uri, cnonce: "c" };
        let credentials = crate::Credentials { username: "u".into(), password: "p".into() };
        let answers = crate::digest::answers(&scan(asked), &request, &credentials).unwrap();
        let bytes = update(&template(&path(), &OWN), &Refresh { answers: &answers, ..REFRESH });
        let header =
            rsip::Request::try_from(bytes.as_slice()).unwrap().authorization_header().unwrap().typed().unwrap();
        assert_eq!((header.realm.as_str(), header.nonce.as_str(), header.username.as_str()), ("r", "n", "u"));
        assert_eq!(header.uri.to_string(), "sip:bob@192.0.2.2:5062");
    }

    #[test]
    fn r32_the_ack_to_a_2xx_has_the_number_and_a_branch_of_its_own() {
        let path = path();
        let invite = reinvite(&template(&path, &OWN), &REFRESH, b"application/sdp", SDP);
        let ack = ack_2xx(&template(&path, &OWN), 11, 5, &[]);
        let (invite, m) = (scan(&invite), scan(&ack));
        assert_eq!(m.request_method(), Some(MethodName::Ack));
        assert_eq!((m.cseq().unwrap().number, m.cseq().unwrap().method), (11, MethodName::Ack));
        assert_eq!(m.top_via().unwrap().our_token(), Some(5));
        assert_eq!(Path::of(&m), Path::of(&invite));
        assert_eq!((m.call_id(), m.from(), m.to()), (invite.call_id(), invite.from(), invite.to()));
        assert_eq!(m.body(), Body::None);
        assert!(rsip::Request::try_from(ack.as_slice()).is_ok());
    }

    #[test]
    fn r33_the_ack_to_a_failure_and_the_cancel_go_the_invites_way() {
        let sent = reinvite(&template(&path(), &OWN), &REFRESH, b"application/sdp", SDP);
        let to = b"<sip:bob@example.net>;tag=other";
        let ack = ack_failure(&sent, to).unwrap();
        let cancel = cancel(&sent).unwrap();
        let invite = scan(&sent);
        for (bytes, method) in [(&ack, MethodName::Ack), (&cancel, MethodName::Cancel)] {
            let m = scan(bytes);
            assert_eq!(m.request_method(), Some(method));
            assert_eq!((m.values(HeaderName::Via).count(), m.top_via()), (1, invite.top_via()));
            assert_eq!(Path::of(&m), Path::of(&invite));
            assert_eq!((m.cseq().unwrap().number, m.cseq().unwrap().method), (11, method));
            assert_eq!((m.call_id(), m.from()), (invite.call_id(), invite.from()));
            assert!(m.session_expires().is_none());
            assert!(rsip::Request::try_from(bytes.as_slice()).is_ok());
        }
        assert_eq!(scan(&ack).to().unwrap().value, to);
        assert_eq!(scan(&cancel).to(), invite.to());
        assert_eq!(ack_failure(b"BYE sip:a SIP/2.0\r\n\r\n", to), None);
        assert_eq!(super::cancel(b"junk"), None);
    }

    #[test]
    fn bytes_that_are_not_utf_8_pass_through() {
        let path = path();
        let latin = Template { from: b"\xc9ric <sip:e@h>;tag=a1", ..template(&path, &OWN) };
        let bytes = update(&latin, &REFRESH);
        assert_eq!(scan(&bytes).from().unwrap().value, latin.from);
    }

    proptest! {
        #[test]
        fn no_value_can_add_a_line(
            values in prop::collection::vec("[a-z:;,<>\" \t\r\n]{0,30}", 8),
            options in prop::collection::vec("[a-z, \r\n]{0,20}", 0..3),
        ) {
            let path = Path::new(values[0].as_bytes(), [values[1].as_bytes()]);
            let mut own = vec![(HeaderName::Allow, values[2].as_bytes())];
            own.extend(options.iter().map(|option| (HeaderName::Supported, option.as_bytes())));
            let template = Template {
                path: &path,
                transport: Transport::Udp,
                sent_by: values[3].as_bytes(),
                from: values[4].as_bytes(),
                to: values[5].as_bytes(),
                call_id: values[6].as_bytes(),
                contact: Some(values[7].as_bytes()),
                own: &own,
            };
            let bytes = update(&template, &REFRESH);
            let text = String::from_utf8(bytes).unwrap();
            // Request line, 11 lines of the builder's, the routes and the server's own, the end.
            let lines = 11 + path.routes.len() + 1 + options.len().max(1) + 1;
            prop_assert_eq!(text.matches('\n').count(), lines, "{}", text);
            prop_assert_eq!(text.matches("\r\n").count(), lines);
            prop_assert_eq!(text.matches('\r').count(), lines);
        }
    }
}
