//! `tcp: refresh` where offloads hand over many segments as one, and where the kernel cuts them anew: every copy reads the same.

use std::{
    collections::HashMap,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use etherparse::{PacketHeaders, TransportHeader};
use st_tests::{Family, Host, Lab, Sipst, Tap, Wire, agent::Message};

use crate::{
    plan::{INTERVAL_S, SOON, config},
    tcp_refresh::{ALERT, ENOUGH, Line, REFRESH, server, taken},
};

/// The largest frame that a wire takes.
const FRAME: usize = 1_514;

/// A laboratory with a router in its middle. `joined`: segments go over the server's wire as its kernel and the peer's have made them, of
/// many packets each; else each packet by itself. What reaches the peer are packets, with whole checksums.
fn routed(joined: bool) -> (Lab, Host) {
    let (server, router, peer) =
        (Host::new("server").unwrap(), Host::new("router").unwrap(), Host::new("peer").unwrap());
    let (near, far) = (Wire::between(&server, &router).unwrap(), Wire::between(&router, &peer).unwrap());
    router
        .enter(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
        })
        .unwrap();
    for (host, by) in [(&server, &near.b), (&peer, &far.a)] {
        host.run("ip", &["route", "add", "default", "via", &by.v4.to_string()]).unwrap();
        host.run("ip", &["-6", "route", "add", "default", "via", &by.v6.to_string()]).unwrap();
    }
    let offloads = |host: &Host, interface: &str, on: bool| {
        let on = if on { "on" } else { "off" };
        host.run("ethtool", &["-K", interface, "tx", on, "tso", on, "gso", on, "gro", on]).unwrap();
        let features = host.run("ethtool", &["-k", interface]).unwrap();
        for feature in ["tcp-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload"] {
            assert!(features.contains(&format!("{feature}: {on}")), "{features}");
        }
    };
    for (host, end) in [(&server, &near.a), (&router, &near.b), (&peer, &far.b)] {
        offloads(host, &end.interface, joined);
    }
    offloads(&router, &far.a.interface, false);
    (Lab { server, peer, wire: Wire { a: near.a, b: far.b } }, router)
}

/// What the peer has got: method, number, and how many bytes of header stood before that.
type Got = Vec<(String, u32, usize)>;

/// The bytes of a message, with a long line before its CSeq so that this stands at `at`, where that is further behind.
fn lengthened(message: &Message, at: usize) -> Vec<u8> {
    let text = String::from_utf8(message.to_bytes(": ")).unwrap();
    let cseq = text.find("CSeq").unwrap();
    let long = at.saturating_sub(cseq + "X-Long: \r\n".len());
    let line = if long > 0 { format!("X-Long: {}\r\n", "z".repeat(long)) } else { String::new() };
    [&text[..cseq], &line, &text[cseq..]].concat().into_bytes()
}

/// Answers all, at length, until the server hangs up. `at`: where the numbers of its answers stand. `before`: is called before the answer
/// to the request with that number, and what it returns after it.
fn talk(line: &mut Line, own: SocketAddr, at: usize, mut before: impl FnMut(u32)) -> Got {
    let mut got = Got::new();
    let until = Instant::now() + SOON * 3;
    loop {
        let bytes = line.next(until).expect("the server's connection").expect("the server's BYE");
        let message = Message::parse(&bytes).unwrap();
        let Some(method) = message.method().map(str::to_owned) else { continue };
        if method == "ACK" {
            continue;
        }
        let number = message.cseq().unwrap().number;
        let mut answer = taken(&message, own);
        if method == "OPTIONS" {
            line.stream.write_all(&answer.to_bytes(": ")).unwrap();
            continue;
        }
        if method != "INVITE" {
            answer = answer.with_body("text/plain", "w".repeat(5_000));
        }
        let text = String::from_utf8(bytes).unwrap();
        got.push((method.clone(), number, text.find("CSeq").unwrap()));
        before(number);
        line.stream.write_all(&lengthened(&answer, at)).unwrap();
        if method == "BYE" {
            return got;
        }
    }
}

/// What went out of the server's interface, or came in: the longest frame, and how many stretches of the stream were sent again, cut
/// otherwise. Every copy of a byte is the same.
fn copies(tap: &Tap, out: bool) -> (usize, usize) {
    let (mut longest, mut bytes, mut first, mut cut) = (0, HashMap::new(), HashMap::new(), 0);
    for frame in tap.frames() {
        let Ok(PacketHeaders { transport: Some(TransportHeader::Tcp(tcp)), payload, .. }) =
            PacketHeaders::from_ethernet_slice(&frame.bytes)
        else {
            continue;
        };
        if (tcp.destination_port == 5060) != out || payload.slice().is_empty() {
            continue;
        }
        longest = longest.max(frame.bytes.len());
        let payload = payload.slice();
        let mut again = false;
        for (sequence, byte) in (tcp.sequence_number..).zip(payload) {
            let before = *bytes.entry(sequence).or_insert(*byte);
            assert_eq!(before, *byte, "a copy of {sequence} in {}", String::from_utf8_lossy(payload));
            let size = *first.entry(sequence).or_insert((tcp.sequence_number, payload.len()));
            again |= size != (tcp.sequence_number, payload.len());
        }
        cut += usize::from(again);
    }
    (longest, cut)
}

/// A call whose server sends requests of many segments and gets such answers. The third is lost on its way, behind all that sipst does.
fn is_read_in_every_copy(family: Family, joined: bool, rules: &[&str]) {
    let refreshes = rules == REFRESH;
    let (lab, router) = routed(joined);
    let sipst = Sipst::start(&lab.server, &config("tc", rules)).unwrap();
    let tap = Tap::start(&lab.server, "eth0").unwrap();
    let (own, other) = (lab.wire.a.ip(family), SocketAddr::from((lab.wire.b.ip(family), 5060)));
    let listener = lab.peer.enter(move || TcpListener::bind(other).unwrap());
    let filter = |command: &str| router.run("nft", &[command]).unwrap();
    filter("add table inet way");
    filter("add chain inet way forward { type filter hook forward priority 0; }");
    let (lose, losing) = mpsc::channel();
    let peer = thread::spawn(move || {
        let mut line = Line::new(listener.accept().unwrap().0);
        // Their numbers stand in the fourth packet, where packets are joined. One of a header in two is not for this test.
        let at = if joined { 4_800 } else { 0 };
        talk(&mut line, other, at, |number| {
            if (199..299).contains(&number) {
                let (lost, waits) = mpsc::channel();
                lose.send(lost).unwrap();
                waits.recv().unwrap();
            }
        })
    });
    let hold = if refreshes { 3 * INTERVAL_S } else { 1 };
    let mut server = server(&lab.server, own, other.ip(), ENOUGH, "long", hold);
    let lost = losing.recv_timeout(SOON * 3);
    if let Ok(lost) = &lost {
        filter("add rule inet way forward iifname eth0 drop");
        lost.send(()).unwrap();
        // The request, and the probe that follows it.
        thread::sleep(Duration::from_millis(150));
        filter("flush chain inet way forward");
    }
    let ended_well = server.wait(SOON * 2).unwrap().success();
    let status = Sipst::command(&lab.server, &["status", "--json", "--state-dir", "/run/state"]).unwrap().1;
    let said = server.printed();
    let story = format!("server: {said}\n{}\nsipst: {}\nstatus: {status}", server.said(), sipst.report());
    assert!(ended_well && lost.is_ok(), "{story}");
    let got = peer.join().unwrap_or_else(|_| panic!("{story}"));
    let updates = got.iter().filter(|(method, ..)| method == "UPDATE").count();
    assert_eq!(updates > 0, refreshes, "{got:?}\n{story}");
    // Each number is the server's and as many as sipst has sent before it.
    let mut before = 0;
    let mut at = Vec::new();
    for (method, number, place) in &got {
        before += u32::from(method == "UPDATE");
        at.push(*place);
        let wrote = match method.as_str() {
            "INVITE" => 1,
            "BYE" => 300,
            "INFO" => (number - before) / 100 * 100 + 99,
            _ => continue,
        };
        assert_eq!(*number, wrote + before, "{got:?}\n{story}");
    }
    assert_eq!(got.iter().filter(|(method, ..)| method == "INFO").count(), 3, "{got:?}");
    assert!(at.iter().any(|place| (1_410..1_450).contains(place)) && at.iter().any(|place| *place > 3 * 1_428));
    // The server has its own numbers back; what sipst asked was never answered for all that it knows.
    assert_eq!(said.matches("INFO: 200").count(), 3, "{story}");
    assert!(said.contains("BYE: 200"), "{story}");
    assert_eq!(said.matches("got: SIP/2.0 100 ").count(), updates, "{story}");
    assert_eq!(said.matches(" UPDATE\n").count(), updates, "{story}");
    let counted = |name: &str| {
        serde_json::from_str::<serde_json::Value>(&status).unwrap()["counters"][name].as_u64().unwrap_or(0)
    };
    assert_eq!(counted("patched") > 0, refreshes, "{story}");
    assert_eq!(counted("patch_failed") + counted("patch_evicted"), 0, "{story}");
    let ((out, cut), (back, _)) = (copies(&tap, true), copies(&tap, false));
    assert_eq!((out > FRAME, back > FRAME), (joined, joined), "{out} {back}");
    assert!(cut > 0 || !joined, "nothing was sent again, cut otherwise\n{story}");
    assert_eq!(sipst.count("refresh_failed"), 0, "{story}");
}

#[test]
fn a_plan_is_written_alike_into_segments_that_are_joined_and_into_copies_that_are_cut_otherwise() {
    let runs = [
        thread::spawn(|| is_read_in_every_copy(Family::V4, true, &REFRESH)),
        thread::spawn(|| is_read_in_every_copy(Family::V6, true, &REFRESH)),
        thread::spawn(|| is_read_in_every_copy(Family::V6, false, &REFRESH)),
        // Without it all stays as it is.
        thread::spawn(|| is_read_in_every_copy(Family::V4, true, &ALERT)),
    ];
    let failed: Vec<bool> = runs.map(thread::JoinHandle::join).iter().map(Result::is_err).collect();
    assert_eq!(failed, [false; 4]);
}
