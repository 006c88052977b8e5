//! The configuration: YAML in, everything that is wrong with it out at once, or what the daemon runs with.

mod alerts;
mod assume;
mod fields;
mod metrics;
mod namespaces;
pub(crate) mod ports;
mod problem;
mod records;
#[cfg(test)]
mod reference;
mod schema;
#[cfg(test)]
mod tests;
mod tree;
mod trunks;

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use st_core::{Action, Policy};

use crate::{
    hep,
    kernel::{self, Group, Overlap},
    recorder::Limits,
};
pub use alerts::{Alerting, Alertmanager, Exec, Journald, Receiver, Webhook};
pub use metrics::Metrics;
pub use ports::Ports;
pub use problem::{ConfigError, Position, Problem};

/// `config/sipst.yaml`: every option, its default and a comment. Valid as it is.
pub const SAMPLE: &str = include_str!("../../../config/sipst.yaml");

/// The port of SIP over UDP (RFC 3261, section 19.1.2), where no other is named.
pub const PORT: u16 = 5060;

/// The port of SIP over TLS, likewise: what is said there cannot be read.
pub const OPAQUE_PORT: u16 = 5061;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// How packets are seen on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// TC on a link that is up, on veth and on the loopback, XDP elsewhere.
    Auto,
    /// TC.
    Tc,
    /// XDP, or TC where that cannot be attached.
    Xdp,
}

/// The socket that operators' commands come in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Where it is; `None`: nobody can command.
    pub socket: Option<PathBuf>,
    /// The group that may, beside the user that the daemon runs as.
    pub group: String,
}

/// All that the operator can say.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where to attach, by names, patterns, exclusions and `default`; at least one, none twice. Whether they exist is for `run` to find
    /// out.
    pub interfaces: Vec<String>,
    /// The network namespaces in which that is, each with its own; none: the daemon's own.
    pub namespaces: Vec<Group>,
    /// How.
    pub attach: Attach,
    /// Ports that SIP is spoken on, at least one, none twice.
    pub ports: Vec<Ports>,
    /// Ports whose traffic cannot be read, none of them among `ports`.
    pub opaque_ports: Vec<Ports>,
    /// Whether UDP of other ports is looked at too, where it begins as SIP does.
    pub any_port: bool,
    /// Where programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// Where what is known of the calls is kept.
    pub state_dir: PathBuf,
    /// Where commands come in, and whose.
    pub control: Control,
    /// Where monitoring asks.
    pub metrics: Metrics,
    /// What the engine is told.
    pub policy: Policy,
    /// Where alerts go beside the log.
    pub alerts: Alerting,
    /// Whether events go to the journal.
    pub journald: Journald,
    /// How much the flight recorder keeps; `None`: there is none.
    pub recorder: Option<Limits>,
    /// Where Homer is; `None`: nothing is reported there.
    pub hep: Option<hep::Target>,
}

impl Config {
    /// Reads a file. `overlaps` tells which of the interfaces one packet can cross.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load(path: &Path, overlaps: &dyn Fn(&[String]) -> Vec<Overlap>) -> Result<Self, ConfigError> {
        let bytes = read(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        let dir = path.parent().unwrap_or(Path::new("."));
        Self::parse(&path.to_string_lossy(), &bytes, dir, overlaps)
    }

    /// The same on this host, whose interfaces tell what one packet can cross.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load_here(path: &Path) -> Result<Self, ConfigError> {
        Self::load(path, &|names| {
            kernel::overlaps(names).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot tell whether one packet can cross two of the interfaces");
                Vec::new()
            })
        })
    }

    /// Reads the text of a file named `file`; relative paths in it start at `dir`.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(
        file: &str,
        bytes: &[u8],
        dir: &Path,
        overlaps: &dyn Fn(&[String]) -> Vec<Overlap>,
    ) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let config = text(bytes)
            .and_then(tree::parse)
            .map_err(|problem| problems.push(problem))
            .ok()
            .and_then(|root| schema::config(root, dir, overlaps, &mut problems));
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            Some(_) | None => {
                problems.sort_by_key(|problem| problem.at);
                Err(ConfigError::Problems { file: file.to_owned(), problems })
            }
        }
    }

    /// Whether any dialog is ever refreshed.
    pub fn refreshes(&self) -> bool {
        let mut rules = self.policy.trunks.iter().map(|trunk| &trunk.rules).chain([&self.policy.default]);
        rules.any(|rules| rules.action == Action::Refresh)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(bytes: &[u8]) -> Result<&str, Problem> {
    let wrong = |at, what, cure| Err(Problem::new(at, what, cure));
    if bytes.len() as u64 > MAX_FILE {
        return wrong(Position::START, "larger than 1 MiB", "is this the right file?");
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) if text.trim().is_empty() => {
            wrong(Position::START, "the file is empty", "start from the output of `sipst generate-config`")
        }
        Ok(text) => Ok(text),
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            wrong(Position { line, column }, "not UTF-8", "save the file as UTF-8")
        }
    }
}
