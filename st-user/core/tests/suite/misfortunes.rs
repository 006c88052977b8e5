//! Coincidences that the world of model agents has brought about, each in its smallest form.

use crate::sim::{Call, Reply, Sim, Step, manners, sdp};
use st_core::{Action, Command, Credentials, EventKind::*, Rules, Side, message::MethodName};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAC_1800: &str = "Session-Expires: 1800;refresher=uac\r\n";
const CHALLENGE: Reply =
    Reply::Status(401, "WWW-Authenticate: Digest realm=\"carrier\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"\r\n");

fn long_call(replies: &[Reply]) -> (Sim, Call) {
    let credentials = Some(Credentials { username: "line1".into(), password: "secret".into() });
    let mut sim = Sim::with(Rules { action: Action::Refresh, credentials, ..Rules::default() });
    sim.expires = UAC_1800;
    sim.replies = replies.iter().cloned().collect();
    let call = sim.call("a", Side::Server, UAC_1800);
    (sim, call)
}

#[test]
fn f17_credentials_are_not_lost_with_a_number_that_has_moved() {
    let (mut sim, call) = long_call(&[Reply::Silence]);
    sim.secs(900);
    // Before the signed refresh leaves, the server sends a request: it has to be made anew.
    sim.interject = Some((Step::BeforeCommit, call));
    let first = sim.ours()[0].clone();
    sim.reply_again(&first, &CHALLENGE);
    assert!(sim.interject.is_none());
    sim.secs(10);
    assert_eq!((sim.count(RefreshFailed), sim.count(RefreshSucceeded)), (0, 1), "{:?}", sim.kinds());
    assert_eq!(sim.ours().len(), 2);
    let last = sim.ours().pop().expect("a refresh");
    assert!(last.text.contains("Authorization: Digest"), "{}", last.text);
    sim.assert_numbers();
}

#[test]
fn f17_a_signed_refresh_that_fails_for_another_reason_may_be_challenged_again() {
    let (mut sim, _) = long_call(&[CHALLENGE, Reply::Status(500, ""), CHALLENGE, Reply::Ok]);
    sim.secs(960);
    assert_eq!((sim.count(RefreshFailed), sim.count(RefreshSucceeded)), (0, 1), "{:?}", sim.kinds());
    sim.assert_numbers();
}

#[test]
fn f07_one_update_without_an_answer_does_not_forbid_update_where_a_reinvite_moves_media() {
    let moved = sdp(Side::Peer).replace("6000", "6002");
    let expires = "Session-Expires: 1800;refresher=uac\r\n";
    let (mut sim, _) = long_call(&[Reply::Silence, Reply::OkWith(manners(Side::Peer, true) + expires, moved)]);
    sim.secs(1_000);
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite]);
    assert_eq!(sim.reasons(NegotiationFault), ["answer_moved_media"]);
    sim.secs(900);
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite, MethodName::Update]);
    assert_eq!((sim.count(RefreshFailed), sim.count(RefreshSucceeded)), (0, 2));
}

#[test]
fn r27_an_invite_whose_final_response_went_by_unseen_is_over_with_its_ack() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(40);
    let asked = sim.request(&mut call, Side::Server, "INVITE", &manners(Side::Server, true), &sdp(Side::Server));
    sim.respond(&call, Side::Server, &asked, "INVITE", 100, "");
    sim.command(Command::Loss { packets: 1 });
    let branch = call.branch();
    let ack = call.request(Side::Server, "ACK", asked.0, &branch, true, "", "");
    sim.wire(Side::Server, ack.into_bytes());
    sim.secs(15);
    assert_eq!(sim.count(RefreshSucceeded), 1, "{:?}", sim.kinds());
    sim.assert_numbers();
}

#[test]
fn f11_an_answer_that_a_hold_of_the_servers_restricts_has_not_moved() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.establish(&mut call, UAC_90, false);
    // The peer offers both ways, the server answers that it holds.
    let asked = sim.request(&mut call, Side::Peer, "INVITE", &manners(Side::Peer, false), &sdp(Side::Peer));
    let held = sdp(Side::Server).replace("o=- 7 7", "o=- 7 8") + "a=sendonly\r\n";
    sim.respond_with(&call, Side::Peer, &asked, "INVITE", 200, &manners(Side::Server, true), &held);
    let branch = call.branch();
    let ack = call.request(Side::Peer, "ACK", asked.0, &branch, true, "", "");
    sim.wire(Side::Peer, ack.into_bytes());
    let answer = sdp(Side::Peer) + "a=recvonly\r\n";
    sim.replies = [Reply::OkWith(manners(Side::Peer, false) + UAC_90, answer)].into();
    sim.secs(46);
    assert_eq!(sim.methods(), [MethodName::Invite]);
    assert_eq!((sim.count(RefreshSucceeded), sim.count(NegotiationFault)), (1, 0), "{:?}", sim.events.last());
}

#[test]
fn room_that_is_only_guessed_is_asked_for_again_in_the_next_interval() {
    let mut sim = Sim::new(Action::Refresh);
    // The server writes no blank, and nothing of its own until its fifth request's time.
    let mut call = Call::new("a", Side::Peer);
    call.blank = "";
    let contact = manners(Side::Server, true).replace("Contact: ", "Contact:");
    sim.invite(&mut call, &manners(Side::Peer, true), &sdp(Side::Peer));
    sim.answer(&call, 200, &(contact + "Session-Expires: 90;refresher=uas\r\n"), &sdp(Side::Server));
    sim.ack(&mut call);
    while sim.reasons(RefreshFailed).is_empty() {
        sim.secs(10);
    }
    assert_eq!(sim.reasons(RefreshFailed), ["cseq_room"]);
    let sent = sim.ours().len();
    // A number with five digits makes room; the 2xx to it starts an interval.
    call.number = 20_000;
    sim.reinvite(&mut call, Side::Server, "", UAC_90);
    sim.secs(60);
    assert_eq!(sim.ours().len(), sent + 1, "{:?}", sim.kinds());
    sim.assert_numbers();
}

#[test]
fn f17_an_answer_to_a_challenge_is_for_its_remote_target_alone() {
    let (mut sim, mut call) = long_call(&[Reply::Silence]);
    sim.secs(900);
    // The peer moves, which the server confirms reliably, after the challenge and before it can be answered (R24).
    let moves = "Contact: <sip:peer@198.51.100.77>\r\n";
    let asked = sim.request(&mut call, Side::Peer, "INVITE", moves, &sdp(Side::Peer));
    let first = sim.ours()[0].clone();
    sim.reply_again(&first, &CHALLENGE);
    sim.respond(&call, Side::Peer, &asked, "INVITE", 183, "Require: 100rel\r\nRSeq: 1\r\n");
    sim.respond(&call, Side::Peer, &asked, "INVITE", 488, "");
    let ack = call.request(Side::Peer, "ACK", asked.0, &asked.1, true, "", "");
    sim.wire(Side::Peer, ack.into_bytes());
    sim.secs(2);
    let second = sim.ours()[1].clone();
    assert!(second.text.starts_with("UPDATE sip:peer@198.51.100.77 SIP/2.0\r\n"), "{}", second.text);
    assert!(!second.text.contains("Authorization"), "{}", second.text);
}
