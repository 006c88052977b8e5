//! A call to be: who calls whom over what, with which rules, and what is expected of every call in the end.

use std::time::Duration;

use serde_json::Value;
use st_tests::{
    Family, Host, Lab, Sipst, Tap,
    agent::{Agent, Profile, Timer, refreshes},
};

/// Long enough for anything that happens at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What most peers here ask for: a third of it is more than a busy machine stands still for.
pub(crate) const INTERVAL_S: u32 = 8;

/// The configuration of these tests: one trunk that covers every peer, with these further lines of rules.
pub(crate) fn config(attach: &str, rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|line| format!("    {line}\n")).collect();
    format!(
        "interfaces: [eth0]\nattach: {attach}\ntrunks:\n  - name: carrier\n    \
         match: {{ peers: [\"10.0.0.0/8\", \"fd00::/8\"] }}\n    interval_floor: 2s\n{rules}"
    )
}

/// What sets a call apart; the default is the main job.
pub(crate) struct Plan {
    pub(crate) family: Family,
    pub(crate) attach: &'static str,
    pub(crate) rules: Vec<&'static str>,
    pub(crate) server_calls: bool,
    pub(crate) peer: Profile,
    pub(crate) server: Profile,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            family: Family::V4,
            attach: "auto",
            rules: vec!["action: refresh", "min_se: 2s"],
            server_calls: true,
            peer: Profile::strict_peer(INTERVAL_S, "uac"),
            server: Profile::plain_server(),
        }
    }
}

impl Plan {
    /// The peer calls; the server's 200 makes it the refresher, as that of a B2BUA does which passes headers through.
    pub(crate) fn peer_calls() -> Self {
        let timer = Some(Timer { interval_s: INTERVAL_S, refresher: Some("uas") });
        Self {
            server_calls: false,
            peer: Profile::strict_peer(INTERVAL_S, "uas"),
            server: Profile { timer, ..Profile::plain_server() },
            ..Self::default()
        }
    }

    /// A call after its first refresh, with 20 s until the next one: for tests that must not meet it.
    pub(crate) fn unhurried() -> Call {
        let call = Self { attach: "tc", peer: Profile::strict_peer(40, "uac"), ..Self::default() }.start();
        call.refreshed(1);
        call
    }

    /// Sets all up and waits until both ends are in the call.
    pub(crate) fn start(self) -> Call {
        self.start_with(|config| config)
    }

    /// The same with a configuration made from the usual one.
    pub(crate) fn start_with(self, change: impl FnOnce(String) -> String) -> Call {
        self.start_in(Lab::new().unwrap(), change)
    }

    /// The same between hosts where something stands already.
    pub(crate) fn start_in(self, lab: Lab, change: impl FnOnce(String) -> String) -> Call {
        self.start_all(lab, |host, config| Sipst::start(host, &change(config.into())).unwrap())
    }

    /// The same with a daemon that is started otherwise.
    pub(crate) fn start_by(self, daemon: impl FnOnce(&Host, &str) -> Sipst) -> Call {
        self.start_all(Lab::new().unwrap(), daemon)
    }

    fn start_all(self, lab: Lab, daemon: impl FnOnce(&Host, &str) -> Sipst) -> Call {
        lab.server.file("carrier.pw", "secret\n").unwrap();
        lab.server.run("chmod", &["600", "/run/carrier.pw"]).unwrap();
        let sipst = daemon(&lab.server, &config(self.attach, &self.rules));
        let tap = Tap::start(&lab.peer, "eth0").unwrap();
        let peer = Agent::start(&lab.peer, (lab.wire.b.ip(self.family), 5060).into(), self.peer).unwrap();
        let server = Agent::start(&lab.server, (lab.wire.a.ip(self.family), 5060).into(), self.server).unwrap();
        if self.server_calls {
            server.call(peer.address());
        } else {
            peer.call(server.address());
        }
        server.established(SOON).unwrap();
        peer.established(SOON).unwrap();
        Call { server, peer, sipst, tap, lab }
    }
}

/// A call that is up. The hosts come last: they end last.
pub(crate) struct Call {
    pub(crate) server: Agent,
    pub(crate) peer: Agent,
    pub(crate) sipst: Sipst,
    pub(crate) tap: Tap,
    pub(crate) lab: Lab,
}

impl Call {
    /// All that is known, for a failed test's message.
    pub(crate) fn story(&self) -> String {
        format!("{}\n{}\nsipst {}", self.peer, self.server, self.sipst.report())
    }

    /// Waits until the peer has had so many refreshes, and is still there.
    pub(crate) fn refreshed(&self, count: usize) {
        let interval = self.peer.status().interval.unwrap_or_default();
        let within = SOON + interval * u32::try_from(count).unwrap();
        let refreshed = self.peer.wait("refresh", within, |records| {
            let over = records.iter().any(|record| record.is_end());
            (over || refreshes(records).len() >= count).then_some(!over)
        });
        assert!(refreshed.is_ok_and(|alive| alive), "{count} refreshes were expected\n{}", self.story());
    }

    /// sipst keeps it up by seven refreshes, each of which asks for so many seconds and names its own side the refresher, and the peer
    /// takes the server's INFO between them. Of `quiet` nothing is told. The first `refresh_due`.
    pub(crate) fn kept_up(&self, seconds: u32, quiet: &[&str]) -> Value {
        self.refreshed(3);
        self.server.request("INFO");
        assert_eq!(self.server.answered("INFO", SOON).unwrap(), 200, "{}", self.story());
        self.refreshed(7);
        let first = self.sipst.event("refresh_due", SOON).unwrap();
        for refresh in self.peer.refreshes() {
            assert_eq!(refresh.session_expires(), Some((seconds, Some("uac"))), "{}", self.story());
        }
        for kind in quiet {
            assert_eq!(self.sipst.count(kind), 0, "{}", self.story());
        }
        first
    }

    /// The server hangs up, as the server it is; the peer must accept that, and neither end may have met anything odd.
    pub(crate) fn server_hangs_up(&self) {
        self.server.bye();
        let status = self.server.answered("BYE", SOON);
        assert!(matches!(status, Ok(200)), "{status:?}\n{}", self.story());
        let (by_peer, _) = self.peer.ended(SOON).unwrap();
        assert!(!by_peer, "{}", self.story());
        self.sipst
            .event_where("session_ended by the server", SOON, |event| {
                event["event"] == "session_ended" && event["by"] == "server"
            })
            .unwrap();
        self.clean();
    }

    /// The peer hangs up, and the server accepts that; likewise.
    pub(crate) fn peer_hangs_up(&self) {
        self.peer.bye();
        assert_eq!(self.peer.answered("BYE", SOON).unwrap(), 200, "{}", self.story());
        self.clean();
    }

    /// Neither end met anything odd, every packet was whole, and the server got none that it did not ask for.
    pub(crate) fn clean(&self) {
        assert!(self.peer.faults().is_empty() && self.server.faults().is_empty(), "{}", self.story());
        self.tap.datagrams().unwrap();
    }

    /// Statuses of the peer's final answers to anything that this side sent.
    pub(crate) fn peer_answers(&self) -> Vec<u16> {
        self.peer.answers().into_iter().filter(|status| *status >= 200).collect()
    }
}
