//! What the daemon may do once it reads, as the kernel tells it, and that this is enough for all that it does.

use std::{collections::BTreeMap, time::Instant};

use st_tests::{Host, Lab, Sipst};

use crate::plan::{Plan, SOON, config};

/// Bits of capabilities (linux/capability.h).
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
/// What `config/sipst.service` grants.
const FOUR: u64 = BPF | NET_ADMIN | NET_RAW | PERFMON;

/// What `/proc/PID/task/TID/status` says of a thread.
#[derive(Debug, PartialEq)]
struct Held {
    permitted: u64,
    effective: u64,
    inheritable: u64,
    bounding: u64,
    ambient: u64,
    no_new_privs: u64,
}

impl Held {
    fn read(status: &str) -> Self {
        let word = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
            u64::from_str_radix(value.trim(), 16).unwrap()
        };
        Self {
            permitted: word("CapPrm"),
            effective: word("CapEff"),
            inheritable: word("CapInh"),
            bounding: word("CapBnd"),
            ambient: word("CapAmb"),
            no_new_privs: word("NoNewPrivs"),
        }
    }
}

/// The threads that a daemon with a webhook has.
const THREADS: [&str; 8] =
    ["sipst", "output", "alerts", "webhook", "metrics", "sipst-watch", "store", "tracing-appende"];

/// Names and states of the daemon's threads, once they all have their names.
fn threads(host: &Host, id: u32) -> BTreeMap<String, String> {
    let tasks = format!("/proc/{id}/task");
    let until = Instant::now() + SOON;
    loop {
        let read = |thread| Some(String::from_utf8(host.read(format!("{tasks}/{thread}/status")).ok()?).unwrap());
        let name = |status: &str| status.lines().find_map(|line| line.strip_prefix("Name:\t")).unwrap().to_owned();
        let found = host.list(&tasks).into_iter().filter_map(read).map(|status| (name(&status), status));
        let found: BTreeMap<_, _> = found.collect();
        if found.keys().all(|name| THREADS.contains(&name.as_str())) && found.len() == THREADS.len() {
            return found;
        }
        assert!(Instant::now() < until, "{:?}", found.keys());
    }
}

/// Asserts what every thread of the daemon holds: the main one `kept`, the others nothing.
fn assert_held(host: &Host, sipst: &mut Sipst, kept: u64, bounding: u64) {
    for (name, status) in threads(host, sipst.process().id()) {
        let kept = if name == "sipst" { kept } else { 0 };
        let wanted = Held { permitted: kept, effective: kept, inheritable: 0, bounding, ambient: 0, no_new_privs: 1 };
        assert_eq!(Held::read(&status), wanted, "{name}");
    }
}

/// Whether links hold the programs, which came with Linux 6.6: what the daemon keeps besides.
fn kept() -> u64 {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= (6, 6) { NET_RAW } else { NET_RAW | NET_ADMIN }
}

const WEBHOOK: &str = "alerts:\n  - webhook: { url: \"http://127.0.0.1:9/\" }\n";

#[test]
fn root_gives_up_all_but_what_a_running_daemon_needs() {
    let lab = Lab::new().unwrap();
    let mut sipst =
        Sipst::start(&lab.server, &format!("{}{WEBHOOK}", config("auto", &["action: refresh", "min_se: 2s"]))).unwrap();
    assert_held(&lab.server, &mut sipst, kept(), 0);
    assert!(sipst.stop().unwrap().success(), "{}", sipst.report());
    assert_eq!(lab.server.list("/sys/fs/bpf/sipst"), [""; 0], "{}", sipst.report());
}

#[test]
fn four_capabilities_do_for_a_call_that_is_refreshed_and_ended_and_most_of_them_are_given_up() {
    let mut call = Plan::default().start_by(|host, config| {
        host.run("install", &["-d", "-m", "0700", "/sys/fs/bpf/sipst"]).unwrap();
        Sipst::start_with_four_capabilities(host, &format!("{config}{WEBHOOK}")).unwrap()
    });
    // Without CAP_SETPCAP the bounding set stays as it was given.
    assert_held(&call.lab.server, &mut call.sipst, kept(), FOUR);
    call.refreshed(2);
    call.server_hangs_up();
}

#[test]
fn a_user_who_is_not_root_does_with_four_capabilities_and_a_pin_directory() {
    let mut call =
        Plan::default().start_by(|host, config| Sipst::start_as_nobody(host, &format!("{config}{WEBHOOK}")).unwrap());
    assert_held(&call.lab.server, &mut call.sipst, kept(), FOUR);
    call.refreshed(1);
    call.server_hangs_up();
    assert!(call.sipst.stop().unwrap().success(), "{}", call.story());
    assert_eq!(call.lab.server.list("/sys/fs/bpf/sipst"), [""; 0], "{}", call.story());
}
