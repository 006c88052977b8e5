//! `assume_interval`: no session timer was negotiated, and the peer drops a call of that age in which it has heard no INVITE or
//! UPDATE.

use std::time::Duration;

use crate::sim::{Call, Reply, Sim, disk::Disk, manners, sdp};
use st_core::{
    Action, AssumeMode, By, Command,
    EventKind::*,
    OnExpired, Policy, Refusal, Respond, Rules, SessionId, Side,
    engine::{Limits, Mode, Standing},
    message::MethodName,
};

const UAC_1800: &str = "Session-Expires: 1800;refresher=uac\r\n";
const UAS_1800: &str = "Session-Expires: 1800;refresher=uas\r\n";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn rules() -> Rules {
    Rules { action: Action::Refresh, assume_interval: Some(seconds(300)), ..Rules::default() }
}

fn policy(rules: Rules) -> Policy {
    Policy { default: rules, ..Policy::default() }
}

/// A call in which nothing is negotiated, and a peer that says so to a refresh.
fn begun(rules: Rules, expires: &'static str) -> (Sim, Call) {
    let mut sim = Sim::with(rules);
    sim.expires = expires;
    let call = sim.call("a", Side::Server, "");
    (sim, call)
}

/// Seconds from the beginning to each refresh of sipst's.
fn moments(sim: &Sim) -> Vec<u64> {
    sim.ours().iter().map(|seen| seen.at.since(sim.events[0].time).as_secs()).collect()
}

#[test]
fn a_call_without_a_timer_is_refreshed_by_half_of_the_assumed_interval_each_time() {
    for caller in [Side::Server, Side::Peer] {
        for update in [true, false] {
            for expires in ["", UAC_1800, UAS_1800] {
                let mut sim = Sim::with(rules());
                sim.expires = expires;
                // From another call it is known that the server writes a space, so that there is room.
                let mut other = sim.call("other", Side::Server, "");
                sim.hang_up(&mut other);
                let mut call = Call::new("a", caller);
                sim.establish(&mut call, "", update);
                sim.secs(1_000);
                assert_eq!(moments(&sim), [150, 300, 450, 600, 750, 900], "{caller:?} {update} {expires}");
                let due = sim.last(RefreshDue);
                assert_eq!((due.by, due.reason.as_deref()), (Some(By::Sipst), Some("assumed: 5m")));
                let method = if update { MethodName::Update } else { MethodName::Invite };
                assert_eq!(sim.methods()[0], method);
                for sent in sim.ours() {
                    for line in ["Supported: timer\r\n", "Session-Expires: 1800;refresher=uac\r\n", "Min-SE: 90\r\n"] {
                        assert!(sent.text.contains(line), "{line} is missing in\n{}", sent.text);
                    }
                }
                assert!(sim.events.iter().all(|event| !event.kind.is_alert()), "{:?}", sim.kinds());
                assert_eq!(sim.count(SessionRefreshed), 6);
                sim.hang_up(&mut call);
                sim.assert_numbers();
            }
        }
    }
}

#[test]
fn without_it_such_a_call_is_left_alone_and_so_is_one_with_a_timer_with_it() {
    for (assume_interval, expires, sent) in
        [(None, "", vec![]), (Some(seconds(300)), UAC_1800, vec![900]), (Some(seconds(300)), UAS_1800, vec![])]
    {
        let mut sim = Sim::with(Rules { assume_interval, ..rules() });
        sim.expires = UAC_1800;
        sim.call("a", Side::Server, expires);
        sim.secs(905);
        assert_eq!(moments(&sim), sent, "{expires}");
    }
}

#[test]
fn where_nothing_is_to_be_sent_one_event_says_that_the_moment_has_come() {
    for action in [Action::Observe, Action::Alert] {
        let (mut sim, mut call) = begun(Rules { action, ..rules() }, "");
        sim.secs(1_000);
        assert_eq!((sim.arms.len(), sim.injected.len()), (0, 0));
        assert_eq!(sim.kinds(), [SessionStarted, RefreshDue]);
        let due = sim.last(RefreshDue);
        assert_eq!((due.by, due.reason.as_deref()), (Some(By::Server), Some("assumed: 5m")));
        assert_eq!(due.deadline.map(|at| at.since(sim.events[0].time)), Some(seconds(268)));
        sim.hang_up(&mut call);
    }
}

#[test]
fn r16_the_clock_begins_anew_with_each_invite_and_update_that_is_accepted_and_with_nothing_else() {
    let (mut sim, mut call) = begun(rules(), "");
    sim.secs(100);
    sim.reinvite(&mut call, Side::Server, "", "");
    sim.secs(100);
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", "", "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, "");
    assert_eq!((sim.count(SessionRefreshed), moments(&sim)), (2, vec![]));
    sim.secs(100);
    for (method, status) in [("INFO", 200), ("UPDATE", 488)] {
        let asked = sim.request(&mut call, Side::Server, method, "", "");
        sim.respond(&call, Side::Server, &asked, method, status, "");
    }
    sim.secs(52);
    assert_eq!(moments(&sim), [350], "200 and half of 300");
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn r26_nothing_is_sent_before_the_ack() {
    let mut sim = Sim::with(rules());
    sim.expires = "";
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    sim.answer(&call, 200, &manners(Side::Peer, true), &sdp(Side::Peer));
    sim.secs(160);
    assert_eq!((sim.count(RefreshDue), sim.arms.len()), (1, 0));
    sim.ack(&mut call);
    sim.secs(2);
    assert_eq!(sim.ours().len(), 1, "R31: put off, not dropped");
}

#[test]
fn a_timer_that_the_two_sides_negotiate_takes_over() {
    let (mut sim, mut call) = begun(rules(), UAC_1800);
    sim.secs(200);
    assert_eq!(moments(&sim), [150]);
    sim.reinvite(&mut call, Side::Server, "", "Session-Expires: 1200;refresher=uac\r\n");
    let begun = sim.now.since(sim.events[0].time).as_secs();
    sim.secs(1_000);
    assert_eq!(moments(&sim), [150, begun + 600]);
    assert_eq!(sim.last(RefreshDue).reason, None);
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn r12_a_timer_that_is_turned_off_gives_way_to_the_assumption_only_to_the_letter() {
    for (strict_r12, next) in [(true, 150), (false, 900)] {
        let mut sim = Sim::with(Rules { strict_r12, ..rules() });
        let mut call = sim.call("a", Side::Server, UAC_1800);
        sim.secs(100);
        sim.reinvite(&mut call, Side::Server, "", "");
        sim.secs(901);
        assert_eq!(moments(&sim)[0], 100 + next, "{strict_r12}");
    }
}

#[test]
fn a_peer_that_answers_with_a_shorter_interval_is_refreshed_by_that() {
    for (expires, moments_then) in [
        ("Session-Expires: 200;refresher=uac\r\n", vec![150, 250, 350, 450]),
        // It refreshes at half of it, and sipst before.
        ("Session-Expires: 200;refresher=uas\r\n", vec![150, 230, 310, 390, 470]),
        ("Session-Expires: 310;refresher=uas\r\n", vec![150, 274, 398]),
        // Too short to be meant: what is assumed holds.
        ("Session-Expires: 20;refresher=uac\r\n", vec![150, 300, 450]),
    ] {
        let (mut sim, mut call) = begun(rules(), expires);
        sim.secs(500);
        assert_eq!(moments(&sim), moments_then, "{expires}");
        for kind in [RefreshOverdue, AtRisk, SessionExpiring, SessionExpired, RefreshFailed] {
            assert_eq!(sim.count(kind), 0, "{kind:?} {expires}");
        }
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn r36_a_422_raises_what_is_asked_for_and_the_next_refresh_comes_no_later_for_that() {
    let (mut sim, mut call) = begun(rules(), "Session-Expires: 3600;refresher=uac\r\n");
    sim.replies.push_back(Reply::Status(422, "Min-SE: 3600\r\n"));
    sim.secs(301);
    assert_eq!(moments(&sim), [150, 150, 300]);
    assert!(sim.ours()[1].text.contains("Session-Expires: 3600;refresher=uac\r\nMin-SE: 3600\r\n"));
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn the_interval_that_is_asked_for_is_the_rules_and_no_shorter_than_their_min_se() {
    for (session_expires, min_se, asked) in [(600, 90, 600), (600, 900, 900), (7_200, 90, 7_200)] {
        let (mut sim, _) =
            begun(Rules { session_expires: seconds(session_expires), min_se: seconds(min_se), ..rules() }, "");
        sim.secs(151);
        let line = format!("Session-Expires: {asked};refresher=uac\r\nMin-SE: {min_se}\r\n");
        assert!(sim.ours()[0].text.contains(&line), "{}", sim.ours()[0].text);
    }
}

#[test]
fn f07_an_update_that_is_not_implemented_is_followed_by_a_reinvite() {
    for status in [405, 501] {
        let (mut sim, mut call) = begun(rules(), "");
        sim.replies.push_back(Reply::Status(status, ""));
        sim.secs(301);
        assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite, MethodName::Invite]);
        assert_eq!((sim.count(RefreshSucceeded), sim.count(RefreshFailed)), (2, 0));
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn r34_a_481_is_definite() {
    let (mut sim, mut call) = begun(rules(), "");
    sim.replies.push_back(Reply::Status(481, ""));
    sim.secs(1_000);
    assert_eq!((sim.ours().len(), sim.reasons(RefreshFailed)), (1, vec!["peer_lost_dialog".into()]));
    assert_eq!(sim.last(RefreshFailed).status, Some(481));
    sim.hang_up(&mut call);
}

#[test]
fn a_refresh_that_comes_to_nothing_is_told_and_nobody_is_hung_up_on_whatever_the_rules_say() {
    let rules = Rules { on_expired: OnExpired::Bye, ..rules() };
    let (mut sim, mut call) = begun(rules, "");
    sim.rtp("192.0.2.10:4000");
    sim.rtp_in("192.0.2.10:4000");
    sim.usual = Reply::Silence;
    sim.secs(5_000);
    assert_eq!((sim.count(RefreshFailed), sim.count(SessionExpiring), sim.count(SessionExpired)), (1, 1, 0));
    let expiring = sim.last(SessionExpiring);
    assert_eq!((expiring.by, expiring.reason.as_deref()), (None, Some("assumed: 5m")));
    assert_eq!((sim.count(ByeSent), sim.count(ByeFailed), sim.count(ExpiredMediaFlowing)), (0, 0, 0));
    assert!(sim.seen.iter().all(|seen| !seen.ours || seen.method != MethodName::Bye));
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn where_the_call_outlives_what_was_assumed_the_timer_that_a_refresh_has_made_goes_on() {
    let (mut sim, mut call) = begun(rules(), UAC_1800);
    sim.secs(160);
    assert_eq!(moments(&sim), [150]);
    sim.replies.extend([Reply::Status(603, ""), Reply::Status(603, "")]);
    sim.secs(900);
    assert_eq!((sim.count(RefreshFailed), sim.count(SessionExpiring), sim.count(SessionExpired)), (1, 1, 0));
    assert_eq!(moments(&sim), [150, 300, 300, 1_050], "half of 1800 s after the 2xx");
    assert_eq!((sim.last(RefreshDue).reason.as_deref(), sim.count(RefreshSucceeded)), (None, 2));
    // From there it is assumed again.
    sim.secs(151);
    assert_eq!(moments(&sim).last(), Some(&1_200));
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn a_call_that_is_too_old_is_given_up() {
    let mut sim = Sim::custom(Policy { max_session: seconds(400), ..policy(rules()) }, Mode::Live, Limits::default());
    sim.expires = "";
    sim.call("a", Side::Server, "");
    sim.secs(1_000);
    assert_eq!((moments(&sim), sim.reasons(RefreshFailed)), (vec![150, 300], vec!["max_session".into()]));
}

#[test]
fn a_call_whose_media_have_stopped_for_an_assumed_interval_is_not_kept_alive() {
    for flows in [true, false] {
        let (mut sim, _) = begun(rules(), "");
        for second in 0..1_000 {
            if flows || second < 10 {
                sim.rtp("192.0.2.10:4000");
            }
            sim.secs(1);
        }
        assert_eq!(sim.ours().len(), if flows { 6 } else { 2 });
        let told = sim.reasons(RefreshOverdue);
        assert_eq!(told, if flows { vec![] } else { vec!["media_silent".to_owned()] });
    }
}

#[test]
fn a_server_that_is_gone_is_not_refreshed() {
    let (mut sim, _) = begun(rules(), "");
    sim.refusal = Some(Refusal::ServerGone);
    sim.secs(1_000);
    assert_eq!((sim.ours().len(), sim.reasons(RefreshFailed)), (0, vec!["server_gone".into()]));
    assert_eq!(sim.reasons(SessionExpiring), ["server_gone"]);
}

#[test]
fn a_call_that_this_host_only_passes_on_is_left_alone() {
    let mut sim = Sim::with(rules());
    let mut call = Call::new("a", Side::Server);
    let below = "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKbelow\r\n";
    sim.invite(&mut call, &(manners(Side::Server, true) + below), &sdp(Side::Server));
    sim.answer(&call, 200, &manners(Side::Peer, true), &sdp(Side::Peer));
    sim.ack(&mut call);
    assert_eq!(sim.reasons(SessionStarted), ["relayed"]);
    sim.secs(1_000);
    assert_eq!((sim.arms.len(), sim.count(RefreshDue)), (0, 0));
}

#[test]
fn with_take_over_and_respond_an_assumed_interval_is_acted_upon_all_the_same() {
    let (mut sim, mut call) = begun(
        Rules { take_over: true, respond: Respond::OnReject, ..rules() },
        "Session-Expires: 1800;refresher=uas\r\n",
    );
    sim.secs(160);
    // A refresh of the peer's that sipst answers is no timer of the two sides' own.
    let asks = manners(Side::Peer, true) + UAC_1800;
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", &asks, "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 405, "");
    assert_eq!(sim.count(RefreshAnswered), 1);
    sim.secs(151);
    assert_eq!(moments(&sim), [150, 310]);
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn a_call_that_is_met_in_the_middle_is_followed_and_refreshed_where_an_interval_is_assumed() {
    for (assume_interval, sent) in [(Some(seconds(300)), vec![150, 300]), (None, vec![])] {
        let mut sim = Sim::with(Rules { assume_interval, ..rules() });
        sim.expires = "";
        let mut call = Call { number: 5, ..Call::new("a", Side::Server) };
        sim.reinvite(&mut call, Side::Server, "", "");
        assert_eq!(sim.count(SessionStarted), usize::from(assume_interval.is_some()));
        sim.secs(301);
        assert_eq!(sim.ours().len(), sent.len());
        if assume_interval.is_some() {
            assert_eq!((moments(&sim), sim.reasons(SessionStarted)), (sent, vec!["mid_call".into()]));
            sim.hang_up(&mut call);
            sim.assert_numbers();
        }
    }
    // Until the server has sent something itself, neither numbers nor route are known.
    let mut sim = Sim::with(rules());
    let mut call = Call { number: 5, ..Call::new("a", Side::Server) };
    sim.reinvite(&mut call, Side::Peer, "", "");
    sim.secs(301);
    assert_eq!((sim.arms.len(), sim.reasons(RefreshDue)), (0, vec!["mid_call".into()]));
    assert_eq!(sim.reasons(SessionExpiring), ["mid_call"]);
}

#[test]
fn an_operator_sees_what_is_assumed_and_may_ask_for_a_refresh() {
    let (mut sim, _) = begun(rules(), UAC_1800);
    sim.secs(10);
    let view = sim.engine.session(sim.now, SessionId(1)).unwrap();
    assert_eq!(
        (view.assumed_s, view.interval_s, view.refresher, view.state),
        (Some(300), None, None, Standing::Running)
    );
    assert_eq!((view.act, view.deadline), (Some(sim.now + seconds(140)), Some(sim.now + seconds(258))));
    assert_eq!(sim.engine.outlook(sim.now, SessionId(1)), Some(Ok(MethodName::Update)));
    sim.engine.handle_wish(sim.now, SessionId(1), st_core::engine::Wish::Refresh).unwrap();
    sim.settle();
    assert_eq!(moments(&sim), [10]);
    let view = sim.engine.session(sim.now, SessionId(1)).unwrap();
    assert_eq!((view.assumed_s, view.interval_s, view.refresher), (Some(300), Some(1_800), Some(Side::Server)));
    sim.secs(151);
    assert_eq!(moments(&sim), [10, 160]);
}

/// Other rules for calls that are up.
fn reload(sim: &mut Sim, rules: Rules) {
    sim.set_policy(policy(rules));
    sim.settle();
}

#[test]
fn a_reload_begins_it_in_calls_that_are_younger_and_ends_it() {
    let none = || Rules { assume_interval: None, ..rules() };
    for (age, sent) in [(100, vec![150, 300]), (200, vec![200, 350]), (301, vec![])] {
        let (mut sim, mut call) = begun(none(), "");
        sim.secs(age);
        reload(&mut sim, rules());
        sim.secs(400 - age);
        assert_eq!(moments(&sim), sent, "{age}");
        reload(&mut sim, none());
        sim.secs(1_000);
        assert_eq!(moments(&sim), sent, "{age}");
        assert_eq!(sim.count(SessionExpiring), 0);
        let view = sim.engine.session(sim.now, SessionId(1)).unwrap();
        assert_eq!((view.assumed_s, view.state), (None, Standing::Untimed));
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
    // From watching to refreshing, after the moment to act.
    let (mut sim, _) = begun(Rules { action: Action::Alert, ..rules() }, "");
    sim.secs(200);
    reload(&mut sim, rules());
    sim.secs(1);
    assert_eq!(moments(&sim), [200]);
}

#[test]
fn it_survives_a_restart_of_the_daemon() {
    for expires in ["", UAC_1800] {
        let (mut sim, mut call) = begun(rules(), expires);
        sim.engine.follow_changes();
        let mut disk = Disk::default();
        for interval in 1..=4 {
            disk.write(&mut sim.engine);
            sim.restart(&disk, seconds(3));
            let view = sim.engine.session(sim.now, SessionId(1)).unwrap();
            assert_eq!(view.assumed_s, Some(300));
            sim.secs(148);
            assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (interval, interval), "{expires}");
        }
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn an_assumed_interval_that_ran_out_while_nobody_was_there_is_told_where_something_was_at_stake() {
    for (action, expires, told) in
        [(Action::Refresh, "", 1), (Action::Alert, "", 0), (Action::Observe, "", 0), (Action::Refresh, UAC_1800, 1)]
    {
        let (mut sim, mut call) = begun(Rules { action, ..rules() }, expires);
        sim.secs(if expires.is_empty() { 0 } else { 151 });
        let before = sim.ours().len();
        let disk = Disk::whole(&mut sim.engine);
        sim.restart(&disk, seconds(400));
        sim.secs(100);
        assert_eq!(sim.reasons(SessionExpiring), vec!["outage"; told], "{action:?} {expires}");
        assert_eq!((sim.count(SessionExpired), sim.ours().len()), (0, before));
        sim.secs(500);
        assert_eq!(sim.ours().len(), before * 2, "what was agreed goes on");
        sim.hang_up(&mut call);
        assert_eq!(sim.reasons(SessionEnded), ["bye"]);
    }
}

#[test]
fn a_call_that_may_be_over_is_asked_at_the_last_moment_that_is_safe() {
    let (mut sim, _) = begun(rules(), "");
    sim.command(Command::Loss { packets: 1 });
    sim.secs(300);
    assert_eq!(moments(&sim), [236], "a transaction before the peer is taken to hang up");
}

#[test]
fn replay_tells_when_it_would_have_acted_and_finds_its_own_refreshes() {
    let (mut sim, mut call) = begun(rules(), "");
    sim.secs(310);
    sim.hang_up(&mut call);
    let tape = sim.tape.clone();
    let mut replay = Sim::custom(policy(rules()), Mode::Replay, Limits::default());
    replay.replay(&tape);
    assert_eq!((replay.count(RefreshSent), replay.count(RefreshSucceeded), replay.injected.len()), (2, 2, 0));
    assert_eq!((replay.count(SessionExpiring), replay.count(RefreshFailed)), (0, 0));
}

/// What a peer that knows timers answers to a request that lists none.
const UAS_300: &str = "Session-Expires: 300;refresher=uas\r\n";

fn handing_off() -> Rules {
    Rules { mode: AssumeMode::HandOff, ..rules() }
}

/// A refresh of the peer's.
fn peers_refresh(sim: &mut Sim, call: &mut Call, method: &str) -> (u32, String) {
    let body = if method == "INVITE" { sdp(Side::Peer) } else { String::new() };
    let extra = manners(Side::Peer, true) + "Supported: timer\r\nSession-Expires: 300;refresher=uac\r\n";
    sim.request(call, Side::Peer, method, &extra, &body)
}

/// One that the server takes, as a server does that knows no timers.
fn taken(sim: &mut Sim, call: &mut Call) {
    let asked = peers_refresh(sim, call, "INVITE");
    sim.respond_with(call, Side::Peer, &asked, "INVITE", 200, &manners(Side::Server, true), &sdp(Side::Server));
    let ack = call.request(Side::Peer, "ACK", asked.0, "z9hG4bKack", true, "", "");
    sim.wire(Side::Peer, ack.into_bytes());
}

#[test]
fn r19_one_refresh_that_lists_no_timer_leaves_the_rest_to_the_peer() {
    for update in [true, false] {
        let mut sim = Sim::with(handing_off());
        sim.expires = UAS_300;
        let mut other = sim.call("other", Side::Server, "");
        sim.hang_up(&mut other);
        let mut call = Call::new("a", Side::Server);
        sim.establish(&mut call, "", update);
        sim.secs(155);
        assert_eq!(moments(&sim), [150]);
        let sent = &sim.ours()[0].text;
        assert!(sent.contains("Session-Expires: 300\r\nMin-SE: 90\r\n") && !sent.contains("timer"), "{sent}");
        assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Peer));
        for _ in 0..5 {
            sim.secs(148);
            taken(&mut sim, &mut call);
        }
        assert_eq!(moments(&sim), [150], "one and no more");
        assert_eq!(sim.count(SessionRefreshed), 6);
        assert!(sim.events.iter().all(|event| !event.kind.is_alert()), "{:?}", sim.kinds());
        let view = sim.engine.sessions(sim.now, SessionId(0), 9, |view| {
            if view.started.since(sim.events[0].time) == Duration::ZERO && view.state != Standing::Ended {
                assert_eq!((view.assumed_s, view.refresher), (None, Some(Side::Peer)));
            }
            true
        });
        assert_eq!(view, None);
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn the_role_is_taken_back_where_the_peers_refresh_comes_to_nothing_and_the_next_call_is_spared_that() {
    for (method, status) in [("INVITE", Some(503)), ("UPDATE", Some(405)), ("INVITE", None)] {
        let (mut sim, mut call) = begun(handing_off(), UAS_300);
        sim.secs(300);
        let asked = peers_refresh(&mut sim, &mut call, method);
        sim.expires = "Session-Expires: 300;refresher=uac\r\n";
        match status {
            Some(status) => {
                sim.respond(&call, Side::Peer, &asked, method, status, "");
                if method == "INVITE" {
                    let ack = call.request(Side::Peer, "ACK", asked.0, &asked.1, true, "", "");
                    sim.wire(Side::Peer, ack.into_bytes());
                }
            }
            None => {
                let again = call.request(Side::Peer, method, asked.0, &asked.1, true, &manners(Side::Peer, true), "");
                sim.wire(Side::Peer, again.into_bytes());
            }
        }
        let told = if status.is_some() { RefreshRejected } else { RefreshIgnored };
        sim.secs(45);
        assert_eq!((sim.count(told), sim.count(RefreshFailed)), (1, 0), "{:?}", sim.kinds());
        let due = sim.last(RefreshDue);
        assert_eq!((due.by, due.reason.as_deref()), (Some(By::Sipst), Some("taken_back")));
        if status.is_none() {
            // R27: until the peer's INVITE has had its answer.
            sim.respond(&call, Side::Peer, &asked, method, 500, "");
            let ack = call.request(Side::Peer, "ACK", asked.0, &asked.1, true, "", "");
            sim.wire(Side::Peer, ack.into_bytes());
            sim.secs(2);
        }
        assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Server), "{method} {status:?}");
        assert!(sim.ours()[1].text.contains("Supported: timer\r\nSession-Expires: 300;refresher=uac\r\n"));
        let before = sim.ours().len();
        sim.secs(300);
        assert_eq!(sim.ours().len(), before + 2, "it is kept");
        sim.hang_up(&mut call);
        sim.assert_numbers();
        // The server is known for it.
        let mut next = sim.call("b", Side::Server, "");
        sim.secs(151);
        let last = sim.ours().last().map(|seen| seen.text.clone()).unwrap();
        assert!(last.contains("Call-ID: b@") && last.contains(";refresher=uac\r\n"), "{last}");
        sim.hang_up(&mut next);
        sim.assert_numbers();
    }
}

#[test]
fn a_refresh_of_the_peers_that_does_not_come_is_told_and_sipst_refreshes_in_time() {
    let (mut sim, mut call) = begun(handing_off(), UAS_300);
    sim.secs(155);
    sim.expires = "Session-Expires: 300;refresher=uac\r\n";
    sim.secs(500);
    assert_eq!(sim.count(RefreshOverdue), 1);
    assert_eq!(moments(&sim), [150, 330, 480, 630], "a tenth of the interval after its middle, then by half");
    assert_eq!((sim.count(SessionExpiring), sim.count(SessionExpired)), (0, 0));
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn a_peer_that_does_not_take_it_up_or_would_come_too_late_is_refreshed_by_sipst() {
    for expires in ["", UAC_1800, UAS_1800, "Session-Expires: 200;refresher=uac\r\n"] {
        let (mut sim, mut call) = begun(handing_off(), expires);
        sim.secs(460);
        let half = if expires.contains("200") { 100 } else { 150 };
        let expected: Vec<u64> = (0..).map(|at| 150 + at * half).take_while(|at| *at <= 460).collect();
        assert_eq!(moments(&sim), expected, "{expires}");
        assert!(!sim.ours()[0].text.contains("timer"));
        assert!(sim.ours()[1..].iter().all(|sent| sent.text.contains("Supported: timer\r\n")));
        assert_eq!((sim.count(RefreshOverdue), sim.count(AtRisk), sim.count(SessionExpiring)), (0, 0, 0), "{expires}");
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn a_peer_that_demands_the_word_timer_gets_it() {
    let (mut sim, mut call) = begun(handing_off(), UAC_1800);
    sim.replies.push_back(Reply::Status(421, "Require: timer\r\n"));
    sim.secs(155);
    assert_eq!((moments(&sim), sim.count(RefreshSucceeded)), (vec![150, 150], 1));
    assert!(sim.ours()[1].text.contains("Supported: timer\r\n"));
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn r36_a_422_to_it_is_obeyed_and_where_the_peer_would_come_too_late_then_sipst_goes_on() {
    let (mut sim, mut call) = begun(handing_off(), "Session-Expires: 900;refresher=uas\r\n");
    sim.replies.push_back(Reply::Status(422, "Min-SE: 900\r\n"));
    sim.secs(301);
    assert_eq!(moments(&sim), [150, 150, 300]);
    assert!(sim.ours()[1].text.contains("Session-Expires: 900\r\nMin-SE: 900\r\n"), "{}", sim.ours()[1].text);
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn with_respond_a_refusal_is_answered_and_the_role_stays_with_the_peer() {
    let (mut sim, mut call) = begun(Rules { respond: Respond::OnReject, ..handing_off() }, UAS_300);
    sim.secs(155);
    for _ in 0..3 {
        sim.secs(145);
        let asked = peers_refresh(&mut sim, &mut call, "UPDATE");
        sim.respond(&call, Side::Peer, &asked, "UPDATE", 405, "");
    }
    assert_eq!((sim.count(RefreshAnswered), sim.count(RefreshRejected), moments(&sim)), (3, 0, vec![150]));
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn what_was_handed_off_survives_a_restart_and_is_taken_back_after_one() {
    let (mut sim, mut call) = begun(handing_off(), UAS_300);
    sim.secs(155);
    let disk = Disk::whole(&mut sim.engine);
    sim.restart(&disk, seconds(3));
    sim.expires = "Session-Expires: 300;refresher=uac\r\n";
    sim.secs(140);
    let asked = peers_refresh(&mut sim, &mut call, "UPDATE");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 501, "");
    sim.secs(1);
    assert_eq!((sim.last(RefreshDue).reason.as_deref(), moments(&sim).len()), (Some("taken_back"), 2));
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn nothing_is_handed_off_or_taken_back_where_nothing_is_to_be_sent() {
    for action in [Action::Alert, Action::Observe] {
        let (mut sim, _) = begun(Rules { action, ..handing_off() }, UAS_300);
        sim.secs(1_000);
        assert_eq!((sim.arms.len(), sim.injected.len()), (0, 0));
    }
    // The rules have changed after it was handed off.
    let (mut sim, mut call) = begun(handing_off(), UAS_300);
    sim.secs(155);
    reload(&mut sim, Rules { action: Action::Alert, ..handing_off() });
    let asked = peers_refresh(&mut sim, &mut call, "UPDATE");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 405, "");
    sim.secs(400);
    assert_eq!((moments(&sim), sim.count(RefreshRejected)), (vec![150], 1));
}
