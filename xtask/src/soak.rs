//! `cargo xtask soak`: the two-sided simulator for as many calls as one likes; the suite has its short form.

use anyhow::Result;
use clap::Args;

use crate::shell::{self, step};

#[derive(Args)]
pub(crate) struct Options {
    /// How many calls to live through
    #[arg(long, default_value_t = 100_000)]
    calls: u32,
    /// Where the random numbers begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    step("soak", format_args!("{} calls from seed {}", options.calls, options.seed));
    shell::run(
        shell::cargo()
            .env("WORLD_CALLS", options.calls.to_string())
            .env("WORLD_SEED", options.seed.to_string())
            .args(["test", "--release", "--package", "st-core", "--test", "world", "--", "--nocapture"]),
    )
}
