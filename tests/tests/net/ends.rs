//! Real servers that know nothing of session timers, and real peers that enforce them: a call outlives three intervals, ends by
//! the server's own BYE, and neither the wire nor either end's log shows anything odd. The same calls without sipst die.

use std::{net::IpAddr, time::Duration};

use st_tests::{
    Kamailio, Lab, Ledger, OWN_BRANCH, Play, Program, Sipp, Sipst, Sofia, Tap,
    agent::{Agent, Enforce, Profile, Timer},
};

use crate::plan::{SOON, config};

/// Seconds: what a third of is more than a busy machine stands still for, and sofia takes.
const INTERVAL_S: u32 = 10;
/// Three intervals and a little.
const HOLD: Duration = Duration::from_secs(3 * INTERVAL_S as u64 + 2);
const PATIENCE: Duration = Duration::from_secs(3 * INTERVAL_S as u64 + 30);
/// How many refreshes three intervals take at the least.
const REFRESHES: usize = 3;
/// Where the end behind a Kamailio stands.
const BEHIND: u16 = 5070;

/// A laboratory under watch, with sipst or without.
struct Watched {
    sipst: Option<Sipst>,
    tap: Tap,
    lab: Lab,
}

impl Watched {
    fn new(sipst: bool) -> Self {
        let lab = Lab::new().unwrap();
        let sipst =
            sipst.then(|| Sipst::start(&lab.server, &config("auto", &["action: refresh", "min_se: 2s"])).unwrap());
        let tap = Tap::start(&lab.peer, "eth0").unwrap();
        Self { sipst, tap, lab }
    }

    fn report(&self) -> String {
        let ledger = Ledger::of(&self.tap).map_or_else(|error| error.to_string(), |ledger| ledger.story());
        let sipst = self.sipst.as_ref().map(Sipst::report).unwrap_or_default();
        format!("{ledger}\n{sipst}")
    }

    /// The call is over, by the server's BYE, after enough refreshes; nothing was odd on the wire, nor in what the server heard.
    fn is_clean(&self, server_log: &str) {
        let server = IpAddr::from(self.lab.wire.a.v4);
        let ledger = Ledger::of(&self.tap).unwrap();
        ledger.is_clean(server).unwrap_or_else(|error| panic!("{error}\n{}", self.report()));
        assert!(ledger.refreshes(server) >= REFRESHES, "{}", self.report());
        let last = ledger.requests(server).pop().and_then(|request| request.method());
        assert_eq!(last, Some("BYE"), "{}", self.report());
        // The log is one of messages, and has what the server asked for and not what it did not.
        assert!(server_log.contains("BYE sip:") && server_log.contains("SIP/2.0 200"), "{server_log}");
        assert!(!server_log.contains(OWN_BRANCH), "{server_log}");
        let sipst = self.sipst.as_ref().unwrap();
        let ended = sipst.event("session_ended", SOON).unwrap();
        assert_eq!(ended["by"], "server", "{}", self.report());
        for kind in ["refresh_failed", "session_expired", "capture_loss"] {
            assert_eq!(sipst.count(kind), 0, "{}", self.report());
        }
    }
}

/// Kamailio enforces; behind it stands SIPp, which knows no timers but is strict about numbers.
fn kamailio(watched: &Watched) -> (Program, Sipp) {
    let own = watched.lab.wire.b.v4;
    let sipp = Sipp::start(&watched.lab.peer, Play::peer_without_timers_is_called(own).at_port(BEHIND)).unwrap();
    let kamailio = Kamailio { own: &[own], next_hop: (own, BEHIND).into(), detour: None, interval_s: Some(INTERVAL_S) };
    (Program::kamailio(&watched.lab.peer, &kamailio).unwrap(), sipp)
}

#[test]
fn kamailio_that_enforces_keeps_the_call_of_a_baresip() {
    let watched = Watched::new(true);
    let (kamailio, mut sipp) = kamailio(&watched);
    let callee = format!("sip:peer@{}", watched.lab.wire.b.v4);
    let baresip = Program::baresip(&watched.lab.server, watched.lab.wire.a.v4, Some(&callee)).unwrap();
    kamailio.logs(&["dialog begins"], SOON).unwrap();
    std::thread::sleep(HOLD);
    baresip.terminate().unwrap();
    sipp.succeeds(&watched.lab.peer, SOON).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    kamailio.logs(&["dialog ends"], SOON).unwrap();
    assert!(!kamailio.log().contains("own request BYE"), "{}", kamailio.log());
    watched.is_clean(&baresip.log());
}

#[test]
fn without_sipst_kamailio_hangs_up_on_baresip() {
    let watched = Watched::new(false);
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
    let watched = Watched::new(true);
    let (kamailio, mut peer) = kamailio(&watched);
    let play = Play::server_calls(watched.lab.wire.a.v4, (watched.lab.wire.b.v4, 5060).into(), HOLD);
    let mut server = Sipp::start(&watched.lab.server, play).unwrap();
    server.succeeds(&watched.lab.server, PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    peer.succeeds(&watched.lab.peer, SOON).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    assert!(!kamailio.log().contains("own request BYE"), "{}", kamailio.log());
    watched.is_clean(&server.messages(&watched.lab.server).unwrap());
}

/// Whoever calls by Sippy's B2BUA knows timers; the B2BUA does not, but passes their headers on.
fn sippy(watched: &Watched) -> (Program, Program, Agent) {
    let (own, peer) = (watched.lab.wire.a.v4, watched.lab.wire.b.v4);
    let (calls, proxy, holds) = (None, None, None);
    let sofia = Sofia { own: peer, interval_s: INTERVAL_S, min_se_s: 5, updates: true, calls, proxy, holds };
    let sofia = Program::sofia(&watched.lab.peer, &sofia).unwrap();
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
    let watched = Watched::new(true);
    let (sippy, sofia, caller) = sippy(&watched);
    std::thread::sleep(HOLD);
    assert!(!caller.is_over(), "{caller}\n{}", watched.report());
    caller.bye();
    assert_eq!(caller.answered("BYE", SOON).unwrap(), 200);
    sofia.logs(&["nua_i_bye"], SOON).unwrap();
    sofia.logs(&["nua_i_terminated"], SOON).unwrap();
    assert!(!sofia.log().contains("almost expired"), "{}", sofia.log());
    sippy.logs(&["CSeq:", "BYE"], SOON).unwrap();
    watched.is_clean(&sippy.log());
    caller.faultless().unwrap();
}

#[test]
fn without_sipst_sofia_hangs_up_on_sippys_b2bua() {
    let watched = Watched::new(false);
    let (_sippy, sofia, caller) = sippy(&watched);
    assert!(!caller.ended(SOON).unwrap().0, "{caller}");
    sofia.logs(&["almost expired"], SOON).unwrap();
    caller.faultless().unwrap();
}

#[test]
fn sofia_that_calls_keeps_the_call_of_a_sipp_that_aborts_on_any_stray_message() {
    let watched = Watched::new(true);
    let (own, peer) = (watched.lab.wire.a.v4, watched.lab.wire.b.v4);
    let play = Play::server_is_called(own, HOLD, INTERVAL_S).that_lists_timer();
    let mut server = Sipp::start(&watched.lab.server, play).unwrap();
    let callee = format!("sip:server@{own}:5060");
    let (calls, proxy, holds) = (Some(callee.as_str()), None, None);
    let sofia = Sofia { own: peer, interval_s: INTERVAL_S, min_se_s: 5, updates: true, calls, proxy, holds };
    let sofia = Program::sofia(&watched.lab.peer, &sofia).unwrap();
    server.succeeds(&watched.lab.server, PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    sofia.logs(&["nua_i_bye"], SOON).unwrap();
    assert!(!sofia.log().contains("almost expired"), "{}", sofia.log());
    watched.is_clean(&server.messages(&watched.lab.server).unwrap());
}

#[test]
fn sipp_that_enforces_keeps_the_call_of_net_sip_with_its_odd_cseq() {
    let watched = Watched::new(true);
    let (own, peer) = (watched.lab.wire.a.v4, watched.lab.wire.b.v4);
    let mut strict = Sipp::start(&watched.lab.peer, Play::peer_is_called(peer, INTERVAL_S)).unwrap();
    let callee = format!("sip:peer@{peer}:5060");
    let mut server = Program::net_sip(&watched.lab.server, own, &callee, HOLD).unwrap();
    server.succeeds(PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    strict.succeeds(&watched.lab.peer, SOON).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    let log = server.log();
    assert!(log.contains("Cseq: 2 BYE"), "{log}");
    watched.is_clean(&log);
}

#[test]
fn sipp_that_enforces_refuses_numbers_that_are_not_higher_and_hangs_up_at_expiry() {
    let watched = Watched::new(false);
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
