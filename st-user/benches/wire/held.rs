//! What it takes to hold calls up: each is refreshed when it is due, and nothing else happens.

use std::{path::Path, time::Duration};

use st_tests::figure::{Target, tell};

use crate::{
    sessions::DUE,
    stage::{Stage, span},
};

/// Calls.
const CALLS: u32 = 1_000;

/// Until the first refresh: what the daemon does at its start is not counted.
const AHEAD: Duration = Duration::from_secs(30);

/// Refreshes a second, as the configuration has it where nobody says otherwise.
const RATE: u32 = 200;

pub(crate) fn run(dir: &Path, time: Duration) {
    // A little closer than they would be: the last call begins before the daemon does.
    let pace = (DUE - AHEAD) / CALLS;
    let stage = Stage::new(dir, (0..CALLS).map(|number| pace * number).collect(), AHEAD, RATE);
    stage.sleep_until(Duration::ZERO);
    let took = span(&stage.daemon, || stage.sleep_until(time));
    let due = (time.as_nanos() / pace.as_nanos()) as usize;
    let missing = stage.lags(0..due).iter().filter(|lag| lag.is_none()).count();
    let name = |what: &str| format!("place/{CALLS} calls held: {what}");
    let seconds = time.as_secs_f64();
    tell(&name("refreshes"), due as f64, "", Target::None);
    tell(&name("refreshes that did not come"), missing as f64, "", Target::AtMost(0.0));
    tell(&name("processor"), took.usage.busy.as_secs_f64() * 100.0 / seconds, "%", Target::AtMost(0.05));
    tell(&name("kernel programs"), took.programs.as_secs_f64() * 100.0 / seconds, "%", Target::None);
    tell(&name("wakeups"), took.usage.wakeups as f64 / seconds, "a second", Target::None);
    tell(&name("resident memory"), stage.daemon.resident_mb(), "MB", Target::None);
    stage.daemon.show_warnings();
}
