//! A kernel that sipst supports: what is loaded is attached as that kernel has it, keeps a call alive, stays when the
//! daemon is killed, and goes when it is told to. By every way in.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use st_tests::{
    Family, Host, Lab, Sipst, Tap,
    agent::{Agent, Enforce, Profile},
    matrix::{Check, Subject, Verdict},
};

use crate::{
    TCX, Version, bpf,
    hooks::{self, Attached},
    machine,
};

/// Longer than anything takes that happens at once, on a processor that is emulated.
const SOON: Duration = Duration::from_secs(60);

/// What the peer asks for: a third of it is longer than a busy machine stands still for.
const INTERVAL_S: u32 = 8;

/// How the packets that come in are seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Tc,
    /// On a veth, whose driver knows XDP.
    XdpNative,
    /// On a bridge, which does not.
    XdpGeneric,
}

impl Way {
    const ALL: [Self; 3] = [Self::Tc, Self::XdpNative, Self::XdpGeneric];

    fn attach(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::XdpNative | Self::XdpGeneric => "xdp",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::XdpNative => "xdp native",
            Self::XdpGeneric => "xdp generic",
        }
    }

    fn interface(self) -> &'static str {
        match self {
            Self::Tc | Self::XdpNative => "eth0",
            Self::XdpGeneric => "br0",
        }
    }

    /// The hooks that must be taken.
    fn hooks(self, version: Version) -> [&'static str; 2] {
        let (ingress, egress) =
            if version < TCX { ("clsact ingress", "clsact egress") } else { ("tcx ingress", "tcx egress") };
        match self {
            Self::Tc => [ingress, egress],
            Self::XdpNative => ["xdp native", egress],
            Self::XdpGeneric => ["xdp generic", egress],
        }
    }
}

pub(crate) fn look(version: Version, each: &mut dyn FnMut(Check) -> Result<()>) -> Result<()> {
    let mut say = |subject, way: &str, verdict| each(Check { subject, way: way.into(), verdict });
    say(Subject::Verify, "", judge(verified()))?;
    if version < TCX {
        say(Subject::Tcx, "", Verdict::Missing("TCX came with Linux 6.6".into()))?;
    } else {
        say(Subject::Clsact, "", Verdict::Missing("not used: the kernel has TCX".into()))?;
    }
    for way in Way::ALL {
        let subject = match way {
            Way::Tc if version < TCX => Subject::Clsact,
            Way::Tc => Subject::Tcx,
            Way::XdpNative => Subject::XdpNative,
            Way::XdpGeneric => Subject::XdpGeneric,
        };
        let mut trial = match Trial::new(way, version) {
            Ok(trial) => trial,
            Err(error) => {
                say(subject, "", Verdict::Fail(format!("{error:#}")))?;
                continue;
            }
        };
        say(subject, "", judge(trial.attached()))?;
        if version < TCX {
            say(Subject::Clsact, way.name(), judge(trial.put_back()))?;
        }
        say(Subject::Call, way.name(), judge(trial.call()))?;
        say(Subject::Kill, way.name(), judge(trial.kill()))?;
        say(Subject::Unload, way.name(), judge(trial.unload()))?;
    }
    for (way, stack) in [("vlan", vlan as fn(&mut Lab) -> Result<bool>), ("bond", bond)] {
        say(Subject::Once, way, had(way, once(stack)))?;
    }
    say(Subject::Tunnel, "gretap", had("gretap", tunnel()))?;
    // The last of all: what is locked stays so.
    for level in ["integrity", "confidentiality"] {
        let verdict = match locked_down(level) {
            Ok(None) => Verdict::Pass,
            Ok(Some(why)) => Verdict::Missing(why.into()),
            Err(error) => Verdict::Fail(format!("{error:#}")),
        };
        say(Subject::Lockdown, level, verdict)?;
    }
    Ok(())
}

/// Locks the kernel down, as Secure Boot has many a distribution's do, and looks whether the programs are taken and a call is kept up all
/// the same. Why it was not, where it was not.
fn locked_down(level: &str) -> Result<Option<&'static str>> {
    if std::process::id() != 1 {
        return Ok(Some("not on a machine of others': there is no way back"));
    }
    let Some(now) = machine::lock_down(level)? else { return Ok(Some("this kernel cannot be locked down")) };
    ensure!(now.contains(&format!("[{level}]")), "locked down to {level}, it says {now}");
    verified()?;
    let lab = Lab::new()?;
    let mut sipst = started(&lab, "eth0", "xdp")?;
    let call = Call::start(&lab, Profile::strict_peer(INTERVAL_S, "uac"))?;
    call.goes_on(1).and_then(|()| call.ends()).with_context(|| sipst.report())?;
    sipst.stop()?;
    Ok(None)
}

/// A call over interfaces that stand on each other, all of which the configuration covers: the server's own requests are good after a
/// refresh, as they are not where a number is shifted twice. False: the kernel does not do that.
fn once(stack: fn(&mut Lab) -> Result<bool>) -> Result<bool> {
    let mut lab = Lab::new()?;
    if !stack(&mut lab)? {
        return Ok(false);
    }
    let mut sipst = started(&lab, "\"*\"", "auto")?;
    let call = Call::start(&lab, Profile::strict_peer(INTERVAL_S, "uac"))?;
    call.goes_on(1).and_then(|()| call.ends()).with_context(|| sipst.report())?;
    ensure!(sipst.log().contains("not attached to"), "nothing was passed over\n{}", sipst.report());
    sipst.stop()?;
    Ok(true)
}

/// A call through a tunnel with Ethernet headers, kept up from the tunnel's own interface. False: the kernel has none.
fn tunnel() -> Result<bool> {
    let mut lab = Lab::new()?;
    if !gretap(&mut lab)? {
        return Ok(false);
    }
    let mut sipst = started(&lab, "tunnel", "auto")?;
    let call = Call::start(&lab, Profile::strict_peer(INTERVAL_S, "uac"))?;
    call.goes_on(1).and_then(|()| call.ends()).with_context(|| sipst.report())?;
    sipst.stop()?;
    Ok(true)
}

/// Both hosts get a second address, on a tunnel between their first ones.
fn gretap(lab: &mut Lab) -> Result<bool> {
    let outer = [lab.wire.a.v4.to_string(), lab.wire.b.v4.to_string()];
    let [a, b] = &outer;
    for (host, end, [local, remote]) in [(&lab.server, &mut lab.wire.a, [a, b]), (&lab.peer, &mut lab.wire.b, [b, a])] {
        let add = ["link", "add", "tunnel", "type", "gretap", "local", local, "remote", remote, "dev", "eth0"];
        if host.run("ip", &add).is_err() {
            return Ok(false);
        }
        let [.., last] = end.v4.octets();
        end.v4 = [10, 77, 0, last].into();
        end.interface = "tunnel".into();
        host.run("ip", &["address", "add", &format!("{}/24", end.v4), "dev", "tunnel"])?;
        host.run("ip", &["link", "set", "tunnel", "up"])?;
    }
    Ok(true)
}

/// The addresses of both hosts on VLANs.
fn vlan(lab: &mut Lab) -> Result<bool> {
    for (host, end) in [(&lab.server, &mut lab.wire.a), (&lab.peer, &mut lab.wire.b)] {
        if host.run("ip", &["link", "add", "link", "eth0", "name", "eth0.100", "type", "vlan", "id", "100"]).is_err() {
            return Ok(false);
        }
        moved(host, &end.v4.to_string(), "eth0.100")?;
        end.interface = "eth0.100".into();
    }
    Ok(true)
}

/// The server's address on a bond with the wire as its slave.
fn bond(lab: &mut Lab) -> Result<bool> {
    let host = &lab.server;
    if host.run("ip", &["link", "add", "bond0", "type", "bond", "mode", "active-backup", "miimon", "100"]).is_err() {
        return Ok(false);
    }
    host.run("ip", &["link", "set", "eth0", "down"])?;
    host.run("ip", &["link", "set", "eth0", "master", "bond0"])?;
    moved(host, &lab.wire.a.v4.to_string(), "bond0")?;
    Ok(true)
}

/// Takes an address from `eth0` to another interface.
fn moved(host: &Host, address: &str, interface: &str) -> Result<()> {
    host.run("ip", &["address", "flush", "dev", "eth0"])?;
    host.run("ip", &["address", "add", &format!("{address}/24"), "dev", interface])?;
    host.run("ip", &["link", "set", interface, "up"]).map(drop)
}

/// False: the kernel has no such interfaces.
fn had(interfaces: &str, result: Result<bool>) -> Verdict {
    match result {
        Ok(true) => Verdict::Pass,
        Ok(false) => Verdict::Missing(format!("this kernel has no {interfaces}")),
        Err(error) => Verdict::Fail(format!("{error:#}")),
    }
}

fn judge(result: Result<()>) -> Verdict {
    result.map_or_else(|error| Verdict::Fail(format!("{error:#}")), |()| Verdict::Pass)
}

/// Every program passes the verifier: the TC programs first, then XDP in the place of one.
fn verified() -> Result<()> {
    let lab = Lab::new()?;
    for attach in ["tc", "xdp"] {
        sipst(&lab, &["load", "--interface", "eth0", "--attach", attach])?;
    }
    sipst(&lab, &["unload"])?;
    nothing_left(&lab, "eth0")
}

/// Runs `sipst` to its end, which must be a good one; what it printed.
fn sipst(lab: &Lab, args: &[&str]) -> Result<String> {
    let (code, shown, said) = Sipst::command(&lab.server, args)?;
    ensure!(code == Some(0), "`sipst {}` ended with {code:?}: {said}", args.join(" "));
    Ok(shown)
}

fn nothing_left(lab: &Lab, interface: &str) -> Result<()> {
    let left = hooks::left(&lab.server, interface)?;
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    // Elsewhere others have programs and maps too.
    let (alone, until) = (std::process::id() == 1, Instant::now() + SOON);
    while alone && bpf::loaded() > 0 {
        // The kernel frees them behind its back.
        ensure!(Instant::now() < until, "{} programs and maps stay loaded", bpf::loaded());
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// One way in, from the start of a daemon to the last of what it leaves.
struct Trial {
    way: Way,
    version: Version,
    sipst: Sipst,
    lab: Lab,
}

impl Trial {
    fn new(way: Way, version: Version) -> Result<Self> {
        let lab = Lab::new()?;
        if way == Way::XdpGeneric {
            bridge(&lab)?;
        }
        Ok(Self { way, version, sipst: start(&lab, way)?, lab })
    }

    fn interface(&self) -> &'static str {
        self.way.interface()
    }

    /// What is attached by the kernel's own word; an error where that is not what it must be, or not what sipst says.
    fn hooks(&self) -> Result<Vec<Attached>> {
        let seen = hooks::seen(&self.lab.server, self.interface())?;
        let (mut wanted, mut found) = (self.way.hooks(self.version), seen.clone());
        wanted.sort_unstable();
        found.sort_by_key(|one| one.hook);
        ensure!(found.iter().map(|one| one.hook).eq(wanted), "wanted {wanted:?}, the kernel has {seen:?}");
        let status: Value = serde_json::from_str(&sipst(&self.lab, &["status", "--json"])?).context("sipst status")?;
        let told = status["attached"].as_array().map(Vec::as_slice).unwrap_or_default();
        let told: Vec<_> = told.iter().filter_map(|one| one["program"].as_u64()).collect();
        for one in &seen {
            ensure!(told.contains(&u64::from(one.program)), "`sipst status` does not tell of {one}: {status}");
        }
        ensure!(told.len() == seen.len(), "`sipst status` tells of more than {seen:?}: {status}");
        Ok(seen)
    }

    fn attached(&self) -> Result<()> {
        self.hooks().map(drop)
    }

    /// Filters that somebody takes away come back, though the daemon has given up most of its capabilities by now.
    fn put_back(&self) -> Result<()> {
        let before = self.hooks()?;
        self.lab.server.run("tc", &["qdisc", "del", "dev", self.interface(), "clsact"])?;
        let until = Instant::now() + SOON;
        while hooks::seen(&self.lab.server, self.interface())?.len() < before.len() {
            ensure!(Instant::now() < until, "filters stay away\n{}", self.sipst.report());
            thread::sleep(Duration::from_millis(50));
        }
        self.attached().with_context(|| self.sipst.report())
    }

    /// A peer that hangs up when it is not refreshed is refreshed twice; the server's own requests are good all along.
    fn call(&self) -> Result<()> {
        let call = Call::start(&self.lab, Profile::strict_peer(INTERVAL_S, "uac"))?;
        call.goes_on(2).and_then(|()| call.ends()).with_context(|| self.sipst.report())
    }

    /// `kill -9` between a refresh and the server's next request, and a new daemon after that.
    fn kill(&mut self) -> Result<()> {
        let patient = Profile { enforce: Enforce::No, ..Profile::strict_peer(INTERVAL_S, "uac") };
        let call = Call::start(&self.lab, patient)?;
        call.goes_on(1).with_context(|| self.sipst.report())?;
        let before = self.hooks()?;
        self.sipst.kill()?;
        let after = self.hooks()?;
        ensure!(before == after, "attached before the kill {before:?}, and after it {after:?}");
        call.says("INFO")?;
        self.sipst = start(&self.lab, self.way)?;
        let anew = self.hooks()?;
        ensure!(before.iter().all(|one| !anew.contains(one)), "the new daemon left the old programs: {anew:?}");
        call.ends().with_context(|| self.sipst.report())?;
        let numbers = |requests: Vec<st_tests::agent::Message>| -> Vec<u32> {
            requests.iter().filter_map(|one| one.cseq().map(|cseq| cseq.number)).collect()
        };
        let (written, read) = (call.server.sent(), call.peer.requests("BYE"));
        let written = written.into_iter().filter(|one| one.method() == Some("BYE")).collect();
        ensure!(numbers(written) < numbers(read), "the BYE's number was not shifted\n{}", call.story());
        Ok(())
    }

    /// What a killed daemon has left goes by `sipst unload`.
    fn unload(&mut self) -> Result<()> {
        self.sipst.kill()?;
        sipst(&self.lab, &["unload", "--force"])?;
        nothing_left(&self.lab, self.interface())
    }
}

/// Puts the server's address on a bridge with the wire as its port.
fn bridge(lab: &Lab) -> Result<()> {
    let address = format!("{}/24", lab.wire.a.v4);
    let commands: [&[&str]; 5] = [
        &["link", "add", "br0", "type", "bridge"],
        &["link", "set", "eth0", "master", "br0"],
        &["address", "flush", "dev", "eth0"],
        &["address", "add", &address, "dev", "br0"],
        &["link", "set", "br0", "up"],
    ];
    commands.iter().try_for_each(|args| lab.server.run("ip", args).map(drop))
}

fn start(lab: &Lab, way: Way) -> Result<Sipst> {
    started(lab, way.interface(), way.attach())
}

fn started(lab: &Lab, interfaces: &str, attach: &str) -> Result<Sipst> {
    // So that what writes into connections is loaded too.
    let tcp = if attach == "tc" { "refresh" } else { "alert" };
    let config = format!(
        "interfaces: [{interfaces}]\nattach: {attach}\ntrunks:\n  - name: carrier\n    match: {{ peers: [10.0.0.0/8] }}\n    \
         interval_floor: 2s\n    min_se: 2s\n    action: refresh\n    tcp: {tcp}\n"
    );
    Sipst::start(&lab.server, &config)
}

/// A call that is up.
struct Call {
    server: Agent,
    peer: Agent,
    tap: Tap,
}

impl Call {
    fn start(lab: &Lab, peer: Profile) -> Result<Self> {
        let tap = Tap::start(&lab.peer, &lab.wire.b.interface)?;
        let address = |end: &st_tests::End| (end.ip(Family::V4), 5060).into();
        let peer = Agent::start(&lab.peer, address(&lab.wire.b), peer)?;
        let server = Agent::start(&lab.server, address(&lab.wire.a), Profile::plain_server())?;
        server.call(peer.address());
        server.established(SOON)?;
        peer.established(SOON)?;
        Ok(Self { server, peer, tap })
    }

    fn story(&self) -> String {
        format!("{}\n{}", self.peer, self.server)
    }

    fn goes_on(&self, refreshes: usize) -> Result<()> {
        let until = Instant::now() + SOON;
        while self.peer.refreshes().len() < refreshes {
            ensure!(!self.peer.is_over(), "the peer hung up\n{}", self.story());
            ensure!(Instant::now() < until, "no {refreshes} refreshes\n{}", self.story());
            thread::sleep(Duration::from_millis(50));
        }
        self.says("INFO")
    }

    /// A request of the server's own is accepted, in spite of the numbers that the refreshes took.
    fn says(&self, method: &'static str) -> Result<()> {
        if method == "BYE" {
            self.server.bye()
        } else {
            self.server.request(method)
        }
        match self.server.answered(method, SOON)? {
            200 => Ok(()),
            status => bail!("{status} to the server's {method}\n{}", self.story()),
        }
    }

    /// The server hangs up, and neither end has met anything odd.
    fn ends(&self) -> Result<()> {
        self.says("BYE")?;
        self.peer.faultless()?;
        self.server.faultless()?;
        self.tap.datagrams().map(drop).context("a damaged packet")
    }
}
