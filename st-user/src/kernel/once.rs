//! No packet is rewritten twice, whatever interfaces it crosses, and what patterns stand for follows the host. In namespaces of the tests'
//! own, with real packets. They need root.

use std::{
    net::UdpSocket,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::thread::UnshareFlags;
use st_core::Side;
use st_ebpf::cseq::State;

use super::*;
use crate::namespace::{in_a_namespace, ip, unshare};

const SERVER: &str = "10.1.0.1";
const PEER: &str = "10.1.0.2";

fn options(interfaces: &[&str]) -> Options {
    Options {
        interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
        namespaces: vec![],
        attach: Attach::Tc,
        ports: vec![Ports::one(5060)],
        opaque_ports: vec![],
        any_port: false,
        pin_dir: PIN_DIR.into(),
        recording: false,
        acting: false,
    }
}

fn look(kernel: &mut Kernel) {
    let view = kernel.lookout().look().unwrap();
    kernel.follow(view);
}

/// Whether this kernel makes such an interface; says so aloud where it does not.
fn makes(arguments: &str) -> bool {
    let made = Command::new("ip").args(arguments.split(' ')).stderr(Stdio::null()).status().unwrap().success();
    if !made {
        eprintln!("SKIPPED in part: this kernel does not do `ip {arguments}`");
    }
    made
}

/// What the server sends, and what it gets in return: BYE with number 8 where the wire has one more.
const NUMBER: &str = "CSeq:  8 BYE";
const ON_THE_WIRE: &str = "CSeq:  9 BYE";
const TWICE: &str = "CSeq: 10 BYE";

fn message(start: &str, number: &str) -> String {
    format!(
        "{start}\r\nVia: SIP/2.0/UDP {SERVER}:5060;branch=z9hG4bKserver\r\nFrom: <sip:a@a>;tag=tag\r\nTo: <sip:b@b>;tag=peer\r\n\
         Call-ID: call\r\n{number}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn number(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().find(|line| line.starts_with("CSeq")).unwrap_or_default().to_owned()
}

/// Sends a BYE of the server's in a dialog whose numbers are shifted by one, once before `change` and once after it, and tells how it
/// arrives the first time, how its answer, and how it arrives the second time. `far` sets up the far end of the wire, in whose namespace
/// `v1` is.
fn through(kernel: &mut Kernel, far: impl FnOnce() + Send, change: impl FnOnce(&mut Kernel)) -> [String; 3] {
    let key = kernel.maps.key(b"call", b"tag", Side::Server).unwrap();
    kernel.maps.arm(key, SERVER.parse().unwrap(), State { known: true, number: 7, delta: 1 }).unwrap();
    thread::scope(|scope| {
        let (say, said) = mpsc::sync_channel(0);
        let (go, gone) = mpsc::channel::<()>();
        let peer = scope.spawn(move || {
            unshare(UnshareFlags::NEWNET);
            say.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
            gone.recv().unwrap();
            far();
            let socket = UdpSocket::bind((PEER, 5070)).unwrap();
            say.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            [(); 2].map(|()| {
                let mut bytes = [0; 2048];
                let (length, from) = socket.recv_from(&mut bytes).unwrap();
                socket.send_to(message("SIP/2.0 200 OK", ON_THE_WIRE).as_bytes(), from).unwrap();
                number(&bytes[..length])
            })
        });
        ip(&format!("link set v1 netns {}", said.recv().unwrap()));
        go.send(()).unwrap();
        said.recv().unwrap();
        let socket = UdpSocket::bind((SERVER, 5060)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let exchange = || {
            socket.send_to(message("BYE sip:b@b SIP/2.0", NUMBER).as_bytes(), (PEER, 5070)).unwrap();
            let mut bytes = [0; 2048];
            let (length, _) = socket.recv_from(&mut bytes).unwrap();
            number(&bytes[..length])
        };
        let answer = exchange();
        change(kernel);
        exchange();
        let [first, second] = peer.join().unwrap();
        [first, answer, second]
    })
}

/// Attaches to what was passed over, as nothing does.
fn force(kernel: &mut Kernel, name: &str) {
    let interface = list().unwrap().into_iter().find(|one| one.name == name).unwrap();
    let Kernel { loaded: Loaded { ebpf, hooks }, here, .. } = kernel;
    hooks.attach(ebpf, &here.pins, &interface, here.attach).unwrap();
}

/// `upper` is what has the server's address; a packet crosses it and `v0`. Both are covered by `*0*`, and `chosen` is taken.
fn crossed_once(make: &[&str], upper: &str, chosen: &str, far: &'static [&'static str]) {
    in_a_namespace(|| {
        if !makes(make[0]) {
            return;
        }
        make[1..].iter().for_each(|arguments| ip(arguments));
        ip(&format!("address add {SERVER}/24 dev {upper}"));
        ip(&format!("link set {upper} up"));
        let far = || far.iter().for_each(|arguments| ip(arguments));
        let passed_over = if chosen == upper { "v0" } else { upper };
        let (mut kernel, _ring) = Kernel::attach(&options(&["*0*"])).unwrap();
        assert_eq!(kernel.configured(), [chosen]);
        assert!(kernel.remarks()[0].starts_with(&format!("not attached to {passed_over}: ")), "{:?}", kernel.remarks());
        let ways = list().unwrap().into_iter().filter(|one| one.name == upper || one.name == "v0");
        assert!(ways.into_iter().all(|one| chosen != "v0" || kernel.covers(one.index)), "both ways lead through it");
        // The second time as it would be otherwise.
        let seen = through(&mut kernel, far, |kernel| force(kernel, passed_over));
        assert_eq!(seen, [ON_THE_WIRE, NUMBER, TWICE], "{upper}");
    });
}

const PLAIN_FAR: &[&str] = &["address add 10.1.0.2/24 dev v1", "link set v1 up"];

#[test]
fn a_vlan_and_its_parent() {
    let far = &[
        "link set v1 up",
        "link add link v1 name v1.100 type vlan id 100",
        "address add 10.1.0.2/24 dev v1.100",
        "link set v1.100 up",
    ];
    crossed_once(&["link add link v0 name v0.100 type vlan id 100"], "v0.100", "v0", far);
}

#[test]
fn what_stands_on_another_with_an_address_of_its_own() {
    crossed_once(&["link add link v0 name mv0 type macvlan mode bridge"], "mv0", "v0", PLAIN_FAR);
}

#[test]
fn a_bond_and_its_slave() {
    let bond = ["link add bond0 type bond mode active-backup", "link set v0 down", "link set v0 master bond0"];
    crossed_once(&bond, "bond0", "bond0", PLAIN_FAR);
}

#[test]
fn a_bridge_and_its_port() {
    crossed_once(&["link add br0 type bridge", "link set v0 master br0"], "br0", "br0", PLAIN_FAR);
}

#[test]
fn what_a_pattern_stands_for_comes_goes_and_changes_its_name_while_the_daemon_runs() {
    in_a_namespace(|| {
        let (mut kernel, _ring) = Kernel::attach(&options(&["w*", "!wx"])).unwrap();
        let names = |kernel: &Kernel| kernel.configured().join(" ");
        let pinned = || {
            let all = Kernel::status(Path::new(PIN_DIR)).unwrap().into_iter().filter(|found| !found.gone);
            all.map(|found| found.interface).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((names(&kernel), pinned()), (String::new(), String::new()));
        ip("link add w0 type veth peer name x0");
        look(&mut kernel);
        assert_eq!((names(&kernel), pinned()), ("w0".into(), "w0 w0".into()));
        ip("link set w0 name w5");
        look(&mut kernel);
        assert_eq!((names(&kernel), pinned()), ("w5".into(), "w5 w5".into()), "never two of ours at one");
        ip("link add link w5 name w6 type macvlan mode bridge");
        look(&mut kernel);
        assert_eq!((names(&kernel), pinned()), ("w5".into(), "w5 w5".into()));
        assert_eq!(kernel.remarks(), ["not attached to w6: w6 stands on w5"]);
        ip("link set w5 name wx");
        look(&mut kernel);
        assert_eq!((names(&kernel), pinned()), ("w6".into(), "w6 w6".into()));
        ip("link del wx");
        look(&mut kernel);
        assert_eq!((names(&kernel), pinned()), (String::new(), String::new()));
    });
}

#[test]
fn the_default_route_is_followed_and_an_interface_that_calls_may_depend_on_stays_until_they_are_over() {
    in_a_namespace(|| {
        ip("link set v1 up");
        ip("address add 10.1.0.1/24 dev v0");
        ip("address add 10.2.0.1/24 dev v1");
        ip("route add default via 10.1.0.2");
        let (mut kernel, _ring) = Kernel::attach(&options(&["default"])).unwrap();
        assert_eq!(kernel.configured(), ["v0"]);
        ip("route replace default via 10.2.0.2");
        let view = kernel.lookout().look().unwrap();
        assert!(!kernel.follow(view), "what left by the new one until now was not seen");
        assert_eq!(kernel.configured(), ["v1"]);
        let key = kernel.maps.key(b"call", b"tag", Side::Server).unwrap();
        kernel.maps.arm(key, SERVER.parse().unwrap(), State { known: true, number: 7, delta: 1 }).unwrap();
        // The two ends of one pair: a packet may cross both.
        ip("route replace default via 10.1.0.2");
        look(&mut kernel);
        assert_eq!(kernel.configured(), ["v1"]);
        assert!(kernel.remarks()[0].contains("may depend on `v1`"), "{:?}", kernel.remarks());
        kernel.maps.disarm(key, None).unwrap();
        look(&mut kernel);
        assert_eq!((kernel.configured(), kernel.remarks()), (vec!["v0".to_owned()], vec![]));
    });
}
