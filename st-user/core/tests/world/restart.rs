//! The daemon is killed, and another one goes on from what it had written down: some of the last things it was shown are
//! not among that.

use std::collections::{HashMap, HashSet};

use rand::RngExt as _;
use st_core::{Command, Refusal, engine::EngineConfig};

use super::{
    agent::{MS, S, Us},
    driver::time,
    faults::Fault,
    kernel::Kernel,
    plan::SUDDEN,
    world::World,
};

/// Chances in a hundred that it has written by the end of a turn of its loop.
const WRITES: f64 = 70.0;

/// By when it has in any case.
const LATEST: Us = 500 * MS;

/// Chances in a hundred that it is killed right after a refresh of its has left, in a world where that happens.
const KILLS: f64 = 4.0;

impl World {
    pub(crate) fn write_down(&mut self) {
        // Nobody who is never killed notices.
        let stalls = 0..self.plan.weather.stalls.len();
        let kills = self.plan.kills(SUDDEN) || stalls.into_iter().any(|stall| self.plan.kills(stall));
        if !kills || self.driver.killed.is_some() {
            return;
        }
        // It never takes long.
        let is_due = self.driver.disk.0.is_empty() || self.driver.turned + LATEST < self.now;
        if is_due || self.rng.random_bool(WRITES / 100.0) {
            self.driver.disk.write(&mut self.driver.engine);
            self.driver.unwritten.clear();
            self.driver.judges = self.calls.iter().map(|call| call.judge.clone()).collect();
        }
    }

    /// The daemon is killed, and another one is there at `back`.
    pub(crate) fn kill(&mut self, back: Us) {
        if !self.driver.disk.0.is_empty() && self.driver.killed.is_none() {
            self.calls_on(Fault::DaemonKilled);
            (self.driver.killed, self.driver.died) = (Some(back), self.now);
            self.driver.away.push(self.now..back);
            self.calls
                .iter_mut()
                .filter(|call| call.judge.is_holding())
                .for_each(|call| call.met.count(Fault::HeldAtDeath));
            // What is there by then is read at once.
            self.driver.reads = Some(self.now);
            self.remark("the daemon is killed");
        }
    }

    /// Now and then that happens while a refusal is held back.
    pub(crate) fn kill_on_hold(&mut self) {
        if self.plan.kills(SUDDEN) && self.rng.random_bool(KILLS / 100.0) {
            let back = self.now + self.rng.random_range(50 * MS..6 * S);
            self.kill(back);
        }
    }

    /// Now and then that happens right after a refresh has left.
    pub(crate) fn kill_at_once(&mut self) {
        if self.plan.kills(SUDDEN) && self.rng.random_bool(KILLS / 100.0) {
            let back = self.now + self.rng.random_range(200 * MS..6 * S);
            self.kill(back);
        }
    }

    /// A new one takes over where one was killed.
    pub(crate) fn begin_anew(&mut self) {
        let now = self.now;
        let stalls = self.plan.weather.stalls.clone();
        let over = self.driver.stalls_to_die.extract_if(.., |stall| stalls[*stall].end <= now).count();
        if over > 0 {
            self.kill(now);
        }
        if self.driver.killed.take().is_none() {
            if self.driver.turned + LATEST < now {
                self.write_down();
            }
            (self.driver.turned, self.driver.beat) = (now, now);
            return;
        }
        self.driver.turned = now;
        self.driver.arming.clear();
        self.spoilt = Some(self.now);
        // What was not written down is as good as never seen.
        let unwritten = std::mem::take(&mut self.driver.unwritten);
        self.kernel.lost.extend(unwritten);
        let judges = self.driver.judges.clone();
        self.calls.iter_mut().zip(judges).for_each(|(call, judge)| call.judge.forget(judge));
        self.driver.told = self.kernel.lost.len();
        let seed = self.driver.config.seed.wrapping_add(1);
        self.driver.config = EngineConfig { seed, ..self.driver.config.clone() };
        let (engine, restored) = self.driver.disk.restore(self.driver.config.clone());
        self.driver.engine = engine;
        self.kernel.flows.clear();
        self.kernel.unmark_all();
        // Forks of one INVITE of the server's have one entry together.
        let mut sessions: HashMap<_, Vec<_>> = HashMap::new();
        let mut owners = HashMap::new();
        let mut known: HashSet<u64> = HashSet::new();
        for restored in &restored {
            let names = self.driver.engine.names(restored.session).expect("a session");
            let key = Kernel::key(names.call_id(), names.local_tag()).expect("a key");
            self.driver.engine.set_followed(restored.session, self.kernel.follows(key));
            sessions.entry(key.map).or_default().push(restored.session);
            owners.insert(key.map, self.index_of(std::str::from_utf8(names.local_tag())));
            known.extend(&restored.tokens);
        }
        self.kernel.leave_over(|key| sessions.contains_key(&key));
        let requests = self.kernel.requests(time(self.driver.beat));
        let left: HashSet<u64> =
            requests.iter().filter(|(_, has_left, _)| *has_left).map(|(_, _, found)| found.token).collect();
        let unsent: Vec<u64> = restored
            .iter()
            .flat_map(|restored| &restored.tokens)
            .copied()
            .filter(|token| !left.contains(token))
            .collect();
        for (key, has_left, found) in requests {
            let token = found.token;
            if known.contains(&token) {
                continue;
            }
            let ack = found.reinvite.as_ref().map(|(_, ack)| ack.token);
            let forks = sessions.get(&key.map).map_or(&[][..], Vec::as_slice);
            let adopted = match forks {
                [session] => has_left && self.driver.engine.adopt(*session, found.clone()),
                _ => false,
            };
            self.remark(&format!("{token:x} taken over: {adopted}"));
            if has_left && forks.len() > 1 {
                // Whose it was is not known, so that another one may follow.
                owners.get(&key.map).into_iter().for_each(|owner| self.calls[*owner].judge.forgets_own());
            }
            if adopted {
                owners.get(&key.map).into_iter().for_each(|owner| self.meets(*owner, Fault::Adopted));
            } else {
                [Some(token), ack].into_iter().flatten().for_each(|token| self.kernel.retire(token));
            }
        }
        self.outputs();
        self.drain();
        for token in unsent {
            self.command(Command::Refused { token, refusal: Refusal::Moved });
        }
        self.command(Command::Outage);
        self.outputs();
    }
}
