//! `cargo xtask demo`: two calls, each without sipst and with it. In the first nobody refreshes, and the server is SIPp, which knows
//! nothing of session timers; in the second the peer does, and the server refuses. The peer hangs up unless the session is
//! refreshed in time. Both live in network namespaces that nobody else can see and that end with this process.

mod refused;
mod screen;

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use st_tests::{
    Lab, Play, Sipp, Sipst, Tap,
    agent::{Agent, Event, Message, Profile},
};

use self::screen::{Actor, Screen};
use crate::{build, setup, shell};

/// The session interval that the peer enforces.
const INTERVAL_S: u32 = 6;
const INTERVAL: Duration = Duration::from_secs(INTERVAL_S as u64);

/// How long the server holds the call before it hangs up: more than three intervals.
const HOLD: Duration = Duration::from_secs(3 * INTERVAL_S as u64 + 2);

/// The lowered floor is for this peer alone: real trunks keep the 90 s of RFC 4028.
const CONFIG: &str = "
interfaces: [eth0]
trunks:
  - name: demo
    match: { peers: [10.0.0.0/24] }
    action: refresh
    interval_floor: 4s
    min_se: 4s
";

/// Where our branches begin, to tell sipst's requests from the server's.
const BRANCH_PREFIX: &str = "z9hG4bKsipst";

pub(crate) fn run() -> Result<ExitCode> {
    shell::need_root("the demo")?;
    setup::run(setup::Wants::LABORATORY)?;
    build::run(&build::Options { release: false })?;
    let mut screen = Screen::new();
    screen.title(&format!(
        "Two calls, each twice. The server knows nothing of session timers.\n\
         The peer wants a refresh every {INTERVAL_S} s and hangs up without one: in the first call (SIPp) from\n\
         the server; in the second it refreshes itself, and the server answers 405 and 503."
    ));
    let without = call(&mut screen, false)?;
    let with = call(&mut screen, true)?;
    let refused = refused::call(&mut screen, false)?;
    let answered = refused::call(&mut screen, true)?;
    screen.heading("Verdict");
    screen.verdict(without.died_at_expiry(), "without sipst", &without.story());
    screen.verdict(with.lived(), "with sipst", &with.story());
    screen.verdict(refused.died(), "refused", &refused.story());
    screen.verdict(answered.lived(), "answered", &answered.story());
    let good = without.died_at_expiry() && with.lived() && refused.died() && answered.lived();
    let faults = [&without.faults, &with.faults, &refused.faults, &answered.faults];
    for fault in faults.into_iter().flatten() {
        screen.note(fault);
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How a call went.
struct Outcome {
    lasted: Duration,
    ended_by_peer: bool,
    refreshes: usize,
    /// The peer's answer to the server's BYE.
    bye_status: Option<u16>,
    /// The BYE's number as the server wrote it and as the peer read it.
    bye_numbers: Option<(u32, u32)>,
    /// Whether SIPp met only what its scenario expects.
    server_content: bool,
    faults: Vec<String>,
}

impl Outcome {
    fn died_at_expiry(&self) -> bool {
        let late = Duration::from_secs(2);
        self.ended_by_peer && self.lasted + late > INTERVAL && self.lasted < INTERVAL + late && self.faults.is_empty()
    }

    fn lived(&self) -> bool {
        !self.ended_by_peer
            && self.lasted > 3 * INTERVAL
            && self.refreshes >= 3
            && self.bye_status == Some(200)
            && self.server_content
            && self.faults.is_empty()
    }

    fn story(&self) -> String {
        let lasted = self.lasted.as_secs_f64();
        if self.ended_by_peer {
            return format!("the peer hung up after {lasted:.1} s");
        }
        let numbers = self
            .bye_numbers
            .map_or(String::new(), |(server, peer)| format!(": the server wrote CSeq {server}, the peer read {peer}"));
        let status = self.bye_status.map_or("nothing".to_owned(), |status| status.to_string());
        let refreshes = self.refreshes;
        format!("{lasted:.1} s, {refreshes} refreshes; the server hung up and got {status}{numbers}")
    }
}

fn call(screen: &mut Screen, with_sipst: bool) -> Result<Outcome> {
    screen.heading(if with_sipst { "2  With sipst beside the server" } else { "1  Without sipst" });
    let lab = Lab::new()?;
    let (own, target) = (lab.wire.a.v4, (lab.wire.b.v4, 5060).into());
    let sipst = with_sipst.then(|| Sipst::start(&lab.server, CONFIG)).transpose()?;
    let tap = Tap::start(&lab.peer, &lab.wire.b.interface)?;
    let peer = Agent::start(&lab.peer, target, Profile::strict_peer(INTERVAL_S, "uac"))?;
    let mut server = Sipp::start(&lab.server, Play::server_calls(own, target, HOLD))?;
    let (mut shown, patience) = (0, Instant::now() + HOLD + Duration::from_secs(8));
    while Instant::now() < patience {
        let records = peer.records();
        for record in &records[shown..] {
            show(screen, &lab, &server, record.at.saturating_duration_since(records[0].at), &record.event);
        }
        shown = records.len();
        show_deadline(screen, &peer);
        if peer.is_over() && final_bye(&peer).is_some() && shown == peer.records().len() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    screen.clear_bar();
    let server_content = server.ended_well(Duration::from_secs(10)).unwrap_or(false);
    let mut faults = peer.faults();
    faults.extend(end(&tap, sipst)?);
    let ended_by_peer = peer.ended(Duration::ZERO).map_or(true, |(by_us, _)| by_us);
    let bye = peer.requests("BYE").pop();
    let read = bye.as_ref().and_then(Message::cseq).map(|cseq| cseq.number);
    Ok(Outcome {
        lasted: lasted(&peer),
        ended_by_peer,
        refreshes: peer.requests("UPDATE").len() + peer.requests("INVITE").len().saturating_sub(1),
        bye_status: final_bye(&peer),
        bye_numbers: server.wrote(&lab.server, "BYE").zip(read),
        server_content,
        faults,
    })
}

/// How long the peer still waits for a refresh.
fn show_deadline(screen: &mut Screen, peer: &Agent) {
    let status = peer.status();
    if let (Some(deadline), Some(interval)) = (status.deadline, status.interval) {
        screen.bar(deadline.saturating_duration_since(Instant::now()), interval);
    }
}

/// Ends sipst; what was wrong with it or on the wire.
fn end(tap: &Tap, sipst: Option<Sipst>) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    if let Err(error) = tap.datagrams() {
        faults.push(format!("a damaged packet: {error:#}"));
    }
    if let Some(mut sipst) = sipst {
        let status = sipst.stop()?;
        if !status.success() {
            faults.push(format!("sipst ended with {status}: {}", sipst.log()));
        }
    }
    Ok(faults)
}

/// From the first message to the end of the call.
fn lasted(peer: &Agent) -> Duration {
    let records = peer.records();
    let end = records.iter().find(|record| record.is_end()).or(records.last());
    end.zip(records.first()).map_or(Duration::ZERO, |(end, first)| end.at.saturating_duration_since(first.at))
}

/// The answer to the BYE, whoever sent it.
fn final_bye(peer: &Agent) -> Option<u16> {
    peer.records().into_iter().find_map(|record| match record.event {
        Event::Sent(message) | Event::Received(message) => {
            message.status().filter(|_| message.cseq().is_some_and(|cseq| cseq.method == "BYE"))
        }
        Event::Established | Event::Ended { .. } | Event::Fault(_) => None,
    })
}

/// One line of the timeline, as the peer sees it.
fn show(screen: &mut Screen, lab: &Lab, server: &Sipp, at: Duration, event: &Event) {
    let (message, to_peer) = match event {
        Event::Received(message) => (message, true),
        Event::Sent(message) => (message, false),
        Event::Fault(text) => return screen.note(text),
        Event::Established | Event::Ended { .. } => return,
    };
    match (message.method(), to_peer) {
        (Some("BYE"), true) => screen.remark("the server ends the call when it wants to"),
        (Some("BYE"), false) => screen.remark("nobody refreshed: the peer ends the call"),
        _ => {}
    }
    let ours = message.param("Via", "branch").is_some_and(|branch| branch.starts_with(BRANCH_PREFIX));
    let actor = if ours { Actor::Sipst } else { Actor::Server };
    let number = message.cseq().map(|cseq| cseq.number).unwrap_or_default();
    let (name, note) = match (message.method(), message.status()) {
        (Some(method), _) if ours => (method.to_owned(), format!("CSeq {number}, in the server's name")),
        (Some(method), _) if to_peer => {
            let note = match server.wrote(&lab.server, method) {
                Some(wrote) if wrote != number => format!("CSeq {wrote} at the server, {number} at the peer"),
                _ => format!("CSeq {number}"),
            };
            (method.to_owned(), note)
        }
        (Some(method), _) => (method.to_owned(), message.header("Reason").unwrap_or_default().to_owned()),
        (None, Some(180)) | (None, None) => return,
        (None, Some(status)) => {
            let timer = message.header("Session-Expires").map(|value| format!("Session-Expires: {value}"));
            (status.to_string(), timer.unwrap_or_default())
        }
    };
    screen.arrow(at, actor, to_peer, &name, &note);
}
