//! Hosts that relay: a proxy is no end of the dialogs that pass it, a B2BUA is one of each of its own.

use std::{net::Ipv4Addr, time::Duration};

use st_tests::{
    Host, Kamailio, Ledger, OWN_BRANCH, Play, Program, Sipp, Sipst, Sofia, Tap, Wire,
    agent::{Agent, Message, Profile},
};

use crate::plan::{INTERVAL_S, SOON};

/// Seconds: the least that sofia takes and a busy machine stands.
const SOFIAS_INTERVAL_S: u32 = 10;
const HOLD: Duration = Duration::from_secs(3 * SOFIAS_INTERVAL_S as u64 + 2);

/// A host with sipst and further hosts around it, a wire to each. The host comes last: it ends last.
struct Hub<const N: usize> {
    sipst: Sipst,
    taps: [Tap; N],
    wires: [Wire; N],
    around: [Host; N],
    host: Host,
}

impl<const N: usize> Hub<N> {
    fn new(names: [&str; N]) -> Self {
        let host = Host::new("relay").unwrap();
        let around = names.map(|name| Host::new(name).unwrap());
        let wires = std::array::from_fn(|place| Wire::between(&host, &around[place]).unwrap());
        let taps = std::array::from_fn(|place| Tap::start(&around[place], "eth0").unwrap());
        let interfaces: Vec<_> = wires.iter().map(|wire: &Wire| wire.a.interface.as_str()).collect();
        let config = format!(
            "interfaces: [{}]\ntrunks:\n  - name: carrier\n    match: {{ peers: [\"10.0.0.0/8\"] }}\n    \
             interval_floor: 2s\n    action: refresh\n    min_se: 2s\n",
            interfaces.join(", ")
        );
        let sipst = Sipst::start(&host, &config).unwrap();
        Self { sipst, taps, wires, around, host }
    }

    fn ledger(&self, place: usize) -> Ledger {
        Ledger::of(&self.taps[place]).unwrap()
    }

    fn report(&self) -> String {
        let stories: Vec<_> = (0..N).map(|place| format!("wire {place}\n{}", self.ledger(place).story())).collect();
        format!("{}{}", stories.concat(), self.sipst.report())
    }

    /// sipst saw dialogs, took none for its server's, armed nothing and sent nothing.
    fn only_watched(&self) {
        let started: Vec<_> = self.sipst.events().into_iter().filter(|one| one["event"] == "session_started").collect();
        assert!(!started.is_empty(), "{}", self.report());
        assert!(started.iter().all(|event| event["reason"] == "relayed"), "{}", self.report());
        for kind in ["refresh_sent", "refresh_succeeded", "refresh_failed", "refresh_overdue"] {
            assert_eq!(self.sipst.count(kind), 0, "{kind}\n{}", self.report());
        }
        let (_, status, _) = Sipst::command(&self.host, &["status", "--json"]).unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["rewritten_dialogs"], 0, "{status}");
        for place in 0..N {
            assert!(!self.ledger(place).has_own(), "{}", self.report());
        }
    }
}

/// Method and number of each request that one end sends, as a wire has them, copies left out.
fn numbers(ledger: &Ledger, from: Ipv4Addr) -> Vec<(String, u32)> {
    let read = |request: &Message| request.cseq().map(|cseq| (cseq.method, cseq.number));
    ledger.requests(from.into()).into_iter().filter_map(read).collect()
}

/// A sofia that takes calls at one place, and one that calls at another, by the hub: it refreshes by itself and hangs up.
fn sofias<const N: usize>(hub: &Hub<N>, caller: usize, callee: usize) -> (Program, Program) {
    let at = |place: usize| hub.wires[place].b.v4;
    let taker = Sofia::at(at(callee), SOFIAS_INTERVAL_S, true);
    let taker = Program::sofia(&hub.around[callee], &taker).unwrap();
    let (uri, proxy) = (format!("sip:callee@{}", at(callee)), Some(hub.wires[caller].a.v4));
    let (calls, holds) = (Some(uri.as_str()), Some(HOLD));
    let caller_sofia = Sofia { calls, proxy, holds, ..Sofia::at(at(caller), SOFIAS_INTERVAL_S, true) };
    (Program::sofia(&hub.around[caller], &caller_sofia).unwrap(), taker)
}

/// The call lives by its own refreshes and ends by its caller's BYE; all wires saw the same numbers, and nothing odd.
fn lives_untouched<const N: usize>(hub: &Hub<N>, caller: &Program, from: &[(usize, Ipv4Addr)]) {
    caller.logs(&["nua_r_bye", "200"], HOLD + SOON).unwrap_or_else(|error| panic!("{error}\n{}", hub.report()));
    let seen: Vec<_> = from.iter().map(|(place, ip)| numbers(&hub.ledger(*place), *ip)).collect();
    assert!(seen[0].len() >= 5 && seen.iter().all(|one| *one == seen[0]), "{seen:?}\n{}", hub.report());
    assert_eq!(seen[0].last().map(|(method, _)| method.as_str()), Some("BYE"), "{}", hub.report());
    for (place, ip) in from {
        hub.ledger(*place).is_clean((*ip).into()).unwrap_or_else(|error| panic!("{error}\n{}", hub.report()));
    }
    hub.only_watched();
}

#[test]
fn kamailio_that_relays_a_call_with_timers_is_left_alone() {
    let hub = Hub::new(["left", "right"]);
    let (left, right) = (&hub.wires[0], &hub.wires[1]);
    let kamailio = Kamailio {
        own: &[left.a.v4.into(), right.a.v4.into()],
        next_hop: (right.b.v4, 5060).into(),
        detour: None,
        interval_s: None,
    };
    let _kamailio = Program::kamailio(&hub.host, &kamailio).unwrap();
    let (caller, _callee) = sofias(&hub, 0, 1);
    lives_untouched(&hub, &caller, &[(0, left.b.v4), (1, right.a.v4)]);
}

#[test]
fn kamailio_that_relays_a_call_whose_refresher_is_silent_sees_it_die() {
    let hub = Hub::new(["left", "right"]);
    let (left, right) = (&hub.wires[0], &hub.wires[1]);
    let kamailio = Kamailio {
        own: &[left.a.v4.into(), right.a.v4.into()],
        next_hop: (right.b.v4, 5060).into(),
        detour: None,
        interval_s: None,
    };
    let _kamailio = Program::kamailio(&hub.host, &kamailio).unwrap();
    let mut callee = Sipp::start(&hub.around[1], Play::peer_is_called(right.b.v4, INTERVAL_S)).unwrap();
    let play = Play::server_calls(left.b.v4, (left.a.v4, 5060).into(), HOLD);
    let mut caller = Sipp::start(&hub.around[0], play).unwrap();
    assert!(!caller.ended_well(SOON).unwrap(), "{}", hub.report());
    assert!(!callee.ended_well(SOON).unwrap(), "{}", hub.report());
    let last = |place: usize, ip: Ipv4Addr| numbers(&hub.ledger(place), ip).pop().map(|(method, _)| method);
    assert_eq!(last(1, right.b.v4).as_deref(), Some("BYE"), "{}", hub.report());
    assert_eq!(last(0, left.a.v4).as_deref(), Some("BYE"), "{}", hub.report());
    assert!(hub.sipst.count("session_expired") + hub.sipst.count("refresh_due") > 0, "{}", hub.report());
    hub.only_watched();
}

#[test]
fn a_call_that_passes_a_kamailio_twice_is_left_alone() {
    let hub = Hub::new(["left", "detour", "right"]);
    let [left, detour, right] = &hub.wires;
    let own = [left.a.v4.into(), detour.a.v4.into(), right.a.v4.into()];
    let (next_hop, by) = ((right.b.v4, 5060).into(), Some((detour.b.v4, 5060).into()));
    let first = Kamailio { own: &own, next_hop, detour: by, interval_s: None };
    let _first = Program::kamailio(&hub.host, &first).unwrap();
    let back =
        Kamailio { own: &[detour.b.v4.into()], next_hop: (detour.a.v4, 5060).into(), detour: None, interval_s: None };
    let _back = Program::kamailio(&hub.around[1], &back).unwrap();
    let (caller, _callee) = sofias(&hub, 0, 2);
    let from = [(0, left.b.v4), (1, detour.a.v4), (1, detour.b.v4), (2, right.a.v4)];
    lives_untouched(&hub, &caller, &from);
}

/// Sippy's simple B2BUA between a caller without timers and a peer that enforces them: both legs have one Call-ID, and only that
/// of the peer is refreshed and shifted.
fn b2bua(caller_hangs_up: bool) {
    let hub = Hub::new(["left", "right"]);
    let (left, right) = (&hub.wires[0], &hub.wires[1]);
    // It sends from one address, by whichever wire.
    hub.around[1].run("ip", &["route", "add", "default", "via", &right.a.v4.to_string()]).unwrap();
    let own = left.a.v4;
    let peer =
        Agent::start(&hub.around[1], (right.b.v4, 5060).into(), Profile::strict_peer(INTERVAL_S, "uac")).unwrap();
    let sippy = Program::sippy_that_keeps_the_call_id(&hub.host, own, peer.address()).unwrap();
    let caller = Agent::start(&hub.around[0], (left.b.v4, 5060).into(), Profile::plain_server()).unwrap();
    caller.call((own, 5060).into());
    caller.established(SOON).unwrap_or_else(|error| panic!("{error}\n{}", sippy.log()));
    let refreshes = if caller_hangs_up { 6 } else { 2 };
    let within = Duration::from_secs(u64::from(INTERVAL_S) * 4) + SOON;
    peer.refreshed(refreshes, within).unwrap_or_else(|error| panic!("{error}\n{}", hub.report()));
    let (ends, hears) = if caller_hangs_up { (&caller, &peer) } else { (&peer, &caller) };
    ends.bye();
    assert_eq!(ends.answered("BYE", SOON).unwrap(), 200, "{}", hub.report());
    assert!(!hears.ended(SOON).unwrap().0, "{}", hub.report());
    let (near, far) = (hub.ledger(0), hub.ledger(1));
    far.is_clean(own.into()).unwrap_or_else(|error| panic!("{error}\n{}", hub.report()));
    assert!(far.refreshes(own.into()) >= refreshes, "{}", hub.report());
    assert!(!near.has_own() && !sippy.log().contains(OWN_BRANCH), "{}", hub.report());
    // What the B2BUA wrote itself, it wrote in its log.
    let wrote = |number: u32, method: &str| sippy.log().contains(&format!("CSeq: {number} {method}"));
    let bye = |ledger: &Ledger, from: Ipv4Addr| {
        numbers(ledger, from).into_iter().find_map(|(method, number)| (method == "BYE").then_some(number))
    };
    if caller_hangs_up {
        let number = bye(&far, own).unwrap();
        let shift = u32::try_from(far.refreshes(own.into())).unwrap();
        assert!(wrote(number - shift, "BYE") && !wrote(number, "BYE"), "{number}\n{}", sippy.log());
    } else {
        assert!(wrote(bye(&near, own).unwrap(), "BYE"), "{}", sippy.log());
    }
    let started: Vec<_> = hub.sipst.events().into_iter().filter(|event| event["event"] == "session_started").collect();
    assert_eq!(started.len(), 2, "{}", hub.report());
    assert!(started[0]["call_id"] == started[1]["call_id"] && started[0]["reason"].is_null(), "{}", hub.report());
    caller.faultless().unwrap();
    peer.faultless().unwrap();
}

#[test]
fn b2bua_that_keeps_the_call_id_is_refreshed_towards_its_peer_only_and_its_bye_is_taken() {
    b2bua(true);
}

#[test]
fn b2bua_that_keeps_the_call_id_has_its_bye_to_the_other_leg_unchanged() {
    b2bua(false);
}
