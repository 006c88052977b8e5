//! An engine that is fed, on simulated time, and what that costs of the processor's.

use std::{sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use st_core::{
    Action, Engine, Output, Packet, Policy, Rules, Time,
    engine::{EngineConfig, Limits, Mode, Read},
};

use crate::calls::Message;

/// When everything begins.
pub(crate) const BEGIN: Time = Time::from_micros(1_700_000_000_000_000);

pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) now: Time,
    due: Option<Time>,
}

pub(crate) fn config(action: Action) -> EngineConfig {
    let policy = Policy { default: Rules { action, ..Rules::default() }, ..Policy::default() };
    // A tenth more than a million: some are just over.
    let limits = Limits { sessions: 1_100_000, ..Limits::default() };
    EngineConfig { policy: Arc::new(policy), mode: Mode::Live, seed: 1, limits }
}

impl Rig {
    pub(crate) fn new(action: Action) -> Self {
        Self { engine: Engine::new(config(action)), now: BEGIN, due: None }
    }

    /// Lets so much time pass, and what falls due in it happen.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        while self.due.is_some_and(|due| due <= self.now) {
            self.engine.handle_timeout(self.now);
            self.drain();
        }
    }

    /// Has the engine do what it does when there is time.
    pub(crate) fn idle(&mut self) {
        self.engine.handle_timeout(self.now);
        self.drain();
    }

    pub(crate) fn packet(&mut self, packet: &Packet<'_>) {
        self.engine.handle_packet(self.now, packet);
        self.drain();
    }

    pub(crate) fn hear(&mut self, message: &Message) {
        self.packet(&message.packet());
    }

    /// What was read ahead.
    pub(crate) fn read(&mut self, read: &Read<'_>) {
        self.engine.handle_read(self.now, read);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            if let Output::Timeout(due) = self.engine.poll_output() {
                self.due = due;
                return;
            }
        }
    }
}

/// Processor time of this thread, or of all: what others take meanwhile does not count.
pub(crate) fn thread_time() -> Duration {
    time(ClockId::ThreadCPUTime)
}

pub(crate) fn process_time() -> Duration {
    time(ClockId::ProcessCPUTime)
}

fn time(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).expect("a clock that has begun")
}

/// Resident memory, in bytes.
pub(crate) fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a mounted /proc");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * rustix::param::page_size() as u64
}

/// The one in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
