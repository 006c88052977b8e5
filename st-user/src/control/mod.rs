//! The control socket: what operators see of a running daemon, and what they may ask of it. `docs/control.md` describes it.

pub(crate) mod asker;
pub(crate) mod client;
pub(crate) mod command;
pub mod protocol;
pub(crate) mod server;
pub(crate) mod show;
mod socket;
pub(crate) mod timeline;

/// Where the socket is, unless the configuration says otherwise.
pub const SOCKET: &str = "/run/sipst/sipst.sock";

/// The group that may command, likewise.
pub const GROUP: &str = "sipst";
