//! Somebody on the network sends what they like: to learn anything, to keep a call from being refreshed, or to have one kept
//! alive, they need more than a dialog's names.

mod sim;

use sim::{Call, Sim, manners, sdp};
use st_core::{Action, EventKind::*, Side, engine::limits::MAX_FORKS};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";

/// A 200 to the INVITE of a call, with a tag and a branch.
fn forged_ok(sim: &mut Sim, call: &Call, tag: &str, branch: &str) {
    let forged = Call { remote: tag.into(), invite: (call.invite.0, branch.into()), ..call.clone() };
    sim.answer(&forged, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
}

#[test]
fn a_forged_200_without_the_branch_makes_no_dialog_and_takes_the_place_of_none() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    for guess in 0..2 * MAX_FORKS {
        forged_ok(&mut sim, &call, &format!("made-up-{guess}"), &format!("z9hG4bK-{guess}"));
    }
    assert_eq!((sim.count(SessionStarted), sim.engine.stats().sessions), (0, 0));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(46);
    assert_eq!((sim.count(SessionStarted), sim.ours().len()), (1, 1));
    assert_eq!(sim.engine.stats().refused_forks, 0);
}

#[test]
fn an_invite_that_is_tried_again_with_its_number_and_another_branch_makes_the_dialog() {
    for caller in [Side::Server, Side::Peer] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = Call::new("a", caller);
        sim.invite(&mut call, &manners(caller, true), &sdp(caller));
        sim.answer(&call, 401, "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n", "");
        // RFC 3261, section 22.2, wants a higher one.
        (call.number, call.peer_number) = (1, 700);
        sim.establish(
            &mut call,
            if caller == Side::Server { UAC_90 } else { "Session-Expires: 90;refresher=uas\r\n" },
            true,
        );
        sim.secs(60);
        assert_eq!((sim.count(SessionStarted), sim.ours().len()), (1, 1), "{caller:?}");
    }
}

#[test]
fn an_invite_that_comes_by_two_ways_is_answered_on_either() {
    for answered in [0, 1] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = Call::new("a", Side::Peer);
        let mut branches = vec![];
        for _ in 0..2 {
            call.peer_number = 700;
            sim.invite(&mut call, &manners(Side::Peer, true), &sdp(Side::Peer));
            branches.push(call.invite.1.clone());
        }
        call.invite.1 = branches[answered].clone();
        sim.answer(
            &call,
            200,
            &(manners(Side::Server, true) + "Session-Expires: 90;refresher=uas\r\n"),
            &sdp(Side::Server),
        );
        call.invite.1 = branches[1 - answered].clone();
        sim.answer(&call, 482, "", "");
        sim.ack(&mut call);
        sim.secs(60);
        assert_eq!((sim.count(SessionStarted), sim.ours().len()), (1, 1), "{answered}");
    }
}
