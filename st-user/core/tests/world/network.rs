//! The way between the host's edge, a proxy and the peer's phones: loss, copies, delay, outages.

use std::cmp::Reverse;

use rand::RngExt as _;

use super::{
    agent::{MS, Us},
    faults::Fault,
    proxy::Passed,
    sip::Msg,
    world::World,
};

/// Where a packet is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Edge,
    Proxy { from_server: bool },
    Peer,
}

/// When it arrives, its serial number, its call, where, and the bytes.
pub(crate) type Packet = (Us, u64, usize, Place, Vec<u8>);

impl World {
    pub(crate) fn server_says(&mut self, index: usize, bytes: Vec<u8>) {
        let proxied = self.calls[index].proxy.is_some();
        self.travels(index, if proxied { Place::Proxy { from_server: true } } else { Place::Peer }, bytes);
    }

    pub(crate) fn peer_says(&mut self, index: usize, bytes: Vec<u8>) {
        let proxied = self.calls[index].proxy.is_some();
        self.travels(index, if proxied { Place::Proxy { from_server: false } } else { Place::Edge }, bytes);
    }

    /// What the kernel programs turn round comes in at once.
    pub(crate) fn returns(&mut self, index: usize, bytes: Vec<u8>) {
        self.sequence += 1;
        self.packets.push(Reverse((self.now, self.sequence, index, Place::Edge, bytes)));
    }

    /// The proxy's own: one for the server, one for the peer.
    pub(crate) fn proxy_says(&mut self, index: usize, [to_server, to_peer]: [Msg; 2]) {
        let spelling = self.calls[index].server.stack.spelling;
        self.travels(index, Place::Edge, to_server.write(spelling));
        self.travels(index, Place::Peer, to_peer.write(spelling));
    }

    fn travels(&mut self, index: usize, place: Place, bytes: Vec<u8>) {
        let (now, weather) = (self.now, self.plan.weather.clone());
        let proxied = self.calls[index].proxy.is_some();
        let rng = &mut self.calls[index].rng;
        let mut chance = |percent: u32| rng.random_bool(f64::from(percent) / 100.0) && now < weather.calm;
        // The proxy stands next to the peer: what is lost is lost on this host's side of it.
        let far = place == Place::Proxy { from_server: false } || place == Place::Peer && proxied;
        let down = weather.outages.iter().position(|outage| outage.contains(&now) && now < weather.calm);
        let (lost, doubled, late) = (chance(weather.lost), chance(weather.doubled), chance(weather.late));
        let lost = !far && (lost || down.is_some());
        if lost || doubled || late {
            self.calls[index].spoilt = Some(now);
        }
        self.note(index, if lost { "lost on the way to" } else { "to" }, place, &bytes);
        if let Some(outage) = down.filter(|_| lost) {
            if self.outages.insert((index, outage)) {
                self.meets(index, Fault::Outage);
            }
            return;
        }
        if lost {
            return self.meets(index, Fault::PacketLost);
        }
        for (happened, fault) in [(doubled, Fault::PacketDoubled), (late, Fault::PacketLate)] {
            if happened {
                self.meets(index, fault);
            }
        }
        for _ in 0..=u32::from(doubled) {
            let rng = &mut self.calls[index].rng;
            let mut delay = weather.delay + rng.random_range(0..=weather.delay / 4);
            if late {
                delay += rng.random_range(50 * MS..2_000 * MS);
            }
            self.sequence += 1;
            self.packets.push(Reverse((now + delay, self.sequence, index, place, bytes.clone())));
        }
    }

    fn note(&mut self, index: usize, what: &str, place: Place, bytes: &[u8]) {
        let Some(trace) = &mut self.trace else { return };
        let msg = Msg::read(bytes);
        let (Msg { verb, status, number, expires, .. }, branch) = (&msg, msg.origin());
        let seconds = self.now as f64 / 1e6;
        let line = format!("{seconds:.3} c{index} {what} {place:?}: {status} {verb:?} {number} {branch} {expires:?}");
        trace.push(line);
    }

    pub(crate) fn arrives(&mut self, index: usize, place: Place, bytes: &[u8]) {
        let now = self.now;
        self.note(index, "at", place, bytes);
        match place {
            Place::Peer => self.peer_hears(index, &Msg::read(bytes)),
            Place::Proxy { from_server } => {
                let call = &mut self.calls[index];
                let passed = call.proxy.as_mut().map(|proxy| proxy.pass(now, Msg::read(bytes), from_server));
                let spelling = if from_server { call.server.stack.spelling } else { call.peer.stack.spelling };
                match passed {
                    Some(Passed::On(msg)) => {
                        self.travels(index, if from_server { Place::Peer } else { Place::Edge }, msg.write(spelling));
                    }
                    Some(Passed::Back(msg)) => {
                        self.travels(index, if from_server { Place::Edge } else { Place::Peer }, msg.write(spelling));
                    }
                    Some(Passed::Nothing) | None => {}
                }
            }
            Place::Edge => {
                let hop = self.calls[index].hop;
                let heard = self.kernel.ingress(now, hop, bytes);
                let taken = self.kernel.tally.met(Fault::AckTaken) > 0;
                self.kernel_met(index);
                if taken {
                    self.calls[index].judge.ack_taken(&Msg::read(bytes));
                }
                if let Some(bytes) = heard {
                    let call = &mut self.calls[index];
                    if now < self.plan.weather.calm
                        && call.rng.random_bool(f64::from(self.plan.weather.firewall) / 100.0)
                    {
                        (call.spoilt, call.kept) = (Some(now), true);
                        return self.meets(index, Fault::Firewall);
                    }
                    call.server.hear(now, &Msg::read(&bytes));
                    self.choose(index);
                }
            }
        }
        self.speak(index);
    }

    /// Each phone hears what is for it: the INVITE that rings at both, and what has its tag.
    fn peer_hears(&mut self, index: usize, msg: &Msg) {
        let now = self.now;
        let call = &mut self.calls[index];
        let own = if msg.is_request() { &msg.to.tag } else { &msg.from.tag };
        let for_fork = |fork: &super::agent::Agent| own.as_ref().is_none_or(|tag| *tag == fork.tag);
        if let Some(fork) = call.fork.as_mut().filter(|fork| for_fork(fork)) {
            fork.hear(now, msg);
        }
        if call.fork.is_none() || own.as_ref().is_none_or(|tag| *tag == call.peer.tag) {
            call.peer.hear(now, msg);
        }
    }
}
