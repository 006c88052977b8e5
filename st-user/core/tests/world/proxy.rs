//! A proxy in the path that enforces an interval of its own, with BYEs to both ends when it runs out: Kamailio's `sst` and
//! `dialog`, and what RFC 4028 lets a proxy do besides. Stateless but for the clock, and for what it asked for itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    agent::{S, Us},
    faults::{Fault, Tally},
    sip::{Expires, Msg, Party, Role, Verb},
};

/// What it does beside enforcing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As Kamailio: its own interval into the call's first INVITE if that has none, and into the 2xx to it what that INVITE
    /// asked for, with `refresher=uac`, whatever the UAC supports. Later 2xx are let alone, and its clock is its own: a request
    /// in the dialog starts it anew, whatever it is and comes to.
    Inserts,
    /// Its own interval into requests that ask for a longer one, or for none (RFC 4028, section 8.1).
    Lowers,
    /// 422 to requests that ask for less than it wants (section 8.1).
    Refuses,
}

/// What becomes of a message.
pub(crate) enum Passed {
    On(Msg),
    /// It answers itself.
    Back(Msg),
    Nothing,
}

pub(crate) struct Proxy {
    host: String,
    pub(crate) interval: u32,
    manner: Manner,
    kill_at: Option<Us>,
    /// When it ended the call.
    pub(crate) killed: Option<Us>,
    over: bool,
    /// What the last 2xx to the peer says of a timer was put in beyond the server's host.
    pub(crate) unseen: bool,
    /// Branches of first INVITEs, and what goes into the 2xx to them.
    asked: BTreeMap<String, u32>,
    counted: BTreeSet<String>,
    /// Branches of what it has answered itself.
    refused: BTreeSet<String>,
    /// Party, Contact and last number of the server's and the peer's.
    ends: [(Party, String, u32); 2],
    call_id: String,
    pub(crate) tally: Tally,
}

impl Proxy {
    pub(crate) fn new(host: &str, interval: u32, manner: Manner) -> Self {
        Self {
            host: host.into(),
            interval,
            manner,
            kill_at: None,
            killed: None,
            over: false,
            unseen: false,
            asked: BTreeMap::new(),
            counted: BTreeSet::new(),
            refused: BTreeSet::new(),
            ends: Default::default(),
            call_id: String::new(),
            tally: Tally::default(),
        }
    }

    /// Passes a message on.
    pub(crate) fn pass(&mut self, now: Us, msg: Msg, from_server: bool) -> Passed {
        self.learn(&msg, from_server);
        if msg.is_request() { self.request(now, msg) } else { self.response(now, msg, from_server) }
    }

    fn request(&mut self, now: Us, mut msg: Msg) -> Passed {
        let own = format!("<sip:{};lr>", self.host);
        msg.routes.retain(|route| *route != own);
        if msg.verb == Verb::Ack && self.refused.contains(msg.branch()) {
            return Passed::Nothing;
        }
        let first = msg.to.tag.is_none();
        if msg.verb == Verb::Invite && first {
            msg.record_routes.insert(0, own);
        }
        if matches!(msg.verb, Verb::Invite | Verb::Update) {
            // Not below what the request says is the least.
            let lowest = self.interval.max(msg.min_se.unwrap_or(0));
            match (self.manner, msg.expires) {
                (Manner::Lowers, Some(Expires { seconds, refresher })) if seconds > lowest => {
                    self.tally.count(Fault::ProxyLowered);
                    msg.expires = Some(Expires { seconds: lowest, refresher });
                }
                (Manner::Lowers | Manner::Inserts, None) if first => {
                    self.tally.count(Fault::ProxyInserted);
                    msg.expires = Some(Expires { seconds: self.interval, refresher: None });
                    self.asked.insert(msg.branch().into(), self.interval);
                }
                (Manner::Inserts, Some(Expires { seconds, .. })) if first && msg.supports_timer => {
                    self.asked.insert(msg.branch().into(), seconds);
                }
                (Manner::Refuses, Some(Expires { seconds, .. })) if seconds < self.interval && msg.supports_timer => {
                    self.tally.count(Fault::Proxy422);
                    self.refused.insert(msg.branch().into());
                    let mut refusal = msg.response(422, "proxy");
                    refusal.min_se = Some(self.interval);
                    return Passed::Back(refusal);
                }
                _ => {}
            }
        }
        self.over |= msg.verb == Verb::Bye;
        let restarts = self.manner == Manner::Inserts && !first && !matches!(msg.verb, Verb::Ack | Verb::Prack);
        if restarts && self.kill_at.is_some() {
            self.kill_at = Some(now + Us::from(self.interval) * S);
        }
        let branch = format!("z9hG4bKp{}", msg.branch());
        msg.vias.insert(0, (self.host.clone(), branch));
        Passed::On(msg)
    }

    fn response(&mut self, now: Us, mut msg: Msg, from_server: bool) -> Passed {
        let (_, branch) = msg.vias.remove(0);
        if msg.vias.is_empty() {
            // An answer to its own BYE.
            return Passed::Nothing;
        }
        let counts = matches!(msg.verb, Verb::Invite | Verb::Update) && (200..300).contains(&msg.status);
        if counts {
            let inserts = self.manner == Manner::Inserts;
            let wanted = if inserts { self.asked.get(msg.branch()).copied() } else { Some(self.interval) };
            let missing = wanted.filter(|_| msg.expires.is_none());
            if let Some(seconds) = missing {
                self.tally.count(Fault::ProxyInserted);
                msg.expires = Some(Expires { seconds, refresher: Some(Role::Uac) });
                msg.requires_timer = !inserts;
            }
            if self.counted.insert(branch) && !self.over {
                self.unseen = from_server && missing.is_some();
                let said = msg.expires.map(|expires| expires.seconds).filter(|_| !inserts);
                if !inserts || self.kill_at.is_none() {
                    self.kill_at = Some(now + Us::from(said.unwrap_or(self.interval)) * S);
                }
            }
        }
        Passed::On(msg)
    }

    fn learn(&mut self, msg: &Msg, from_server: bool) {
        self.call_id.clone_from(&msg.call_id);
        let sender = usize::from(!from_server);
        let (own, other) = if msg.is_request() { (&msg.from, &msg.to) } else { (&msg.to, &msg.from) };
        for (end, party) in [(sender, own), (1 - sender, other)] {
            if party.tag.is_some() {
                self.ends[end].0 = party.clone();
            }
        }
        if let Some(contact) = &msg.contact {
            self.ends[sender].1.clone_from(contact);
        }
        if msg.is_request() {
            self.ends[sender].2 = self.ends[sender].2.max(msg.number);
        }
    }

    pub(crate) fn due(&self) -> Option<Us> {
        self.kill_at.filter(|_| !self.over)
    }

    /// The interval is over: a BYE for the server and one for the peer.
    pub(crate) fn kill(&mut self, now: Us) -> [Msg; 2] {
        self.over = true;
        self.killed = Some(now);
        self.tally.count(Fault::ProxyKilled);
        [0, 1].map(|to| {
            let (from, number) = (&self.ends[1 - to].0, self.ends[1 - to].2 + 1);
            Msg {
                uri: self.ends[to].1.clone(),
                vias: vec![(self.host.clone(), format!("z9hG4bKown{to}{}", self.call_id))],
                from: from.clone(),
                to: self.ends[to].0.clone(),
                call_id: self.call_id.clone(),
                number,
                ..Msg::blank(Verb::Bye)
            }
        })
    }
}
