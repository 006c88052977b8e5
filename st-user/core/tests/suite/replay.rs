//! A capture says what the daemon said live.

use std::time::Duration;

use crate::sim::{Call, Reply, Sim, Taped, rules};
use st_core::{
    Action, Direction, Event, EventKind,
    EventKind::*,
    Policy, Side,
    engine::{Limits, Mode},
    message::Message,
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

fn replayed(action: Action, tape: &[Taped]) -> Sim {
    let policy = Policy { default: rules(action), ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Replay, Limits::default());
    sim.replay(tape);
    assert_eq!((sim.arms.len(), sim.injected.len(), sim.kernel.retired.len()), (0, 0, 0), "nothing is ever sent");
    sim
}

fn session_events(sim: &Sim) -> Vec<&Event> {
    sim.events.iter().filter(|event| event.names.is_some()).collect()
}

/// The same without the answers to our own requests.
fn on_host(tape: &[Taped]) -> Vec<Taped> {
    let is_answer = |(_, direction, bytes): &Taped| {
        let message = Message::scan(bytes, false).expect("SIP");
        *direction == Direction::Ingress && message.top_via().and_then(|via| via.our_token()).is_some()
    };
    tape.iter().filter(|taped| !is_answer(taped)).cloned().collect()
}

#[test]
fn a_capture_at_the_peers_end_prints_the_same_events_as_the_daemon_did() {
    for (caller, expires, update, replies) in [
        (Side::Server, UAC_90, true, vec![]),
        (Side::Peer, UAS_90, true, vec![]),
        (Side::Server, UAC_90, false, vec![]),
        (Side::Server, UAC_90, true, vec![Reply::Status(501, ""), Reply::Ok]),
        (Side::Server, UAC_90, true, vec![Reply::Silence, Reply::Ok]),
        (Side::Server, UAC_90, true, vec![Reply::Status(491, ""), Reply::Status(503, "Retry-After: 1\r\n")]),
        (Side::Server, UAC_90, true, vec![Reply::Ok, Reply::Status(481, "")]),
        (Side::Server, UAC_90, true, vec![Reply::Status(401, "")]),
        (Side::Server, UAC_90, true, vec![Reply::Status(302, "")]),
    ] {
        let mut live = Sim::new(Action::Refresh);
        live.replies.extend(replies.clone());
        let mut call = Call { number: 8, ..Call::new("a", caller) };
        live.establish(&mut call, expires, update);
        live.secs(200);
        live.reinvite(&mut call, Side::Peer, "", UAS_90);
        live.secs(60);
        live.hang_up(&mut call);
        let replay = replayed(Action::Refresh, &live.tape);
        assert_eq!(session_events(&replay), session_events(&live), "{caller:?} {update} {replies:?}");
        assert_eq!(replay.count(CaptureLoss), 0);
    }
}

#[test]
fn without_the_config_of_the_daemon_our_requests_are_recognised_all_the_same() {
    let mut live = Sim::new(Action::Refresh);
    let mut call = live.call("a", Side::Server, UAC_90);
    live.secs(100);
    live.hang_up(&mut call);
    let replay = replayed(Action::Alert, &live.tape);
    let mut kinds = replay.kinds();
    kinds.retain(|kind| !matches!(kind, RefreshDue | RefreshOverdue));
    let mut expected = live.kinds();
    expected.retain(|kind| *kind != RefreshDue);
    assert_eq!(kinds, expected);
}

#[test]
fn a_peer_that_never_answered_is_no_partial_capture() {
    let mut live = Sim::new(Action::Refresh);
    live.usual = Reply::Silence;
    let mut call = live.call("a", Side::Server, UAC_90);
    live.secs(100);
    live.hang_up(&mut call);
    let replay = replayed(Action::Refresh, &live.tape);
    assert_eq!(session_events(&replay), session_events(&live));
    assert_eq!(replay.count(CaptureLoss), 0);
}

#[test]
fn one_copy_of_a_refresh_shows_that_it_had_no_answer() {
    let mut live = Sim::new(Action::Refresh);
    live.usual = Reply::Silence;
    live.call("a", Side::Server, UAC_90);
    live.run(Duration::from_millis(45_600));
    let update = live.seen.last().expect("a refresh").clone();
    assert!(update.ours && update.copy);
    let replay = replayed(Action::Refresh, &live.tape);
    assert_eq!(replay.count(CaptureLoss), 0);
    // And so it does where the capture goes on: the session may well have ended.
    let mut tape = live.tape.clone();
    let other = Call::new("other", Side::Server);
    let text = other.request(Side::Server, "OPTIONS", 1, "z9hG4bKo", false, "", "");
    tape.push((live.now + Duration::from_secs(60), Direction::Egress, text.into_bytes()));
    let replay = replayed(Action::Refresh, &tape);
    assert_eq!((replay.count(CaptureLoss), replay.count(SessionExpired)), (0, 1));
}

#[test]
fn a_capture_on_the_host_is_recognised_and_told_once() {
    for (expires, seconds) in [(UAC_90, 300), ("Session-Expires: 1800;refresher=uac\r\n", 4_000)] {
        let mut live = Sim::new(Action::Refresh);
        live.expires = expires;
        let mut calls = ["a", "b"].map(|name| live.call(name, Side::Server, expires));
        live.secs(seconds);
        for call in &mut calls {
            live.hang_up(call);
        }
        let replay = replayed(Action::Refresh, &on_host(&live.tape));
        assert_eq!(replay.reasons(CaptureLoss), ["capture_on_host"]);
        let alerts: Vec<EventKind> = replay.kinds().into_iter().filter(|kind| kind.is_alert()).collect();
        assert_eq!(alerts, [CaptureLoss], "what follows from the missing answers is not told");
        assert_eq!(replay.count(RefreshSent), live.count(RefreshSent));
        assert_eq!(replay.count(SessionEnded), 2);
    }
}

#[test]
fn a_capture_that_ends_before_the_answer_is_partial_too() {
    let mut live = Sim::new(Action::Refresh);
    live.call("a", Side::Server, UAC_90);
    live.secs(46);
    let replay = replayed(Action::Refresh, &on_host(&live.tape));
    assert_eq!(replay.reasons(CaptureLoss), ["capture_on_host"]);
    assert_eq!(replay.kinds().last(), Some(&CaptureLoss));
}

#[test]
fn a_capture_without_sipst_tells_what_would_have_been_due() {
    let mut live = Sim::new(Action::Observe);
    let mut call = live.call("a", Side::Server, UAC_90);
    live.secs(95);
    live.hang_up(&mut call);
    let replay = replayed(Action::Alert, &live.tape);
    assert_eq!(
        replay.kinds(),
        [SessionStarted, TimerNegotiated, RefreshDue, RefreshOverdue, SessionExpiring, SessionExpired, SessionEnded]
    );
}

#[test]
fn a_capture_that_begins_in_mid_call_is_survived() {
    let mut live = Sim::new(Action::Refresh);
    let mut call = live.call("a", Side::Server, UAC_90);
    live.secs(100);
    live.hang_up(&mut call);
    for begin in 1..live.tape.len() {
        replayed(Action::Refresh, &live.tape[begin..]);
    }
}
