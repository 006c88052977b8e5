//! The command line.

use std::{
    io::{self, ErrorKind, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde_json::json;
use st_core::{Event, Policy};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::{
    alert::{Alerts, Counts, SinkCounts},
    config::{self, Alerting, Attach, Config, ConfigError},
    control::{
        self,
        command::{self, ControlCommand, UsageError},
        show,
    },
    hep::{self, Hep},
    journal::{self, Journal},
    kernel::{self, Kernel, Options},
    needed,
    output::{Format, Printer, chain},
    paper, privilege,
    recorder::{self, Recorder},
    replay::{self, Calls, Progress, ReplayError, Stories, Summary, report},
    run::{self, RunConfig},
    sighting::Sighting,
    sink::EventSink,
    status::Status,
    store,
    top::TopArgs,
};

/// Usage and configuration.
const EXIT_USAGE: u8 = 2;
/// Everything else.
const EXIT_FAILURE: u8 = 1;
/// The variable that filters the log.
const LOG: &str = "SIPST_LOG";
/// How many lines of the log wait for stderr; past that the newest are lost.
const LOG_LINES: usize = 4096;
/// How long the last events and alerts may take to leave when the daemon ends.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// Keeps alive the calls of SIP servers that know nothing of session timers (RFC 4028).
#[derive(Debug, Parser)]
#[command(name = "sipst", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, Args)]
struct Verbosity {
    /// Log more; twice: everything. SIPST_LOG=FILTER overrides it.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// Log less: warnings only; twice: errors only.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, conflicts_with = "verbose")]
    quiet: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the server's calls, and do what the configuration says when a session runs out.
    Run {
        /// The configuration.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Print events as JSON, one object per line.
        #[arg(long)]
        json: bool,
    },
    /// Read a capture (pcap or pcapng) as if it were happening. Needs no privilege, sends nothing.
    Replay {
        /// The capture.
        file: PathBuf,
        /// Network of the server; may be given several times. Without it, the side that never offered timers is it.
        #[arg(long, value_name = "NET", value_parser = network)]
        server: Vec<IpNet>,
        /// The configuration, for its trunks.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print events as JSON, one object per line.
        #[arg(long)]
        json: bool,
        /// Tell at the end, for each call, who had to refresh it, who did, who failed, when it would have died and what
        /// was against RFC 4028: text on stderr, or with --json an object on stdout that has `summary` in place of `event`.
        #[arg(long)]
        summary: bool,
        /// Make a page of it that any browser shows, in one file: each call as a lane, with its intervals, refreshes and faults,
        /// and the moment when it could have died.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Attach and pin the kernel programs and show what is attached; `run` takes them over.
    Load {
        #[command(flatten)]
        what: LoadWhat,
        /// How packets are seen on the way in.
        #[arg(long, value_name = "HOW", default_value = "auto", conflicts_with = "config")]
        attach: AttachArg,
    },
    /// Detach and unpin the kernel programs.
    Unload {
        /// Even where calls depend on the rewriting of their CSeq numbers and will end badly.
        #[arg(long)]
        force: bool,
        /// Where they are pinned.
        #[arg(long, value_name = "DIR", default_value = kernel::PIN_DIR)]
        pin_dir: PathBuf,
        /// Where what is known of the calls is kept.
        #[arg(long, value_name = "DIR", default_value = store::STATE_DIR)]
        state_dir: PathBuf,
    },
    /// Tell what is attached, by which version and since when, and what the daemon that reads it has to say.
    Status {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Where it is pinned.
        #[arg(long, value_name = "DIR", default_value = kernel::PIN_DIR)]
        pin_dir: PathBuf,
        /// Where what is known of the calls is kept.
        #[arg(long, value_name = "DIR", default_value = store::STATE_DIR)]
        state_dir: PathBuf,
        /// The control socket of the daemon.
        #[arg(long, value_name = "PATH", default_value = control::SOCKET)]
        socket: PathBuf,
    },
    #[command(flatten)]
    Control(ControlCommand),
    /// Watch the calls of a running daemon on the terminal, those first that die soonest. `?` explains it, `q` ends it.
    Top(TopArgs),
    /// Tell everything that is wrong with a configuration.
    CheckConfig {
        /// The configuration.
        file: PathBuf,
    },
    /// Print a configuration with every option, its default and what it means.
    GenerateConfig,
    /// Print what completes this command line in a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    #[command(hide = true)]
    Man {
        /// An existing directory.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct LoadWhat {
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An interface, with the defaults for everything else; may be given several times.
    #[arg(short, long, value_name = "IF")]
    interface: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AttachArg {
    Auto,
    Tc,
    Xdp,
}

impl From<AttachArg> for Attach {
    fn from(arg: AttachArg) -> Self {
        match arg {
            AttachArg::Auto => Self::Auto,
            AttachArg::Tc => Self::Tc,
            AttachArg::Xdp => Self::Xdp,
        }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = match privilege::without_any(|| log(cli.verbosity)) {
        Ok(log) => log,
        Err(error) => return report(&anyhow::Error::new(error).context("cannot start the thread that logs")),
    };
    let result = execute(cli.command);
    // What was logged stands before what is said last.
    drop(log);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Says what went wrong, and with which code to end.
fn report(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    if let Some(usage) = error.downcast_ref::<UsageError>() {
        complain(&format!("sipst: {usage}\n"));
        return ExitCode::from(EXIT_USAGE);
    }
    match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::Problems { .. }) => {
            complain(&format!("{error}\n"));
            ExitCode::from(EXIT_USAGE)
        }
        Some(ConfigError::Read { .. }) => {
            complain(&format!("sipst: {error:#}\n"));
            ExitCode::from(EXIT_USAGE)
        }
        None => {
            complain(&format!("sipst: {error:#}\n"));
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Starts the log: by a thread of its own, so that nobody who does not read stderr can hold up the engine. Dropping the
/// guard writes what is queued, for a second at most.
fn log(Verbosity { verbose, quiet }: Verbosity) -> WorkerGuard {
    let level = match (verbose, quiet) {
        (0, 0) => LevelFilter::INFO,
        (1, _) => LevelFilter::DEBUG,
        (2.., _) => LevelFilter::TRACE,
        (0, 1) => LevelFilter::WARN,
        (0, 2..) => LevelFilter::ERROR,
    };
    let (stderr, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LOG_LINES).finish(io::stderr());
    let filter = EnvFilter::builder().with_default_directive(level.into()).with_env_var(LOG).from_env_lossy();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    // The journal has its own times.
    if journal::is_stream(io::stderr()) {
        lines.without_time().init()
    } else {
        lines.init()
    }
    guard
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Run { config, json } => run(config, format(json)),
        Command::Replay { file, server, config, json, summary, html } => {
            let policy = match config {
                Some(file) => load_config(&file)?.policy,
                None => Policy::default(),
            };
            let progress = Progress::on_a_terminal();
            let policy = Arc::new(policy);
            let options = replay::Options { servers: server, policy, format: format(json), progress };
            replay(&file, &options, summary, html.as_deref())
        }
        Command::Load { what, attach } => load(what, attach.into()),
        Command::Unload { force, pin_dir, state_dir } => {
            let unloaded =
                Kernel::unload(&pin_dir, force).map_err(|error| needed::name(error, &pin_dir, &state_dir))?;
            say(&format!("{} links detached, nothing is left under {}\n", unloaded.links, pin_dir.display()))
        }
        Command::Status { json, pin_dir, state_dir, socket } => status(json, &pin_dir, &state_dir, &socket),
        Command::Control(command) => command.execute(),
        Command::Top(args) => args.execute(),
        Command::CheckConfig { file } => check(&file),
        Command::GenerateConfig => say(config::SAMPLE),
        Command::Completions { shell } => {
            paper::completions(Cli::command(), shell, &mut io::stdout().lock()).context("cannot write to stdout")
        }
        Command::Man { dir } => {
            paper::man(Cli::command(), &dir).with_context(|| format!("cannot write to {}", dir.display()))
        }
    }
}

/// What stands in the kernel is for whoever may look there; what the daemon says, for its group too.
fn status(json: bool, pin_dir: &Path, state_dir: &Path, socket: &Path) -> Result<()> {
    let json = |value: &serde_json::Value| json.then(|| format!("{value}\n"));
    match Status::read(pin_dir, state_dir, socket) {
        Ok(status) => {
            let value = serde_json::to_value(&status).context("cannot write JSON")?;
            say(&json(&value).unwrap_or_else(|| status.to_string()))
        }
        Err(error) => match command::status(socket) {
            Ok(Some(daemon)) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                complain(&format!("sipst: what stands in the kernel cannot be told: {error}\n"));
                say(&json(&json!({ "daemon": daemon })).unwrap_or_else(|| show::daemon(&daemon)))
            }
            Ok(None) | Err(_) => Err(error.into()),
        },
    }
}

fn replay(file: &Path, options: &replay::Options, calls: bool, html: Option<&Path>) -> Result<()> {
    // Before all the work: what cannot be written is not worth it.
    let page = html.map(|html| report::Page::create(html, file)).transpose()?;
    let mut out = io::BufWriter::new(options.progress.beside(io::stdout().lock()));
    let mut summary = Summary::default();
    summary.calls = (calls || page.is_some()).then(Calls::default);
    summary.stories = page.is_some().then(Stories::default);
    let result = replay::replay(file, options, &mut out, &mut summary);
    let told = summary.calls.as_ref().filter(|_| calls);
    let told = told.map_or(Ok(()), |calls| calls.write(options.format, &mut out, &mut io::stderr()));
    drop(out);
    if let Some(page) = page {
        let trouble = result.as_ref().err().map(|error| chain(error));
        page.write(&report::page(file, &summary, trouble.as_deref()))?;
    }
    if !matches!(&result, Err(ReplayError::Output(_))) {
        complain(&summary.to_string());
    }
    result?;
    told.context("cannot write the summary")
}

fn run(file: PathBuf, format: Format) -> Result<()> {
    let config = &load_config(&file)?;
    let mut sinks =
        privilege::without_any(|| Sinks::start(config, format)).context("cannot give up capabilities")??;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the event loop")?;
    let result = runtime.block_on(run::run(RunConfig::new(config, Some(file)), &mut sinks));
    sinks.alerts.finish(LAST_EVENTS);
    if let Some(journal) = sinks.journal {
        journal.finish(LAST_EVENTS);
    }
    if let Some(recorder) = sinks.recorder {
        recorder.finish(LAST_EVENTS);
    }
    if let Some(hep) = sinks.hep {
        hep.finish(LAST_EVENTS);
    }
    sinks.printer.finish(LAST_EVENTS);
    Ok(result?)
}

/// Where the daemon's events go.
struct Sinks {
    printer: Printer,
    alerts: Alerts,
    alerting: Alerting,
    journal: Option<Journal>,
    recorder: Option<Recorder>,
    recorded: Option<recorder::Limits>,
    hep: Option<Hep>,
    homer: Option<hep::Target>,
    /// Whether stdout ends in the journal, and stderr.
    streams: [bool; 2],
}

impl Sinks {
    fn start(config: &Config, format: Format) -> Result<Self> {
        let alerts = Alerts::start(&config.alerts).context("cannot start the threads that tell of alerts")?;
        let printer = Printer::start(format, io::stdout()).context("cannot start the thread that prints events")?;
        let streams = [journal::is_stream(io::stdout()), journal::is_stream(io::stderr())];
        let mut sinks = Self {
            printer,
            alerts,
            alerting: config.alerts.clone(),
            journal: None,
            recorder: None,
            recorded: None,
            hep: None,
            homer: None,
            streams,
        };
        sinks
            .write_to_journal(config.journald.is_on())
            .context("cannot start the thread that writes to the journal")?;
        sinks.record(config).context("cannot start the thread of the flight recorder")?;
        sinks.report(config).context("cannot start the thread that reports to Homer")?;
        Ok(sinks)
    }

    fn record(&mut self, config: &Config) -> io::Result<()> {
        self.recorder = config.recorder.map(|limits| Recorder::start(&config.state_dir, limits)).transpose()?;
        self.recorded = config.recorder;
        Ok(())
    }

    fn report(&mut self, config: &Config) -> io::Result<()> {
        self.hep = config.hep.clone().map(Hep::start).transpose()?;
        self.homer.clone_from(&config.hep);
        Ok(())
    }

    fn write_to_journal(&mut self, on: bool) -> io::Result<()> {
        self.journal = on.then(|| Journal::start(Path::new(journal::SOCKET))).transpose()?;
        self.alerts.leave_out_of_the_log(on && self.streams[1]);
        Ok(())
    }
}

impl EventSink for Sinks {
    fn event(&mut self, event: &Event) {
        if let Some(journal) = &self.journal {
            journal.event(event);
        }
        if let Some(hep) = &self.hep {
            hep.event(event);
        }
        if self.journal.is_none() || !self.streams[0] {
            self.printer.event(event);
        }
        self.alerts.event(event);
    }

    fn receivers(&self) -> Counts {
        self.alerts.counts()
    }

    fn exports(&self) -> Vec<Arc<SinkCounts>> {
        let journal = self.journal.as_ref().map(Journal::counts);
        let recorder = self.recorder.as_ref().map(Recorder::counts);
        [journal, recorder, self.hep.as_ref().map(Hep::counts)].into_iter().flatten().collect()
    }

    fn wants_packets(&self) -> bool {
        self.recorder.is_some() || self.hep.is_some()
    }

    fn packet(&mut self, sighting: &Arc<Sighting>) {
        if let Some(recorder) = &self.recorder {
            recorder.keep(sighting);
        }
        if let Some(hep) = &self.hep {
            hep.packet(sighting);
        }
    }

    fn reconfigure(&mut self, config: &Config) -> io::Result<Vec<String>> {
        let mut changes = Vec::new();
        if self.alerting != config.alerts {
            privilege::without_any(|| self.alerts.reconfigure(&config.alerts)).flatten()?;
            self.alerting.clone_from(&config.alerts);
            changes.push(format!("alerts: {}", receivers(&config.alerts)));
        }
        let journal = config.journald.is_on();
        if journal != self.journal.is_some() {
            // What is queued is still written by the thread that goes.
            privilege::without_any(|| self.write_to_journal(journal)).flatten()?;
            changes.push(format!("events go to {}", if journal { "the journal" } else { "no journal any more" }));
        }
        if self.recorded != config.recorder {
            // What is queued is still written by the thread that goes.
            privilege::without_any(|| self.record(config)).flatten()?;
            changes.push("the flight recorder begins a new file".into());
        }
        if self.homer != config.hep {
            privilege::without_any(|| self.report(config)).flatten()?;
            changes.push(format!("reports go to {}", if self.hep.is_some() { "another Homer" } else { "no Homer" }));
        }
        Ok(changes)
    }
}

fn load(what: LoadWhat, attach: Attach) -> Result<()> {
    let options = match what.config {
        Some(file) => RunConfig::new(&load_config(&file)?, None).options,
        None => Options {
            interfaces: what.interface,
            namespaces: Vec::new(),
            attach,
            ports: vec![config::Ports::one(config::PORT)],
            opaque_ports: vec![config::Ports::one(config::OPAQUE_PORT)],
            any_port: false,
            pin_dir: kernel::PIN_DIR.into(),
            recording: false,
            acting: false,
        },
    };
    Kernel::attach(&options)?;
    let attached: String = Kernel::status(&options.pin_dir)?.iter().map(|attached| format!("{attached}\n")).collect();
    say(&attached)
}

fn check(file: &Path) -> Result<()> {
    let config = load_config(file)?;
    let names: Vec<&str> = config.namespaces.iter().map(|group| group.name.as_str()).collect();
    let within = if names.is_empty() { String::new() } else { format!(" in {}", names.join(", ")) };
    say(&format!(
        "{}: OK: {} on {}{within}, {}, {}, {}\n",
        file.display(),
        count(config::ports::covered(&config.ports), "port"),
        config.interfaces.join(", "),
        count(config.policy.trunks.len(), "trunk"),
        receivers(&config.alerts),
        if config.refreshes() { "refreshes" } else { "refreshes nothing" },
    ))
}

fn receivers(alerting: &Alerting) -> String {
    count(alerting.receivers.len(), "alert receiver")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn load_config(file: &Path) -> Result<Config> {
    Ok(Config::load_here(file)?)
}

fn format(json: bool) -> Format {
    if json { Format::Json } else { Format::Human }
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to stdout")
}

/// To stderr, which may be closed: then there is nobody to tell.
fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let address = |text: &str| text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(|_| address(text))
        .map_err(|_| "write an address or a network, such as 192.0.2.0/24".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn load_takes_a_configuration_or_interfaces() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["sipst", "load"], args].concat());
        assert!(parse(&["--interface", "a", "--interface", "b", "--attach", "xdp"]).is_ok());
        assert!(parse(&["-c", "f"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["-c", "f", "--interface", "a"]).is_err());
        assert!(parse(&["-c", "f", "--attach", "tc"]).is_err());
    }

    #[test]
    fn a_server_is_a_network_or_an_address() {
        assert_eq!(network("192.0.2.1"), Ok("192.0.2.1/32".parse().unwrap()));
        assert_eq!(network("2001:db8::/32"), Ok("2001:db8::/32".parse().unwrap()));
        assert!(network("host").is_err());
    }
}
