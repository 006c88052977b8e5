//! How a world fared: which calls lived, which were lost, whether that was told in time, and what must never be.

use std::{collections::BTreeMap, fmt, ops::Range};

use st_core::{EventKind, engine::reason};

use super::{
    agent::{Act, Agent, Life, S, Us, Why},
    driver::time,
    faults::{Fault, Tally},
    stacks::{OnUpdate, PEERS, SERVERS},
    table::{Lives, Table},
    world::{Call, World},
};

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It never came up.
    NoSetup,
    /// It ended when a user hung up.
    Lived,
    /// One side was gone.
    Crashed,
    /// A side knows of timers, could not refresh, and hung up itself: what sipst does is not known to it.
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

pub(crate) fn fate(call: &Call) -> Fate {
    if !call.came_up() {
        return Fate::NoSetup;
    }
    let ends = [ended(&call.server), ended(&call.peer)];
    if ends.iter().flatten().any(|(_, why)| matches!(why, Why::Crashed | Why::Restarted)) {
        return Fate::Crashed;
    }
    let own = |agent: &Agent| agent.diary.unacked.as_ref().is_some_and(|branch| !branch.contains("z9hG4bKsipst"));
    if own(&call.server) || own(&call.peer) {
        return Fate::Unacked;
    }
    let server_gave_up = matches!(call.server.life, Life::Over(_, Why::Expired | Why::GaveUp));
    // Where the peer has to refresh, seeing to that is what was promised.
    let promised = call.promised && call.judge.agreed.is_some_and(|(_, by_server)| !by_server);
    if server_gave_up || !promised && matches!(call.peer.life, Life::Over(_, Why::GaveUp)) {
        return Fate::GaveUp;
    }
    match end(call) {
        None | Some((_, Why::Planned)) => Fate::Lived,
        Some((at, _)) => Fate::Lost(at),
    }
}

/// When a call first ended anywhere, and why.
pub(crate) fn end(call: &Call) -> Option<(Us, Why)> {
    let killed = call.proxy.as_ref().and_then(|proxy| proxy.killed).map(|at| (at, Why::Expired));
    let ends = [killed, ended(&call.server), ended(&call.peer)];
    ends.into_iter().flatten().min_by_key(|(at, _)| *at)
}

/// Whether sipst could have kept a call alive.
fn was_possible(world: &World, index: usize, fate: Fate) -> Result<(), &'static str> {
    let end = match fate {
        Fate::NoSetup => return Err("it never came up"),
        Fate::Crashed => return Err("one side was gone"),
        Fate::GaveUp => return Err("a side gave up after a refresh of its own"),
        Fate::Unacked => return Err("a re-INVITE of the call's own was never ACKed"),
        Fate::Lived => None,
        Fate::Lost(at) => Some(at),
    };
    let (call, plan) = (&world.calls[index], &world.plan.calls[index]);
    let (server, peer) = (&SERVERS[plan.server], &PEERS[plan.peer]);
    let updates = peer.on_update == OnUpdate::Accepts;
    let Some((seconds, by_server)) = call.judge.agreed else { return Err("no interval was seen") };
    if !by_server && !plan.trunk.takes_over() {
        match plan.rejects.filter(|_| plan.trunk.answers()) {
            None => return Err("the peer had to refresh"),
            Some(rejects) if !rejects.may_be_answered() => return Err("the server said what nobody answers for it"),
            Some(_) if call.peer.contact() != call.server.target => {
                return Err("the server refused the peer's new Contact");
            }
            Some(_) if plan.early_update => return Err("an early offer"),
            Some(_) if call.met.met(Fault::HoldAsleep) + call.met.met(Fault::HoldNoRoom) > 0 => {
                return Err("a refusal went out: no daemon, or no room in the ring");
            }
            Some(_) => {}
        }
    }
    let begun = world.driver.events.iter().any(|event| {
        event.kind == EventKind::SessionStarted
            && event.local_tag().as_deref() == Some(&*call.server.tag)
            && event.reason.as_deref() != Some(reason::MID_CALL)
    });
    if !begun {
        return Err("its beginning went by unseen");
    }
    if call.judge.is_full(server.spelling) || world.kernel.cramped.contains(&call.server.tag) {
        return Err("no room for numbers");
    }
    // A re-INVITE would take the call off hold (F11), or off T.38 (F22); what an early offer came to is not known.
    if plan.does(|act| matches!(act, Act::Hold | Act::Freeze)) && server.ignores_hold && !updates {
        return Err("held, and no UPDATE");
    }
    if plan.does(|act| act == Act::Fax) && !updates {
        return Err("T.38, and no UPDATE");
    }
    if plan.early_update && !updates {
        return Err("an early offer, and no UPDATE");
    }
    if plan.refusals.contains(&302) {
        return Err("redirected");
    }
    // Nothing is sent beside a request of the server's own, and this one is without an answer until it is too late.
    if server.refreshes && peer.on_update == OnUpdate::Swallows && plan.interval < 200 {
        return Err("the server's own refresh was swallowed");
    }
    // Nothing got through, or nobody was there to send, for a third of the time that there is.
    let from = call.judge.since + Us::from(seconds) * S / 2;
    let until = end.unwrap_or(from);
    let weather = &world.plan.weather;
    let overlap = |spell: &Range<Us>| spell.end.min(until).saturating_sub(spell.start.max(from));
    let away: Us = weather.outages.iter().chain(&weather.stalls).map(overlap).sum();
    if away * 3 > until.saturating_sub(from) {
        return Err("the link was down, or the daemon stalled");
    }
    Ok(())
}

type Counts = BTreeMap<&'static str, u64>;

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
    excused: Counts,
    injected: u64,
    compared: u64,
    servers: Counts,
    peers: Counts,
    faults: Tally,
    events: Counts,
    stories: Vec<String>,
    table: Table,
}

/// Lost calls that are told in full.
const STORIES: usize = 12;

/// Takes a world in; the error is what must never be.
pub(crate) fn judge(world: &World, control: &World, summary: &mut Summary, strict: bool) -> Result<(), String> {
    for (index, call) in world.calls.iter().enumerate() {
        let fail = |why: &str| Err(format!("c{index}: {why}"));
        if let Some(breach) = call.judge.breaches.first().cloned().or_else(|| call.judge.last_breach()) {
            return fail(&breach);
        }
        // Numbers that went by unseen stand in the kernel.
        if let Some(stale) = call.judge.stale.first() {
            return fail(stale);
        }
        let agents = [(&call.server, "server"), (&call.peer, "peer")];
        for (agent, side) in agents.into_iter().chain(call.fork.as_ref().map(|fork| (fork, "fork"))) {
            if let Some(oddity) = agent.diary.oddities.first() {
                return fail(&format!("the {side} got {oddity}"));
            }
        }
        // Half a second after a daemon is gone all goes out by itself.
        let spells = || world.plan.weather.stalls.iter().chain(&world.driver.away);
        let died = |at: Us| spells().any(|spell| spell.start < at + 2 * S && at < spell.end);
        if let Some(kept) = call.judge.withheld_for_good(died) {
            return fail(&kept);
        }
        // The whole point of keeping the numbers right: the server can always leave.
        if call.server.diary.bye == Some(500) {
            return fail("the server's BYE was refused with 500");
        }
        take(world, control, index, summary, strict)?;
    }
    let stats = world.driver.engine.stats();
    let left = (stats.sessions, stats.tombstones, stats.own_requests, world.kernel.holds());
    if left != (0, 0, 0, (0, 0)) {
        return Err(format!("not at rest: {left:?}"));
    }
    summary.compared += world.compared;
    for event in &world.driver.events {
        *summary.events.entry(event.kind.name()).or_default() += 1;
    }
    Ok(())
}

/// Whether an alert about a call had come by then.
pub(crate) fn told(world: &World, index: usize, at: Us) -> bool {
    world.driver.events.iter().any(|event| {
        let of_call = event.local_tag().as_deref() == Some(&*world.calls[index].server.tag);
        let concerns = of_call || event.kind == EventKind::CaptureLoss;
        event.kind.is_alert() && concerns && event.time <= time(at)
    })
}

fn take(world: &World, control: &World, index: usize, summary: &mut Summary, strict: bool) -> Result<(), String> {
    let (call, plan) = (&world.calls[index], &world.plan.calls[index]);
    summary.calls += 1;
    *summary.servers.entry(SERVERS[plan.server].name).or_default() += 1;
    *summary.peers.entry(PEERS[plan.peer].name).or_default() += 1;
    summary.injected += u64::from(call.judge.injected);
    let faults = call.faults();
    summary.faults.take_in(&faults);
    let fate = fate(call);
    let possible = was_possible(world, index, fate);
    summary.table.take(&faults, &Lives { world, control, index }, possible)?;
    match (fate, possible) {
        (Fate::NoSetup, _) => {
            summary.no_setup += 1;
            return Ok(());
        }
        (Fate::Crashed, _) => {
            summary.crashed += 1;
            return Ok(());
        }
        (Fate::GaveUp | Fate::Unacked, Err(why)) => {
            *summary.excused.entry(why).or_default() += 1;
            return Ok(());
        }
        _ => {}
    }
    if let Err(why) = possible {
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
    let of_call = |event: &&st_core::Event| event.local_tag().as_deref() == Some(&*call.server.tag);
    // The clock of a UAS runs from the first 2xx, which may have been lost: sipst's from the first that came to here.
    let behind = call.judge.since.saturating_sub(call.peer.since);
    let told = told(world, index, at);
    let story = || {
        let mut story = format!(
            "c{index} lost at {:.3} s: {plan:?}, server {:?}, peer {:?}, judge {:?}",
            at as f64 / 1e6,
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
    // Nor can that no ACK gets through in the whole time that there is for it.
    let cut_off = matches!(call.peer.life, Life::Over(_, Why::NoAck))
        && world.plan.weather.outages.iter().any(|outage| outage.start < at && outage.end > at.saturating_sub(32 * S));
    // Nor by a daemon that stands still in the last quarter between the middle of the interval and the deadline.
    let still = call.judge.agreed.is_some_and(|(seconds, _)| {
        let whole = Us::from(seconds) * S;
        let deadline = whole - (whole / 3).min(32 * S);
        let quarter = call.judge.since + deadline - (deadline - whole / 2) / 4;
        world.plan.weather.stalls.iter().any(|stall| stall.start <= quarter && stall.end >= at)
    });
    // Nor by a peer that hangs up at once where the server wants its refresh again later.
    let gave_up = matches!(call.peer.life, Life::Over(_, Why::GaveUp));
    if !told && !early && !gave_up && !cut_off && !still && !call.judge.cut_short && call.judge.agreed.is_some() {
        return Err(format!("not told in time: {}", story()));
    }
    if strict && possible.is_ok() {
        return Err(story());
    }
    if summary.stories.len() < STORIES && possible.is_ok() {
        summary.stories.push(story());
    }
    Ok(())
}

impl Summary {
    /// What holds over a whole run.
    pub(crate) fn assert_good(&self, calls: u64) {
        let missing = self.faults.missing(calls);
        assert!(missing.is_empty(), "met too seldom in {calls} calls:\n{}", missing.join("\n"));
        assert!(self.compared * 20 > calls, "compared {} times", self.compared);
        let stacks =
            SERVERS.iter().map(|stack| (stack, &self.servers)).chain(PEERS.iter().map(|stack| (stack, &self.peers)));
        for (stack, met) in stacks {
            let met = met.get(stack.name).copied().unwrap_or(0);
            assert!(met * 50 >= calls, "{}: met {met} times", stack.name);
        }
        assert!(self.possible > calls / 4, "{} of {calls} calls could be refreshed", self.possible);
        assert!(
            // Some for chance, which counts in short runs only.
            self.lost_though_possible * 100 <= self.possible + 400,
            "{} of {} calls were lost",
            self.lost_though_possible,
            self.possible
        );
        self.table.assert_good();
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, lived, no_setup, crashed, possible, lost, lost_though_possible, injected, compared, .. } =
            self;
        writeln!(f, "{calls} calls: {lived} lived, {lost} lost, {crashed} crashed, {no_setup} never came up")?;
        writeln!(
            f,
            "{possible} could be refreshed, of these {lost_though_possible} lost; {injected} refreshes by sipst; \
             its idea of a session was compared with the peer's {compared} times"
        )?;
        for (title, counts) in
            [("servers", &self.servers), ("peers", &self.peers), ("excused", &self.excused), ("events", &self.events)]
        {
            writeln!(f, "{title}:")?;
            for (what, count) in counts {
                writeln!(f, "{count:>10} {what}")?;
            }
        }
        writeln!(f, "faults:\n{}", self.faults)?;
        for story in &self.stories {
            writeln!(f, "{story}")?;
        }
        write!(f, "{}", self.table)
    }
}
