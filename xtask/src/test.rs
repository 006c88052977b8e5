//! `cargo xtask test`: all tests, or one part, with what they need brought and built before.

use std::{
    io::{BufRead as _, BufReader},
    ops::AddAssign,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::{
    bare::{Arch, Bare},
    build, dist,
    matrix::{self, Guests},
    setup,
    shell::{self, step},
};

/// Network tests mostly wait for calls to expire; but while many load programs and make interfaces at once, a daemon can stand
/// still for longer than the short intervals here allow.
const NET_THREADS: &str = "10";

/// A machine that stands still for seconds lets real calls die. So many network tests that failed beside the others are tried
/// once more, each alone: what fails then too has failed. More than these are no accident.
const TRIED_AGAIN: usize = 3;

#[derive(Args)]
pub(crate) struct Options {
    /// Which part; all of them by default
    part: Option<Part>,
    /// Only tests whose name contains this
    #[arg(long)]
    only: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// Engine, ABI, daemon and tasks
    Unit,
    /// The kernel programs by test runs in the kernel
    Kernel,
    /// Whole calls between network namespaces
    Net,
    /// Debian's kernels under emulation, and the one that runs here; that one only, where all parts are run
    Matrix,
    /// The packages, in a Debian of their own
    Dist,
    /// Packages for another kind of machine, and the engine's tests under emulation; not where all parts are run
    Foreign,
}

/// How many checks of a part that cargo does not run went well and how many did not.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let parts = options.part.map_or_else(|| Part::SUITE.to_vec(), |part| vec![part]);
    // Emulation takes as long as a third of all else does.
    let guests = if options.part.is_some() { Guests::All } else { Guests::None };
    // Even the daemon's own unit tests make namespaces. What needs no privilege is what plain `cargo test` runs.
    shell::need_root("testing all of sipst (`cargo test` alone runs what does not)")?;
    if parts.iter().any(|part| matches!(part, Part::Net)) {
        setup::run(setup::Wants::TESTS)?;
    }
    if parts.iter().any(|part| matches!(part, Part::Matrix)) {
        setup::run(if guests == Guests::All { setup::Wants::MATRIX } else { setup::Wants::LABORATORY })?;
    }
    if parts.iter().any(|part| matches!(part, Part::Dist)) {
        setup::run(setup::Wants::TRIAL)?;
    }
    if parts.iter().any(|part| matches!(part, Part::Foreign)) {
        setup::run(setup::Wants::DIST)?;
        setup::foreign(Arch::FOREIGN)?;
    }
    build::run(&build::Options { release: false })?;

    let began = Instant::now();
    let mut total = Tally::default();
    for part in parts {
        let filter: Vec<&str> = options.only.as_deref().into_iter().collect();
        // What cargo does not run is one thing: nothing in it has a name of its own.
        if filter.is_empty() {
            let Outcome { passed, failed } = match part {
                Part::Matrix => matrix::run(guests)?,
                Part::Dist => dist::check()?,
                Part::Foreign => dist::foreign()?,
                Part::Unit | Part::Kernel | Part::Net => Outcome::default(),
            };
            total += Tally { passed, failed, ..Tally::default() };
        }
        let Some(mut command) = part.command(&filter) else { continue };
        let mut one = tally(&mut command)?;
        if matches!(part, Part::Net) {
            try_again(&mut one)?;
        }
        total += one;
    }
    Ok(total.report(began.elapsed()))
}

impl Part {
    /// What is run by default: all that a change can break here.
    const SUITE: [Self; 5] = [Self::Unit, Self::Kernel, Self::Net, Self::Matrix, Self::Dist];

    /// What runs its tests, if cargo does; `filter` is for the test binaries.
    fn command(self, filter: &[&str]) -> Option<Command> {
        let mut cargo = shell::cargo();
        if matches!(self, Self::Foreign) {
            cargo = Bare::of(Arch::FOREIGN).test();
        } else {
            cargo.arg("test");
        }
        cargo.arg("--no-fail-fast").env("SIPST", shell::sipst(false)).env("RUST_LIB_BACKTRACE", "0");
        let (name, what, harness): (_, &[&str], &[&str]) = match self {
            Self::Unit => ("unit", &["-pst-core", "-pst-ebpf", "-pxtask", "-psipst", "-pst-fuzz"], &[]),
            Self::Kernel => ("kernel", &["-pst-tests", "--bin", "matrix", "--test", "kernel"], &[]),
            Self::Net => ("net", &["-pst-tests", "--lib", "--test", "net"], &["--test-threads", NET_THREADS]),
            Self::Foreign => ("foreign", &["-pst-core", "-pst-ebpf", "--lib", "--test", "suite"], &[]),
            Self::Matrix | Self::Dist => return None,
        };
        step("test", name);
        cargo.args(what).arg("--").args(filter).args(harness);
        Some(cargo)
    }
}

/// Runs the network tests that failed, each alone, and counts what passes then as passed.
fn try_again(tally: &mut Tally) -> Result<()> {
    if tally.failed == 0 || tally.names.len() as u64 != tally.failed || tally.names.len() > TRIED_AGAIN {
        return Ok(());
    }
    let mut again = Tally::default();
    for name in &tally.names {
        println!("\n{name} failed beside others: once more, alone");
        if let Some(mut command) = Part::Net.command(&["--exact", name]) {
            again += self::tally(&mut command)?;
        }
    }
    if again.failed == 0 && again.broken == 0 && again.passed == tally.failed {
        tally.passed += tally.failed;
        (tally.failed, tally.broken) = (0, 0);
    }
    Ok(())
}

/// What a number of test binaries said together.
#[derive(Default, Debug, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    measured: u64,
    filtered: u64,
    /// cargo runs that did not succeed: a failed build or a crashed test binary may leave no other trace.
    broken: u64,
    /// What failed.
    names: Vec<String>,
}

impl Tally {
    /// Reads the line that ends a test binary's output; anything else is nothing.
    fn read(line: &str) -> Option<Self> {
        let mut tally = Self::default();
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        for part in counts.split("; ") {
            let (number, what) = part.split_once(' ')?;
            let Ok(number) = number.parse() else { continue };
            match what {
                "passed" => tally.passed = number,
                "failed" => tally.failed = number,
                "ignored" => tally.ignored = number,
                "measured" => tally.measured = number,
                "filtered out" => tally.filtered = number,
                _ => {}
            }
        }
        Some(tally)
    }

    /// Where the machine can run a test, a skip is a failure.
    fn good(&self) -> bool {
        self.failed == 0 && self.ignored == 0 && self.broken == 0 && self.passed > 0
    }

    fn report(&self, took: Duration) -> ExitCode {
        let Self { passed, failed, ignored, measured, filtered, broken, names: _ } = self;
        let verdict = if self.good() { "ok" } else { "FAILED" };
        if *broken > 0 {
            eprintln!("{broken} part(s) did not succeed: see above");
        }
        println!(
            "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; {measured} measured; \
             {filtered} filtered out; finished in {:.2}s",
            took.as_secs_f64()
        );
        if self.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let Self { passed, failed, ignored, measured, filtered, broken, names } = other;
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
        self.measured += measured;
        self.filtered += filtered;
        self.broken += broken;
        self.names.extend(names);
    }
}

/// The name in a line that says that a test failed.
fn failed_name(line: &str) -> Option<String> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned)
}

/// Runs cargo, passes its output on, and counts.
fn tally(cargo: &mut Command) -> Result<Tally> {
    let mut child =
        cargo.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{}`", shell::text(cargo)))?;
    let mut total = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what the tests print")?;
            println!("{line}");
            if let Some(one) = Tally::read(&line) {
                total += one;
            }
            total.names.extend(failed_name(&line));
        }
    }
    let status = child.wait().context("lost the tests")?;
    total.broken += u64::from(!status.success());
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_cargo_prints() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s";
        let mut total = Tally::read(line).unwrap();
        total += Tally::read(line).unwrap();
        assert_eq!(total, Tally { passed: 24, ignored: 2, filtered: 6, ..Tally::default() });
        assert_eq!(Tally::read("test engine::r14 ... ok"), None);
        assert_eq!(failed_name("test engine::r14 ... FAILED"), Some("engine::r14".into()));
        assert_eq!(failed_name("test engine::r14 ... ok"), None);
    }

    #[test]
    fn a_skip_is_a_failure_and_so_is_nothing_at_all() {
        assert!(Tally { passed: 1, ..Tally::default() }.good());
        assert!(!Tally { passed: 1, ignored: 1, ..Tally::default() }.good());
        assert!(!Tally { passed: 1, broken: 1, ..Tally::default() }.good());
        assert!(!Tally::default().good());
    }
}
