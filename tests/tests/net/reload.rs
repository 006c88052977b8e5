//! Another configuration under live calls, and what a supervisor hears.

use std::{os::unix::net::UnixDatagram, time::Duration};

use rustix::process::Signal;
use serde_json::Value;
use st_tests::{Host, Lab, Sipst, agent::Profile};

use crate::plan::{Plan, SOON, config};

/// Replaces the daemon's file, as the harness wrote it.
fn rewrite(host: &Host, config: &str) {
    host.file("sipst.yaml", format!("{config}\nstate_dir: /run/state\n")).unwrap();
}

/// `sipst reload`, which takes the file.
fn taken(host: &Host) -> String {
    let (code, printed, said) = Sipst::command(host, &["reload"]).unwrap();
    assert_eq!(code, Some(0), "{printed}\n{said}");
    printed
}

/// `sipst reload`, which does not.
fn refused(host: &Host) -> String {
    let (code, printed, said) = Sipst::command(host, &["reload"]).unwrap();
    assert_eq!(code, Some(1), "{printed}\n{said}");
    said
}

fn attached(host: &Host) -> Vec<String> {
    let (code, printed, said) = Sipst::command(host, &["status", "--json", "--state-dir", "/run/state"]).unwrap();
    assert_eq!(code, Some(0), "{said}");
    let status: Value = serde_json::from_str(&printed).unwrap();
    let mut names: Vec<String> = status["attached"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["interface"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_call_that_was_only_watched_is_refreshed_once_the_trunk_says_so_and_a_bad_file_changes_nothing() {
    let call =
        Plan { rules: vec!["action: alert"], attach: "tc", peer: Profile::strict_peer(20, "uac"), ..Plan::default() }
            .start();
    let host = &call.lab.server;
    let started = call.sipst.event("session_started", SOON).unwrap();
    let id = started["call_id"].as_str().unwrap();
    let show = || Sipst::command(host, &["show", id]).unwrap().1;
    assert!(show().contains("the trunk's `action` is `alert`"), "{}", show());

    rewrite(host, &config("tc", &["action: refesh"]));
    let said = refused(host);
    assert!(said.contains("sipst.yaml:7:13: `action` is `refesh`"), "{said}");
    rewrite(host, &config("xdp", &["action: refresh", "min_se: 2s"]));
    let said = refused(host);
    assert!(said.contains("`attach`") && said.contains("restart"), "{said}");
    rewrite(host, &config("tc", &["action: refresh", "min_se: 2s"]).replace("[eth0]", "[eth0, eth9]"));
    let said = refused(host);
    assert!(said.contains("interface eth9 does not exist"), "{said}");
    assert!(show().contains("the trunk's `action` is `alert`"), "{}", show());

    // The server's port is the first of a range from here on.
    let with_ports = |ports: &str| format!("{}ports: [{ports}]", config("tc", &["action: refresh", "min_se: 2s"]));
    rewrite(host, &with_ports("5060-5069, 5060"));
    let said = refused(host);
    assert!(said.contains("`ports` names 5060 twice"), "{said}");
    rewrite(host, &with_ports("7000, 5060-5069"));
    let said = taken(host);
    assert!(said.contains("trunks") && said.contains("ports: 7000, 5060-5069"), "{said}");
    assert!(show().contains("refreshes the call with UPDATE"), "{}", show());
    assert_eq!(taken(host).trim_end(), "nothing has changed");
    call.refreshed(2);
    call.server_hangs_up();
}

#[test]
fn interfaces_come_and_go_and_one_that_a_refreshed_call_may_depend_on_stays_until_that_is_over() {
    let mut call = Plan { attach: "tc", ..Plan::default() }.start();
    call.refreshed(1);
    let host = &call.lab.server;
    host.run("ip", &["link", "add", "eth7", "type", "veth", "peer", "name", "eth8"]).unwrap();
    host.run("ip", &["link", "set", "eth7", "up"]).unwrap();
    let rules = ["action: refresh", "min_se: 2s"];
    let with = |names: &str| config("tc", &rules).replace("[eth0]", names);

    rewrite(host, &with("[eth0, eth7]"));
    assert!(taken(host).contains("interface eth7: attached"));
    assert_eq!(attached(host), ["eth0", "eth7"]);
    // A refreshed call is up: which way it goes is not asked.
    rewrite(host, &with("[eth0]"));
    assert!(taken(host).contains("interface eth7: nothing new is sent there"));
    assert_eq!(attached(host), ["eth0", "eth7"]);
    rewrite(host, &with("[eth0, eth7]"));
    taken(host);
    rewrite(host, &with("[eth0]"));
    taken(host);
    call.server_hangs_up();
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while attached(host) != ["eth0"] {
        assert!(std::time::Instant::now() < until, "{}", call.story());
        std::thread::sleep(Duration::from_millis(500));
    }
    // By the signal too, and with nothing to wait for.
    rewrite(host, &with("[eth0, eth7]"));
    call.sipst.process().signal(Signal::HUP).unwrap();
    while attached(host) != ["eth0", "eth7"] {
        assert!(std::time::Instant::now() < until + SOON, "{}", call.story());
        std::thread::sleep(Duration::from_millis(100));
    }
    rewrite(host, &with("[eth0]"));
    assert!(taken(host).contains("interface eth7: detached"));
    assert_eq!(attached(host), ["eth0"]);
    assert!(call.sipst.stop().unwrap().success(), "{}", call.story());
}

#[test]
fn a_supervisor_hears_when_it_is_ready_reloads_lives_and_ends() {
    let lab = Lab::new().unwrap();
    let host = &lab.server;
    let supervisor = host.enter(|| UnixDatagram::bind("/run/notify").unwrap());
    supervisor.set_read_timeout(Some(SOON)).unwrap();
    let hear = || {
        let mut bytes = [0; 512];
        let read = supervisor.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..read].to_vec()).unwrap()
    };
    let wait = |wanted: &str| while !hear().starts_with(wanted) {};
    let mut sipst = Sipst::start_supervised(host, &config("auto", &[]), "/run/notify", 200_000).unwrap();
    wait("READY=1");
    wait("WATCHDOG=1");
    wait("WATCHDOG=1");
    sipst.process().signal(Signal::HUP).unwrap();
    wait("RELOADING=1\nMONOTONIC_USEC=");
    wait("READY=1");
    wait("WATCHDOG=1");
    assert!(sipst.stop().unwrap().success(), "{}", sipst.report());
    wait("STOPPING=1");
}
