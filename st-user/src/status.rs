//! What stands in the kernel, as an operator wants to read it: by which version, since when, and whether a daemon reads it.

use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use st_ebpf::abi::{Counter, SILENT_NS};

use crate::{
    clock::monotonic_ns,
    control::{command, show},
    kernel::{self, Attached, Kernel, KernelError},
    store::Kept,
    transports,
};

/// One look.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The version of sipst that the programs came with.
    version: String,
    /// When they were loaded.
    #[serde(serialize_with = "rfc3339")]
    loaded: SystemTime,
    /// How long ago a daemon last read what the programs write; `None` where none has yet.
    daemon_silent_s: Option<f64>,
    /// How many dialogs carry other CSeq numbers on the wire than the server wrote.
    rewritten_dialogs: usize,
    attached: Vec<Attached>,
    /// What the daemon says, if one runs and may be asked.
    daemon: Option<serde_json::Value>,
    /// Why it does not say anything though one runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon_error: Option<String>,
    /// What is kept of the calls.
    state: Kept,
    /// What is seen and what is acted upon, by transport and place.
    transports: Vec<transports::Row>,
    /// What the programs have counted, without what is zero.
    counters: serde_json::Map<String, serde_json::Value>,
}

impl Status {
    /// Looks at what is pinned, and at what is kept, and asks the daemon.
    ///
    /// # Errors
    /// Nothing is, or it cannot be read.
    pub fn read(pin_dir: &Path, state_dir: &Path, socket: &Path) -> Result<Self, KernelError> {
        let maps = Kernel::open_pinned(pin_dir)?;
        let (version, loaded) = maps.made();
        let silent = maps.last_beat()?.map(|at| Duration::from_nanos(monotonic_ns().saturating_sub(at)));
        let mut counters = serde_json::Map::new();
        for counter in Counter::ALL {
            let value = maps.counter(*counter)?;
            if value > 0 {
                counters.insert(counter.name().into(), value.into());
            }
        }
        let (daemon, daemon_error) = match command::status(socket) {
            Ok(daemon) => (daemon, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let counted = |counter: Counter| counters.get(counter.name()).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let attached = Kernel::status(pin_dir)?;
        // Which of them are this host's is a convenience: what was counted is told all the same.
        let interfaces = kernel::list().unwrap_or_default();
        let site = transports::Site { attached: &attached, interfaces: &interfaces };
        Ok(Self {
            transports: transports::rows(&site, counted, daemon.as_ref()),
            version,
            loaded,
            daemon_silent_s: silent.map(|silent| silent.as_secs_f64()),
            rewritten_dialogs: maps.shifting(),
            attached,
            daemon,
            daemon_error,
            state: Kept::look(state_dir),
            counters,
        })
    }
}

fn rfc3339<S: serde::Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_seconds(*at))
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loaded = humantime::format_rfc3339_seconds(self.loaded);
        let ago = SystemTime::now().duration_since(self.loaded).unwrap_or_default();
        let ago = humantime::format_duration(Duration::from_secs(ago.as_secs()));
        writeln!(f, "programs  of sipst {}, loaded {loaded} ({ago} ago)", self.version)?;
        match self.daemon_silent_s {
            None => writeln!(f, "daemon    none has run since")?,
            Some(silent) if silent * 1e9 < SILENT_NS as f64 => writeln!(f, "daemon    runs")?,
            Some(silent) => writeln!(
                f,
                "daemon    SILENT for {}: calls go on, nothing is refreshed",
                humantime::format_duration(Duration::from_secs(silent as u64))
            )?,
        }
        if let Some(daemon) = &self.daemon {
            f.write_str(&show::daemon(daemon))?;
        }
        if let Some(error) = &self.daemon_error {
            writeln!(f, "          what it has to say is not known: {error}")?;
        }
        writeln!(f, "dialogs   {} with rewritten CSeq numbers", self.rewritten_dialogs)?;
        let runs = self.daemon_silent_s.is_some_and(|silent| silent * 1e9 < SILENT_NS as f64);
        writeln!(f, "state     {}", self.state.line(runs))?;
        for aside in self.state.set_aside() {
            writeln!(f, "          could not be read and was put aside: {}", aside.display())?;
        }
        for attached in &self.attached {
            writeln!(f, "attached  {attached}")?;
        }
        for line in self.transports.iter().filter_map(transports::Row::line) {
            writeln!(f, "transport {line}")?;
        }
        let width = self.counters.keys().map(String::len).max().unwrap_or(0);
        for (name, value) in &self.counters {
            writeln!(f, "counted   {name:<width$} {value:>12}")?;
        }
        Ok(())
    }
}
