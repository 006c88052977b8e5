//! One call over a veth pair, in namespaces of the test's own: from the wire to the wire.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::mpsc::channel,
    thread,
};

use rustix::thread::{UnshareFlags, gettid};
use st_core::{Action, Event, EventKind, Rules};

use super::*;
use crate::{
    config::Attach,
    kernel::PIN_DIR,
    namespace::{STATE_DIR, in_a_namespace, ip, unshare},
};

const SERVER: &str = "10.9.0.1:5060";
const PEER: &str = "10.9.0.2:5060";

struct Kept(Vec<Event>);

impl EventSink for Kept {
    fn event(&mut self, event: &Event) {
        self.0.push(event.clone());
    }
}

fn config(attach: Attach) -> RunConfig {
    let second = Duration::from_secs(1);
    let rules = Rules { action: Action::Refresh, min_se: second, interval_floor: second, ..Rules::default() };
    RunConfig {
        options: kernel::tests::options(attach),
        policy: Arc::new(Policy { default: rules, ..Policy::default() }),
        state_dir: STATE_DIR.into(),
        control: config::Control { socket: None, group: "sipst".into() },
        metrics: config::Metrics::default(),
        file: None,
    }
}

fn message(start: &str, branch: &str, cseq: &str, to_tag: bool, more: &str) -> String {
    let tag = if to_tag { ";tag=peer" } else { "" };
    format!(
        "{start}\r\nVia: SIP/2.0/UDP {SERVER};branch={branch}\r\nMax-Forwards: 70\r\nFrom: <sip:s@10.9.0.1>;tag=server\r\n\
         To: <sip:p@10.9.0.2>{tag}\r\nCall-ID: one-call\r\nCSeq: {cseq}\r\nContact: <sip:x@{}>\r\n{more}Content-Length: 0\r\n\r\n",
        if start.starts_with("SIP/2.0") { PEER } else { SERVER },
    )
}

fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 4096];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (String::from_utf8(buffer[..length].to_vec()).unwrap(), from)
}

fn line<'a>(message: &'a str, name: &str) -> &'a str {
    message.lines().find(|line| line.starts_with(name)).unwrap()
}

/// The response to a request, with the same Via, From, To, Call-ID and CSeq.
fn ok(request: &str, more: &str) -> String {
    let same: String =
        ["Via:", "From:", "Call-ID:", "CSeq:"].iter().map(|name| format!("{}\r\n", line(request, name))).collect();
    let to = line(request, "To:");
    let tag = if to.contains("tag=") { "" } else { ";tag=peer" };
    format!("SIP/2.0 200 OK\r\n{same}{to}{tag}\r\nContact: <sip:p@{PEER}>\r\n{more}Content-Length: 0\r\n\r\n")
}

/// Plays the peer: the interval is 4 s and the caller's to refresh. Returns the requests that came.
fn peer(socket: &UdpSocket) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let (request, from) = receive(socket);
        let timer = "Allow: INVITE, ACK, BYE, UPDATE\r\nRequire: timer\r\nSession-Expires: 4;refresher=uac\r\n";
        let last = request.starts_with("BYE");
        if !request.starts_with("ACK") {
            let more = if last { "" } else { timer };
            socket.send_to(ok(&request, more).as_bytes(), from).unwrap();
        }
        seen.push(format!("{} {}", request.split(' ').next().unwrap(), line(&request, "CSeq:")));
        if last {
            return seen;
        }
    }
}

/// Plays a server without timers: calls, waits until the peer was refreshed, hangs up. Returns the messages that came.
fn server(refreshed: &std::sync::mpsc::Receiver<()>) -> Vec<String> {
    let socket = UdpSocket::bind(SERVER).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let send = |text: String| socket.send_to(text.as_bytes(), PEER).unwrap();
    let request = format!("sip:p@{PEER} SIP/2.0");
    send(message(&format!("INVITE {request}"), "z9hG4bK1", "1 INVITE", false, ""));
    let mut seen = vec![receive(&socket).0];
    send(message(&format!("ACK {request}"), "z9hG4bK2", "1 ACK", true, ""));
    refreshed.recv_timeout(Duration::from_secs(20)).unwrap();
    send(message(&format!("BYE {request}"), "z9hG4bK3", "2 BYE", true, ""));
    seen.push(receive(&socket).0);
    seen
}

fn refreshed_call(attach: Attach) {
    in_a_namespace(|| {
        let (tell_tid, tid) = channel();
        let (tell_there, there) = channel::<()>();
        let (tell_refreshed, refreshed) = channel::<()>();
        let (tell_done, done) = tokio::sync::oneshot::channel::<()>();
        thread::scope(|scope| {
            let peer = scope.spawn(move || {
                unshare(UnshareFlags::NEWNET);
                tell_tid.send(gettid()).unwrap();
                there.recv().unwrap();
                ip("addr add 10.9.0.2/24 dev v1");
                ip("link set v1 up");
                let socket = UdpSocket::bind(PEER).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                peer(&socket)
            });
            ip("addr add 10.9.0.1/24 dev v0");
            ip(&format!("link set v1 netns {}", tid.recv().unwrap()));
            tell_there.send(()).unwrap();

            /// Tells the server when the peer was refreshed.
            struct Telling(Kept, std::sync::mpsc::Sender<()>);
            impl EventSink for Telling {
                fn event(&mut self, event: &Event) {
                    if event.kind == EventKind::RefreshSucceeded {
                        let _ = self.1.send(());
                    }
                    self.0.event(event);
                }
            }
            let mut sink = Telling(Kept(Vec::new()), tell_refreshed);
            let server = scope.spawn(move || {
                while Kernel::status(Path::new(PIN_DIR)).unwrap().len() < 2 {
                    thread::yield_now();
                }
                let seen = server(&refreshed);
                tell_done.send(()).unwrap();
                seen
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let stop = async { done.await.unwrap() };
            runtime.block_on(run_until(config(attach), &mut sink, stop)).unwrap();
            assert!(!Path::new(PIN_DIR).exists(), "the one call is over: nothing stays");

            assert_eq!(
                peer.join().unwrap(),
                ["INVITE CSeq: 1 INVITE", "ACK CSeq: 1 ACK", "UPDATE CSeq: 2 UPDATE", "BYE CSeq: 3 BYE"]
            );
            let seen = server.join().unwrap();
            assert_eq!(
                seen.iter().map(|message| line(message, "CSeq:")).collect::<Vec<_>>(),
                ["CSeq: 1 INVITE", "CSeq: 2 BYE"]
            );
            let kinds: Vec<_> = sink.0.0.iter().map(|event| event.kind.name()).collect();
            assert_eq!(
                kinds,
                [
                    "session_started",
                    "timer_negotiated",
                    "refresh_due",
                    "refresh_sent",
                    "refresh_succeeded",
                    "session_refreshed",
                    "session_ended",
                ]
            );
        });
    });
}

#[test]
fn a_call_is_refreshed_and_ends_with_the_servers_own_bye_by_tc() {
    refreshed_call(Attach::Tc);
}

#[test]
fn a_call_is_refreshed_and_ends_with_the_servers_own_bye_by_xdp() {
    refreshed_call(Attach::Xdp);
}

fn arm(cookie: u64, server: SocketAddr, peer: &str) -> Arm {
    Arm {
        session: st_core::SessionId(1),
        call_id: b"call".to_vec(),
        side: st_core::Side::Server,
        tag: b"tag".to_vec(),
        server,
        peer: peer.parse().unwrap(),
        transport: st_core::Transport::Udp,
        cookie,
        state: st_ebpf::cseq::State { known: true, number: 4, delta: 0 },
        media: vec![],
        ends: false,
    }
}

#[test]
fn a_dialog_is_armed_only_where_it_can_be_refreshed_from() {
    in_a_namespace(|| {
        ip("addr add 10.9.0.1/24 dev v0");
        ip("link add v2 type veth peer name v3");
        ip("addr add 10.8.0.1/24 dev v2");
        ip("link set v2 up");
        let cookie = |socket: &UdpSocket| rustix::net::sockopt::socket_cookie(socket).unwrap();
        let (bound, everywhere) = (UdpSocket::bind(SERVER).unwrap(), UdpSocket::bind("0.0.0.0:5062").unwrap());
        let closed = UdpSocket::bind("10.9.0.1:5063").unwrap();
        let (server, gone) = (bound.local_addr().unwrap(), arm(cookie(&closed), closed.local_addr().unwrap(), PEER));
        drop(closed);

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        let mut sink = Kept(Vec::new());
        let mut driver = Driver::new(config(Attach::Auto), &mut sink).unwrap();
        let mine = arm(cookie(&bound), server, PEER);
        let refusals = [
            (gone.clone(), Refusal::ServerGone),
            (Arm { cookie: 0, ..mine.clone() }, Refusal::Translated),
            (Arm { server: "10.9.0.1:5099".parse().unwrap(), ..mine.clone() }, Refusal::Translated),
            (arm(cookie(&everywhere), "10.9.0.77:5062".parse().unwrap(), PEER), Refusal::Translated),
            (arm(cookie(&everywhere), "10.8.0.1:5062".parse().unwrap(), "10.8.0.2:5060"), Refusal::Unattached),
            (arm(cookie(&everywhere), "10.9.0.1:5062".parse().unwrap(), "203.0.113.1:5060"), Refusal::Unattached),
            (Arm { call_id: vec![b'x'; 257], ..mine.clone() }, Refusal::Identifiers),
        ];
        // A call that is to be ended need not be alive; the rest holds, and a server that is gone is told nothing.
        let ends = |arm: &Arm| Arm { ends: true, ..arm.clone() };
        assert!(driver.prepare(&ends(&gone)).is_ok());
        let told = Arm { side: st_core::Side::Peer, ..ends(&gone) };
        assert_eq!(driver.prepare(&told), Err(Refusal::ServerGone));
        for (arm, refusal) in &refusals[1..] {
            assert_eq!(driver.prepare(&ends(arm)), Err(*refusal), "{arm:?}");
        }
        for (arm, refusal) in refusals {
            assert_eq!(driver.prepare(&arm), Err(refusal), "{arm:?}");
        }
        let key = driver.prepare(&mine).unwrap();
        assert_eq!(driver.kernel.maps.state(key), Ok(mine.state));
        let later = Arm { state: st_ebpf::cseq::State::default(), ..mine.clone() };
        assert_eq!(driver.prepare(&later), Ok(key));
        assert_eq!(driver.kernel.maps.state(key), Ok(mine.state), "the kernel's own state stands");
    });
}

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 10.9.0.1\r\ns=-\r\nc=IN IP4 10.9.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

fn with_sdp(message: &str) -> String {
    let body = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}", SDP.len());
    message.replace("Content-Length: 0\r\n\r\n", &body)
}

#[test]
fn r44_an_end_in_the_middle_of_a_reinvite_still_acks_its_2xx() {
    in_a_namespace(|| {
        let (tell_stop, stop) = tokio::sync::oneshot::channel::<()>();
        let (tell_tid, tid) = channel();
        let (tell_there, there) = channel::<()>();
        let (tell_stopped, stopped) = channel::<()>();
        thread::scope(|scope| {
            let peer = scope.spawn(move || {
                unshare(UnshareFlags::NEWNET);
                tell_tid.send(gettid()).unwrap();
                there.recv().unwrap();
                ip("addr add 10.9.0.2/24 dev v1");
                ip("link set v1 up");
                let socket = UdpSocket::bind(PEER).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let timer = "Require: timer\r\nSession-Expires: 4;refresher=uac\r\n";
                let answer = |(request, from): (String, SocketAddr)| {
                    socket.send_to(with_sdp(&ok(&request, timer)).as_bytes(), from).unwrap();
                };
                answer(receive(&socket));
                assert!(receive(&socket).0.starts_with("ACK"));
                let reinvite = receive(&socket);
                assert_eq!(line(&reinvite.0, "CSeq:"), "CSeq: 2 INVITE");
                tell_stop.send(()).unwrap();
                stopped.recv().unwrap();
                answer(reinvite);
                // Copies of the re-INVITE may stand before it.
                std::iter::repeat_with(|| receive(&socket).0).find(|message| !message.starts_with("INVITE")).unwrap()
            });
            ip("addr add 10.9.0.1/24 dev v0");
            ip(&format!("link set v1 netns {}", tid.recv().unwrap()));
            tell_there.send(()).unwrap();
            let server = UdpSocket::bind(SERVER).unwrap();
            server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let calling = server.try_clone().unwrap();
            scope.spawn(move || {
                while Kernel::status(Path::new(PIN_DIR)).unwrap().len() < 2 {
                    thread::yield_now();
                }
                let request = format!("sip:p@{PEER} SIP/2.0");
                let invite = with_sdp(&message(&format!("INVITE {request}"), "z9hG4bK1", "1 INVITE", false, ""));
                calling.send_to(invite.as_bytes(), PEER).unwrap();
                receive(&calling);
                let ack = message(&format!("ACK {request}"), "z9hG4bK2", "1 ACK", true, "");
                calling.send_to(ack.as_bytes(), PEER).unwrap();
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let stop = async {
                stop.await.unwrap();
                tell_stopped.send(()).unwrap();
            };
            let mut sink = Kept(Vec::new());
            runtime.block_on(run_until(config(Attach::Auto), &mut sink, stop)).unwrap();
            let ack = peer.join().unwrap();
            assert_eq!((ack.starts_with("ACK"), line(&ack, "CSeq:")), (true, "CSeq: 2 ACK"), "{ack}");
            assert_eq!(sink.0.last().map(|event| event.kind), Some(EventKind::SessionRefreshed));
        });
    });
}
