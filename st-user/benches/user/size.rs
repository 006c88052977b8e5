//! What sessions hold in memory and on disk, and how the cost of a message and of a start grows with their number. Each number of
//! sessions has a process of its own, so that its resident memory is its own.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sipst::{
    store::{About, Opened},
    takeover::TakenOver,
};
use st_core::{Action, engine::TRANSACTION};
use st_tests::figure::{Target, tell};

use crate::{
    calls::{Call, HANGUP, LENGTH, REFRESH, SETUP, Step},
    plot,
    rig::{Rig, config, process_time, resident, thread_time},
};

/// Numbers of sessions.
const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// In which time all calls are set up: before the first has to be refreshed.
const SETUPS: Duration = Duration::from_secs(800);

/// How often each session is refreshed while messages are timed. As there are two refreshes in a call, it lasts twice as long.
const REFRESHED: Duration = Duration::from_secs(600);

/// Messages that are timed, at most so many for each session.
const MEASURED: u64 = 330_000;

/// Calls that are written out before their messages are handled.
const ROUND: u64 = 24;

/// A boot's name.
const BOOT: &str = "bench";

/// What so many sessions cost.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) sessions: u64,
    /// Resident memory of each, in bytes.
    pub(crate) held: f64,
    /// A message, in microseconds.
    pub(crate) message: f64,
    /// Bytes of its record, and of the file.
    record: f64,
    pub(crate) file: f64,
}

/// What a start costs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// In seconds, as long as it takes, and of the processor's time.
    wall: f64,
    pub(crate) busy: f64,
    /// Sessions that are there again.
    sessions: usize,
    held: f64,
}

pub(crate) fn run(dir: &Path, most: u64) {
    let sizes: Vec<u64> = SIZES.into_iter().filter(|size| *size <= most).collect();
    let largest = sizes.last().copied().unwrap_or_default();
    let observed: Cost = child(&["held", "observe", &largest.to_string(), ""]);
    let name = |what: &str, sessions: u64| format!("user/{what}, {sessions} sessions");
    tell(&name("memory of one that is observed", largest), observed.held, "bytes", Target::AtMost(200.0));
    let mut costs: Vec<(Cost, Start)> = Vec::new();
    for size in sizes {
        let state = dir.join(format!("state-{size}"));
        let state = state.to_str().expect("a path of this repository's");
        let cost: Cost = child(&["held", "refresh", &size.to_string(), state]);
        let start: Start = child(&["start", state]);
        assert_eq!(start.sessions as u64, size + 1, "sessions that are there again");
        fs::remove_dir_all(state).expect("a directory of this bench's");
        tell(&name("a message", size), cost.message, "us", Target::None);
        tell(&name("start from the store", size), start.busy, "s", target(size, 1_000_000, Target::AtMost(2.0)));
        tell(&name("start as long as it takes", size), start.wall, "s", Target::None);
        costs.push((cost, start));
    }
    let (first, last) = (&costs[0].0, &costs[costs.len() - 1].0);
    tell(&name("memory of one that is refreshed", largest), last.held, "bytes", Target::AtMost(700.0));
    tell(&name("record of one", largest), last.record, "bytes", Target::None);
    tell(&name("on disk of one", largest), last.file, "bytes", Target::AtMost(1_024.0));
    let grown = last.message / first.message;
    tell(&format!("user/a message, {largest} to {} sessions", first.sessions), grown, "x", Target::AtMost(1.5));
    if largest == SIZES[SIZES.len() - 1] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks-growth.svg");
        fs::write(path, plot::growth(&costs)).expect("a writable docs/");
    }
}

fn target(size: u64, of: u64, target: Target) -> Target {
    if size == of { target } else { Target::None }
}

/// What this program says when it is run with these arguments.
pub(crate) fn child<T: DeserializeOwned>(arguments: &[&str]) -> T {
    let this = std::env::current_exe().expect("a program");
    let output = Command::new(this).args(arguments).stderr(Stdio::inherit()).output().expect("a process");
    assert!(output.status.success(), "{arguments:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("what was found")
}

/// Sets so many calls up, times messages among them, and writes them down where there is a directory for that.
pub(crate) fn held(action: &str, sessions: u64, dir: &str) {
    let action = if action == "observe" { Action::Observe } else { Action::Refresh };
    let before = resident();
    let mut rig = Rig::new(action);
    let pace = SETUPS / u32::try_from(sessions * SETUP.len() as u64).expect("a number of messages");
    for number in 0..sessions {
        setup(&mut rig, &Call::new(number), pace);
    }
    // What is kept of their INVITEs for a while goes with the next one.
    rig.pass(Duration::from_secs(70));
    // As often as other calls' messages would have it called.
    for _ in 0..sessions / 32 {
        rig.idle();
    }
    // What all that has left free is given back a second later, by whoever needs memory then.
    thread::sleep(Duration::from_secs(2));
    let mut first = sessions;
    setup(&mut rig, &Call::new(first), pace);
    let held = (resident() - before) as f64 / sessions as f64;
    let stats = rig.engine.stats();
    assert_eq!((stats.sessions as u64, stats.timed as u64), (sessions + 1, sessions + 1));
    let message = mixed(&mut rig, sessions, &mut first);
    let (record, file) = if dir.is_empty() { (0.0, 0.0) } else { write(rig, sessions, Path::new(dir)) };
    let cost = Cost { sessions, held, message, record, file };
    println!("{}", serde_json::to_string(&cost).expect("numbers"));
}

fn setup(rig: &mut Rig, call: &Call, pace: Duration) {
    for step in SETUP {
        rig.pass(pace);
        rig.hear(&call.say(step, 0));
    }
}

/// Microseconds of a message: with each call that comes, two are refreshed and the oldest is hung up, so that as many are up as
/// before.
fn mixed(rig: &mut Rig, sessions: u64, newest: &mut u64) -> f64 {
    let pace = REFRESHED * 2 / u32::try_from(sessions * LENGTH as u64).expect("a number of messages");
    let calls = (MEASURED / LENGTH as u64).min(sessions * 10);
    let (mut spent, mut messages) = (Duration::ZERO, 0_u32);
    for round in 0..calls / ROUND {
        let mut said = Vec::new();
        for turn in 0..ROUND {
            *newest += 1;
            let oldest = *newest - sessions;
            // Far from each other in memory.
            let any = |turn: u64| Call::new(oldest + 1 + turn * 7_919 % (sessions - 1));
            let new = Call::new(*newest);
            let nth = u32::try_from(round * ROUND + turn).expect("a number of rounds");
            let mut say =
                |call: &Call, steps: &[Step], nth: u32| said.extend(steps.iter().map(|step| call.say(*step, nth)));
            say(&new, &SETUP, 0);
            for refresh in [2 * nth, 2 * nth + 1] {
                say(&any(refresh.into()), &REFRESH, refresh);
            }
            say(&Call::new(oldest - 1), &HANGUP, 2 * nth + 2);
        }
        let began = thread_time();
        for message in &said {
            rig.pass(pace);
            rig.hear(message);
        }
        spent += thread_time() - began;
        messages += u32::try_from(said.len()).expect("a number of messages");
    }
    let stats = rig.engine.stats();
    assert_eq!((stats.unidentified, stats.unparsable, stats.unknown_dialog, stats.unknown_request), (0, 0, 0, 0));
    (spent / messages).as_nanos() as f64 / 1e3
}

/// Bytes of a session's record, and of the file for each.
fn write(mut rig: Rig, sessions: u64, dir: &Path) -> (f64, f64) {
    // Tombstones go first: what is counted are sessions.
    rig.pass(2 * TRANSACTION);
    let stats = rig.engine.stats();
    assert!(stats.tombstones as u64 <= sessions / 10, "{} tombstones", stats.tombstones);
    let about = || About { boot: BOOT.into(), ..About::default() };
    let mut store = Opened::new(dir).follow(&mut rig.engine, false).expect("a thread");
    while store.due(&rig.engine).is_some() {
        store.turn(&mut rig.engine, about);
        thread::sleep(Duration::from_millis(1));
    }
    assert!(store.finish(&mut rig.engine, &about()), "all is written");
    rig.engine.follow_changes();
    let records = std::iter::from_fn(|| rig.engine.poll_change()).take(10_001).filter_map(|change| change.record);
    let (bytes, count) =
        records.skip(1).fold((0, 0), |(bytes, count), record| (bytes + record.bytes().len(), count + 1));
    let blocks = |entry: fs::DirEntry| entry.metadata().expect("a file").blocks() * 512;
    let file: u64 = fs::read_dir(dir).expect("the directory").map(|entry| blocks(entry.expect("a file"))).sum();
    (bytes as f64 / f64::from(count), file as f64 / sessions as f64)
}

/// Takes over what was written.
pub(crate) fn start(dir: &str) {
    let (before, began, busy) = (resident(), Instant::now(), process_time());
    let taken = TakenOver::read(Opened::new(Path::new(dir)), &config(Action::Refresh), BOOT);
    let (wall, busy) = (began.elapsed().as_secs_f64(), (process_time() - busy).as_secs_f64());
    let sessions = taken.engine.stats().sessions;
    let held = (resident() - before) as f64 / sessions as f64;
    println!("{}", serde_json::to_string(&Start { wall, busy, sessions, held }).expect("numbers"));
}
