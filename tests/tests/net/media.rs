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

use st_tests::{Family, agent::Profile};

use crate::plan::{Call, INTERVAL_S, Plan, SOON};

/// The port in the agents' session descriptions.
const RTP_PORT: u16 = 40_000;

/// RTP of the server's, 50 packets a second, until it is stopped.
struct Rtp {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Rtp {
    fn start(call: &Call) -> Self {
        let [from, to] = [call.server.address(), call.peer.address()].map(|sip| SocketAddr::new(sip.ip(), RTP_PORT));
        let socket = call.lab.server.enter(move || UdpSocket::bind(from)).unwrap();
        let over = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let packet = [&[0x80, 0, 0, 1][..], &[0xff; 168]].concat();
            while !ended.load(Ordering::Relaxed) {
                // Nobody listens there; what the kernel says to that is of no concern.
                let _ = socket.send_to(&packet, to);
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self { over, thread: Some(thread) }
    }

    fn stop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
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
