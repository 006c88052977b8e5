//! What a refresh waits for, and for how long: transactions of either side that are open, or look as if they were.

use std::time::Duration;

use crate::sim::{Call, Reply, Sim, manners, sdp};
use st_core::{Action, EventKind::*, Rules, Side, message::MethodName};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAC_1800: &str = "Session-Expires: 1800;refresher=uac\r\n";

/// A call whose refresh is due `seconds` from now.
fn due_in(seconds: u64, late: u64) -> (Sim, Call) {
    let mut sim = Sim::new(Action::Refresh);
    sim.expires = UAC_1800;
    let call = sim.call("a", Side::Server, UAC_1800);
    sim.secs(900 - seconds + late);
    (sim, call)
}

fn ack(sim: &mut Sim, call: &Call, side: Side, number: u32, branch: &str, extra: &str) {
    let text = call.request(side, "ACK", number, branch, true, extra, "");
    sim.wire(side, text.into_bytes());
}

#[test]
fn r27_r28_a_request_without_an_answer_is_waited_for_as_long_as_it_can_be_open() {
    for (side, method, status, seconds) in [
        (Side::Server, "INVITE", None, 32),
        (Side::Server, "INVITE", Some(180), 180),
        (Side::Server, "INVITE", Some(488), 32),
        (Side::Server, "UPDATE", None, 32),
        (Side::Server, "UPDATE", Some(100), 32),
        // A firewall may have dropped what the server says nothing to, and anybody can have sent it.
        (Side::Peer, "INVITE", None, 8),
        (Side::Peer, "INVITE", Some(180), 180),
        (Side::Peer, "INVITE", Some(488), 32),
        (Side::Peer, "UPDATE", None, 8),
        (Side::Peer, "UPDATE", Some(100), 8),
        (Side::Peer, "BYE", None, 32),
    ] {
        for (late, sent) in [(0, 1), (1, 0)] {
            let (mut sim, mut call) = due_in(seconds, late);
            let asked = sim.request(&mut call, side, method, "", "");
            if let Some(status) = status {
                sim.respond(&call, side, &asked, method, status, "");
            }
            sim.secs(seconds - late);
            assert_eq!(sim.ours().len(), sent, "{side:?} {method} {status:?}: {late} s late");
            sim.secs(1);
            assert_eq!(sim.ours().len(), 1, "{side:?} {method} {status:?}");
        }
    }
}

#[test]
fn r25_a_copy_of_a_request_of_the_servers_is_waited_for_half_as_long_again_as_its_gap() {
    // T1 and twice as long after each copy, up to T2; the next one is overdue after one and a half times that (R37).
    for (copies, millis) in [(0, 750), (1, 1_500), (2, 3_000), (3, 6_000), (4, 6_000)] {
        for (late, sent) in [(0, 1), (1, 0)] {
            let (mut sim, mut call) = due_in(20, 0);
            sim.run(Duration::from_millis(20_000 - millis + late));
            let asked = sim.request(&mut call, Side::Server, "INFO", "", "");
            for _ in 0..copies {
                let copy = call.request(Side::Server, "INFO", asked.0, &asked.1, true, "", "");
                sim.wire(Side::Server, copy.into_bytes());
            }
            sim.run(Duration::from_millis(millis - late));
            assert_eq!(sim.ours().len(), sent, "{copies} copies, {late} ms late");
            sim.assert_numbers();
        }
    }
}

#[test]
fn r25_a_request_of_the_servers_that_only_the_kernel_saw_is_waited_for_until_its_copy_is_overdue() {
    for copy in [true, false] {
        let mut sim = Sim::new(Action::Refresh);
        sim.expires = UAC_90;
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(46);
        assert_eq!(sim.ours().len(), 1);
        // Its sample was lost, and the packet on its way.
        let arm = &sim.arms[0];
        sim.kernel.server(&(arm.call_id.clone(), arm.tag.clone()), arm.state.number + 1);
        sim.secs(48);
        assert_eq!(sim.ours().len(), 1, "its copy would come with too low a number");
        if copy {
            let asked = sim.request(&mut call, Side::Server, "INFO", "", "");
            sim.respond(&call, Side::Server, &asked, "INFO", 200, "");
        }
        sim.secs(6);
        assert_eq!(sim.ours().len(), 2, "with a copy: {copy}");
        sim.assert_numbers();
    }
}

#[test]
fn r25_only_its_own_answer_ends_the_wait_for_a_request_of_the_servers() {
    let (mut sim, mut call) = due_in(1, 0);
    sim.run(Duration::from_millis(900));
    let first = sim.request(&mut call, Side::Server, "INFO", "", "");
    sim.request(&mut call, Side::Server, "INFO", "", "");
    sim.respond(&call, Side::Server, &first, "INFO", 200, "");
    sim.run(Duration::from_millis(100));
    assert_eq!(sim.ours().len(), 0, "the second one has none");
    sim.secs(1);
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn r28_a_request_with_a_branch_from_before_rfc_3261_and_its_copy_are_one() {
    let (mut sim, mut call) = due_in(2, 0);
    let number = call.next(Side::Server);
    for _ in 0..2 {
        let text = call.request(Side::Server, "UPDATE", number, "1", true, "", "");
        sim.wire(Side::Server, text.into_bytes());
    }
    sim.respond(&call, Side::Server, &(number, "1".into()), "UPDATE", 500, "");
    sim.secs(2);
    assert_eq!(sim.ours().len(), 1, "nothing is open any more");
}

#[test]
fn r28_two_requests_with_a_branch_from_before_rfc_3261_are_two() {
    let (mut sim, mut call) = due_in(2, 0);
    let asked: Vec<_> = (0..2)
        .map(|_| {
            let number = call.next(Side::Server);
            let text = call.request(Side::Server, "UPDATE", number, "1", true, "", "");
            sim.wire(Side::Server, text.into_bytes());
            (number, "1".to_string())
        })
        .collect();
    sim.respond(&call, Side::Server, &asked[1], "UPDATE", 500, "");
    sim.secs(2);
    assert_eq!(sim.ours().len(), 0, "one of them is open");
}

#[test]
fn r27_an_ack_that_comes_again_is_not_that_of_the_next_invite() {
    let (mut sim, mut call) = due_in(10, 0);
    let first = sim.request(&mut call, Side::Server, "INVITE", "", "");
    sim.respond(&call, Side::Server, &first, "INVITE", 488, "");
    ack(&mut sim, &call, Side::Server, first.0, &first.1, "");
    let second = sim.request(&mut call, Side::Server, "INVITE", "", "");
    sim.respond(&call, Side::Server, &second, "INVITE", 180, "");
    ack(&mut sim, &call, Side::Server, first.0, &first.1, "");
    sim.secs(20);
    assert_eq!(sim.ours().len(), 0, "the second one rings");
}

#[test]
fn r24_the_ack_to_a_2xx_shows_the_way_and_the_ack_to_a_failure_does_not() {
    let route = "Route: <sip:edge.example;lr>\r\n";
    for (status, failing, succeeding) in [(488, "", ""), (488, "", route), (200, "", route), (200, route, "")] {
        let (mut sim, mut call) = due_in(100, 0);
        // Each ACK says something else than the re-INVITE before it.
        let first = sim.request(&mut call, Side::Server, "INVITE", route, &sdp(Side::Server));
        sim.respond(&call, Side::Server, &first, "INVITE", 488, "");
        ack(&mut sim, &call, Side::Server, first.0, &first.1, failing);
        let second = sim.request(&mut call, Side::Server, "INVITE", route, &sdp(Side::Server));
        sim.respond(&call, Side::Server, &second, "INVITE", status, &(manners(Side::Peer, true) + UAC_1800));
        let branch = if status == 200 { "z9hG4bKack" } else { &second.1 };
        ack(&mut sim, &call, Side::Server, second.0, branch, succeeding);
        sim.secs(950);
        let expected = if status == 200 { succeeding } else { route };
        assert_eq!(sim.ours()[0].text.contains("Route:"), !expected.is_empty(), "{status} {failing}/{succeeding}");
    }
}

#[test]
fn r20_only_an_open_refresh_of_the_refreshers_is_waited_for() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(40);
    // The peer's own, and one of another kind.
    sim.request(&mut call, Side::Peer, "UPDATE", "", "");
    sim.request(&mut call, Side::Server, "INFO", "", "");
    let asked = sim.request(&mut call, Side::Server, "UPDATE", "", "");
    sim.respond(&call, Side::Server, &asked, "UPDATE", 500, "");
    sim.secs(5);
    assert_eq!(sim.count(RefreshDue), 1);
}

#[test]
fn r20_a_refresh_of_the_servers_that_never_ends_is_waited_for_up_to_the_peers_deadline() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAC_90);
    let asked = sim.request(&mut call, Side::Server, "INVITE", "", "");
    sim.respond(&call, Side::Server, &asked, "INVITE", 180, "");
    sim.run(Duration::from_millis(58_999));
    assert_eq!(sim.count(RefreshDue), 0);
    sim.run(Duration::from_millis(1));
    assert_eq!(sim.count(RefreshDue), 1, "a second before the deadline");
}

#[test]
fn r27_our_own_reinvite_is_waited_for_until_it_is_over() {
    let mut sim = Sim::new(Action::Refresh);
    sim.replies = [Reply::Rings].into();
    let mut call = Call::new("a", Side::Server);
    sim.establish(&mut call, UAC_90, false);
    sim.secs(45);
    assert!(sim.engine.is_inviting());
    sim.secs(5);
    // The server refreshes by itself: the next refresh is due at 95 s.
    let asked = sim.request(&mut call, Side::Server, "UPDATE", "", "");
    sim.respond(&call, Side::Server, &asked, "UPDATE", 200, UAC_90);
    // Cancelled at 77 s, and there is no final response up to 109 s.
    sim.secs(58);
    assert_eq!((sim.methods(), sim.engine.is_inviting()), (vec![MethodName::Invite], true));
    let cancels = sim.seen.iter().filter(|seen| seen.method == MethodName::Cancel).count();
    assert_eq!(cancels, 1, "its 200 ends the copies");
    sim.secs(2);
    assert_eq!((sim.ours().len(), sim.engine.is_inviting()), (2, false));
    sim.assert_numbers();
}

#[test]
fn what_comes_to_a_request_of_an_earlier_interval_decides_nothing() {
    let mut sim = Sim::new(Action::Refresh);
    sim.replies = [Reply::Rings].into();
    let mut call = Call::new("a", Side::Server);
    sim.establish(&mut call, UAC_90, false);
    sim.secs(50);
    let asked = sim.request(&mut call, Side::Server, "UPDATE", "", "");
    sim.respond(&call, Side::Server, &asked, "UPDATE", 200, UAC_90);
    // The next one is due, and waits for the re-INVITE.
    sim.secs(46);
    let first = sim.ours()[0].clone();
    sim.reply_again(&first, &Reply::Status(481, ""));
    assert_eq!(sim.count(RefreshFailed), 0);
    sim.secs(2);
    assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (2, 1));
}

#[test]
fn r25_requests_of_the_servers_without_end_are_waited_for_up_to_session_expiring() {
    let (mut sim, mut call) = due_in(0, 0);
    // The next interval: due at 900 s, expiring at 1334 s.
    sim.secs(899);
    call.blank = "     ";
    for half in 0..870 {
        sim.request(&mut call, Side::Server, "INFO", "", "");
        assert_eq!(sim.ours().len(), 1, "{half}");
        sim.run(Duration::from_millis(500));
    }
    assert_eq!(sim.ours().len(), 2, "at 1334 s");
    sim.assert_numbers();
}

#[test]
fn a_refresh_that_waited_to_the_end_says_for_what() {
    for (method, status, why) in [
        ("INVITE", 180, "invite_in_progress"),
        ("UPDATE", 183, "request_in_progress"),
        ("BYE", 183, "request_in_progress"),
    ] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(44);
        for _ in 0..46 {
            let asked = sim.request(&mut call, Side::Peer, method, "", "");
            sim.respond(&call, Side::Peer, &asked, method, status, "");
            sim.secs(1);
        }
        assert_eq!((sim.reasons(RefreshFailed), sim.arms.len()), (vec![why.to_string()], 0));
    }
}

#[test]
fn r31_in_a_short_interval_what_cannot_be_done_is_tried_again_sooner() {
    let floor = Duration::from_secs(4);
    let rules = Rules { interval_floor: floor, min_se: floor, action: Action::Refresh, ..Rules::default() };
    let mut sim = Sim::with(rules);
    sim.expires = "Session-Expires: 6;refresher=uac\r\n";
    let mut call = sim.call("a", Side::Server, sim.expires);
    sim.run(Duration::from_millis(2_900));
    // Open up to 3.65 s.
    sim.request(&mut call, Side::Server, "INFO", "", "");
    sim.run(Duration::from_millis(1_000));
    assert_eq!(sim.ours().len(), 1, "at 3.0, 3.3, 3.6 and 3.9 s");
}

/// A call whose refresh is due in 20 s, and of whose peer's UPDATEs the server has said nothing since then.
fn passed_over() -> (Sim, Call, (u32, String)) {
    let (mut sim, mut call) = due_in(20, 0);
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", "", "");
    (sim, call, asked)
}

#[test]
fn f07_what_the_server_has_answered_since_when_is_reckoned_anew_from_each_of_its_answers() {
    // Its answer ends the account, and the next request of the peer's is waited for as the first one was.
    let (mut sim, mut call, asked) = passed_over();
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 488, "");
    sim.secs(19);
    sim.request(&mut call, Side::Peer, "UPDATE", "", "");
    sim.run(Duration::from_millis(7_900));
    assert_eq!(sim.ours().len(), 0);
    sim.run(Duration::from_millis(1_100));
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn f07_neither_the_peers_answers_nor_one_to_nothing_end_the_account_of_what_the_server_passes_over() {
    for answered in [Side::Server, Side::Peer] {
        let (mut sim, mut call, _) = passed_over();
        sim.secs(18);
        if answered == Side::Peer {
            let asked = sim.request(&mut call, Side::Server, "UPDATE", "", "");
            sim.respond(&call, Side::Server, &asked, "UPDATE", 500, "");
        } else {
            sim.respond(&call, Side::Peer, &(7, "z9hG4bK-nobodys".into()), "UPDATE", 500, "");
        }
        sim.secs(1);
        sim.request(&mut call, Side::Peer, "UPDATE", "", "");
        sim.secs(1);
        assert_eq!(sim.ours().len(), 1, "by {answered:?}: anybody could go on like that");
    }
}
