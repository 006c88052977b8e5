//! What README tells a newcomer to do, done on a clean Debian 12 with a call under way: the commands are README's own, word
//! for word, typed at a terminal.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use st_tests::{Host, Play, Screen, Sipp, Wire};

use super::{
    check::{Debian, Tally},
    machine::Machine,
};
use crate::shell;

/// As Debian would name it: not what the configuration has as an example.
const INTERFACE: &str = "ens3";

/// Where the server is, and the carrier of README's example.
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// What the carrier wants: no refresh comes due here by itself.
const INTERVAL_S: u32 = 1_800;

/// How long the call lasts: until all is done that needs one.
const HOLD: Duration = Duration::from_secs(25);

/// Has the shell say how many commands were typed, this one included, and what became of the last.
const PROMPT: &str = r"PS1=<\#:$?> ";

const SOON: Duration = Duration::from_secs(30);

type Step<'a> = (&'static str, fn(&mut Walk<'a>) -> Result<()>);

/// What is done, in order.
const fn steps<'a>() -> [Step<'a>; 15] {
    [
        ("README: it is installed", Walk::installs),
        ("an interface that is not there is named, and those that are", Walk::forgets_to_edit),
        ("README: the interface is named", Walk::edits),
        ("a mistake is told with its place, and not tried again", Walk::errs),
        ("README: it is started, and at boot", Walk::starts),
        ("README: `sipst sessions` has a call", Walk::lists),
        ("README: `sipst top` shows it", Walk::watches),
        ("README: the journal has `ready` and the events", Walk::reads_the_journal),
        ("README: it refreshes the carrier's calls after a reload", Walk::refreshes),
        ("the group's members may ask, and others are told how", Walk::asks_as_a_user),
        ("systemd has it reload", Walk::reloads),
        ("the watchdog is fed", Walk::feeds_the_watchdog),
        ("a restart keeps the call", Walk::restarts),
        ("it is not removed while a call needs it", Walk::is_kept),
        ("the call ends as it should, and nothing is left after a purge", Walk::leaves),
    ]
}

/// Does what README says, on a Debian that boots.
pub(super) fn walk(debian: &Debian, tally: &mut Tally) -> Result<()> {
    let (host, peer) = (Host::new("debian")?, Host::new("carrier")?);
    join(&host, &peer)?;
    let machine = Machine::boot(&host, debian.root())?;
    let screen = Screen::start(&host, 120, 40)?;
    // What is typed before the terminal's own shell asks is shown before its prompt, and the next one would stand behind that.
    screen.wait_for("#", SOON)?;
    screen.line(&format!("exec {} '{PROMPT}' bash --norc", machine.entrance().join(" ")))?;
    let readme = fs::read_to_string(shell::root().join("README.md")).context("cannot read README.md")?;
    let (commands, example) = install_section(&readme).context("README's section Install is not as it was")?;
    let mut walk = Walk { machine, screen, peer: &peer, host: &host, commands, example, typed: 0, call: None };
    for (what, step) in steps() {
        let done = step(&mut walk);
        let failed = done.is_err();
        tally.says(what, done.map_err(|error| format!("{error:#}\n{}", walk.circumstances())));
        if failed {
            break;
        }
    }
    Ok(())
}

struct Walk<'a> {
    machine: Machine<'a>,
    screen: Screen<'a>,
    host: &'a Host,
    peer: &'a Host,
    /// Those of README's section, in order, with their comments.
    commands: Vec<String>,
    /// The configuration that refreshes, of the same section.
    example: String,
    /// How many commands were typed.
    typed: usize,
    /// The server and whom it calls.
    call: Option<[Sipp; 2]>,
}

impl Walk<'_> {
    fn installs(&mut self) -> Result<()> {
        self.types("apt-get install")?;
        self.machine.run("! systemctl is-active sipst && ! systemctl is-enabled sipst").map(drop)
    }

    fn forgets_to_edit(&mut self) -> Result<()> {
        ensure!(self.machine.run("systemctl start sipst").is_err(), "it starts");
        let said = self.machine.run("journalctl --unit sipst --output cat")?;
        let names = |name: &str| said.lines().any(|line| line.contains("eth0") && line.contains(name));
        ensure!(names(INTERFACE), "it says:\n{said}");
        // Nothing has to be cleared away before the next start.
        Ok(())
    }

    /// At the place of somebody's editor is a script, which changes what the comment speaks of.
    fn edits(&mut self) -> Result<()> {
        let script = format!("#!/bin/sh\nsed -i 's/^interfaces: \\[eth0\\]$/interfaces: [{INTERFACE}]/' \"$1\"\n");
        let write = format!("cat > /usr/local/bin/editor << 'END'\n{script}END\nchmod +x /usr/local/bin/editor");
        self.machine.run(&write)?;
        self.types("editor ")?;
        self.machine.run(&format!("sipst check-config /etc/sipst/config.yaml | grep 'on {INTERFACE}'")).map(drop)
    }

    fn errs(&mut self) -> Result<()> {
        self.machine.run("echo 'nonsense: 1' >> /etc/sipst/config.yaml")?;
        ensure!(self.machine.run("systemctl start sipst").is_err(), "it starts");
        let told = r"journalctl --unit sipst --output cat | grep 'config.yaml:[0-9]*:1: unknown key .nonsense'";
        self.machine.run(&format!("systemctl is-failed sipst && {told}"))?;
        self.machine.run("sed -i /nonsense/d /etc/sipst/config.yaml").map(drop)
    }

    fn starts(&mut self) -> Result<()> {
        self.types("systemctl enable")?;
        self.machine.run("systemctl is-active sipst && systemctl is-enabled sipst").map(drop)
    }

    fn lists(&mut self) -> Result<()> {
        let target = SocketAddr::from((PEER, 5060));
        let callee = Sipp::start(self.peer, Play::peer_is_called(PEER, INTERVAL_S))?;
        let caller = Sipp::start(self.host, Play::server_calls(SERVER, target, HOLD))?;
        self.call = Some([caller, callee]);
        self.machine.wait("sipst sessions | grep running", SOON)?;
        self.types("sipst sessions")?;
        self.screen.wait_for("running", SOON)
    }

    fn watches(&mut self) -> Result<()> {
        self.begins("sipst top")?;
        self.screen.wait("row of the call", SOON, |shown| {
            shown.lines().any(|line| line.starts_with('▶') && line.contains("running")).then_some(())
        })?;
        ensure!(self.screen.is_taken()?, "it does not take the screen");
        self.screen.text("q")?;
        self.ends()
    }

    fn reads_the_journal(&mut self) -> Result<()> {
        self.begins("journalctl -fu sipst")?;
        for word in ["ready", "session_started", "timer_negotiated"] {
            self.screen.wait_for(word, SOON)?;
        }
        self.screen.key("C-c")?;
        self.prompt()?;
        let events = fs::read_to_string(shell::root().join("docs/events.md")).context("cannot read docs/events.md")?;
        let id = message_id(&events, "session_started").context("docs/events.md has no MESSAGE_ID")?;
        let script = format!("journalctl --unit sipst MESSAGE_ID={id} SIPST_TRUNK=default --output cat | grep .");
        self.machine.run(&script).map(drop)
    }

    fn refreshes(&mut self) -> Result<()> {
        let example = self.example.replace("eth0", INTERFACE);
        self.machine.run(&format!("cat > /etc/sipst/config.yaml << 'END'\n{example}END\nsipst reload"))?;
        let call = self.call_id()?;
        self.machine.run(&format!("sipst show {call} | grep carrier && sipst refresh {call}"))?;
        self.machine.wait("journalctl --unit sipst SIPST_EVENT=refresh_succeeded --output cat | grep .", SOON).map(drop)
    }

    fn asks_as_a_user(&mut self) -> Result<()> {
        self.machine.run("useradd joe")?;
        let refused = self.machine.run("su joe -c 'sipst sessions'");
        let why = refused.err().map(|error| format!("{error:#}")).context("anybody may ask")?;
        ensure!(why.contains("group") && why.contains("sipst"), "it says: {why}");
        self.machine.run("usermod --append --groups sipst joe && su joe -c 'sipst sessions' | grep running").map(drop)
    }

    fn reloads(&mut self) -> Result<()> {
        self.machine.run("systemctl reload sipst && systemctl is-active sipst").map(drop)
    }

    fn feeds_the_watchdog(&mut self) -> Result<()> {
        let fed = "systemctl show --value --property WatchdogTimestampMonotonic sipst";
        let before = self.machine.run(fed)?;
        self.machine.wait(&format!("test \"$({fed})\" != {}", before.trim()), SOON)?;
        let restarts = self.machine.run("systemctl show --value --property NRestarts sipst")?;
        ensure!(restarts.trim() == "0", "it was restarted {} times", restarts.trim());
        Ok(())
    }

    fn restarts(&mut self) -> Result<()> {
        let call = self.call_id()?;
        self.machine.run("systemctl restart sipst")?;
        self.machine.run(&format!("sipst sessions | grep running && sipst show {call} | grep carrier")).map(drop)
    }

    fn is_kept(&mut self) -> Result<()> {
        let call = self.call_id()?;
        let refused = self.machine.run("apt-get remove -y sipst");
        let why = refused.err().map(|error| format!("{error:#}")).context("it is removed")?;
        ensure!(why.contains(&call), "it says: {why}");
        // As it was before.
        self.machine.run(&format!("systemctl is-active sipst && sipst show {call}")).map(drop)
    }

    fn leaves(&mut self) -> Result<()> {
        let [mut caller, mut callee] = self.call.take().context("there is no call")?;
        caller.succeeds(self.host, HOLD * 2)?;
        callee.succeeds(self.peer, SOON)?;
        self.machine.wait("journalctl --unit sipst SIPST_EVENT=session_ended --output cat | grep .", SOON)?;
        self.machine.run("apt-get remove -y sipst && ! ls /sys/fs/bpf/sipst && ls /etc/sipst/config.yaml")?;
        self.machine.run("apt-get purge -y sipst && ! ls -d /etc/sipst /var/lib/sipst /run/sipst").map(drop)
    }

    /// The call's.
    fn call_id(&self) -> Result<String> {
        let sessions = self.machine.run("sipst sessions --json")?;
        let call = sessions.split("\"call_id\":\"").nth(1).and_then(|rest| rest.split('"').next());
        call.map(str::to_owned).with_context(|| format!("there is no call: {sessions}"))
    }

    /// Types README's next command, which begins like that, and waits until it has succeeded.
    fn types(&mut self, begins: &str) -> Result<()> {
        self.begins(begins)?;
        self.ends()
    }

    fn begins(&mut self, begins: &str) -> Result<()> {
        ensure!(!self.commands.is_empty(), "README has no `{begins}` any more");
        let command = self.commands.remove(0);
        ensure!(command.starts_with(begins), "README has `{command}` where `{begins}` was");
        // What is typed ahead, apt would take for its own.
        self.prompt()?;
        self.typed += 1;
        self.screen.line(&command)
    }

    /// Waits until what was typed has succeeded.
    fn ends(&mut self) -> Result<()> {
        match self.prompt()? {
            0 => Ok(()),
            status => bail!("it ends with {status}; the screen has:\n{}", self.screen.shows()?),
        }
    }

    /// Waits for the shell to ask for the next command: the status of the last one.
    fn prompt(&self) -> Result<i32> {
        let asks = format!("<{}:", self.typed + 1);
        self.screen.wait("prompt", SOON, |shown| {
            let last = shown.lines().rfind(|line| !line.trim().is_empty())?;
            last.strip_prefix(&asks)?.split_once('>')?.0.parse().ok()
        })
    }

    /// What there is to know where something went wrong.
    fn circumstances(&self) -> String {
        let shown = self.screen.shows().unwrap_or_default();
        let journal = self.machine.run("journalctl --no-pager --lines 60; systemctl status --no-pager sipst || true");
        format!("the screen:\n{shown}\nthe journal:\n{}", journal.unwrap_or_else(|error| format!("{error:#}")))
    }
}

/// A wire whose ends have the names and addresses that the walk speaks of.
fn join(host: &Host, peer: &Host) -> Result<()> {
    let wire = Wire::between(host, peer)?;
    let near = wire.a.interface.as_str();
    host.run("ip", &["link", "set", near, "down"])?;
    host.run("ip", &["link", "set", near, "name", INTERFACE])?;
    host.run("ip", &["link", "set", INTERFACE, "up"])?;
    for (host, address, interface) in [(host, SERVER, INTERFACE), (peer, PEER, &wire.b.interface)] {
        host.run("ip", &["address", "add", &format!("{address}/24"), "dev", interface])?;
    }
    Ok(())
}

/// The commands and the configuration of README's section Install.
fn install_section(readme: &str) -> Option<(Vec<String>, String)> {
    let section = readme.split_once("\n## Install\n")?.1.split("\n## ").next()?;
    let mut lines = section.lines().skip_while(|line| !line.starts_with("    "));
    let commands = lines.by_ref().map_while(|line| line.strip_prefix("    ")).map(str::to_owned).collect();
    let example = section.split_once("```yaml\n")?.1.split_once("```")?.0;
    Some((commands, example.to_owned()))
}

/// What docs/events.md says of a kind of event.
fn message_id<'a>(events: &'a str, kind: &str) -> Option<&'a str> {
    let section = events.split_once(&format!("\n## {kind}\n"))?.1.split("\n## ").next()?;
    section.split_once("`MESSAGE_ID` ")?.1.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_and_the_example_are_readmes_own() {
        let readme = "# a\n\n    no\n\n## Install\n\nOn:\n\n    one     # first\n    two\n\nThen:\n\n\
                      ```yaml\na: b\n```\n\n## Next\n\n    no\n";
        let (commands, example) = install_section(readme).unwrap();
        assert_eq!(commands, ["one     # first", "two"]);
        assert_eq!(example, "a: b\n");
        assert!(install_section("# a\n\n## Install\n\nnothing\n").is_none());
    }

    #[test]
    fn an_events_id_stands_in_its_section() {
        let events = "# E\n\n## a\n\nText.\n\n`MESSAGE_ID` 12\n\n## b\n\n`MESSAGE_ID` 34\n";
        assert_eq!(message_id(events, "b"), Some("34"));
        assert_eq!(message_id(events, "c"), None);
    }
}
