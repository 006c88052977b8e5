//! Every task that a person runs on this workspace: `cargo xtask <task>`.

mod bare;
mod bench;
mod build;
mod demo;
mod dist;
mod fuzz;
mod load;
mod matrix;
mod setup;
mod shell;
mod soak;
mod test;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Every task that a person runs on this workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Bring the kernel toolchain, bpf-linker and the packages that the tests need; does nothing twice
    Setup,
    /// Build the kernel programs, then sipst with them inside
    Build(build::Options),
    /// Build, attach and pin the kernel programs, show what is attached
    Load(load::Load),
    /// Take the kernel programs and their pins away
    Unload(load::Unload),
    /// Make the Debian package and the archive for other distributions
    Dist(dist::Options),
    /// Watch sipst keep a call alive that dies without it
    Demo,
    /// Run the tests: all of them, or one part
    Test(test::Options),
    /// Live through many thousand simulated calls with every kind of fault, without sipst and with it
    Soak(soak::Options),
    /// Measure what sipst costs, beside what is wanted
    Bench(bench::Options),
    /// Look for bytes that break a property of the scanner, the engine or the kernel's scan
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup => setup::run(setup::Wants::EVERYTHING).map(|_| ExitCode::SUCCESS),
        Task::Build(options) => build::run(&options).map(|_| ExitCode::SUCCESS),
        Task::Load(options) => load::load(&options),
        Task::Unload(options) => load::unload(&options),
        Task::Dist(options) => dist::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Demo => demo::run(),
        Task::Test(options) => test::run(&options),
        Task::Soak(options) => soak::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Bench(options) => bench::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(options) => fuzz::run(&options).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
