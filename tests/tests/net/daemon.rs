//! The daemon itself: what it says to bad input, how it ends, what it leaves behind, what happens when it is killed.

use std::process::Command;

use st_tests::{Lab, STATE_DIR, Sipst, binary};

use crate::plan::{Plan, SOON, config};

/// Runs `sipst run` with a configuration that cannot work: exit code and what it said.
fn refused(lab: &Lab, config: &str) -> (Option<i32>, String) {
    lab.server.file("bad.yaml", config).unwrap();
    let (code, _, said) = Sipst::command(&lab.server, &["run", "-c", "/run/bad.yaml"]).unwrap();
    (code, said)
}

#[test]
fn an_interface_that_does_not_exist_is_named_and_so_are_those_that_do() {
    let lab = Lab::new().unwrap();
    let (code, said) = refused(&lab, "interfaces: [nope0]\n");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nope0") && said.contains("eth0"), "{said}");
}

#[test]
fn three_mistakes_in_a_configuration_are_three_messages_with_their_places() {
    let lab = Lab::new().unwrap();
    let (code, said) = refused(&lab, "interfaces: [eth0]\nattach: tcp\nports: [0]\nmax_sesion: 24h\n");
    assert_eq!(code, Some(2), "{said}");
    for (place, word) in [("2:9", "tcp"), ("3:", "0"), ("4:1", "max_sesion")] {
        let found = said.lines().any(|line| line.contains(&format!("bad.yaml:{place}")) && line.contains(word));
        assert!(found, "{place} {word}\n{said}");
    }
}

#[test]
fn without_privilege_the_missing_capabilities_are_named() {
    let lab = Lab::new().unwrap();
    let file = lab.server.file("good.yaml", config("auto", &["action: alert"])).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-all", "--inh-caps", "-all", "--"]).arg(binary().unwrap());
    command.args(["run", "-c"]).arg(file);
    let mut process = lab.server.spawn(command).unwrap();
    let status = process.wait(SOON).unwrap();
    assert_eq!(status.code(), Some(1), "{}", process.said());
    for capability in ["CAP_BPF", "CAP_NET_ADMIN"] {
        assert!(process.said().contains(capability), "{}", process.said());
    }
}

#[test]
fn status_tells_the_version_the_daemons_life_and_the_dialogs_that_depend_on_it() {
    let mut call = Plan::unhurried();
    let host = &call.lab.server;
    let status = || {
        let (code, shown, said) = Sipst::command(host, &["status", "--json"]).unwrap();
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()
    };
    let running = status();
    assert_eq!(running["version"], env!("CARGO_PKG_VERSION"), "{running}");
    assert!(running["daemon_silent_s"].as_f64().unwrap() < 3.0, "{running}");
    assert_eq!(running["rewritten_dialogs"], 1, "{running}");
    assert_eq!(running["attached"].as_array().unwrap().len(), 2, "{running}");
    assert_eq!(running["counters"]["committed"], 1, "{running}");
    let (_, shown, _) = Sipst::command(host, &["status"]).unwrap();
    assert!(shown.contains("daemon    runs") && shown.contains("tc egress"), "{shown}");
    call.sipst.kill().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(4));
    let (_, shown, _) = Sipst::command(host, &["status"]).unwrap();
    assert!(shown.contains("SILENT"), "{shown}");
    Sipst::command(host, &["unload", "--force"]).unwrap();
    let (code, _, said) = Sipst::command(host, &["status"]).unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing is loaded"), "{said}");
}

#[test]
fn sigterm_ends_it_cleanly_and_nothing_stays_attached_or_pinned() {
    let lab = Lab::new().unwrap();
    for attach in ["tc", "xdp"] {
        let mut sipst = Sipst::start(&lab.server, &config(attach, &["action: refresh", "min_se: 2s"])).unwrap();
        assert_ne!(lab.server.list("/sys/fs/bpf/sipst"), [""; 0], "pinned while it runs");
        assert!(sipst.stop().unwrap().success(), "{}", sipst.report());
        assert_eq!(lab.server.list("/sys/fs/bpf/sipst"), [""; 0], "{}", sipst.report());
        let link = lab.server.run("ip", &["-d", "link", "show", "eth0"]).unwrap();
        assert!(!link.contains("xdp"), "{link}");
    }
}

#[test]
fn a_killed_daemon_leaves_the_shift_at_work_and_the_next_one_goes_on() {
    let mut call = Plan::unhurried();
    call.sipst.kill().unwrap();
    call.server.request("INFO");
    assert_eq!(call.server.answered("INFO", SOON).unwrap(), 200, "{}", call.story());
    call.sipst = Sipst::start(&call.lab.server, &config("auto", &["action: refresh", "min_se: 2s"])).unwrap();
    call.server.bye();
    assert_eq!(call.server.answered("BYE", SOON).unwrap(), 200, "{}", call.story());
    call.clean();
    let numbers = ["INFO", "BYE"].map(|method| call.peer.requests(method)[0].cseq().unwrap().number);
    assert_eq!(numbers, [3, 4], "{}", call.story());
}

#[test]
fn a_daemon_that_ends_in_mid_call_leaves_the_shift_at_work_until_it_is_unloaded_by_force() {
    let mut call = Plan::unhurried();
    assert!(call.sipst.stop().unwrap().success(), "{}", call.story());
    let host = &call.lab.server;
    let started = call.sipst.event("session_started", SOON).unwrap();
    let call_id = started["call_id"].as_str().unwrap();
    let (code, _, said) = Sipst::command(host, &["unload", "--state-dir", STATE_DIR]).unwrap();
    assert!(code == Some(1) && said.contains(&format!("They are: {call_id}")), "{said}");
    let (code, _, said) = Sipst::command(host, &["unload", "--state-dir", "/run/nothing"]).unwrap();
    assert!(code == Some(1) && !said.contains(call_id), "{said}");
    call.server.bye();
    assert_eq!(call.server.answered("BYE", SOON).unwrap(), 200, "{}", call.story());
    call.clean();
    let (code, _, said) = Sipst::command(host, &["unload", "--force"]).unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(host.list("/sys/fs/bpf/sipst"), [""; 0], "{said}");
}

#[test]
fn load_shows_what_is_attached_and_unload_takes_it_away() {
    let lab = Lab::new().unwrap();
    let (code, shown, said) = Sipst::command(&lab.server, &["load", "--interface", "eth0"]).unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert!(shown.contains("eth0") && shown.contains("egress"), "{shown}\n{said}");
    let mut sipst = Sipst::start(&lab.server, &config("auto", &["action: alert"])).unwrap();
    assert!(sipst.stop().unwrap().success());
    let (code, _, said) = Sipst::command(&lab.server, &["unload"]).unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(lab.server.list("/sys/fs/bpf/sipst"), [""; 0], "{said}");
}
