//! A daemon that has found its sessions in the store, the server that it stands in for, and their peers.

use std::{
    fs,
    net::UdpSocket,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::socket_cookie;
use sipst::clock::monotonic_ns;
use st_tests::{Host, Lab};

use crate::{
    calls::SERVER,
    daemon::Daemon,
    peer::{self, Seen},
    sessions,
    usage::Usage,
};

/// A server's host with its socket and the peers' with theirs, and the calls between them in a store.
pub(crate) struct Stage {
    lab: Lab,
    pub(crate) server: UdpSocket,
    pub(crate) seen: Arc<Seen>,
    /// When each call falls due, after the first.
    dues: Vec<Duration>,
    /// When that does, in nanoseconds of `CLOCK_MONOTONIC`.
    first_ns: u64,
    pub(crate) daemon: Daemon,
}

impl Stage {
    /// The first is due `ahead` of now, and sipst sends no more refreshes a second than `rate`.
    pub(crate) fn new(dir: &Path, dues: Vec<Duration>, ahead: Duration, rate: u32) -> Self {
        let lab = Lab::new().expect("two hosts");
        let (near, far) = (lab.wire.a.interface.clone(), lab.wire.b.interface.clone());
        let run = |host: &Host, line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            host.run("ip", &words).expect("an address");
        };
        let own = SERVER.ip();
        run(&lab.server, &format!("address add {own}/32 dev {near}"));
        run(&lab.server, &format!("route add 198.51.100.0/24 dev {near} src {own}"));
        // Every address of it is the peers' host's own.
        run(&lab.peer, "route add local 198.51.100.0/24 dev lo");
        run(&lab.peer, &format!("route add {own}/32 dev {far}"));
        let server = lab.server.enter(|| UdpSocket::bind(SERVER)).expect("the server's socket");
        server.set_nonblocking(true).expect("a socket");
        let cookie = socket_cookie(&server).expect("a socket of Linux's");
        let calls = dues.len();
        let seen = lab.peer.enter(move || {
            let socket = UdpSocket::bind(("0.0.0.0", SERVER.port())).expect("the peers' socket");
            peer::answer(socket, calls)
        });
        eprintln!("wire: {calls} sessions are written, the first of which is due in {} s", ahead.as_secs());
        let began = Instant::now();
        let first_ns = sessions::write(dir, cookie, &dues, ahead);
        let disk: u64 = fs::read_dir(dir)
            .expect("a directory")
            .flatten()
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum();
        eprintln!("wire: took {} s, {} MB", began.elapsed().as_secs(), disk >> 20);
        let config = format!(
            "interfaces: [{near}]\nstate_dir: {}\ncontrol:\n  socket: off\nrefresh_rate: {rate}\n\
             default:\n  action: refresh\n  refresh_rate: {rate}\n  media_evidence: off\n",
            dir.display()
        );
        let daemon = Daemon::start(&lab.server, &config, None, ahead);
        eprintln!("wire: ready after {:.1} s", daemon.start.as_secs_f64());
        Self { lab, server, seen, dues, first_ns, daemon }
    }

    /// Waits until that long after the first is due.
    pub(crate) fn sleep_until(&self, after: Duration) {
        let at = self.first_ns + after.as_nanos() as u64;
        let left =
            at.checked_sub(monotonic_ns()).expect("sipst is ready before the first refresh is due: give it more time");
        thread::sleep(Duration::from_nanos(left));
    }

    /// How long after it was due the first refresh of each of these calls came; `None`: it has not come.
    pub(crate) fn lags(&self, calls: std::ops::Range<usize>) -> Vec<Option<Duration>> {
        let lag = |call: usize| {
            let due = self.first_ns + self.dues[call].as_nanos() as u64;
            let came = Some(self.seen.first[call].load(Relaxed)).filter(|came| *came > 0)?;
            Some(Duration::from_nanos(came.saturating_sub(due)))
        };
        calls.map(lag).collect()
    }

    /// How many events of a kind there were.
    pub(crate) fn told(&self, kinds: &[&str]) -> Vec<usize> {
        let mut counts = vec![0; kinds.len()];
        self.daemon.events(&self.lab.server, |event| {
            if let Some(at) = kinds.iter().position(|kind| event["event"] == *kind) {
                counts[at] += 1;
            }
        });
        counts
    }
}

/// What happens while something is measured.
pub(crate) struct Span {
    /// What the daemon took.
    pub(crate) usage: Usage,
    /// How long the kernel programs ran, and for how many packets.
    pub(crate) programs: Duration,
    pub(crate) packets: u64,
}

/// Has it happen.
pub(crate) fn span(daemon: &Daemon, what: impl FnOnce()) -> Span {
    let before = (daemon.usage(), daemon.programs.ran());
    what();
    let (usage, ran) = (daemon.usage().since(before.0), daemon.programs.ran());
    Span { usage, programs: ran.0 - before.1.0, packets: ran.1 - before.1.1 }
}
