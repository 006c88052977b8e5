//! SIPp (Debian's sip-tester): real SIP software that knows nothing of sipst, and aborts a call on a message that its
//! scenario does not expect.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

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
    interval_s: Option<u32>,
    lists_timer: bool,
    port: u16,
    calls: u32,
}

impl Play {
    fn new(scenario: Scenario, own: IpAddr) -> Self {
        Self {
            scenario,
            own,
            target: None,
            hold: Duration::ZERO,
            interval_s: None,
            lists_timer: false,
            port: 5060,
            calls: 1,
        }
    }

    /// A server without timers at `own`, port 5060: calls `target`, holds the call, hangs up and expects 200.
    pub fn server_calls(own: impl Into<IpAddr>, target: SocketAddr, hold: Duration) -> Self {
        Self { target: Some(target), hold, ..Self::new(Scenario::ServerCalls, own.into()) }
    }

    /// The same called; its 200 passes on a Session-Expires that makes it the refresher.
    pub fn server_is_called(own: impl Into<IpAddr>, hold: Duration, interval_s: u32) -> Self {
        Self { hold, interval_s: Some(interval_s), ..Self::new(Scenario::ServerIsCalled, own.into()) }
    }

    /// A peer that is called, makes the server the refresher, takes UPDATE and re-INVITE, and expects the BYE. It answers 500 to
    /// a number that is not higher than all before, and hangs up after an interval without refresh.
    pub fn peer_is_called(own: impl Into<IpAddr>, interval_s: u32) -> Self {
        Self { interval_s: Some(interval_s), ..Self::new(Scenario::PeerIsCalled, own.into()) }
    }

    /// The same without timers of its own: whoever is before it has them.
    pub fn peer_without_timers_is_called(own: impl Into<IpAddr>) -> Self {
        Self::new(Scenario::PeerIsCalled, own.into())
    }

    /// So many calls instead of one, 25 a second.
    pub fn calls(self, calls: u32) -> Self {
        Self { calls, ..self }
    }

    /// With `timer` listed in a 2xx that makes the server the refresher, as that of a B2BUA does which passes headers through.
    pub fn that_lists_timer(self) -> Self {
        Self { lists_timer: true, ..self }
    }

    /// At another port than 5060.
    pub fn at_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// The scenario with this call's settings.
    fn xml(&self) -> String {
        let xml = self.scenario.xml().replace("HOLD_MS", &self.hold.as_millis().to_string());
        let Some(seconds) = self.interval_s else {
            let of_timers = ["Supported: timer", "Require: timer", "Session-Expires:"];
            let lines = xml.lines().filter(|line| !of_timers.iter().any(|header| line.starts_with(header)));
            // As long as a call can last here.
            return lines.map(|line| format!("{line}\n")).collect::<String>().replace("EXPIRES_MS", "3600000");
        };
        let xml =
            if self.lists_timer { xml.replace("\nRequire: timer", "\nSupported: timer\nRequire: timer") } else { xml };
        xml.replace("INTERVAL_S", &seconds.to_string()).replace("EXPIRES_MS", &(u64::from(seconds) * 1000).to_string())
    }
}

/// A running SIPp.
pub struct Sipp {
    process: Process,
}

impl Sipp {
    /// Starts it and waits until its port is open.
    pub fn start(host: &Host, play: Play) -> Result<Self> {
        let Play { scenario, own, target, hold, interval_s: _, lists_timer: _, port, calls } = play;
        let file = host.file(scenario.file(), play.xml())?;
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
            &port.to_string(),
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
        let mut process = host.spawn(command)?;
        process.opens(host, port, Duration::from_secs(10))?;
        Ok(Self { process })
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
        let log = self.messages(host).ok()?;
        let requests = log.lines().filter_map(|line| line.trim_end().strip_prefix("CSeq: ")?.strip_suffix(method));
        requests.filter_map(|number| number.trim().parse().ok()).next_back()
    }

    /// All messages that it has sent and received so far.
    pub fn messages(&self, host: &Host) -> Result<String> {
        Ok(String::from_utf8_lossy(&host.read(MESSAGES)?).into_owned())
    }

    /// `kill -9`: a server that crashes.
    pub fn crash(&mut self) -> Result<()> {
        self.process.kill().map(drop).context("SIPp")
    }

    /// Sends it a signal: STOP makes it a server that stands still.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }
}
