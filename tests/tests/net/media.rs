//! The server's media as evidence of a call that lives.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use st_tests::{
    Family, Host,
    agent::{Agent, Profile},
};

use crate::plan::{Call, INTERVAL_S, Plan, SOON};

/// The port in the agents' session descriptions.
const RTP_PORT: u16 = 40_000;

/// RTP, 50 packets a second, until it is stopped.
pub(crate) struct Rtp {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Rtp {
    /// The server's.
    fn start(call: &Call) -> Self {
        Self::of(&[(&call.lab.server, &call.server, &call.peer)])
    }

    /// The peer's.
    pub(crate) fn of_peer(call: &Call) -> Self {
        Self::of(&[(&call.lab.peer, &call.peer, &call.server)])
    }

    /// Both sides'.
    pub(crate) fn both_ways(call: &Call) -> Self {
        Self::of(&[(&call.lab.server, &call.server, &call.peer), (&call.lab.peer, &call.peer, &call.server)])
    }

    /// On these hosts, from one agent's host to another's.
    fn of(ways: &[(&Host, &Agent, &Agent)]) -> Self {
        let over = Arc::<AtomicBool>::default();
        let threads = ways.iter().map(|(host, from, to)| Self::send(host, from, to, &over)).collect();
        Self { over, threads }
    }

    fn send(host: &Host, from: &Agent, to: &Agent, over: &Arc<AtomicBool>) -> JoinHandle<()> {
        let to = SocketAddr::new(to.address().ip(), RTP_PORT);
        // Where two send from one address, this one uses another port: where it goes is what counts.
        let here = from.address().ip();
        let bind = move || UdpSocket::bind((here, RTP_PORT)).or_else(|_| UdpSocket::bind((here, 0)));
        let socket = host.enter(bind).unwrap();
        let ended = Arc::clone(over);
        thread::spawn(move || {
            let packet = [&[0x80, 0, 0, 1][..], &[0xff; 168]].concat();
            while !ended.load(Ordering::Relaxed) {
                // Nobody listens there; what the kernel says to that is of no concern.
                let _ = socket.send_to(&packet, to);
                thread::sleep(Duration::from_millis(20));
            }
        })
    }

    fn stop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

impl Drop for Rtp {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn a_call_whose_rtp_stops_is_refreshed_no_more_and_the_alert_says_why() {
    for family in [Family::V4, Family::V6] {
        let call = Plan { family, ..Plan::default() }.start();
        let mut rtp = Rtp::start(&call);
        call.refreshed(3);
        assert_eq!(call.sipst.count("refresh_overdue"), 0, "{}", call.story());
        rtp.stop();
        let interval = Duration::from_secs(INTERVAL_S.into());
        let overdue = call.sipst.event("refresh_overdue", interval * 2 + SOON).unwrap();
        assert_eq!(overdue["reason"], "media_silent", "{overdue}");
        let sent = call.peer.refreshes().len();
        assert!(call.peer.ended(SOON).unwrap().0, "{}", call.story());
        assert_eq!(call.peer.refreshes().len(), sent, "{}", call.story());
        call.clean();
    }
}

#[test]
fn rtp_that_comes_back_lets_a_call_be_refreshed_again() {
    let call = Plan { peer: Profile::strict_peer(16, "uac"), ..Plan::default() }.start();
    let rtp = Rtp::start(&call);
    call.refreshed(1);
    drop(rtp);
    let overdue = call.sipst.event("refresh_overdue", SOON * 3).unwrap();
    assert_eq!(overdue["reason"], "media_silent", "{overdue}");
    let sent = call.peer.refreshes().len();
    let _rtp = Rtp::start(&call);
    call.refreshed(sent + 1);
    call.server_hangs_up();
}

#[test]
fn with_media_evidence_off_a_call_without_rtp_goes_on() {
    let call = Plan { rules: vec!["action: refresh", "min_se: 2s", "media_evidence: off"], ..Plan::default() }.start();
    let mut rtp = Rtp::start(&call);
    call.refreshed(1);
    rtp.stop();
    call.refreshed(5);
    assert_eq!(call.sipst.count("refresh_overdue"), 0, "{}", call.story());
    call.server_hangs_up();
}
