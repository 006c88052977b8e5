//! Messages as the model agents write and read them: apart from the engine's own scanner and builder on purpose.

use std::fmt::Write as _;

/// The methods that the agents speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Verb {
    Invite,
    Ack,
    Cancel,
    Bye,
    Update,
    Info,
    Options,
    Prack,
    Refer,
    Notify,
}

impl Verb {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Invite, "INVITE"),
        (Self::Ack, "ACK"),
        (Self::Cancel, "CANCEL"),
        (Self::Bye, "BYE"),
        (Self::Update, "UPDATE"),
        (Self::Info, "INFO"),
        (Self::Options, "OPTIONS"),
        (Self::Prack, "PRACK"),
        (Self::Refer, "REFER"),
        (Self::Notify, "NOTIFY"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(verb, _)| *verb == self).map_or("", |(_, name)| *name)
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(verb, _)| *verb)
    }
}

/// Who refreshes, as a message says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Uac,
    Uas,
}

/// Session-Expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expires {
    pub(crate) seconds: u32,
    pub(crate) refresher: Option<Role>,
}

/// How a stack spells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spelling {
    /// One-letter header names.
    pub(crate) compact: bool,
    /// The name of CSeq and what stands before its number.
    pub(crate) cseq: &'static str,
    /// Whether its requests are too long to become longer.
    pub(crate) long: bool,
}

/// What makes a request so long, in bytes: a datagram holds 1,472 where the MTU is 1,500.
const PADDING: usize = 1_472;

/// From or To.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Party {
    pub(crate) uri: String,
    pub(crate) tag: Option<String>,
}

/// One message, with what the agents care for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Msg {
    pub(crate) verb: Verb,
    /// 0 for a request.
    pub(crate) status: u16,
    /// Request-URI.
    pub(crate) uri: String,
    /// Sent-by and branch, the topmost first.
    pub(crate) vias: Vec<(String, String)>,
    pub(crate) routes: Vec<String>,
    pub(crate) record_routes: Vec<String>,
    pub(crate) from: Party,
    pub(crate) to: Party,
    pub(crate) call_id: String,
    pub(crate) number: u32,
    pub(crate) contact: Option<String>,
    /// Whether Allow lists UPDATE, where there is one.
    pub(crate) allows_update: Option<bool>,
    pub(crate) supports_timer: bool,
    pub(crate) supports_reliable: bool,
    pub(crate) requires_timer: bool,
    pub(crate) expires: Option<Expires>,
    pub(crate) min_se: Option<u32>,
    pub(crate) retry_after: Option<u32>,
    /// The cause in Reason (RFC 3326).
    pub(crate) cause: Option<u32>,
    /// Whether it challenges, or answers a challenge.
    pub(crate) digest: bool,
    /// RSeq of a reliable provisional response.
    pub(crate) rseq: Option<u32>,
    /// RAck: that number, and the INVITE's.
    pub(crate) rack: Option<(u32, u32)>,
    /// The number of the REFER in `Event: refer;id=`.
    pub(crate) refer: Option<u32>,
    pub(crate) body: String,
}

impl Msg {
    /// A request that says nothing yet.
    pub(crate) fn blank(verb: Verb) -> Self {
        Self {
            verb,
            status: 0,
            uri: String::new(),
            vias: Vec::new(),
            routes: Vec::new(),
            record_routes: Vec::new(),
            from: Party::default(),
            to: Party::default(),
            call_id: String::new(),
            number: 0,
            contact: None,
            allows_update: None,
            supports_timer: false,
            supports_reliable: false,
            requires_timer: false,
            expires: None,
            min_se: None,
            retry_after: None,
            cause: None,
            digest: false,
            rseq: None,
            rack: None,
            refer: None,
            body: String::new(),
        }
    }

    pub(crate) fn is_request(&self) -> bool {
        self.status == 0
    }

    pub(crate) fn branch(&self) -> &str {
        self.vias.first().map_or("", |(_, branch)| branch)
    }

    /// The branch of whoever made the request: no proxy changes it.
    pub(crate) fn origin(&self) -> &str {
        self.vias.last().map_or("", |(_, branch)| branch)
    }

    /// The tags in From and To.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        [&self.from, &self.to].into_iter().filter_map(|party| party.tag.as_deref())
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.branch().starts_with("z9hG4bKsipst")
    }

    /// A response to this request.
    pub(crate) fn response(&self, status: u16, tag: &str) -> Self {
        let mut to = self.to.clone();
        if status > 100 && to.tag.is_none() {
            to.tag = Some(tag.into());
        }
        Self {
            status,
            vias: self.vias.clone(),
            record_routes: self.record_routes.clone(),
            from: self.from.clone(),
            to,
            call_id: self.call_id.clone(),
            number: self.number,
            ..Self::blank(self.verb)
        }
    }

    pub(crate) fn write(&self, spelling: Spelling) -> Vec<u8> {
        let name = |long: &'static str, short: &'static str| if spelling.compact { short } else { long };
        let mut text = match self.status {
            0 => format!("{} {} SIP/2.0\r\n", self.verb.name(), self.uri),
            status => format!("SIP/2.0 {status} Said\r\n"),
        };
        let mut line = |name: &str, value: &str| {
            let _ = write!(text, "{name}: {value}\r\n");
        };
        for (host, branch) in &self.vias {
            line(name("Via", "v"), &format!("SIP/2.0/UDP {host};rport;branch={branch}"));
        }
        for route in &self.routes {
            line("Route", route);
        }
        for route in &self.record_routes {
            line("Record-Route", route);
        }
        if self.is_request() {
            line("Max-Forwards", "70");
        }
        for (name, Party { uri, tag }) in [(name("From", "f"), &self.from), (name("To", "t"), &self.to)] {
            let tag = tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
            line(name, &format!("<{uri}>{tag}"));
        }
        line(name("Call-ID", "i"), &self.call_id);
        let _ = write!(text, "{}{} {}\r\n", spelling.cseq, self.number, self.verb.name());
        let mut line = |name: &str, value: &str| {
            let _ = write!(text, "{name}: {value}\r\n");
        };
        if let Some(contact) = &self.contact {
            line(name("Contact", "m"), &format!("<{contact}>"));
        }
        if let Some(update) = self.allows_update {
            line("Allow", if update { "INVITE, ACK, CANCEL, BYE, UPDATE, INFO" } else { "INVITE, ACK, CANCEL, BYE" });
        }
        match (self.supports_timer, self.supports_reliable) {
            (true, true) => line(name("Supported", "k"), "100rel, timer"),
            (true, false) => line(name("Supported", "k"), "timer"),
            (false, true) => line(name("Supported", "k"), "100rel"),
            (false, false) => {}
        }
        for (wanted, tag) in [(self.requires_timer, "timer"), (self.rseq.is_some(), "100rel")] {
            if wanted {
                line("Require", tag);
            }
        }
        if let Some((response, invite)) = self.rack {
            line("RAck", &format!("{response} {invite} INVITE"));
        }
        if let Some(id) = self.refer {
            line(name("Event", "o"), &format!("refer;id={id}"));
        }
        if let Some(Expires { seconds, refresher }) = self.expires {
            let role = match refresher {
                Some(Role::Uac) => ";refresher=uac",
                Some(Role::Uas) => ";refresher=uas",
                None => "",
            };
            line(name("Session-Expires", "x"), &format!("{seconds}{role}"));
        }
        for (name, value) in [("Min-SE", self.min_se), ("Retry-After", self.retry_after), ("RSeq", self.rseq)] {
            if let Some(value) = value {
                line(name, &value.to_string());
            }
        }
        if let Some(cause) = self.cause {
            line("Reason", &format!("SIP;cause={cause}"));
        }
        if self.digest {
            match self.status {
                0 => line("Authorization", "Digest username=\"u\""),
                407 => line("Proxy-Authenticate", "Digest realm=\"world\", nonce=\"n0\", algorithm=MD5"),
                _ => line("WWW-Authenticate", "Digest realm=\"world\", nonce=\"n0\", algorithm=MD5"),
            }
        }
        if self.is_request() && spelling.long {
            line("X-Padding", &"x".repeat(PADDING));
        }
        if !self.body.is_empty() {
            line(name("Content-Type", "c"), "application/sdp");
        }
        line(name("Content-Length", "l"), &self.body.len().to_string());
        (text + "\r\n" + &self.body).into_bytes()
    }

    /// Reads one; panics on what nobody in the world writes.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("an end of the header");
        let mut lines = head.split("\r\n");
        let first = lines.next().expect("a first line");
        let (status, uri, mut verb) = match first.strip_prefix("SIP/2.0 ") {
            Some(rest) => (rest[..3].parse().expect("a status"), String::new(), None),
            None => {
                let mut words = first.split(' ');
                let verb = words.next().and_then(Verb::named);
                (0, words.next().expect("a URI").into(), verb)
            }
        };
        let mut msg = Self { status, uri, body: body.into(), ..Self::blank(Verb::Options) };
        for line in lines {
            let (name, value) = line.split_once(':').expect("a header");
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "via" | "v" => {
                    let host = value.split([' ', ';']).nth(1).expect("a sent-by");
                    msg.vias.push((host.into(), parameter(value, "branch").unwrap_or_default().into()));
                }
                "route" => msg.routes.push(value.into()),
                "record-route" => msg.record_routes.push(value.into()),
                "from" | "f" => msg.from = party(value),
                "to" | "t" => msg.to = party(value),
                "call-id" | "i" => msg.call_id = value.into(),
                "cseq" => {
                    let (number, method) = value.split_once(' ').expect("CSeq");
                    msg.number = number.parse().expect("a number");
                    verb = verb.or(Verb::named(method.trim()));
                    assert_eq!(verb, Verb::named(method.trim()), "{text}");
                }
                "contact" | "m" => msg.contact = Some(party(value).uri),
                "allow" => msg.allows_update = Some(value.contains("UPDATE")),
                "supported" | "k" => {
                    msg.supports_timer |= value.contains("timer");
                    msg.supports_reliable |= value.contains("100rel");
                }
                "require" => msg.requires_timer |= value.contains("timer"),
                "session-expires" | "x" => {
                    let refresher = match parameter(value, "refresher") {
                        Some("uac") => Some(Role::Uac),
                        Some("uas") => Some(Role::Uas),
                        _ => None,
                    };
                    msg.expires = Some(Expires { seconds: leading(value).expect("seconds"), refresher });
                }
                "min-se" => msg.min_se = leading(value),
                "rseq" => msg.rseq = leading(value),
                "rack" => {
                    let mut numbers = value.split_ascii_whitespace().filter_map(leading);
                    msg.rack = numbers.next().zip(numbers.next());
                }
                "event" | "o" => msg.refer = parameter(value, "id").and_then(leading),
                "retry-after" => msg.retry_after = leading(value),
                "reason" => msg.cause = parameter(value, "cause").and_then(leading),
                "authorization" | "www-authenticate" | "proxy-authorization" | "proxy-authenticate" => {
                    msg.digest = true
                }
                _ => {}
            }
        }
        msg.verb = verb.expect("a method");
        msg
    }
}

fn leading(value: &str) -> Option<u32> {
    value.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value.split(';').skip(1).find_map(|one| one.trim().strip_prefix(name)?.strip_prefix('='))
}

fn party(value: &str) -> Party {
    let uri = match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or(rest),
        None => value.split(';').next().unwrap_or(value),
    };
    let after = value.rsplit('>').next().unwrap_or_default();
    Party { uri: uri.into(), tag: parameter(after, "tag").map(Into::into) }
}

/// What a session description describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Voice,
    /// Voice by another codec.
    Wide,
    /// T.38 (F22).
    Fax,
}

/// A session description: version, and which way media flow as its side says it.
pub(crate) fn sdp(host: &str, version: u32, port: u32, flow: &str, kind: Kind) -> String {
    let media = match kind {
        Kind::Voice => format!("m=audio {port} RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na={flow}\r\n"),
        Kind::Wide => format!("m=audio {port} RTP/AVP 9\r\na=rtpmap:9 G722/8000\r\na={flow}\r\n"),
        Kind::Fax => format!("m=image {port} udptl t38\r\na=T38FaxVersion:0\r\n"),
    };
    format!("v=0\r\no=- 7 {version} IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n{media}")
}
