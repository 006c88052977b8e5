//! `sipst top` on a terminal, over a daemon and a call.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use st_tests::{Screen, Sipst};

use crate::plan::{Call, Plan, SOON, config};

fn call_id(call: &Call) -> String {
    let started = call.sipst.event("session_started", SOON).unwrap();
    started["call_id"].as_str().unwrap().to_owned()
}

/// What is left of the call, in seconds, as the screen has it.
fn left(shown: &str, call_id: &str) -> Option<i64> {
    let row = shown.lines().find(|line| line.starts_with('▶') && line.contains(call_id))?;
    row.trim_start_matches('▶').split_whitespace().next()?.strip_suffix('s')?.parse().ok()
}

/// The shell has its terminal back as it was.
fn restored(screen: &Screen<'_>) {
    screen.line("stty -a").unwrap();
    screen.wait_for("icanon", SOON).unwrap();
    let shown = screen.shows().unwrap();
    assert!(!screen.is_taken().unwrap() && shown.contains(" echo ") && !shown.contains("-icanon"), "{shown}");
    assert!(shown.contains("this was here before") && !shown.contains("by deadline"), "{shown}");
}

#[test]
fn a_call_is_seen_to_run_down_through_everything_that_keys_do_and_the_terminal_is_given_back() {
    let mut call = Plan::unhurried();
    let id = call_id(&call);
    let short = id.as_str();
    let host = &call.lab.server;
    let program = st_tests::binary().unwrap().display().to_string();
    let screen = Screen::start(host, 80, 24).unwrap();
    screen.line("PS1=; echo this was here before").unwrap();
    screen.line(&format!("{program} top")).unwrap();
    let first = screen.wait("call that runs down", SOON, |shown| left(shown, short)).unwrap();
    assert!(screen.is_taken().unwrap());
    assert!((1..=27).contains(&first), "{first}");
    screen.wait("time that goes on", SOON, |shown| left(shown, short).filter(|left| *left < first.min(16))).unwrap();
    screen.wait("refresh, and the time anew", SOON * 2, |shown| left(shown, short).filter(|left| *left > 20)).unwrap();
    let colours = screen.shows_colours().unwrap();
    assert!(colours.contains("38;5;2m") && colours.contains("running"), "{colours}");

    screen.key("Enter").unwrap();
    screen.wait_for("40 s: the server must refresh by", SOON).unwrap();
    screen.wait_for("refresh_succeeded", SOON).unwrap();
    screen.key("Enter").unwrap();
    screen
        .wait("whole call", SOON, |shown| {
            (shown.contains("session_started") && left(shown, short).is_none()).then_some(())
        })
        .unwrap();
    screen.resize(120, 40).unwrap();
    screen.wait_for(&format!("call {id}"), SOON).unwrap();
    screen.resize(80, 24).unwrap();
    screen.key("Enter").unwrap();
    screen.wait("list", SOON, |shown| left(shown, short)).unwrap();

    screen.text("/carrier nobody").unwrap();
    screen.wait_for("no call has \"carrier nobody\"", SOON).unwrap();
    screen.key("C-u").unwrap();
    screen.line(&format!("RUNNING {}", short.to_uppercase())).unwrap();
    screen.wait("filtered call", SOON, |shown| left(shown, short)).unwrap();
    screen.key("Escape").unwrap();
    screen.wait("end of the filter", SOON, |shown| (!shown.contains("only \"")).then_some(())).unwrap();

    screen.text("p").unwrap();
    screen.wait_for("PAUSED", SOON).unwrap();
    let paused = screen.wait("call", SOON, |shown| left(shown, short)).unwrap();
    call.refreshed(3);
    assert_eq!(left(&screen.shows().unwrap(), short), Some(paused));
    screen.text("p").unwrap();
    screen.wait("moving call", SOON, |shown| left(shown, short).filter(|left| *left != paused)).unwrap();

    call.sipst.kill().unwrap();
    screen.wait_for("NO ANSWER", SOON).unwrap();
    call.sipst = Sipst::start(host, &config("tc", &["action: refresh", "min_se: 2s"])).unwrap();
    screen.wait_for("sipst was restarted", SOON).unwrap();
    screen.wait("call of before", SOON, |shown| left(shown, short)).unwrap();

    screen.text("q").unwrap();
    screen.wait_for("this was here before", SOON).unwrap();
    restored(&screen);

    // A signal ends it as it ends others, and leaves no less behind.
    screen
        .line(&format!("clear; echo this was here before; sh -c 'echo $$ >/run/top; exec {program} top --no-color'"))
        .unwrap();
    screen.wait("call", SOON, |shown| left(shown, short)).unwrap();
    let plain = screen.shows_colours().unwrap();
    assert!(!plain.contains("38;5") && plain.contains("running"), "{plain}");
    let pid = String::from_utf8(host.read("/run/top").unwrap()).unwrap();
    host.run("kill", &["-TERM", pid.trim()]).unwrap();
    // What is typed before it has gone would go with it.
    screen.wait_for("this was here before", SOON).unwrap();
    screen.line("echo code $?").unwrap();
    screen.wait_for("code 143", SOON).unwrap();
    restored(&screen);

    // So does a terminal that goes away.
    screen.line(&format!("clear; exec sh -c 'echo $$ >/run/top; trap \"\" HUP; exec {program} top'")).unwrap();
    screen.wait("call", SOON, |shown| left(shown, short)).unwrap();
    let pid = String::from_utf8(host.read("/run/top").unwrap()).unwrap();
    host.run("kill", &["-0", pid.trim()]).unwrap();
    drop(screen);
    let until = Instant::now() + SOON;
    while host.run("kill", &["-0", pid.trim()]).is_ok() {
        assert!(Instant::now() < until, "it goes on without a terminal");
        sleep(Duration::from_millis(50));
    }
    call.server_hangs_up();
}

#[test]
fn without_a_terminal_a_daemon_or_the_group_it_says_so_and_one_frame_needs_no_terminal() {
    let mut call = Plan::unhurried();
    let host = &call.lab.server;
    let id = call_id(&call);
    let top = |args: &[&str]| Sipst::command(host, &[&["top"], args].concat()).unwrap();
    let (code, printed, said) = top(&[]);
    assert_eq!((code, printed.as_str()), (Some(2), ""), "{said}");
    assert!(said.contains("no terminal") && said.contains("--once"), "{said}");
    let (code, frame, said) = top(&["--once", "--ascii"]);
    assert_eq!((code, frame.lines().count()), (Some(0), 24), "{said}");
    assert!(frame.is_ascii() && frame.lines().all(|line| line.len() <= 80), "{frame}");
    assert!(frame.contains("1 call: 1 running") && frame.contains(&id), "{frame}");
    let (_, frame, _) = top(&["--once", "--filter", "nobody"]);
    assert!(frame.contains("no call has \"nobody\""), "{frame}");
    let (code, _, said) = Sipst::command_as(host, "65534", "2", &["top", "--once"]).unwrap();
    assert!(code == Some(1) && said.contains("may not be used by you"), "{said}");
    call.server_hangs_up();
    assert!(call.sipst.stop().unwrap().success());
    let (code, _, said) = Sipst::command(&call.lab.server, &["top", "--once"]).unwrap();
    assert!(code == Some(1) && said.contains("no sipst runs here"), "{said}");
}
