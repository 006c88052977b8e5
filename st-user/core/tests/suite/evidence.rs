//! The server's media as evidence: a call whose RTP has stopped for a whole interval is not refreshed, and nothing else is judged.

use std::time::Duration;

use crate::sim::{self, Call, Sim, disk::Disk, manners};
use st_core::{
    Action, Command,
    EventKind::*,
    MediaSeen, Policy, Rules, Side,
    engine::{Limits, Mode},
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";
/// Where the server's SDP says that its media come from.
const FLOW: &str = "192.0.2.10:4000";

fn sdp(side: Side, attribute: &str) -> String {
    format!("{}{attribute}\r\n", sim::sdp(side))
}

/// A call, and RTP of the server's for so long.
fn call_with_rtp(seconds: u64) -> (Sim, Call) {
    let mut sim = Sim::new(Action::Refresh);
    let call = sim.call("a", Side::Server, UAC_90);
    flow(&mut sim, seconds);
    (sim, call)
}

fn flow(sim: &mut Sim, seconds: u64) {
    for _ in 0..seconds {
        sim.rtp(FLOW);
        sim.secs(1);
    }
}

#[test]
fn a_call_whose_rtp_has_stopped_for_a_whole_interval_is_told_and_not_refreshed() {
    // Refreshed at 45 and 90 s; RTP ends at 60 s, so at 135 s it is silent for 75 s, at 180 s for 120 s.
    let (mut sim, _) = call_with_rtp(60);
    sim.secs(76);
    assert_eq!((sim.ours().len(), sim.count(RefreshOverdue)), (3, 0), "less than an interval is nothing");
    sim.secs(45);
    assert_eq!((sim.ours().len(), sim.reasons(RefreshOverdue)), (3, vec!["media_silent".to_string()]));
    sim.secs(60);
    assert_eq!(sim.ours().len(), 3, "and it stays so");
    assert_eq!(sim.reasons(RefreshOverdue), ["media_silent"], "told once");
    assert_eq!(sim.reasons(SessionExpiring), ["media_silent"]);
    assert_eq!(sim.reasons(RefreshFailed), ["media_silent"]);
    assert_eq!(sim.count(SessionExpired), 1);
}

#[test]
fn rtp_that_comes_back_in_time_saves_the_call() {
    let (mut sim, _) = call_with_rtp(60);
    sim.secs(122);
    assert_eq!((sim.ours().len(), sim.count(RefreshOverdue)), (3, 1));
    sim.rtp(FLOW);
    sim.secs(6);
    assert_eq!((sim.ours().len(), sim.count(RefreshFailed)), (4, 0));
    sim.assert_numbers();
}

#[test]
fn a_call_without_any_rtp_ever_seen_is_not_judged_by_it() {
    let mut sim = Sim::new(Action::Refresh);
    sim.call("a", Side::Server, UAC_90);
    sim.secs(45 * 10);
    assert_eq!((sim.ours().len(), sim.count(RefreshOverdue)), (10, 0));
}

#[test]
fn with_media_evidence_off_nothing_is_watched() {
    let mut sim = Sim::with(Rules { media_evidence: false, ..sim::rules(Action::Refresh) });
    sim.call("a", Side::Server, UAC_90);
    assert!(sim.flows.is_empty());
    sim.secs(46);
    assert!(sim.arms[0].media.is_empty());
}

#[test]
fn only_calls_that_sipst_refreshes_are_watched_and_none_that_is_over() {
    for action in [Action::Observe, Action::Alert] {
        let mut sim = Sim::new(action);
        sim.call("a", Side::Server, UAC_90);
        assert!(sim.flows.is_empty(), "{action:?}");
    }
    for expires in ["", UAS_90] {
        let mut sim = Sim::new(Action::Refresh);
        sim.call("a", Side::Server, expires);
        assert!(sim.flows.is_empty(), "{expires}");
    }
    let mut sim = Sim::custom(
        Policy { default: sim::rules(Action::Refresh), ..Policy::default() },
        Mode::Replay,
        Limits::default(),
    );
    sim.call("a", Side::Server, UAC_90);
    assert!(sim.flows.is_empty(), "a capture has no kernel");
    let (mut sim, mut call) = call_with_rtp(3);
    assert_eq!((sim.flows.len(), sim.engine.stats().flows), (1, 1));
    sim.hang_up(&mut call);
    assert_eq!((sim.flows.len(), sim.engine.stats().flows), (0, 0));
}

/// One side holds by a re-INVITE, and the other agrees.
fn direction(sim: &mut Sim, call: &mut Call, side: Side, asked: &str, answered: &str) {
    let request = sim.request(call, side, "INVITE", &manners(side, true), &sdp(side, asked));
    let other = side.other();
    let expires = if side == Side::Server { UAC_90 } else { UAS_90 };
    sim.respond_with(call, side, &request, "INVITE", 200, &(manners(other, true) + expires), &sdp(other, answered));
    let branch = call.branch();
    let ack = call.request(side, "ACK", request.0, &branch, true, "", "");
    sim.wire(side, ack.into_bytes());
}

#[test]
fn silence_on_hold_is_nothing_and_counts_only_from_its_end() {
    for (side, asked, answered) in [
        (Side::Peer, "a=sendonly", "a=recvonly"),
        (Side::Peer, "a=inactive", "a=inactive"),
        (Side::Server, "a=inactive", "a=inactive"),
        (Side::Server, "a=recvonly", "a=sendonly"),
    ] {
        let (mut sim, mut call) = call_with_rtp(20);
        direction(&mut sim, &mut call, side, asked, answered);
        sim.secs(45 * 8);
        assert_eq!(sim.count(RefreshOverdue), 0, "{side:?} {asked}");
        let held = sim.ours().len();
        assert!(held >= 7, "it was refreshed all the time: {held}");
        direction(&mut sim, &mut call, side, "a=sendrecv", "a=sendrecv");
        // Behind the peer's own chance, which its request gives it (R12).
        sim.secs(52);
        assert_eq!((sim.count(RefreshOverdue), sim.ours().len()), (0, held + 1), "{side:?} {asked}: not yet");
        sim.secs(90);
        assert_eq!(sim.reasons(RefreshOverdue), ["media_silent"], "{side:?} {asked}: RTP was seen before the hold");
    }
}

#[test]
fn media_that_move_elsewhere_are_judged_once_they_were_seen_there() {
    let (mut sim, mut call) = call_with_rtp(20);
    let moved = sim::sdp(Side::Server).replace("192.0.2.10", "192.0.2.77");
    let request = sim.request(&mut call, Side::Server, "INVITE", &manners(Side::Server, true), &moved);
    let answer = manners(Side::Peer, true) + UAC_90;
    sim.respond_with(&call, Side::Server, &request, "INVITE", 200, &answer, &sim::sdp(Side::Peer));
    let branch = call.branch();
    let ack = call.request(Side::Server, "ACK", request.0, &branch, true, "", "");
    sim.wire(Side::Server, ack.into_bytes());
    assert_eq!(sim.flows.keys().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.77:4000"]);
    sim.secs(45 * 6);
    assert_eq!((sim.count(RefreshOverdue), sim.ours().len()), (0, 6));
    sim.rtp("192.0.2.77:4000");
    sim.secs(45 * 4);
    assert_eq!(sim.reasons(RefreshOverdue), ["media_silent"]);
}

#[test]
fn the_answer_in_the_ack_to_a_late_offer_names_the_flow() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), "");
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sim::sdp(Side::Peer));
    assert!(sim.flows.is_empty());
    let branch = call.branch();
    let ack = call.request(Side::Server, "ACK", call.invite.0, &branch, true, "", &sim::sdp(Side::Server));
    sim.wire(Side::Server, ack.into_bytes());
    assert!(sim.flows.contains_key(&FLOW.parse().unwrap()));
}

#[test]
fn forks_of_one_invite_share_a_flow_until_the_last_is_over() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sim::sdp(Side::Server));
    let mut forks = ["x", "y"].map(|tag| Call { remote: tag.into(), ..call.clone() });
    for fork in &mut forks {
        sim.answer(fork, 200, &(manners(Side::Peer, true) + UAC_90), &sim::sdp(Side::Peer));
        sim.ack(fork);
    }
    assert_eq!((sim.engine.stats().sessions, sim.flows.len()), (2, 1));
    let [mut first, mut second] = forks;
    sim.hang_up(&mut first);
    assert_eq!(sim.flows.len(), 1);
    sim.hang_up(&mut second);
    assert_eq!(sim.flows.len(), 0);
}

#[test]
fn the_refresher_that_becomes_the_peer_is_watched_no_longer() {
    let (mut sim, mut call) = call_with_rtp(5);
    sim.reinvite(&mut call, Side::Server, "", UAS_90);
    assert!(sim.flows.is_empty());
    sim.reinvite(&mut call, Side::Server, "", UAC_90);
    assert_eq!(sim.flows.len(), 1);
}

#[test]
fn a_call_beyond_the_limit_of_flows_is_not_judged_by_its_media() {
    let policy = Policy { default: sim::rules(Action::Refresh), ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Live, Limits { flows: 1, ..Limits::default() });
    let mut first = sim.call("a", Side::Server, UAC_90);
    let mut second = Call::new("b", Side::Server);
    let port = |side| sim::sdp(side).replace("4000", "4002");
    sim.invite(&mut second, &manners(Side::Server, true), &port(Side::Server));
    sim.answer(&second, 200, &(manners(Side::Peer, true) + UAC_90), &port(Side::Peer));
    sim.ack(&mut second);
    assert_eq!((sim.flows.len(), sim.engine.stats().unwatched), (1, 1));
    sim.rtp(FLOW);
    sim.hang_up(&mut first);
    sim.secs(45);
    assert_eq!((sim.ours().len(), sim.arms.last().map(|arm| arm.media.len())), (1, Some(0)));
    assert_eq!(sim.flows.len(), 1, "there is room again from the next 2xx on");
}

#[test]
fn what_the_driver_says_of_a_session_that_is_not_known_changes_nothing() {
    let (mut sim, mut call) = call_with_rtp(5);
    let session = {
        sim.secs(46);
        sim.arms[0].session
    };
    sim.hang_up(&mut call);
    let (events, seen) = (sim.events.len(), MediaSeen { left: Some(sim.now), came: None });
    sim.command(Command::Media { session, seen });
    sim.command(Command::Media { session: st_core::SessionId(99), seen });
    sim.run(Duration::from_secs(1));
    assert_eq!(sim.events.len(), events);
}

#[test]
fn a_new_daemon_watches_the_flows_again_and_holds_no_silence_against_a_call_that_nobody_looked_at() {
    let (mut sim, _) = call_with_rtp(60);
    sim.engine.follow_changes();
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    // Told of the RTP at 45 s, and refreshed at 90 s next: nobody looks from 60 s on.
    sim.restart(&disk, Duration::from_secs(20));
    assert_eq!(sim.flows.keys().map(ToString::to_string).collect::<Vec<_>>(), [FLOW]);
    sim.secs(80);
    assert_eq!(
        (sim.ours().len(), sim.count(RefreshOverdue)),
        (3, 0),
        "at 135 s it has been silent for 55 s, as far as is known"
    );
    sim.secs(60);
    assert_eq!((sim.ours().len(), sim.reasons(RefreshOverdue)), (3, vec!["media_silent".to_string()]));
}
