//! The laboratory: hosts that are network namespaces, wires between them, the daemon under test, SIP software and
//! scripted SIP agents. Nothing here has a name outside this process, so that nothing is left behind, whatever ends it.

pub mod agent;
pub mod browser;
pub mod figure;
mod host;
mod ledger;
pub mod matrix;
mod process;
mod program;
mod screen;
mod sipp;
mod sipst;
mod tap;
mod wire;

pub use host::Host;
pub use ledger::{Ledger, OWN_BRANCH};
pub use process::Process;
pub use program::{Kamailio, Program, Sofia};
pub use screen::Screen;
pub use sipp::{Play, Refresh, Refuses, Sipp};
pub use sipst::{STATE_DIR, Sipst, binary};
pub use tap::{Frame, Tap};
pub use wire::{End, Family, Wire};

/// Two hosts and the wire between them: the server's and the peer's.
pub struct Lab {
    /// Where the server and sipst run.
    pub server: Host,
    /// Where the peer runs.
    pub peer: Host,
    /// `a` is the server's end, `b` the peer's.
    pub wire: Wire,
}

impl Lab {
    /// Both hosts, up and able to reach each other by IPv4 and IPv6.
    pub fn new() -> anyhow::Result<Self> {
        let (server, peer) = (Host::new("server")?, Host::new("peer")?);
        let wire = Wire::between(&server, &peer)?;
        Ok(Self { server, peer, wire })
    }
}
