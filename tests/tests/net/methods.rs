//! After a refresh of sipst's, whatever the server asks for in the dialog reaches a strict peer under a number that it takes, and
//! the numbers that headers quote go along, there and back.

use st_tests::agent::{Profile, RSEQ};

use crate::plan::{Call, Plan, SOON};

fn ok(call: &Call, method: &str) {
    let status = call.server.answered_exactly(method, SOON);
    assert!(matches!(status, Ok(200)), "{method}: {status:?}\n{}", call.story());
}

/// The number of the last request of a method as the server wrote it, and as the peer read it.
fn numbers(call: &Call, method: &str) -> (u32, u32) {
    let sent = call.server.sent();
    let own = sent.iter().rev().find(|message| message.method() == Some(method)).and_then(|message| message.cseq());
    let wire = call.peer.requests(method).last().and_then(|message| message.cseq());
    let (Some(own), Some(wire)) = (own, wire) else { panic!("no {method}\n{}", call.story()) };
    (own.number, wire.number)
}

#[test]
fn everything_that_the_server_asks_for_after_a_refresh_is_accepted_and_quoted_numbers_go_along() {
    let plan = Plan::default();
    // Longer than all of this takes: a refresh waits while the re-INVITE rings.
    let peer = Profile { rings: true, ..Profile::strict_peer(24, "uac") };
    let call = Plan { peer, server: Profile { first_cseq: 7, ..plan.server.clone() }, ..plan }.start();
    call.refreshed(1);
    for method in ["UPDATE", "INFO", "OPTIONS"] {
        call.server.request(method);
        ok(&call, method);
    }

    call.server.request_with("REFER", "Refer-To", "<sip:third@192.0.2.99>");
    ok(&call, "REFER");
    let (own, wire) = numbers(&call, "REFER");
    assert!(wire > own, "{}", call.story());
    // RFC 3515, section 2.4.6: the NOTIFY quotes the number that the REFER had where it arrived.
    call.peer.request_with("NOTIFY", "Event", format!("refer;id={wire}"));
    assert_eq!(call.peer.answered_exactly("NOTIFY", SOON).unwrap(), 200, "{}", call.story());
    let notify = call.server.requests("NOTIFY").pop().unwrap();
    assert_eq!(notify.header("Event").map(str::trim), Some(&*format!("refer;id={own}")), "{}", call.story());
    call.server.request_with("SUBSCRIBE", "Event", format!("refer;id={own}"));
    ok(&call, "SUBSCRIBE");
    let subscribe = call.peer.requests("SUBSCRIBE").pop().unwrap();
    assert_eq!(subscribe.header("Event").map(str::trim), Some(&*format!("refer;id={wire}")), "{}", call.story());

    call.server.reinvite();
    call.server
        .wait("reliable response", SOON, |records| {
            records
                .iter()
                .any(|record| {
                    matches!(&record.event, st_tests::agent::Event::Received(message)
                if message.status() == Some(180) && message.header("RSeq").is_some())
                })
                .then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", call.story()));
    let (own, wire) = numbers(&call, "INVITE");
    call.server.request_with("PRACK", "RAck", format!("{RSEQ} {own} INVITE"));
    ok(&call, "PRACK");
    let prack = call.peer.requests("PRACK").pop().unwrap();
    let quoted: Vec<_> = prack.header("RAck").unwrap_or_default().split_whitespace().collect();
    assert_eq!(quoted, [&*RSEQ.to_string(), &*wire.to_string(), "INVITE"], "{}", call.story());
    call.server.cancel();
    ok(&call, "CANCEL");
    assert_eq!(call.server.answered_exactly("INVITE", SOON).unwrap(), 487, "{}", call.story());
    assert_eq!(numbers(&call, "CANCEL"), (own, wire), "{}", call.story());
    call.peer.received(&["ACK"], 2, SOON).unwrap();
    assert_eq!(numbers(&call, "ACK"), (own, wire), "{}", call.story());

    // And on it goes: the peer has seen UPDATEs and INVITEs of the server's own meanwhile.
    let before = call.peer.refreshes().len();
    call.refreshed(before + 1);
    call.server_hangs_up();
    assert!(call.peer_answers().iter().all(|status| [180, 200, 487].contains(status)), "{}", call.story());
}
