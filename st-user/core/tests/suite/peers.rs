//! Where the peer is the refresher: what is told of a refresh of its that was never seen, that the server turned down, or that it
//! left without a word.

use std::time::Duration;

use crate::sim::{self, Call, Sim, disk::Disk, manners, sdp};
use st_core::{
    Action, By, Command, EventKind,
    EventKind::*,
    Policy, Rules, Side,
    engine::{Limits, Mode},
    message::Message,
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

/// What is an alert.
fn alerts(sim: &Sim) -> Vec<(EventKind, Option<By>)> {
    sim.events.iter().filter(|event| event.kind.is_alert()).map(|event| (event.kind, event.by)).collect()
}

fn seconds(sim: &Sim, kind: EventKind) -> u64 {
    sim.last(kind).time.since(sim.events[0].time).as_secs()
}

/// The peer's refresh by that method, with these header lines; returns number and branch.
fn refresh(sim: &mut Sim, call: &mut Call, method: &str, extra: &str) -> (u32, String) {
    let body = if method == "INVITE" { sdp(Side::Peer) } else { String::new() };
    sim.request(call, Side::Peer, method, &(manners(Side::Peer, true) + extra), &body)
}

#[test]
fn f01_a_refresh_of_the_peers_that_the_server_turns_down_is_told_at_once_with_its_words() {
    for (method, status) in [("UPDATE", 405), ("UPDATE", 501), ("INVITE", 503), ("INVITE", 500), ("INVITE", 488)] {
        for cause in [None, Some("Reason: Q.850;cause=38\r\n"), Some("Warning: 399 x \"no\"\r\n")] {
            let mut sim = Sim::new(Action::Alert);
            let mut call = sim.call("a", Side::Server, UAS_90);
            sim.secs(45);
            let asked = refresh(&mut sim, &mut call, method, UAC_90);
            sim.respond(&call, Side::Peer, &asked, method, status, cause.unwrap_or_default());
            let event = sim.last(RefreshRejected);
            assert_eq!((event.method, event.status, event.by), (Some(method), Some(status), Some(By::Peer)));
            assert!(event.deadline.is_some() && event.interval_s == Some(90));
            let words = cause.map_or(String::new(), |cause| format!(" ({})", cause.split_once(": ").unwrap().1.trim()));
            assert_eq!(event.reason.as_deref(), Some(&*format!("server_refuses_refresh: Because{words}")));
            sim.secs(40);
            assert_eq!(
                alerts(&sim),
                [(RefreshRejected, Some(By::Peer)), (SessionExpiring, Some(By::Peer))],
                "{method}"
            );
            assert_eq!(sim.reasons(SessionExpiring), ["server_refuses_refresh"]);
            assert_eq!(sim.injected.len(), 0);
        }
    }
}

#[test]
fn f07_each_way_in_which_the_server_refuses_is_told_once_in_an_interval() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAS_90);
    for _ in 0..2 {
        for _ in 0..5 {
            for (method, status) in [("UPDATE", 405), ("INVITE", 503)] {
                let asked = refresh(&mut sim, &mut call, method, UAC_90);
                sim.respond(&call, Side::Peer, &asked, method, status, "");
            }
        }
        // It does take one after all.
        sim.reinvite(&mut call, Side::Peer, UAC_90, UAC_90);
    }
    let told: Vec<_> =
        sim.events.iter().filter(|event| event.kind == RefreshRejected).map(|event| event.status).collect();
    assert_eq!(told, [Some(405), Some(503), Some(405), Some(503)]);
}

#[test]
fn what_the_peer_can_mend_or_has_asked_for_itself_is_no_rejection() {
    for (status, extra) in
        [(401, ""), (407, ""), (422, "Min-SE: 1800\r\n"), (487, ""), (491, ""), (500, "Retry-After: 5\r\n")]
    {
        let mut sim = Sim::new(Action::Alert);
        let mut call = sim.call("a", Side::Server, UAS_90);
        sim.secs(20);
        let asked = refresh(&mut sim, &mut call, "INVITE", UAC_90);
        sim.respond(&call, Side::Peer, &asked, "INVITE", status, extra);
        assert_eq!(sim.count(RefreshRejected), 0, "{status}");
        sim.secs(35);
        assert_eq!(alerts(&sim), [(RefreshOverdue, Some(By::Peer))], "{status}: and it does not come again");
    }
}

#[test]
fn a_request_of_the_peers_that_changes_something_is_no_refresh() {
    let held = sdp(Side::Peer) + "a=sendonly\r\n";
    for (method, body) in [("INVITE", &*held), ("UPDATE", &*held), ("INVITE", "")] {
        let mut sim = Sim::new(Action::Alert);
        let mut call = sim.call("a", Side::Server, UAS_90);
        let asked = sim.request(&mut call, Side::Peer, method, "", body);
        sim.respond(&call, Side::Peer, &asked, method, 488, "");
        sim.secs(20);
        let _ = sim.request(&mut call, Side::Peer, method, "", body);
        sim.secs(20);
        assert_eq!(alerts(&sim), [], "{method} {body}");
    }
    // The same again under another version is one, and so is whatever asks for an interval where nothing can be compared.
    let raised = sdp(Side::Peer).replace("7 7", "7 8");
    for (method, extra, body) in [("INVITE", "", &*raised), ("INVITE", UAC_90, ""), ("UPDATE", "", "")] {
        let mut sim = Sim::new(Action::Alert);
        let mut call = sim.call("a", Side::Server, UAS_90);
        let asked = sim.request(&mut call, Side::Peer, method, extra, body);
        sim.respond(&call, Side::Peer, &asked, method, 503, "");
        assert_eq!(sim.count(RefreshRejected), 1, "{method} {body}");
    }
}

#[test]
fn what_becomes_of_the_peers_requests_where_the_server_refreshes_is_no_alert() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAC_90);
    let asked = refresh(&mut sim, &mut call, "UPDATE", "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 405, "");
    let _silence = refresh(&mut sim, &mut call, "INVITE", "");
    sim.secs(30);
    assert_eq!(alerts(&sim), []);
}

#[test]
fn a_peer_that_refreshes_on_its_own_account_and_is_turned_down_is_told_of() {
    for status in [Some(503), None] {
        let mut sim = Sim::new(Action::Alert);
        let mut call = sim.call("a", Side::Peer, "");
        sim.secs(45);
        let asked = refresh(&mut sim, &mut call, "UPDATE", UAC_90);
        if let Some(status) = status {
            sim.respond(&call, Side::Peer, &asked, "UPDATE", status, "");
        }
        sim.secs(60);
        let kind = if status.is_some() { RefreshRejected } else { RefreshIgnored };
        assert_eq!(alerts(&sim), [(kind, Some(By::Peer))], "the peer keeps a timer that the server knows nothing of");
        assert_eq!(sim.last(kind).interval_s, None);
    }
}

#[test]
fn f02_f26_a_refresh_that_the_server_says_nothing_to_is_told_apart_from_one_that_never_came() {
    for method in ["UPDATE", "INVITE"] {
        let mut sim = Sim::new(Action::Alert);
        let mut call = sim.call("a", Side::Server, UAS_90);
        sim.secs(45);
        let asked = refresh(&mut sim, &mut call, method, UAC_90);
        for wait in [500, 1_000, 2_000, 4_000] {
            sim.run(Duration::from_millis(wait));
            let body = if method == "INVITE" { sdp(Side::Peer) } else { String::new() };
            let copy = call.request(Side::Peer, method, asked.0, &asked.1, true, UAC_90, &body);
            sim.wire(Side::Peer, copy.into_bytes());
        }
        sim.secs(50);
        assert_eq!(
            alerts(&sim),
            [(RefreshIgnored, Some(By::Peer)), (SessionExpiring, Some(By::Peer)), (SessionExpired, None)],
            "{method}: it is not called overdue"
        );
        assert_eq!((seconds(&sim, RefreshIgnored), sim.last(RefreshIgnored).method), (53, Some(method)));
        let reason = sim.last(RefreshIgnored).reason.clone().unwrap();
        assert!(reason.starts_with("server_ignores_refresh: not a word to 5 copies"), "{reason}");
        assert_eq!(sim.reasons(SessionExpiring), ["server_ignores_refresh"]);
    }
}

#[test]
fn a_server_that_takes_its_time_is_not_called_silent_and_one_that_only_rings_is_in_the_end() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, "Session-Expires: 1800;refresher=uas\r\n");
    sim.secs(900);
    let asked = refresh(&mut sim, &mut call, "INVITE", UAC_90);
    sim.secs(7);
    sim.respond(&call, Side::Peer, &asked, "INVITE", 180, "");
    sim.secs(31);
    assert_eq!(alerts(&sim), []);
    sim.secs(2);
    assert_eq!(alerts(&sim), [(RefreshIgnored, Some(By::Peer))]);
    let reason = sim.last(RefreshIgnored).reason.clone().unwrap();
    assert!(reason.contains("no final answer"), "{reason}");
    // The answer comes after all.
    let answer = manners(Side::Server, true) + UAC_90;
    sim.respond_with(&call, Side::Peer, &asked, "INVITE", 200, &answer, &sdp(Side::Server));
    assert_eq!(sim.last(SessionRefreshed).by, Some(By::Peer));
    sim.secs(40);
    assert_eq!(alerts(&sim).len(), 1, "and all is well again");
}

#[test]
fn a_third_of_a_short_interval_is_silence_enough() {
    let mut sim = Sim::with(Rules { interval_floor: Duration::from_secs(10), ..sim::rules(Action::Alert) });
    let mut call = sim.call("a", Side::Server, "Session-Expires: 15;refresher=uas\r\n");
    sim.secs(3);
    let _asked = refresh(&mut sim, &mut call, "UPDATE", "Session-Expires: 15;refresher=uac\r\n");
    sim.secs(4);
    assert_eq!(sim.count(RefreshIgnored), 0);
    sim.secs(2);
    assert_eq!(sim.count(RefreshIgnored), 1);
}

#[test]
fn a_refresh_that_waits_for_the_server_when_it_is_due_is_not_overdue() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAS_90);
    sim.secs(47);
    let _asked = refresh(&mut sim, &mut call, "UPDATE", UAC_90);
    sim.secs(10);
    assert_eq!((sim.count(RefreshOverdue), sim.count(RefreshIgnored)), (0, 1));
}

#[test]
fn an_answer_that_went_by_unseen_is_no_silence() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAS_90);
    sim.secs(45);
    let _asked = refresh(&mut sim, &mut call, "UPDATE", UAC_90);
    sim.command(Command::Loss { packets: 1 });
    sim.secs(13);
    assert_eq!(sim.count(RefreshIgnored), 0);
}

#[test]
fn a_refresh_that_waits_for_the_server_is_not_forgotten_over_a_restart() {
    let mut sim = Sim::new(Action::Alert);
    sim.engine.follow_changes();
    let mut call = sim.call("a", Side::Server, UAS_90);
    sim.secs(45);
    let _asked = refresh(&mut sim, &mut call, "UPDATE", UAC_90);
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    sim.restart(&disk, Duration::from_secs(1));
    sim.secs(10);
    assert_eq!(alerts(&sim), [(RefreshIgnored, Some(By::Peer))]);
}

#[test]
fn the_servers_own_words_are_cut_and_made_text() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAS_90);
    let asked = refresh(&mut sim, &mut call, "UPDATE", UAC_90);
    let answer = call.response(
        Side::Server,
        405,
        "UPDATE",
        asked.0,
        &format!("SIP/2.0/UDP {};branch={}", sim::text::PEER, asked.1),
        "",
        "",
    );
    let mut bytes = answer.replacen("Because", &"x".repeat(1_000), 1).into_bytes();
    bytes["SIP/2.0 405 ".len()] = 0xff;
    assert!(Message::scan(&bytes, false).is_ok());
    sim.wire(Side::Server, bytes);
    let reason = sim.last(RefreshRejected).reason.clone().unwrap();
    assert!(reason.starts_with("server_refuses_refresh: \u{fffd}xx") && reason.len() < 300, "{reason}");
}

#[test]
fn a_capture_tells_the_same() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAS_90);
    sim.secs(45);
    let asked = refresh(&mut sim, &mut call, "UPDATE", UAC_90);
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 405, "");
    let _asked = refresh(&mut sim, &mut call, "INVITE", UAC_90);
    sim.secs(9);
    sim.request(&mut call, Side::Peer, "BYE", "", "");
    let policy = Policy { default: sim::rules(Action::Alert), ..Policy::default() };
    let mut replay = Sim::custom(policy, Mode::Replay, Limits::default());
    replay.replay(&sim.tape.clone());
    assert_eq!(alerts(&replay), [(RefreshRejected, Some(By::Peer)), (RefreshIgnored, Some(By::Peer))]);
}

#[test]
fn what_the_server_asks_itself_is_no_refresh_of_the_peers_that_is_passed_over() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAS_90);
    sim.secs(45);
    // Both have no answer; the server's says of timers what would make it a refresh.
    let extra = manners(Side::Server, false) + UAC_90;
    sim.request(&mut call, Side::Server, "INVITE", &extra, "");
    refresh(&mut sim, &mut call, "UPDATE", UAC_90);
    sim.secs(40);
    let told = sim.events.iter().filter(|event| event.kind == RefreshIgnored);
    assert_eq!(told.map(|event| event.method).collect::<Vec<_>>(), [Some("UPDATE")]);
}
