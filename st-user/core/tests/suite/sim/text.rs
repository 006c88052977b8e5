//! Messages as the server and the peer of a test write them.

use std::fmt::Write as _;

use st_core::{Side, message::Message};
use st_ebpf::cseq::BLANKS;

pub const SERVER: &str = "192.0.2.10:5060";
pub const PEER: &str = "198.51.100.20:5060";
pub const SERVER_ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO";
pub const PEER_ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE";

/// What a test needs to write messages of one dialog.
#[derive(Clone, Debug)]
pub struct Call {
    pub call_id: String,
    /// The server's tag.
    pub local: String,
    /// The peer's.
    pub remote: String,
    pub caller: Side,
    /// The host in the peer's URI.
    pub domain: &'static str,
    /// The server's next CSeq number.
    pub number: u32,
    /// The peer's.
    pub peer_number: u32,
    /// What stands between the server's `CSeq:` and the number.
    pub blank: &'static str,
    /// Branches so far.
    pub branches: u32,
    /// The INVITE that made the dialog: number and branch.
    pub invite: (u32, String),
}

impl Call {
    pub fn new(name: &str, caller: Side) -> Self {
        Self {
            call_id: format!("{name}@example"),
            local: format!("{name}-local"),
            remote: format!("{name}-remote"),
            caller,
            domain: "carrier.example",
            number: 1,
            peer_number: 700,
            blank: " ",
            branches: 0,
            invite: (0, String::new()),
        }
    }

    pub fn key(&self) -> (Vec<u8>, Vec<u8>) {
        (self.call_id.clone().into_bytes(), self.local.clone().into_bytes())
    }

    /// Of the peer's numbers.
    pub fn peer_key(&self) -> (Vec<u8>, Vec<u8>) {
        (self.call_id.clone().into_bytes(), self.remote.clone().into_bytes())
    }

    pub fn branch(&mut self) -> String {
        self.branches += 1;
        format!("z9hG4bK-{}-{}", self.call_id, self.branches)
    }

    /// The next number of a side.
    pub fn next(&mut self, side: Side) -> u32 {
        let number = if side == Side::Server { &mut self.number } else { &mut self.peer_number };
        *number += 1;
        *number - 1
    }

    fn party(&self, side: Side, tag: bool) -> String {
        let (uri, tag_value) = match side {
            Side::Server => ("\"S\" <sip:server@192.0.2.10>".to_string(), &self.local),
            Side::Peer => (format!("<sip:peer@{}>", self.domain), &self.remote),
        };
        if tag { format!("{uri};tag={tag_value}") } else { uri }
    }

    /// A request of one side's; `tagged`: inside the dialog.
    pub fn request(
        &self,
        side: Side,
        method: &str,
        number: u32,
        branch: &str,
        tagged: bool,
        extra: &str,
        body: &str,
    ) -> String {
        let (uri, host) = match side {
            Side::Server => ("sip:peer@198.51.100.20:5060", "192.0.2.10:5060"),
            Side::Peer => ("sip:server@192.0.2.10:5060", "198.51.100.20:5060"),
        };
        let mut text =
            format!("{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {host};rport;branch={branch}\r\nMax-Forwards: 70\r\n");
        let _ = write!(text, "From: {}\r\nTo: {}\r\n", self.party(side, true), self.party(side.other(), tagged));
        self.finish(text, side, method, number, extra, body)
    }

    /// A response of one side's, to a request of the other's.
    pub fn response(
        &self,
        side: Side,
        status: u16,
        method: &str,
        number: u32,
        via: &str,
        extra: &str,
        body: &str,
    ) -> String {
        let mut text = format!("SIP/2.0 {status} Because\r\nVia: {via}\r\n");
        let _ = write!(text, "From: {}\r\nTo: {}\r\n", self.party(side.other(), true), self.party(side, status > 100));
        self.finish(text, side.other(), method, number, extra, body)
    }

    /// `side` is the one whose CSeq it is.
    fn finish(&self, mut text: String, side: Side, method: &str, number: u32, extra: &str, body: &str) -> String {
        let blank = if side == Side::Server { self.blank } else { " " };
        let _ = write!(text, "Call-ID: {}\r\nCSeq:{blank}{number} {method}\r\n{extra}", self.call_id);
        if !body.is_empty() {
            text.push_str("Content-Type: application/sdp\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
        text
    }
}

/// The header line by which the server is the refresher of a call of 90 s, whoever calls.
pub fn server_expires(caller: Side) -> &'static str {
    match caller {
        Side::Server => "Session-Expires: 90;refresher=uac\r\n",
        Side::Peer => "Session-Expires: 90;refresher=uas\r\n",
    }
}

/// The Contact and Allow lines of a side.
pub fn manners(side: Side, update: bool) -> String {
    match (side, update) {
        (Side::Server, _) => {
            format!("Contact: <sip:server@192.0.2.10:5060>\r\nAllow: {SERVER_ALLOW}\r\nUser-Agent: plain\r\n")
        }
        (Side::Peer, true) => format!("Contact: <sip:peer@198.51.100.20:5060>\r\nAllow: {PEER_ALLOW}\r\n"),
        (Side::Peer, false) => format!("Contact: <sip:peer@198.51.100.20:5060>\r\nAllow: {SERVER_ALLOW}\r\n"),
    }
}

/// A session description of a side's.
pub fn sdp(side: Side) -> String {
    let (host, port) = if side == Side::Server { ("192.0.2.10", 4000) } else { ("198.51.100.20", 6000) };
    format!(
        "v=0\r\no=- 7 7 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\n"
    )
}

/// What a datagram can hold, in bytes, where the MTU is 1,500.
pub const MOST: usize = 1_472;

/// A message with another CSeq number, as the kernel programs write it: in the same length, or with blanks before a number that
/// needs them; `None` where it does not fit.
pub fn renumbered(bytes: &[u8], number: u32) -> Option<Vec<u8>> {
    let message = Message::scan(bytes, false).ok()?;
    let cseq = message.cseq()?;
    if cseq.number == number {
        return Some(bytes.to_vec());
    }
    let text = String::from_utf8(bytes.to_vec()).ok()?;
    let at = text.find("CSeq:")? + "CSeq:".len();
    let width = usize::from(cseq.layout.spaces) + usize::from(cseq.layout.digits);
    let digits = number.to_string();
    let blanks = BLANKS as usize;
    let lacks = digits.len() > width && digits.len() <= width + blanks && bytes.len() + blanks <= MOST;
    let (text, width) = if lacks {
        (format!("{}{}{}", &text[..at], " ".repeat(blanks), &text[at..]), width + blanks)
    } else {
        (text, width)
    };
    (digits.len() <= width).then(|| format!("{}{digits:>width$}{}", &text[..at], &text[at + width..]).into_bytes())
}
