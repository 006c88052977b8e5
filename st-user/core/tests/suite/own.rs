//! Requests of sipst's own once they have left, and INVITEs once they are turned down: what is told, kept and forgotten then.

use crate::sim::{Call, Reply, Sim, manners, sdp};
use st_core::{Action, Credentials, EventKind::*, Rules, Side};

const UAC_1800: &str = "Session-Expires: 1800;refresher=uac\r\n";

#[test]
fn a_refresh_is_told_once_however_many_copies_of_it_leave() {
    let mut sim = Sim::new(Action::Refresh);
    sim.usual = Reply::Silence;
    sim.call("a", Side::Server, UAC_1800);
    sim.secs(920);
    let copies = sim.seen.iter().filter(|seen| seen.ours && seen.branch == sim.ours()[0].branch).count();
    assert!(copies > 5, "{copies}");
    assert_eq!(sim.count(RefreshSent), 1);
    assert_eq!(sim.last(RefreshSent).method, Some("UPDATE"));
}

#[test]
fn f17_what_answered_a_challenge_is_not_sent_again() {
    let credentials = Some(Credentials { username: "line1".into(), password: "secret".into() });
    let mut sim = Sim::with(Rules { action: Action::Refresh, credentials, ..Rules::default() });
    sim.expires = UAC_1800;
    let challenge = "Proxy-Authenticate: Digest realm=\"carrier\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"\r\n";
    sim.replies = [Reply::Status(407, challenge), Reply::Status(503, "Retry-After: 5\r\n")].into();
    sim.call("a", Side::Server, UAC_1800);
    sim.secs(920);
    let signed: Vec<_> = sim.ours().iter().map(|seen| seen.text.contains("Proxy-Authorization")).collect();
    assert_eq!(signed, [false, true, false], "a nonce is good for one request");
    assert_eq!((sim.count(RefreshSent), sim.count(RefreshSucceeded)), (3, 1));
}

#[test]
fn r20_where_sipst_had_to_act_it_acts_at_half_the_next_interval() {
    let mut sim = Sim::new(Action::Refresh);
    sim.expires = UAC_1800;
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &(manners(Side::Server, true) + "Supported: timer\r\n"), &sdp(Side::Server));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_1800), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(1_080 + 900);
    let [first, second] = sim.ours()[..] else { panic!("{:?}", sim.ours()) };
    assert_eq!(second.at.since(first.at).as_secs(), 900, "it had its chance");
}

#[test]
fn an_invite_that_is_turned_down_is_forgotten_by_whoever_it_came_from() {
    for (caller, rings) in [(Side::Server, false), (Side::Server, true), (Side::Peer, false), (Side::Peer, true)] {
        let mut sim = Sim::new(Action::Alert);
        let mut call = Call::new("a", caller);
        for refusal in [401, 486] {
            sim.invite(&mut call, &manners(caller, true), &sdp(caller));
            if rings {
                sim.answer(&call, 180, "", "");
            }
            let stats = sim.engine.stats();
            assert_eq!(stats.pending + stats.strangers, 1, "{caller:?} {rings}");
            sim.answer(&call, refusal, "", "");
            let stats = sim.engine.stats();
            assert_eq!((stats.pending, stats.strangers), (0, 0), "{caller:?} {rings}");
        }
    }
}

#[test]
fn one_of_two_tries_that_is_turned_down_leaves_the_other() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    let first = call.invite.clone();
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    let second = std::mem::replace(&mut call.invite, first);
    sim.answer(&call, 407, "", "");
    assert_eq!(sim.engine.stats().pending, 1);
    call.invite = second;
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_1800), &sdp(Side::Peer));
    sim.ack(&mut call);
    assert_eq!((sim.engine.stats().sessions, sim.last(TimerNegotiated).interval_s), (1, Some(1_800)));
}

#[test]
fn an_answered_invite_makes_dialogs_of_other_forks_until_it_is_turned_down() {
    for turned_down in [false, true] {
        let mut sim = Sim::new(Action::Alert);
        let mut call = sim.call("a", Side::Server, UAC_1800);
        if turned_down {
            call.remote = "a-busy".into();
            sim.answer(&call, 603, "", "");
        }
        call.remote = "a-fork".into();
        sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_1800), &sdp(Side::Peer));
        assert_eq!(sim.engine.stats().sessions, if turned_down { 1 } else { 2 });
    }
}
