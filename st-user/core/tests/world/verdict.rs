//! How a world fared: which calls lived, which were lost, whether that was told in time, and what must never be.

use std::fmt;

use st_core::{EventKind, engine::reason};

use super::{
    agent::{Act, Agent, Life, S, Us, Why},
    driver::time,
    plan::CallPlan,
    stacks::{OnUpdate, PEERS, SERVERS},
    world::{Call, Tally, World},
};

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It never came up.
    NoSetup,
    /// It ended when a user hung up.
    Lived,
    /// One side was gone.
    Crashed,
    /// The server knows of timers, could not refresh, and hung up itself: what sipst does is not known to it.
    GaveUp,
    /// The ACK to one of the two sides' own re-INVITEs never came through.
    Unacked,
    /// It ended by itself, then.
    Lost(Us),
}

fn ended(agent: &Agent) -> Option<(Us, Why)> {
    match agent.life {
        Life::Over(at, why) => Some((at, why)),
        Life::Idle | Life::Setup | Life::Up => None,
    }
}

fn fate(call: &Call) -> Fate {
    if !call.came_up() {
        return Fate::NoSetup;
    }
    let ends = [ended(&call.server), ended(&call.peer)];
    if ends.iter().flatten().any(|(_, why)| *why == Why::Crashed) {
        return Fate::Crashed;
    }
    let own = |agent: &Agent| agent.diary.unacked.as_ref().is_some_and(|branch| !branch.contains("z9hG4bKsipst"));
    if own(&call.server) || own(&call.peer) {
        return Fate::Unacked;
    }
    if matches!(call.server.life, Life::Over(_, Why::Expired)) {
        return Fate::GaveUp;
    }
    let killed = call.proxy.as_ref().and_then(|proxy| proxy.killed);
    let first = ends.iter().flatten().copied().min_by_key(|(at, _)| *at);
    match (first, killed) {
        (Some((at, _)), Some(killed)) if killed <= at => Fate::Lost(killed),
        (Some((_, Why::Planned)), _) => Fate::Lived,
        (Some((at, _)), _) => Fate::Lost(at),
        (None, _) => Fate::Lived,
    }
}

/// Whether sipst could have kept a call alive.
fn was_possible(world: &World, call: &Call, plan: &CallPlan) -> Result<(), &'static str> {
    let (server, peer) = (&SERVERS[plan.server], &PEERS[plan.peer]);
    let updates = peer.on_update == OnUpdate::Accepts;
    let holds = plan.acts.iter().any(|(_, _, act)| *act == Act::Hold);
    if call.judge.agreed.is_none() {
        return Err("no interval was seen");
    }
    let begun = world.driver.events.iter().any(|event| {
        event.kind == EventKind::SessionStarted
            && event.call_id.as_deref() == Some(&call.call_id)
            && event.reason.as_deref() != Some(reason::MID_CALL)
    });
    if !begun {
        return Err("its beginning went by unseen");
    }
    if call.judge.is_full(server.spelling.cseq.matches(' ').count()) {
        return Err("no room for numbers");
    }
    // A re-INVITE would take the call off hold (F11).
    if holds && server.ignores_hold && !updates {
        return Err("held, and no UPDATE");
    }
    // Nothing is sent beside a request of the server's own, and this one is without an answer until it is too late.
    if server.refreshes && peer.on_update == OnUpdate::Swallows && plan.interval < 200 {
        return Err("the server's own refresh was swallowed");
    }
    Ok(())
}

/// Over many worlds.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    calls: u64,
    lived: u64,
    no_setup: u64,
    crashed: u64,
    possible: u64,
    lost: u64,
    lost_though_possible: u64,
    excused: Tally,
    injected: u64,
    servers: Tally,
    peers: Tally,
    faults: Tally,
    events: Tally,
    stories: Vec<String>,
}

/// Lost calls that are told in full.
const STORIES: usize = 12;

/// Takes a world in; the error is what must never be.
pub(crate) fn judge(world: &World, summary: &mut Summary, strict: bool) -> Result<(), String> {
    for (call, plan) in world.calls.iter().zip(&world.plan.calls) {
        if let Some(breach) = call.judge.breaches.first() {
            return Err(format!("{}: {breach}", call.call_id));
        }
        // Numbers that went by unseen cannot be kept clear of: that is what a refusal with 500 and one more try are for.
        let blind = world.lost_requests(&call.call_id);
        if let Some(stale) = call.judge.stale.first() {
            if !blind {
                return Err(format!("{}: {stale}", call.call_id));
            }
            *summary.excused.entry("a number that had gone by unseen was sent again").or_default() += 1;
        }
        for (agent, side) in [(&call.server, "server"), (&call.peer, "peer")] {
            if let Some(oddity) = agent.diary.oddities.first().filter(|_| !blind) {
                return Err(format!("{}: the {side} got {oddity}", call.call_id));
            }
        }
        // The whole point of keeping the numbers right: the server can always leave.
        if call.server.diary.bye == Some(500) && !blind {
            return Err(format!("{}: the server's BYE was refused with 500", call.call_id));
        }
        take(world, call, plan, summary, strict)?;
    }
    let stats = world.driver.engine.stats();
    let left = (stats.sessions, stats.tombstones, stats.own_requests, world.kernel.holds());
    if left != (0, 0, 0, (0, 0)) {
        return Err(format!("not at rest: {left:?}"));
    }
    for (what, count) in &world.tally {
        *summary.faults.entry(what).or_default() += count;
    }
    let counts = &world.kernel.counts;
    for (what, count) in [
        ("sample lost", counts.ring_full),
        ("number shifted out", counts.shifted_out),
        ("number shifted back", counts.shifted_in),
        ("number without room", counts.no_room),
        ("answer taken off the wire", counts.taken),
        ("number had moved", counts.moved),
        ("ranges full", counts.ranges_full),
    ] {
        *summary.faults.entry(what).or_default() += count;
    }
    for event in &world.driver.events {
        *summary.events.entry(event.kind.name()).or_default() += 1;
    }
    Ok(())
}

fn take(world: &World, call: &Call, plan: &CallPlan, summary: &mut Summary, strict: bool) -> Result<(), String> {
    summary.calls += 1;
    *summary.servers.entry(SERVERS[plan.server].name).or_default() += 1;
    *summary.peers.entry(PEERS[plan.peer].name).or_default() += 1;
    *summary.peers.entry("behind a proxy").or_default() += u64::from(plan.has_proxy());
    summary.injected += u64::from(call.judge.injected);
    let mut fault = |what, count: u64| *summary.faults.entry(what).or_default() += count;
    for status in &call.peer.diary.refused {
        let what = match status {
            401 => "refresh refused with 401",
            408 => "refresh refused with 408",
            422 => "refresh refused with 422",
            491 => "refresh refused with 491",
            500 => "refresh refused with 500",
            503 => "refresh refused with 503",
            504 => "refresh refused with 504",
            _ => "refresh refused otherwise",
        };
        fault(what, 1);
    }
    fault("glare", u64::from(call.server.diary.glare + call.peer.diary.glare));
    fault("refreshed by the server itself", u64::from(call.server.diary.refreshes));
    fault("refreshed by the peer", u64::from(call.peer.diary.refreshes));
    fault("number refused by the peer", u64::from(call.peer.diary.stale));
    fault("re-INVITE of sipst's", u64::from(call.judge.acks));
    let fate = fate(call);
    match fate {
        Fate::NoSetup => {
            summary.no_setup += 1;
            return Ok(());
        }
        Fate::Crashed => {
            summary.crashed += 1;
            return Ok(());
        }
        Fate::GaveUp => {
            *summary.excused.entry("the server itself gave up").or_default() += 1;
            return Ok(());
        }
        Fate::Unacked => {
            *summary.excused.entry("a re-INVITE of the call's own was never ACKed").or_default() += 1;
            return Ok(());
        }
        Fate::Lived | Fate::Lost(_) => {}
    }
    if let Err(why) = was_possible(world, call, plan) {
        *summary.excused.entry(why).or_default() += 1;
    } else {
        summary.possible += 1;
        summary.lost_though_possible += u64::from(fate != Fate::Lived);
    }
    let Fate::Lost(at) = fate else {
        summary.lived += 1;
        return Ok(());
    };
    summary.lost += 1;
    let of_call = |event: &&st_core::Event| event.call_id.as_deref() == Some(&call.call_id);
    // The clock of a UAS runs from the first 2xx, which may have been lost: sipst's from the first that came to here.
    let behind = call.judge.since.saturating_sub(call.peer.since);
    let told = world.driver.events.iter().any(|event| {
        let concerns = of_call(&event) || event.kind == EventKind::CaptureLoss;
        event.kind.is_alert() && concerns && event.time <= time(at)
    });
    let story = || {
        let mut story = format!(
            "{} lost at {:.3} s: {:?} with {} and {}, server {:?}, peer {:?}, judge {:?}",
            call.call_id,
            at as f64 / 1e6,
            plan,
            SERVERS[plan.server].name,
            PEERS[plan.peer].name,
            call.server.life,
            call.peer.life,
            call.judge.agreed,
        );
        for event in world.driver.events.iter().filter(of_call) {
            let seconds = event.time.since(time(0)).as_secs_f64();
            let (by, status, reason) = (&event.by, &event.status, &event.reason);
            story += &format!("\n    {seconds:.3} {} {by:?} {status:?} {reason:?}", event.kind.name());
        }
        story
    };
    // What happens before the deadline, as it is seen from here, cannot be foretold.
    let early = call.judge.agreed.is_some_and(|(seconds, _)| {
        let whole = Us::from(seconds) * S;
        behind > 0 && at < call.judge.since + whole - (whole / 3).min(32 * S)
    });
    if !told && !early && call.judge.agreed.is_some() {
        return Err(format!("not told in time: {}", story()));
    }
    if strict && was_possible(world, call, plan).is_ok() {
        return Err(story());
    }
    if summary.stories.len() < STORIES && was_possible(world, call, plan).is_ok() {
        summary.stories.push(story());
    }
    Ok(())
}

/// Calls that ended because nothing refreshed them, and all that came up and did not crash.
pub(crate) fn lost_by_expiry(world: &World) -> (u32, u32) {
    let fates = world
        .calls
        .iter()
        .map(fate)
        .filter(|fate| !matches!(fate, Fate::NoSetup | Fate::Crashed | Fate::Unacked | Fate::GaveUp));
    fates.fold((0, 0), |(lost, all), fate| (lost + u32::from(fate != Fate::Lived), all + 1))
}

/// Faults that every run has to meet, and how often in a thousand calls at least: a hundred thousand calls meet each of
/// them a thousand times.
const FLOORS: &[(&str, u64)] = &[
    ("packet lost", 1_000),
    ("packet doubled", 1_000),
    ("packet reordered", 1_000),
    ("dropped by a firewall", 50),
    ("sample lost", 50),
    ("daemon slept", 100),
    ("number shifted out", 200),
    ("number shifted back", 200),
    ("answer taken off the wire", 1_000),
    ("number had moved", 20),
    ("number refused by the peer", 20),
    ("glare", 10),
    ("re-INVITE of sipst's", 100),
    ("refreshed by the peer", 100),
    ("refreshed by the server itself", 100),
    ("a request before the entry was made", 20),
    ("a request before the ring was drained", 20),
    ("a request before the numbers were read", 20),
    ("a request after the ring was drained", 20),
    ("a request before the injected one left", 20),
    ("a request after the injected one left", 20),
    ("refresh refused with 401", 10),
    ("refresh refused with 408", 10),
    ("refresh refused with 422", 10),
    ("refresh refused with 491", 10),
    ("refresh refused with 500", 10),
    ("refresh refused with 503", 10),
    ("refresh refused with 504", 10),
    ("server was gone", 10),
];

impl Summary {
    /// What holds over a whole run.
    pub(crate) fn assert_good(&self, calls: u64) {
        for (what, floor) in FLOORS {
            let met = self.faults.get(what).copied().unwrap_or(0);
            assert!(met * 1_000 >= floor * calls, "{what}: met {met} times");
        }
        let stacks =
            SERVERS.iter().map(|stack| (stack, &self.servers)).chain(PEERS.iter().map(|stack| (stack, &self.peers)));
        for (stack, met) in stacks {
            let met = met.get(stack.name).copied().unwrap_or(0);
            assert!(met * 50 >= calls, "{}: met {met} times", stack.name);
        }
        assert!(self.possible > calls / 4, "{} of {calls} calls could be refreshed", self.possible);
        assert!(
            self.lost_though_possible * 100 <= self.possible,
            "{} of {} calls were lost",
            self.lost_though_possible,
            self.possible
        );
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, lived, no_setup, crashed, possible, lost, lost_though_possible, injected, .. } = self;
        writeln!(f, "{calls} calls: {lived} lived, {lost} lost, {crashed} crashed, {no_setup} never came up")?;
        writeln!(
            f,
            "{possible} could be refreshed, of these {lost_though_possible} lost; {injected} refreshes by sipst"
        )?;
        for (title, counts) in [
            ("servers", &self.servers),
            ("peers", &self.peers),
            ("excused", &self.excused),
            ("faults", &self.faults),
            ("events", &self.events),
        ] {
            writeln!(f, "{title}:")?;
            for (what, count) in counts {
                writeln!(f, "{count:>9} {what}")?;
            }
        }
        for story in &self.stories {
            writeln!(f, "{story}")?;
        }
        Ok(())
    }
}
