//! Calls over TCP: watched as all others, and nothing is ever sent in them.

use std::time::Duration;

use crate::sim::{Call, Sim, disk::Disk, manners, sdp};
use st_core::{
    Action, Command, EventKind::*, OnExpired, OnMoved, Respond, Rules, Side, Transport, engine::reason::OVER_TCP,
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";
const PEER: [u8; 4] = [198, 51, 100, 20];
const TCP: [Transport; 2] = [Transport::Tcp; 2];

/// Whatever sipst can do in a call.
fn everything() -> Rules {
    Rules {
        action: Action::Refresh,
        keepalive: Some(Duration::from_secs(20)),
        respond: Respond::OnReject,
        on_moved: OnMoved::TellServer,
        on_expired: OnExpired::Bye,
        take_over: true,
        ..Rules::default()
    }
}

fn sim(transports: [Transport; 2]) -> Sim {
    let mut sim = Sim::with(everything());
    sim.transports = transports;
    sim
}

/// What was sent in whoever's name, or got ready for it.
fn acts(sim: &Sim) -> [usize; 6] {
    let Sim { arms, injected, marks, kept_alive, acks, told, .. } = sim;
    [arms.len(), injected.len(), marks.len(), kept_alive.len(), acks.len(), told.len()]
}

/// A refresh of the peer's that the server turns down.
fn refused_refresh(sim: &mut Sim, call: &mut Call) {
    let asked = sim.request(call, Side::Peer, "UPDATE", &(manners(Side::Peer, true) + UAC_90), "");
    sim.respond(call, Side::Peer, &asked, "UPDATE", 501, "");
}

#[test]
fn a_call_over_tcp_is_watched_and_nothing_is_ever_sent_in_it() {
    for caller in [Side::Server, Side::Peer] {
        let mut sim = sim(TCP);
        let expires = if caller == Side::Server { UAC_90 } else { UAS_90 };
        sim.call("a", caller, expires);
        assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated]);
        sim.secs(60);
        assert_eq!(
            (sim.reasons(RefreshDue), sim.reasons(RefreshOverdue)),
            (vec![OVER_TCP.into()], vec![OVER_TCP.into()])
        );
        sim.secs(31);
        assert_eq!((sim.count(SessionExpiring), sim.count(SessionExpired)), (1, 1));
        sim.secs(1_000);
        assert_eq!(sim.reasons(ByeFailed), [OVER_TCP]);
        assert_eq!(acts(&sim), [0; 6]);
        // The same by UDP is kept up.
        let mut sim = self::sim([Transport::Udp; 2]);
        sim.call("a", caller, expires);
        sim.secs(91);
        assert_eq!((sim.count(RefreshOverdue), sim.count(SessionExpiring)), (0, 0));
        assert!(!sim.injected.is_empty() && !sim.kept_alive.is_empty());
    }
}

#[test]
fn a_refresh_of_the_peers_that_the_server_turns_down_is_told_and_not_answered() {
    let mut sim = sim(TCP);
    let mut call = sim.call("a", Side::Server, UAS_90);
    sim.secs(30);
    refused_refresh(&mut sim, &mut call);
    assert_eq!(sim.count(RefreshRejected), 1);
    sim.secs(200);
    assert_eq!((acts(&sim), sim.responses.len()), ([0; 6], 1));
    let mut sim = self::sim([Transport::Udp; 2]);
    sim.call("a", Side::Server, UAS_90);
    assert!(!sim.marks.is_empty());
}

#[test]
fn a_call_that_goes_over_to_tcp_is_left_alone_from_then_on() {
    let mut sim = sim([Transport::Udp; 2]);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(50);
    assert_eq!((sim.count(RefreshSucceeded), sim.marks.len()), (1, 1));
    sim.transports = TCP;
    sim.reinvite(&mut call, Side::Server, "", UAC_90);
    let before = acts(&sim);
    assert_eq!(sim.marks.len(), 0);
    sim.secs(46);
    assert_eq!(sim.reasons(RefreshOverdue), [OVER_TCP]);
    sim.secs(1_000);
    assert_eq!(acts(&sim), before);
    assert_eq!(sim.reasons(ByeFailed), [OVER_TCP]);
}

#[test]
fn a_stranger_who_speaks_by_tcp_keeps_sipst_from_nothing() {
    let mut sim = sim([Transport::Udp; 2]);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.transports = [Transport::Udp, Transport::Tcp];
    sim.request(&mut call, Side::Peer, "INFO", "", "");
    sim.secs(91);
    assert_eq!((sim.count(RefreshOverdue), sim.count(SessionExpiring)), (0, 0));
    assert_ne!(sim.injected.len(), 0);
}

#[test]
fn a_daemon_that_comes_later_knows_that_a_call_is_over_tcp() {
    let mut sim = sim(TCP);
    sim.engine.follow_changes();
    sim.call("a", Side::Server, UAC_90);
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    sim.restart(&disk, Duration::from_secs(5));
    sim.secs(100);
    assert_eq!((sim.reasons(RefreshOverdue), acts(&sim)), (vec![OVER_TCP.into()], [0; 6]));
}

#[test]
fn a_call_over_tcp_that_is_met_in_the_middle_stays_alert_only() {
    let mut sim = sim(TCP);
    let mut call = Call { number: 5, ..Call::new("a", Side::Server) };
    let asked = sim.request(&mut call, Side::Server, "INVITE", &manners(Side::Server, true), &sdp(Side::Server));
    let answer = manners(Side::Peer, true) + UAC_90;
    sim.respond_with(&call, Side::Server, &asked, "INVITE", 200, &answer, &sdp(Side::Peer));
    let ack = call.request(Side::Server, "ACK", asked.0, "z9hG4bKack", true, "", "");
    sim.wire(Side::Server, ack.into_bytes());
    let asked = sim.request(&mut call, Side::Server, "INFO", "", "");
    sim.respond(&call, Side::Server, &asked, "INFO", 200, "");
    sim.secs(100);
    assert_eq!((sim.reasons(RefreshOverdue), acts(&sim)), (vec![OVER_TCP.into()], [0; 6]));
}

#[test]
fn where_something_on_its_connection_went_by_unseen_a_call_is_not_told_to_have_expired() {
    let mut sim = sim(TCP);
    sim.call("a", Side::Server, UAC_90);
    let unsure = |sim: &Sim| sim.engine.stats().unsure;
    sim.secs(10);
    // A stranger's connection is not the call's.
    sim.command(Command::Unheard { peer: Some([203, 0, 113, 77].into()) });
    assert_eq!(unsure(&sim), 0);
    for missed in [Some(PEER.into()), None] {
        let mut sim = self::sim(TCP);
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(10);
        sim.command(Command::Unheard { peer: missed });
        assert_eq!(unsure(&sim), 1);
        sim.secs(10);
        // The server speaks: that is certain.
        sim.request(&mut call, Side::Server, "INFO", "", "");
        assert_eq!(unsure(&sim), 0);
        sim.command(Command::Unheard { peer: missed });
        sim.secs(100);
        assert_eq!((sim.count(SessionExpiring), sim.count(SessionExpired)), (1, 0));
        assert_eq!(acts(&sim), [0; 6]);
    }
    // Nothing of that kind happens to datagrams.
    let mut sim = self::sim([Transport::Udp; 2]);
    sim.call("a", Side::Server, UAC_90);
    sim.command(Command::Unheard { peer: None });
    assert_eq!(unsure(&sim), 0);
}

#[test]
fn of_more_peers_than_are_remembered_none_is_taken_for_heard() {
    let mut sim = sim(TCP);
    sim.call("a", Side::Server, UAC_90);
    sim.secs(10);
    for number in 0..4_096_u32 {
        sim.command(Command::Unheard { peer: Some(number.to_be_bytes().into()) });
    }
    assert_eq!(sim.engine.stats().unsure, 0);
    sim.command(Command::Unheard { peer: Some(PEER.into()) });
    assert_eq!(sim.engine.stats().unsure, 1);
}
