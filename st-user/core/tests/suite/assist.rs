//! `assist`: calls that have timers because the kernel programs have changed their INVITE, and the end of that where a peer does not
//! take it.

use std::time::Duration;

use crate::sim::{Call, Sim, disk::Disk, manners, sdp};
use st_core::{
    Action, Assist, By,
    EventKind::*,
    LetBe, Matcher, Policy, Rules, Side, Trunk,
    engine::{Limits, Mode},
};

const REQUIRE: &str = "Require: timer\r\n";
const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\nRequire: timer\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

/// An engine whose INVITEs the kernel programs treat so.
fn sim(assist: Option<Assist>) -> Sim {
    let mut sim = Sim::with(Rules { action: Action::Refresh, assist: true, ..Rules::default() });
    // From another call it is known that the server writes a space, so that there is room.
    sim.call("other", Side::Server, "");
    sim.events.clear();
    sim.assist = assist;
    sim
}

/// The peer calls with these header lines, and the server knows nothing of timers.
fn called(sim: &mut Sim, asks: &str, answers: &str) -> Call {
    let mut call = Call::new("a", Side::Peer);
    sim.invite(&mut call, &(manners(Side::Peer, true) + asks), &sdp(Side::Peer));
    sim.answer(&call, 200, &(manners(Side::Server, false) + answers), &sdp(Side::Server));
    sim.ack(&mut call);
    call
}

fn breaches(sim: &Sim) -> Vec<&'static str> {
    sim.events.iter().flat_map(|event| &event.breaches).map(|breach| breach.reason).collect()
}

/// Seconds from the beginning of the call to each refresh of sipst's.
fn moments(sim: &Sim) -> Vec<u64> {
    sim.ours().iter().map(|seen| seen.at.since(sim.events[0].time).as_secs()).collect()
}

#[test]
fn a_call_whose_invite_was_made_to_list_timer_is_refreshed_and_no_breach_is_told_of_its_2xx() {
    for (assist, breach) in [(Some(Assist::Done), false), (None, true), (Some(Assist::LetBe(LetBe::Unclear)), true)] {
        let mut sim = sim(assist);
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(300);
        let started = sim.last(SessionStarted).reason.as_deref();
        assert_eq!(started, (!breach).then_some("assisted"), "{assist:?}");
        assert_eq!(breaches(&sim).contains(&"refresher_without_timer"), breach, "{assist:?}");
        assert_eq!(moments(&sim), [45, 90, 135, 180, 225, 270], "the server shows nothing of timers: {assist:?}");
        assert!(sim.events.iter().all(|event| !event.kind.is_alert()), "{:?}", sim.kinds());
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn f01_where_the_peer_takes_the_role_in_an_assisted_call_sipst_takes_it_over_and_in_others_not() {
    let mut sim = sim(Some(Assist::Done));
    let mut call = sim.call("a", Side::Server, UAS_90);
    sim.secs(300);
    assert_eq!(moments(&sim)[..2], [5, 50], "before the peer's own attempt");
    assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Server));
    assert!(sim.events.iter().all(|event| !event.kind.is_alert()), "{:?}", sim.kinds());
    sim.hang_up(&mut call);
    sim.assert_numbers();
    let mut sim = self::sim(None);
    sim.call("a", Side::Server, UAS_90);
    sim.secs(300);
    assert!(sim.ours().is_empty());
    assert_eq!(sim.count(RefreshOverdue), 1);
}

#[test]
fn r12_a_peer_that_has_demanded_timers_gets_one_from_sipst_where_the_server_says_nothing_of_it() {
    for (role, refresher, first) in
        [(";refresher=uas", Side::Server, 45), (";refresher=uac", Side::Peer, 5), ("", Side::Peer, 5)]
    {
        let asks = format!("{REQUIRE}Supported: timer\r\nSession-Expires: 90{role}\r\n");
        let mut sim = sim(Some(Assist::Done));
        let mut call = called(&mut sim, &asks, "");
        let agreed = sim.last(TimerNegotiated);
        assert_eq!(agreed.reason.as_deref(), Some("assisted"), "{role}");
        assert_eq!((agreed.interval_s, agreed.refresher), (Some(90), Some(refresher)), "{role}");
        sim.secs(300);
        assert_eq!(moments(&sim)[0], first, "{role}");
        assert!(sim.ours().len() >= 6, "{role}");
        for line in ["Supported: timer\r\n", "Session-Expires: 90;refresher=uac\r\n"] {
            assert!(sim.ours()[0].text.contains(line), "{line} is missing in\n{}", sim.ours()[0].text);
        }
        assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Server), "{role}");
        assert!(sim.events.iter().all(|event| !event.kind.is_alert()), "{:?}", sim.kinds());
        sim.hang_up(&mut call);
        sim.assert_numbers();

        // The same call where the INVITE was not changed: by the letter there is no timer.
        let mut sim = self::sim(None);
        called(&mut sim, &asks, "");
        sim.secs(300);
        assert_eq!((sim.ours().len(), sim.count(TimerNegotiated)), (0, 0), "{role}");
    }
}

#[test]
fn what_the_server_says_of_a_timer_and_what_the_peer_leaves_open_stays_so() {
    let mut sim = sim(Some(Assist::Done));
    called(
        &mut sim,
        &format!("{REQUIRE}Session-Expires: 90;refresher=uac\r\n"),
        "Session-Expires: 120;refresher=uas\r\n",
    );
    let agreed = sim.last(TimerNegotiated);
    assert_eq!((agreed.interval_s, agreed.refresher, agreed.reason.as_deref()), (Some(120), Some(Side::Server), None));
    let mut sim = self::sim(Some(Assist::Done));
    called(&mut sim, REQUIRE, "");
    sim.secs(300);
    assert_eq!((sim.ours().len(), sim.count(TimerNegotiated)), (0, 0), "no interval was asked for");
    // A later 2xx without it changes nothing (R12), and begins no second timer of sipst's making.
    let mut sim = self::sim(Some(Assist::Done));
    let mut call = called(&mut sim, &format!("{REQUIRE}{UAS_90}"), "");
    sim.reinvite(&mut call, Side::Peer, "Session-Expires: 1800;refresher=uac\r\n", "");
    assert_eq!(sim.last(TimerNegotiated).interval_s, Some(90));
}

#[test]
fn a_copy_that_was_changed_counts_whichever_came_first() {
    let mut sim = sim(Some(Assist::LetBe(LetBe::Asleep)));
    let mut call = Call::new("a", Side::Server);
    let branch = call.branch();
    call.invite = (call.next(Side::Server), branch.clone());
    let text =
        call.request(Side::Server, "INVITE", 1, &branch, false, &manners(Side::Server, true), &sdp(Side::Server));
    sim.wire(Side::Server, text.clone().into_bytes());
    sim.assist = Some(Assist::Done);
    sim.wire(Side::Server, text.clone().into_bytes());
    sim.assist = Some(Assist::LetBe(LetBe::Asleep));
    sim.wire(Side::Server, text.into_bytes());
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    assert_eq!(sim.last(SessionStarted).reason.as_deref(), Some("assisted"));
    assert!(!breaches(&sim).contains(&"refresher_without_timer"));
}

fn policy(assist: bool) -> Policy {
    let trunk = |name: &str, net: &str| Trunk {
        name: name.into(),
        matcher: Matcher { peers: vec![net.parse().expect("a network")], domains: vec![] },
        rules: Rules { action: Action::Refresh, assist, ..Rules::default() },
    };
    Policy { trunks: vec![trunk("other", "192.0.2.0/24"), trunk("carrier", "198.51.100.0/24")], ..Policy::default() }
}

/// The server's INVITE gets that answer.
fn turned_down(sim: &mut Sim, name: &str, caller: Side, status: u16, answers: &str) -> Call {
    let mut call = Call::new(name, caller);
    sim.invite(&mut call, &manners(caller, true), &sdp(caller));
    sim.answer(&call, status, answers, "");
    call
}

#[test]
fn r07_one_422_to_an_assisted_invite_ends_it_for_the_trunk_until_there_are_other_rules() {
    const LEAST: &str = "Min-SE: 1800\r\n";
    let mut sim = Sim::custom(policy(true), Mode::Live, Limits::default());
    for (assist, caller, status) in [
        (None, Side::Server, 422),
        (Some(Assist::LetBe(LetBe::Own)), Side::Server, 422),
        (Some(Assist::Done), Side::Server, 486),
        (Some(Assist::Done), Side::Server, 421),
        (Some(Assist::Done), Side::Peer, 422),
    ] {
        sim.assist = assist;
        let call = turned_down(
            &mut sim,
            &format!("{assist:?}{status}{caller:?}").replace(['(', ')'], ""),
            caller,
            status,
            LEAST,
        );
        drop(call);
        assert_eq!((&*sim.unassisted, sim.count(NegotiationFault)), (&[][..], 0), "{assist:?} {caller:?} {status}");
    }
    sim.assist = Some(Assist::Done);
    // A stranger who has not seen the branch.
    let mut call = Call::new("x", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    let forged = Call { invite: (call.invite.0, "z9hG4bKguessed".into()), ..call.clone() };
    sim.answer(&forged, 422, LEAST, "");
    assert!(sim.unassisted.is_empty());
    sim.answer(&call, 422, LEAST, "");
    assert_eq!(sim.unassisted, ["carrier"]);
    let told = sim.last(NegotiationFault);
    assert!(told.reason.as_deref().unwrap().starts_with("assist_off: 422 to an INVITE"), "{told:?}");
    assert_eq!((told.by, told.status, told.trunk.as_deref()), (Some(By::Peer), Some(422), Some("carrier")));
    assert_eq!(told.call_id().as_deref(), Some("x@example"));
    // Others that were on their way.
    turned_down(&mut sim, "y", Side::Server, 422, LEAST);
    assert_eq!((sim.unassisted.len(), sim.count(NegotiationFault)), (1, 1));
    sim.set_policy(policy(true));
    sim.settle();
    turned_down(&mut sim, "z", Side::Server, 422, LEAST);
    assert_eq!((sim.unassisted.len(), sim.count(NegotiationFault)), (2, 2));
}

#[test]
fn why_an_invite_was_let_be_is_told_with_what_came_of_it() {
    for (why, words) in LetBe::ALL.into_iter().zip([
        "the server speaks of session timers itself",
        "what its header says is not clear enough",
        "it demands other extensions too",
        "it is too long",
        "it is not of this host's making",
        "sipst did not keep up",
    ]) {
        for (caller, status, answers) in [(Side::Server, 421, REQUIRE), (Side::Peer, 420, "Unsupported: timer\r\n")] {
            let mut sim = Sim::custom(policy(true), Mode::Live, Limits::default());
            sim.assist = Some(Assist::LetBe(why));
            turned_down(&mut sim, "a", caller, status, answers);
            let told = sim.last(NegotiationFault).reason.clone().unwrap();
            assert!(told.ends_with(&format!("; `assist` has let the INVITE be: {words}")), "{told}");
        }
    }
}

#[test]
fn that_a_call_is_assisted_outlives_the_daemon() {
    let mut sim = sim(Some(Assist::Done));
    sim.engine.follow_changes();
    sim.expires = UAS_90;
    let mut call = sim.call("a", Side::Server, UAS_90);
    let disk = Disk::whole(&mut sim.engine);
    sim.restart(&disk, Duration::from_secs(1));
    sim.secs(80);
    // The peer stays the refresher, whatever is asked: each time it is refreshed before its own attempt.
    assert!(sim.ours().len() >= 2, "{:?}", sim.kinds());
    sim.hang_up(&mut call);
    sim.assert_numbers();
}
