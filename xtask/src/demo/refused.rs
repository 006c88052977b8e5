//! The second scene: the peer refreshes, and the server answers 405 to its UPDATE and 503 to its re-INVITE.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use st_tests::{
    Lab, Sipst, Tap,
    agent::{Agent, Event, Profile, Refusal, Timer, Update},
};

use super::{
    INTERVAL, INTERVAL_S,
    screen::{Actor, Screen},
};

const CONFIG: &str = "
interfaces: [eth0]
trunks:
  - name: demo
    match: { peers: [10.0.0.0/24] }
    action: refresh
    respond: on-reject
    interval_floor: 4s
    min_se: 4s
";

/// How long anything that happens at once may take.
const SOON: Duration = Duration::from_secs(8);

/// How a call went.
pub(super) struct Outcome {
    lasted: Duration,
    ended_by_peer: bool,
    /// What the peer got for its refreshes.
    answers: Vec<u16>,
    /// What the server said to them.
    refusals: usize,
    /// The peer's answer to the server's BYE.
    bye_status: Option<u16>,
    pub(super) faults: Vec<String>,
}

impl Outcome {
    pub(super) fn died(&self) -> bool {
        self.ended_by_peer && !self.answers.contains(&200) && !self.answers.is_empty() && self.faults.is_empty()
    }

    pub(super) fn lived(&self) -> bool {
        !self.ended_by_peer
            && self.lasted > 3 * INTERVAL
            && self.answers.len() >= 5
            && self.answers.iter().all(|status| *status == 200)
            && self.refusals >= self.answers.len()
            && self.bye_status == Some(200)
            && self.faults.is_empty()
    }

    pub(super) fn story(&self) -> String {
        let lasted = self.lasted.as_secs_f64();
        if self.ended_by_peer {
            return format!("refused with {:?}, the peer hung up after {lasted:.1} s", self.answers);
        }
        let status = self.bye_status.map_or("nothing".to_owned(), |status| status.to_string());
        let (refusals, answers) = (self.refusals, self.answers.len());
        format!(
            "{lasted:.1} s; {refusals} refusals, {answers} refreshes answered by 200; the server hung up and got {status}"
        )
    }
}

/// Plays the call once.
pub(super) fn call(screen: &mut Screen, with_sipst: bool) -> Result<Outcome> {
    screen.heading(if with_sipst {
        "4  The same with sipst beside the server"
    } else {
        "3  The peer refreshes, the server refuses"
    });
    let lab = Lab::new()?;
    let sipst = with_sipst.then(|| Sipst::start(&lab.server, CONFIG)).transpose()?;
    let tap = Tap::start(&lab.peer, &lab.wire.b.interface)?;
    let timer = Some(Timer { interval_s: INTERVAL_S, refresher: Some("uac") });
    let refuse = vec![Refusal::new(503); 20];
    let profile = Profile { timer, update: Update::ListAndRefuse(405), refuse, ..Profile::plain_server() };
    let server = Agent::start(&lab.server, (lab.wire.a.v4, 5060).into(), profile)?;
    let peer = Agent::start(&lab.peer, (lab.wire.b.v4, 5060).into(), Profile::strict_peer(INTERVAL_S, "uac"))?;
    peer.call(server.address());
    peer.established(SOON)?;
    let mut scene = Scene { screen, peer: &peer, with_sipst, shown: 0 };
    let mut answers = Vec::new();
    let began = Instant::now();
    for method in ["UPDATE", "INVITE"].into_iter().cycle() {
        scene.watch(INTERVAL / 2);
        if peer.is_over() || began.elapsed() > 3 * INTERVAL {
            break;
        }
        peer.request(method);
        // A call that dies meanwhile needs no answer.
        answers.extend(peer.answered(method, SOON).ok().filter(|_| !peer.is_over()));
    }
    let ended_by_peer = peer.is_over();
    if !ended_by_peer {
        server.bye();
    }
    let bye = if ended_by_peer { &peer } else { &server };
    let bye_status = bye.answered("BYE", SOON).ok();
    scene.watch(Duration::ZERO);
    let mut faults = [peer.faults(), server.faults()].concat();
    faults.extend(super::end(&tap, sipst)?);
    let refusals = server.answers().into_iter().filter(|status| [405, 503].contains(status)).count();
    Ok(Outcome { lasted: super::lasted(&peer), ended_by_peer, answers, refusals, bye_status, faults })
}

/// What is shown of the call, as the peer sees it.
struct Scene<'a> {
    screen: &'a mut Screen,
    peer: &'a Agent,
    with_sipst: bool,
    shown: usize,
}

impl Scene<'_> {
    /// Shows what happens for so long, or until the call is over.
    fn watch(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            self.news();
            super::show_deadline(self.screen, self.peer);
            if Instant::now() >= until || self.peer.is_over() {
                self.screen.clear_bar();
                return self.news();
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn news(&mut self) {
        let records = self.peer.records();
        for record in &records[self.shown..] {
            let at = record.at.saturating_duration_since(records[0].at);
            let (message, to_peer) = match &record.event {
                Event::Received(message) => (message, true),
                Event::Sent(message) => (message, false),
                Event::Fault(text) => {
                    self.screen.note(text);
                    continue;
                }
                Event::Established | Event::Ended { .. } => continue,
            };
            let (name, note) = match (message.method(), message.status()) {
                (Some("BYE"), _) => ("BYE".to_owned(), message.header("Reason").unwrap_or_default().to_owned()),
                (Some(method), _) => (method.to_owned(), String::new()),
                (None, Some(180)) | (None, None) => continue,
                (None, Some(status)) => {
                    let timer = message.header("Session-Expires").map(|value| format!("Session-Expires: {value}"));
                    (status.to_string(), timer.unwrap_or_default())
                }
            };
            // The server takes the first INVITE and answers its own BYE; every other 200 to the peer is sipst's.
            let cseq = message.cseq();
            let first =
                cseq.as_ref().is_some_and(|cseq| cseq.number == 4_711) || cseq.is_some_and(|cseq| cseq.method == "BYE");
            let ours = self.with_sipst && to_peer && message.status() == Some(200) && !first;
            let note = if ours { format!("{note}, in the server's name") } else { note };
            self.screen.arrow(at, if ours { Actor::Sipst } else { Actor::Server }, to_peer, &name, &note);
        }
        self.shown = records.len();
    }
}
