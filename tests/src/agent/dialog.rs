//! What an agent knows of its call, and the requests that it makes from that.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{Enforce, MEDIA_PORT, Message, Profile, Update};

/// A word that is used once in this process.
pub(super) fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{prefix}{:x}x{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One dialog.
pub(super) struct Dialog {
    pub(super) call_id: String,
    /// From of our requests.
    pub(super) local: String,
    pub(super) local_tag: String,
    /// To of our requests; without a tag until it is known.
    pub(super) remote: String,
    pub(super) remote_tag: Option<String>,
    pub(super) remote_target: String,
    pub(super) next_hop: SocketAddr,
    /// The number of our last request.
    pub(super) local_cseq: u32,
    pub(super) remote_cseq: Option<u32>,
    /// The other end's last SDP.
    pub(super) remote_sdp: Option<String>,
    pub(super) interval: Option<Duration>,
    pub(super) deadline: Option<Instant>,
    pub(super) confirmed: bool,
    pub(super) over: bool,
}

/// An address as it stands in a URI or a Via.
pub(super) fn host_port(address: SocketAddr) -> String {
    address.to_string()
}

impl Dialog {
    /// One that we begin.
    pub(super) fn calling(profile: &Profile, own: SocketAddr, to: SocketAddr) -> Self {
        let (local_tag, host) = (fresh("t"), host_port(own));
        Self {
            call_id: fresh("call-"),
            local: format!("<sip:{}@{host}>;tag={local_tag}", profile.name),
            local_tag,
            remote: format!("<sip:callee@{}>", host_port(to)),
            remote_tag: None,
            remote_target: format!("sip:callee@{}", host_port(to)),
            next_hop: to,
            local_cseq: profile.first_cseq.wrapping_sub(1),
            remote_cseq: None,
            remote_sdp: None,
            interval: None,
            deadline: None,
            confirmed: false,
            over: false,
        }
    }

    /// One that an INVITE begins; `None` where it lacks what a dialog needs.
    pub(super) fn called(profile: &Profile, invite: &Message, from: SocketAddr) -> Option<Self> {
        let local_tag = fresh("t");
        Some(Self {
            call_id: invite.header("Call-ID")?.into(),
            local: format!("{};tag={local_tag}", invite.header("To")?),
            local_tag,
            remote: invite.header("From")?.into(),
            remote_tag: Some(invite.param("From", "tag")?.into()),
            remote_target: invite.uri("Contact")?.into(),
            next_hop: from,
            local_cseq: profile.first_cseq.wrapping_sub(1),
            remote_cseq: Some(invite.cseq()?.number),
            remote_sdp: Some(invite.body.clone()),
            interval: None,
            deadline: None,
            confirmed: false,
            over: false,
        })
    }

    /// Whether a request belongs here.
    pub(super) fn owns(&self, request: &Message) -> bool {
        request.header("Call-ID") == Some(self.call_id.as_str())
            && request.param("To", "tag") == Some(self.local_tag.as_str())
            && request.param("From", "tag") == self.remote_tag.as_deref()
    }

    /// A request with the given number.
    pub(super) fn request(&self, method: &str, number: u32, own: SocketAddr) -> Message {
        Message::request(method, &self.remote_target)
            .with("Via", format_args!("SIP/2.0/UDP {};branch={};rport", host_port(own), fresh("z9hG4bK")))
            .with("Max-Forwards", 70)
            .with("From", &self.local)
            .with("To", &self.remote)
            .with("Call-ID", &self.call_id)
            .with("CSeq", format_args!("{number} {method}"))
    }

    /// A request with the next number.
    pub(super) fn next_request(&mut self, method: &str, own: SocketAddr) -> Message {
        self.local_cseq = self.local_cseq.wrapping_add(1);
        self.request(method, self.local_cseq, own)
    }

    /// Starts the interval anew, `None` for no timer.
    pub(super) fn restart(&mut self, interval_s: Option<u32>, profile: &Profile) {
        self.interval = interval_s.map(|seconds| Duration::from_secs(seconds.into()));
        let patience = self.interval.and_then(|interval| match profile.enforce {
            Enforce::No => None,
            Enforce::AtExpiry => Some(interval),
            Enforce::Before => Some(interval - (interval / 3).min(Duration::from_secs(32))),
        });
        let patience = [patience, profile.drops_after].into_iter().flatten().min();
        self.deadline = patience.map(|patience| Instant::now() + patience);
    }
}

/// Contact of everything that the agent sends.
pub(super) fn contact(profile: &Profile, own: SocketAddr) -> String {
    format!("<sip:{}@{}>", profile.name, host_port(own))
}

/// Allow of everything that the agent sends.
pub(super) fn allow(profile: &Profile) -> &'static str {
    match profile.update {
        Update::Accept | Update::ListAndRefuse(_) | Update::ListAndIgnore => {
            "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE"
        }
        Update::Unknown => "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO",
    }
}

/// The agent's SDP, whose version changes with it.
pub(super) fn sdp(profile: &Profile, own: SocketAddr) -> String {
    let family = match own.ip() {
        IpAddr::V4(_) => "IP4",
        IpAddr::V6(_) => "IP6",
    };
    let (ip, port, version) = (own.ip(), profile.media_port, 1 + profile.media_port - MEDIA_PORT);
    let ice = if profile.ice { ice(family, ip, port) } else { String::new() };
    format!(
        "v=0\r\no={} 77 {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n{ice}",
        profile.name
    )
}

/// Candidates for the audio, and a video stream with as many.
fn ice(family: &str, ip: IpAddr, port: u16) -> String {
    let candidate = |number: u16| {
        format!(
            "a=candidate:{number} 1 UDP {} {ip} {} typ host generation 0 network-id 1\r\n",
            2_130_706_431 - u32::from(number),
            port + number
        )
    };
    let candidates: String = (0..34).map(candidate).collect();
    let login = "a=ice-ufrag:F7gI\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8g\r\n";
    let formats = "a=rtpmap:96 H264/90000\r\na=fmtp:96 profile-level-id=42e01f;packetization-mode=1\r\n";
    format!(
        "{login}{candidates}m=video {} RTP/AVP 96\r\nc=IN {family} {ip}\r\n{formats}{login}a=sendrecv\r\n{candidates}",
        port + 2
    )
}
