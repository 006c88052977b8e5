//! A peer that makes and takes no call without session timers, and a server that has none: no call comes of it, and that is told
//! with what to do.

use st_tests::{
    Family, Lab, Sipst, Tap,
    agent::{Agent, Profile},
};

use crate::plan::{INTERVAL_S, SOON, config};

/// Two ends that come to no call.
struct Vain {
    server: Agent,
    peer: Agent,
    sipst: Sipst,
    tap: Tap,
    _lab: Lab,
}

impl Vain {
    fn new(family: Family, attach: &str, rules: &[&str], peer: Profile) -> Self {
        let lab = Lab::new().unwrap();
        let sipst = Sipst::start(&lab.server, &config(attach, rules)).unwrap();
        let tap = Tap::start(&lab.peer, "eth0").unwrap();
        let peer = Agent::start(&lab.peer, (lab.wire.b.ip(family), 5060).into(), peer).unwrap();
        let server = (lab.wire.a.ip(family), 5060).into();
        let server = Agent::start(&lab.server, server, Profile::plain_server()).unwrap();
        Self { server, peer, sipst, tap, _lab: lab }
    }

    fn story(&self) -> String {
        format!("{}\n{}\nsipst {}", self.peer, self.server, self.sipst.report())
    }

    /// The INVITE of one end's gets that answer.
    fn is_turned_down(&self, caller: &Agent, callee: &Agent, status: u16) {
        caller.call(callee.address());
        assert_eq!(caller.answered("INVITE", SOON).unwrap(), status, "{}", self.story());
    }

    /// What is told of it.
    fn told(&self, reason: &str) -> serde_json::Value {
        let event = self.sipst.event("negotiation_fault", SOON);
        let event = event.unwrap_or_else(|error| panic!("{error:#}\n{}", self.story()));
        assert!(event["reason"].as_str().is_some_and(|told| told.starts_with(reason)), "{event}");
        assert_eq!(event["trunk"], "carrier", "{event}");
        event
    }

    /// Nothing else came of it at either end.
    fn is_clean(&self) {
        assert!(self.peer.faults().is_empty() && self.server.faults().is_empty(), "{}", self.story());
        self.tap.datagrams().unwrap();
    }
}

fn demanding() -> Profile {
    Profile { demands_timers: true, ..Profile::strict_peer(INTERVAL_S, "uas") }
}

#[test]
fn r03_a_peer_that_answers_421_to_the_servers_invite_is_told_once_a_minute_with_the_cure() {
    std::thread::scope(|scope| {
        for (family, attach) in [(Family::V4, "tc"), (Family::V6, "xdp")] {
            scope.spawn(move || {
                let vain = Vain::new(family, attach, &["action: alert"], demanding());
                vain.is_turned_down(&vain.server, &vain.peer, 421);
                let event = vain.told("timer_demanded: 421 to INVITE; switch session timers on at the server");
                assert_eq!((&event["by"], &event["status"]), (&"peer".into(), &421.into()), "{event}");
                vain.is_turned_down(&vain.server, &vain.peer, 421);
                assert_eq!(vain.sipst.count("negotiation_fault"), 1, "{}", vain.story());
                assert_eq!(vain.sipst.count("session_started"), 0, "{}", vain.story());
                vain.is_clean();
            });
        }
    });
}

#[test]
fn r03_a_server_that_answers_420_to_the_peers_invite_is_told_with_the_cure() {
    std::thread::scope(|scope| {
        for (family, attach) in [(Family::V4, "xdp"), (Family::V6, "tc")] {
            scope.spawn(move || {
                let vain = Vain::new(family, attach, &["action: refresh"], demanding());
                vain.is_turned_down(&vain.peer, &vain.server, 420);
                let event = vain.told("timer_refused: 420 to INVITE; switch session timers on at the server");
                assert_eq!((&event["by"], &event["status"]), (&"server".into(), &420.into()), "{event}");
                assert_eq!(vain.sipst.count("session_started"), 0, "{}", vain.story());
                vain.is_clean();
            });
        }
    });
}

/// What the two tests above are held against.
#[test]
fn a_peer_that_only_asks_for_timers_gets_its_call_and_nothing_is_told_of_a_demand() {
    std::thread::scope(|scope| {
        for server_calls in [true, false] {
            scope.spawn(move || {
                let peer = Profile::strict_peer(600, if server_calls { "uac" } else { "uas" });
                let plain = Vain::new(Family::V4, "tc", &["action: refresh"], peer);
                let (caller, callee) =
                    if server_calls { (&plain.server, &plain.peer) } else { (&plain.peer, &plain.server) };
                caller.call(callee.address());
                caller.established(SOON).unwrap();
                plain.sipst.event("session_started", SOON).unwrap();
                assert_eq!(plain.sipst.count("negotiation_fault"), 0, "{}", plain.story());
                plain.is_clean();
            });
        }
    });
}

/// A trunk that is only observed raises no alert.
#[test]
fn where_a_trunk_is_observed_nothing_is_told_of_a_demand() {
    let vain = Vain::new(Family::V4, "tc", &["action: observe"], demanding());
    vain.is_turned_down(&vain.server, &vain.peer, 421);
    vain.is_turned_down(&vain.peer, &vain.server, 420);
    vain.is_turned_down(&vain.server, &vain.peer, 421);
    assert_eq!(vain.sipst.count("negotiation_fault"), 0, "{}", vain.story());
    vain.is_clean();
}
