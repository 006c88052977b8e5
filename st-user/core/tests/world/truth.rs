//! Whether the engine's idea of a session is the peer's own, once the network has been kind for a while.

use st_core::{Event, EventKind, Side};

use super::{
    agent::{Agent, MS, S, TRANSACTION, Us},
    driver::time,
    world::{Call, World},
};

/// How long after a 2xx the two are compared.
const SETTLED: Us = 5 * S;

impl World {
    /// Remembers to compare, where a peer's clock was started anew.
    pub(crate) fn watch(&mut self, index: usize) {
        let now = self.now;
        let call = &mut self.calls[index];
        let since = (call.peer.timer.is_some() && call.peer.is_up()).then_some(call.peer.since);
        if since != call.compared {
            call.compared = since;
            call.compare_at = since.map(|_| now + SETTLED);
        }
    }

    pub(crate) fn compare(&mut self, index: usize) {
        let call = &mut self.calls[index];
        call.compare_at = None;
        let spoilt = [call.spoilt, self.spoilt].into_iter().flatten().max();
        let clean = spoilt.is_none_or(|at| at + 2 * TRANSACTION < call.peer.since);
        let still = self.plan.weather.stalls.iter().all(|stall| !stall.contains(&self.now));
        let at_rest = |agent: &Agent| agent.is_up() && !agent.is_busy();
        let both_at_rest = at_rest(&call.server) && at_rest(&call.peer);
        if !both_at_rest
            || !self.driver.watched
            || self.driver.killed.is_some()
            || !still
            || !clean
            || call.judge.crossed
        {
            return;
        }
        let call = &self.calls[index];
        // A call whose beginning went by unseen may be known later or never.
        let known = |event: &Event| event.local_tag().as_deref() == Some(&*call.server.tag);
        if self.lost_samples(index) && !self.driver.events.iter().any(known) {
            return;
        }
        self.compared += 1;
        if let Err(why) = agrees(call, &self.driver.events, self.plan.weather.delay) {
            self.calls[index].judge.breaches.push(format!("at {:.3} s {why}", self.now as f64 / 1e6));
        }
    }
}

fn agrees(call: &Call, events: &[Event], delay: Us) -> Result<(), String> {
    let peer = &call.peer;
    // Where the server's 2xx said nothing of a timer (R12), what the peer then does is not to be known here.
    let unseen = peer.alone || call.proxy.as_ref().is_some_and(|proxy| proxy.unseen);
    let Some(timer) = peer.timer.filter(|_| !unseen) else { return Ok(()) };
    let tells = |event: &&Event| {
        matches!(event.kind, EventKind::TimerNegotiated | EventKind::SessionRefreshed)
            && event.local_tag().as_deref() == Some(&call.server.tag)
            && event.remote_tag().as_deref() == Some(&peer.tag)
    };
    let refresher = if timer.mine { Side::Peer } else { Side::Server };
    let Some(event) = events.iter().rev().find(tells) else {
        return Err(format!("the engine knows nothing of {timer:?}"));
    };
    if (event.interval_s, event.refresher) != (Some(timer.seconds), Some(refresher)) {
        return Err(format!("the peer has {timer:?}, the engine {:?} by {:?}", event.interval_s, event.refresher));
    }
    let whole = Us::from(timer.seconds) * S;
    // R38
    let deadline = peer.since + whole - (whole / 3).min(32 * S);
    // A proxy makes two ways of one.
    let slack = time(3 * delay + 50 * MS).since(time(0));
    let near = |told: st_core::Time| told.since(time(deadline)) <= slack && time(deadline).since(told) <= slack;
    match event.deadline {
        Some(told) if near(told) => Ok(()),
        told => Err(format!("the deadline is {:?}, told is {told:?}", time(deadline))),
    }
}
