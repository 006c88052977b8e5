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
    PeerRefreshes,
}

/// How SIPp as the peer refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// By UPDATE without a body.
    Update,
    /// By a re-INVITE that repeats its session description.
    Reinvite,
}

impl Refresh {
    /// One such refresh: a part of a scenario.
    const fn xml(self) -> &'static str {
        match self {
            Self::Update => include_str!("../sipp/refresh_by_update.part.xml"),
            Self::Reinvite => include_str!("../sipp/refresh_by_reinvite.part.xml"),
        }
    }
}

/// How SIPp as the server turns down what would refresh the session.
#[derive(Clone, Copy, Debug)]
pub struct Refuses {
    /// Its answer to an UPDATE: status and words.
    pub update: &'static str,
    /// Its answer to a re-INVITE.
    pub reinvite: &'static str,
    /// After how many it hangs up.
    pub rounds: usize,
}

impl Scenario {
    const fn xml(self) -> &'static str {
        match self {
            Self::ServerCalls => include_str!("../sipp/server_calls.xml"),
            Self::ServerIsCalled => include_str!("../sipp/server_is_called.xml"),
            Self::PeerIsCalled => include_str!("../sipp/peer_is_called.xml"),
            Self::PeerRefreshes => include_str!("../sipp/peer_refreshes.xml"),
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::ServerCalls => "server_calls.xml",
            Self::ServerIsCalled => "server_is_called.xml",
            Self::PeerIsCalled => "peer_is_called.xml",
            Self::PeerRefreshes => "peer_refreshes.xml",
        }
    }
}

/// Longer than a call can last here.
const FOR_EVER_MS: u64 = 3_600_000;

/// How a 2xx makes its own side the refresher.
const SAYS_UAS: &str = "Session-Expires: INTERVAL_S;refresher=uas";

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
    lists_update: bool,
    refuses: Option<Refuses>,
    refreshes: Option<(Refresh, usize)>,
    has_to_refresh: bool,
    patient: bool,
    echoes: bool,
    port: u16,
    calls: u32,
    tcp: bool,
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
            lists_update: false,
            refuses: None,
            refreshes: None,
            has_to_refresh: false,
            patient: false,
            echoes: false,
            port: 5060,
            calls: 1,
            tcp: false,
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

    /// A peer that is called, makes itself the refresher, does so by half of each interval, so many times, and expects the BYE then.
    /// Where that is turned down or has no answer, it hangs up at the interval's end.
    pub fn peer_refreshes(own: impl Into<IpAddr>, interval_s: u32, by: Refresh, rounds: usize) -> Self {
        let refreshes = Some((by, rounds));
        Self { interval_s: Some(interval_s), refreshes, ..Self::new(Scenario::PeerRefreshes, own.into()) }
    }

    /// A server that turns down what would refresh the session; it hangs up after so many, or after a time without any.
    pub fn that_refuses(self, refuses: Refuses) -> Self {
        Self { refuses: Some(refuses), ..self }
    }

    /// With UPDATE in the server's Allow.
    pub fn that_lists_update(self) -> Self {
        Self { lists_update: true, ..self }
    }

    /// A peer that makes itself the refresher at first, and does nothing. The role is the server's after a refresh of its.
    pub fn that_has_to_refresh(self) -> Self {
        Self { has_to_refresh: true, ..self }
    }

    /// It hangs up on nobody: somebody before it does, or nobody.
    pub fn that_is_patient(self) -> Self {
        Self { patient: true, ..self }
    }

    /// It sends RTP back.
    pub fn that_echoes(self) -> Self {
        Self { echoes: true, ..self }
    }

    /// So many calls instead of one, 25 a second.
    pub fn calls(self, calls: u32) -> Self {
        Self { calls, ..self }
    }

    /// Over one TCP connection.
    pub fn by_tcp(self) -> Self {
        Self { tcp: true, ..self }
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
        let mut xml = self.scenario.xml().to_owned();
        if self.lists_update {
            xml = xml.replace("BYE, CANCEL\n", "BYE, CANCEL, UPDATE\n");
        }
        if let Some(Refuses { update, reinvite, rounds }) = self.refuses {
            let part = include_str!("../sipp/server_refuses.part.xml").replace("TO_UPDATE", update);
            let part = part.replace("TO_INVITE", reinvite).replace("ROUNDS", &rounds.to_string());
            xml = xml.replace("  <pause milliseconds=\"HOLD_MS\"/>\n", &part);
        }
        if let Some((by, rounds)) = self.refreshes {
            let parts: String = (1..=rounds).map(|number| by.xml().replace("NUMBER", &number.to_string())).collect();
            xml = xml.replace("  <!-- REFRESHES -->\n", &parts);
        }
        if self.has_to_refresh {
            xml = xml.replacen("Require: timer\nSession-Expires: INTERVAL_S;refresher=uac", SAYS_UAS, 1);
        }
        let xml = xml.replace("HOLD_MS", &self.hold.as_millis().to_string());
        let Some(seconds) = self.interval_s else {
            let of_timers = ["Supported: timer", "Require: timer", "Session-Expires:"];
            let lines = xml.lines().filter(|line| !of_timers.iter().any(|header| line.starts_with(header)));
            let xml: String = lines.map(|line| format!("{line}\n")).collect();
            return xml.replace("EXPIRES_MS", &FOR_EVER_MS.to_string());
        };
        let xml =
            if self.lists_timer { xml.replace("\nRequire: timer", "\nSupported: timer\nRequire: timer") } else { xml };
        let half = u64::from(seconds) * 500;
        let xml = xml.replace("INTERVAL_S", &seconds.to_string()).replace("HALF_MS", &half.to_string());
        xml.replace("EXPIRES_MS", &if self.patient { FOR_EVER_MS } else { half * 2 }.to_string())
    }
}

/// A running SIPp.
pub struct Sipp {
    process: Process,
}

impl Sipp {
    /// Starts it and waits until its port is open.
    pub fn start(host: &Host, play: Play) -> Result<Self> {
        let Play { scenario, own, target, hold, patient, echoes, port, calls, tcp, .. } = play;
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
        let timeout = if patient { Duration::from_millis(FOR_EVER_MS) } else { hold + Duration::from_secs(60) };
        command.args(["-timeout", &timeout.as_secs().to_string(), "-timeout_error"]);
        command.args(echoes.then_some("-rtp_echo"));
        // SIPp takes its options before the target and after it alike.
        command.args(target.map(|target| target.to_string()));
        if tcp {
            command.args(["-t", "t1"]);
        }
        let mut process = host.spawn(command)?;
        match (tcp, target) {
            (false, _) => process.opens(host, port, Duration::from_secs(10))?,
            (true, None) => process.opens_tcp(host, port, Duration::from_secs(10))?,
            // It opens none of its own.
            (true, Some(_)) => {}
        }
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
