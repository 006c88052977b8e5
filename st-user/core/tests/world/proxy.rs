//! A proxy in the path that enforces an interval of its own, as Kamailio's `sst` and `dialog` and OpenSIPS do: stateless
//! but for the clock, with BYEs to both ends when it runs out.

use std::collections::BTreeSet;

use super::{
    agent::{S, Us},
    sip::{Expires, Msg, Party, Role, Verb},
};

#[derive(Default)]
pub(crate) struct Proxy {
    host: String,
    interval: u32,
    kill_at: Option<Us>,
    /// When it ended the call.
    pub(crate) killed: Option<Us>,
    over: bool,
    counted: BTreeSet<String>,
    /// Party, Contact and last number of the server's and the peer's.
    ends: [(Party, String, u32); 2],
    call_id: String,
}

impl Proxy {
    pub(crate) fn new(host: &str, interval: u32) -> Self {
        Self { host: host.into(), interval, ..Self::default() }
    }

    /// Passes a message on.
    pub(crate) fn pass(&mut self, now: Us, mut msg: Msg, from_server: bool) -> Option<Msg> {
        self.learn(&msg, from_server);
        if msg.is_request() {
            let own = format!("<sip:{};lr>", self.host);
            msg.routes.retain(|route| *route != own);
            if msg.verb == Verb::Invite && msg.to.tag.is_none() {
                msg.record_routes.insert(0, own);
            }
            self.over |= msg.verb == Verb::Bye;
            let branch = format!("z9hG4bKp{}", msg.branch());
            msg.vias.insert(0, (self.host.clone(), branch));
            return Some(msg);
        }
        let (_, branch) = msg.vias.remove(0);
        if msg.vias.is_empty() {
            // An answer to its own BYE.
            return None;
        }
        let counts = matches!(msg.verb, Verb::Invite | Verb::Update) && (200..300).contains(&msg.status);
        if counts {
            if msg.expires.is_none() {
                msg.expires = Some(Expires { seconds: self.interval, refresher: Some(Role::Uac) });
                msg.requires_timer = true;
            }
            if self.counted.insert(branch) && !self.over {
                let seconds = msg.expires.map_or(self.interval, |expires| expires.seconds);
                self.kill_at = Some(now + Us::from(seconds) * S);
            }
        }
        Some(msg)
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
        [0, 1].map(|to| {
            let (from, number) = (&self.ends[1 - to].0, self.ends[1 - to].2 + 1);
            Msg {
                verb: Verb::Bye,
                status: 0,
                uri: self.ends[to].1.clone(),
                vias: vec![(self.host.clone(), format!("z9hG4bKown{to}{}", self.call_id))],
                routes: Vec::new(),
                record_routes: Vec::new(),
                from: from.clone(),
                to: self.ends[to].0.clone(),
                call_id: self.call_id.clone(),
                number,
                contact: None,
                allows_update: None,
                supports_timer: false,
                requires_timer: false,
                expires: None,
                min_se: None,
                retry_after: None,
                digest: false,
                body: String::new(),
            }
        })
    }
}
