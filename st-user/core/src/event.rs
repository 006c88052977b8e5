//! What the engine tells the world: one vocabulary for the daemon and for replay.

use std::{borrow::Cow, fmt, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};

use crate::Time;

/// One of the two ends of a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The unmodified SIP server on this host.
    Server,
    /// The other end.
    Peer,
}

impl Side {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Server => Self::Peer,
            Self::Peer => Self::Server,
        }
    }
}

/// Who did, or should have done, what an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The server itself.
    Server,
    /// The peer.
    Peer,
    /// sipst, in the server's name.
    Sipst,
}

impl From<Side> for By {
    fn from(side: Side) -> Self {
        match side {
            Side::Server => Self::Server,
            Side::Peer => Self::Peer,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A dialog was established by a 2xx to an INVITE, or one that is older was seen for the first time.
    SessionStarted,
    /// A 2xx set the session interval and the refresher for the first time, or changed one of them.
    TimerNegotiated,
    /// A 2xx to a later INVITE or UPDATE started the interval anew.
    SessionRefreshed,
    /// The moment at which somebody has to act has come.
    RefreshDue,
    /// A refresh of sipst's own has left the host.
    RefreshSent,
    /// It was answered by a 2xx.
    RefreshSucceeded,
    /// No further attempt is made before the next interval, or none can be made: alert.
    RefreshFailed,
    /// The peer has to refresh, and it is known that its refreshes come to nothing here: alert, as soon as that is agreed.
    AtRisk,
    /// Whoever has to refresh has not: alert. Where that is the peer, no refresh of its was seen on this host.
    RefreshOverdue,
    /// The peer has sent its refresh, and the server has turned it down: alert.
    RefreshRejected,
    /// The peer has sent its refresh, and the server says nothing to it: alert.
    RefreshIgnored,
    /// The peer may hang up soon and nothing has refreshed the session: alert.
    SessionExpiring,
    /// The interval has run out: alert.
    SessionExpired,
    /// The dialog is over.
    SessionEnded,
    /// An operator has told sipst to keep its hands off the dialog.
    SessionHeld,
    /// An operator has ended that.
    SessionReleased,
    /// What was negotiated cannot be relied upon or is not acted upon: alert.
    NegotiationFault,
    /// Packets were lost before they could be read, or the capture lacks some: alert.
    CaptureLoss,
    /// The server has turned a refresh of the peer's down, and sipst has answered it in the server's name.
    RefreshAnswered,
    /// The server has turned a request of the peer's down that sipst would have answered in its name if it were a refresh and nothing
    /// else, and nothing were in the way.
    AnswerWithheld,
    /// The server has accepted a re-INVITE in the peer's name, which says where the peer's media are now.
    ServerTold,
    /// Refreshes on a trunk come to nothing: but for calls that were refreshed before, and one other now and then, no more are
    /// sent there: alert.
    BreakerOpened,
    /// A refresh on that trunk succeeded: they are sent again.
    BreakerClosed,
    /// A session has expired, and RTP flows in it all the same: it is never hung up: alert.
    ExpiredMediaFlowing,
    /// A BYE of sipst's own has left, to one of the sides in the other's name: alert.
    ByeSent,
    /// None was sent though one was asked for, or it had no answer, or not a good one: alert.
    ByeFailed,
    /// What is known of the calls is not kept on disk, or what an earlier run had kept could not be read: alert.
    StateNotKept,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::SessionStarted,
        Self::TimerNegotiated,
        Self::SessionRefreshed,
        Self::RefreshDue,
        Self::RefreshSent,
        Self::RefreshSucceeded,
        Self::RefreshFailed,
        Self::AtRisk,
        Self::RefreshOverdue,
        Self::RefreshRejected,
        Self::RefreshIgnored,
        Self::SessionExpiring,
        Self::SessionExpired,
        Self::SessionEnded,
        Self::SessionHeld,
        Self::SessionReleased,
        Self::NegotiationFault,
        Self::CaptureLoss,
        Self::RefreshAnswered,
        Self::AnswerWithheld,
        Self::ServerTold,
        Self::BreakerOpened,
        Self::BreakerClosed,
        Self::ExpiredMediaFlowing,
        Self::ByeSent,
        Self::ByeFailed,
        Self::StateNotKept,
    ];

    /// Whether an operator wants to be told at once.
    pub const fn is_alert(self) -> bool {
        match self {
            Self::AtRisk
            | Self::RefreshOverdue
            | Self::RefreshRejected
            | Self::RefreshIgnored
            | Self::RefreshFailed
            | Self::SessionExpiring
            | Self::SessionExpired
            | Self::NegotiationFault
            | Self::CaptureLoss
            | Self::BreakerOpened
            | Self::ExpiredMediaFlowing
            | Self::ByeSent
            | Self::ByeFailed
            | Self::StateNotKept => true,
            Self::SessionStarted
            | Self::TimerNegotiated
            | Self::SessionRefreshed
            | Self::RefreshDue
            | Self::RefreshSent
            | Self::RefreshSucceeded
            | Self::SessionEnded
            | Self::SessionHeld
            | Self::SessionReleased
            | Self::ServerTold
            | Self::RefreshAnswered
            | Self::AnswerWithheld
            | Self::BreakerClosed => false,
        }
    }

    /// The name in events, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SessionStarted => "session_started",
            Self::TimerNegotiated => "timer_negotiated",
            Self::SessionRefreshed => "session_refreshed",
            Self::RefreshDue => "refresh_due",
            Self::RefreshSent => "refresh_sent",
            Self::RefreshSucceeded => "refresh_succeeded",
            Self::RefreshFailed => "refresh_failed",
            Self::AtRisk => "at_risk",
            Self::RefreshOverdue => "refresh_overdue",
            Self::RefreshRejected => "refresh_rejected",
            Self::RefreshIgnored => "refresh_ignored",
            Self::SessionExpiring => "session_expiring",
            Self::SessionExpired => "session_expired",
            Self::SessionEnded => "session_ended",
            Self::SessionHeld => "session_held",
            Self::SessionReleased => "session_released",
            Self::NegotiationFault => "negotiation_fault",
            Self::CaptureLoss => "capture_loss",
            Self::ServerTold => "server_told",
            Self::RefreshAnswered => "refresh_answered",
            Self::AnswerWithheld => "answer_withheld",
            Self::BreakerOpened => "breaker_opened",
            Self::BreakerClosed => "breaker_closed",
            Self::ExpiredMediaFlowing => "expired_media_flowing",
            Self::ByeSent => "bye_sent",
            Self::ByeFailed => "bye_failed",
            Self::StateNotKept => "state_not_kept",
        }
    }
}

/// What a side did against RFC 4028 though sipst copes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Breach {
    /// The side that the message came from.
    pub by: Side,
    /// What: one `snake_case` word from the table in the documentation.
    pub reason: &'static str,
}

/// What names a dialog, shared by all that is told of it. Serialised, bytes that are not UTF-8 are replaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    /// Call-ID, the server's tag and the peer's, one behind the other, as on the wire.
    text: Box<[u8]>,
    /// Where the tags begin.
    tags: [usize; 2],
    /// The server's address.
    pub server: SocketAddr,
    /// The peer's address: the next hop, where proxies are between.
    pub peer: SocketAddr,
}

impl Names {
    /// From the Call-ID and the tags as on the wire.
    pub fn new(call_id: &[u8], local_tag: &[u8], remote_tag: &[u8], server: SocketAddr, peer: SocketAddr) -> Self {
        let tags = [call_id.len(), call_id.len() + local_tag.len()];
        Self { text: [call_id, local_tag, remote_tag].concat().into(), tags, server, peer }
    }

    /// The Call-ID.
    pub fn call_id(&self) -> &[u8] {
        &self.text[..self.tags[0]]
    }

    /// The server's tag.
    pub fn local_tag(&self) -> &[u8] {
        &self.text[self.tags[0]..self.tags[1]]
    }

    /// The peer's tag.
    pub fn remote_tag(&self) -> &[u8] {
        &self.text[self.tags[1]..]
    }

    /// That of one side.
    pub fn tag(&self, side: Side) -> &[u8] {
        match side {
            Side::Server => self.local_tag(),
            Side::Peer => self.remote_tag(),
        }
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Names", 5)?;
        fields.serialize_field("call_id", &String::from_utf8_lossy(self.call_id()))?;
        fields.serialize_field("local_tag", &String::from_utf8_lossy(self.local_tag()))?;
        fields.serialize_field("remote_tag", &String::from_utf8_lossy(self.remote_tag()))?;
        fields.serialize_field("server", &self.server)?;
        fields.serialize_field("peer", &self.peer)?;
        fields.end()
    }
}

fn flat<S: Serializer>(names: &Option<Arc<Names>>, serializer: S) -> Result<S::Ok, S::Error> {
    names.as_deref().serialize(serializer)
}

fn in_seconds<S: Serializer>(lag: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    lag.map(|lag| lag.as_secs_f64()).serialize(serializer)
}

/// One event, serialised as one JSON object; absent fields are left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// When.
    pub time: Time,
    /// What.
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// The dialog; absent where an event concerns no one dialog. Serialised as fields of the event.
    #[serde(flatten, serialize_with = "flat")]
    pub names: Option<Arc<Names>>,
    /// Name of the trunk that matched, `default` where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// The session interval in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u32>,
    /// Who must refresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresher: Option<Side>,
    /// Who did it, or should have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// Method of the request in question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'static str>,
    /// Status of the response in question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// When the peer may hang up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// How long after it was due it was done, in seconds.
    #[serde(rename = "lag_s", serialize_with = "in_seconds", skip_serializing_if = "Option::is_none")]
    pub lag: Option<Duration>,
    /// Why: one `snake_case` word from the table in the documentation, then, after a colon, details where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// What came to light since the dialog's last event, each once for each dialog. Wakes nobody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub breaches: Vec<Breach>,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.by, self.reason)
    }
}

impl Event {
    /// An event that tells no more than that it happened.
    pub const fn new(time: Time, kind: EventKind) -> Self {
        Self {
            time,
            kind,
            names: None,
            trunk: None,
            interval_s: None,
            refresher: None,
            by: None,
            method: None,
            status: None,
            deadline: None,
            lag: None,
            reason: None,
            breaches: Vec::new(),
        }
    }

    /// The dialog's Call-ID; bytes that are not UTF-8 are replaced.
    pub fn call_id(&self) -> Option<Cow<'_, str>> {
        self.text(Names::call_id)
    }

    /// The server's tag, likewise.
    pub fn local_tag(&self) -> Option<Cow<'_, str>> {
        self.text(Names::local_tag)
    }

    /// The peer's tag, likewise.
    pub fn remote_tag(&self) -> Option<Cow<'_, str>> {
        self.text(Names::remote_tag)
    }

    fn text(&self, part: fn(&Names) -> &[u8]) -> Option<Cow<'_, str>> {
        self.names.as_deref().map(part).map(String::from_utf8_lossy)
    }

    /// The server's address.
    pub fn server(&self) -> Option<SocketAddr> {
        self.names.as_ref().map(|names| names.server)
    }

    /// The peer's.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.names.as_ref().map(|names| names.peer)
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Peer => "peer",
            Self::Sipst => "sipst",
        })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        By::from(*self).fmt(f)
    }
}
