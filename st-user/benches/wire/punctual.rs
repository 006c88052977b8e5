//! Whether refreshes leave when they are due: of so many sessions spread evenly over half an interval, and of a herd that is due in one
//! second. The daemon finds the sessions in its store, the peers answer, and what counts is when each refresh reached its peer.

use std::{
    ops::Range,
    path::Path,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

use st_tests::figure::{Target, tell};

use crate::{
    sessions::{DUE, INTERVAL},
    stage::{Stage, span},
};

/// Between what is measured evenly and the herd, and between the herd and all others.
const PAUSE: Duration = Duration::from_secs(5);

/// Between two refreshes: as a million sessions fall due that are spread evenly, however many there are.
const PACE: Duration = Duration::from_nanos(DUE.as_nanos() as u64 / 1_000_000);

/// In which time a herd is due.
const HERD: Duration = Duration::from_secs(1);

/// Refreshes a second that the configuration allows: more than fall due on average, and no more than their tokens have room for.
const RATE: u32 = 1_500;

/// A peer hangs up so long before the interval's end.
const EARLY: Duration = Duration::from_secs(32);

/// What a part of the bench is of.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) sessions: usize,
    /// How long is measured.
    pub(crate) window: Duration,
    pub(crate) herd: usize,
}

pub(crate) fn run(dir: &Path, Size { sessions, window, herd }: Size) {
    let _counted = aya::sys::enable_stats(aya::sys::Stats::RunTime).expect("Linux 5.8 or later");
    // Reading them and writing them anew takes the daemon less than this, on a machine that has other work too.
    let ahead = Duration::from_secs(20) + Duration::from_micros(200) * sessions as u32;
    let evenly = (window.as_nanos() / PACE.as_nanos()) as usize;
    let rest = sessions.checked_sub(evenly + herd).expect("fewer are due in that time than there are");
    let mut dues: Vec<Duration> = (0..evenly).map(|number| PACE * number as u32).collect();
    dues.extend((0..herd).map(|number| window + PAUSE + HERD * number as u32 / herd as u32));
    let after = window + PAUSE + HERD + time_for(herd) * 2 + PAUSE;
    let left = (DUE - ahead).checked_sub(after).expect("a shorter time, or a smaller herd");
    dues.extend((0..rest).map(|number| after + left * number as u32 / rest as u32));
    let stage = Stage::new(dir, dues, ahead, RATE);
    let daemon = &stage.daemon;
    let name = |what: &str| format!("punctual/{sessions} sessions: {what}");
    tell(&name("start"), daemon.start.as_secs_f64(), "s", Target::None);

    stage.sleep_until(Duration::ZERO);
    let took = span(daemon, || stage.sleep_until(window + PAUSE / 5));
    let lags = stage.lags(0..evenly);
    tell(&name("refreshes a second"), evenly as f64 / window.as_secs_f64(), "", Target::None);
    judge(&name, &lags);
    let mut lags: Vec<Duration> = lags.into_iter().flatten().collect();
    lags.sort();
    let share = |part: f64| lags[((lags.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    tell(&name("lag, median"), share(0.5), "ms", Target::None);
    tell(&name("lag, 99 %"), share(0.99), "ms", Target::AtMost(20.0));
    tell(&name("lag, the longest"), share(1.0), "ms", Target::None);
    tell(&name("processor"), took.usage.busy.as_secs_f64() / window.as_secs_f64(), "cores", Target::AtMost(1.0));
    tell(&name("processor for a refresh"), took.usage.busy.as_secs_f64() * 1e6 / evenly as f64, "us", Target::None);
    tell(&name("waits for a processor"), took.usage.waited.as_secs_f64() / window.as_secs_f64(), "cores", Target::None);
    tell(&name("wakeups a second"), took.usage.wakeups as f64 / window.as_secs_f64(), "", Target::None);
    tell(&name("kernel programs"), took.programs.as_secs_f64() / window.as_secs_f64(), "cores", Target::None);
    let each = took.programs.as_nanos() as f64 / took.packets.max(1) as f64;
    tell(&name("kernel programs, a packet"), each, "ns", Target::None);
    tell(&name("resident memory"), daemon.resident_mb(), "MB", Target::None);
    if herd > 0 {
        self::herd(&stage, evenly..evenly + herd, window + PAUSE);
    }
    let mut reached = 0;
    while stage.server.recv(&mut [0; 16]).is_ok() {
        reached += 1;
    }
    tell(&name("answers that reached the server"), f64::from(reached), "", Target::AtMost(0.0));
    let [failed, overdue, lost] = stage.told(&["refresh_failed", "session_expired", "capture_loss"])[..] else {
        unreachable!("as many as asked for")
    };
    tell(&name("refreshes that failed"), failed as f64, "", Target::AtMost(0.0));
    tell(&name("sessions that expired"), overdue as f64, "", Target::AtMost(0.0));
    tell(&name("losses told"), lost as f64, "", Target::AtMost(0.0));
    tell(&name("events that were not printed"), daemon.unprinted() as f64, "", Target::AtMost(0.0));
    daemon.show_warnings();
}

/// How long so many take at the rate that is allowed.
fn time_for(herd: usize) -> Duration {
    Duration::from_secs(1) * herd as u32 / RATE
}

/// All of them have come, and none after its peer's deadline.
fn judge(name: &dyn Fn(&str) -> String, lags: &[Option<Duration>]) {
    let latest = INTERVAL - EARLY - DUE;
    let missing = lags.iter().filter(|lag| lag.is_none()).count();
    let late = lags.iter().flatten().filter(|lag| **lag > latest).count();
    tell(&name("refreshes that did not come"), missing as f64, "", Target::AtMost(0.0));
    tell(&name("refreshes after the peer's deadline"), late as f64, "", Target::AtMost(0.0));
}

fn herd(stage: &Stage, calls: Range<usize>, at: Duration) {
    let name = |what: &str| format!("punctual/herd of {}: {what}", calls.len());
    let evenly = calls.start;
    let all_came = || stage.seen.calls.load(Relaxed) >= evenly + calls.len();
    stage.sleep_until(at);
    let patience = Instant::now() + HERD + time_for(calls.len()) * 2;
    let took = span(&stage.daemon, || {
        while !all_came() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let lags = stage.lags(calls.clone());
    judge(&name, &lags);
    let mut came: Vec<u64> =
        calls.clone().map(|call| stage.seen.first[call].load(Relaxed)).filter(|came| *came > 0).collect();
    came.sort_unstable();
    let second = |from: usize| came[from..].partition_point(|at| *at < came[from] + 1_000_000_000);
    let most = (0..came.len()).map(second).max().unwrap_or_default();
    // The rate, and a tenth of a second's worth at once.
    let allowed = f64::from(RATE) * 1.1;
    tell(&name("most in one second"), most as f64, "", Target::AtMost(allowed.round()));
    let seconds = came.last().zip(came.first()).map_or(0.0, |(last, first)| (last - first) as f64 / 1e9);
    tell(&name("from the first to the last"), seconds, "s", Target::None);
    let least = calls.len() as f64 / f64::from(RATE);
    tell(&name("time, to what the rate allows"), seconds / least, "x", Target::None);
    let lasted = seconds.max(1.0);
    tell(&name("processor"), took.usage.busy.as_secs_f64() / lasted, "cores", Target::AtMost(1.0));
    tell(&name("refreshes sent again"), stage.seen.again.load(Relaxed) as f64, "", Target::None);
}
