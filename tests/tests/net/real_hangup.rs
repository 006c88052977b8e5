//! `on_expired: bye` between real SIP software: calls with real sound in them that end in silence, with nobody left to refresh them.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use st_tests::{Family, Ledger, Play, Program, Sipp, Sofia};

use crate::{plan::SOON, watched::Watched};

const RULES: [&str; 3] = ["action: refresh", "min_se: 2s", "on_expired: bye"];

/// How long the server sends sound: for long enough to be seen.
const TALKS: Duration = Duration::from_secs(4);
/// No RTP for 60 s, and what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(90);
/// In a session of so many seconds nobody refreshes.
const INTERVAL_S: u32 = 6;
const MEDIA_PORT: u16 = 41_000;

/// What sends back the sound that comes to an end whose software takes none.
struct Echo {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(watched: &Watched) -> Self {
        let own = SocketAddr::new(watched.peer(), MEDIA_PORT);
        let socket = watched.lab.peer.enter(move || UdpSocket::bind(own)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let over = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut packet = [0; 2_048];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut packet) {
                    let _ = socket.send_to(&packet[..length], from);
                }
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// A SIPp that makes itself the refresher, refreshes nothing, hangs up on nobody and sends back what sound it gets; and a Net::SIP
/// that calls it, talks for a while and is silent then.
fn asleep(family: Family, attach: &str, on_expired: &str) -> (Program, Sipp, Watched) {
    let watched = Watched::new(family, attach, &[RULES[0], RULES[1], on_expired]);
    let sipp = idle(&watched);
    let server = talks(&watched);
    (server, sipp, watched)
}

fn idle(watched: &Watched) -> Sipp {
    let play = Play::peer_is_called(watched.peer(), INTERVAL_S).that_has_to_refresh().that_is_patient().that_echoes();
    Sipp::start(&watched.lab.peer, play).unwrap()
}

fn talks(watched: &Watched) -> Program {
    let (own, hold) = (watched.server(), PATIENCE * 2);
    Program::net_sip_that_talks(&watched.lab.server, own, &watched.callee(), hold, TALKS).unwrap()
}

/// The BYEs that went by between the hosts, by who sent them.
fn byes(ledger: &Ledger, from: IpAddr) -> usize {
    ledger.requests(from).into_iter().filter(|request| request.method() == Some("BYE")).count()
}

/// The server has heard that the peer hangs up, and that the session has timed out; nothing of that has left its host.
fn server_is_told(server: &Program, watched: &Watched) {
    let told = server.logs(&["the peer hung up"], PATIENCE * 2);
    told.unwrap_or_else(|error| panic!("{error:#}\n{}", watched.report()));
    let log = server.log();
    assert!(log.contains("BYE sip:server@") && log.contains("cause=408;text=\"Session timeout\""), "{log}");
    let ledger = watched.ledger();
    assert_eq!((byes(&ledger, watched.server()), byes(&ledger, watched.peer())), (1, 0), "{}", watched.report());
    let ended = watched.sipst().event("session_ended", SOON).unwrap();
    assert_eq!((&ended["by"], &ended["reason"]), (&"sipst".into(), &"expired".into()), "{ended}");
    assert_eq!(watched.sipst().count("bye_sent"), 2, "{}", watched.report());
}

/// And so has the peer.
fn is_hung_up(server: &Program, sipp: &mut Sipp, watched: &Watched) {
    server_is_told(server, watched);
    let done = sipp.succeeds(&watched.lab.peer, SOON);
    done.unwrap_or_else(|error| panic!("{error:#}\n{}", watched.report()));
    let messages = sipp.messages(&watched.lab.peer).unwrap();
    assert!(messages.contains("cause=408;text=\"Session timeout\""), "{messages}");
    watched.ledger().is_clean(watched.server()).unwrap_or_else(|error| panic!("{error}\n{}", watched.report()));
    assert_eq!(watched.sipst().count("bye_failed"), 0, "{}", watched.report());
}

#[test]
fn calls_of_real_software_that_nobody_is_in_any_more_are_hung_up_and_others_are_not() {
    thread::scope(|scope| {
        for (family, attach) in [(Family::V4, "tc"), (Family::V6, "xdp")] {
            scope.spawn(move || {
                let (server, mut sipp, watched) = asleep(family, attach, RULES[2]);
                is_hung_up(&server, &mut sipp, &watched);
            });
        }
        for (family, attach) in [(Family::V4, "xdp"), (Family::V6, "tc")] {
            scope.spawn(move || {
                // The next daemon has its own minute to wait, and begins with it in the midst of the first one's.
                let (server, mut sipp, mut watched) = asleep(family, attach, RULES[2]);
                watched.told("session_expired", 1, SOON);
                watched.kill();
                watched.start_again();
                is_hung_up(&server, &mut sipp, &watched);
            });
        }
        scope.spawn(|| {
            // The peer vanishes before it would refresh.
            let watched = Watched::new(Family::V4, "tc", &RULES);
            let mut sofia = Program::sofia(&watched.lab.peer, &Sofia::at(watched.peer(), 16, true)).unwrap();
            let echo = Echo::start(&watched);
            let server = talks(&watched);
            server.logs(&["has said all"], SOON).unwrap();
            sofia.crash().unwrap();
            drop(echo);
            server_is_told(&server, &watched);
        });
        for (family, attach, on_expired) in [(Family::V4, "tc", "on_expired: alert"), (Family::V6, "xdp", RULES[2])] {
            scope.spawn(move || {
                let (server, _sipp, mut watched) = asleep(family, attach, on_expired);
                watched.sipst().event("session_expired", SOON).unwrap();
                if on_expired == RULES[2] {
                    // Without a daemon nobody is hung up.
                    watched.kill();
                }
                thread::sleep(PATIENCE - Duration::from_secs(12));
                let ledger = watched.ledger();
                let sent = (byes(&ledger, watched.server()), byes(&ledger, watched.peer()));
                assert_eq!(sent, (0, 0), "{}", watched.report());
                assert!(!server.log().contains("the peer hung up"), "{}", server.log());
            });
        }
    });
}
