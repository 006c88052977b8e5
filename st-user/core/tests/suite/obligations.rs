//! Who must act, with a server that ignores RFC 4028: the obligation matrix, and what is told of it.

use std::time::Duration;

use crate::sim::{self, Call, Sim, manners, sdp};
use st_core::{
    Action, By, DomainPattern, EventKind,
    EventKind::*,
    Matcher, Policy, Rules, Side, Trunk,
    engine::{Limits, Mode},
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

/// Events after the start.
fn after_start(sim: &Sim) -> Vec<(EventKind, Option<By>)> {
    sim.events.iter().skip(2).map(|event| (event.kind, event.by)).collect()
}

fn seconds(sim: &Sim, kind: EventKind) -> u64 {
    sim.last(kind).time.since(sim.events[0].time).as_secs()
}

#[test]
fn f24_alert_tells_that_the_server_lets_the_session_run_out_and_sends_nothing() {
    let mut sim = Sim::new(Action::Alert);
    sim.call("a", Side::Server, UAC_90);
    sim.secs(200);
    assert_eq!(
        after_start(&sim),
        [
            (RefreshDue, Some(By::Server)),
            (RefreshOverdue, Some(By::Server)),
            (SessionExpiring, Some(By::Server)),
            (SessionExpired, None)
        ]
    );
    assert_eq!([RefreshDue, SessionExpiring, SessionExpired].map(|kind| seconds(&sim, kind)), [45, 52, 90]);
    let deadline = sim.last(SessionExpiring).deadline.unwrap();
    assert_eq!(deadline.since(sim.events[0].time), Duration::from_secs(60), "R38");
    assert_eq!((sim.arms.len(), sim.injected.len()), (0, 0));
}

#[test]
fn observe_tells_what_happens_raises_no_alert_and_sends_nothing() {
    let mut sim = Sim::new(Action::Observe);
    let mut call = sim.call("a", Side::Server, "Session-Expires: 90\r\n");
    sim.secs(200);
    sim.hang_up(&mut call);
    assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated, RefreshDue, SessionEnded]);
    assert_eq!((sim.arms.len(), sim.injected.len()), (0, 0));
}

#[test]
fn f02_where_the_peer_refreshes_its_silence_is_told_and_nothing_is_sent() {
    for (caller, expires) in [(Side::Server, UAS_90), (Side::Peer, UAC_90)] {
        let mut sim = Sim::new(Action::Refresh);
        sim.call("a", caller, expires);
        assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Peer));
        sim.secs(200);
        assert_eq!(
            after_start(&sim),
            [(RefreshOverdue, Some(By::Peer)), (SessionExpiring, Some(By::Peer)), (SessionExpired, None)]
        );
        assert_eq!(seconds(&sim, RefreshOverdue), 54, "SE/2 and a tenth");
        assert_eq!(sim.arms.len(), 0);
    }
}

#[test]
fn a_peer_that_refreshes_in_time_is_no_event_but_that() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAS_90);
    for _ in 0..3 {
        sim.secs(50);
        sim.reinvite(&mut call, Side::Peer, "Session-Expires: 90;refresher=uac\r\n", "");
    }
    assert_eq!(after_start(&sim), [(SessionRefreshed, Some(By::Peer)); 3]);
}

#[test]
fn r14_roles_follow_the_transaction() {
    for (caller, expires, refresher) in [
        (Side::Server, UAC_90, Side::Server),
        (Side::Server, UAS_90, Side::Peer),
        (Side::Peer, UAC_90, Side::Peer),
        (Side::Peer, UAS_90, Side::Server),
    ] {
        let mut sim = Sim::new(Action::Observe);
        let mut call = sim.call("a", caller, expires);
        assert_eq!(sim.last(TimerNegotiated).refresher, Some(refresher), "{caller:?} {expires}");
        // The same word in a request of the other side names the other one.
        sim.reinvite(&mut call, caller.other(), "", expires);
        assert_eq!(sim.last(TimerNegotiated).refresher, Some(refresher.other()));
        assert_eq!(sim.count(TimerNegotiated), 2);
        assert_eq!(sim.last(SessionRefreshed).by, Some(By::from(caller.other())));
    }
}

#[test]
fn r11_the_2xx_alone_says_what_holds() {
    let mut sim = Sim::new(Action::Observe);
    let mut call = Call::new("a", Side::Server);
    let offer = manners(Side::Server, true) + "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n";
    sim.invite(&mut call, &offer, &sdp(Side::Server));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + "x: 300 ;a=b; Refresher = UAS\r\n"), &sdp(Side::Peer));
    let event = sim.last(TimerNegotiated);
    assert_eq!((event.interval_s, event.refresher), (Some(300), Some(Side::Peer)));
}

#[test]
fn r04_a_call_without_a_timer_is_only_watched() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Peer, "");
    sim.secs(10_000);
    sim.hang_up(&mut call);
    assert_eq!(sim.kinds(), [SessionStarted, SessionEnded]);
}

#[test]
fn r13_a_2xx_without_a_refresher_is_a_fault_and_the_server_refreshes() {
    let mut sim = Sim::new(Action::Refresh);
    sim.expires = "Session-Expires: 90\r\n";
    sim.call("a", Side::Server, "Session-Expires: 90\r\n");
    assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Server));
    sim.secs(100);
    assert_eq!(sim.ours().len(), 2);
    assert_eq!(sim.reasons(NegotiationFault), ["refresher_missing"], "once for each dialog");
}

#[test]
fn r12_a_2xx_without_session_expires_keeps_the_timer_unless_strict() {
    for strict_r12 in [false, true] {
        let mut sim = Sim::with(Rules { strict_r12, action: Action::Refresh, ..Rules::default() });
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(30);
        sim.reinvite(&mut call, Side::Server, "", "");
        sim.secs(46);
        if strict_r12 {
            assert_eq!((sim.ours().len(), sim.last(TimerNegotiated).interval_s), (0, None));
            assert_eq!(sim.count(TimerNegotiated), 2);
        } else {
            assert_eq!((sim.ours().len(), sim.count(TimerNegotiated)), (1, 1));
        }
    }
}

#[test]
fn r12_a_server_whose_own_refresh_is_answered_without_a_timer_has_its_chance_by_what_it_asked_for() {
    // Where the 2xx names an interval, that is what the server goes by.
    for (expires, before, after) in [("", 54, 56), ("Session-Expires: 90;refresher=uac\r\n", 50, 52)] {
        let mut sim = Sim::with(Rules { action: Action::Refresh, ..Rules::default() });
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(30);
        sim.reinvite(&mut call, Side::Server, "Supported: timer\r\nSession-Expires: 100;refresher=uac\r\n", expires);
        sim.secs(before);
        assert_eq!(sim.ours().len(), 0, "{expires}");
        sim.secs(after - before);
        assert_eq!(sim.ours().len(), 1, "{expires}");
    }
}

#[test]
fn session_expires_that_cannot_be_read_keeps_what_was_agreed() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    for bad in ["Session-Expires: 99999999999\r\n", "Session-Expires: soon\r\n", "Session-Expires: 90\r\nx: 91\r\n"] {
        sim.secs(20);
        sim.reinvite(&mut call, Side::Server, "", bad);
    }
    assert_eq!(sim.reasons(NegotiationFault), ["session_expires_malformed"]);
    assert_eq!((sim.count(TimerNegotiated), sim.count(SessionRefreshed)), (1, 3));
    sim.secs(46);
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn r42_an_interval_below_the_floor_is_told_and_not_acted_upon() {
    let mut sim = Sim::new(Action::Refresh);
    sim.call("a", Side::Server, "Session-Expires: 30;refresher=uac\r\n");
    sim.secs(200);
    assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated, NegotiationFault]);
    assert_eq!(sim.reasons(NegotiationFault), ["interval_below_floor"]);
    let floor = Duration::from_secs(4);
    let mut sim =
        Sim::with(Rules { interval_floor: floor, min_se: floor, action: Action::Refresh, ..Rules::default() });
    sim.expires = "Session-Expires: 6;refresher=uac\r\n";
    let mut call = sim.call("a", Side::Server, "Session-Expires: 6;refresher=uac\r\n");
    sim.secs(25);
    assert_eq!((sim.ours().len(), sim.count(SessionExpiring)), (8, 0), "every 3 s");
    sim.hang_up(&mut call);
    sim.assert_numbers();
    for nothing in ["0", "1"] {
        let mut sim = Sim::with(Rules { interval_floor: Duration::ZERO, action: Action::Refresh, ..Rules::default() });
        sim.call("a", Side::Server, &format!("Session-Expires: {nothing};refresher=uac\r\n"));
        sim.secs(20);
        assert_eq!(sim.ours().len(), 0, "whatever the policy says");
    }
}

#[test]
fn f04_a_refresher_that_changes_is_told_and_followed() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.reinvite(&mut call, Side::Peer, "", UAC_90);
    sim.secs(60);
    assert_eq!((sim.ours().len(), sim.last(RefreshOverdue).by), (0, Some(By::Peer)));
    sim.reinvite(&mut call, Side::Peer, "", UAS_90);
    sim.secs(52);
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn trunks_are_found_by_the_peers_address_or_the_host_in_its_uri() {
    let trunk = |name: &str, peers: &[&str], domains: &[&str], action| Trunk {
        name: name.into(),
        matcher: Matcher {
            peers: peers.iter().map(|net| net.parse().unwrap()).collect(),
            domains: domains.iter().map(|domain| DomainPattern::new(domain).unwrap()).collect(),
        },
        rules: sim::rules(action),
    };
    let trunks = vec![
        trunk("nets", &["203.0.113.0/24"], &[], Action::Observe),
        trunk("names", &[], &["carrier.example"], Action::Refresh),
    ];
    let policy = Policy { trunks, ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Live, Limits::default());
    sim.call("a", Side::Server, UAC_90);
    sim.secs(46);
    assert_eq!(sim.last(SessionStarted).trunk.as_deref(), Some("names"));
    assert_eq!(sim.ours().len(), 1);
    let mut sim = Sim::new(Action::Alert);
    sim.call("a", Side::Server, UAC_90);
    assert_eq!(sim.last(SessionStarted).trunk.as_deref(), Some("default"));
}

#[test]
fn events_carry_what_their_reader_needs() {
    let mut sim = Sim::new(Action::Alert);
    sim.call("a", Side::Server, UAC_90);
    sim.secs(61);
    let json = serde_json::to_value(sim.last(SessionExpiring)).unwrap();
    for (key, value) in [
        ("event", "session_expiring"),
        ("call_id", "a@example"),
        ("local_tag", "a-local"),
        ("remote_tag", "a-remote"),
        ("server", "192.0.2.10:5060"),
        ("peer", "198.51.100.20:5060"),
        ("trunk", "default"),
        ("refresher", "server"),
        ("by", "server"),
    ] {
        assert_eq!(json[key], value, "{json}");
    }
    assert_eq!(json["interval_s"], 90);
    assert!(json["time"].as_str().unwrap().ends_with('Z') && json["deadline"].is_string());
    let negotiated = sim.last(TimerNegotiated);
    assert_eq!((negotiated.status, negotiated.method), (Some(200), Some("INVITE")));
    assert_eq!(negotiated.by, Some(By::Server), "whose request it was");
    sim.secs(30);
    let deadline = sim.events[0].time + Duration::from_secs(60);
    for kind in [TimerNegotiated, RefreshDue, RefreshOverdue, SessionExpiring, SessionExpired] {
        let event = sim.last(kind);
        assert_eq!((event.deadline, event.interval_s), (Some(deadline), Some(90)), "{kind:?}");
    }
}

#[test]
fn f01_a_server_that_refuses_the_peers_refresh_puts_the_call_at_risk_at_once() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAS_90);
    for _ in 0..2 {
        let asked = sim.request(&mut call, Side::Peer, "UPDATE", "Session-Expires: 90;refresher=uac\r\n", "");
        sim.respond(&call, Side::Peer, &asked, "UPDATE", 405, "");
    }
    assert_eq!(sim.reasons(RefreshRejected), ["server_refuses_refresh"]);
}
