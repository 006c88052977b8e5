//! What an operator sees and asks for: views, refreshes now, calls that are held, other rules under live calls.

use std::time::Duration;

use crate::sim::{self, Call, Reply, Sim, disk::Disk};
use st_core::{
    Action,
    EventKind::*,
    Policy, Rules, SessionId, Side,
    engine::{Denial, Limits, Mode, Standing, Wish, reason},
    message::MethodName,
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";
const UAC_1800: &str = "Session-Expires: 1800;refresher=uac\r\n";
const FIRST: SessionId = SessionId(1);

fn up(action: Action, expires: &'static str) -> (Sim, Call) {
    let mut sim = Sim::new(action);
    sim.expires = expires;
    let call = sim.call("a", Side::Server, expires);
    (sim, call)
}

fn wish(sim: &mut Sim, wish: Wish) -> Result<(), Denial> {
    let done = sim.engine.handle_wish(sim.now, FIRST, wish);
    sim.settle();
    sim.secs(0);
    done
}

fn state(sim: &Sim) -> Standing {
    sim.engine.session(sim.now, FIRST).expect("a session").state
}

/// The rules of all calls from now on, and what follows from them.
fn rule(sim: &mut Sim, action: Action) {
    let policy = Policy { default: sim::rules(action), ..Policy::default() };
    sim.set_policy(policy);
    sim.settle();
    sim.secs(0);
}

#[test]
fn a_call_goes_through_its_states_to_the_end() {
    let (mut sim, mut call) = up(Action::Alert, UAC_90);
    assert_eq!(state(&sim), Standing::Running);
    sim.secs(46);
    assert_eq!(state(&sim), Standing::Overdue);
    sim.secs(8);
    assert_eq!(state(&sim), Standing::Expiring);
    sim.secs(37);
    assert_eq!(state(&sim), Standing::Expired);
    sim.hang_up(&mut call);
    assert_eq!(state(&sim), Standing::Ended);

    let (mut sim, _call) = up(Action::Refresh, UAC_90);
    sim.usual = Reply::Silence;
    sim.secs(46);
    assert_eq!(state(&sim), Standing::Refreshing);
    let (sim, _call) = up(Action::Refresh, "");
    assert_eq!(state(&sim), Standing::Untimed);
    let (sim, _call) = up(Action::Refresh, "Session-Expires: 30;refresher=uac\r\n");
    assert_eq!(state(&sim), Standing::Ignored);
}

#[test]
fn all_sessions_are_seen_in_pieces_whatever_comes_and_goes_meanwhile() {
    let mut sim = Sim::new(Action::Alert);
    let mut calls: Vec<Call> = (0..10).map(|index| sim.call(&format!("c{index}"), Side::Server, UAC_1800)).collect();
    let (mut next, mut seen) = (Some(SessionId(0)), Vec::new());
    let mut turns = 0;
    while let Some(from) = next {
        next = sim.engine.sessions(sim.now, from, 3, |view| {
            seen.push(String::from_utf8(view.names.call_id().to_vec()).unwrap());
            seen.len() % 2 == 0
        });
        turns += 1;
        if turns == 2 {
            // One that was shown, one that was not; and a new one.
            sim.hang_up(&mut calls[0]);
            sim.hang_up(&mut calls[8]);
            sim.secs(40);
            sim.call("new", Side::Server, UAC_1800);
        }
    }
    let there: Vec<_> =
        ["c1", "c2", "c3", "c4", "c5", "c6", "c7", "c9", "new"].map(|name| format!("{name}@example")).into();
    assert!(there.iter().all(|id| seen.iter().filter(|seen| *seen == id).count() == 1), "{seen:?}");
    assert!(turns > 4, "in pieces");
}

#[test]
fn a_refresh_that_is_asked_for_leaves_at_once_and_the_interval_begins_anew() {
    let (mut sim, _call) = up(Action::Refresh, UAC_1800);
    sim.secs(10);
    assert_eq!(wish(&mut sim, Wish::Refresh), Ok(()));
    assert_eq!(sim.methods(), [MethodName::Update]);
    assert_eq!(sim.reasons(RefreshDue), [reason::ASKED_FOR]);
    assert_eq!((sim.count(RefreshSucceeded), sim.count(SessionRefreshed)), (1, 1));
    sim.secs(895);
    assert_eq!(sim.ours().len(), 1, "the next one is due half an interval after it");
    sim.secs(10);
    assert_eq!(sim.ours().len(), 2);
    sim.assert_numbers();
}

#[test]
fn one_that_is_asked_for_and_fails_takes_nothing_from_the_one_that_is_due() {
    let (mut sim, _call) = up(Action::Refresh, UAC_1800);
    sim.replies.extend([Reply::Status(403, ""), Reply::Status(403, "")]);
    assert_eq!(wish(&mut sim, Wish::Refresh), Ok(()));
    assert_eq!((sim.count(RefreshFailed), state(&sim)), (1, Standing::Running));
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite]);
    sim.secs(901);
    assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (3, 1));
    sim.assert_numbers();
}

#[test]
fn whoever_asks_again_and_again_gets_an_intervals_share_of_requests() {
    let (mut sim, _call) = up(Action::Refresh, UAC_1800);
    sim.usual = Reply::Status(403, "");
    while wish(&mut sim, Wish::Refresh) == Ok(()) {
        sim.secs(40);
        assert!(sim.ours().len() < 100);
    }
    assert_eq!(sim.ours().len(), 16);
    assert_eq!(wish(&mut sim, Wish::Refresh), Err(Denial::Barred(reason::TOO_MANY_ATTEMPTS)));
}

#[test]
fn what_must_not_be_sent_is_not_sent_because_somebody_asks() {
    for (action, word) in [(Action::Observe, "observe"), (Action::Alert, "alert")] {
        let (mut sim, _call) = up(action, UAC_90);
        assert_eq!(wish(&mut sim, Wish::Refresh), Err(Denial::Action(word)));
        assert_eq!((sim.arms.len(), sim.injected.len()), (0, 0));
    }
    let (mut sim, mut call) = up(Action::Refresh, UAS_90);
    assert_eq!(wish(&mut sim, Wish::Refresh), Err(Denial::PeerRefreshes));
    assert_eq!(sim.arms.len(), 0);
    sim.hang_up(&mut call);
    assert_eq!(wish(&mut sim, Wish::Refresh), Err(Denial::Over));
    sim.secs(700);
    assert_eq!(wish(&mut sim, Wish::Refresh), Err(Denial::Gone));
    let (mut sim, _call) = up(Action::Refresh, "");
    assert_eq!(wish(&mut sim, Wish::Refresh), Err(Denial::Untimed));

    let (mut sim, _call) = up(Action::Refresh, UAC_90);
    sim.usual = Reply::Silence;
    sim.secs(46);
    assert_eq!(wish(&mut sim, Wish::Refresh), Err(Denial::UnderWay));
    sim.secs(90);
    assert_eq!(wish(&mut sim, Wish::Refresh), Err(Denial::Expired));

    // Its age, and a refresh that the driver refused for good.
    let policy =
        Policy { default: sim::rules(Action::Refresh), max_session: Duration::from_secs(60), ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Live, Limits::default());
    let _call = sim.call("a", Side::Server, UAC_1800);
    sim.secs(61);
    assert_eq!(wish(&mut sim, Wish::Refresh), Err(Denial::Barred(reason::MAX_SESSION)));
    assert_eq!(sim.arms.len(), 0);
}

#[test]
fn nothing_is_sent_in_a_call_that_is_held_and_what_was_missed_is_made_up_for() {
    let (mut sim, _call) = up(Action::Refresh, UAC_90);
    assert_eq!(wish(&mut sim, Wish::Hold), Ok(()));
    assert_eq!(wish(&mut sim, Wish::Hold), Err(Denial::HeldAlready));
    assert_eq!(wish(&mut sim, Wish::Refresh), Err(Denial::Held));
    sim.secs(50);
    assert_eq!((sim.arms.len(), sim.ours().len()), (0, 0));
    assert_eq!(sim.reasons(RefreshOverdue), [reason::HELD]);
    assert_eq!(sim.engine.outlook(sim.now, FIRST), Some(Err(reason::HELD)));
    assert!(sim.engine.session(sim.now, FIRST).unwrap().held);
    assert_eq!(wish(&mut sim, Wish::Release), Ok(()));
    assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (1, 1), "its moment had come meanwhile");
    assert_eq!(wish(&mut sim, Wish::Release), Err(Denial::NotHeld));
    assert_eq!((sim.count(SessionHeld), sim.count(SessionReleased)), (1, 1));
    sim.secs(50);
    assert_eq!(sim.ours().len(), 2);
    sim.assert_numbers();
}

#[test]
fn a_call_that_is_held_in_the_middle_of_a_refresh_gets_no_further_request() {
    for invite in [false, true] {
        let mut sim = Sim::new(Action::Refresh);
        sim.expires = UAC_90;
        let mut call = Call::new("a", Side::Server);
        sim.establish(&mut call, UAC_90, !invite);
        sim.usual = Reply::Silence;
        sim.secs(45);
        assert_eq!(sim.ours().len(), 1);
        let copies = sim.seen.len();
        assert_eq!(wish(&mut sim, Wish::Hold), Ok(()));
        sim.secs(60);
        assert_eq!(sim.ours().len(), 1, "neither another one nor a re-INVITE beside it");
        assert!(sim.seen.len() <= copies + usize::from(invite), "nor copies: {}", sim.seen.len() - copies);
    }
}

#[test]
fn a_call_that_waits_for_a_retry_gets_none_once_it_is_held() {
    let (mut sim, _call) = up(Action::Refresh, UAC_90);
    sim.replies.push_back(Reply::Status(491, ""));
    sim.secs(45);
    assert_eq!(sim.ours().len(), 1);
    assert_eq!(wish(&mut sim, Wish::Hold), Ok(()));
    sim.secs(30);
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn a_restart_keeps_a_call_held() {
    let (mut sim, _call) = up(Action::Refresh, UAC_90);
    sim.engine.follow_changes();
    let mut disk = Disk::default();
    assert_eq!(wish(&mut sim, Wish::Hold), Ok(()));
    disk.write(&mut sim.engine);
    sim.restart(&disk, Duration::from_secs(1));
    assert!(sim.engine.session(sim.now, FIRST).unwrap().held);
    sim.secs(50);
    assert_eq!(sim.ours().len(), 0);
    assert_eq!(wish(&mut sim, Wish::Release), Ok(()));
    assert_eq!(sim.ours().len(), 1);
    // What is not held has no more on record than before there was such a thing.
    let whole = Disk::whole(&mut sim.engine);
    sim.restart(&whole, Duration::from_secs(1));
    assert!(!sim.engine.session(sim.now, FIRST).unwrap().held);
}

#[test]
fn rules_that_allow_what_was_due_make_it_due_again_and_those_that_do_not_send_nothing() {
    let (mut sim, _call) = up(Action::Alert, UAC_90);
    sim.secs(48);
    assert_eq!((sim.count(RefreshOverdue), sim.ours().len()), (1, 0));
    assert_eq!(sim.engine.outlook(sim.now, FIRST), Some(Err(reason::POLICY)));
    rule(&mut sim, Action::Observe);
    assert_eq!(sim.arms.len(), 0);
    rule(&mut sim, Action::Refresh);
    assert_eq!((sim.methods(), sim.count(RefreshSucceeded)), (vec![MethodName::Update], 1), "the call is saved");
    rule(&mut sim, Action::Refresh);
    assert_eq!(sim.ours().len(), 1);
    assert_eq!(sim.engine.outlook(sim.now, FIRST), Some(Ok(MethodName::Update)));
    rule(&mut sim, Action::Alert);
    sim.secs(60);
    assert_eq!(sim.ours().len(), 1, "and not again where they no longer allow it");
    sim.assert_numbers();
}

#[test]
fn rules_change_nothing_for_a_call_whose_moment_has_not_come_or_whose_interval_is_over() {
    let (mut sim, _call) = up(Action::Alert, UAC_90);
    sim.secs(10);
    rule(&mut sim, Action::Refresh);
    assert_eq!(sim.arms.len(), 0);
    sim.secs(36);
    assert_eq!(sim.ours().len(), 1, "at its own moment");

    let (mut sim, _call) = up(Action::Alert, UAC_90);
    sim.secs(95);
    rule(&mut sim, Action::Refresh);
    sim.secs(10);
    assert_eq!(sim.arms.len(), 0);
}

#[test]
fn an_empty_engine_shows_nothing() {
    let sim = Sim::with(Rules::default());
    assert_eq!(sim.engine.sessions(sim.now, SessionId(0), 10, |_| true), None);
    assert!(sim.engine.session(sim.now, FIRST).is_none());
    assert_eq!(sim.engine.outlook(sim.now, FIRST), None);
}
