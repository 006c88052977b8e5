//! Real servers that know nothing of session timers, and real peers that enforce them: a call outlives three intervals, ends by
//! the server's own BYE, and neither the wire nor either end's log shows anything odd. The same calls without sipst die.

use std::time::Duration;

use st_tests::{
    Family, Kamailio, Play, Program, Sipp, Sofia,
    agent::{Agent, Enforce, Profile, Timer},
};

use crate::{plan::SOON, watched::Watched};

/// Seconds: what a third of is more than a busy machine stands still for, and sofia takes.
const INTERVAL_S: u32 = 10;
/// Three intervals and a little.
const HOLD: Duration = Duration::from_secs(3 * INTERVAL_S as u64 + 2);
const PATIENCE: Duration = Duration::from_secs(3 * INTERVAL_S as u64 + 30);
/// How many refreshes three intervals take at the least.
const REFRESHES: usize = 3;
/// Where the end behind a Kamailio stands.
const BEHIND: u16 = 5070;

fn watched(sipst: bool) -> Watched {
    let rules = ["action: refresh", "min_se: 2s"];
    if sipst { Watched::new(Family::V4, "auto", &rules) } else { Watched::without_sipst() }
}

/// The call is over, by the server's BYE, after enough refreshes; nothing was odd on the wire, nor in what the server heard.
fn is_clean(watched: &Watched, server_log: &str) {
    watched.is_clean(server_log);
    assert!(watched.ledger().refreshes(watched.server()) >= REFRESHES, "{}", watched.report());
}

/// Kamailio enforces; behind it stands SIPp, which knows no timers but is strict about numbers.
fn kamailio(watched: &Watched) -> (Program, Sipp) {
    let own = watched.lab.wire.b.v4;
    let sipp = Sipp::start(&watched.lab.peer, Play::peer_without_timers_is_called(own).at_port(BEHIND)).unwrap();
    let kamailio =
        Kamailio { own: &[own.into()], next_hop: (own, BEHIND).into(), detour: None, interval_s: Some(INTERVAL_S) };
    (Program::kamailio(&watched.lab.peer, &kamailio).unwrap(), sipp)
}

#[test]
fn kamailio_that_enforces_keeps_the_call_of_a_baresip() {
    let watched = watched(true);
    let (kamailio, mut sipp) = kamailio(&watched);
    let callee = format!("sip:peer@{}", watched.lab.wire.b.v4);
    let baresip = Program::baresip(&watched.lab.server, watched.lab.wire.a.v4, Some(&callee)).unwrap();
    kamailio.logs(&["dialog begins"], SOON).unwrap();
    std::thread::sleep(HOLD);
    baresip.terminate().unwrap();
    sipp.succeeds(&watched.lab.peer, SOON).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    kamailio.logs(&["dialog ends"], SOON).unwrap();
    assert!(!kamailio.log().contains("own request BYE"), "{}", kamailio.log());
    is_clean(&watched, &baresip.log());
}

#[test]
fn without_sipst_kamailio_hangs_up_on_baresip() {
    let watched = watched(false);
    let (kamailio, mut sipp) = kamailio(&watched);
    let callee = format!("sip:peer@{}", watched.lab.wire.b.v4);
    let baresip = Program::baresip(&watched.lab.server, watched.lab.wire.a.v4, Some(&callee)).unwrap();
    kamailio.logs(&["own request BYE", "stack-"], SOON).unwrap();
    kamailio.logs(&["own request BYE", "peer@"], SOON).unwrap();
    assert!(sipp.ended_well(SOON).unwrap(), "both ends have a BYE of Kamailio's");
    drop(baresip);
}

#[test]
fn kamailio_that_enforces_keeps_the_call_of_a_sipp_that_aborts_on_any_stray_message() {
    let watched = watched(true);
    let (kamailio, mut peer) = kamailio(&watched);
    let play = Play::server_calls(watched.lab.wire.a.v4, (watched.lab.wire.b.v4, 5060).into(), HOLD);
    let mut server = Sipp::start(&watched.lab.server, play).unwrap();
    server.succeeds(&watched.lab.server, PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    peer.succeeds(&watched.lab.peer, SOON).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    assert!(!kamailio.log().contains("own request BYE"), "{}", kamailio.log());
    is_clean(&watched, &server.messages(&watched.lab.server).unwrap());
}

/// Whoever calls by Sippy's B2BUA knows timers; the B2BUA does not, but passes their headers on.
fn sippy(watched: &Watched) -> (Program, Program, Agent) {
    let (own, peer) = (watched.lab.wire.a.v4, watched.lab.wire.b.v4);
    let sofia = Program::sofia(&watched.lab.peer, &Sofia::at(peer, INTERVAL_S, true)).unwrap();
    let passes = ["supported", "session-expires", "min-se"];
    let sippy = Program::sippy(&watched.lab.server, own, (peer, 5060).into(), &passes).unwrap();
    // Over loopback, where sipst does not look.
    let timer = Some(Timer { interval_s: INTERVAL_S, refresher: Some("uac") });
    let profile =
        Profile { timer, knows_timers: true, min_se: Some(5), enforce: Enforce::No, ..Profile::plain_server() };
    let caller = Agent::start(&watched.lab.server, (own, BEHIND).into(), profile).unwrap();
    caller.call((own, 5060).into());
    caller.established(SOON).unwrap_or_else(|error| panic!("{error}\n{}\n{}", sippy.log(), sofia.log()));
    (sippy, sofia, caller)
}

#[test]
fn sofia_that_enforces_keeps_the_call_of_sippys_b2bua() {
    let watched = watched(true);
    let (sippy, sofia, caller) = sippy(&watched);
    std::thread::sleep(HOLD);
    assert!(!caller.is_over(), "{caller}\n{}", watched.report());
    caller.bye();
    assert_eq!(caller.answered("BYE", SOON).unwrap(), 200);
    sofia.logs(&["nua_i_bye"], SOON).unwrap();
    sofia.logs(&["nua_i_terminated"], SOON).unwrap();
    assert!(!sofia.log().contains("almost expired"), "{}", sofia.log());
    sippy.logs(&["CSeq:", "BYE"], SOON).unwrap();
    is_clean(&watched, &sippy.log());
    caller.faultless().unwrap();
}

#[test]
fn without_sipst_sofia_hangs_up_on_sippys_b2bua() {
    let watched = watched(false);
    let (_sippy, sofia, caller) = sippy(&watched);
    assert!(!caller.ended(SOON).unwrap().0, "{caller}");
    sofia.logs(&["almost expired"], SOON).unwrap();
    caller.faultless().unwrap();
}

#[test]
fn sofia_that_calls_keeps_the_call_of_a_sipp_that_aborts_on_any_stray_message() {
    let watched = watched(true);
    let (own, peer) = (watched.lab.wire.a.v4, watched.lab.wire.b.v4);
    let play = Play::server_is_called(own, HOLD, INTERVAL_S).that_lists_timer();
    let mut server = Sipp::start(&watched.lab.server, play).unwrap();
    let callee = format!("sip:server@{own}:5060");
    let sofia = Sofia { calls: Some(&callee), ..Sofia::at(peer, INTERVAL_S, true) };
    let sofia = Program::sofia(&watched.lab.peer, &sofia).unwrap();
    server.succeeds(&watched.lab.server, PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    sofia.logs(&["nua_i_bye"], SOON).unwrap();
    assert!(!sofia.log().contains("almost expired"), "{}", sofia.log());
    is_clean(&watched, &server.messages(&watched.lab.server).unwrap());
}

#[test]
fn sipp_that_enforces_keeps_the_call_of_net_sip_with_its_odd_cseq() {
    let watched = watched(true);
    let (own, peer) = (watched.lab.wire.a.v4, watched.lab.wire.b.v4);
    let mut strict = Sipp::start(&watched.lab.peer, Play::peer_is_called(peer, INTERVAL_S)).unwrap();
    let callee = format!("sip:peer@{peer}:5060");
    let mut server = Program::net_sip(&watched.lab.server, own, &callee, HOLD).unwrap();
    server.succeeds(PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    strict.succeeds(&watched.lab.peer, SOON).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    let log = server.log();
    assert!(log.contains("Cseq: 2 BYE"), "{log}");
    is_clean(&watched, &log);
}

#[test]
fn sipp_that_enforces_refuses_numbers_that_are_not_higher_and_hangs_up_at_expiry() {
    let watched = watched(false);
    let peer = (watched.lab.wire.b.v4, 5060).into();
    let mut strict = Sipp::start(&watched.lab.peer, Play::peer_is_called(watched.lab.wire.b.v4, INTERVAL_S)).unwrap();
    let server =
        Agent::start(&watched.lab.server, (watched.lab.wire.a.v4, 5060).into(), Profile::plain_server()).unwrap();
    server.call(peer);
    server.established(SOON).unwrap();
    server.request("UPDATE");
    assert_eq!(server.answered("UPDATE", SOON).unwrap(), 200);
    for (method, number) in [("UPDATE", 2), ("INVITE", 2), ("BYE", 1)] {
        server.request_with_number(method, number);
        assert_eq!(server.answered(method, SOON).unwrap(), 500, "{method} {number}");
    }
    let (by_server, reason) = server.ended(SOON).unwrap();
    assert!(!by_server && reason.contains("Session timeout"), "{server}");
    assert!(!strict.ended_well(SOON).unwrap());
}
