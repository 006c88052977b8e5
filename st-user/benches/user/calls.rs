//! The corpus: calls that are set up, ring, are answered, refreshed and hung up. What a call says follows from its number alone, so
//! that a million of them can be talked to without being kept anywhere.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use st_core::{Direction, Packet, Side, Transport};

/// Where the server is.
pub(crate) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), 5060);

/// The peers of so many trunk hosts.
const HOSTS: u8 = 200;

/// What happens in a call, one message after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Invite,
    Trying,
    Ringing,
    Answer,
    Ack,
    Refresh,
    Refreshed,
    Bye,
    ByeOk,
}

use Step::{Ack, Answer, Bye, ByeOk, Invite, Refresh, Refreshed, Ringing, Trying};

/// What sets a call up.
pub(crate) const SETUP: [Step; 5] = [Invite, Trying, Ringing, Answer, Ack];

/// What refreshes it.
pub(crate) const REFRESH: [Step; 2] = [Refresh, Refreshed];

/// What ends it.
pub(crate) const HANGUP: [Step; 2] = [Bye, ByeOk];

impl Step {
    const fn is_request(self) -> bool {
        matches!(self, Invite | Ack | Refresh | Bye)
    }

    const fn method(self) -> &'static str {
        match self {
            Invite | Trying | Ringing | Answer => "INVITE",
            Ack => "ACK",
            Refresh | Refreshed => "UPDATE",
            Bye | ByeOk => "BYE",
        }
    }
}

/// One call.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) call_id: String,
    pub(crate) caller: Side,
    pub(crate) peer: SocketAddr,
    /// Whether a proxy is between.
    proxied: bool,
    /// The server's end and the peer's.
    ends: [End; 2],
    branch: u64,
}

#[derive(Clone)]
struct End {
    user: u64,
    tag: String,
    port: u16,
    version: u64,
    key: String,
}

/// A message: who sends it, and what.
pub(crate) struct Message {
    pub(crate) direction: Direction,
    pub(crate) peer: SocketAddr,
    pub(crate) text: String,
}

impl Message {
    pub(crate) fn packet(&self) -> Packet<'_> {
        Packet {
            direction: self.direction,
            server: SERVER,
            peer: self.peer,
            transport: Transport::Udp,
            interface: 2,
            tos: 0,
            ttl: 64,
            cookie: 1,
            truncated: false,
            bytes: self.text.as_bytes(),
        }
    }
}

fn word(rng: &mut StdRng, length: usize) -> String {
    const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/";
    (0..length).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

impl Call {
    /// The one with this number: Call-IDs of 36 to 70 random bytes, tags of 8 to 36.
    pub(crate) fn new(number: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(number);
        let mut end = || End {
            user: 15_550_000_000 + rng.random_range(0..9_999_999),
            tag: {
                let length = rng.random_range(8..=36);
                word(rng, length)
            },
            port: rng.random_range(8_192..32_000) * 2,
            version: rng.random_range(1_000_000_000..9_999_999_999),
            key: word(rng, 40),
        };
        let ends = [end(), end()];
        let length = rng.random_range(36..=70);
        Self {
            call_id: word(rng, length),
            caller: if rng.random() { Side::Server } else { Side::Peer },
            peer: SocketAddr::new(IpAddr::from([198, 51, 100, rng.random_range(1..=HOSTS)]), 5060),
            proxied: rng.random(),
            ends,
            branch: rng.random(),
        }
    }

    fn end(&self, side: Side) -> &End {
        &self.ends[usize::from(side == Side::Peer)]
    }

    /// What is said at a step for the `round`th time: each refresh has a number and a branch of its own.
    pub(crate) fn say(&self, step: Step, round: u32) -> Message {
        // Whoever called refreshes, and hangs up.
        let client = self.caller;
        let sender = if step.is_request() { client } else { client.other() };
        let host = |side| if side == Side::Server { SERVER } else { self.peer };
        let mut text = String::with_capacity(1_200);
        let is_first = matches!(step, Invite | Trying | Ringing | Answer);
        let to = host(client.other());
        let status = match step {
            Invite | Ack | Refresh | Bye => 0_u16,
            Trying => 100,
            Ringing => 180,
            Answer | Refreshed | ByeOk => 200,
        };
        // Writing to memory does not fail.
        let text = &mut text;
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            let _ = text.write_fmt(arguments);
            text.push_str("\r\n");
        };
        if status == 0 {
            let user = self.end(client.other()).user;
            line(format_args!("{} sip:{user}@{to};transport=udp SIP/2.0", step.method()));
        } else {
            let phrase = match status {
                100 => "Trying",
                180 => "Ringing",
                _ => "OK",
            };
            line(format_args!("SIP/2.0 {status} {phrase}"));
        }
        let number = match step {
            Invite | Trying | Ringing | Answer | Ack => 101,
            Refresh | Refreshed | Bye | ByeOk => 102 + round,
        };
        let nth = u64::from(number) * 16 + u64::from(step == Ack);
        let branch = self.branch.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        line(format_args!("Via: SIP/2.0/UDP {};rport;branch=z9hG4bK{branch:016x}", host(client)));
        if status == 0 {
            line(format_args!("Max-Forwards: 70"));
        }
        if self.proxied && is_first && step != Trying {
            line(format_args!("Record-Route: <sip:{};lr>", self.peer));
        } else if self.proxied && status == 0 && client == Side::Server {
            line(format_args!("Route: <sip:{};lr>", self.peer));
        }
        let tags = [client, client.other()].map(|side| &self.end(side).tag);
        let users = [client, client.other()].map(|side| (self.end(side).user, host(side).ip()));
        line(format_args!("From: <sip:+{}@{}>;tag={}", users[0].0, users[0].1, tags[0]));
        if matches!(step, Invite | Trying) {
            line(format_args!("To: <sip:+{}@{}>", users[1].0, users[1].1));
        } else {
            line(format_args!("To: <sip:+{}@{}>;tag={}", users[1].0, users[1].1, tags[1]));
        }
        line(format_args!("Call-ID: {}\r\nCSeq: {number} {}", self.call_id, step.method()));
        if !matches!(step, Trying | Bye | ByeOk) {
            line(format_args!("Contact: <sip:{}@{};transport=udp>", self.end(sender).user, host(sender)));
        }
        line(format_args!(
            "User-Agent: {}",
            ["Example Voice 4.2", "Carrier SBC 9.1"][usize::from(sender == Side::Peer)]
        ));
        if matches!(step, Invite | Answer | Refresh | Refreshed) {
            line(format_args!(
                "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK\r\nSupported: timer, replaces"
            ));
            // Always the server, in the roles of this transaction: it is the one that sipst stands in for.
            let role = if client == Side::Server { "uac" } else { "uas" };
            line(format_args!("Session-Expires: 1800;refresher={role}"));
            if status == 200 {
                line(format_args!("Require: timer"));
            }
        }
        let sdp = if matches!(step, Invite | Answer) { sdp(self.end(sender), host(sender)) } else { String::new() };
        if !sdp.is_empty() {
            line(format_args!("Content-Type: application/sdp"));
        }
        line(format_args!("Content-Length: {}\r\n", sdp.len()));
        text.push_str(&sdp);
        let direction = if sender == Side::Server { Direction::Egress } else { Direction::Ingress };
        Message { direction, peer: self.peer, text: std::mem::take(text) }
    }
}

/// About 400 bytes.
fn sdp(End { port, version, key, .. }: &End, host: SocketAddr) -> String {
    let ip = host.ip();
    format!(
        "v=0\r\no=- {version} {version} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/SAVP 8 0 9 101\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-16\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\na=ptime:20\r\na=maxptime:150\r\n\
         a=rtcp:{} IN IP4 {ip}\r\na=sendrecv\r\n",
        port + 1
    )
}

/// So many calls at a time, each at another point of its life: a call that is over makes room for another.
pub(crate) struct Traffic {
    /// Each with what it does next: its setup, two refreshes, its hang-up.
    calls: Vec<(Call, usize)>,
    next: u64,
    rng: StdRng,
}

/// What a call says, and for the how many-th time.
const LIFE: [(Step, u32); 11] = [
    (Invite, 0),
    (Trying, 0),
    (Ringing, 0),
    (Answer, 0),
    (Ack, 0),
    (Refresh, 0),
    (Refreshed, 0),
    (Refresh, 1),
    (Refreshed, 1),
    (Bye, 2),
    (ByeOk, 2),
];

/// Messages of a call.
pub(crate) const LENGTH: usize = LIFE.len();

impl Traffic {
    pub(crate) fn new(calls: usize) -> Self {
        let calls: Vec<_> = (0..calls as u64).map(|number| (Call::new(number), 0)).collect();
        Self { next: calls.len() as u64, calls, rng: StdRng::seed_from_u64(u64::MAX) }
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> Message {
        let at = self.rng.random_range(0..self.calls.len());
        let (call, point) = &mut self.calls[at];
        if *point == LENGTH {
            (*call, *point) = (Call::new(self.next), 0);
            self.next += 1;
        }
        let (step, round) = LIFE[*point];
        *point += 1;
        call.say(step, round)
    }
}
