//! The server's numbers where more than one dialog or engine has a share in them: forks, tries with other tags, restarts; and
//! where they end.

use std::time::Duration;

use crate::sim::{Call, Reply, Sim, disk::Disk, manners, sdp};
use st_core::{
    Action, Command,
    EventKind::*,
    Refusal, Side,
    engine::{EngineConfig, record::COMMON},
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

/// One INVITE of the server's, and two who answer it.
fn forked(sim: &mut Sim) -> [Call; 2] {
    let mut one = Call::new("a", Side::Server);
    sim.invite(&mut one, &manners(Side::Server, true), &sdp(Side::Server));
    let mut two = Call { remote: "other".into(), ..one.clone() };
    for call in [&mut one, &mut two] {
        sim.answer(call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
        sim.ack(call);
    }
    [one, two]
}

#[test]
fn the_entry_of_forks_stays_until_the_last_of_them_is_forgotten() {
    for both in [false, true] {
        let mut sim = Sim::new(Action::Refresh);
        sim.expires = UAC_90;
        let [mut one, mut two] = forked(&mut sim);
        sim.secs(46);
        assert_eq!(sim.ours().len(), 2, "each is refreshed, with numbers of one row");
        two.number = one.number;
        sim.hang_up(&mut two);
        one.number = two.number;
        let before = sim.ours().len();
        sim.secs(200);
        assert_eq!(sim.kernel.disarmed.len(), 0, "the other one needs it");
        assert_eq!(sim.kernel.holds().1, 1);
        assert!(sim.ours().len() > before + 2);
        if both {
            sim.hang_up(&mut one);
        } else {
            let asked = sim.request(&mut one, Side::Peer, "BYE", "", "");
            sim.respond(&one, Side::Peer, &asked, "BYE", 200, "");
        }
        sim.secs(700);
        sim.assert_numbers();
        assert_eq!((sim.kernel.disarmed.len(), sim.kernel.holds()), (1, (0, 0)));
    }
}

#[test]
fn forks_that_a_new_engine_takes_back_have_one_entry_too() {
    let mut sim = Sim::new(Action::Refresh);
    sim.expires = UAC_90;
    sim.engine.follow_changes();
    let [mut one, mut two] = forked(&mut sim);
    sim.secs(46);
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    for restored in sim.restart(&disk, Duration::from_millis(200)) {
        assert!(restored.followed);
        sim.engine.set_followed(restored.session, true);
    }
    sim.hang_up(&mut two);
    one.number = two.number;
    sim.secs(120);
    assert_eq!(sim.kernel.disarmed.len(), 0);
    sim.hang_up(&mut one);
    sim.secs(700);
    sim.assert_numbers();
    assert_eq!((sim.kernel.disarmed.len(), sim.kernel.holds()), (1, (0, 0)));
    disk.write(&mut sim.engine);
    assert_eq!(disk.keys(), [COMMON]);
}

#[test]
fn a_try_with_another_tag_after_401_or_3xx_is_a_row_of_numbers_of_its_own() {
    for status in [401, 407, 302, 305] {
        let mut sim = Sim::new(Action::Refresh);
        sim.expires = UAC_90;
        let mut call = Call::new("a", Side::Server);
        sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
        sim.answer(&call, status, "", "");
        sim.ack(&mut call);
        // RFC 3261, section 8.1.3.5 asks for the same tag; not every stack keeps it.
        call.local = "another".into();
        sim.establish(&mut call, UAC_90, true);
        sim.secs(100);
        assert_eq!(sim.ours().iter().map(|seen| seen.number).collect::<Vec<_>>(), [3, 4], "{status}");
        assert!(sim.ours().iter().all(|seen| seen.text.contains("tag=another")), "{status}");
        sim.hang_up(&mut call);
        sim.secs(700);
        sim.assert_numbers();
        assert_eq!(sim.kernel.holds(), (0, 0));
    }
}

#[test]
fn near_the_highest_number_there_is_nothing_is_sent_that_leaves_the_server_no_room() {
    // RFC 3261, section 8.1.1.5: less than 2^31. Four numbers stay free for the server.
    const LAST: u32 = 0x7fff_ffff;
    for (below, refreshes) in [(0, 0), (3, 0), (4, 0), (5, 1), (9, 5)] {
        let mut sim = Sim::new(Action::Refresh);
        sim.expires = UAC_90;
        let mut call = Call { number: LAST - below, ..Call::new("a", Side::Server) };
        sim.establish(&mut call, UAC_90, true);
        sim.secs(600);
        let numbers: Vec<_> = sim.ours().iter().map(|seen| seen.number).collect();
        assert_eq!(numbers, (1..=refreshes).map(|times| LAST - below + times).collect::<Vec<_>>());
        assert_eq!(sim.reasons(RefreshFailed), ["cseq_room"], "{below}");
        if below > 0 {
            sim.hang_up(&mut call);
            sim.assert_numbers();
        }
    }
}

#[test]
fn no_copy_goes_out_of_a_request_that_had_been_refused_before_the_daemon_was_killed() {
    let mut sim = Sim::new(Action::Refresh);
    sim.expires = UAC_90;
    sim.engine.follow_changes();
    let mut call = Call::new("a", Side::Server);
    sim.establish(&mut call, UAC_90, true);
    sim.deaf = true;
    sim.secs(46);
    let arm = sim.arms[0].clone();
    let state = sim.kernel.arm(call.key(), arm.state);
    sim.engine.handle_command(sim.now, Command::Armed { session: arm.session, side: arm.side, result: Ok(state) });
    // It is on disk; that the kernel let it not leave is not.
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    sim.deaf = false;
    let (engine, restored) = disk.restore(EngineConfig { seed: sim.config.seed + 1, ..sim.config.clone() });
    assert_eq!(restored[0].tokens.len(), 1);
    sim.go_on_with(engine);
    sim.engine.set_followed(restored[0].session, true);
    sim.command(Command::Refused { token: restored[0].tokens[0], refusal: Refusal::Moved });
    sim.command(Command::Outage);
    sim.secs(20);
    assert!(sim.injected.iter().all(|inject| inject.token != restored[0].tokens[0]));
    assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (1, 1), "another one goes in its place");
    sim.hang_up(&mut call);
    sim.secs(700);
    sim.assert_numbers();
}

#[test]
fn a_call_that_still_rang_when_the_daemon_was_killed_is_followed_from_its_next_reinvite_on() {
    let mut sim = Sim::new(Action::Refresh);
    sim.expires = UAC_90;
    sim.engine.follow_changes();
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    assert!(sim.restart(&disk, Duration::from_secs(2)).is_empty());
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(60);
    assert_eq!((sim.count(SessionStarted), sim.ours().len()), (0, 0), "its INVITE is not known: nothing is guessed");
    sim.reinvite(&mut call, Side::Server, "", UAC_90);
    assert_eq!(sim.count(SessionStarted), 1);
    sim.secs(100);
    assert_eq!(sim.count(RefreshSucceeded), 2);
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn a_request_that_went_by_unseen_is_waited_for_whatever_the_hour() {
    for unseen in [false, true] {
        let mut sim = Sim::new(Action::Refresh);
        sim.expires = UAC_90;
        let mut call = Call::new("a", Side::Server);
        sim.establish(&mut call, UAC_90, true);
        // It is tried again after the moment at which the session is told to be about to expire.
        sim.replies.push_back(Reply::Status(503, "Retry-After: 12\r\n"));
        sim.secs(50);
        assert_eq!(sim.ours().len(), 1);
        if unseen {
            let number = call.next(Side::Server);
            sim.kernel.server(&call.key(), number);
        }
        sim.secs(10);
        assert_eq!((sim.count(SessionExpiring), sim.ours().len()), (1, if unseen { 1 } else { 2 }));
        sim.secs(6);
        assert_eq!(sim.ours().len(), 2, "its copies, a BYE's say, would have been seen by now");
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn r12_a_peer_that_may_go_on_alone_has_its_chance_to_refresh_and_one_that_does_not_is_refreshed_in_time() {
    for goes_on in [true, false] {
        let mut sim = Sim::new(Action::Refresh);
        sim.expires = UAC_90;
        let mut call = Call::new("a", Side::Server);
        sim.establish(&mut call, UAC_90, true);
        // The server's 2xx says nothing of timers: the peer's is off, or it goes on alone.
        sim.reinvite(&mut call, Side::Peer, "Session-Expires: 90;refresher=uas\r\n", "");
        for _ in 0..5 {
            sim.secs(46);
            assert_eq!(sim.ours().len(), 0, "no role is taken from a peer that refreshes");
            if !goes_on {
                break;
            }
            sim.reinvite(&mut call, Side::Peer, "Session-Expires: 90;refresher=uac\r\n", "");
        }
        sim.secs(6);
        assert_eq!(sim.ours().len(), usize::from(!goes_on), "51 s: a border controller waits for 60");
    }
}

#[test]
fn r20_a_server_that_names_itself_the_refresher_has_its_chance_whatever_it_missed_before() {
    let mut sim = Sim::new(Action::Refresh);
    sim.expires = UAC_90;
    let mut call = Call::new("a", Side::Server);
    sim.establish(&mut call, UAC_90, true);
    sim.secs(46);
    assert_eq!(sim.ours().len(), 1, "it knows nothing of timers");
    sim.reinvite(&mut call, Side::Peer, UAC_90, "Session-Expires: 90;refresher=uas\r\n");
    sim.secs(50);
    assert_eq!(sim.ours().len(), 1, "it has said that it refreshes");
    sim.secs(2);
    assert_eq!(sim.ours().len(), 2);
}

#[test]
fn the_entry_of_a_fork_that_the_peer_has_forgotten_is_left_for_one_that_went_by_unseen() {
    for forked in [true, false] {
        let mut sim = Sim::new(Action::Refresh);
        sim.expires = UAC_90;
        sim.call("a", if forked { Side::Server } else { Side::Peer }, if forked { UAC_90 } else { UAS_90 });
        sim.replies.push_back(Reply::Status(481, ""));
        sim.command(Command::Loss { packets: 1 });
        sim.secs(1_000);
        assert_eq!(sim.reasons(SessionEnded), ["peer_lost_dialog"]);
        assert_eq!(sim.left, [forked]);
    }
}
