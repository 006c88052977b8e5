//! `cargo xtask test matrix`: what sipst does on Debian's kernels, each under qemu's own emulation, and on the one that runs
//! here. The checks themselves are the program `matrix` of package st-tests.

mod guest;
mod image;
mod kernels;
mod verdict;

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::Result;

pub(crate) use self::kernels::{KEYRING, mirror};
use self::{kernels::Release, verdict::Row};
use crate::{
    bare::Bare,
    shell::{self, step},
    test::Outcome,
};

/// What every guest gets, and what two of them leave to this machine.
const GUEST_MIB: u64 = 768;
const SPARE_MIB: u64 = 1024;

/// Which kernels, beside the one that runs here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guests {
    All,
    None,
}

/// Prints the table. An error where not even that can be made.
pub(crate) fn run(guests: Guests) -> Result<Outcome> {
    build()?;
    let releases: &[Release] = if guests == Guests::All { &kernels::RELEASES } else { &[] };
    let queue = Mutex::new(releases.iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let mut rows = thread::scope(|scope| {
        let work = || std::iter::from_fn(next).map(|release| (Some(release), there(release))).collect::<Vec<_>>();
        let guests: Vec<_> = (0..at_once()).map(|_| scope.spawn(work)).collect();
        let here = scope.spawn(here);
        let mut rows: Vec<_> = guests.into_iter().flat_map(|one| one.join().unwrap_or_default()).collect();
        let place = |version| kernels::RELEASES.iter().position(|one| one.version == version);
        rows.sort_by_key(|(release, _)| release.and_then(|release| place(release.version)));
        rows.extend(here.join().map(|row| (None, row)));
        rows
    });
    // A machine that stands still for seconds lets calls die: once more, alone. What fails then too has failed, and so has what
    // did not even start.
    for (release, row) in rows.iter_mut().filter(|(_, row)| row.failed() > 0 && row.passed() > 0) {
        println!("\n{}\nonce more, alone", verdict::table(std::slice::from_ref(row)));
        *row = release.map_or_else(here, there);
    }
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    // A thread that panicked has left no row.
    let lost = (releases.len() + 1).saturating_sub(rows.len()) as u64;
    println!("\n{}", verdict::table(&rows));
    let sum = |count: fn(&Row) -> u64| rows.iter().map(count).sum::<u64>();
    Ok(Outcome { passed: sum(Row::passed), failed: sum(Row::failed) + lost })
}

/// `sipst` and `matrix` without any library.
fn build() -> Result<()> {
    step("matrix", "building sipst and its checks without libraries");
    shell::run(Bare::find().build().args(["-psipst", "-pst-tests", "--bin", "sipst", "--bin", "matrix"]))
}

/// A program that [`build`] has left.
fn built(name: &str) -> PathBuf {
    Bare::find().built(name, false)
}

/// Where kernels and images are kept.
fn directory() -> PathBuf {
    shell::target().join("matrix")
}

/// Two where there is memory for them.
fn at_once() -> usize {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available_kib: u64 = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    if available_kib / 1024 >= 2 * GUEST_MIB + SPARE_MIB { 2 } else { 1 }
}

/// On one of Debian's kernels.
fn there(release: &Release) -> Row {
    let run = || {
        let kernel = kernels::fetch(release)?;
        let image = image::make(&kernel, release.suite)?;
        step("matrix", format_args!("Linux {}: under emulation", release.version));
        guest::emulated(&image, release.suite)
    };
    let row = Row::new(format!("{} of {}", release.version, release.suite), run());
    step("matrix", format_args!("Linux {}: {} checks good, {} not", release.version, row.passed(), row.failed()));
    row
}

/// On the kernel that runs here.
fn here() -> Row {
    step("matrix", "the kernel that runs here");
    Row::new("running here".into(), guest::here())
}
