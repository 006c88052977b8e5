//! The stacks: how each is started in the laboratory, and what it says it is.

use std::{
    io::Write as _,
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use st_tests::{Host, Kamailio, Process, Program, Sofia};

/// Programs and configurations that are this recorder's own.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/record");

const CONTROL: &str = "/run/asterisk/asterisk.conf";

/// A real SIP stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    Sofia,
    Baresip,
    Pjsip,
    Jssip,
    Linphone,
    /// With session timers.
    Asterisk,
    /// With `timers=no`.
    AsteriskNo,
    NetSip,
    /// Its B2BUA, with a baresip behind it or before it.
    Sippy,
    Twinkle,
    /// A proxy, with a second probe behind it.
    Kamailio,
}

/// How a stack is set up for one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) own: Ipv4Addr,
    /// The session interval that it wants, and the least that it takes, where it can be told; seconds.
    pub(crate) interval: u32,
    pub(crate) min_se: u32,
    /// Whether it refreshes by UPDATE, where it can be told.
    pub(crate) updates: bool,
    /// Whom it calls, if it is the caller.
    pub(crate) calls: Option<Ipv4Addr>,
}

impl Stack {
    pub(crate) const ALL: [Self; 11] = [
        Self::Sofia,
        Self::Baresip,
        Self::Pjsip,
        Self::Jssip,
        Self::Linphone,
        Self::Asterisk,
        Self::AsteriskNo,
        Self::NetSip,
        Self::Sippy,
        Self::Twinkle,
        Self::Kamailio,
    ];

    /// Its name: of its file, and of its model.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sofia => "sofia",
            Self::Baresip => "baresip",
            Self::Pjsip => "pjsip",
            Self::Jssip => "jssip",
            Self::Linphone => "linphone",
            Self::Asterisk => "asterisk",
            Self::AsteriskNo => "asterisk_no",
            Self::NetSip => "net_sip",
            Self::Sippy => "sippy",
            Self::Twinkle => "twinkle",
            Self::Kamailio => "kamailio",
        }
    }

    /// What it is and of which version.
    pub(crate) fn about(self) -> Result<String> {
        Ok(match self {
            Self::Sofia => {
                format!("sofia-sip's nua, Debian {}, driven by tests/stacks/sofia.c", debian("libsofia-sip-ua0")?)
            }
            Self::Baresip => format!("baresip, Debian {}, libre {}", debian("baresip-core")?, debian("libre0")?),
            Self::Pjsip => format!("pjsua of pjproject {}, built from source, session timers always", pjsip()?.1),
            Self::Jssip => {
                let package = std::fs::read_to_string(jssip()?.join("package.json")).context("JsSIP")?;
                let version = package.split("\"version\": \"").nth(1).and_then(|rest| rest.split('"').next());
                format!("JsSIP {}, npm, driven by tests/record/jssip.cjs", version.unwrap_or("?"))
            }
            Self::Linphone => format!("linphone-daemon, Debian {}", debian("linphone-cli")?),
            Self::Asterisk => format!("{}, chan_pjsip, timers=always", asterisk_version()?),
            Self::AsteriskNo => format!("{}, chan_pjsip, timers=no", asterisk_version()?),
            Self::NetSip => {
                format!("Net::SIP, Debian {}, driven by tests/record/net_sip.pl", debian("libnet-sip-perl")?)
            }
            Self::Sippy => {
                "Sippy's B2BUA of PyPI, the version that `cargo xtask setup` brings; baresip beside it".into()
            }
            Self::Twinkle => format!("twinkle-console, Debian {}", debian("twinkle-console")?),
            Self::Kamailio => {
                format!("Kamailio's sst and dialog, Debian {}, with tests/stacks/kamailio.cfg", debian("kamailio")?)
            }
        })
    }

    /// Starts it in a host and waits until it can be called. Last comes the stack itself.
    pub(crate) fn start(self, host: &Host, setting: Setting) -> Result<Vec<Process>> {
        let Setting { own, interval, min_se, updates, calls } = setting;
        let uri = calls.map(|ip| format!("sip:probe@{ip}:5060"));
        let mut command = match self {
            Self::Sofia => {
                let sofia = Sofia { min_se_s: min_se, calls: uri.as_deref(), ..Sofia::at(own, interval, updates) };
                return Ok(vec![Program::sofia(host, &sofia)?.into_process()]);
            }
            Self::Baresip => return Ok(vec![Program::baresip(host, own, uri.as_deref())?.into_process()]),
            Self::Sippy => return sippy(host, own, calls),
            Self::Kamailio => {
                let next_hop = (crate::CALLEE, 5060).into();
                let kamailio = Kamailio { own: &[own.into()], next_hop, detour: None, interval_s: Some(interval) };
                return Ok(vec![Program::kamailio(host, &kamailio)?.into_process()]);
            }
            Self::Asterisk | Self::AsteriskNo => return self.asterisk(host, setting),
            Self::NetSip => {
                let mut command = Command::new("perl");
                command.arg(format!("{HERE}/net_sip.pl")).arg(own.to_string());
                command
            }
            Self::Twinkle => {
                host.run("mkdir", &["-p", "/run/.twinkle"])?;
                own_file(host, ".twinkle/stack.cfg", "twinkle.cfg", setting)?;
                own_file(host, ".twinkle/twinkle.sys", "twinkle.sys", setting)?;
                let does = uri.as_ref().map_or("auto_answer -a on".to_owned(), |uri| format!("call {uri}"));
                // It takes commands from its standard input, and ends with it.
                let script = format!("(sleep 1; echo '{does}'; sleep 3600) | twinkle-console stack.cfg");
                let mut command = Command::new("unshare");
                command.args(["--pid", "--fork", "--kill-child=KILL", "--", "sh", "-c", &script]);
                command
            }
            Self::Pjsip => {
                let mut command = Command::new(pjsip()?.0);
                command.args([
                    "--null-audio",
                    "--no-tcp",
                    "--no-vad",
                    "--clock-rate=8000",
                    "--auto-answer=200",
                    "--max-calls=4",
                ]);
                command.args(["--no-cli-console", "--use-cli", "--cli-telnet-port=5999", "--log-level=1"]);
                command.args(["--local-port=5060", &format!("--bound-addr={own}"), &format!("--ip-addr={own}")]);
                command.args([&format!("--id=sip:stack@{own}"), "--use-timer=3"]);
                command.args([&format!("--timer-se={interval}"), &format!("--timer-min-se={min_se}")]);
                command
            }
            Self::Jssip => {
                let mut command = Command::new("node");
                command.arg(format!("{HERE}/jssip.cjs")).arg(jssip()?).arg(own.to_string());
                command.arg(if updates { "UPDATE" } else { "INVITE" });
                command
            }
            Self::Linphone => {
                own_file(host, "linphonerc", "linphone.rc", setting)?;
                host.run("mkdir", &["-p", "/run/.local/share/linphone"])?;
                // Its pipe, without which it ends with its standard input, is made there.
                host.run("mount", &["-t", "tmpfs", "tmpfs", "/tmp"])?;
                let mut command = Command::new("linphone-daemon");
                command.args(["--config", "/run/linphonerc", "--auto-answer", "--pipe", "linphone"]);
                command
            }
        };
        if !matches!(self, Self::Linphone | Self::Twinkle) {
            command.args(&uri);
        }
        command.current_dir("/run").env("HOME", "/run").env("XDG_RUNTIME_DIR", "/run");
        let mut process = host.spawn(command)?;
        if let (Self::Linphone, Some(uri)) = (self, uri) {
            host.enter(move || linphone_dials(&uri))?;
        }
        if calls.is_none() {
            process.opens(host, 5060, Duration::from_secs(15))?;
        }
        if self == Self::Twinkle {
            // Until it has read what it is told.
            thread::sleep(Duration::from_millis(1_500));
        }
        Ok(vec![process])
    }

    /// Asterisk out of a directory that it is unpacked in, as its root.
    fn asterisk(self, host: &Host, setting: Setting) -> Result<Vec<Process>> {
        let root = asterisk_root()?;
        let root = root.to_str().context("ASTERISK: UTF-8")?;
        for (options, from, to) in
            [(["--bind"].as_slice(), "/run", "run"), (&["--bind"], "/dev", "dev"), (&["-t", "proc"], "proc", "proc")]
        {
            host.run("mount", &[options, &[from, &format!("{root}/{to}")]].concat())?;
        }
        host.run("mkdir", &["-p", "/run/asterisk"])?;
        for file in ["asterisk.conf", "modules.conf", "pjsip.conf", "extensions.conf"] {
            own_file(host, &format!("asterisk/{file}"), &format!("asterisk/{file}"), setting)?;
        }
        if self == Self::AsteriskNo {
            host.run("sed", &["-i", "s/^timers = .*/timers = no/", "/run/asterisk/pjsip.conf"])?;
        }
        let mut command = Command::new("chroot");
        command.args([root, "/usr/sbin/asterisk", "-f", "-C", CONTROL]);
        let mut process = host.spawn(command)?;
        process.opens(host, 5060, Duration::from_secs(30))?;
        let asks = |what: &str| host.run("chroot", &[root, "/usr/sbin/asterisk", "-C", CONTROL, "-rx", what]);
        let until = Instant::now() + Duration::from_secs(30);
        while asks("core waitfullybooted").is_err() && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
        }
        if setting.calls.is_some() {
            asks("channel originate PJSIP/probe extension stack@calls")?;
        }
        Ok(vec![process])
    }
}

/// Sippy's B2BUA, which knows one place to send calls to: the probe, or a baresip, which calls by it too.
fn sippy(host: &Host, own: Ipv4Addr, calls: Option<Ipv4Addr>) -> Result<Vec<Process>> {
    let [a, b, c, d] = own.octets();
    let beside = Ipv4Addr::new(a, b, c, d + 2);
    let interface = host.run("sh", &["-c", &format!("ip -o -4 address show to {own} | cut -d' ' -f2")])?;
    host.run("ip", &["address", "add", &format!("{beside}/24"), "dev", interface.trim()])?;
    let to = calls.unwrap_or(beside);
    if calls.is_some() {
        let sippy = Program::sippy(host, own, (to, 5060).into(), &[])?.into_process();
        let baresip = Program::baresip(host, beside, Some(&format!("sip:probe@{own}")))?.into_process();
        return Ok(vec![baresip, sippy]);
    }
    let baresip = Program::baresip(host, beside, None)?.into_process();
    let sippy = Program::sippy(host, own, (to, 5060).into(), &[])?.into_process();
    // The port that is open may be baresip's.
    let until = Instant::now() + Duration::from_secs(15);
    while !is_bound(host, own)? {
        if Instant::now() > until {
            bail!("sippy does not come up: {}", sippy.said());
        }
        thread::sleep(Duration::from_millis(50));
    }
    // It is bound before it reads.
    thread::sleep(Duration::from_secs(2));
    Ok(vec![baresip, sippy])
}

/// Whether somebody has port 5060 of an address.
fn is_bound(host: &Host, own: Ipv4Addr) -> Result<bool> {
    let table = String::from_utf8(host.read("/proc/thread-self/net/udp")?)?;
    Ok(table.contains(&format!("{:08X}:13C4", u32::from_le_bytes(own.octets()))))
}

/// Waits for linphone's pipe and has it call.
fn linphone_dials(uri: &str) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        match UnixStream::connect("/tmp/linphone") {
            Ok(mut pipe) => return pipe.write_all(format!("call {uri}\n").as_bytes()).context("linphone's pipe"),
            Err(error) if Instant::now() > until => return Err(error).context("linphone's pipe"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A configuration file with this call's settings, in the host.
fn own_file(host: &Host, name: &str, template: &str, setting: Setting) -> Result<()> {
    let text = std::fs::read_to_string(Path::new(HERE).join(template)).with_context(|| template.to_owned())?;
    let text = text
        .replace("OWN_IP", &setting.own.to_string())
        .replace("PROBE_IP", &crate::PROBE.to_string())
        .replace("INTERVAL", &setting.interval.to_string())
        .replace("MIN_SE", &setting.min_se.to_string());
    host.file(name, text).map(drop)
}

/// The directory that Debian's asterisk and all that it needs are unpacked in.
fn asterisk_root() -> Result<PathBuf> {
    std::env::var_os("ASTERISK").map(Into::into).context("ASTERISK: a directory with Debian's asterisk in it is wanted")
}

fn asterisk_version() -> Result<String> {
    let about = output(Command::new("chroot").arg(asterisk_root()?).args(["/usr/sbin/asterisk", "-V"]))?;
    Ok(about.trim().to_owned())
}

/// pjsua and what it says it is.
fn pjsip() -> Result<(PathBuf, String)> {
    let program = std::env::var_os("PJSUA").context("PJSUA: the path of a pjsua is wanted")?;
    let about = output(Command::new(&program).args(["--log-level=4", "--version"]))?;
    let version = about.lines().find_map(|line| line.split_once("PJ_VERSION")?.1.split_whitespace().last());
    let version = version.unwrap_or("?").to_owned();
    Ok((program.into(), version))
}

/// The unpacked npm package.
fn jssip() -> Result<PathBuf> {
    std::env::var_os("JSSIP").map(Into::into).context("JSSIP: the path of the unpacked npm package is wanted")
}

fn debian(package: &str) -> Result<String> {
    output(Command::new("dpkg-query").args(["--show", "--showformat", "${Version}", package]))
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(if printed.is_empty() { String::from_utf8_lossy(&output.stderr).into_owned() } else { printed })
}
