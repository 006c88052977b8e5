//! What is said over the control socket: one JSON object a line, requests one way, answers the other.
//!
//! The answers to one request are any number of [`Answer::Session`], [`Answer::Call`], [`Answer::Event`] and [`Answer::Lost`],
//! then one [`Answer::Done`] or [`Answer::Error`]. Unknown fields of an answer are to be passed over: later versions may have more.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use st_core::{
    Action, Event, Side, Time,
    engine::{Standing, View},
};

/// The longest request, in bytes, without the line's end.
pub const MAX_REQUEST: usize = 16 << 10;

/// The most sessions that one request can have in the order of their deadlines.
pub const MAX_ORDERED: usize = 10_000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the daemon does.
    Status {},
    /// Sessions.
    Sessions {
        /// Which of them.
        #[serde(default)]
        only: Only,
        /// In which order.
        #[serde(default)]
        order: Order,
        /// How many at most; with [`Order::Deadline`] at most [`MAX_ORDERED`], and 1,000 where nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// One call, with what happened in it.
    Show {
        /// Which.
        call_id: String,
    },
    /// A refresh now.
    Refresh {
        /// Of which call.
        call_id: String,
    },
    /// Nothing more is to be sent in a call.
    Hold {
        /// Which.
        call_id: String,
    },
    /// The end of that.
    Release {
        /// Which call.
        call_id: String,
    },
    /// Events: those that are kept, or all from now on.
    Events {
        /// Which of them.
        #[serde(default)]
        only: OnlyEvents,
        /// Whether those that come.
        #[serde(default)]
        follow: bool,
    },
    /// The configuration is to be read anew.
    Reload {},
}

/// An order of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The nearest deadline first; those without one last.
    #[default]
    Deadline,
    /// The oldest first; without end where no limit is set.
    Age,
}

/// Which sessions: those that all of this is true of. Such that are over are shown only where they are asked for by their state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Only {
    /// Of this trunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// With a peer in this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpNet>,
    /// Whose deadline comes within so many seconds, or has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_within_s: Option<u64>,
    /// In this state: a word of [`Standing::name`], or `held`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// With this in their Call-ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// With this Call-ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
}

/// The word that asks for sessions that are held, whatever their state.
pub const HELD: &str = "held";

impl Only {
    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        let state = self.state.as_deref().filter(|state| *state != HELD)?;
        let names = Standing::ALL.map(Standing::name);
        (!names.contains(&state)).then(|| format!("`{state}` is no state: there are {}, {HELD}", names.join(", ")))
    }

    pub(crate) fn covers(&self, view: &View<'_>, now: Time) -> bool {
        let Self { trunk, peer, due_within_s, state, text, call_id } = self;
        let call = || String::from_utf8_lossy(view.names.call_id());
        trunk.as_ref().is_none_or(|trunk| trunk == view.trunk)
            && peer.is_none_or(|net| net.contains(&view.names.peer.ip()))
            && due_within_s.is_none_or(|within| {
                let until = now + std::time::Duration::from_secs(within);
                view.state != Standing::Ended && view.deadline.is_some_and(|deadline| deadline <= until)
            })
            && match state.as_deref() {
                None => view.state != Standing::Ended || call_id.is_some(),
                Some(HELD) => view.held && view.state != Standing::Ended,
                Some(state) => state == view.state.name(),
            }
            && call_id.as_ref().is_none_or(|wanted| *wanted == call())
            && text.as_ref().is_none_or(|text| call().contains(text.as_str()))
    }
}

/// Which events: those that all of this is true of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnlyEvents {
    /// Of one of these kinds; of any where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Alerts alone.
    pub alerts: bool,
    /// Of this trunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// With a peer in this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpNet>,
    /// Of this call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
}

impl OnlyEvents {
    pub(crate) fn covers(&self, event: &Event) -> bool {
        let Self { kinds, alerts, trunk, peer, call_id } = self;
        (kinds.is_empty() || kinds.iter().any(|kind| kind == event.kind.name()))
            && (!alerts || event.kind.is_alert())
            && trunk.as_ref().is_none_or(|trunk| event.trunk.as_ref() == Some(trunk))
            && peer.is_none_or(|net| event.peer().is_some_and(|peer| net.contains(&peer.ip())))
            && call_id.as_ref().is_none_or(|wanted| event.call_id().is_some_and(|call_id| *wanted == call_id))
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A session.
    Session(Box<Row>),
    /// A session with all that is known of it.
    Call(Box<Call>),
    /// An event, as `sipst run --json` prints it.
    Event(serde_json::Value),
    /// So many events were left out here: they were read too slowly.
    Lost(u64),
    /// The end: what was asked for is done.
    Done(serde_json::Value),
    /// The end: it is not.
    Error(Failure),
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One `snake_case` word.
    pub word: String,
    /// For people.
    pub message: String,
}

impl Failure {
    pub(crate) fn new(word: &str, message: impl Into<String>) -> Self {
        Self { word: word.into(), message: message.into() }
    }
}

/// A session. Times as in events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Bytes that are not UTF-8 are replaced.
    pub call_id: String,
    /// The server's tag.
    pub local_tag: String,
    /// The peer's tag.
    pub remote_tag: String,
    /// The server's address.
    pub server: SocketAddr,
    /// The next hop.
    pub peer: SocketAddr,
    /// Its trunk, `default` where none covers it.
    pub trunk: String,
    /// What is done about it: `observe`, `alert` or `refresh`.
    pub action: String,
    /// Where it stands.
    pub state: String,
    /// Who called: `server` or `peer`.
    pub caller: String,
    /// When it began.
    pub started: String,
    /// How long ago that was, in seconds.
    pub age_s: u64,
    /// When it was last heard of.
    pub heard: String,
    /// The session interval in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u32>,
    /// What the trunk assumes in place of that, in seconds, by `assume_interval`: the moments are by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assumed_s: Option<u32>,
    /// Who must refresh: `server` or `peer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresher: Option<String>,
    /// When somebody has to act, or should have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<String>,
    /// When the peer may hang up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// When the interval runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Seconds until the deadline, below zero where it has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_s: Option<f64>,
    /// Whether sipst was told to keep its hands off it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Whether this host only passes it on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relayed: bool,
    /// Whether its INVITE was not seen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mid_call: bool,
    /// Whether it may be over without that having been seen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsure: bool,
    /// Whether a refresh of sipst's has succeeded in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proven: bool,
}

impl Row {
    /// `told` turns the engine's time into what people are told.
    pub(crate) fn new(view: &View<'_>, now: Time, told: impl Fn(Time) -> Time) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let at = |time: Time| told(time).to_string();
        let left = |deadline: Time| {
            let ahead = deadline.since(now).as_secs_f64();
            if ahead > 0.0 { ahead } else { -now.since(deadline).as_secs_f64() }
        };
        // Milliseconds are enough for people, and shorter.
        let left = |deadline| (left(deadline) * 1e3).round() / 1e3;
        Self {
            call_id: text(view.names.call_id()),
            local_tag: text(view.names.local_tag()),
            remote_tag: text(view.names.remote_tag()),
            server: view.names.server,
            peer: view.names.peer,
            trunk: view.trunk.into(),
            action: action(view.action).into(),
            state: view.state.name().into(),
            caller: side(view.caller).into(),
            started: at(view.started),
            age_s: now.since(view.started).as_secs(),
            heard: at(view.heard),
            interval_s: view.interval_s,
            assumed_s: view.assumed_s,
            refresher: view.refresher.map(|refresher| side(refresher).into()),
            act: view.act.map(at),
            deadline: view.deadline.map(at),
            expires: view.expires.map(at),
            left_s: view.deadline.map(left),
            held: view.held,
            relayed: view.relayed,
            mid_call: view.mid_call,
            unsure: view.unsure,
            proven: view.proven,
        }
    }
}

/// A session with all that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The session.
    #[serde(flatten)]
    pub row: Row,
    /// The method by which sipst would refresh it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_send: Option<String>,
    /// Why it would not: a reason as in events, or `peer_refreshes`, `untimed`, `ended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_not: Option<String>,
    /// What happened in it, as far as it is kept: events, the oldest first.
    pub timeline: Vec<serde_json::Value>,
    /// Since when every event is kept; of earlier ones only alerts may be.
    pub kept_since: String,
}

pub(crate) const fn action(action: Action) -> &'static str {
    match action {
        Action::Observe => "observe",
        Action::Alert => "alert",
        Action::Refresh => "refresh",
    }
}

const fn side(side: Side) -> &'static str {
    match side {
        Side::Server => "server",
        Side::Peer => "peer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_object_each_and_unknown_fields_are_refused() {
        let read = |text: &str| serde_json::from_str::<Request>(text);
        assert_eq!(read(r#"{"do":"status"}"#).unwrap(), Request::Status {});
        let sessions = read(r#"{"do":"sessions","only":{"peer":"192.0.2.0/24","due_within_s":60},"order":"age"}"#);
        let only = Only { peer: Some("192.0.2.0/24".parse().unwrap()), due_within_s: Some(60), ..Only::default() };
        assert_eq!(sessions.unwrap(), Request::Sessions { only, order: Order::Age, limit: None });
        for wrong in [
            r#"{"do":"fly"}"#,
            r#"{"do":"status","now":1}"#,
            r#"{"do":"sessions","only":{"peers":"192.0.2.1"}}"#,
            r#"{"do":"show"}"#,
            r#""status""#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_state_that_there_is_not_is_named_with_those_that_there_are() {
        let only = |state: &str| Only { state: Some(state.into()), ..Only::default() };
        assert_eq!(only("overdue").fault(), None);
        assert_eq!(only("held").fault(), None);
        assert!(only("late").fault().unwrap().contains("overdue, expiring"));
    }
}
