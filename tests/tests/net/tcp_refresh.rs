//! `tcp: refresh`: calls over TCP live on by what is written into their server's own connection. Of a server that writes a message in
//! pieces, or of which too little was seen, nothing is.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use st_tests::{Family, Host, Lab, Process, Program, Sipst, agent::Message};

use crate::plan::{INTERVAL_S, SOON, config};

pub(crate) const REFRESH: [&str; 3] = ["action: refresh", "min_se: 2s", "tcp: refresh"];
pub(crate) const ALERT: [&str; 3] = ["action: refresh", "min_se: 2s", "tcp: alert"];

/// How many OPTIONS a server has to have been seen to send, or to answer, and a few more.
pub(crate) const ENOUGH: u32 = 1_010;

/// How many intervals a call outlives.
const INTERVALS: u32 = 3;
const HOLD_S: u32 = INTERVALS * INTERVAL_S + 1;

/// The last UPDATE but one of a call that lives: what its answer is joined with does not let the last one leave.
const JOINED: usize = 2 * INTERVALS as usize - 1;

/// A server of the tests' own, as a user who is not sipst's.
pub(crate) fn server(host: &Host, own: IpAddr, peer: IpAddr, asks: u32, how: &str, hold_s: u32) -> Process {
    let script = host.file("tcp_server.pl", include_str!("../../stacks/tcp_server.pl")).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "perl"]).arg(script);
    command.args([&own.to_string(), &peer.to_string(), &asks.to_string(), how, &hold_s.to_string()]);
    host.spawn(command).unwrap()
}

/// What the peer has seen.
#[derive(Debug, Default)]
struct Heard {
    /// Requests inside the call, ACK left out: method and number.
    requests: Vec<(String, u32)>,
    /// The statuses of responses to its own.
    statuses: Vec<u16>,
    /// Those among them that had a number that is too low, which it refuses.
    refused: Vec<(String, u32)>,
    /// What is wrong with what it got.
    faults: Vec<String>,
    hung_up: bool,
}

/// A peer on one connection. In a call it hangs up where nobody refreshes in time, and takes no number twice.
struct Peer {
    heard: Arc<Mutex<Heard>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

pub(crate) struct Line {
    pub(crate) stream: TcpStream,
    held: Vec<u8>,
}

impl Line {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { stream, held: Vec::new() }
    }

    /// The next message, if one comes by then; an error where there are no more.
    pub(crate) fn next(&mut self, until: Instant) -> Result<Option<Vec<u8>>, ()> {
        loop {
            while self.held.starts_with(b"\r\n") {
                self.held.drain(..2);
            }
            if let Some(end) = self.held.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.held[..end]).to_lowercase();
                let length =
                    head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap().trim().to_owned();
                let length = end + 4 + length.parse::<usize>().unwrap();
                if self.held.len() >= length {
                    return Ok(Some(self.held.drain(..length).collect()));
                }
            }
            if Instant::now() > until {
                return Ok(None);
            }
            let mut bytes = [0; 65_536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(()),
                Ok(count) => self.held.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return Err(()),
            }
        }
    }

    fn put(&mut self, message: &Message) {
        let _ = self.stream.write_all(&message.to_bytes(": "));
    }
}

/// A request of the peer's.
fn ask(method: &str, to: SocketAddr, own: SocketAddr, number: u32, call: &str, tag: Option<&str>) -> Message {
    let tag = tag.map_or(String::new(), |tag| format!(";tag={tag}"));
    Message::request(method, &format!("sip:server@{to}"))
        .with("Via", format!("SIP/2.0/TCP {own};branch=z9hG4bKpeer{call}{number}"))
        .with("Max-Forwards", "70")
        .with("From", format!("<sip:peer@{own}>;tag=peer"))
        .with("To", format!("<sip:server@{to}>{tag}"))
        .with("Call-ID", format!("{call}@peer"))
        .with("CSeq", format!("{number} {method}"))
        .with("Contact", format!("<sip:peer@{own};transport=tcp>"))
}

/// Asks so many OPTIONS, one after the other.
fn prove(line: &mut Line, to: SocketAddr, own: SocketAddr, count: u32) {
    for number in 1..=count {
        line.put(&ask("OPTIONS", to, own, number, "options", None));
        let answer = line.next(Instant::now() + SOON).unwrap().expect("an answer to OPTIONS");
        // Whatever it says: baresip knows nobody of that name.
        assert!(answer.starts_with(b"SIP/2.0 "), "{}", String::from_utf8_lossy(&answer));
    }
}

/// Where the peer's media are.
fn sdp(own: SocketAddr) -> String {
    let ip = own.ip();
    format!("v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 42000 RTP/AVP 0\r\n")
}

/// The peer's 200 to whatever the server asks: its caller is to refresh the call.
pub(crate) fn taken(request: &Message, own: SocketAddr) -> Message {
    let mut answer = Message::response(request, 200, "OK");
    if request.param("To", "tag").is_none() {
        let to = answer.headers.iter_mut().find(|(name, _)| name == "To").unwrap();
        to.1.push_str(";tag=peer");
    }
    answer = answer
        .with("Contact", format!("<sip:peer@{own};transport=tcp>"))
        .with("Allow", "INVITE, ACK, BYE, UPDATE, INFO");
    let method = request.method();
    if matches!(method, Some("INVITE" | "UPDATE")) {
        answer = answer.with("Require", "timer").with("Session-Expires", format!("{INTERVAL_S};refresher=uac"));
    }
    if method == Some("INVITE") { answer.with_body("application/sdp", sdp(own)) } else { answer }
}

/// In a call, and before it where it is called. `joins`: which of its answers to UPDATE leaves behind a request of its own, far into the
/// same segment.
fn talk(
    line: &mut Line,
    own: SocketAddr,
    heard: &Mutex<Heard>,
    over: &AtomicBool,
    mut dialog: Option<Message>,
    joins: Option<usize>,
) {
    let interval = Duration::from_secs(INTERVAL_S.into());
    let (mut refreshed, mut highest) = (Instant::now(), 0);
    let mut bye = None;
    while !over.load(Ordering::Relaxed) {
        let Ok(next) = line.next(Instant::now() + Duration::from_millis(50)) else { return };
        if let (Some(with), None) = (&dialog, &bye)
            && refreshed.elapsed() > interval
        {
            heard.lock().unwrap().hung_up = true;
            let to = line.stream.peer_addr().unwrap();
            let hangs_up = Message::request("BYE", &format!("sip:server@{to}"))
                .with("Via", format!("SIP/2.0/TCP {own};branch=z9hG4bKpeerbye"))
                .with("From", with.header("To").unwrap())
                .with("To", with.header("From").unwrap())
                .with("Call-ID", with.header("Call-ID").unwrap())
                .with("CSeq", "900 BYE");
            line.put(&hangs_up);
            bye = Some(());
        }
        let Some(bytes) = next else { continue };
        let mut heard = heard.lock().unwrap();
        let message = match Message::parse(&bytes) {
            Ok(message) => message,
            Err(error) => {
                heard.faults.push(format!("{error}: {}", String::from_utf8_lossy(&bytes)));
                continue;
            }
        };
        let Some(method) = message.method().map(str::to_owned) else {
            heard.statuses.extend(message.status());
            continue;
        };
        let number = message.cseq().unwrap().number;
        if !message.header("Via").unwrap().starts_with("SIP/2.0/TCP ") {
            heard.faults.push(format!("{} by {:?}", message.start, message.header("Via")));
        }
        let answer = taken(&message, own);
        match method.as_str() {
            "ACK" => continue,
            "OPTIONS" => {}
            _ => {
                heard.requests.push((method.clone(), number));
                if number <= highest {
                    heard.refused.push((method, number));
                    line.put(&Message::response(&message, 500, "Server Internal Error"));
                    continue;
                }
                highest = number;
            }
        }
        if matches!(method.as_str(), "INVITE" | "UPDATE") {
            refreshed = Instant::now();
            if method == "INVITE" {
                dialog = Some(answer.clone());
            }
        } else if method == "BYE" {
            dialog = None;
        }
        let updates = heard.requests.iter().filter(|(its, _)| its == "UPDATE").count();
        if method == "UPDATE" && joins == Some(updates) {
            let to = line.stream.peer_addr().unwrap();
            let before = ask("OPTIONS", to, own, 1, "joined", None).with_body("text/plain", "w".repeat(5_000));
            let both = [before.to_bytes(": "), answer.to_bytes(": ")].concat();
            line.stream.write_all(&both).unwrap();
            continue;
        }
        line.put(&answer);
    }
}

impl Peer {
    /// One that is called, whoever calls; `joins` as in [`talk`].
    fn waits(host: &Host, own: SocketAddr, joins: Option<usize>) -> Self {
        let listener = host.enter(move || TcpListener::bind(own).unwrap());
        listener.set_nonblocking(true).unwrap();
        Self::run(move |heard, over| {
            while !over.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(20));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                talk(&mut Line::new(stream), own, heard, over, None, joins);
            }
        })
    }

    fn run(does: impl FnOnce(&Mutex<Heard>, &AtomicBool) + Send + 'static) -> Self {
        let (heard, over) = (Arc::<Mutex<Heard>>::default(), Arc::<AtomicBool>::default());
        let (its, ends) = (Arc::clone(&heard), Arc::clone(&over));
        Self { heard, over, threads: vec![thread::spawn(move || does(&its, &ends))] }
    }

    fn count(&self, method: &str) -> usize {
        self.heard.lock().unwrap().requests.iter().filter(|(its, _)| its == method).count()
    }

    fn story(&self) -> String {
        format!("{:#?}", self.heard.lock().unwrap())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let joined = thread.join();
            assert!(joined.is_ok() || thread::panicking(), "the peer's own fault");
        }
    }
}

/// All of a call of the tests' own server, between its start and its end.
struct Run {
    sipst: Sipst,
    peer: Peer,
    server: Process,
    ended_well: bool,
    _lab: Lab,
}

fn run(family: Family, rules: &[&str], asks: u32, how: &str) -> Run {
    run_with(family, rules, asks, how, None)
}

/// `joins` as in [`talk`].
fn run_with(family: Family, rules: &[&str], asks: u32, how: &str, joins: Option<usize>) -> Run {
    let lab = Lab::new().unwrap();
    // Nobody but sipst mends checksums.
    for host in [&lab.server, &lab.peer] {
        host.run("ethtool", &["-K", "eth0", "tx", "off"]).unwrap();
    }
    let sipst = Sipst::start(&lab.server, &config("tc", rules)).unwrap();
    let (own, other) = (lab.wire.a.ip(family), lab.wire.b.ip(family));
    let peer = Peer::waits(&lab.peer, (other, 5060).into(), joins);
    let mut server = server(&lab.server, own, other, asks, how, HOLD_S);
    let within = SOON * 2 + Duration::from_secs(HOLD_S.into());
    let ended_well = server.wait(within).unwrap().success();
    Run { sipst, peer, server, ended_well, _lab: lab }
}

impl Run {
    fn story(&self) -> String {
        format!(
            "server: {}\n{}\npeer: {}\nsipst: {}",
            self.server.printed(),
            self.server.said(),
            self.peer.story(),
            self.sipst.report()
        )
    }

    /// It outlived its intervals, and its server hung up as if nothing had been.
    fn lived(&self) {
        let story = self.story();
        assert!(self.ended_well, "{story}");
        let updates = self.peer.count("UPDATE");
        assert!(updates >= INTERVALS as usize, "{story}");
        {
            let heard = self.peer.heard.lock().unwrap();
            assert!(heard.faults.is_empty() && heard.refused.is_empty() && !heard.hung_up, "{story}");
            // The server's numbers went up by what sipst has sent.
            let updates = u32::try_from(updates).unwrap();
            assert!(heard.requests.contains(&("INFO".into(), 2 + updates)), "{story}");
            assert!(heard.requests.contains(&("BYE".into(), 3 + updates)), "{story}");
        }
        let said = self.server.printed();
        assert!(said.contains("INFO: 200") && said.contains("BYE: 200"), "{story}");
        // Each answer to sipst has come to the server as one that is nobody's.
        assert_eq!(said.lines().filter(|line| line.starts_with("got: SIP/2.0 100 ")).count(), updates, "{story}");
        let others = said.lines().filter(|line| line.contains("UPDATE") && !line.starts_with("got: SIP/2.0 100 "));
        assert_eq!(others.count(), 0, "{story}");
        assert_eq!(
            (self.sipst.count("refresh_succeeded"), self.sipst.count("refresh_failed")),
            (updates, 0),
            "{story}"
        );
    }

    /// It lived, until the server wrote two messages at once: its BYE goes out with its own number then, and sipst's follows.
    fn is_brought_to_its_end(&self) {
        let story = self.story();
        assert!(self.ended_well && self.server.printed().contains("BYE: 500"), "{story}");
        let updates = u32::try_from(self.peer.count("UPDATE")).unwrap();
        let heard = self.peer.heard.lock().unwrap();
        assert!(updates >= INTERVALS && heard.faults.is_empty() && !heard.hung_up, "{story}");
        assert_eq!(heard.refused, [("BYE".into(), 3)], "{story}");
        assert_eq!(heard.requests.last(), Some(&("BYE".into(), 4 + updates)), "{story}");
        let sent = self.sipst.event("bye_sent", SOON).unwrap();
        assert_eq!(sent["reason"], "bye_refused: to the peer", "{story}");
    }

    /// It lived, until an answer came far into a segment, where no plan was made for it: the server got that as it was and let it be,
    /// nothing was written into the connection from then on, and sipst's BYE followed the server's.
    fn is_brought_to_its_end_behind_an_answer_amid_a_segment(&self, joined: usize) {
        let story = self.story();
        let said = self.server.printed();
        assert!(self.ended_well && said.contains("INFO: 500") && said.contains("BYE: 500"), "{story}");
        let told = |status: &str| {
            said.lines()
                .filter(|line| line.starts_with(&format!("got: SIP/2.0 {status} ")) && line.contains("UPDATE"))
                .count()
        };
        assert_eq!((told("100"), told("200")), (joined - 1, 1), "{story}");
        assert_eq!((self.peer.count("UPDATE"), self.sipst.count("refresh_succeeded")), (joined, joined), "{story}");
        let failed = self.sipst.event("refresh_failed", SOON).unwrap();
        assert!(failed["reason"].as_str().unwrap().starts_with("tcp_mixed"), "{story}");
        let sent = self.sipst.event("bye_sent", SOON).unwrap();
        assert_eq!(sent["reason"], "bye_refused: to the peer", "{story}");
        let updates = u32::try_from(joined).unwrap();
        let heard = self.peer.heard.lock().unwrap();
        assert!(heard.faults.is_empty() && !heard.hung_up, "{story}");
        assert_eq!(heard.refused, [("INFO".into(), 2), ("BYE".into(), 3)], "{story}");
        assert_eq!(heard.requests.last(), Some(&("BYE".into(), 4 + updates)), "{story}");
    }

    /// Nothing was written into it, for that reason, and the peer hung up in the end.
    fn died(&self, kind: &str, reason: &str) {
        let story = self.story();
        assert!(!self.ended_well && self.server.printed().contains("the peer hung up"), "{story}");
        let heard = self.peer.heard.lock().unwrap();
        assert!(heard.faults.is_empty() && heard.hung_up && heard.requests.len() == 1, "{story}");
        let event = self.sipst.event(kind, SOON).unwrap();
        assert_eq!(event["reason"], reason, "{story}");
        assert_eq!(self.sipst.count("refresh_sent"), 0, "{story}");
        assert!(!self.server.printed().contains("SIP/2.0 100"), "{story}");
    }
}

#[test]
fn a_call_over_tcp_lives_by_what_is_written_into_its_servers_connection() {
    let runs: Vec<JoinHandle<()>> = vec![
        thread::spawn(|| run(Family::V4, &REFRESH, ENOUGH, "whole").lived()),
        thread::spawn(|| run(Family::V6, &REFRESH, ENOUGH, "whole").lived()),
        thread::spawn(|| run(Family::V4, &REFRESH, ENOUGH, "mixed").is_brought_to_its_end()),
        thread::spawn(|| {
            let run = run_with(Family::V4, &REFRESH, ENOUGH, "stays", Some(JOINED));
            run.is_brought_to_its_end_behind_an_answer_amid_a_segment(JOINED);
        }),
        // Without it the same call dies.
        thread::spawn(|| run(Family::V4, &ALERT, ENOUGH, "whole").died("refresh_overdue", "over_tcp")),
        // So it does where one message in a thousand was written in two halves,
        thread::spawn(|| run(Family::V4, &REFRESH, ENOUGH, "halves").died("refresh_failed", "tcp_in_pieces")),
        // or too few were seen.
        thread::spawn(|| run(Family::V4, &REFRESH, 10, "whole").died("refresh_failed", "tcp_unproven")),
    ];
    let failed: Vec<bool> = runs.into_iter().map(|run| run.join().is_err()).collect();
    assert_eq!(failed, [false; 7]);
}

/// A call of real software's over TCP.
type Call = (Sipst, Peer, Program, Lab);

/// Its peer hangs up, for nobody refreshes.
fn dies((sipst, peer, server, _lab): Call) {
    let ended = sipst.event("session_ended", SOON * 2);
    let story = format!("{}\n{}\n{}", sipst.report(), peer.story(), server.log());
    assert!(ended.is_ok_and(|event| event["by"] == "peer") && peer.count("UPDATE") == 0, "{story}");
}

/// A call to Kamailio, which answers it and never refreshes.
fn kamailio(rules: &[&str]) -> Call {
    let lab = Lab::new().unwrap();
    let sipst = Sipst::start(&lab.server, &config("tc", rules)).unwrap();
    let (to, own) = (SocketAddr::from((lab.wire.a.v4, 5060)), lab.wire.b.v4);
    let server = Program::kamailio_answers(&lab.server, lab.wire.a.v4, INTERVAL_S).unwrap();
    let stream = lab.peer.enter(move || TcpStream::connect(to).unwrap());
    assert_eq!(stream.local_addr().unwrap().ip(), IpAddr::from(own));
    let peer = Peer::run(move |heard, over| {
        let own = stream.local_addr().unwrap();
        let mut line = Line::new(stream);
        prove(&mut line, to, own, ENOUGH);
        let invite = ask("INVITE", to, own, 1, "call", None)
            .with("Supported", "timer")
            .with("Allow", "INVITE, ACK, BYE, UPDATE")
            .with("Session-Expires", INTERVAL_S)
            .with_body("application/sdp", sdp(own));
        line.put(&invite);
        let answer = loop {
            let bytes = line.next(Instant::now() + SOON).unwrap().expect("an answer to INVITE");
            let answer = Message::parse(&bytes).unwrap();
            if answer.status() == Some(200) {
                break answer;
            }
        };
        let tag = answer.param("To", "tag").unwrap().to_owned();
        line.put(&ask("ACK", to, own, 1, "call", Some(&tag)));
        // As the server's requests name the two ends.
        let dialog = Message::request("INVITE", "sip:x")
            .with("From", answer.header("To").unwrap())
            .with("To", answer.header("From").unwrap())
            .with("Call-ID", answer.header("Call-ID").unwrap());
        talk(&mut line, own, heard, over, Some(dialog), None);
    });
    (sipst, peer, server, lab)
}

#[test]
fn kamailio_lets_what_it_did_not_ask_for_be_and_its_call_lives() {
    let control = thread::spawn(|| dies(kamailio(&ALERT)));
    let (sipst, peer, server, _lab) = kamailio(&REFRESH);
    let within = SOON * 2 + Duration::from_secs(HOLD_S.into());
    let refreshed = sipst.event_count("refresh_succeeded", INTERVALS as usize, within);
    let story = || format!("{}\npeer: {}\nkamailio: {}", sipst.report(), peer.story(), server.log());
    assert!(refreshed.is_ok(), "{}", story());
    assert_eq!(sipst.count("refresh_failed"), 0, "{}", story());
    assert!(peer.count("UPDATE") >= INTERVALS as usize, "{}", story());
    {
        let heard = peer.heard.lock().unwrap();
        assert!(heard.faults.is_empty() && heard.refused.is_empty() && !heard.hung_up, "{}", story());
    }
    assert!(!server.log().contains("ERROR"), "{}", story());
    control.join().unwrap();
}

/// A call of baresip's.
fn baresip(rules: &[&str]) -> Call {
    let lab = Lab::new().unwrap();
    let sipst = Sipst::start(&lab.server, &config("tc", rules)).unwrap();
    let (own, other) = (lab.wire.a.v4, lab.wire.b.v4);
    let peer = Peer::waits(&lab.peer, (other, 5060).into(), None);
    let server = Program::baresip(&lab.server, own, Some(&format!("sip:peer@{other};transport=tcp"))).unwrap();
    let to = SocketAddr::from((own, 5060));
    let stream = lab.peer.enter(move || TcpStream::connect(to).unwrap());
    let from = stream.local_addr().unwrap();
    let mut line = Line::new(stream);
    prove(&mut line, to, from, ENOUGH);
    (sipst, peer, server, lab)
}

#[test]
fn baresip_goes_on_with_its_numbers_and_its_bye_is_taken() {
    let control = thread::spawn(|| dies(baresip(&ALERT)));
    let (sipst, peer, server, _lab) = baresip(&REFRESH);
    let within = SOON * 2 + Duration::from_secs(HOLD_S.into());
    let refreshed = sipst.event_count("refresh_succeeded", INTERVALS as usize, within);
    let story = || format!("{}\npeer: {}\nbaresip: {}", sipst.report(), peer.story(), server.log());
    assert!(refreshed.is_ok() && sipst.count("refresh_failed") == 0, "{}", story());
    server.terminate().unwrap();
    let ended = sipst.event("session_ended", SOON);
    assert!(ended.is_ok_and(|event| event["by"] == "server"), "{}", story());
    let until = Instant::now() + SOON;
    while peer.count("BYE") == 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    let heard = peer.heard.lock().unwrap();
    assert!(heard.faults.is_empty() && heard.refused.is_empty() && !heard.hung_up, "{heard:#?}\n{}", server.log());
    assert_eq!(heard.requests.last().map(|(method, _)| method.as_str()), Some("BYE"), "{heard:#?}");
    drop(heard);
    control.join().unwrap();
}

#[test]
fn without_the_capability_to_duplicate_sockets_one_clear_error_says_what_brings_it() {
    let host = Host::new("host").unwrap();
    let Err(error) = Sipst::start_with_four_capabilities(&host, &config("tc", &REFRESH)) else { panic!("it runs") };
    let said = format!("{error:#}");
    assert!(said.contains("`tcp: refresh` needs CAP_SYS_PTRACE") && said.contains("install config/tcp.conf"), "{said}");
    assert!(!host.list("/sys/fs/bpf").contains(&"sipst".into()), "nothing half done stays");
}
