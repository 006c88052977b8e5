//! The traffic: calls that set up, refresh, hold, talk and hang up, from both sides, each message as a stack would write it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use st_core::{Direction, Side};

/// Where the server is.
pub(crate) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), 5060);

/// Where the peers are.
pub(crate) const NETS: [&str; 3] = ["198.51.100.0/24", "203.0.113.0/24", "10.0.0.0/8"];

/// What a message can be, as the table names it.
pub(crate) const KINDS: [&str; 19] = [
    "INVITE",
    "100",
    "180",
    "200 INVITE",
    "ACK",
    "UPDATE",
    "200 UPDATE",
    "re-INVITE",
    "200 re-INVITE",
    "hold",
    "200 hold",
    "ACK in dialog",
    "INFO",
    "200 INFO",
    "OPTIONS",
    "200 OPTIONS",
    "BYE",
    "200 BYE",
    "a copy",
];

/// The kind of a message that is sent a second time.
const COPY: usize = KINDS.len() - 1;

/// One message in so many is sent a second time.
const COPIED: u32 = 16;

/// One message.
#[derive(Clone)]
pub(crate) struct Message {
    /// Index into [`KINDS`].
    pub(crate) kind: usize,
    pub(crate) direction: Direction,
    pub(crate) peer: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// What happens in a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Setup,
    Update,
    Reinvite,
    Hold,
    Info,
    Options,
    Bye,
}

impl Act {
    const fn method(self) -> &'static str {
        match self {
            Self::Setup | Self::Reinvite | Self::Hold => "INVITE",
            Self::Update => "UPDATE",
            Self::Info => "INFO",
            Self::Options => "OPTIONS",
            Self::Bye => "BYE",
        }
    }

    /// Its messages: kind, and the status of a response; 0 is the request and 1 its ACK.
    const fn messages(self) -> &'static [(usize, u16)] {
        match self {
            Self::Setup => &[(0, 0), (1, 100), (2, 180), (3, 200), (4, 1)],
            Self::Update => &[(5, 0), (6, 200)],
            Self::Reinvite => &[(7, 0), (8, 200), (11, 1)],
            Self::Hold => &[(9, 0), (10, 200), (11, 1)],
            Self::Info => &[(12, 0), (13, 200)],
            Self::Options => &[(14, 0), (15, 200)],
            Self::Bye => &[(16, 0), (17, 200)],
        }
    }

    /// Whether its request and its 2xx say how long the session lasts.
    const fn is_timed(self) -> bool {
        matches!(self, Self::Setup | Self::Update | Self::Reinvite | Self::Hold)
    }

    const fn has_sdp(self) -> bool {
        matches!(self, Self::Setup | Self::Reinvite | Self::Hold)
    }
}

struct Call {
    call_id: String,
    caller: Side,
    peer: SocketAddr,
    /// Whether a proxy is between.
    proxied: bool,
    /// The server's and the peer's tag, CSeq number, media port and SDP version.
    ends: [End; 2],
    /// What happens, in this order, and who asks.
    acts: Vec<(Act, Side)>,
    /// Which of them, and which message of it, is next.
    at: (usize, usize),
    branch: u64,
    /// The message that is to be sent a second time.
    copy: Option<Message>,
}

struct End {
    tag: String,
    number: u32,
    port: u16,
    version: u64,
}

fn word(rng: &mut StdRng, length: usize) -> String {
    const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-.";
    (0..length).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

impl Call {
    fn new(rng: &mut StdRng) -> Self {
        let side = |rng: &mut StdRng| if rng.random() { Side::Server } else { Side::Peer };
        let host = rng.random_range(1..=200);
        let net = [[198, 51, 100, host], [203, 0, 113, host], [10, 0, 0, host]][rng.random_range(0..3)];
        let mut acts =
            [Act::Update, Act::Update, Act::Reinvite, Act::Hold, Act::Info, Act::Options].map(|act| (act, side(rng)));
        acts.shuffle(rng);
        let caller = side(rng);
        let mut all = vec![(Act::Setup, caller)];
        all.extend(acts);
        all.push((Act::Bye, side(rng)));
        let length = rng.random_range(36..=70);
        let end = |rng: &mut StdRng| {
            let (length, number) = (rng.random_range(8..=36), rng.random_range(1..50_000));
            End { tag: word(rng, length), number, port: rng.random_range(16_384..65_000), version: rng.random() }
        };
        Self {
            call_id: word(rng, length),
            caller,
            peer: SocketAddr::new(IpAddr::from(net), 5060),
            proxied: rng.random(),
            ends: [end(rng), end(rng)],
            acts: all,
            at: (0, 0),
            branch: 0,
            copy: None,
        }
    }

    /// The next message; `None` when the call is over.
    fn next(&mut self, rng: &mut StdRng) -> Option<Message> {
        if let Some(copy) = self.copy.take() {
            return Some(copy);
        }
        let &(act, client) = self.acts.get(self.at.0)?;
        let (kind, status) = act.messages()[self.at.1];
        let sender = if status <= 1 { client } else { client.other() };
        if status == 0 {
            self.ends[usize::from(client == Side::Peer)].number += 1;
        }
        if status <= 1 {
            self.branch = rng.random();
        }
        if status == 0 && act == Act::Hold {
            self.ends[usize::from(client == Side::Peer)].version += 1;
        }
        let bytes = self.write(act, client, sender, status).into_bytes();
        self.at.1 += 1;
        if self.at.1 == act.messages().len() {
            self.at = (self.at.0 + 1, 0);
        }
        let direction = if sender == Side::Server { Direction::Egress } else { Direction::Ingress };
        let message = Message { kind, direction, peer: self.peer, bytes };
        self.copy = rng.random_ratio(1, COPIED).then(|| Message { kind: COPY, ..message.clone() });
        Some(message)
    }

    fn write(&self, act: Act, client: Side, sender: Side, status: u16) -> String {
        let (setup, end) = (act == Act::Setup, |side: Side| &self.ends[usize::from(side == Side::Peer)]);
        let host = |side| if side == Side::Server { SERVER } else { self.peer };
        let method = if status == 1 { "ACK" } else { act.method() };
        let party = |side: Side, tagged: bool| {
            let tag = if tagged { format!(";tag={}", end(side).tag) } else { String::new() };
            match side {
                Side::Server => format!("\"Voice\" <sip:+15557654321@voice.example.org>{tag}"),
                Side::Peer => format!("<sip:+15551234567@carrier.example>{tag}"),
            }
        };
        let mut text = match status {
            0 if setup => format!("{method} sip:line@{} SIP/2.0\r\n", host(client.other())),
            0 | 1 => format!("{method} sip:line@{};transport=udp SIP/2.0\r\n", host(client.other())),
            _ => format!("SIP/2.0 {status} As it is\r\n"),
        };
        text += &format!("Via: SIP/2.0/UDP {};rport;branch=z9hG4bK{:016x}\r\n", host(client), self.branch);
        if status <= 1 {
            text += "Max-Forwards: 70\r\n";
        }
        if self.proxied && setup && status != 1 && status != 100 {
            text += &format!("Record-Route: <sip:{};lr>\r\n", self.peer);
        } else if self.proxied && status <= 1 && client == Side::Server {
            text += &format!("Route: <sip:{};lr>\r\n", self.peer);
        }
        let tagged = !setup || !matches!(status, 0 | 100);
        text += &format!("From: {}\r\nTo: {}\r\n", party(client, true), party(client.other(), tagged));
        text += &format!("Call-ID: {}\r\nCSeq: {} {method}\r\n", self.call_id, end(client).number);
        text += &format!("Contact: <sip:line@{};transport=udp>\r\n", host(sender));
        text += "User-Agent: Example Voice 4.2\r\n";
        if status != 1 && status != 100 {
            text += "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK\r\nSupported: timer, replaces\r\n";
        }
        if act.is_timed() && matches!(status, 0 | 200) {
            // Always the caller, in the roles of this transaction.
            let role = if client == self.caller { "uac" } else { "uas" };
            text += &format!("Session-Expires: 1800;refresher={role}\r\n");
            if status == 200 {
                text += "Require: timer\r\n";
            }
        }
        let sdp = if act.has_sdp() && matches!(status, 0 | 200) {
            sdp(end(sender), host(sender), act)
        } else {
            String::new()
        };
        if !sdp.is_empty() {
            text += "Content-Type: application/sdp\r\n";
        }
        text + &format!("Content-Length: {}\r\n\r\n{sdp}", sdp.len())
    }
}

fn sdp(end: &End, host: SocketAddr, act: Act) -> String {
    let (ip, port) = (host.ip(), end.port);
    let flow = if act == Act::Hold { "sendonly" } else { "sendrecv" };
    format!(
        "v=0\r\no=- {0} {0} IN IP4 {ip}\r\ns=example\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8 0 9 18 101\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:9 G722/8000\r\na=rtpmap:18 G729/8000\r\n\
         a=fmtp:18 annexb=no\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n\
         a=maxptime:150\r\na=rtcp:{1} IN IP4 {ip}\r\na={flow}\r\n",
        end.version,
        port + 1,
    )
}

/// All calls.
pub(crate) struct Traffic {
    calls: Vec<Call>,
    rng: StdRng,
}

impl Traffic {
    /// So many calls at a time, some of which are being set up or are just over.
    pub(crate) fn new(seed: u64, calls: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let calls = (0..calls).map(|_| Call::new(&mut rng)).collect();
        Self { calls, rng }
    }

    /// The next messages; a call that is over makes room for another.
    pub(crate) fn round(&mut self, messages: usize) -> Vec<Message> {
        (0..messages)
            .map(|_| {
                let at = self.rng.random_range(0..self.calls.len());
                loop {
                    match self.calls[at].next(&mut self.rng) {
                        Some(message) => break message,
                        None => self.calls[at] = Call::new(&mut self.rng),
                    }
                }
            })
            .collect()
    }

    /// What sets all calls up that have not begun.
    pub(crate) fn setups(&mut self) -> Vec<Message> {
        let Self { calls, rng } = self;
        let mut all = Vec::new();
        for call in calls {
            while call.at.0 == 0 {
                all.extend(call.next(rng));
            }
        }
        all
    }
}
