//! The daemon is killed in the middle of calls, and another one goes on from the state directory; and what becomes of calls
//! where there is none that can be used.

use std::{thread, time::Duration};

use st_tests::{
    Host, STATE_DIR, Sipst,
    agent::{Profile, Timer},
};

use crate::plan::{Call, Plan, SOON, config};

/// Longer than what has changed waits to be written.
const WRITTEN: Duration = Duration::from_secs(1);

/// Half of it is longer than a daemon takes to be there on a machine that builds something beside.
const PATIENT_S: u32 = 30;

/// A call of such an interval.
fn patient(peer_calls: bool) -> Plan {
    let role = if peer_calls { "uas" } else { "uac" };
    let plan = if peer_calls { Plan::peer_calls() } else { Plan::default() };
    let timer = plan.server.timer.map(|timer| Timer { interval_s: PATIENT_S, ..timer });
    Plan { peer: Profile::strict_peer(PATIENT_S, role), server: Profile { timer, ..plan.server.clone() }, ..plan }
}

fn start_again(call: &mut Call) {
    call.sipst = Sipst::start(&call.lab.server, &config("auto", &["action: refresh", "min_se: 2s"])).unwrap();
}

#[test]
fn a_daemon_that_is_killed_again_and_again_keeps_a_call_alive() {
    thread::scope(|scope| {
        for peer_calls in [false, true] {
            scope.spawn(move || {
                let mut call = patient(peer_calls).start();
                for refreshed in [1, 2, 3] {
                    thread::sleep(WRITTEN);
                    call.sipst.kill().unwrap();
                    start_again(&mut call);
                    call.refreshed(refreshed);
                    call.sipst.event("refresh_succeeded", SOON).unwrap();
                    assert_eq!(call.sipst.count("session_started"), 0, "it is known: {}", call.story());
                }
                thread::sleep(WRITTEN);
                call.sipst.kill().unwrap();
                start_again(&mut call);
                call.server_hangs_up();
                assert!(call.peer_answers().iter().all(|status| *status == 200), "{}", call.story());
            });
        }
    });
}

#[test]
fn a_daemon_that_ends_well_leaves_the_call_to_the_next_one() {
    let mut call = patient(false).start();
    call.refreshed(1);
    call.sipst.event("refresh_succeeded", SOON).unwrap();
    assert!(call.sipst.stop().unwrap().success());
    start_again(&mut call);
    call.refreshed(3);
    assert_eq!(call.sipst.count("session_started"), 0, "{}", call.story());
    call.server_hangs_up();
}

#[test]
fn a_call_that_ended_while_no_daemon_was_there_ends_for_the_next_one() {
    let mut call = Plan::default().start();
    call.refreshed(1);
    call.sipst.event("refresh_succeeded", SOON).unwrap();
    thread::sleep(WRITTEN);
    call.sipst.kill().unwrap();
    call.server.bye();
    assert_eq!(call.server.answered("BYE", SOON).unwrap(), 200, "{}", call.story());
    start_again(&mut call);
    let ended = call.sipst.event("session_ended", SOON).unwrap();
    assert_eq!(ended["by"], "server", "{ended}");
    assert!(ended["reason"].as_str().unwrap().starts_with("bye"), "{ended}");
    call.clean();
}

#[test]
fn after_a_restart_of_the_host_the_calls_before_are_told_to_be_over_and_nothing_is_sent() {
    let mut call = Plan::unhurried();
    call.sipst.event("refresh_succeeded", SOON).unwrap();
    thread::sleep(WRITTEN);
    call.sipst.kill().unwrap();
    let host = &call.lab.server;
    let (code, _, said) = Sipst::command(host, &["unload", "--force"]).unwrap();
    assert_eq!(code, Some(0), "{said}");
    let boot = host.file("boot", "another boot\n").unwrap();
    host.run("mount", &["--bind", &boot.to_string_lossy(), "/proc/sys/kernel/random/boot_id"]).unwrap();
    start_again(&mut call);
    let ended = call.sipst.event("session_ended", SOON).unwrap();
    assert_eq!(ended["reason"], "host_restarted", "{ended}");
    thread::sleep(WRITTEN);
    assert_eq!(call.peer_answers(), [200, 200], "the INVITE and one refresh: {}", call.story());
}

/// What stands in the way of a state directory, and what is told of it.
type Trouble = (&'static str, fn(&Host), &'static str);

fn small(host: &Host) {
    host.run("mkdir", &["-p", STATE_DIR]).unwrap();
    host.run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", STATE_DIR]).unwrap();
}

const TROUBLES: [Trouble; 4] = [
    ("a full disk", small, "state_unusable"),
    (
        "a read-only disk",
        |host| {
            small(host);
            host.run("mount", &["-o", "remount,ro", STATE_DIR]).unwrap();
        },
        "state_unusable",
    ),
    ("no directory", |host| drop(host.file("state", "a file where the directory would be").unwrap()), "state_unusable"),
    (
        "a file that is no state",
        |host| {
            host.run("mkdir", &["-p", STATE_DIR]).unwrap();
            host.file("state/sessions.redb", vec![0x55; 100_000]).unwrap();
        },
        "state_set_aside",
    ),
];

#[test]
fn without_a_state_directory_that_can_be_used_calls_go_on_and_an_alert_says_so() {
    thread::scope(|scope| {
        for (name, make, told) in TROUBLES {
            scope.spawn(move || {
                let call = Plan::default().start_by(|host, config| {
                    make(host);
                    Sipst::start(host, config).unwrap()
                });
                let event = call.sipst.event("state_not_kept", SOON).unwrap();
                assert!(event["reason"].as_str().unwrap().starts_with(told), "{name}: {event}");
                call.refreshed(2);
                call.server_hangs_up();
                assert_eq!(call.sipst.count("state_not_kept"), 1, "{name}: told once");
                let (_, shown, _) = Sipst::command(&call.lab.server, &["status", "--state-dir", STATE_DIR]).unwrap();
                assert_eq!(shown.contains("NOT KEPT"), told == "state_unusable", "{name}: {shown}");
                assert_eq!(shown.contains("put aside"), told == "state_set_aside", "{name}: {shown}");
            });
        }
    });
}
