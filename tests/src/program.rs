//! Real SIP software beside SIPp: how each is started in the laboratory. All of it logs every message that it sends and
//! receives; what it logged is kept.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::{Host, Process};

/// How long a program may take to open its port.
const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 5060;

/// Where `cargo xtask setup` puts Sippy's B2BUA.
const SIPPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/sippy/bin");

/// A user agent of sofia-sip's nua: takes every call, or makes one.
#[derive(Clone, Copy, Debug)]
pub struct Sofia<'a> {
    /// Its address.
    pub own: IpAddr,
    /// And its port.
    pub port: u16,
    /// The session interval that it asks for or grants, and the least that it takes; seconds.
    pub interval_s: u32,
    /// The least that it takes, in seconds.
    pub min_se_s: u32,
    /// Whether it refreshes by UPDATE.
    pub updates: bool,
    /// Whom it calls.
    pub calls: Option<&'a str>,
    /// The proxy that it calls by.
    pub proxy: Option<Ipv4Addr>,
    /// After which time it hangs up.
    pub holds: Option<Duration>,
}

impl Sofia<'_> {
    /// One that takes calls and no interval below half of its own, the least that there is being 5 s.
    pub fn at(own: impl Into<IpAddr>, interval_s: u32, updates: bool) -> Self {
        let (own, min_se_s) = (own.into(), 5);
        Self { own, port: PORT, interval_s, min_se_s, updates, calls: None, proxy: None, holds: None }
    }
}

/// A Kamailio that routes all calls to one place and stays in their route.
#[derive(Clone, Copy, Debug)]
pub struct Kamailio<'a> {
    /// Its addresses.
    pub own: &'a [IpAddr],
    /// Where it sends calls.
    pub next_hop: SocketAddr,
    /// Where it sends them first, unless they come from there.
    pub detour: Option<SocketAddr>,
    /// The session interval that it puts into effect and enforces, if any.
    pub interval_s: Option<u32>,
}

/// A running program; killed when dropped.
pub struct Program {
    process: Process,
}

impl Program {
    /// sofia-sip's nua, driven by a program of the tests' own.
    pub fn sofia(host: &Host, sofia: &Sofia<'_>) -> Result<Self> {
        let Sofia { own, port, interval_s, min_se_s, updates, calls, proxy, holds } = *sofia;
        let flags = host.run("pkg-config", &["--cflags", "--libs", "sofia-sip-ua"])?;
        let source = host.file("sofia.c", include_str!("../stacks/sofia.c"))?;
        let mut cc = vec!["-o", "/run/sofia", source.to_str().unwrap_or_default()];
        cc.extend(flags.split_whitespace());
        host.run("cc", &cc)?;
        let mut command = Command::new("/run/sofia");
        command.args([
            "-i",
            &own.to_string(),
            "-P",
            &port.to_string(),
            "-t",
            &interval_s.to_string(),
            "-m",
            &min_se_s.to_string(),
        ]);
        command.args(updates.then_some("-u"));
        for (option, value) in [
            ("-c", calls.map(str::to_owned)),
            ("-p", proxy.map(|ip| format!("sip:{ip};lr"))),
            ("-h", holds.map(|time| time.as_secs().to_string())),
        ] {
            command.args(value.iter().flat_map(|value| [option, value]));
        }
        Self::start_at(host, command, port)
    }

    /// baresip with sound from nowhere: takes every call, or makes one.
    pub fn baresip(host: &Host, own: impl Into<IpAddr>, calls: Option<&str>) -> Result<Self> {
        let own = in_uri(own.into());
        host.file("config", include_str!("../stacks/baresip.config").replace("OWN_IP", &own))?;
        host.file("accounts", format!("<sip:stack@{own}>;regint=0;answermode=auto\n"))?;
        let mut command = Command::new("baresip");
        command.args(["-s", "-f", "/run"]);
        command.args(calls.iter().flat_map(|uri| ["-e".to_owned(), format!("/dial {uri}")]));
        Self::start(host, command)
    }

    /// A record-routing Kamailio.
    pub fn kamailio(host: &Host, kamailio: &Kamailio<'_>) -> Result<Self> {
        let Kamailio { own, next_hop, detour, interval_s } = *kamailio;
        let file = host.file("kamailio.cfg", include_str!("../stacks/kamailio.cfg"))?;
        // For its sockets; what it logs goes to stderr.
        host.run("mkdir", &["-p", "/run/kamailio"])?;
        // Its children outlive it where it is killed, but not the first process of their namespace.
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child=KILL", "--", "kamailio"]);
        command.args(["-DD", "-E", "-m", "16", "-M", "4", "-Y", "/run/kamailio", "-f"]).arg(file);
        command.args(own.iter().flat_map(|ip| ["-l".to_owned(), format!("udp:{}:{PORT}", in_uri(*ip))]));
        let detour =
            detour.map(|hop| [("DETOUR", format!("\"sip:{hop}\"")), ("DETOUR_IP", format!("\"{}\"", hop.ip()))]);
        let names = [("NEXT_HOP", format!("\"sip:{next_hop}\""))].into_iter().chain(detour.into_iter().flatten());
        let names = names.chain(interval_s.map(|seconds| ("INTERVAL", seconds.to_string())));
        command.args(names.flat_map(|(name, value)| ["-A".to_owned(), format!("{name}={value}")]));
        Self::start(host, command)
    }

    /// A Kamailio that takes calls over TCP itself, and says that it would refresh them.
    pub fn kamailio_answers(host: &Host, own: impl Into<IpAddr>, interval_s: u32) -> Result<Self> {
        let own = in_uri(own.into());
        let text = include_str!("../stacks/kamailio_answers.cfg").replace("OWN_IP", &own);
        let file = host.file("kamailio.cfg", text.replace("INTERVAL", &interval_s.to_string()))?;
        host.run("mkdir", &["-p", "/run/kamailio"])?;
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child=KILL", "--", "kamailio"]);
        command.args(["-DD", "-E", "-m", "16", "-M", "4", "-Y", "/run/kamailio", "-f"]).arg(file);
        command.args(["udp", "tcp"].iter().flat_map(|by| ["-l".to_owned(), format!("{by}:{own}:{PORT}")]));
        Self::start(host, command)
    }

    /// Sippy's B2BUA as it comes: sends all calls to one place, under a Call-ID of its own. These headers of a caller's it passes
    /// on, whatever they mean.
    pub fn sippy(host: &Host, own: impl Into<IpAddr>, to: SocketAddr, passes: &[&str]) -> Result<Self> {
        let mut command = sippy("b2bua")?;
        command.args(["--foreground=on", "--auth_enable=off", "--acct_enable=off"]);
        command.args(["--b2bua_socket=/run/b2bua.sock", "--logfile=/run/b2bua.log", "--pidfile=/run/b2bua.pid"]);
        command.arg(format!("--sip_address={}", in_uri(own.into()))).arg(format!("--sip_port={PORT}"));
        command.arg(format!("--static_route={to}")).arg(format!("--pass_headers={}", passes.join(",")));
        Self::start(host, command)
    }

    /// Sippy's simple B2BUA: sends all calls to one place, under the caller's Call-ID.
    pub fn sippy_that_keeps_the_call_id(host: &Host, own: Ipv4Addr, to: SocketAddr) -> Result<Self> {
        let mut command = sippy("b2bua_simple")?;
        command.args(["-f", "-l", &own.to_string(), "-p", &PORT.to_string(), "-n", &to.to_string()]);
        Self::start(host, command)
    }

    /// Perl's Net::SIP, driven by a program of the tests' own: calls, holds the call for so long, hangs up.
    pub fn net_sip(host: &Host, own: impl Into<IpAddr>, calls: &str, holds: Duration) -> Result<Self> {
        Self::net_sip_that_talks(host, own, calls, holds, Duration::ZERO)
    }

    /// The same that sends RTP for so long.
    pub fn net_sip_that_talks(
        host: &Host,
        own: impl Into<IpAddr>,
        calls: &str,
        holds: Duration,
        talks: Duration,
    ) -> Result<Self> {
        let mut command = Command::new("perl");
        command.arg(host.file("net_sip.pl", include_str!("../stacks/net_sip.pl"))?);
        command.args([&own.into().to_string(), calls, &holds.as_secs().to_string(), &talks.as_secs().to_string()]);
        Self::start(host, command)
    }

    fn start(host: &Host, command: Command) -> Result<Self> {
        Self::start_at(host, command, PORT)
    }

    fn start_at(host: &Host, mut command: Command, port: u16) -> Result<Self> {
        command.current_dir("/run").env("HOME", "/run");
        let opened = host.spawn(command).and_then(|mut process| {
            process.opens(host, port, PATIENCE)?;
            Ok(Self { process })
        });
        opened.context("`cargo xtask setup` brings the programs that are needed")
    }

    /// All that it has logged and printed so far, every message of its own and every one that reached it among it.
    pub fn log(&self) -> String {
        format!("{}\n{}", self.process.said(), self.process.printed())
    }

    /// Waits until its log has a line that holds all of these words.
    pub fn logs(&self, words: &[&str], within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        while !self.log().lines().any(|line| words.iter().all(|word| line.contains(word))) {
            ensure!(Instant::now() < until, "no {words:?} within {within:?} in\n{}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// SIGTERM: it ends what calls it has.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// Waits for its end.
    pub fn succeeds(&mut self, within: Duration) -> Result<()> {
        let status = self.process.wait(within)?;
        ensure!(status.success(), "{status}\n{}", self.log());
        Ok(())
    }

    /// `kill -9`: an end that vanishes.
    pub fn crash(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// The process.
    pub fn into_process(self) -> Process {
        self.process
    }
}

/// An address as URIs have it.
fn in_uri(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn sippy(program: &str) -> Result<Command> {
    let path = Path::new(SIPPY).join(program);
    if !path.is_file() {
        bail!("no {}: `cargo xtask setup` brings it", path.display());
    }
    // Not by itself: its first line names the checkout that it was installed in.
    let mut command = Command::new(Path::new(SIPPY).join("python"));
    command.arg(path);
    Ok(command)
}
