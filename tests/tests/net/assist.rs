//! `assist: true`: a peer that makes and takes no call without session timers, and a server that has none, come to a call that sipst
//! keeps alive. What comes of them without it is in `demand`.

use std::{thread, time::Duration};

use st_tests::{
    Family, Lab, Program, Sipst,
    agent::{Agent, Message, Profile, Refusal},
};

use crate::plan::{Call, INTERVAL_S, Plan, SOON, config};

const RULES: [&str; 3] = ["action: refresh", "min_se: 2s", "assist: true"];

/// Longer than the kernel programs go on without a sign of life of the daemon's.
const ASLEEP: Duration = Duration::from_secs(5);

/// Insists on timers. Called, it makes that role the refresher; the other way round it asks for `uas`.
fn demanding(interval_s: u32, refresher: &'static str) -> Profile {
    Profile { demands_timers: true, ..Profile::strict_peer(interval_s, refresher) }
}

fn plan(server_calls: bool, interval_s: u32, refresher: &'static str) -> Plan {
    Plan { server_calls, peer: demanding(interval_s, refresher), rules: RULES.to_vec(), ..Plan::default() }
}

/// The INVITE that began the call, as its caller wrote it, and as it came.
fn invites(call: &Call, server_calls: bool) -> (Message, Message) {
    let (caller, callee) = if server_calls { (&call.server, &call.peer) } else { (&call.peer, &call.server) };
    let sent = caller.sent().into_iter().find(|message| message.method() == Some("INVITE")).unwrap();
    (sent, callee.requests("INVITE").into_iter().next().unwrap())
}

#[test]
fn r03_a_peer_that_insists_on_timers_has_its_call_with_a_server_that_has_none_for_three_intervals() {
    thread::scope(|scope| {
        for (server_calls, refresher, family, attach) in [
            (true, "uac", Family::V4, "tc"),
            (true, "uas", Family::V6, "xdp"),
            (false, "uas", Family::V4, "xdp"),
            (false, "uac", Family::V6, "tc"),
        ] {
            scope.spawn(move || {
                let call = Plan { family, attach, ..plan(server_calls, INTERVAL_S, refresher) }.start();
                call.refreshed(3);
                call.server.request("INFO");
                assert_eq!(call.server.answered("INFO", SOON).unwrap(), 200, "{}", call.story());
                call.refreshed(7);
                let (sent, came) = invites(&call, server_calls);
                assert_eq!(sent.lists("Supported", "timer"), !server_calls, "{sent}");
                assert!(came.lists("Supported", "timer") && !came.lists("Require", "timer"), "{came}");
                let started = call.sipst.event("session_started", SOON).unwrap();
                assert_eq!(started["reason"], "assisted", "{started}");
                for kind in ["negotiation_fault", "refresh_overdue", "refresh_failed", "session_expiring"] {
                    assert_eq!(call.sipst.count(kind), 0, "{}", call.story());
                }
                call.server_hangs_up();
            });
        }
    });
}

/// The same call dies where nothing refreshes it: it is the refreshes that keep it.
#[test]
fn an_assisted_call_dies_without_the_daemon_as_any_other_with_timers() {
    thread::scope(|scope| {
        for (server_calls, refresher) in [(true, "uac"), (false, "uas")] {
            scope.spawn(move || {
                let mut call = Plan { attach: "tc", ..plan(server_calls, INTERVAL_S, refresher) }.start();
                call.sipst.event("session_started", SOON).unwrap();
                call.sipst.kill().unwrap();
                let (by_peer, reason) = call.peer.ended(SOON).unwrap();
                assert!(by_peer && reason.contains("Session timeout"), "{reason}\n{}", call.story());
            });
        }
    });
}

#[test]
fn an_assisted_call_is_kept_by_the_next_daemon() {
    thread::scope(|scope| {
        for (family, attach) in [(Family::V4, "tc"), (Family::V6, "xdp")] {
            scope.spawn(move || {
                let mut call = Plan { family, attach, ..plan(true, 24, "uac") }.start();
                call.refreshed(1);
                call.sipst.event("refresh_succeeded", SOON).unwrap();
                // What it knows is written within a moment.
                thread::sleep(Duration::from_secs(1));
                call.sipst.kill().unwrap();
                call.sipst = Sipst::start(&call.lab.server, &config(attach, &RULES)).unwrap();
                call.refreshed(3);
                call.server_hangs_up();
            });
        }
    });
}

/// Two ends and a daemon, without a call yet.
struct Ends {
    server: Agent,
    peer: Agent,
    sipst: Sipst,
    lab: Lab,
}

impl Ends {
    fn new(family: Family, attach: &str, rules: &[&str], peer: Profile) -> Self {
        let lab = Lab::new().unwrap();
        let sipst = Sipst::start(&lab.server, &config(attach, rules)).unwrap();
        let peer = Agent::start(&lab.peer, (lab.wire.b.ip(family), 5060).into(), peer).unwrap();
        let server = (lab.wire.a.ip(family), 5060).into();
        let server = Agent::start(&lab.server, server, Profile::plain_server()).unwrap();
        Self { server, peer, sipst, lab }
    }

    fn story(&self) -> String {
        format!("{}\n{}\nsipst {}", self.peer, self.server, self.sipst.report())
    }

    /// The status that an INVITE of one end's gets.
    fn calls(&self, caller: &Agent, callee: &Agent) -> u16 {
        caller.call(callee.address());
        caller.answered("INVITE", SOON).unwrap_or_else(|error| panic!("{error:#}\n{}", self.story()))
    }

    /// The INVITE that came last is the one that was written last.
    fn is_untouched(&self, caller: &Agent, callee: &Agent) {
        let sent = caller.sent().into_iter().rfind(|message| message.method() == Some("INVITE")).unwrap();
        let came = callee.requests("INVITE").pop().unwrap();
        assert_eq!(
            (&sent.start, &sent.headers, &sent.body),
            (&came.start, &came.headers, &came.body),
            "{}",
            self.story()
        );
    }
}

#[test]
fn r07_one_422_to_an_assisted_invite_ends_that_and_the_next_call_is_as_it_was() {
    thread::scope(|scope| {
        for (family, attach, rules, told) in
            [(Family::V4, "tc", &RULES[..], 1), (Family::V6, "xdp", &RULES[..], 1), (Family::V4, "tc", &RULES[..2], 0)]
        {
            scope.spawn(move || {
                let declines = vec![Refusal::new(422).with("Min-SE", "1800")];
                let ends = Ends::new(family, attach, rules, Profile { declines, ..Profile::strict_peer(600, "uac") });
                assert_eq!(ends.calls(&ends.server, &ends.peer), 422);
                assert_eq!(ends.peer.requests("INVITE")[0].lists("Supported", "timer"), told == 1, "{}", ends.story());
                if told == 1 {
                    let event = ends.sipst.event("negotiation_fault", SOON).unwrap();
                    assert!(event["reason"].as_str().unwrap().starts_with("assist_off: 422 to an INVITE"), "{event}");
                    // It is told before it is done.
                    thread::sleep(Duration::from_secs(1));
                }
                assert_eq!(ends.calls(&ends.server, &ends.peer), 200);
                ends.is_untouched(&ends.server, &ends.peer);
                assert_eq!(ends.sipst.count("negotiation_fault"), told, "{}", ends.story());
            });
        }
    });
}

#[test]
fn without_a_daemon_that_lives_nothing_is_changed_and_with_a_new_one_it_is_again() {
    thread::scope(|scope| {
        for (family, attach) in [(Family::V4, "xdp"), (Family::V6, "tc")] {
            scope.spawn(move || {
                let mut ends = Ends::new(family, attach, &RULES, demanding(600, "uas"));
                ends.sipst.kill().unwrap();
                thread::sleep(ASLEEP);
                assert_eq!(ends.calls(&ends.server, &ends.peer), 421, "{}", ends.story());
                ends.is_untouched(&ends.server, &ends.peer);
                assert_eq!(ends.calls(&ends.peer, &ends.server), 420, "{}", ends.story());
                ends.is_untouched(&ends.peer, &ends.server);
                ends.sipst = Sipst::start(&ends.lab.server, &config(attach, &RULES)).unwrap();
                assert_eq!(ends.calls(&ends.server, &ends.peer), 200, "{}", ends.story());
                ends.peer.established(SOON).unwrap();
                ends.server.bye();
                assert_eq!(ends.server.answered("BYE", SOON).unwrap(), 200, "{}", ends.story());
                assert_eq!(ends.calls(&ends.peer, &ends.server), 200, "{}", ends.story());
            });
        }
    });
}

#[test]
fn where_a_trunk_is_observed_or_does_not_ask_for_it_every_invite_is_byte_for_byte_what_it_was() {
    thread::scope(|scope| {
        for (family, rules) in [(Family::V4, &["action: observe"][..]), (Family::V6, &RULES[..2])] {
            scope.spawn(move || {
                let ends = Ends::new(family, "tc", rules, demanding(600, "uas"));
                assert_eq!(ends.calls(&ends.server, &ends.peer), 421, "{}", ends.story());
                ends.is_untouched(&ends.server, &ends.peer);
                assert_eq!(ends.calls(&ends.peer, &ends.server), 420, "{}", ends.story());
                ends.is_untouched(&ends.peer, &ends.server);
            });
        }
    });
}

#[test]
fn an_invite_that_would_not_fit_the_mtu_leaves_as_it_was_and_that_is_told() {
    let ends = Ends::new(Family::V4, "tc", &RULES, demanding(600, "uac"));
    assert_eq!(ends.calls(&ends.server, &ends.peer), 200, "{}", ends.story());
    ends.peer.established(SOON).unwrap();
    ends.server.bye();
    assert_eq!(ends.server.answered("BYE", SOON).unwrap(), 200, "{}", ends.story());
    let invite = ends.server.sent().into_iter().find(|message| message.method() == Some("INVITE")).unwrap();
    // IP and UDP, and a little; a line more does not fit.
    let mtu = (invite.to_bytes(": ").len() + 28 + 8).to_string();
    ends.lab.server.run("ip", &["link", "set", "eth0", "mtu", &mtu]).unwrap();
    assert_eq!(ends.calls(&ends.server, &ends.peer), 421, "{}", ends.story());
    ends.is_untouched(&ends.server, &ends.peer);
    let event = ends.sipst.event("negotiation_fault", SOON).unwrap();
    let reason = event["reason"].as_str().unwrap();
    assert!(reason.starts_with("timer_demanded") && reason.ends_with("let the INVITE be: it is too long"), "{event}");
}

/// Three intervals of real software's, and a little.
const HOLD: Duration = Duration::from_secs(3 * INTERVAL_S as u64 + 2);

/// A lab with a daemon and a strict peer in it, at which real software is to call or to be called.
fn strict(assisted: bool, refresher: &'static str) -> (Agent, Sipst, Lab) {
    let lab = Lab::new().unwrap();
    let rules = if assisted { &RULES[..] } else { &RULES[..2] };
    let sipst = Sipst::start(&lab.server, &config("tc", rules)).unwrap();
    let peer = Agent::start(&lab.peer, (lab.wire.b.v4, 5060).into(), demanding(INTERVAL_S, refresher)).unwrap();
    (peer, sipst, lab)
}

/// The call has come to its end by the server's BYE, refreshed by sipst and with nothing odd at the peer.
fn was_kept(peer: &Agent, sipst: &Sipst) {
    let (by_peer, reason) = peer.ended(SOON).unwrap();
    assert!(!by_peer && peer.refreshes().len() >= 3, "{reason}\n{peer}\n{}", sipst.report());
    peer.faultless().unwrap();
    assert_eq!(sipst.count("negotiation_fault"), 0, "{}", sipst.report());
}

#[test]
fn a_baresip_that_calls_a_peer_which_insists_on_timers_has_its_call_with_assist_alone() {
    thread::scope(|scope| {
        for assisted in [true, false] {
            scope.spawn(move || {
                let (peer, sipst, lab) = strict(assisted, "uac");
                let callee = format!("sip:peer@{}", lab.wire.b.v4);
                let baresip = Program::baresip(&lab.server, lab.wire.a.v4, Some(&callee)).unwrap();
                if assisted {
                    peer.established(SOON).unwrap_or_else(|error| panic!("{error:#}\n{}", baresip.log()));
                    thread::sleep(HOLD);
                    baresip.terminate().unwrap();
                    was_kept(&peer, &sipst);
                } else {
                    baresip.logs(&["421"], SOON).unwrap();
                    sipst.event("negotiation_fault", SOON).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_net_sip_that_calls_a_peer_which_insists_on_timers_has_its_call() {
    let (peer, sipst, lab) = strict(true, "uac");
    let callee = format!("sip:peer@{}:5060", lab.wire.b.v4);
    let mut server = Program::net_sip(&lab.server, lab.wire.a.v4, &callee, HOLD).unwrap();
    server.succeeds(SOON + HOLD).unwrap_or_else(|error| panic!("{error:#}\n{peer}\n{}", sipst.report()));
    was_kept(&peer, &sipst);
}

/// The call goes on, over loopback, to an end that knows nothing of timers.
#[test]
fn a_sippy_that_is_called_by_a_peer_which_insists_on_timers_reads_what_its_invite_becomes() {
    let (peer, sipst, lab) = strict(true, "uas");
    let own = lab.wire.a.v4;
    let behind = Agent::start(&lab.server, (own, 5070).into(), Profile::plain_server()).unwrap();
    let sippy = Program::sippy(&lab.server, own, (own, 5070).into(), &["supported", "require"]).unwrap();
    peer.call((own, 5060).into());
    peer.established(SOON).unwrap_or_else(|error| panic!("{error:#}\n{peer}\n{}", sippy.log()));
    let came = behind.requests("INVITE").remove(0);
    assert!(came.lists("Supported", "timer") && came.header("Require").is_none(), "{:?}", came.headers);
    thread::sleep(HOLD);
    behind.bye();
    was_kept(&peer, &sipst);
}
