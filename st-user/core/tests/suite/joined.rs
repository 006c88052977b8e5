//! Datagrams that the kernel hands over as parts of one packet: calls are followed by them, and nothing is sent in the name of a server that
//! sends so, for no number can be shifted there.

use std::time::Duration;

use crate::sim::{Reply, Sim, disk::Disk, text::server_expires};
use st_core::{
    Action,
    EventKind::*,
    OnExpired, OnMoved, Respond, Rules, Side,
    engine::reason::{JOINED, NO_ANSWER},
    message::MethodName,
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
/// Where the server's SDP says that its media are.
const FLOW: &str = "192.0.2.10:4000";
const OUT: [bool; 2] = [true, false];
const IN: [bool; 2] = [false, true];

fn sim(joined: [bool; 2]) -> Sim {
    let mut sim = Sim::new(Action::Refresh);
    sim.joined = joined;
    sim
}

#[test]
fn a_call_is_followed_by_them_and_nothing_is_sent_in_it() {
    for caller in [Side::Server, Side::Peer] {
        let mut sim = sim([true; 2]);
        let mut call = sim.call("a", caller, server_expires(caller));
        sim.secs(30);
        // It is the server's to refresh, and it does.
        let update = sim.request(&mut call, Side::Server, "UPDATE", &format!("Supported: timer\r\n{UAC_90}"), "");
        sim.respond(&call, Side::Server, &update, "UPDATE", 200, UAC_90);
        sim.secs(80);
        assert_eq!([sim.count(SessionStarted), sim.count(TimerNegotiated), sim.count(SessionRefreshed)], [1; 3]);
        assert_eq!(sim.reasons(RefreshOverdue), [JOINED]);
        assert_eq!([sim.injected.len(), sim.arms.len(), sim.count(SessionExpired)], [0; 3]);
        sim.hang_up(&mut call);
        assert_eq!((sim.count(SessionEnded), sim.violations.len()), (1, 0));
    }
}

#[test]
fn the_control_is_refreshed() {
    for joined in [[false; 2], IN] {
        let mut sim = sim([false; 2]);
        sim.call("a", Side::Server, UAC_90);
        // What the peer sends of its own accord, anybody can.
        sim.joined = joined;
        sim.secs(60);
        assert_eq!((sim.count(RefreshSucceeded), sim.injected.len()), (1, 1), "{joined:?}");
    }
}

#[test]
fn from_the_first_such_message_of_the_servers_on_no_call_of_its_socket_is_refreshed() {
    let mut sim = sim([false; 2]);
    let mut call = sim.call("a", Side::Server, UAC_90);
    let mut other = sim.call("b", Side::Server, UAC_90);
    sim.secs(50);
    assert_eq!(sim.count(RefreshSucceeded), 2);
    let before = sim.injected.len();
    sim.joined = OUT;
    let info = sim.request(&mut call, Side::Server, "INFO", "", "");
    sim.joined = [false; 2];
    sim.respond(&call, Side::Server, &info, "INFO", 500, "");
    sim.secs(100);
    assert_eq!(sim.injected.len(), before);
    assert_eq!(sim.reasons(RefreshOverdue), [JOINED, JOINED]);
    sim.hang_up(&mut call);
    sim.hang_up(&mut other);
}

#[test]
fn an_answer_that_names_what_the_server_has_asked_counts_as_much_and_a_strangers_does_not() {
    for (asked, answered) in [(true, true), (false, false)] {
        let mut sim = sim([false; 2]);
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(10);
        let info = sim.request(&mut call, Side::Server, "INFO", "", "");
        sim.joined = IN;
        if asked {
            sim.respond(&call, Side::Server, &info, "INFO", 200, "");
        } else {
            let strangers = (info.0, format!("{}x", info.1));
            sim.respond(&call, Side::Server, &strangers, "INFO", 200, "");
            sim.joined = [false; 2];
            sim.respond(&call, Side::Server, &info, "INFO", 200, "");
        }
        sim.joined = [false; 2];
        sim.secs(60);
        assert_eq!(sim.injected.is_empty(), answered, "{asked}");
    }
}

#[test]
fn an_answer_to_sipst_is_one_however_it_comes() {
    let mut sim = sim([false; 2]);
    sim.call("a", Side::Server, UAC_90);
    sim.joined = IN;
    sim.secs(200);
    assert!(sim.count(RefreshSucceeded) >= 3, "{:?}", sim.reasons(RefreshFailed));
    assert!(sim.reasons(RefreshFailed).iter().all(|why| why != NO_ANSWER) && sim.violations.is_empty());
}

#[test]
fn a_bye_of_the_servers_that_is_refused_for_its_number_is_followed_by_sipsts_own() {
    for (status, joined, refreshed, follows) in [
        (500, true, true, true),
        (200, true, true, false),
        (481, true, true, false),
        (500, true, false, false),
        (500, false, true, false),
    ] {
        let mut sim = sim([false; 2]);
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(if refreshed { 50 } else { 10 });
        let before = sim.injected.len();
        sim.joined = [joined, false];
        let asked = sim.request(&mut call, Side::Server, "BYE", "", "");
        sim.joined = [false; 2];
        sim.respond(&call, Side::Server, &asked, "BYE", status, "");
        sim.secs(1);
        let byes: Vec<_> = sim.seen.iter().filter(|seen| seen.ours && seen.method == MethodName::Bye).collect();
        assert_eq!((byes.len(), sim.injected.len() - before), (usize::from(follows), usize::from(follows)), "{status}");
        if follows {
            assert_eq!(sim.reasons(ByeSent), ["bye_refused"]);
        }
        sim.secs(100);
        assert_eq!((sim.count(SessionEnded), sim.injected.len() - before), (1, usize::from(follows)), "once");
    }
}

#[test]
fn where_sipst_may_not_refresh_it_sends_no_bye_either() {
    let mut sim = sim([false; 2]);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(50);
    let before = sim.injected.len();
    sim.set_policy(st_core::Policy {
        default: Rules { action: Action::Alert, ..Rules::default() },
        ..st_core::Policy::default()
    });
    sim.joined = OUT;
    let asked = sim.request(&mut call, Side::Server, "BYE", "", "");
    sim.respond(&call, Side::Server, &asked, "BYE", 500, "");
    sim.secs(100);
    assert_eq!(sim.injected.len(), before);
}

#[test]
fn a_refresh_that_is_about_to_leave_does_not() {
    let mut sim = sim([false; 2]);
    sim.usual = Reply::Silence;
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.deaf = true;
    sim.secs(46);
    assert_eq!((sim.arms.len(), sim.injected.len()), (1, 0), "it is being armed");
    sim.joined = OUT;
    let info = sim.request(&mut call, Side::Server, "INFO", "", "");
    sim.respond(&call, Side::Server, &info, "INFO", 200, "");
    sim.deaf = false;
    sim.secs(30);
    assert_eq!((sim.injected.len(), sim.reasons(RefreshFailed)), (0, vec![JOINED.into()]));
}

#[test]
fn nothing_is_said_in_either_sides_name() {
    let mut sim = Sim::with(Rules {
        action: Action::Refresh,
        respond: Respond::OnReject,
        on_moved: OnMoved::TellServer,
        take_over: true,
        ..Rules::default()
    });
    sim.joined = OUT;
    sim.call("a", Side::Server, "Session-Expires: 90;refresher=uas\r\n");
    sim.secs(300);
    assert_eq!([sim.injected.len(), sim.told.len()], [0; 2]);
}

#[test]
fn one_that_nobody_is_in_any_more_is_hung_up_all_the_same() {
    let mut sim = Sim::with(Rules { action: Action::Refresh, on_expired: OnExpired::Bye, ..Rules::default() });
    sim.joined = OUT;
    sim.call("a", Side::Server, UAC_90);
    for _ in 0..10 {
        sim.rtp(FLOW);
        sim.rtp_in(FLOW);
        sim.secs(1);
    }
    sim.secs(400);
    assert_eq!((sim.reasons(RefreshOverdue), sim.reasons(ByeFailed)), (vec![JOINED.into()], vec![]));
    assert_eq!(
        (sim.count(ByeSent), sim.count(RefreshSucceeded), sim.reasons(SessionEnded)),
        (2, 0, vec!["expired".into()])
    );
}

#[test]
fn a_daemon_that_comes_later_knows_of_it() {
    let mut sim = sim(OUT);
    sim.engine.follow_changes();
    sim.call("a", Side::Server, UAC_90);
    sim.joined = [false; 2];
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    sim.restart(&disk, Duration::from_secs(5));
    sim.secs(60);
    assert_eq!((sim.injected.len(), sim.reasons(RefreshOverdue)), (0, vec![JOINED.into()]));
}
