//! Somebody on the network sends what they like: to learn anything, to keep a call from being refreshed, or to have one kept
//! alive, they need more than a dialog's names.

use crate::sim::{self, Call, Sim, manners, sdp};
use st_core::{
    Action, By, Command,
    EventKind::*,
    Side,
    engine::limits::{MAX_EXCHANGES, MAX_FORKS},
    message::MethodName,
};

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

#[test]
fn r17_the_min_se_of_a_request_that_the_server_never_answers_is_no_part_of_our_refreshes() {
    for (answered, least) in [(false, "90"), (true, "1200")] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim.call("a", Side::Server, UAC_90);
        let asked = sim.request(&mut call, Side::Peer, "UPDATE", &(manners(Side::Peer, true) + "Min-SE: 1200\r\n"), "");
        if answered {
            sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, &manners(Side::Server, true));
        }
        sim.secs(60);
        let text = &sim.ours()[0].text;
        assert!(text.contains(&format!("Min-SE: {least}\r\n")), "{text}");
    }
}

/// A stranger's requests with the dialog's names and a new branch each second, which a firewall drops.
fn flood(sim: &mut Sim, call: &mut Call, method: &str, seconds: u64) {
    for _ in 0..seconds {
        sim.request(call, Side::Peer, method, "", "");
        sim.secs(1);
    }
}

#[test]
fn requests_without_end_that_the_server_never_answers_do_not_stop_refreshes() {
    for method in ["BYE", "UPDATE", "INVITE"] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim.call("a", Side::Server, UAC_90);
        flood(&mut sim, &mut call, method, 200);
        assert_eq!((sim.count(SessionEnded), sim.count(SessionExpired)), (0, 0), "{method}");
        assert!(sim.ours().len() >= 3, "{method}: {}", sim.ours().len());
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn a_bye_that_a_firewall_dropped_ends_nothing_while_the_server_speaks_with_others() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    let asked = sim.request(&mut call, Side::Peer, "BYE", "", "");
    let copy = call.request(Side::Peer, "BYE", asked.0, &asked.1, true, "", "");
    for _ in 0..2 {
        sim.secs(4);
        sim.wire(Side::Peer, copy.clone().into_bytes());
    }
    sim.call("b", Side::Server, "");
    sim.secs(80);
    assert_eq!((sim.count(SessionEnded), sim.ours().len()), (0, 1), "{:?}", sim.kinds());
    // The real one.
    let asked = sim.request(&mut call, Side::Peer, "BYE", "", "");
    sim.respond(&call, Side::Peer, &asked, "BYE", 200, "");
    assert_eq!(sim.count(SessionEnded), 1);
}

#[test]
fn a_bye_that_the_server_had_ends_the_call_though_strangers_send_others_after_it() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    let asked = sim.request(&mut call, Side::Peer, "BYE", "", "");
    let copy = call.request(Side::Peer, "BYE", asked.0, &asked.1, true, "", "");
    sim.secs(1);
    sim.wire(Side::Peer, copy.into_bytes());
    for _ in 0..11 {
        sim.request(&mut call, Side::Peer, "BYE", "", "");
        sim.secs(3);
    }
    assert_eq!(sim.reasons(SessionEnded), ["bye_unanswered"]);
}

#[test]
fn copies_of_a_bye_from_another_host_prove_nothing() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    let asked = sim.request(&mut call, Side::Peer, "BYE", "", "");
    let copy = call.request(Side::Peer, "BYE", asked.0, &asked.1, true, "", "");
    sim.wire_from("203.0.113.66:5060", copy.into_bytes());
    sim.secs(80);
    assert_eq!((sim.count(SessionEnded), sim.ours().len()), (0, 1));
}

#[test]
fn strangers_change_nothing_that_a_refresh_says_or_where_it_goes() {
    let refresh = |attacked: bool| {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim.call("a", Side::Server, UAC_90);
        let asked = sim.request(&mut call, Side::Server, "INFO", "", "");
        sim.respond(&call, Side::Server, &asked, "INFO", 200, "");
        if attacked {
            let elsewhere = "Contact: <sip:x@203.0.113.66>\r\nRecord-Route: <sip:203.0.113.66;lr>\r\nMin-SE: 900\r\n\
                             Session-Expires: 7200;refresher=uac\r\nAllow: INVITE, ACK\r\n";
            for method in ["INVITE", "UPDATE", "INFO"] {
                let text = call.request(Side::Peer, method, 900, "z9hG4bKx", true, elsewhere, &sdp(Side::Peer));
                sim.wire_from("203.0.113.66:5060", text.into_bytes());
            }
            for (method, number) in [("INVITE", 1), ("UPDATE", 2), ("INFO", 2), ("BYE", 3)] {
                for status in [180, 200, 401, 422, 481, 500] {
                    let via = format!("SIP/2.0/UDP {};branch=z9hG4bKguess", sim::text::SERVER);
                    let text = call.response(Side::Peer, status, method, number, &via, elsewhere, &sdp(Side::Peer));
                    sim.wire_from("203.0.113.66:5060", text.into_bytes());
                }
            }
        }
        sim.secs(50);
        assert_eq!((sim.count(SessionEnded), sim.engine.stats().sessions), (0, 1));
        assert_eq!((sim.ours().len(), sim.kernel.holds().1), (1, 1), "one refresh, in its one dialog");
        let peer = sim::text::PEER.parse().expect("an address");
        assert!(sim.injected.iter().all(|inject| inject.peer == peer));
        sim.hang_up(&mut call);
        sim.assert_numbers();
        sim.ours()[0].text.clone()
    };
    assert_eq!(refresh(true), refresh(false));
}

#[test]
fn a_forged_183_without_the_branch_says_nothing_of_the_peers_media() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    sim.answer(&call, 183, &manners(Side::Peer, false), &sdp(Side::Peer));
    let forged = Call { invite: (call.invite.0, "z9hG4bK-guess".into()), ..call.clone() };
    sim.answer(&forged, 183, "", &sdp(Side::Peer).replace("6000", "6666"));
    sim.answer(&call, 200, &(manners(Side::Peer, false) + UAC_90), "");
    sim.ack(&mut call);
    sim.secs(46);
    assert_eq!((sim.methods(), sim.count(RefreshSucceeded)), (vec![MethodName::Invite], 1));
    assert_eq!(sim.reasons(NegotiationFault), Vec::<String>::new(), "the answer is what the peer had said");
}

#[test]
fn a_forged_offer_while_it_rings_costs_the_reinvite_and_no_more() {
    for (method, update) in [("UPDATE", true), ("PRACK", true), ("UPDATE", false), ("PRACK", false)] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = Call::new("a", Side::Server);
        sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
        sim.answer(&call, 180, "", "");
        let offer = sdp(Side::Peer).replace("6000", "6666");
        let forged = call.clone().request(Side::Peer, method, 1, "z9hG4bK-guess", true, "", &offer);
        sim.wire_from("203.0.113.66:5060", forged.into_bytes());
        sim.answer(&call, 200, &(manners(Side::Peer, update) + UAC_90), &sdp(Side::Peer));
        sim.ack(&mut call);
        sim.secs(46);
        let methods = if update { vec![MethodName::Update] } else { vec![] };
        assert_eq!(sim.methods(), methods, "{method}");
        assert_eq!(
            sim.count(RefreshFailed),
            usize::from(!update),
            "{method}: which SDP holds is not known, and that is told"
        );
        // The next whole offer and answer says it again.
        let before = sim.count(RefreshSucceeded);
        sim.reinvite(&mut call, Side::Server, "", UAC_90);
        sim.secs(46);
        assert_eq!(sim.count(RefreshSucceeded), before + 1, "{method}");
    }
}

#[test]
fn strangers_requests_do_not_displace_one_of_the_peers_that_the_server_works_on() {
    for method in ["INVITE", "UPDATE", "BYE"] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim.call("a", Side::Server, UAC_90);
        let asked = sim.request(&mut call, Side::Peer, "INVITE", &manners(Side::Peer, true), &sdp(Side::Peer));
        sim.respond(&call, Side::Peer, &asked, "INVITE", 180, "");
        for _ in 0..2 * MAX_EXCHANGES {
            sim.request(&mut call, Side::Peer, method, "", "");
        }
        let answer = manners(Side::Server, true) + "Session-Expires: 90;refresher=uac\r\n";
        sim.respond_with(&call, Side::Peer, &asked, "INVITE", 200, &answer, &sdp(Side::Server));
        assert_eq!(sim.last(SessionRefreshed).by, Some(By::Peer), "{method}");
    }
}

#[test]
fn strangers_make_no_dialog_sure_of_which_packets_were_lost() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    for (asker, method) in
        [(Side::Server, "INFO"), (Side::Server, "UPDATE"), (Side::Peer, "OPTIONS"), (Side::Peer, "INVITE")]
    {
        sim.command(Command::Loss { packets: 1 });
        for forged in ["INVITE", "UPDATE", "INFO", "ACK", "CANCEL", "PRACK"] {
            sim.request(&mut call, Side::Peer, forged, "", "");
            for status in [100, 180, 200, 481, 500] {
                let guess = (call.number, "z9hG4bK-guess".into());
                sim.respond(&call, Side::Server, &guess, forged, status, "");
            }
        }
        assert_eq!(sim.engine.stats().unsure, 1, "{method}");
        let asked = sim.request(&mut call, asker, method, "", "");
        if asker == Side::Server {
            assert_eq!(sim.engine.stats().unsure, 0, "{method}: the server speaks");
            sim.command(Command::Loss { packets: 1 });
        }
        assert_eq!(sim.engine.stats().unsure, 1, "{method}");
        sim.respond(&call, asker, &asked, method, 200, "");
        assert_eq!(sim.engine.stats().unsure, 0, "{method}: it was answered");
    }
}
