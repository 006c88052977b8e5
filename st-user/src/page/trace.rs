//! The messages that were seen lately, for a call's ladder: who sent what to whom, and of what it said the session timer alone.
//! Kept only where the page is on, and of all calls together.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
};

use serde::Serialize;
use st_core::{
    Direction, Packet, Time,
    message::{Message, MethodName, Role},
};

/// Messages that are kept; the oldest go.
pub(crate) const MESSAGES: usize = 32_768;

/// Messages of one call that are shown: the latest.
pub(crate) const SHOWN: usize = 500;

/// How far back a refusal is looked for that the next response takes the place of.
const LOOKED_BACK: usize = 256;

/// An end of an arrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    Server,
    Sipst,
    Peer,
}

/// A message.
#[derive(Clone, Debug)]
struct Seen {
    time: Time,
    /// Its Call-ID, hashed under a key of this run's.
    call: u64,
    from: End,
    to: End,
    status: Option<u16>,
    method: MethodName,
    number: Option<u32>,
    timer: Option<(u32, Option<Role>)>,
    /// Whether it has a session description.
    sdp: bool,
}

/// A message as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Step {
    pub(crate) time: String,
    pub(crate) from: End,
    pub(crate) to: End,
    /// Of a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    pub(crate) method: &'static str,
    /// Its CSeq number, as the side has it that it came from or goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interval_s: Option<u32>,
    /// `uac` or `uas`, as it stands there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refresher: Option<&'static str>,
    pub(crate) sdp: bool,
}

/// The latest messages.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    on: bool,
    messages: VecDeque<Seen>,
    keys: RandomState,
}

impl Trace {
    /// Keeps messages from now on, or forgets all of them and keeps none.
    pub(crate) fn keep(&mut self, on: bool) {
        self.on = on;
        if !on {
            self.messages = VecDeque::new();
        }
    }

    /// Keeps one; `held`: the server's refusal was taken off the wire.
    pub(crate) fn saw(&mut self, time: Time, packet: &Packet<'_>, held: bool) {
        if !self.on {
            return;
        }
        let Ok(message) = Message::scan(packet.bytes, packet.truncated) else { return };
        let (Some(call_id), Some(cseq)) = (message.call_id(), message.cseq()) else { return };
        let status = message.status();
        let call = self.keys.hash_one(call_id);
        let via = message.top_via();
        let ours = via.as_ref().is_some_and(|via| via.our_token().is_some());
        let in_the_peers_name = via.as_ref().is_some_and(|via| via.peer_token().is_some());
        let (from, to) = match (status.is_some(), packet.direction) {
            (false, _) if ours => (End::Sipst, End::Peer),
            (true, _) if ours => (End::Peer, End::Sipst),
            (false, _) if in_the_peers_name => (End::Sipst, End::Server),
            (true, _) if in_the_peers_name || held => (End::Server, End::Sipst),
            (true, Direction::Egress) if self.was_held(call, cseq.number) => (End::Sipst, End::Peer),
            (_, Direction::Egress) => (End::Server, End::Peer),
            (_, Direction::Ingress) => (End::Peer, End::Server),
        };
        let timer = message.session_expires().and_then(Result::ok);
        if self.messages.len() >= MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(Seen {
            time,
            call,
            from,
            to,
            status,
            method: message.request_method().unwrap_or(cseq.method),
            number: Some(cseq.number),
            timer: timer.map(|timer| (timer.interval_s, timer.refresher)),
            sdp: message.is_sdp(),
        });
    }

    /// Whether the server's own answer to that request was held back: what leaves then is sipst's.
    fn was_held(&self, call: u64, number: u32) -> bool {
        let mut latest = self.messages.iter().rev().take(LOOKED_BACK);
        latest.any(|seen| {
            seen.call == call && seen.number == Some(number) && (seen.from, seen.to) == (End::Server, End::Sipst)
        })
    }

    /// The latest of a call, the oldest first. `told` turns the engine's time into what people are told.
    pub(crate) fn of(&self, call_id: &[u8], told: impl Fn(Time) -> Time) -> Vec<Step> {
        let call = self.keys.hash_one(call_id);
        let mut steps: Vec<Step> = self
            .messages
            .iter()
            .rev()
            .filter(|seen| seen.call == call)
            .take(SHOWN)
            .map(|seen| Step {
                time: told(seen.time).to_string(),
                from: seen.from,
                to: seen.to,
                status: seen.status,
                method: seen.method.name(),
                number: seen.number,
                interval_s: seen.timer.map(|(interval_s, _)| interval_s),
                refresher: seen.timer.and_then(|(_, refresher)| refresher).map(|role| match role {
                    Role::Uac => "uac",
                    Role::Uas => "uas",
                }),
                sdp: seen.sdp,
            })
            .collect();
        steps.reverse();
        steps
    }

    /// How many are kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.messages.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(first: &str, branch: &str, call_id: &str, number: u32, rest: &str) -> String {
        format!(
            "{first}\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{branch}\r\nCall-ID: {call_id}\r\nCSeq: {number} UPDATE\r\n\
             {rest}Content-Length: 0\r\n\r\n"
        )
    }

    fn saw(trace: &mut Trace, micros: u64, direction: Direction, held: bool, text: &str) {
        let packet = Packet {
            direction,
            server: "192.0.2.1:5060".parse().unwrap(),
            peer: "203.0.113.1:5060".parse().unwrap(),
            transport: st_core::Transport::Udp,
            interface: 0,
            tos: 0,
            ttl: 64,
            cookie: 0,
            truncated: false,
            bytes: text.as_bytes(),
        };
        trace.saw(Time::from_micros(micros), &packet, held);
    }

    fn ways(trace: &Trace, call_id: &str) -> Vec<(End, End, Option<u16>)> {
        trace.of(call_id.as_bytes(), |time| time).iter().map(|step| (step.from, step.to, step.status)).collect()
    }

    #[test]
    fn each_message_is_an_arrow_between_those_who_sent_and_got_it() {
        let mut trace = Trace::default();
        trace.keep(true);
        let request = "UPDATE sip:a SIP/2.0";
        let (refusal, good) = ("SIP/2.0 405 No", "SIP/2.0 200 OK");
        let timer = "Session-Expires: 90;refresher=uac\r\n";
        saw(&mut trace, 1, Direction::Egress, false, &message(request, "a", "x", 1, timer));
        saw(&mut trace, 2, Direction::Ingress, false, &message(good, "a", "x", 1, ""));
        saw(&mut trace, 3, Direction::Ingress, false, &message(request, "b", "x", 7, ""));
        saw(&mut trace, 4, Direction::Egress, true, &message(refusal, "b", "x", 7, ""));
        saw(&mut trace, 5, Direction::Egress, false, &message(good, "b", "x", 7, ""));
        saw(&mut trace, 6, Direction::Egress, false, &message(good, "c", "y", 7, ""));
        let (server, sipst, peer) = (End::Server, End::Sipst, End::Peer);
        assert_eq!(
            ways(&trace, "x"),
            [
                (server, peer, None),
                (peer, server, Some(200)),
                (peer, server, None),
                (server, sipst, Some(405)),
                (sipst, peer, Some(200)),
            ]
        );
        assert_eq!(ways(&trace, "y"), [(server, peer, Some(200))]);
        let first = &trace.of(b"x", |time| time)[0];
        assert_eq!((first.method, first.interval_s, first.refresher), ("UPDATE", Some(90), Some("uac")));
    }

    #[test]
    fn where_the_page_is_off_nothing_is_kept_and_what_is_kept_has_a_limit() {
        let mut trace = Trace::default();
        let one = message("UPDATE sip:a SIP/2.0", "a", "x", 1, "");
        saw(&mut trace, 1, Direction::Egress, false, &one);
        assert_eq!(trace.len(), 0);
        trace.keep(true);
        for micros in 0..MESSAGES as u64 + 10 {
            saw(&mut trace, micros, Direction::Egress, false, &one);
        }
        saw(&mut trace, 9, Direction::Egress, false, "no message");
        assert_eq!((trace.len(), trace.of(b"x", |time| time).len()), (MESSAGES, SHOWN));
        trace.keep(false);
        assert_eq!(trace.len(), 0);
    }
}
