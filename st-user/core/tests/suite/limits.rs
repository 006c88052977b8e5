//! Bounds: what is refused or forgotten when they are reached, and that floods displace only strangers.

use std::{net::SocketAddr, time::Duration};

use crate::sim::{self, Call, Sim, manners, sdp};
use st_core::{
    Action, Direction, DomainPattern,
    EventKind::*,
    Matcher, Packet, Policy, Rules, Side, Trunk,
    engine::{
        Limits, Mode,
        limits::{
            MAX_DOMAIN, MAX_EXCHANGES, MAX_FORKS, MAX_HEADERS, MAX_IDENTIFIER, MAX_OTHERS, MAX_OWN, MAX_ROUTES,
            MAX_SDP, MAX_TARGET, MAX_TRIES,
        },
    },
    message::MethodName,
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

fn limited(limits: Limits) -> Sim {
    Sim::custom(Policy { default: sim::rules(Action::Refresh), ..Policy::default() }, Mode::Live, limits)
}

/// An INVITE of a stranger's.
fn knock(sim: &mut Sim, number: u32) -> Call {
    let mut call = Call::new(&format!("s{number}"), Side::Peer);
    sim.invite(&mut call, &manners(Side::Peer, true), &sdp(Side::Peer));
    call
}

#[test]
fn sessions_beyond_the_limit_are_refused_counted_and_told_once_a_minute() {
    let mut sim = limited(Limits { sessions: 2, ..Limits::default() });
    let mut first = sim.call("a", Side::Server, UAC_90);
    for name in ["b", "c", "d", "e"] {
        sim.call(name, Side::Server, UAC_90);
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.sessions, stats.refused_sessions), (2, 3));
    assert_eq!(sim.reasons(CaptureLoss), ["limit"]);
    sim.secs(40);
    sim.hang_up(&mut first);
    sim.secs(40);
    sim.call("f", Side::Server, UAC_90);
    assert_eq!(sim.engine.stats().sessions, 2, "there is room again");
}

#[test]
fn a_flood_of_strangers_displaces_neither_the_servers_calls_nor_those_that_it_answered() {
    let mut sim = limited(Limits { strangers: 8, pending: 8, ..Limits::default() });
    let mut out = Call::new("out", Side::Server);
    sim.invite(&mut out, &manners(Side::Server, true), &sdp(Side::Server));
    let mut rings = knock(&mut sim, 0);
    sim.answer(&rings, 180, "", "");
    for number in 1..1_000 {
        knock(&mut sim, number);
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.strangers, stats.pending, stats.evicted_pending), (8, 2, 0));
    assert_eq!(stats.evicted_strangers, 999 - 8);
    assert_eq!(sim.events.len(), 0, "a flood is no event");
    sim.answer(&out, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut out);
    sim.answer(&rings, 200, &(manners(Side::Server, true) + UAS_90), &sdp(Side::Server));
    sim.ack(&mut rings);
    assert_eq!((sim.count(SessionStarted), sim.engine.stats().sessions), (2, 2));
}

#[test]
fn a_server_that_says_100_to_a_flood_of_strangers_has_not_answered_them() {
    let mut sim = limited(Limits { strangers: 8, pending: 8, ..Limits::default() });
    let mut out = Call::new("out", Side::Server);
    sim.invite(&mut out, &manners(Side::Server, true), &sdp(Side::Server));
    for number in 0..100 {
        let call = knock(&mut sim, number);
        sim.answer(&call, 100, "", "");
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.strangers, stats.pending, stats.evicted_pending), (8, 1, 0));
    sim.answer(&out, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    assert_eq!(sim.count(SessionStarted), 1);
}

#[test]
fn a_flood_of_requests_of_unknown_dialogs_displaces_no_call_and_is_bounded() {
    let mut sim = limited(Limits { strangers: 8, ..Limits::default() });
    let mut known = sim.call("known", Side::Server, UAC_90);
    for number in 0..100 {
        let mut call = Call::new(&format!("unknown{number}"), Side::Peer);
        sim.request(&mut call, Side::Peer, "INVITE", UAC_90, "");
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.sessions, stats.evicted_strangers, stats.unknown_dialog), (1, 100 - 8, 100));
    sim.reinvite(&mut known, Side::Server, "", UAC_90);
    assert_eq!((sim.count(SessionStarted), sim.count(SessionRefreshed)), (1, 1));
}

#[test]
fn pending_invites_beyond_the_limit_displace_the_one_that_was_silent_longest() {
    let mut sim = limited(Limits { pending: 2, ..Limits::default() });
    let mut calls: Vec<Call> = ["a", "b", "c"].map(|name| Call::new(name, Side::Server)).into();
    for call in &mut calls {
        sim.invite(call, &manners(Side::Server, true), &sdp(Side::Server));
    }
    assert_eq!(sim.reasons(CaptureLoss), ["limit"]);
    for call in &calls {
        sim.answer(call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    }
    assert_eq!((sim.count(SessionStarted), sim.engine.stats().evicted_pending), (2, 1));
}

#[test]
fn pending_invites_are_forgotten_in_time() {
    for (seconds, strangers) in [(300, 21), (301, 1)] {
        let mut sim = limited(Limits::default());
        for number in 0..20 {
            knock(&mut sim, number);
        }
        sim.secs(seconds);
        knock(&mut sim, 99);
        assert_eq!(sim.engine.stats().strangers, strangers);
    }
}

#[test]
fn one_invite_makes_no_more_dialogs_than_a_proxy_forks_whoever_makes_up_tags() {
    let mut sim = limited(Limits::default());
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    for number in 0..1_000 {
        let fork = Call { remote: format!("fork{number}"), ..call.clone() };
        sim.answer(&fork, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.sessions, stats.refused_forks), (MAX_FORKS, 1_000 - MAX_FORKS as u64));
    assert_eq!(sim.reasons(CaptureLoss), ["limit"]);
    call.remote = "fork3".into();
    sim.ack(&mut call);
    sim.secs(46);
    assert_eq!(sim.ours().len(), 1, "the one that the server took");
}

#[test]
fn nothing_is_remembered_with_a_limit_of_nothing() {
    let mut sim = limited(Limits {
        sessions: 0,
        pending: 0,
        strangers: 0,
        remembered: 0,
        waiting: 0,
        flows: 0,
        keepalives: 0,
        unpacked: 0,
    });
    sim.call("a", Side::Server, UAC_90);
    sim.call("b", Side::Peer, UAS_90);
    sim.secs(100);
    assert_eq!(sim.count(SessionStarted), 0);
}

#[test]
fn identifiers_and_invites_that_are_too_long_are_survived() {
    let mut sim = limited(Limits::default());
    sim.call(&"x".repeat(600), Side::Server, UAC_90);
    assert_eq!(sim.count(SessionStarted), 0);
    assert!(sim.engine.stats().unidentified >= 3);
    // An INVITE with more than is kept: its SDP counts as cut off, so there is no re-INVITE, but there is an UPDATE.
    let mut call = Call::new("long", Side::Server);
    let padding = format!("X-Padding: {}\r\n", "y".repeat(20_000));
    sim.invite(&mut call, &(manners(Side::Server, true) + &padding), &sdp(Side::Server));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(46);
    assert_eq!((sim.ours().len(), sim.engine.stats().too_long), (1, 1));
}

/// A call of the server's whose 200 has these header lines beside the usual ones.
fn called(extra: &str, body: &str) -> Sim {
    let mut sim = limited(Limits::default());
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    sim.answer(&call, 200, &(manners(Side::Peer, false) + extra + UAC_90), body);
    sim.ack(&mut call);
    sim.secs(46);
    sim
}

#[test]
fn a_session_description_that_is_too_long_is_not_kept_and_not_compared() {
    let long = format!("{}a=x:{}\r\n", sdp(Side::Peer), "y".repeat(MAX_SDP));
    let sim = called("", &long);
    assert_eq!((sim.methods(), sim.engine.stats().too_long), (vec![MethodName::Invite], 1), "the server's own is kept");
    let mut sim = limited(Limits::default());
    let mut call = Call::new("a", Side::Server);
    let own = format!("{}a=x:{}\r\n", sdp(Side::Server), "y".repeat(MAX_SDP));
    sim.invite(&mut call, &manners(Side::Server, true), &own);
    sim.answer(&call, 200, &(manners(Side::Peer, false) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(46);
    assert_eq!((sim.ours().len(), sim.reasons(RefreshFailed)), (0, vec!["no_method".to_owned()]));
}

#[test]
fn with_more_routes_than_are_kept_nothing_is_sent() {
    let routes = |count| format!("Record-Route: {}\r\n", vec!["<sip:198.51.100.20;lr>"; count].join(","));
    let sim = called(&routes(MAX_ROUTES), &sdp(Side::Peer));
    assert_eq!((sim.ours().len(), sim.engine.stats().too_long), (1, 0));
    let sim = called(&routes(MAX_ROUTES + 1), &sdp(Side::Peer));
    assert_eq!((sim.ours().len(), sim.engine.stats().too_long), (0, 1));
    assert_eq!(sim.reasons(RefreshFailed), ["remote_target_unknown"]);
}

#[test]
fn with_longer_addresses_than_are_kept_nothing_is_sent() {
    let mut sim = limited(Limits::default());
    let mut call = Call::new("a", Side::Server);
    call.remote = format!("a-remote;x={}", "y".repeat(MAX_HEADERS));
    sim.establish(&mut call, UAC_90, true);
    sim.secs(46);
    assert_eq!((sim.count(SessionStarted), sim.ours().len(), sim.engine.stats().too_long), (1, 0, 1));
    assert_eq!(sim.reasons(RefreshFailed), ["remote_target_unknown"]);
}

#[test]
fn a_contact_that_is_too_long_moves_no_target() {
    let mut sim = limited(Limits::default());
    let mut call = sim.call("a", Side::Server, UAC_90);
    let contact = format!("Contact: <sip:{}@198.51.100.20>\r\n", "x".repeat(MAX_TARGET));
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", &contact, "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, UAS_90);
    assert_eq!(sim.engine.stats().too_long, 1);
    // The server has answered with a timer, and is given more time.
    sim.secs(56);
    assert!(sim.ours()[0].text.starts_with("UPDATE sip:peer@198.51.100.20:5060 "), "{}", sim.ours()[0].text);
}

#[test]
fn a_branch_that_is_too_long_is_matched_by_its_method_and_number() {
    let mut sim = limited(Limits::default());
    let mut call = sim.call("a", Side::Server, UAC_90);
    let branch = format!("z9hG4bK{}", "x".repeat(MAX_IDENTIFIER));
    let number = call.next(Side::Peer);
    let bye = call.request(Side::Peer, "BYE", number, &branch, true, "", "");
    sim.wire(Side::Peer, bye.into_bytes());
    sim.respond(&call, Side::Peer, &(number, branch), "BYE", 200, "");
    assert_eq!((sim.count(SessionEnded), sim.engine.stats().too_long), (1, 2));
}

#[test]
fn a_host_that_is_too_long_is_no_domain_of_a_trunks() {
    let trunk = |domain: &str| Trunk {
        name: "carrier".into(),
        matcher: Matcher { peers: vec![], domains: vec![DomainPattern::new(domain).unwrap()] },
        rules: sim::rules(Action::Refresh),
    };
    let policy = Policy { trunks: vec![trunk("*.example")], ..Policy::default() };
    for (length, expected) in [(MAX_DOMAIN, "carrier"), (MAX_DOMAIN + 1, "default")] {
        let mut sim = Sim::custom(policy.clone(), Mode::Live, Limits::default());
        let host = format!("{}.example", "x".repeat(length - ".example".len()));
        let mut call = Call::new("a", Side::Server);
        sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
        let via = format!("SIP/2.0/UDP {};branch={}", sim::text::SERVER, call.invite.1);
        let ok = call.response(Side::Peer, 200, "INVITE", call.invite.0, &via, UAC_90, "");
        sim.wire(Side::Peer, ok.replace("carrier.example", &host).into_bytes());
        assert_eq!(sim.last(SessionStarted).trunk.as_deref(), Some(expected));
    }
}

#[test]
fn tries_of_one_call_beyond_the_limit_displace_its_oldest() {
    let mut sim = limited(Limits::default());
    let mut call = Call::new("a", Side::Server);
    for _ in 0..100 {
        sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.pending, stats.evicted_tries), (1, 100 - MAX_TRIES as u64));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    assert_eq!(sim.count(SessionStarted), 1, "the last one is answered");
}

#[test]
fn copies_of_one_invite_by_a_thousand_ways_are_one() {
    let mut sim = limited(Limits::default());
    let mut call = Call::new("a", Side::Peer);
    sim.invite(&mut call, &manners(Side::Peer, true), &sdp(Side::Peer));
    for number in 0..1_000 {
        let way = format!("z9hG4bKway{number}");
        let copy = call.request(Side::Peer, "INVITE", call.invite.0, &way, false, "", "");
        sim.wire(Side::Peer, copy.into_bytes());
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.strangers, stats.evicted_tries, stats.evicted_strangers), (1, 0, 0));
}

#[test]
fn a_thousand_requests_in_one_dialog_are_followed_some_at_a_time() {
    let mut sim = limited(Limits::default());
    let mut call = sim.call("a", Side::Server, UAC_90);
    for _ in 0..1_000 {
        sim.request(&mut call, Side::Server, "INFO", "", "");
    }
    assert_eq!(sim.engine.stats().evicted_exchanges, 1_000 - MAX_OTHERS as u64);
    for _ in 0..1_000 {
        sim.request(&mut call, Side::Peer, "UPDATE", "", &sdp(Side::Peer));
    }
    // The INVITE that made the dialog is among them.
    let expected = 1_000 - MAX_OTHERS as u64 + 1_001 - MAX_EXCHANGES as u64;
    assert_eq!(sim.engine.stats().evicted_exchanges, expected);
}

#[test]
fn servers_beyond_the_limit_are_forgotten_and_counted() {
    let mut sim = limited(Limits { remembered: 2, ..Limits::default() });
    let call = sim.call("a", Side::Server, UAC_90);
    for host in 0..10 {
        let info = call.request(Side::Server, "INFO", 7, "z9hG4bKinfo", true, "", "");
        let packet = Packet {
            direction: Direction::Egress,
            server: SocketAddr::from(([192, 0, 2, 100 + host], 5060)),
            peer: sim::text::PEER.parse().unwrap(),
            transport: st_core::Transport::Udp,
            interface: 1,
            tos: 0,
            ttl: 64,
            cookie: 1,
            truncated: false,
            bytes: info.as_bytes(),
        };
        sim.engine.handle_packet(sim.now, &packet);
        sim.settle();
    }
    assert_eq!(sim.engine.stats().evicted_remembered, 11 - 2 + 10 - 2, "their spaces, and when they were heard");
}

#[test]
fn a_peer_that_opens_requests_without_end_neither_blocks_a_refresh_nor_displaces_the_servers() {
    let mut sim = limited(Limits::default());
    let mut call = sim.call("a", Side::Server, UAC_90);
    for _ in 0..100 {
        sim.request(&mut call, Side::Peer, "UPDATE", "", &sdp(Side::Peer));
    }
    sim.secs(46);
    assert_eq!(sim.ours().len(), 1, "the server said nothing to any of them");
    let asked = sim.request(&mut call, Side::Server, "UPDATE", "", "");
    for _ in 0..100 {
        sim.request(&mut call, Side::Peer, "UPDATE", "", &sdp(Side::Peer));
    }
    sim.respond(&call, Side::Server, &asked, "UPDATE", 200, UAC_90);
    assert_eq!(sim.last(SessionRefreshed).by, Some(st_core::By::Server));
}

#[test]
fn answered_invites_take_no_room_from_those_that_ring() {
    let mut sim = limited(Limits { pending: 2, ..Limits::default() });
    for number in 0..20 {
        sim.call(&format!("c{number}"), Side::Server, UAC_90);
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.sessions, stats.pending, stats.evicted_pending, sim.count(CaptureLoss)), (20, 0, 0, 0));
}

#[test]
fn requests_of_our_own_are_no_more_than_are_kept_on_record() {
    let least = Duration::from_secs(2);
    let rules = Rules { interval_floor: least, min_se: least, ..sim::rules(Action::Refresh) };
    let mut sim = Sim::with(rules);
    sim.expires = "Session-Expires: 2;refresher=uac\r\n";
    sim.call("a", Side::Server, sim.expires);
    sim.secs(30);
    assert_eq!((sim.ours().len(), sim.engine.stats().own_requests), (MAX_OWN, MAX_OWN));
    assert_eq!(sim.reasons(RefreshFailed), ["too_many_requests"]);
}
