//! What crosses the wire: SIPp at both ends, and RTP both ways. All of it runs on one processor, so that it can be told apart from what
//! runs on another.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity};
use st_tests::{Family, Host, Lab, Process};

use crate::usage::Usage;

/// The processor of all that is here.
pub(crate) const PROCESSOR: usize = 0;

/// Calls a second, and for how long each is up.
pub(crate) const CALLS: u32 = 1_000;
pub(crate) const HOLD: Duration = Duration::from_secs(1);

/// INVITE, 180, 200, ACK, BYE, 200.
pub(crate) const MESSAGES: u64 = 6;

/// Packets of media a second, half of them each way.
pub(crate) const MEDIA: u64 = 30_000;

/// What SIPp may take beyond the calls themselves: its copies of what was lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of the calls, both ends together.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    pub(crate) sent_again: u64,
    /// Of the processor, by both ends.
    pub(crate) busy: Duration,
}

/// Has the server call the peer for so long.
pub(crate) fn call(lab: &Lab, time: Duration) -> Called {
    let calls = u32::try_from(time.as_secs()).expect("some minutes") * CALLS;
    let [own, far] = [&lab.wire.a, &lab.wire.b].map(|end| end.ip(Family::V4));
    let answers = include_str!("../../../tests/sipp/load_answers.xml").to_owned();
    let made = include_str!("../../../tests/sipp/load_calls.xml").replace("HOLD_MS", &HOLD.as_millis().to_string());
    let mut peer = sipp(&lab.peer, "load_answers", answers, far, None, calls);
    peer.opens(&lab.peer, 5060, Duration::from_secs(10)).expect("SIPp at the peer");
    let mut server = sipp(&lab.server, "load_calls", made, own, Some(SocketAddr::new(far, 5060)), calls);
    let mut busy = [Duration::ZERO; 2];
    let until = Instant::now() + time + HOLD + PATIENCE;
    loop {
        let ended = server.wait(Duration::ZERO).is_ok();
        for (busy, process) in busy.iter_mut().zip([&server, &peer]) {
            *busy = (*busy).max(Usage::of(process.id()).busy);
        }
        if ended || Instant::now() > until {
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    // Copies that are on their way still, and answers to them. Whichever call has not ended by then has failed.
    let _ = peer.wait(Duration::from_secs(5));
    for process in [&server, &peer] {
        let _ = process.signal(rustix::process::Signal::TERM);
    }
    let [made, answered] =
        [(&lab.server, "load_calls"), (&lab.peer, "load_answers")].map(|(host, name)| counts(host, name));
    Called {
        successful: made[0].min(answered[0]),
        failed: (u64::from(calls) - made[0]).max(made[1]).max(answered[1]),
        sent_again: made[2] + answered[2],
        busy: busy.iter().sum(),
    }
}

fn sipp(host: &Host, name: &str, xml: String, own: IpAddr, target: Option<SocketAddr>, calls: u32) -> Process {
    let file = host.file(&format!("{name}.xml"), xml).expect("a host's own /run");
    let _ = host.enter({
        let file = format!("/run/{name}.csv");
        move || std::fs::remove_file(file)
    });
    let mut command = Command::new("taskset");
    command.current_dir("/run").env("TERM", "dumb").args(["-c", &PROCESSOR.to_string(), "sipp", "-sf"]).arg(file);
    command.args(["-i", &own.to_string(), "-p", "5060", "-m", &calls.to_string(), "-r", &CALLS.to_string()]);
    command.args(["-l", "20000", "-nostdin", "-deadcall_wait", "0", "-buff_size", "8388608"]);
    command.args(["-trace_stat", "-stf", &format!("/run/{name}.csv"), "-fd", "1"]);
    command.args(target.map(|target| target.to_string()));
    host.spawn(command).expect("SIPp")
}

/// Calls that went well, calls that failed, and messages that were sent again.
fn counts(host: &Host, name: &str) -> [u64; 3] {
    let table = host.read(format!("/run/{name}.csv")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let table = table.unwrap_or_default();
    let row = |line: Option<&str>| -> Vec<String> { line.unwrap_or_default().split(';').map(str::to_owned).collect() };
    let (names, last) = (row(table.lines().next()), row(table.lines().last()));
    ["SuccessfulCall(C)", "FailedCall(C)", "Retransmissions(C)"].map(|name| {
        let at = names.iter().position(|one| one == name).expect("a column of SIPp's table");
        last.get(at).and_then(|value| value.trim().parse().ok()).unwrap_or_default()
    })
}

/// RTP, as long as it is not stopped.
pub(crate) struct Media {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<u64>,
}

impl Media {
    pub(crate) fn start(lab: &Lab) -> Self {
        let [own, far] = [&lab.wire.a, &lab.wire.b].map(|end| SocketAddr::new(end.ip(Family::V4), 40_000));
        let socket = move |own: SocketAddr, other: SocketAddr| {
            move || {
                let socket = UdpSocket::bind(own).expect("a socket");
                socket.connect(other).expect("an address on the same wire");
                socket.set_nonblocking(true).expect("a socket");
                rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20).expect("room in the socket");
                socket
            }
        };
        let ends = [lab.server.enter(socket(own, far)), lab.peer.enter(socket(far, own))];
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let mut only = CpuSet::new();
            only.set(PROCESSOR);
            sched_setaffinity(None, &only).expect("a processor");
            talk(&ends, &stopped, &count)
        });
        Self { stop, sent, thread }
    }

    /// Packets that were sent, and those that did not come.
    pub(crate) fn stop(self) -> (u64, u64) {
        self.stop.store(true, Relaxed);
        let came = self.thread.join().expect("the media's thread");
        let sent = self.sent.load(Relaxed);
        (sent, sent.saturating_sub(came))
    }
}

/// Sends as many as are due each millisecond, and takes what has come. Returns how many came.
fn talk(ends: &[UdpSocket; 2], stop: &AtomicBool, sent: &AtomicU64) -> u64 {
    let mut packet = [0x55; 172];
    (packet[0], packet[1]) = (0x80, 8);
    let (began, mut count, mut came) = (Instant::now(), 0, 0);
    let mut take = || {
        for end in ends {
            let mut place = [0; 256];
            loop {
                match end.recv(&mut place) {
                    Ok(_) => came += 1,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("RTP: {error}"),
                }
            }
        }
    };
    while !stop.load(Relaxed) {
        let due = began.elapsed().as_millis() as u64 * MEDIA / 1_000;
        // Whoever was not let run for long does not make up for all of it.
        count = due.saturating_sub(MEDIA / 10).max(count);
        while count < due {
            let end = &ends[(count % 2) as usize];
            sent.fetch_add(u64::from(end.send(&packet).is_ok()), Relaxed);
            count += 1;
        }
        take();
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(50));
    take();
    came
}
