//! CSeq numbers: the peer never sees one twice or one that is lower, and there is always room for the server's own.

use std::time::Duration;

use crate::sim::{self, Call, Sim, Step};
use st_core::{
    Action, Command,
    EventKind::*,
    Refusal, SessionId, Side,
    engine::{RESERVE, limits::MAX_MOVED},
    message::MethodName,
};
use st_ebpf::cseq::State;

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

fn started(sim: &mut Sim, caller: Side, first: u32, blank: &'static str) -> Call {
    let mut call = Call { number: first, blank, ..Call::new("a", caller) };
    sim.establish(&mut call, if caller == Side::Server { UAC_90 } else { UAS_90 }, true);
    call
}

/// A header line that makes a request too long to become longer.
fn padding() -> String {
    format!("X-Padding: {}\r\n", "x".repeat(sim::text::MOST))
}

/// The server calls, and its INVITE cannot become longer.
fn started_at_length(sim: &mut Sim, first: u32, blank: &'static str) -> Call {
    let mut call = Call { number: first, blank, ..Call::new("a", Side::Server) };
    sim.invite(&mut call, &(sim::manners(Side::Server, true) + &padding()), &sim::sdp(Side::Server));
    sim.answer(&call, 200, &(sim::manners(Side::Peer, true) + UAC_90), &sim::sdp(Side::Peer));
    sim.ack(&mut call);
    call
}

#[test]
fn a_first_number_of_zero_is_followed_by_one() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = started(&mut sim, Side::Server, 0, " ");
    sim.secs(100);
    assert_eq!(sim.ours().iter().map(|seen| seen.number).collect::<Vec<_>>(), [1, 2]);
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn a_server_that_has_sent_nothing_starts_above_what_was_sent_for_it() {
    for first in [0, 1, 2, 9, 5_000] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = started(&mut sim, Side::Peer, first, " ");
        sim.secs(100);
        assert_eq!(sim.ours().iter().map(|seen| seen.number).collect::<Vec<_>>(), [1, 2]);
        sim.hang_up(&mut call);
        sim.secs(1);
        sim.assert_numbers();
    }
}

#[test]
fn r25_the_servers_requests_between_ours_keep_their_place() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = started(&mut sim, Side::Server, 7, " ");
    for _ in 0..5 {
        sim.secs(50);
        let asked = sim.request(&mut call, Side::Server, "INFO", "", "");
        sim.respond(&call, Side::Server, &asked, "INFO", 200, "");
        assert_eq!(sim.kernel.back(&call.key(), sim.seen.last().unwrap().number), asked.0);
    }
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn f14_a_request_of_the_servers_between_any_two_steps_of_an_injection_is_no_collision() {
    for caller in [Side::Server, Side::Peer] {
        for step in [Step::BeforeRead, Step::AfterRead, Step::BeforeCommit, Step::AfterCommit] {
            for interval in 1..3 {
                let mut sim = Sim::new(Action::Refresh);
                let call = started(&mut sim, caller, 1, " ");
                sim.secs(55 * (interval - 1));
                sim.interject = Some((step, call.clone()));
                sim.secs(55);
                assert!(sim.interject.is_none());
                sim.assert_numbers();
                assert_eq!(
                    sim.ours().len() as u64,
                    interval,
                    "{caller:?} {step:?}: and the refresh leaves all the same"
                );
                assert_eq!(sim.count(RefreshSucceeded) as u64, interval);
                sim.secs(30);
                let mut call = Call { number: call.number + 1, ..call };
                sim.hang_up(&mut call);
                sim.assert_numbers();
            }
        }
    }
}

#[test]
fn a_number_that_moved_is_asked_for_again_at_once_and_not_for_ever() {
    let mut sim = Sim::new(Action::Refresh);
    sim.refused = Some(Refusal::Moved);
    started(&mut sim, Side::Server, 1, " ");
    for asked in 1..3 {
        sim.secs(if asked == 1 { 45 } else { 1 });
        assert_eq!(sim.arms.len(), asked * (1 + MAX_MOVED as usize), "the pause after each row of them is a second");
    }
    assert_eq!(sim.count(RefreshSent) + sim.count(RefreshFailed), 0);
    sim.refused = None;
    sim.secs(2);
    assert_eq!(sim.count(RefreshSucceeded), 1);
}

#[test]
fn full_ranges_are_waited_for() {
    let mut sim = Sim::new(Action::Refresh);
    sim.refused = Some(Refusal::Ranges);
    started(&mut sim, Side::Server, 1, " ");
    sim.secs(50);
    assert!((1..4).contains(&sim.arms.len()));
    sim.refused = None;
    sim.secs(5);
    assert_eq!(sim.count(RefreshSucceeded), 1);
    sim.assert_numbers();
}

#[test]
fn the_room_is_used_up_to_the_last_number_that_leaves_the_server_its_own() {
    // Two places, and no blanks can be added: 99 is the last number there is.
    let mut sim = Sim::new(Action::Refresh);
    let mut call = started_at_length(&mut sim, 2, " ");
    sim.secs(45 * 120);
    let last = sim.ours().last().unwrap().number;
    assert_eq!(last, 99 - RESERVE);
    assert_eq!(sim.reasons(RefreshFailed), ["cseq_room"]);
    assert!(sim.count(SessionExpiring) == 1 && sim.count(SessionExpired) == 1);
    for _ in 0..RESERVE {
        sim.request(&mut call, Side::Server, "INFO", "", "");
    }
    sim.assert_numbers();
    assert_eq!(sim.seen.last().unwrap().number, 99);
    // Its numbers only grow: there is no room in a later interval either, and that is told as soon as it begins to matter.
    sim.reinvite(&mut call, Side::Peer, "", UAS_90);
    // It has named itself the refresher, and has its chance again.
    sim.secs(52);
    assert_eq!(sim.reasons(RefreshFailed), ["cseq_room"], "no second time");
    assert_eq!(sim.last(RefreshOverdue).reason.as_deref(), Some("cseq_room"));
}

#[test]
fn without_a_space_before_the_number_in_a_long_request_nothing_is_sent_near_the_next_digit() {
    // However many requests the server sends, those just below the next digit would have no room.
    for (first, sent) in [(2, vec![]), (10_000, vec![10_001, 10_002, 10_003])] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = started_at_length(&mut sim, first, "");
        sim.secs(45 * 3 + 2);
        assert_eq!(sim.ours().iter().map(|seen| seen.number).collect::<Vec<_>>(), sent);
        let full: &[&str] = if sent.is_empty() { &["cseq_room"] } else { &[] };
        assert_eq!(sim.reasons(RefreshFailed), full);
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn a_call_of_24_hours_at_se_90_has_room() {
    const DAY: u64 = 24 * 3_600;
    for blank in [" ", ""] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = started(&mut sim, Side::Server, 2, blank);
        sim.secs(DAY);
        assert_eq!(sim.ours().len() as u64, DAY / 45, "{blank:?}");
        assert_eq!((sim.count(RefreshSucceeded), sim.count(RefreshFailed)), (sim.ours().len(), 0), "{blank:?}");
        let last = sim.ours().last().unwrap().number;
        sim.hang_up(&mut call);
        let bye = sim.seen.last().unwrap();
        assert_eq!((bye.method, bye.number), (MethodName::Bye, last + 1), "{blank:?}");
        assert_eq!(sim.kernel.back(&call.key(), bye.number), 3, "{blank:?}");
        assert_eq!(sim.count(SessionEnded), 1, "{blank:?}");
        sim.assert_numbers();
    }
}

#[test]
fn a_server_that_has_written_nothing_is_taken_to_write_as_in_its_other_headers_and_calls() {
    // A space before its Contact: one digit and a space.
    let mut sim = Sim::new(Action::Refresh);
    started(&mut sim, Side::Peer, 1, " ");
    sim.secs(45 * 8);
    assert_eq!(sim.ours().len(), 7);
    // None before the number in another call: one digit.
    let mut sim = Sim::new(Action::Refresh);
    let mut other = sim.call("other", Side::Server, "");
    other.blank = "";
    sim.request(&mut other, Side::Server, "INFO", "", "");
    started(&mut sim, Side::Peer, 1, " ");
    sim.secs(45 * 8);
    assert_eq!(sim.ours().len(), 5);
}

#[test]
fn r25_a_refresh_waits_while_a_copy_of_a_request_of_the_servers_may_still_come() {
    for (answered, sent_at_45) in [(true, 1), (false, 0)] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = started(&mut sim, Side::Server, 1, " ");
        sim.run(Duration::from_millis(44_900));
        let asked = sim.request(&mut call, Side::Server, "INFO", "", "");
        if answered {
            sim.respond(&call, Side::Server, &asked, "INFO", 200, "");
        }
        sim.run(Duration::from_millis(200));
        assert_eq!(sim.ours().len(), sent_at_45, "answered: {answered}");
        // No copy has come when it was due: it was answered unseen.
        sim.secs(1);
        assert_eq!(sim.ours().len(), 1, "answered: {answered}");
        sim.assert_numbers();
    }
}

#[test]
fn the_narrowest_of_the_servers_requests_counts() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = started(&mut sim, Side::Server, 90, "   ");
    call.blank = "";
    sim.request(&mut call, Side::Server, "INFO", &padding(), "");
    sim.secs(45 * 10);
    assert!(sim.ours().is_empty(), "100 is near");
    assert_eq!(sim.reasons(RefreshFailed), ["cseq_room"]);
}

#[test]
fn digits_grow_into_the_space_or_into_blanks_that_are_added() {
    for (first, blank) in [(8, " "), (97, " "), (8, ""), (97, "")] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = started(&mut sim, Side::Server, first, blank);
        sim.secs(45 * 3 + 1);
        let asked = sim.request(&mut call, Side::Server, "INFO", "", "");
        sim.respond(&call, Side::Server, &asked, "INFO", 200, "");
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn early_requests_of_the_servers_count_as_its_numbers() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &sim::manners(Side::Server, true), &sim::sdp(Side::Server));
    sim.answer(&call, 183, "Require: 100rel\r\nRSeq: 1\r\n", "");
    sim.request(&mut call, Side::Server, "PRACK", "RAck: 1 1 INVITE\r\n", "");
    sim.answer(&call, 200, &(sim::manners(Side::Peer, true) + UAC_90), &sim::sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(46);
    assert_eq!(sim.ours()[0].number, 3, "INVITE 1, PRACK 2");
    sim.assert_numbers();
}

#[test]
fn an_answer_of_the_driver_that_nobody_waits_for_changes_nothing() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = started(&mut sim, Side::Server, 1, " ");
    for session in [SessionId(1), SessionId(77)] {
        sim.command(Command::Armed { session, side: Side::Server, result: Ok(State::default()) });
        sim.command(Command::Armed { session, side: Side::Server, result: Err(Refusal::ServerGone) });
    }
    sim.command(Command::Refused { token: 5, refusal: Refusal::Moved });
    assert_eq!(sim.injected.len(), 0);
    sim.secs(46);
    assert_eq!(sim.count(RefreshSucceeded), 1);
    sim.hang_up(&mut call);
}
