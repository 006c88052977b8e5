//! Packets that were lost before the engine could see them: what is not known is not told, and not given up either.

use crate::sim::{self, Call, Reply, Sim};
use st_core::{Action, Command, EventKind::*, Side};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAC_120: &str = "Session-Expires: 120;refresher=uac\r\n";
const UAC_1800: &str = "Session-Expires: 1800;refresher=uac\r\n";

fn lossy(action: Action, expires: &'static str) -> (Sim, Call) {
    let mut sim = Sim::new(action);
    sim.expires = expires;
    let call = sim.call("a", Side::Server, expires);
    sim.secs(10);
    sim.command(Command::Loss { packets: 3 });
    (sim, call)
}

#[test]
fn a_loss_is_told_once_and_belongs_to_no_dialog() {
    let (sim, _) = lossy(Action::Refresh, UAC_90);
    let event = sim.last(CaptureLoss);
    assert_eq!((event.call_id().as_deref(), event.reason.as_deref()), (None, Some("packets_lost: 3")));
    assert_eq!((sim.engine.stats().unsure, sim.engine.stats().lost), (1, 3));
}

#[test]
fn an_unsure_dialog_is_refreshed_at_the_last_moment_that_is_safe() {
    for (expires, early, late) in [(UAC_90, 44, 46), (UAC_120, 67, 69), (UAC_1800, 1_735, 1_737)] {
        let (mut sim, _) = lossy(Action::Refresh, expires);
        sim.secs(early - 10);
        assert_eq!(sim.ours().len(), 0, "{expires}");
        sim.secs(late - early);
        assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (1, 1));
        assert_eq!(sim.engine.stats().unsure, 0, "a 2xx is certain");
    }
}

#[test]
fn the_next_message_of_the_dialog_makes_it_sure() {
    let (mut sim, mut call) = lossy(Action::Refresh, UAC_1800);
    let asked = sim.request(&mut call, Side::Peer, "OPTIONS", "", "");
    sim.respond(&call, Side::Peer, &asked, "OPTIONS", 200, "");
    assert_eq!(sim.engine.stats().unsure, 0);
    sim.secs(891);
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn a_481_ends_a_dialog_that_was_unsure() {
    let (mut sim, _) = lossy(Action::Refresh, UAC_1800);
    sim.replies.push_back(Reply::Status(481, ""));
    sim.secs(1_740);
    assert_eq!(sim.reasons(SessionEnded), ["peer_lost_dialog"]);
    assert_eq!((sim.count(RefreshFailed), sim.count(SessionExpired)), (0, 0));
    sim.secs(600);
    assert_eq!(sim.kernel.holds(), (0, 0));
}

#[test]
fn a_500_in_an_unsure_dialog_is_tried_once_more_at_once() {
    let (mut sim, _) = lossy(Action::Refresh, UAC_1800);
    sim.replies.push_back(Reply::Status(500, "Retry-After: 10\r\n"));
    sim.secs(1_727);
    assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (2, 1));
    assert_eq!(sim.ours()[0].at, sim.ours()[1].at);
}

#[test]
fn an_unsure_session_is_never_told_to_have_expired() {
    let (mut sim, _) = lossy(Action::Alert, UAC_90);
    sim.secs(200);
    assert_eq!((sim.count(SessionExpiring), sim.count(SessionExpired)), (1, 0));
}

#[test]
fn dialogs_that_begin_after_a_loss_are_sure() {
    let (mut sim, _) = lossy(Action::Alert, UAC_90);
    sim.call("b", Side::Server, UAC_90);
    sim.secs(100);
    assert_eq!(sim.last(SessionExpired).call_id().as_deref(), Some("b@example"));
    assert_eq!(sim.count(SessionExpired), 1);
}

#[test]
fn r44_a_dialog_that_outlives_a_transaction_was_acked_even_if_the_ack_was_lost() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &sim::manners(Side::Server, true), &sim::sdp(Side::Server));
    sim.answer(&call, 200, &(sim::manners(Side::Peer, true) + UAC_90), &sim::sdp(Side::Peer));
    sim.command(Command::Loss { packets: 1 });
    sim.secs(20);
    let asked = sim.request(&mut call, Side::Peer, "OPTIONS", "", "");
    sim.respond(&call, Side::Peer, &asked, "OPTIONS", 200, "");
    sim.secs(10);
    assert_eq!(sim.arms.len(), 0);
    sim.secs(20);
    assert_eq!(sim.count(RefreshSucceeded), 1);
}

#[test]
fn a_loss_while_the_numbers_are_read_leaves_the_dialog_unsure() {
    let mut sim = Sim::new(Action::Refresh);
    sim.call("a", Side::Server, UAC_90);
    sim.deaf = true;
    sim.secs(46);
    assert_eq!(sim.arms.len(), 1);
    sim.command(Command::Loss { packets: 1 });
    sim.deaf = false;
    sim.replies.push_back(Reply::Status(481, ""));
    sim.secs(4);
    assert_eq!((sim.ours().len(), sim.reasons(SessionEnded)), (1, vec!["peer_lost_dialog".to_string()]));
}
