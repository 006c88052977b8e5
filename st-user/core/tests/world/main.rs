//! The engine in a world of its own: model user agents with the ways of real stacks on both sides, a network that loses,
//! doubles and reorders, proxies that enforce, a kernel that can run out of room, and a judge who was not told how the
//! engine thinks. Every kind of trouble is met by one call in a hundred at least, or the run fails.
//!
//! Each world is lived through without sipst too: what became of the same calls is the table that a run ends with.
//!
//! `WORLD_CALLS` is how many calls to live through, `WORLD_SEED` where to begin; both are printed. With `WORLD_STRICT=1` the
//! first call that is lost though it could have been refreshed is a failure: shrunk, and told packet by packet.

mod agent;
#[path = "../suite/sim/census.rs"]
mod census;
#[path = "../suite/sim/disk.rs"]
mod disk;
mod driver;
mod faults;
mod judge;
mod kernel;
mod network;
mod plan;
mod proxy;
mod restart;
mod sip;
mod stacks;
mod table;
mod timer;
mod traces;
mod trunk;
mod truth;
mod verdict;
mod world;

use std::cell::RefCell;

use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestError, TestRunner},
};

use plan::plan;
use verdict::{Summary, judge};
use world::World;

/// Calls of the run that is part of every test.
const CALLS: u64 = 1_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is wanted")))
}

#[test]
fn calls_live_whatever_the_network_does() {
    let calls = number("WORLD_CALLS").unwrap_or(CALLS);
    let seed = number("WORLD_SEED").unwrap_or(1);
    let strict = number("WORLD_STRICT") == Some(1);
    println!("WORLD_SEED={seed} WORLD_CALLS={calls}");
    let summary = RefCell::new(Summary::default());
    // Three calls in a world on the average.
    let config = ProptestConfig {
        cases: u32::try_from(calls / 3).unwrap_or(u32::MAX),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_time: 10_000,
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(config).run(&plan(), |plan| {
        let mut world = World::new(&plan, true);
        world.run();
        let mut control = World::new(&plan, false);
        control.run();
        judge(&world, &control, &mut summary.borrow_mut(), strict).map_err(TestCaseError::fail)
    });
    let summary = summary.into_inner();
    println!("{summary}");
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, plan)) => {
            let mut world = World::new(&plan, true);
            world.trace = Some(Vec::new());
            world.run();
            println!("{}", world.trace.unwrap_or_default().join("\n"));
            panic!("WORLD_SEED={seed}: {why}\n{plan:?}");
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
    summary.assert_good(calls);
}
