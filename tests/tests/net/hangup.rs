//! A call that has expired, that nobody is in any more and whose media have stopped is hung up on both sides (`on_expired: bye`).

use std::time::Duration;

use st_tests::{
    Family, Sipst,
    agent::{Enforce, Profile, Update},
};

use crate::{
    media::Rtp,
    plan::{Call, Plan, SOON, config},
};

const RULES: [&str; 3] = ["action: refresh", "min_se: 2s", "on_expired: bye"];

/// No RTP for 60 s, and what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(75);

/// A peer that makes itself the refresher of a session of 4 s, does not refresh it and hangs up on nobody.
fn sleepy(family: Family, attach: &'static str, on_expired: &'static str) -> Call {
    let peer = Profile { enforce: Enforce::No, update: Update::Unknown, ..Profile::strict_peer(4, "uas") };
    Plan { family, attach, peer, rules: vec![RULES[0], RULES[1], on_expired], ..Plan::default() }.start()
}

/// RTP both ways for long enough to be seen.
fn talks(call: &Call) {
    let rtp = Rtp::both_ways(call);
    std::thread::sleep(Duration::from_secs(4));
    drop(rtp);
}

/// Both ends have had one BYE, and neither anything odd.
fn is_hung_up(call: &Call) {
    for (agent, other) in [(&call.server, &call.peer), (&call.peer, &call.server)] {
        let (by_itself, reason) = agent.ended(PATIENCE).unwrap_or_else(|error| panic!("{error:#}\n{}", call.story()));
        assert!(!by_itself && reason == "SIP;cause=408;text=\"Session timeout\"", "{reason}\n{}", call.story());
        assert_eq!(agent.requests("BYE").len(), 1, "{}", call.story());
        assert!(other.sent().iter().all(|message| message.method() != Some("BYE")), "{}", call.story());
    }
    call.clean();
    for datagram in call.tap.datagrams().unwrap() {
        assert!(!String::from_utf8_lossy(&datagram.payload).contains("z9hG4bKsipsp"), "{}", call.story());
    }
}

#[test]
fn a_call_that_nobody_is_in_any_more_is_hung_up_on_both_sides_and_one_whose_media_flow_is_not() {
    std::thread::scope(|scope| {
        for (attach, family) in [("tc", Family::V4), ("xdp", Family::V4), ("tc", Family::V6), ("xdp", Family::V6)] {
            scope.spawn(move || {
                let call = sleepy(family, attach, RULES[2]);
                talks(&call);
                is_hung_up(&call);
                let ended = call.sipst.event("session_ended", SOON).unwrap();
                assert_eq!((&ended["by"], &ended["reason"]), (&"sipst".into(), &"expired".into()), "{ended}");
                assert_eq!((call.sipst.count("bye_sent"), call.sipst.count("bye_failed")), (2, 0), "{}", call.story());
            });
        }
        scope.spawn(|| {
            let call = sleepy(Family::V4, "tc", "on_expired: alert");
            talks(&call);
            call.sipst.event("session_expired", SOON).unwrap();
            std::thread::sleep(PATIENCE);
            assert!(!call.server.is_over() && !call.peer.is_over(), "{}", call.story());
            call.server_hangs_up();
        });
        scope.spawn(|| {
            let call = sleepy(Family::V6, "xdp", RULES[2]);
            // The peer's alone.
            let rtp = Rtp::of_peer(&call);
            talks(&call);
            let flowing = call.sipst.event("expired_media_flowing", PATIENCE).unwrap();
            assert_eq!(flowing["refresher"], "peer", "{flowing}");
            std::thread::sleep(PATIENCE / 2);
            assert!(!call.server.is_over() && !call.peer.is_over(), "{}", call.story());
            drop(rtp);
            call.server_hangs_up();
        });
    });
}

#[test]
fn a_daemon_that_is_killed_hangs_up_nobody_and_a_new_one_sees_the_silence_itself() {
    std::thread::scope(|scope| {
        for (attach, family) in [("tc", Family::V4), ("xdp", Family::V6)] {
            scope.spawn(move || {
                let mut call = sleepy(family, attach, RULES[2]);
                talks(&call);
                // By then it is written that the media were seen both ways.
                call.sipst.event("session_expired", SOON).unwrap();
                std::thread::sleep(Duration::from_secs(1));
                call.sipst.kill().unwrap();
                std::thread::sleep(Duration::from_secs(5));
                let begun = std::time::Instant::now();
                call.sipst = Sipst::start(&call.lab.server, &config(attach, &RULES)).unwrap();
                is_hung_up(&call);
                // Behind the last moment that anybody could have been there is the new daemon's own minute.
                assert!(begun.elapsed() >= Duration::from_secs(60), "{}", call.story());
                assert_eq!(call.sipst.event("session_ended", SOON).unwrap()["reason"], "expired", "{}", call.story());
            });
        }
    });
}
