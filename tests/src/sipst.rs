//! The daemon under test, in a host.

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::{Host, Process};

/// How long the daemon may take to attach, and to end: the kernel verifies the programs of many at a time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `sipst` to test: what the variable `SIPST` names, else the one that stands beside our own executable.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SIPST") {
        return Ok(path.into());
    }
    let own = env::current_exe().context("where am I?")?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join("sipst")).find(|path| path.is_file());
    found.context("no `sipst` binary: `cargo xtask build` makes it")
}

/// Where a daemon keeps what it knows of the calls, unless its configuration says otherwise: the next one in the same host
/// finds it there.
pub const STATE_DIR: &str = "/run/state";

/// A copy of the binary where other users may go.
const FOR_NOBODY: &str = "/run/for-nobody/sipst";

fn configuration(host: &Host, config: &str) -> Result<PathBuf> {
    let own = if config.contains("state_dir:") { String::new() } else { format!("\nstate_dir: {STATE_DIR}\n") };
    host.file("sipst.yaml", format!("{config}{own}"))
}

/// `sipst run --json` in a host; killed when dropped.
pub struct Sipst {
    process: Process,
}

impl Sipst {
    /// Starts it with a configuration and waits until it says that it is ready.
    pub fn start(host: &Host, config: &str) -> Result<Self> {
        Self::launch(host, config)?.ready()
    }

    /// The same with no more than the four capabilities that `config/sipst.service` grants.
    pub fn start_with_four_capabilities(host: &Host, config: &str) -> Result<Self> {
        let config = configuration(host, config)?;
        let four = "-all,+bpf,+net_admin,+net_raw,+perfmon";
        let mut command = Command::new("setpriv");
        command.args(["--no-new-privs", "--bounding-set", four, "--inh-caps", four, "--"]).arg(binary()?);
        command.args(["run", "--json", "-c"]).arg(config).env("SIPST_LOG", "info,sipst=debug,st_core=debug");
        Self { process: host.spawn(command)? }.ready()
    }

    /// The same as a user who is not root and owns the pin directory.
    pub fn start_as_nobody(host: &Host, config: &str) -> Result<Self> {
        const NOBODY: &str = "65534";
        host.run("install", &["-d", "-o", NOBODY, "-m", "0700", "/sys/fs/bpf/sipst", STATE_DIR])?;
        let config = configuration(host, config)?;
        // Nobody may go where the binary was built.
        let own = binary()?;
        host.run("install", &["-D", "-m", "0755", &own.to_string_lossy(), FOR_NOBODY])?;
        let four = "-all,+bpf,+net_admin,+net_raw,+perfmon";
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs"]);
        command.args(["--bounding-set", four, "--inh-caps", four, "--ambient-caps", four, "--", FOR_NOBODY]);
        command.args(["run", "--json", "-c"]).arg(config).env("SIPST_LOG", "info,sipst=debug,st_core=debug");
        Self { process: host.spawn(command)? }.ready()
    }

    /// The same with a wall clock of its own, off by what the host's file `/run/clock` says at every moment; `off`: at first. The
    /// monotonic clock is the machine's.
    pub fn start_with_a_clock(host: &Host, config: &str, off: &str) -> Result<Self> {
        let config = configuration(host, config)?;
        let clock = host.file("clock", off)?;
        let mut command = Command::new(binary()?);
        command.args(["run", "--json", "-c"]).arg(config).env("SIPST_LOG", "info,sipst=debug,st_core=debug");
        command.env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1").env("FAKETIME_TIMESTAMP_FILE", clock);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Self { process: host.spawn(command)? }.ready()
    }

    fn ready(self) -> Result<Self> {
        let mut sipst = self;
        if sipst
            .process
            .stderr
            .wait(PATIENCE, |lines| lines.iter().any(|line| ends_in_ready(line)).then_some(()))
            .is_none()
        {
            let status = sipst.process.kill()?;
            bail!("sipst did not become ready ({status}); it said:\n{}", sipst.process.said());
        }
        Ok(sipst)
    }

    /// Starts it and waits for nothing.
    pub fn launch(host: &Host, config: &str) -> Result<Self> {
        let config = configuration(host, config)?;
        let mut command = Command::new(binary()?);
        command.args(["run", "--json", "-c"]).arg(config).env("SIPST_LOG", "info,sipst=debug,st_core=debug");
        Ok(Self { process: host.spawn(command)? })
    }

    /// Runs `sipst` with these arguments to its end: exit code, stdout, stderr.
    pub fn command(host: &Host, args: &[&str]) -> Result<(Option<i32>, String, String)> {
        let mut command = Command::new(binary()?);
        command.args(args);
        let mut process = host.spawn(command)?;
        let status = process.wait(PATIENCE)?;
        Ok((status.code(), process.printed(), process.said()))
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Value> {
        parse(&self.process.stdout.all())
    }

    /// Waits for an event of a kind; an error with all that it said where none comes.
    pub fn event(&self, kind: &str, within: Duration) -> Result<Value> {
        self.event_where(kind, within, |event| event["event"] == kind)
    }

    /// Waits for an event that `wanted` accepts; `what` names it in the error.
    pub fn event_where(&self, what: &str, within: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = self.process.stdout.wait(within, |lines| parse(lines).into_iter().find(|event| wanted(event)));
        found.with_context(|| format!("no {what} within {within:?}\n{}", self.report()))
    }

    /// Waits until there were so many events of a kind.
    pub fn event_count(&self, kind: &str, count: usize, within: Duration) -> Result<()> {
        let found = self.process.stdout.wait(within, |lines| {
            (parse(lines).iter().filter(|event| event["event"] == kind).count() >= count).then_some(())
        });
        found.with_context(|| format!("no {count} of {kind} within {within:?}\n{}", self.report()))
    }

    /// How many events of a kind there were so far.
    pub fn count(&self, kind: &str) -> usize {
        self.events().iter().filter(|event| event["event"] == kind).count()
    }

    /// Events and log, for a failed test's message.
    pub fn report(&self) -> String {
        format!("events:\n{}\nlog:\n{}", self.process.printed(), self.process.said())
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.said()
    }

    /// Starts it under a supervisor that hears it at this socket of the host's, with a watchdog of that many microseconds.
    pub fn start_supervised(host: &Host, config: &str, socket: &str, watchdog_us: u64) -> Result<Self> {
        let config = configuration(host, config)?;
        let mut command = Command::new(binary()?);
        command.args(["run", "--json", "-c"]).arg(config).env("SIPST_LOG", "info,sipst=debug,st_core=debug");
        command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", watchdog_us.to_string());
        Self { process: host.spawn(command)? }.ready()
    }

    /// Runs `sipst` with these arguments as another user, in these groups, to its end: exit code, stdout, stderr.
    pub fn command_as(host: &Host, user: &str, groups: &str, args: &[&str]) -> Result<(Option<i32>, String, String)> {
        let own = binary()?;
        host.run("install", &["-D", "-m", "0755", &own.to_string_lossy(), FOR_NOBODY])?;
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user, "--groups", groups, "--", FOR_NOBODY]).args(args);
        let mut process = host.spawn(command)?;
        let status = process.wait(PATIENCE)?;
        Ok((status.code(), process.printed(), process.said()))
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(PATIENCE)
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }
}

/// `ready` may stand behind what the log puts before it.
fn ends_in_ready(line: &str) -> bool {
    line.split_whitespace().next_back() == Some("ready") || line.split_whitespace().next() == Some("ready")
}

fn parse(lines: &[String]) -> Vec<Value> {
    lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
