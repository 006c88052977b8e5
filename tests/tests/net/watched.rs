//! Real SIP software at both ends: what can be told of such a call is what went by on the wire, what the ends logged, and what
//! sipst said.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use st_tests::{Family, Host, Lab, Ledger, OWN_BRANCH, Program, Sipp, Sipst, Tap};

use crate::plan::{SOON, config};

/// Daemons start one after the other: where the kernel verifies the programs of dozens at once, none is ready for a minute.
static STARTS: Mutex<()> = Mutex::new(());

fn start(host: &Host, config: &str) -> Sipst {
    let _turn = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    Sipst::start(host, config).unwrap()
}

/// A laboratory under watch, with sipst or without. The hosts come last: they end last.
pub(crate) struct Watched {
    pub(crate) sipst: Option<Sipst>,
    pub(crate) tap: Tap,
    pub(crate) lab: Lab,
    family: Family,
    /// sipst's.
    config: String,
}

impl Watched {
    /// With a trunk of these rules.
    pub(crate) fn new(family: Family, attach: &str, rules: &[&str]) -> Self {
        let lab = Lab::new().unwrap();
        let config = config(attach, rules);
        let sipst = Some(start(&lab.server, &config));
        let tap = Tap::start(&lab.peer, "eth0").unwrap();
        Self { sipst, tap, lab, family, config }
    }

    pub(crate) fn without_sipst() -> Self {
        let lab = Lab::new().unwrap();
        let tap = Tap::start(&lab.peer, "eth0").unwrap();
        Self { sipst: None, tap, lab, family: Family::V4, config: String::new() }
    }

    /// The server's address.
    pub(crate) fn server(&self) -> IpAddr {
        self.lab.wire.a.ip(self.family)
    }

    /// The peer's.
    pub(crate) fn peer(&self) -> IpAddr {
        self.lab.wire.b.ip(self.family)
    }

    /// What the server calls.
    pub(crate) fn callee(&self) -> String {
        match self.peer() {
            IpAddr::V4(ip) => format!("sip:peer@{ip}:5060"),
            IpAddr::V6(ip) => format!("sip:peer@[{ip}]:5060"),
        }
    }

    pub(crate) fn sipst(&self) -> &Sipst {
        self.sipst.as_ref().unwrap()
    }

    /// The daemon dies.
    pub(crate) fn kill(&mut self) {
        self.sipst.as_mut().unwrap().kill().unwrap();
    }

    /// Another one begins, out of turn: its call waits for nobody.
    pub(crate) fn start_again(&mut self) {
        self.sipst = Some(Sipst::start(&self.lab.server, &self.config).unwrap());
    }

    /// Waits until sipst has told so many events of a kind, and what it knows is written down.
    pub(crate) fn told(&self, kind: &str, count: usize, within: Duration) {
        let told = self.sipst().event_count(kind, count, within);
        told.unwrap_or_else(|error| panic!("{error:#}\n{}", self.report()));
        std::thread::sleep(Duration::from_secs(1));
    }

    /// All SIP on the wire so far, as the peer's end has it.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::of(&self.tap).unwrap()
    }

    pub(crate) fn report(&self) -> String {
        let ledger = Ledger::of(&self.tap).map_or_else(|error| error.to_string(), |ledger| ledger.story());
        let sipst = self.sipst.as_ref().map(Sipst::report).unwrap_or_default();
        format!("{ledger}\n{sipst}")
    }

    /// The call is over, by the server's BYE; nothing was odd on the wire, nor in what the server heard.
    pub(crate) fn is_clean(&self, server_log: &str) {
        let ledger = self.ledger();
        for side in [self.server(), self.peer()] {
            ledger.is_clean(side).unwrap_or_else(|error| panic!("{error}\n{}", self.report()));
        }
        let last = ledger.requests(self.server()).pop().and_then(|request| request.method());
        assert_eq!(last, Some("BYE"), "{}", self.report());
        // The log is one of messages, and has what the server asked for and not what it did not.
        assert!(server_log.contains("BYE sip:") && server_log.contains("SIP/2.0 200"), "{server_log}");
        assert!(!server_log.contains(OWN_BRANCH), "{server_log}");
        let ended = self.sipst().event("session_ended", SOON).unwrap();
        assert_eq!(ended["by"], "server", "{}", self.report());
        for kind in ["refresh_failed", "session_expired", "capture_loss"] {
            assert_eq!(self.sipst().count(kind), 0, "{}", self.report());
        }
    }
}

/// Both ends of a call, and the call's laboratory, which comes last: it ends last.
pub(crate) struct Ends {
    /// SIPp, if it is the server, or behind it.
    pub(crate) sipp: Option<Sipp>,
    /// What else is on the server's side: the server first, who calls by it last.
    pub(crate) server: Vec<Program>,
    /// SIPp on the peer's side.
    pub(crate) peers_sipp: Option<Sipp>,
    /// What else is there.
    pub(crate) peers: Vec<Program>,
    pub(crate) watched: Watched,
}

impl Ends {
    /// All that is known, for a failed test's message.
    pub(crate) fn report(&self) -> String {
        let logs: String = self.peers.iter().chain(&self.server).map(|program| program.log() + "\n").collect();
        format!("{logs}{}", self.watched.report())
    }

    /// Waits until sipst has told of it.
    pub(crate) fn established(self) -> Self {
        let told = self.watched.sipst().event("session_started", SOON);
        told.unwrap_or_else(|error| panic!("{error:#}\n{}", self.report()));
        self
    }

    /// Once sipst has told so many events of a kind, the server's side hangs up, unless SIPp does so by itself.
    pub(crate) fn hang_up_after(&self, kind: &str, count: usize, within: Duration) {
        if let (None, Some(program)) = (&self.sipp, self.server.last()) {
            self.watched.told(kind, count, within);
            program.terminate().unwrap();
        }
    }

    /// The server hangs up, which the peer accepts, and neither met anything odd. Of `quiet` nothing was told. The server's log.
    pub(crate) fn end_well(&mut self, within: Duration, quiet: &[&str]) -> String {
        let hosts = [&self.watched.lab.server, &self.watched.lab.peer];
        let ends = [&mut self.sipp, &mut self.peers_sipp].into_iter().zip(hosts);
        let failed = ends.filter_map(|(sipp, host)| sipp.as_mut()?.succeeds(host, within).err()).next();
        assert!(failed.is_none(), "{failed:?}\n{}", self.report());
        let ended = self.watched.sipst().event("session_ended", within);
        ended.unwrap_or_else(|error| panic!("{error:#}\n{}", self.report()));
        let log = match (self.server.first(), &self.sipp) {
            (Some(program), _) => program.log(),
            (None, Some(sipp)) => sipp.messages(&self.watched.lab.server).unwrap(),
            (None, None) => String::new(),
        };
        self.watched.is_clean(&log);
        for program in &self.peers {
            assert!(!program.log().contains("own request BYE"), "Kamailio ends no call\n{}", self.report());
            assert!(!program.log().contains("almost expired"), "nor does sofia\n{}", self.report());
        }
        for kind in quiet {
            assert_eq!(self.watched.sipst().count(kind), 0, "{}", self.report());
        }
        log
    }

    /// The peer's side hangs up.
    pub(crate) fn end_by_peer(&self, within: Duration) {
        let ended = self.watched.sipst().event("session_ended", within);
        let ended = ended.unwrap_or_else(|error| panic!("{error:#}\n{}", self.report()));
        assert_eq!(ended["by"], "peer", "{}", self.report());
        self.peer_said_bye();
    }

    /// The last that was asked on the peer's side was to end the call.
    pub(crate) fn peer_said_bye(&self) {
        let ledger = self.watched.ledger();
        let last = ledger.requests(self.watched.peer()).pop().and_then(|request| request.method());
        assert_eq!(last, Some("BYE"), "{}", self.report());
    }
}
