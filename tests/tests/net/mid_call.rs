//! A daemon that is started in the middle of a call: it knows nothing of it until the server speaks, and then keeps it alive.

use st_tests::{STATE_DIR, Sipst, agent::Profile};

use crate::plan::{Plan, SOON, config};

/// Long enough for a new daemon and a re-INVITE before the next refresh is due.
const UNHURRIED_S: u32 = 16;

#[test]
fn a_daemon_that_is_started_in_mid_call_takes_over_from_the_servers_next_reinvite() {
    for refreshed_before in [0, 1] {
        let plan = Plan { peer: Profile::strict_peer(UNHURRIED_S, "uac"), ..Plan::default() };
        let (attach, rules) = (plan.attach, plan.rules.clone());
        let mut call = plan.start();
        call.refreshed(refreshed_before);
        // What it has not read would stand in the ring for the next one.
        call.sipst.event("session_started", SOON).unwrap();
        call.sipst.kill().unwrap();
        // As if it had been started on another host, or never before.
        call.lab.server.run("rm", &["-r", STATE_DIR]).unwrap();
        call.sipst = Sipst::start(&call.lab.server, &config(attach, &rules)).unwrap();
        assert_eq!(call.sipst.events(), Vec::<serde_json::Value>::new(), "nothing is known of the call");
        call.server.reinvite();
        assert_eq!(call.server.answered("INVITE", SOON).unwrap(), 200, "{}", call.story());
        let started = call.sipst.event("session_started", SOON).unwrap();
        assert_eq!(started["reason"], "mid_call", "{started}");
        // The server's re-INVITE is one to the peer as well.
        call.refreshed(refreshed_before + 1 + 2);
        call.sipst.event_count("refresh_succeeded", 2, SOON).unwrap();
        call.server_hangs_up();
        assert!(call.peer_answers().iter().all(|status| *status == 200), "{}", call.story());
    }
}
