//! Typed views of the headers that the engine reads.

use serde::{Deserialize, Serialize};
use st_ebpf::{
    abi::{BRANCH_LEN, BRANCH_PREFIX, PEER_BRANCH_PREFIX},
    cseq::MAX_NUMBER,
};

use super::{
    Elements, HeaderName, Message, MethodName, Uri, Values,
    find::find,
    lists::has,
    text::{self, Params, find_bracket, is_blank, is_token, same_word, take_while, trim, trim_start, value_of},
};

/// An address with or without angle brackets, and what follows it.
struct NameAddr<'a> {
    name_addr: &'a [u8],
    uri: &'a [u8],
    params: &'a [u8],
}

impl<'a> NameAddr<'a> {
    fn parse(value: &'a [u8]) -> Self {
        match find_bracket(value) {
            Some(open) => {
                let inside = &value[open + 1..];
                let close = find(inside, [b'>']).unwrap_or(inside.len());
                let (name_addr, params) = value.split_at((open + 1 + close + 1).min(value.len()));
                Self { name_addr, uri: trim(&inside[..close]), params }
            }
            // Without brackets every parameter is the header's (RFC 3261, section 20).
            None => {
                let (uri, params) = take_while(value, |b| b != b';');
                Self { name_addr: trim(uri), uri: trim(uri), params }
            }
        }
    }
}

/// A From or To.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party<'a> {
    /// The whole value.
    pub value: &'a [u8],
    /// The value without the header's own parameters: display name and address.
    pub name_addr: &'a [u8],
    /// The URI.
    pub uri: &'a [u8],
    /// The tag, `None` where it is absent or empty.
    pub tag: Option<&'a [u8]>,
}

impl<'a> Party<'a> {
    /// From a header's value.
    pub fn parse(value: &'a [u8]) -> Self {
        let NameAddr { name_addr, uri, params } = NameAddr::parse(value);
        let tag = Params::new(params).get(b"tag").filter(|tag| !tag.is_empty());
        Self { value, name_addr, uri, tag }
    }

    /// The URI's host, an IPv6 address without its brackets; empty where the URI has none.
    pub fn host(&self) -> &'a [u8] {
        Uri::parse(self.uri).map_or(&[], |uri| uri.host)
    }
}

/// A Contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact<'a> {
    /// The element with its name and parameters.
    pub value: &'a [u8],
    /// The URI.
    pub uri: &'a [u8],
}

/// How wide the server wrote a CSeq number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Spaces between the colon and the number; 0 where anything else stands there too.
    pub spaces: u8,
    /// Digits, leading zeros included.
    pub digits: u8,
}

/// A CSeq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// The number, below 2^31.
    pub number: u32,
    /// The method.
    pub method: MethodName,
    /// How it was written.
    pub layout: Layout,
}

/// A RAck (RFC 3262, section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RAck {
    /// The RSeq that is acknowledged.
    pub rseq: u32,
    /// The CSeq number of the response that carried it.
    pub number: u32,
    /// The method of that CSeq.
    pub method: MethodName,
}

/// A transport: the one that a Via names, or that a message came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
    Other,
}

impl Transport {
    fn from_bytes(name: &[u8]) -> Self {
        let names: [(&[u8], Self); 5] =
            [(b"UDP", Self::Udp), (b"TCP", Self::Tcp), (b"TLS", Self::Tls), (b"WS", Self::Ws), (b"WSS", Self::Wss)];
        names.iter().find(|(known, _)| same_word(name, known)).map_or(Self::Other, |&(_, transport)| transport)
    }
}

/// One Via.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// The whole element.
    pub value: &'a [u8],
    /// The transport.
    pub transport: Transport,
    /// Host and port, as written.
    pub sent_by: &'a [u8],
    /// The branch, `None` where it is absent or empty.
    pub branch: Option<&'a [u8]>,
}

impl<'a> Via<'a> {
    /// From one element; `None` where it is no Via.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (transport, rest) = match value.strip_prefix(b"SIP/2.0/UDP ") {
            Some(rest) => (Transport::Udp, rest),
            None => via_transport(value)?,
        };
        let (sent_by, params) = rest.split_at(find(rest, [b';']).unwrap_or(rest.len()));
        let sent_by = trim(sent_by);
        if sent_by.is_empty() {
            return None;
        }
        let branch = Params::new(params).get(b"branch").filter(|branch| !branch.is_empty());
        Some(Self { value, transport, sent_by, branch })
    }

    /// The token, where the branch is one of sipst's own in the server's name.
    pub fn our_token(&self) -> Option<u64> {
        self.token(&BRANCH_PREFIX)
    }

    /// The same in the peer's name.
    pub fn peer_token(&self) -> Option<u64> {
        self.token(&PEER_BRANCH_PREFIX)
    }

    fn token(&self, prefix: &[u8]) -> Option<u64> {
        let branch = self.branch.filter(|branch| branch.len() == BRANCH_LEN)?;
        branch.strip_prefix(prefix)?.iter().try_fold(0, |token: u64, &b| {
            let digit = match b {
                b'0'..=b'9' => b - b'0',
                b'a'..=b'f' => b - b'a' + 10,
                _ => return None,
            };
            Some(token << 4 | u64::from(digit))
        })
    }
}

/// The transport at the beginning of a Via, and what follows it; `None` where it does not begin with SIP and a transport.
fn via_transport(value: &[u8]) -> Option<(Transport, &[u8])> {
    fn slash(bytes: &[u8]) -> Option<&[u8]> {
        trim_start(bytes).strip_prefix(b"/").map(trim_start)
    }
    let (protocol, rest) = take_while(value, is_token);
    let (_, rest) = take_while(slash(rest)?, is_token);
    let (transport, rest) = take_while(slash(rest)?, is_token);
    let is_sip = same_word(protocol, b"SIP") && !transport.is_empty();
    is_sip.then(|| (Transport::from_bytes(transport), rest))
}

/// A role in one transaction (R14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Who sent the request.
    Uac,
    /// Who answers it.
    Uas,
}

/// A Session-Expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// The session interval in seconds.
    pub interval_s: u32,
    /// Who refreshes, in the roles of this transaction.
    pub refresher: Option<Role>,
}

/// What is wrong with a header that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// It is there more than once.
    #[error("there is more than one")]
    Repeated,
    /// It does not begin with a number of seconds that fits into 32 bits.
    #[error("no number of seconds, or one that is too large")]
    Seconds,
    /// The refresher is neither uac nor uas, or both.
    #[error("the refresher is neither uac nor uas")]
    Refresher,
}

/// A challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// From Proxy-Authenticate rather than WWW-Authenticate.
    pub proxy: bool,
    /// The value, scheme included.
    pub value: &'a [u8],
}

/// What follows the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Nothing.
    None,
    /// All of it, at least one byte.
    Whole(&'a [u8]),
    /// There is one, but not all of it is here, or its length is contradictory.
    Cut,
}

impl<'a> Message<'a> {
    /// The Call-ID.
    pub fn call_id(&self) -> Option<&'a [u8]> {
        self.first(HeaderName::CallId).filter(|id| !id.is_empty())
    }

    /// The From.
    pub fn from(&self) -> Option<Party<'a>> {
        self.first(HeaderName::From).map(Party::parse)
    }

    /// The To.
    pub fn to(&self) -> Option<Party<'a>> {
        self.first(HeaderName::To).map(Party::parse)
    }

    /// The CSeq; `None` also where the number is not below 2^31 (RFC 3261, section 8.1.1.5).
    pub fn cseq(&self) -> Option<CSeq> {
        let value = self.first(HeaderName::CSeq)?;
        let (digits, rest) = take_while(value, |b| b.is_ascii_digit());
        let number = text::number(digits).filter(|&number| number <= MAX_NUMBER)?;
        let method = Some(trim_start(rest)).filter(|method| !method.is_empty() && is_blank(rest[0]))?;
        let digits = u8::try_from(digits.len()).unwrap_or(u8::MAX);
        let layout = Layout { spaces: self.spaces_before(HeaderName::CSeq)?, digits };
        Some(CSeq { number, method: MethodName::from_bytes(method), layout })
    }

    /// How many spaces stand between the colon and the value of the first header line of that name; 0 where there is a tab or
    /// a fold among them.
    pub fn spaces_before(&self, name: HeaderName) -> Option<u8> {
        let line = self.line(self.first[name as usize])?;
        let before = &self.bytes[..usize::from(line.start)];
        if let [.., b':', b' '] = before {
            return Some(1);
        }
        let before = before.iter().rev();
        let blanks = before.clone().take_while(|&&b| is_blank(b)).count();
        let spaces = before.take_while(|&&b| b == b' ').count();
        Some(if spaces == blanks { u8::try_from(spaces).unwrap_or(u8::MAX) } else { 0 })
    }

    /// The topmost Via.
    pub fn top_via(&self) -> Option<Via<'a>> {
        self.vias().0
    }

    /// The topmost Via, and whether there are others below it.
    pub fn vias(&self) -> (Option<Via<'a>>, bool) {
        let mut lines = self.lines(HeaderName::Via);
        if let (Some(only), None) = (lines.next(), lines.next())
            && find(only, [b',']).is_none()
        {
            return (Via::parse(only), false);
        }
        let mut vias = self.values(HeaderName::Via);
        (vias.next().and_then(Via::parse), vias.next().is_some())
    }

    /// The first Contact, `None` where it has no URI. The URI is `*` where a REGISTER says so, and may be of any scheme.
    pub fn contact(&self) -> Option<Contact<'a>> {
        let value = self.values(HeaderName::Contact).next()?;
        Some(Contact { value, uri: NameAddr::parse(value).uri }).filter(|contact| !contact.uri.is_empty())
    }

    /// The Record-Route elements, in order.
    pub fn record_routes(&self) -> Values<'a, '_> {
        self.values(HeaderName::RecordRoute)
    }

    /// The Route elements, in order.
    pub fn routes(&self) -> Values<'a, '_> {
        self.values(HeaderName::Route)
    }

    /// Whether Supported lists an option tag, in any case.
    #[inline]
    pub fn supports(&self, option: &[u8]) -> bool {
        self.lists(HeaderName::Supported, option)
    }

    /// Whether Require lists an option tag, in any case.
    pub fn requires(&self, option: &[u8]) -> bool {
        self.lists(HeaderName::Require, option)
    }

    /// Whether Unsupported lists an option tag, in any case; `None` where there is no Unsupported.
    pub fn lacks(&self, option: &[u8]) -> Option<bool> {
        self.first(HeaderName::Unsupported).map(|_| self.lists(HeaderName::Unsupported, option))
    }

    #[inline]
    fn lists(&self, name: HeaderName, option: &[u8]) -> bool {
        self.lines(name).any(|list| has(list, option, same_word))
    }

    /// Whether Allow lists a method; `None` where there is no Allow.
    #[inline]
    pub fn allows(&self, method: &[u8]) -> Option<bool> {
        self.first(HeaderName::Allow)?;
        Some(self.lines(HeaderName::Allow).any(|list| has(list, method, |found, method| found == method)))
    }

    /// The Session-Expires (RFC 4028, section 4); parameters other than `refresher` are ignored. R2
    pub fn session_expires(&self) -> Option<Result<SessionExpires, HeaderFault>> {
        let mut lines = self.lines(HeaderName::SessionExpires);
        let value = lines.next()?;
        if lines.next().is_some() || (find(value, [b',']).is_some() && Elements::new(value).nth(1).is_some()) {
            return Some(Err(HeaderFault::Repeated));
        }
        Some(session_expires(value))
    }

    /// The Min-SE in seconds, the greatest where there are several; `None` where it is absent or no number.
    pub fn min_se(&self) -> Option<u32> {
        self.values(HeaderName::MinSe).filter_map(|value| text::number(trim(take_while(value, |b| b != b';').0))).max()
    }

    /// The Retry-After in seconds; a number that is too large is the largest there is.
    pub fn retry_after(&self) -> Option<u32> {
        let (digits, _) = take_while(self.first(HeaderName::RetryAfter)?, |b| b.is_ascii_digit());
        if digits.is_empty() { None } else { Some(text::number(digits).unwrap_or(u32::MAX)) }
    }

    /// The RAck.
    pub fn rack(&self) -> Option<RAck> {
        let value = self.first(HeaderName::RAck)?;
        let mut words = value.split(|&b| text::is_blank(b)).filter(|word| !word.is_empty());
        let (rseq, number, method) = (words.next()?, words.next()?, words.next()?);
        let (rseq, number) = (text::number(rseq)?, text::number(number)?);
        Some(RAck { rseq, number, method: MethodName::from_bytes(method) })
    }

    /// Whether this is a reliable provisional response (RFC 3262, section 3).
    pub fn reliable(&self) -> bool {
        self.status().is_some_and(|status| status < 200)
            && self.first(HeaderName::RSeq).and_then(text::number).is_some()
            && self.requires(b"100rel")
    }

    /// The challenges, WWW-Authenticate first.
    pub fn challenges(&self) -> impl Iterator<Item = Challenge<'a>> + use<'a, '_> {
        let of = |name, proxy| self.lines(name).map(move |value| Challenge { proxy, value });
        of(HeaderName::WwwAuthenticate, false).chain(of(HeaderName::ProxyAuthenticate, true))
    }

    /// The Content-Type with its parameters.
    pub fn content_type(&self) -> Option<&'a [u8]> {
        self.first(HeaderName::ContentType).filter(|value| !value.is_empty())
    }

    /// Whether the body is SDP and nothing but SDP, in plain.
    pub fn is_sdp(&self) -> bool {
        let media_type = |value: &'a [u8]| trim(&value[..find(value, [b';']).unwrap_or(value.len())]);
        self.first(HeaderName::ContentEncoding).is_none()
            && self.lines(HeaderName::ContentType).count() == 1
            && self.content_type().is_some_and(|value| same_word(media_type(value), b"application/sdp"))
    }

    /// How long the body is on a connection, where nothing but Content-Length tells: 0 without one; `None` where it cannot be read, or
    /// is there twice and not the same.
    pub fn stream_length(&self) -> Option<usize> {
        let mut lines = self.lines(HeaderName::ContentLength);
        let Some(first) = lines.next() else { return Some(0) };
        let length = text::number(first)?;
        lines.all(|other| text::number(other) == Some(length)).then_some(length as usize)
    }

    /// The body, by Content-Length; without one it goes to the end (RFC 3261, section 18.3).
    pub fn body(&self) -> Body<'a> {
        let Some(at) = self.body_at else { return if self.truncated { Body::Cut } else { Body::None } };
        let rest = &self.bytes[at..];
        let mut lines = self.lines(HeaderName::ContentLength);
        let length = match lines.next() {
            None if self.truncated => return Body::Cut,
            None => rest.len(),
            Some(value) => match text::number(value) {
                Some(length) if lines.all(|other| text::number(other) == Some(length)) => length as usize,
                _ => return Body::Cut,
            },
        };
        match rest.get(..length) {
            None => Body::Cut,
            Some([]) => Body::None,
            Some(body) => Body::Whole(body),
        }
    }
}

fn session_expires(value: &[u8]) -> Result<SessionExpires, HeaderFault> {
    let (seconds, params) = take_while(value, |b| b != b';');
    let interval_s = text::number(trim(seconds)).ok_or(HeaderFault::Seconds)?;
    // As nearly all write it.
    let plain = match params {
        b"" => Some(None),
        b";refresher=uac" => Some(Some(Role::Uac)),
        b";refresher=uas" => Some(Some(Role::Uas)),
        _ => None,
    };
    if let Some(refresher) = plain {
        return Ok(SessionExpires { interval_s, refresher });
    }
    let mut refresher = None;
    for value in Params::new(params).filter_map(|param| value_of(param, b"refresher")) {
        let role = if same_word(value, b"uac") {
            Role::Uac
        } else if same_word(value, b"uas") {
            Role::Uas
        } else {
            return Err(HeaderFault::Refresher);
        };
        if refresher.replace(role).is_some_and(|before| before != role) {
            return Err(HeaderFault::Refresher);
        }
    }
    Ok(SessionExpires { interval_s, refresher })
}

/// The URI of a Route or Record-Route element.
pub fn route_uri(route: &[u8]) -> &[u8] {
    NameAddr::parse(route).uri
}

/// Whether a Route or Record-Route element is a loose router's: its URI has `lr` (RFC 3261, section 19.1.1).
pub fn has_lr(route: &[u8]) -> bool {
    Uri::parse(route_uri(route)).is_some_and(|uri| uri.param(b"lr").is_some())
}
