//! The daemon is killed between an injected re-INVITE and its 200: a 2xx without an ACK would end the call (R44). By TC: what
//! XDP sends back crosses a veth pair only at times (its far end must be polled), and is left to the kernel tables.

use std::time::Duration;

use st_tests::{
    Family, Sipst,
    agent::{Profile, Update},
};

use crate::plan::{Call, Plan, SOON, config};

/// How long the peer sends its 200 again before it gives the call up.
const PATIENCE: Duration = Duration::from_secs(9);

/// A call whose peer takes no UPDATE and has had a re-INVITE of sipst's, over which it thinks.
fn reinvited(family: Family) -> Call {
    let peer = Profile {
        update: Update::Unknown,
        thinks: Duration::from_secs(1),
        ack_patience: PATIENCE,
        ..Profile::strict_peer(24, "uac")
    };
    let call = Plan { attach: "tc", family, peer, ..Plan::default() }.start();
    call.peer.refreshed(1, SOON + Duration::from_secs(12)).unwrap();
    assert!(!call.peer.answers().contains(&500), "{}", call.story());
    call
}

/// The peer gets its ACK, the call outlives its patience, and the server's BYE is good.
fn lives(call: &Call) {
    let ack = call.peer.wait("ACK to the re-INVITE", PATIENCE, |records| {
        let acks = records.iter().filter(|record| record.is_request("ACK"));
        acks.skip(1).map(|record| record.at).next()
    });
    assert!(ack.is_ok(), "{}", call.story());
    std::thread::sleep(PATIENCE);
    assert!(!call.peer.is_over(), "{}", call.story());
    call.server.bye();
    assert_eq!(call.server.answered("BYE", SOON).unwrap(), 200, "{}", call.story());
    call.clean();
    let acks = call.peer.requests("ACK");
    let numbers: Vec<u32> = acks.iter().filter_map(|ack| ack.cseq().map(|cseq| cseq.number)).collect();
    assert_eq!(numbers, [1, 2], "{}", call.story());
}

#[test]
fn r44_with_no_daemon_at_all_the_programs_ack_the_200() {
    std::thread::scope(|scope| {
        for family in [Family::V4, Family::V6] {
            scope.spawn(move || {
                let mut call = reinvited(family);
                call.sipst.kill().unwrap();
                lives(&call);
            });
        }
    });
}

#[test]
fn r44_a_new_daemon_has_the_programs_ack_the_200_at_once() {
    let mut call = reinvited(Family::V4);
    call.sipst.kill().unwrap();
    call.sipst = Sipst::start(&call.lab.server, &config("tc", &["action: refresh", "min_se: 2s"])).unwrap();
    lives(&call);
}

#[test]
fn r44_a_daemon_that_stands_still_and_goes_on_harms_nothing() {
    let mut call = reinvited(Family::V4);
    call.sipst.process().signal(rustix::process::Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_secs(7));
    call.sipst.process().signal(rustix::process::Signal::CONT).unwrap();
    lives(&call);
    call.sipst.event("refresh_succeeded", SOON).unwrap();
}
