//! What the engine takes for a message of mixed traffic, each call at another point of its life, on trunks that are observed,
//! alerted for and refreshed: with 10,000 calls up, whose dialogs lie in cold memory, and with 100, whose are in the cache.
//! Then how much memory a confirmed dialog holds.
//!
//! Each message is timed by itself, from `handle_packet` until `poll_output` says `Timeout`, so that the median is one of
//! messages and not of averages; what a look at the clock takes is left out. Messages are written in rounds before they are
//! handled, as if a ring had them; that is not timed. Nor are the engine's own timers, which run between.

mod corpus;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use st_core::{
    Action, Engine, Matcher, Output, Packet, Policy, Rules, Time, Trunk,
    engine::{EngineConfig, Limits, Mode},
};

use corpus::{KINDS, Message, NETS, Traffic};

/// Messages that are written before they are handled.
const ROUND: usize = 256;

/// How long a call lasts, roughly.
const LIFE: Duration = Duration::from_secs(60);

/// Messages of a call.
const LENGTH: usize = 25;

/// Messages of which the median is told.
const MEASURED: usize = 500_000;

/// Calls of which the memory is told.
const HELD_CALLS: usize = 10_000;

/// Bytes that are allocated now.
static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // There is one thread: nothing that costs more than an addition.
        HELD.store(HELD.load(Relaxed).wrapping_add(layout.size()), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.store(HELD.load(Relaxed).wrapping_sub(layout.size()), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Bench {
    engine: Engine,
    traffic: Traffic,
    now: Time,
    /// Between two messages.
    pace: Duration,
    due: Option<Time>,
    events: u64,
}

impl Bench {
    fn new(calls: usize) -> Self {
        let trunk = |(net, action): (&str, Action)| Trunk {
            name: format!("{action:?}"),
            matcher: Matcher { peers: vec![net.parse().expect("a network")], domains: Vec::new() },
            rules: Rules { action, ..Rules::default() },
        };
        let actions = [Action::Observe, Action::Alert, Action::Refresh];
        let policy = Policy { trunks: NETS.into_iter().zip(actions).map(trunk).collect(), ..Policy::default() };
        let (policy, limits) = (Arc::new(policy), Limits::default());
        let engine = Engine::new(EngineConfig { policy, mode: Mode::Live, seed: 1, limits });
        let now = Time::from_micros(1_700_000_000_000_000);
        let pace = LIFE / u32::try_from(calls * LENGTH).expect("a number of calls");
        Self { engine, traffic: Traffic::new(1, calls), now, pace, due: None, events: 0 }
    }

    fn drain(&mut self) {
        loop {
            match self.engine.poll_output() {
                Output::Event(_) => self.events += 1,
                Output::Timeout(due) => {
                    self.due = due;
                    return;
                }
                Output::Arm(_)
                | Output::Inject(_)
                | Output::Watch { .. }
                | Output::Mark(_)
                | Output::Unmark { .. }
                | Output::Weigh { .. }
                | Output::Send(_)
                | Output::KeepAlive(_)
                | Output::Unwatch { .. }
                | Output::StopAssisting { .. }
                | Output::Look { .. }
                | Output::Retire { .. }
                | Output::Disarm { .. } => {}
            }
        }
    }

    /// Handles a message; how long that took.
    fn handle(&mut self, message: &Message) -> Duration {
        self.now = self.now + self.pace;
        while self.due.is_some_and(|due| due <= self.now) {
            self.engine.handle_timeout(self.now);
            self.drain();
        }
        let packet = Packet {
            direction: message.direction,
            server: corpus::SERVER,
            peer: message.peer,
            transport: st_core::Transport::Udp,
            interface: 2,
            tos: 0,
            ttl: 64,
            cookie: 1,
            truncated: false,
            bytes: &message.bytes,
        };
        let begin = Instant::now();
        self.engine.handle_packet(self.now, &packet);
        self.drain();
        begin.elapsed()
    }

    /// Handles so many messages and tells what kind each was and how long it took.
    fn run(&mut self, messages: usize, mut told: impl FnMut(usize, Duration)) {
        let mut left = messages;
        while left > 0 {
            let round = self.traffic.round(ROUND.min(left));
            left -= round.len();
            for message in &round {
                told(message.kind, self.handle(message));
            }
        }
    }
}

/// What a look at the clock takes: the median.
fn clock() -> Duration {
    let mut times: Vec<Duration> = (0..100_000).map(|_| Instant::now().elapsed()).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let is_short = std::env::args().any(|argument| argument == "--profile-time" || argument == "--list");
    let clock = clock();
    // Of these so many are up, the others are being set up or over.
    for (up, calls) in [(10_000, 13_000), (100, 150)] {
        let mut bench = Bench::new(calls);
        // Until as many calls end as begin, and as many tombstones go as come.
        bench.run(2 * LENGTH * calls, |_, _| ());
        let mut group = criterion.benchmark_group("handling");
        group.throughput(Throughput::Elements(1)).sample_size(20);
        group.bench_function(format!("a message of mixed traffic, {up} calls up"), |bencher| {
            bencher.iter_custom(|messages| {
                let mut sum = Duration::ZERO;
                let messages = usize::try_from(messages).expect("a number of messages");
                bench.run(messages, |_, time| sum += time.saturating_sub(clock));
                sum
            });
        });
        group.finish();
        if is_short {
            continue;
        }
        let mut times: Vec<(usize, Duration)> = Vec::with_capacity(MEASURED);
        bench.run(MEASURED, |kind, time| times.push((kind, time.saturating_sub(clock))));
        let stats = bench.engine.stats();
        println!(
            "{} calls up, {} tombstones, {} INVITEs pending, {} events so far; without {clock:?} for a look at the clock",
            stats.sessions, stats.tombstones, stats.pending, bench.events
        );
        assert!(stats.sessions * 10 > up * 9, "too few calls: the traffic is not what it is meant to be");
        assert_eq!((stats.unidentified, stats.unparsable, stats.unknown_dialog, stats.unknown_request), (0, 0, 0, 0));
        println!("{:>14} {:>9} {:>9} {:>9} {:>9}", "us", "messages", "median", "90 %", "99 %");
        for (kind, name) in KINDS.iter().enumerate() {
            tell(name, times.iter().filter(|(of, _)| *of == kind).map(|(_, time)| *time).collect());
        }
        tell("all (wanted: 1)", times.iter().map(|(_, time)| *time).collect());
    }
    criterion.final_summary();
    if !is_short {
        tell_held();
    }
}

fn tell(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default().as_secs_f64() * 1e6;
    println!("{name:>15} {:>9} {:>9.2} {:>9.2} {:>9.2}", times.len(), at(50), at(90), at(99));
}

/// What calls that are set up, and nothing else, hold.
fn tell_held() {
    let mut bench = Bench::new(HELD_CALLS);
    // So slow that what is kept of their INVITEs for a while does not count.
    bench.pace = Duration::from_millis(10);
    let setups = bench.traffic.setups();
    let before = HELD.load(Relaxed);
    for message in &setups {
        bench.handle(message);
    }
    let held = HELD.load(Relaxed) - before;
    let stats = bench.engine.stats();
    assert_eq!((stats.sessions, stats.timed), (HELD_CALLS, HELD_CALLS));
    println!("{} bytes are held for each confirmed dialog", held / HELD_CALLS);
    bench.engine.follow_changes();
    let began = Instant::now();
    let records = std::iter::from_fn(|| bench.engine.poll_change()).filter_map(|change| change.record);
    let written: usize = records.map(|record| record.bytes().len()).sum();
    println!("{} bytes are written of each, in {:?}", written / HELD_CALLS, began.elapsed() / HELD_CALLS as u32);
}
