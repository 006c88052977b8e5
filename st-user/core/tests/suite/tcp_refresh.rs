//! `tcp: refresh`: calls over TCP are refreshed by way of the server's own connection, where the driver can; each request is sent once.

use std::time::Duration;

use crate::sim::{Reply, SERVERS_COOKIE, Sim, disk::Disk, text::server_expires};
use st_core::{
    Action, EventKind::*, OnExpired, OnMoved, OverTcp, Refusal, Respond, Rules, Side, Transport,
    engine::reason::OVER_TCP, message::MethodName,
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const TCP: [Transport; 2] = [Transport::Tcp; 2];

fn rules() -> Rules {
    Rules { action: Action::Refresh, tcp: OverTcp::Refresh, ..Rules::default() }
}

fn sim(rules: Rules, transports: [Transport; 2]) -> Sim {
    let mut sim = Sim::with(rules);
    sim.transports = transports;
    sim
}

#[test]
fn it_is_refreshed_by_the_servers_connection_and_the_server_goes_on() {
    for caller in [Side::Server, Side::Peer] {
        let mut sim = sim(rules(), TCP);
        let mut call = sim.call("a", caller, server_expires(caller));
        sim.secs(60);
        assert_eq!((sim.count(RefreshSucceeded), sim.injected.len()), (1, 1));
        let (arm, inject) = (&sim.arms[0], &sim.injected[0]);
        assert_eq!((arm.transport, inject.transport, arm.cookie), (Transport::Tcp, Transport::Tcp, SERVERS_COOKIE));
        assert_eq!((arm.server, arm.peer), (inject.server, inject.peer));
        let text = String::from_utf8_lossy(&inject.bytes);
        assert!(text.contains("\r\nVia: SIP/2.0/TCP ") && !text.contains("SIP/2.0/UDP"), "{text}");
        sim.secs(300);
        assert!(sim.count(RefreshSucceeded) >= 6 && sim.count(RefreshOverdue) + sim.count(RefreshFailed) == 0);
        sim.hang_up(&mut call);
        assert_eq!(sim.violations, [""; 0]);
    }
}

#[test]
fn a_request_without_an_answer_is_not_sent_again() {
    let mut sim = sim(rules(), TCP);
    sim.usual = Reply::Silence;
    sim.call("a", Side::Server, UAC_90);
    sim.secs(100);
    let mut sent: Vec<&[u8]> = sim.injected.iter().map(|inject| &inject.bytes[..]).collect();
    let all = sent.len();
    sent.sort_unstable();
    sent.dedup();
    assert!(all >= 2 && sent.len() == all, "{all} sent, {} of them different", sent.len());
    assert!(sim.injected.iter().all(|inject| inject.commit.is_some()));
    // By UDP there are copies.
    let mut sim = self::sim(rules(), [Transport::Udp; 2]);
    sim.usual = Reply::Silence;
    sim.call("a", Side::Server, UAC_90);
    sim.secs(100);
    assert!(sim.injected.iter().any(|inject| inject.commit.is_none()));
}

#[test]
fn what_cannot_be_had_is_said_and_nothing_is_sent() {
    for refusal in [
        Refusal::TcpUnproven,
        Refusal::TcpBusy,
        Refusal::TcpInPieces,
        Refusal::TcpMixed,
        Refusal::TcpClosed,
        Refusal::TcpNoSocket,
        Refusal::TcpUnattached,
    ] {
        let mut sim = sim(rules(), TCP);
        sim.refusal = Some(refusal);
        sim.call("a", Side::Server, UAC_90);
        sim.secs(91);
        assert_eq!((sim.reasons(RefreshFailed), sim.injected.len()), (vec![refusal.reason().into()], 0));
        assert_eq!((sim.count(SessionExpiring), sim.count(SessionExpired)), (1, 1));
    }
    // What passes is tried again.
    for refusal in [Refusal::TcpUnproven, Refusal::TcpBusy] {
        let mut sim = sim(rules(), TCP);
        sim.refusal = Some(refusal);
        sim.call("a", Side::Server, UAC_90);
        sim.secs(46);
        sim.refusal = None;
        sim.secs(40);
        assert_eq!((sim.count(RefreshSucceeded), sim.count(RefreshFailed)), (1, 0), "{refusal}");
    }
}

#[test]
fn without_it_nothing_is_sent_and_a_reload_switches_it_both_ways() {
    let mut sim = sim(Rules { tcp: OverTcp::Alert, ..rules() }, TCP);
    sim.call("a", Side::Server, UAC_90);
    sim.secs(60);
    assert_eq!((sim.reasons(RefreshOverdue), sim.arms.len()), (vec![OVER_TCP.into()], 0));
    let policy = |rules| st_core::Policy { default: rules, ..st_core::Policy::default() };
    sim.set_policy(policy(rules()));
    sim.call("b", Side::Server, UAC_90);
    sim.secs(50);
    assert!(sim.count(RefreshSucceeded) >= 1);
    let before = sim.injected.len();
    sim.set_policy(policy(Rules { tcp: OverTcp::Alert, ..rules() }));
    sim.secs(100);
    assert_eq!(sim.injected.len(), before);
}

#[test]
fn nothing_is_sent_in_the_peers_name_and_no_call_is_hung_up() {
    let all = Rules {
        keepalive: Some(Duration::from_secs(20)),
        respond: Respond::OnReject,
        on_moved: OnMoved::TellServer,
        on_expired: OnExpired::Bye,
        take_over: true,
        ..rules()
    };
    let mut sim = sim(all, TCP);
    sim.refusal = Some(Refusal::TcpInPieces);
    sim.call("a", Side::Server, UAC_90);
    sim.secs(1_000);
    assert_eq!(sim.reasons(ByeFailed), [OVER_TCP]);
    assert_eq!([sim.injected.len(), sim.marks.len(), sim.kept_alive.len(), sim.told.len()], [0; 4]);
}

#[test]
fn a_bye_of_the_servers_that_is_refused_for_its_number_is_followed_by_sipsts_own() {
    for (status, transports, refreshed, follows) in [
        (500, TCP, true, true),
        (200, TCP, true, false),
        (481, TCP, true, false),
        (500, TCP, false, false),
        (500, [Transport::Udp; 2], true, false),
    ] {
        let mut sim = sim(rules(), transports);
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(if refreshed { 50 } else { 10 });
        let before = sim.injected.len();
        let asked = sim.request(&mut call, Side::Server, "BYE", "", "");
        sim.respond(&call, Side::Server, &asked, "BYE", status, "");
        sim.secs(1);
        let byes: Vec<_> = sim.seen.iter().filter(|seen| seen.ours && seen.method == MethodName::Bye).collect();
        assert_eq!((byes.len(), sim.injected.len() - before), (usize::from(follows), usize::from(follows)), "{status}");
        if follows {
            assert_eq!(sim.reasons(ByeSent), ["bye_refused"]);
            assert!(byes[0].text.contains("SIP/2.0/TCP"));
        }
        assert_eq!((sim.count(SessionEnded), sim.violations.len()), (1, 0));
        sim.secs(100);
        assert_eq!(sim.injected.len() - before, usize::from(follows), "once");
    }
}

#[test]
fn a_daemon_that_comes_later_goes_on_by_the_same_connection() {
    let mut sim = sim(rules(), TCP);
    sim.engine.follow_changes();
    sim.call("a", Side::Server, UAC_90);
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    sim.restart(&disk, Duration::from_secs(5));
    sim.secs(50);
    assert_eq!(sim.count(RefreshSucceeded), 1);
    assert_eq!((sim.arms[0].transport, sim.arms[0].cookie), (Transport::Tcp, SERVERS_COOKIE));
}

#[test]
fn a_number_has_no_more_room_than_the_server_has_left_it_for_nothing_becomes_longer() {
    // One blank and one digit: by UDP four blanks can be added.
    let refreshes = |transports| {
        let mut sim = sim(rules(), transports);
        sim.call("a", Side::Server, UAC_90);
        sim.secs(45 * 110);
        (sim.count(RefreshSucceeded), sim.reasons(RefreshFailed))
    };
    let (done, failed) = refreshes(TCP);
    assert!((80..99).contains(&done) && failed.first().is_some_and(|why| why == "cseq_room"), "{done} {failed:?}");
    let (done, failed) = refreshes([Transport::Udp; 2]);
    assert!(done >= 105 && failed.is_empty(), "{done} {failed:?}");
}
