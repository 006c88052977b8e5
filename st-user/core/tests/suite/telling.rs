//! `on_moved: tell-server`: the server hears in the peer's name where the peer's media have gone.

use crate::sim::{Call, Reply, Sim, manners, sdp};
use st_core::{
    Action,
    EventKind::*,
    OnMoved, Policy, Refusal, Rules, Side,
    engine::{Limits, Mode},
    message::{Message, MethodName, Role, SessionExpires},
};

const UAC_1800: &str = "Session-Expires: 1800;refresher=uac\r\n";

fn rules() -> Rules {
    Rules { action: Action::Refresh, on_moved: OnMoved::TellServer, ..Rules::default() }
}

fn moved() -> String {
    sdp(Side::Peer).replace("6000", "6002")
}

/// The peer's answer to the first refresh, with other media.
fn elsewhere() -> Reply {
    Reply::OkWith(manners(Side::Peer, false) + UAC_1800, moved())
}

/// A call of 1800 s whose first refresh is about to be answered from elsewhere.
fn about_to_move(rules: Rules, caller: Side) -> (Sim, Call) {
    let mut sim = Sim::with(rules);
    sim.expires = UAC_1800;
    sim.replies = [elsewhere()].into();
    let mut call = Call::new("a", caller);
    let expires = if caller == Side::Server { UAC_1800 } else { "Session-Expires: 1800;refresher=uas\r\n" };
    sim.establish(&mut call, expires, false);
    (sim, call)
}

fn told(sim: &Sim) -> Vec<MethodName> {
    sim.told.iter().filter(|seen| !seen.copy).map(|seen| seen.method).collect()
}

/// Both sides send a request, and each is taken.
fn both_go_on(sim: &mut Sim, call: &mut Call) {
    for side in [Side::Peer, Side::Server, Side::Peer] {
        let asked = sim.request(call, side, "INFO", "", "");
        sim.respond(call, side, &asked, "INFO", 200, "");
    }
    sim.assert_numbers();
}

#[test]
fn f09_the_server_is_told_in_the_peers_name_and_both_sides_go_on() {
    let headers = manners(Side::Peer, false);
    for caller in [Side::Server, Side::Peer] {
        for (what, headers, body) in [
            ("port", headers.clone(), moved()),
            ("codec", headers.clone(), sdp(Side::Peer).replace("RTP/AVP 0 8", "RTP/AVP 9")),
            ("Contact", headers.replace("20:5060", "20:5099"), sdp(Side::Peer)),
        ] {
            let (mut sim, mut call) = about_to_move(rules(), caller);
            sim.replies = [Reply::OkWith(headers.clone() + UAC_1800, body.clone())].into();
            let before = call.peer_number;
            sim.secs(1_200);
            assert_eq!(told(&sim), [MethodName::Invite, MethodName::Ack], "{caller:?} {what}: {:?}", sim.kinds());
            let invite = Message::scan(sim.told[0].text.as_bytes(), false).unwrap();
            let number = if caller == Side::Peer { before } else { 1 };
            assert_eq!(sim.told[0].number, number, "{what}");
            assert_eq!(invite.from().and_then(|from| from.tag), Some(call.remote.as_bytes()), "{what}");
            assert_eq!(invite.to().and_then(|to| to.tag), Some(call.local.as_bytes()), "{what}");
            assert_eq!(invite.request_uri(), Some(&b"sip:server@192.0.2.10:5060"[..]), "{what}");
            assert_eq!(invite.top_via().map(|via| via.sent_by), Some(&b"198.51.100.20:5060"[..]), "{what}");
            let contact = if what == "Contact" { "sip:peer@198.51.100.20:5099" } else { "sip:peer@198.51.100.20:5060" };
            assert_eq!(invite.contact().map(|contact| contact.uri), Some(contact.as_bytes()), "{what}");
            // A server that has said something of timers, here in its 2xx, keeps its own.
            let timer = SessionExpires { interval_s: 1_800, refresher: Some(Role::Uas) };
            let expected = (caller == Side::Peer).then_some(Ok(timer));
            assert_eq!((invite.session_expires(), invite.supports(b"timer")), (expected, expected.is_some()), "{what}");
            assert!(sim.told[0].text.ends_with(&format!("\r\n\r\n{body}")), "{what}");
            let ack = Message::scan(sim.told[1].text.as_bytes(), false).unwrap();
            assert_eq!(ack.cseq().map(|cseq| cseq.number), Some(number), "{what}");
            assert_ne!(sim.told[0].branch, sim.told[1].branch, "{what}");
            assert_eq!(sim.count(ServerTold), 1, "{what}");
            assert_eq!(
                sim.reasons(NegotiationFault),
                ["answer_moved_media"],
                "the alert is raised all the same: {what}"
            );
            both_go_on(&mut sim, &mut call);
            sim.secs(1_500);
            assert_eq!((sim.ours().len(), told(&sim).len()), (1, 2), "no more re-INVITE to that peer: {what}");
            sim.hang_up(&mut call);
            sim.secs(120);
            assert_eq!(sim.kernel.holds(), (0, 0), "{what}");
            sim.assert_numbers();
        }
    }
}

#[test]
fn the_default_is_an_alert_alone_and_a_capture_tells_nobody() {
    for rules in [Rules { action: Action::Refresh, ..Rules::default() }, Rules { on_moved: OnMoved::Alert, ..rules() }]
    {
        let (mut sim, _) = about_to_move(rules, Side::Server);
        sim.secs(901);
        assert_eq!(sim.reasons(NegotiationFault), ["answer_moved_media"]);
        assert!(sim.told.is_empty() && sim.arms.iter().all(|arm| arm.side == Side::Server));
    }
    let (mut sim, _) = about_to_move(rules(), Side::Server);
    sim.secs(901);
    let tape = sim.tape.clone();
    let mut replay = Sim::custom(Policy { default: rules(), ..Policy::default() }, Mode::Replay, Limits::default());
    replay.replay(&tape);
    assert!(replay.arms.is_empty() && replay.injected.is_empty());
}

#[test]
fn an_answer_that_stays_where_it_was_tells_nothing() {
    let (mut sim, _) = about_to_move(rules(), Side::Server);
    sim.replies.clear();
    sim.secs(1_801);
    assert_eq!((sim.count(RefreshSucceeded), sim.told.len(), sim.count(NegotiationFault)), (2, 0, 0));
}

#[test]
fn a_server_that_refuses_is_left_alone() {
    for (status, why) in [(488, "refused"), (491, "refused"), (500, "refused"), (481, "refused")] {
        let (mut sim, mut call) = about_to_move(rules(), Side::Server);
        sim.server_replies = [Reply::Status(status, "")].into();
        sim.secs(901);
        assert_eq!(told(&sim), [MethodName::Invite, MethodName::Ack], "{status}");
        // The ACK is of the same transaction.
        assert_eq!(sim.told[0].branch, sim.told[1].branch, "{status}");
        assert_eq!(sim.reasons(NegotiationFault), ["answer_moved_media", "server_not_told"], "{status}");
        let reason = sim.last(NegotiationFault).reason.clone().unwrap();
        assert_eq!(reason, format!("server_not_told: {why}, {status}"));
        let refused = sim.told[0].clone();
        sim.reply_again(&refused, &Reply::Status(status, ""));
        assert_eq!((sim.told.len(), sim.count(NegotiationFault)), (3, 2), "a copy is ACKed and not told");
        both_go_on(&mut sim, &mut call);
        sim.secs(890);
        assert_eq!(told(&sim).len(), 2, "{status}");
        assert_eq!(sim.count(ServerTold), 0, "{status}");
    }
}

#[test]
fn a_server_that_says_nothing_gets_copies_for_a_transaction_and_a_late_2xx_its_ack() {
    let (mut sim, mut call) = about_to_move(rules(), Side::Server);
    sim.server_replies = [Reply::Silence].into();
    sim.secs(900 + 33);
    assert_eq!(told(&sim), [MethodName::Invite]);
    assert_eq!(sim.told.len(), 7, "RFC 3261, timer A");
    assert_eq!(sim.last(NegotiationFault).reason.as_deref(), Some("server_not_told: no_answer"));
    let invite = sim.told[0].clone();
    for _ in 0..2 {
        sim.reply_again(&invite, &Reply::Ok);
    }
    assert_eq!(sim.told.iter().filter(|seen| seen.method == MethodName::Ack).count(), 2);
    assert_eq!(sim.count(ServerTold), 1);
    both_go_on(&mut sim, &mut call);
}

#[test]
fn a_server_that_rings_for_ever_gets_a_cancel() {
    let (mut sim, mut call) = about_to_move(rules(), Side::Server);
    sim.server_replies = [Reply::Rings].into();
    sim.secs(900 + 33);
    assert_eq!(told(&sim), [MethodName::Invite, MethodName::Cancel]);
    let invite = sim.told[0].clone();
    sim.reply_again(&invite, &Reply::Status(487, ""));
    assert_eq!(told(&sim), [MethodName::Invite, MethodName::Cancel, MethodName::Ack]);
    assert_eq!(sim.last(NegotiationFault).reason.as_deref(), Some("server_not_told: refused, 487"));
    both_go_on(&mut sim, &mut call);
}

#[test]
fn a_server_that_moves_its_own_media_in_turn_is_an_alert_and_the_end_of_it() {
    let multipart = manners(Side::Server, false) + "Content-Type: multipart/mixed;boundary=x\r\n";
    for (extra, body) in
        [(manners(Side::Server, false), sdp(Side::Server).replace("4000", "4444")), (multipart, sdp(Side::Server))]
    {
        let (mut sim, mut call) = about_to_move(rules(), Side::Server);
        sim.server_replies = [Reply::OkWith(extra, body)].into();
        sim.secs(901);
        assert_eq!(sim.reasons(NegotiationFault), ["answer_moved_media", "server_moved_media"]);
        assert_eq!(told(&sim), [MethodName::Invite, MethodName::Ack]);
        both_go_on(&mut sim, &mut call);
        sim.secs(900);
        assert_eq!((sim.ours().len(), told(&sim).len()), (1, 2), "nobody is told of it");
    }
}

#[test]
fn it_waits_for_the_transactions_of_both_sides_and_not_for_ever() {
    for side in [Side::Server, Side::Peer] {
        for ends in [true, false] {
            let (mut sim, mut call) = about_to_move(rules(), Side::Server);
            sim.replies = [Reply::Silence].into();
            sim.secs(900);
            let refresh = sim.ours()[0].clone();
            let asked = sim.request(&mut call, side, "INVITE", &manners(side, false), &sdp(side));
            sim.respond(&call, side, &asked, "INVITE", 180, "");
            sim.reply_again(&refresh, &elsewhere());
            sim.secs(10);
            assert!(sim.told.is_empty(), "{side:?}");
            if ends {
                sim.respond(&call, side, &asked, "INVITE", 488, "");
                let text = call.request(side, "ACK", asked.0, &asked.1, true, "", "");
                sim.wire(side, text.into_bytes());
            }
            sim.secs(40);
            let expected: &[MethodName] = if ends { &[MethodName::Invite, MethodName::Ack] } else { &[] };
            assert_eq!(told(&sim), expected, "{side:?} {ends}");
            assert_eq!(sim.reasons(NegotiationFault).len(), if ends { 1 } else { 2 }, "{side:?} {ends}");
            both_go_on(&mut sim, &mut call);
        }
    }
}

#[test]
fn rules_that_no_longer_ask_for_it_end_the_wait_untold() {
    for (action, on_moved) in [(Action::Alert, OnMoved::TellServer), (Action::Refresh, OnMoved::Alert)] {
        let (mut sim, mut call) = about_to_move(rules(), Side::Server);
        sim.replies = [Reply::Silence].into();
        sim.secs(900);
        let refresh = sim.ours()[0].clone();
        let asked = sim.request(&mut call, Side::Peer, "INVITE", &manners(Side::Peer, false), &sdp(Side::Peer));
        sim.respond(&call, Side::Peer, &asked, "INVITE", 180, "");
        sim.reply_again(&refresh, &elsewhere());
        sim.secs(10);
        let arms = sim.arms.len();
        let changed = Rules { action, on_moved, ..rules() };
        sim.set_policy(Policy { default: changed, ..Policy::default() });
        sim.respond(&call, Side::Peer, &asked, "INVITE", 488, "");
        let text = call.request(Side::Peer, "ACK", asked.0, &asked.1, true, "", "");
        sim.wire(Side::Peer, text.into_bytes());
        sim.secs(40);
        assert_eq!((told(&sim).len(), sim.arms.len()), (0, arms), "{action:?} {on_moved:?}");
        assert_eq!(sim.last(NegotiationFault).reason.as_deref(), Some("server_not_told: policy"));
        both_go_on(&mut sim, &mut call);
    }
}

#[test]
fn nothing_is_sent_to_a_server_that_is_gone_hangs_or_cannot_be_reached() {
    for refusal in Refusal::ALL {
        let (mut sim, mut call) = about_to_move(rules(), Side::Server);
        sim.peer_refusal = Some(refusal);
        sim.secs(901);
        assert!(sim.told.is_empty(), "{refusal}");
        let reason = sim.last(NegotiationFault).reason.clone().unwrap();
        assert_eq!(reason, format!("server_not_told: {}", refusal.reason()));
        both_go_on(&mut sim, &mut call);
    }
}

#[test]
fn a_number_that_the_peer_takes_meanwhile_is_not_given_out_twice() {
    for caller in [Side::Server, Side::Peer] {
        let (mut sim, mut call) = about_to_move(rules(), caller);
        sim.peer_interjects = Some(call.clone());
        call.peer_number += 1;
        sim.secs(1_200);
        assert!(sim.peer_interjects.is_none());
        assert_eq!(told(&sim), [MethodName::Invite, MethodName::Ack], "{caller:?}");
        // Above the peer's own, and with another token: the first one's is off the record.
        assert_eq!(sim.told[0].number, call.peer_number, "{caller:?}");
        let tries: Vec<_> = sim.injected.iter().filter(|one| one.side == Side::Peer && one.commit.is_some()).collect();
        assert!(tries.len() == 2 && sim.kernel.retired.contains(&tries[0].token), "{caller:?}");
        both_go_on(&mut sim, &mut call);
    }
}

#[test]
fn numbers_that_move_again_and_again_are_given_up() {
    let (mut sim, mut call) = about_to_move(rules(), Side::Server);
    sim.peer_moves_on = true;
    sim.secs(901);
    sim.secs(60);
    assert!(sim.told.is_empty());
    let tries = sim.injected.iter().filter(|one| one.side == Side::Peer).count();
    assert!((2..40).contains(&tries), "{tries}");
    assert_eq!(sim.last(NegotiationFault).reason.as_deref(), Some("server_not_told: number_moved"));
    both_go_on(&mut sim, &mut call);
}

#[test]
fn a_copy_that_cannot_be_sent_changes_nothing_and_is_sent_again() {
    let (mut sim, mut call) = about_to_move(rules(), Side::Server);
    sim.server_replies = [Reply::Silence].into();
    sim.secs(901);
    sim.refused = Some(Refusal::Send);
    sim.secs(2);
    sim.refused = None;
    let before = sim.told.len();
    sim.secs(8);
    assert!(sim.told.len() > before && sim.told.iter().all(|seen| seen.branch == sim.told[0].branch));
    assert_eq!(sim.reasons(NegotiationFault), ["answer_moved_media"]);
    both_go_on(&mut sim, &mut call);
}

#[test]
fn without_room_or_without_a_whole_sdp_it_is_not_told() {
    let why = |sim: &Sim| sim.last(NegotiationFault).reason.clone().unwrap();
    let mut sim = Sim::with(rules());
    sim.replies = [elsewhere()].into();
    let mut call = Call::new("a", Side::Peer);
    call.peer_number = (1 << 31) - 4;
    sim.establish(&mut call, "Session-Expires: 1800;refresher=uas\r\n", false);
    sim.secs(1_200);
    assert_eq!((sim.told.len(), why(&sim)), (0, "server_not_told: cseq_room".into()));

    let (mut sim, _) = about_to_move(rules(), Side::Server);
    let elsewhere = manners(Side::Peer, false).replace("20:5060", "20:5099") + UAC_1800;
    let multipart = elsewhere + "Content-Type: multipart/mixed;boundary=x\r\n";
    sim.replies = [Reply::OkWith(multipart, moved())].into();
    sim.secs(901);
    assert_eq!((sim.told.len(), why(&sim)), (0, "server_not_told: no_sdp".into()));
}

#[test]
fn a_call_that_ends_meanwhile_is_not_told_of_and_a_2xx_still_gets_its_ack() {
    let (mut sim, mut call) = about_to_move(rules(), Side::Server);
    sim.server_replies = [Reply::Silence].into();
    sim.secs(901);
    let invite = sim.told[0].clone();
    sim.hang_up(&mut call);
    let sent = sim.told.len();
    sim.secs(5);
    assert_eq!(sim.told.len(), sent, "no more copies");
    sim.reply_again(&invite, &Reply::Ok);
    assert_eq!(sim.told.last().map(|seen| seen.method), Some(MethodName::Ack));
    assert_eq!(sim.count(ServerTold), 0);
    sim.secs(600);
    assert_eq!(sim.kernel.holds(), (0, 0));
    sim.assert_numbers();
}

#[test]
fn no_refresh_leaves_while_the_server_is_being_told_and_the_end_waits_for_its_answer() {
    let (mut sim, _) = about_to_move(rules(), Side::Server);
    sim.server_replies = [Reply::Silence].into();
    sim.secs(901);
    assert!(sim.engine.is_inviting());
    let invite = sim.told[0].clone();
    sim.reply_again(&invite, &Reply::Ok);
    assert!(!sim.engine.is_inviting());
}
