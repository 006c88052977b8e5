//! A server in a container: its own network namespace, a bridge, and address translation between that and the peer. What sipst needs
//! to know of it is where it is; what it does it does from within.

use std::time::{Duration, Instant};

use serde_json::Value;
use st_tests::{
    Family, Host, Sipst, Wire,
    agent::{Agent, Profile},
};

use crate::plan::{SOON, config};

/// A strict peer's: a third of it is time enough.
const INTERVAL_S: u32 = 6;

const RULES: [&str; 2] = ["action: refresh", "min_se: 2s"];

/// The host, what is outside, and the wire between them; containers are plugged into a bridge.
struct Site {
    host: Host,
    peer: Host,
    outer: Wire,
    /// How many containers there were.
    plugged: u8,
}

impl Site {
    fn new() -> Self {
        let (host, peer) = (Host::new("host").unwrap(), Host::new("peer").unwrap());
        let outer = Wire::between(&host, &peer).unwrap();
        let run = |program: &str, arguments: &str| {
            host.run(program, &arguments.split(' ').collect::<Vec<_>>()).unwrap();
        };
        // An address of its own, as runtimes give it: else it has its lowest port's, and another one when a container is gone.
        run("ip", "link add br0 address 02:00:00:00:00:01 type bridge");
        run("ip", "address add 10.200.0.1/24 dev br0");
        run("ip", "link set br0 up");
        run("sysctl", "-qw net.ipv4.ip_forward=1");
        run("nft", "add table ip nat");
        run("nft", "add chain ip nat out { type nat hook postrouting priority srcnat ; }");
        run("nft", "add rule ip nat out ip saddr 10.200.0.0/24 oifname eth0 masquerade");
        Self { host, peer, outer, plugged: 0 }
    }

    /// A container, whose namespace `/run/sip` stands for from now on.
    fn container(&mut self) -> Host {
        let container = Host::new("container").unwrap();
        self.plugged += 1;
        let wire = Wire::between(&self.host, &container).unwrap();
        let port = wire.a.interface.as_str();
        let host = |program: &str, arguments: &str| {
            self.host.run(program, &arguments.split(' ').collect::<Vec<_>>()).unwrap();
        };
        host("ip", &format!("address flush dev {port}"));
        host("ip", &format!("link set {port} master br0"));
        for arguments in [
            "address flush dev eth0".to_owned(),
            format!("address add 10.200.0.{}/24 dev eth0", self.plugged + 1),
            "route add default via 10.200.0.1".to_owned(),
        ] {
            container.run("ip", &arguments.split(' ').collect::<Vec<_>>()).unwrap();
        }
        if self.plugged > 1 {
            host("umount", "-l /run/sip");
        }
        host("touch", "/run/sip");
        host("mount", &format!("--bind /proc/{}/ns/net /run/sip", container.tid()));
        container
    }

    /// A call of the container's server, up.
    fn call(&self, container: &Host, interval_s: u32) -> (Agent, Agent) {
        let address = (self.outer.b.ip(Family::V4), 5060).into();
        let peer = Agent::start(&self.peer, address, Profile::strict_peer(interval_s, "uac")).unwrap();
        let own = format!("10.200.0.{}:5060", self.plugged + 1).parse().unwrap();
        let server = Agent::start(container, own, Profile::plain_server()).unwrap();
        server.call(peer.address());
        server.established(SOON).unwrap();
        peer.established(SOON).unwrap();
        (server, peer)
    }
}

fn hangs_up(server: &Agent, peer: &Agent, sipst: &Sipst) {
    server.bye();
    let status = server.answered("BYE", SOON);
    assert!(matches!(status, Ok(200)), "{status:?}\n{peer}\n{server}\n{}", sipst.report());
    assert!(peer.faults().is_empty() && server.faults().is_empty(), "{peer}\n{server}\n{}", sipst.report());
}

/// What `sipst status` says is attached: `NAMESPACE/INTERFACE hook`.
fn attached(host: &Host) -> Vec<String> {
    let (code, printed, said) = Sipst::command(host, &["status", "--json", "--state-dir", "/run/state"]).unwrap();
    assert_eq!(code, Some(0), "{said}");
    let status: Value = serde_json::from_str(&printed).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = status["attached"].as_array().unwrap().iter().filter(|one| one["gone"] == false);
    all.map(|one| format!("{}/{} {}", text(&one["namespace"]), text(&one["interface"]), text(&one["hook"]))).collect()
}

#[test]
fn a_call_from_a_container_behind_a_bridge_and_nat_is_kept_up_from_within_and_so_is_one_after_it_was_started_again() {
    let mut site = Site::new();
    let container = site.container();
    let config = format!("{}namespaces:\n  - name: sip\n    netns: /run/sip\n", config("auto", &RULES));
    let mut sipst = Sipst::start(&site.host, &config).unwrap();
    let both = ["sip/eth0 tc_egress", "sip/eth0 tc_ingress"];
    assert_eq!(attached(&site.host), both);
    let (server, peer) = site.call(&container, INTERVAL_S);
    let interval = Duration::from_secs(INTERVAL_S.into());
    assert!(peer.refreshed(6, SOON + interval * 4).is_ok(), "{peer}\n{server}\n{}", sipst.report());
    hangs_up(&server, &peer, &sipst);
    drop((server, peer));

    // Started again: the same name, another namespace.
    drop(container);
    let container = site.container();
    let until = Instant::now() + SOON;
    while !sipst.log().contains("is=/run/sip") || sipst.log().matches("attached in the namespace").count() < 2 {
        assert!(Instant::now() < until, "{}", sipst.report());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(attached(&site.host), both);
    let (server, peer) = site.call(&container, INTERVAL_S);
    assert!(peer.refreshed(1, SOON).is_ok(), "{peer}\n{server}\n{}", sipst.report());
    hangs_up(&server, &peer, &sipst);
    assert!(sipst.stop().unwrap().success(), "{}", sipst.report());
    assert!(!site.host.list("/sys/fs/bpf").contains(&"sipst".into()), "nothing stays");
}

#[test]
fn from_the_uplink_whose_addresses_are_translated_it_is_refused_with_the_reason_and_the_call_dies_as_without_sipst() {
    let mut site = Site::new();
    let container = site.container();
    let mut sipst = Sipst::start(&site.host, &config("auto", &RULES)).unwrap();
    let (server, peer) = site.call(&container, 4);
    let failed = sipst.event("refresh_failed", SOON).unwrap();
    assert_eq!(failed["reason"], "address_translated", "{}", sipst.report());
    let (_, shown, _) = Sipst::command(&site.host, &["show", failed["call_id"].as_str().unwrap()]).unwrap();
    assert!(shown.contains("address_translated"), "{shown}");
    let (by_peer, _) = peer.ended(SOON).unwrap();
    assert!(by_peer, "{peer}\n{server}\n{}", sipst.report());
    assert_eq!(peer.refreshes().len(), 0, "nothing was sent");
    assert!(sipst.stop().unwrap().success(), "{}", sipst.report());
}

#[test]
fn the_same_call_without_sipst_dies() {
    let mut site = Site::new();
    let container = site.container();
    let (server, peer) = site.call(&container, 2);
    let (by_peer, _) = peer.ended(SOON).unwrap();
    assert!(by_peer, "{peer}\n{server}");
}

#[test]
fn without_the_capability_to_enter_one_clear_error_says_what_brings_it() {
    let host = Host::new("host").unwrap();
    let config = format!("{}namespaces:\n  - name: sip\n    pid: 1\n", config("auto", &RULES));
    let Err(error) = Sipst::start_with_four_capabilities(&host, &config) else { panic!("it runs") };
    let said = format!("{error:#}");
    assert!(said.contains("`namespaces` needs CAP_SYS_ADMIN, to enter them: install config/namespaces.conf"), "{said}");
    assert!(!host.list("/sys/fs/bpf").contains(&"sipst".into()), "nothing half done stays");
}
