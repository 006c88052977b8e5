//! SIPp (Debian's sip-tester): real SIP software that knows nothing of sipst, and aborts a call on a message that its
//! scenario does not expect.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{Host, Process};

/// What SIPp plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    ServerCalls,
    ServerIsCalled,
    PeerIsCalled,
}

impl Scenario {
    const fn xml(self) -> &'static str {
        match self {
            Self::ServerCalls => include_str!("../sipp/server_calls.xml"),
            Self::ServerIsCalled => include_str!("../sipp/server_is_called.xml"),
            Self::PeerIsCalled => include_str!("../sipp/peer_is_called.xml"),
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::ServerCalls => "server_calls.xml",
            Self::ServerIsCalled => "server_is_called.xml",
            Self::PeerIsCalled => "peer_is_called.xml",
        }
    }
}

/// Where SIPp writes each message that it sends and receives.
const MESSAGES: &str = "/run/sipp_messages.log";

/// What SIPp is told to do.
#[derive(Clone, Copy, Debug)]
pub struct Play {
    scenario: Scenario,
    own: IpAddr,
    target: Option<SocketAddr>,
    hold: Duration,
    interval_s: u32,
    calls: u32,
}

impl Play {
    /// A server without timers at `own`, port 5060: calls `target`, holds the call, hangs up and expects 200.
    pub fn server_calls(own: impl Into<IpAddr>, target: SocketAddr, hold: Duration) -> Self {
        let (own, target) = (own.into(), Some(target));
        Self { scenario: Scenario::ServerCalls, own, target, hold, interval_s: 0, calls: 1 }
    }

    /// The same called; its 200 passes on a Session-Expires that makes it the refresher.
    pub fn server_is_called(own: impl Into<IpAddr>, hold: Duration, interval_s: u32) -> Self {
        Self { scenario: Scenario::ServerIsCalled, own: own.into(), target: None, hold, interval_s, calls: 1 }
    }

    /// A peer that is called, makes the server the refresher, takes UPDATE and re-INVITE, and expects the BYE.
    pub fn peer_is_called(own: impl Into<IpAddr>, interval_s: u32) -> Self {
        let (scenario, hold) = (Scenario::PeerIsCalled, Duration::ZERO);
        Self { scenario, own: own.into(), target: None, hold, interval_s, calls: 1 }
    }

    /// So many calls instead of one, 25 a second.
    pub fn calls(self, calls: u32) -> Self {
        Self { calls, ..self }
    }
}

/// A running SIPp.
pub struct Sipp {
    process: Process,
}

impl Sipp {
    /// Starts it and waits until its port is open.
    pub fn start(host: &Host, play: Play) -> Result<Self> {
        let Play { scenario, own, target, hold, interval_s, calls } = play;
        let xml = scenario.xml().replace("HOLD_MS", &hold.as_millis().to_string());
        let file = host.file(scenario.file(), xml.replace("INTERVAL_S", &interval_s.to_string()))?;
        let own = match own {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let mut command = Command::new("sipp");
        command.current_dir("/run").env("TERM", "dumb").arg("-sf").arg(file);
        command.args([
            "-i",
            &own,
            "-p",
            "5060",
            "-m",
            &calls.to_string(),
            "-r",
            "25",
            "-nostdin",
            "-deadcall_wait",
            "0",
            "-trace_err",
        ]);
        command.args(["-trace_msg", "-message_file", MESSAGES]);
        command.args(["-timeout", &(hold + Duration::from_secs(60)).as_secs().to_string(), "-timeout_error"]);
        command.args(target.map(|target| target.to_string()));
        let mut sipp = Self { process: host.spawn(command)? };
        let until = Instant::now() + Duration::from_secs(10);
        while !host.listens(5060) {
            if Instant::now() > until {
                sipp.crash()?;
                bail!("SIPp does not open its port: {}\n{}", sipp.process.said(), sipp.process.printed());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(sipp)
    }

    /// Waits for the end of the call; an error with what SIPp says unless it went as the scenario has it.
    pub fn succeeds(&mut self, host: &Host, within: Duration) -> Result<()> {
        let status = self.process.wait(within)?;
        if status.success() {
            return Ok(());
        }
        let logs = host.list("/run").into_iter().filter(|name| name.ends_with("_errors.log"));
        let errors: Vec<_> = logs
            .filter_map(|name| host.read(format!("/run/{name}")).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect();
        bail!("SIPp: the call failed ({status})\n{}\n{}", self.process.said(), errors.join("\n"))
    }

    /// Whether the call went as the scenario has it, once it is over.
    pub fn ended_well(&mut self, within: Duration) -> Result<bool> {
        Ok(self.process.wait(within)?.success())
    }

    /// The CSeq number that SIPp wrote itself in its last request of a method.
    pub fn wrote(&self, host: &Host, method: &str) -> Option<u32> {
        let log = String::from_utf8_lossy(&host.read(MESSAGES).ok()?).into_owned();
        let requests = log.lines().filter_map(|line| line.trim_end().strip_prefix("CSeq: ")?.strip_suffix(method));
        requests.filter_map(|number| number.trim().parse().ok()).next_back()
    }

    /// `kill -9`: a server that crashes.
    pub fn crash(&mut self) -> Result<()> {
        self.process.kill().map(drop).context("SIPp")
    }
}
