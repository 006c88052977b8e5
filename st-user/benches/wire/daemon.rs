//! The daemon as it is installed, in the server's host: built for release, four lines of configuration, its events in a file.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use st_tests::{Host, Process};

use crate::usage::{Programs, Usage, resident_mb};

/// Where its events go.
const EVENTS: &str = "/run/events";

pub(crate) struct Daemon {
    process: Process,
    pub(crate) programs: Programs,
    /// How long it took until it was ready.
    pub(crate) start: Duration,
}

impl Daemon {
    /// Starts it and waits until it is ready, on that processor alone if one is named.
    pub(crate) fn start(host: &Host, config: &str, processor: Option<usize>, patience: Duration) -> Self {
        let file = host.file("sipst.yaml", config).expect("a host's own /run");
        let mut command = Command::new("sh");
        // In place of the shell: the process is the daemon.
        command.args(["-c", "exec \"$@\" >/run/events", "sh"]);
        let processor = processor.map(|processor| processor.to_string());
        command.args(processor.iter().flat_map(|processor| ["taskset", "-c", processor]));
        command.args([env!("CARGO_BIN_EXE_sipst"), "run", "--json", "-c"]).arg(file);
        let began = Instant::now();
        let mut process = host.spawn(command).expect("a process");
        while !process.said().lines().any(|line| line == "ready") {
            let ended = process.wait(Duration::ZERO).is_ok();
            assert!(!ended && began.elapsed() < patience, "sipst is not ready:\n{}", process.said());
            thread::sleep(Duration::from_millis(20));
        }
        Self { start: began.elapsed(), programs: Programs::on(host), process }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.process.id())
    }

    pub(crate) fn resident_mb(&self) -> f64 {
        resident_mb(self.process.id())
    }

    /// Shows what it has warned of, for people.
    pub(crate) fn show_warnings(&self) {
        let said = self.process.said();
        let warnings: Vec<&str> =
            said.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
        eprintln!("wire: sipst has logged {} warnings", warnings.len());
        warnings.iter().take(5).for_each(|line| eprintln!("  {line}"));
    }

    /// Events that were not printed, so that no count of them is whole.
    pub(crate) fn unprinted(&self) -> u64 {
        let said = self.process.said();
        let lost = said.lines().filter(|line| line.contains("events were not printed"));
        lost.filter_map(|line| line.split("lost=").nth(1)?.trim().parse::<u64>().ok()).sum()
    }

    /// Hands all events that there are so far to `take`.
    pub(crate) fn events(&self, host: &Host, mut take: impl FnMut(&Value)) {
        let file = host.enter(|| File::open(PathBuf::from(EVENTS))).expect("its events");
        for line in BufReader::new(file).lines() {
            let line = line.expect("its events");
            // The last one may not be whole yet.
            if let Ok(event) = serde_json::from_str(&line) {
                take(&event);
            }
        }
    }
}
