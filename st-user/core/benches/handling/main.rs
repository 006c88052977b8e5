//! What the engine takes for a message of mixed traffic: 14,000 calls at a time, each at another point of its life, on
//! trunks that are observed, alerted for and refreshed.
//!
//! Each message is timed by itself, from `handle_packet` until `poll_output` says `Timeout` (one look at the clock
//! included), so that the median is one of messages and not of averages. Messages are written in rounds before they are
//! handled, as if a ring had them; that is not timed. Nor are the engine's own timers, which run between.

mod corpus;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use st_core::{
    Action, Engine, Matcher, Output, Packet, Policy, Rules, Time, Trunk,
    engine::{EngineConfig, Limits, Mode},
};

use corpus::{KINDS, NETS, Traffic};

/// Messages that are written before they are handled.
const ROUND: usize = 256;

/// Between two messages: 10,000 a second.
const PACE: Duration = Duration::from_micros(100);

/// Messages until as many calls end as begin, and as many tombstones go as come.
const WARM_UP: usize = 600_000;

/// Messages of which the median is told.
const MEASURED: usize = 500_000;

struct Bench {
    engine: Engine,
    traffic: Traffic,
    now: Time,
    due: Option<Time>,
    events: u64,
}

impl Bench {
    fn new() -> Self {
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
        Self { engine, traffic: Traffic::new(1), now, due: None, events: 0 }
    }

    fn drain(&mut self) {
        loop {
            match self.engine.poll_output() {
                Output::Event(_) => self.events += 1,
                Output::Timeout(due) => {
                    self.due = due;
                    return;
                }
                Output::Arm(_) | Output::Inject(_) | Output::Retire { .. } | Output::Disarm { .. } => {}
            }
        }
    }

    /// Handles so many messages and tells what kind each was and how long it took.
    fn run(&mut self, messages: usize, mut told: impl FnMut(usize, Duration)) {
        let mut left = messages;
        while left > 0 {
            let round = self.traffic.round(ROUND.min(left));
            left -= round.len();
            for message in &round {
                self.now = self.now + PACE;
                while self.due.is_some_and(|due| due <= self.now) {
                    self.engine.handle_timeout(self.now);
                    self.drain();
                }
                let packet = Packet {
                    direction: message.direction,
                    server: corpus::SERVER,
                    peer: message.peer,
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
                told(message.kind, begin.elapsed());
            }
        }
    }
}

fn main() {
    let mut bench = Bench::new();
    bench.run(WARM_UP, |_, _| ());
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("handling");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.bench_function("a message of mixed traffic", |bencher| {
        bencher.iter_custom(|messages| {
            let mut sum = Duration::ZERO;
            bench.run(usize::try_from(messages).expect("a number of messages"), |_, time| sum += time);
            sum
        });
    });
    group.finish();
    criterion.final_summary();
    if std::env::args().any(|argument| argument == "--profile-time" || argument == "--list") {
        return;
    }

    let mut times: Vec<(usize, Duration)> = Vec::with_capacity(MEASURED);
    bench.run(MEASURED, |kind, time| times.push((kind, time)));
    let stats = bench.engine.stats();
    println!(
        "{} calls up, {} tombstones, {} INVITEs pending, {} events so far",
        stats.sessions, stats.tombstones, stats.pending, bench.events
    );
    assert!(stats.sessions > 10_000, "too few calls: the traffic is not what it is meant to be");
    assert_eq!((stats.unidentified, stats.unparsable, stats.unknown_dialog, stats.unknown_request), (0, 0, 0, 0));
    println!("{:>14} {:>9} {:>9} {:>9} {:>9}", "us", "messages", "median", "90 %", "99 %");
    for (kind, name) in KINDS.iter().enumerate() {
        tell(name, times.iter().filter(|(of, _)| *of == kind).map(|(_, time)| *time).collect());
    }
    tell("all (wanted: 1)", times.iter().map(|(_, time)| *time).collect());
}

fn tell(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default().as_secs_f64() * 1e6;
    println!("{name:>15} {:>9} {:>9.2} {:>9.2} {:>9.2}", times.len(), at(50), at(90), at(99));
}
