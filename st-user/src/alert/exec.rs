//! A program that is run for each alert: no shell, the event on its stdin and its main fields in the environment, nothing else of
//! the daemon's. It has no capability, for the threads that run it have none, and can gain none.

use std::{
    io::{self, PipeReader, Read as _, Write as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal as Kill, kill_process_group},
};

use super::{
    counts::SinkCounts,
    notice::{Notice, word},
    sink::{SharedFeed, Signal},
};
use crate::{config::Exec, output::printable};

/// How much of what it says is logged, in bytes; the rest is read and thrown away.
pub(super) const SAID: usize = 4_096;

/// How often it is looked whether it has ended, or is to be.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Where it finds its own programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs it for what it hears.
pub(super) fn run(exec: &Exec, feed: &SharedFeed) {
    while let Some(signal) = feed.next() {
        let Signal::Tell(notice) = signal else { continue };
        let ran = once(exec, &notice, &|| feed.is_hurried());
        let program = exec.command.first().map(String::as_str).unwrap_or_default();
        match &ran {
            Ok(Ran { status, said }) => {
                let said = printable(said.trim());
                if status.success() {
                    tracing::debug!(program, said, "told of an alert");
                } else {
                    tracing::warn!(program, %status, said, "the program that was to be told of an alert has failed");
                }
            }
            Err(error) => tracing::warn!(program, %error, "the program that is to be told of alerts cannot be run"),
        }
        let good = ran.is_ok_and(|ran| ran.status.success());
        SinkCounts::add(if good { &feed.counts.sent } else { &feed.counts.failed }, 1);
    }
}

/// What became of it.
struct Ran {
    status: ExitStatus,
    /// What it said on stdout and stderr, cut.
    said: String,
}

/// Runs it once, to its end or until its time is over or it is `hurried`.
fn once(exec: &Exec, notice: &Notice, hurried: &dyn Fn() -> bool) -> io::Result<Ran> {
    let until = Instant::now() + exec.timeout;
    let (said, out) = io::pipe()?;
    let mut command = command(exec, notice)?;
    command.stdout(out.try_clone()?).stderr(out);
    let mut child = Group(command.spawn()?);
    // The command holds the pipe's other end: only when nobody does, it is at its end.
    drop(command);
    if let Some(mut stdin) = child.0.stdin.take() {
        // A pipe takes 64 KiB at once, an event is shorter. Who reads no stdin need not.
        let _ = stdin.write_all(notice.json().as_bytes()).and_then(|()| stdin.write_all(b"\n"));
    }
    let mut reader = Reader { pipe: said, said: Vec::new(), open: true };
    loop {
        reader.read(&LOOK)?;
        if let Some(status) = child.0.try_wait()? {
            // What it said last; what others that it started still say is theirs.
            reader.read(&Timespec { tv_sec: 0, tv_nsec: 0 })?;
            return Ok(Ran { status, said: String::from_utf8_lossy(&reader.said).into_owned() });
        }
        if Instant::now() >= until || hurried() {
            child.kill();
            let status = child.0.wait()?;
            let said =
                format!("{}\nended: it took longer than {:?}", String::from_utf8_lossy(&reader.said), exec.timeout);
            return Ok(Ran { status, said });
        }
    }
}

fn command(exec: &Exec, notice: &Notice) -> io::Result<Command> {
    let mut argv = exec.command.iter();
    let program = argv.next().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(argv).env_clear().env("PATH", PATH).stdin(Stdio::piped()).current_dir("/");
    // A group of its own: what it starts ends with it.
    command.process_group(0);
    let mut set = |name: &str, value: Option<String>| {
        // What came from the wire is no C string where it has a zero.
        if let Some(value) = value.filter(|value| !value.contains('\0')) {
            command.env(format!("SIPST_{name}"), value);
        }
    };
    set("EVENT", Some(notice.kind().to_owned()));
    match notice {
        Notice::Alert(event) => {
            set("TIME", Some(event.time.to_string()));
            set("TRUNK", event.trunk.clone());
            set("CALL_ID", event.call_id().map(Into::into));
            set("SERVER", event.server().map(|address| address.to_string()));
            set("PEER", event.peer().map(|address| address.to_string()));
            set("REASON", word(event).map(str::to_owned));
            set("DEADLINE", event.deadline.map(|time| time.to_string()));
        }
        Notice::More(more) => {
            set("TIME", Some(more.time.to_string()));
            set("TRUNK", more.trunk.clone());
            set("FOLDED", Some(more.count().to_string()));
        }
    }
    Ok(command)
}

/// A child and those that it has started. None outlives it unseen: it is ended where it is not waited for.
struct Group(Child);

impl Group {
    fn kill(&mut self) {
        if let Some(id) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // It has not been waited for, so its number is still its own.
            let _ = kill_process_group(id, Kill::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.kill();
            let _ = self.0.wait();
        }
    }
}

/// What is read of a pipe, up to [`SAID`].
struct Reader {
    pipe: PipeReader,
    said: Vec<u8>,
    open: bool,
}

impl Reader {
    /// Reads what is there, or comes within that time.
    fn read(&mut self, wait: &Timespec) -> io::Result<()> {
        if !self.open {
            std::thread::sleep(Duration::from_nanos(wait.tv_nsec.unsigned_abs()));
            return Ok(());
        }
        let mut wait = *wait;
        // One who never ceases to talk is looked at all the same.
        for _ in 0..64 {
            let ready = {
                let mut fds = [PollFd::from_borrowed_fd(self.pipe.as_fd(), PollFlags::IN)];
                poll(&mut fds, Some(&wait))?
            };
            wait.tv_nsec = 0;
            if ready == 0 {
                return Ok(());
            }
            let mut buffer = [0; 4_096];
            let len = self.pipe.read(&mut buffer)?;
            self.open = len > 0;
            let room = SAID - self.said.len();
            self.said.extend(&buffer[..len.min(room)]);
            if !self.open {
                return Ok(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use st_core::{Event, EventKind, Names, Time};

    use super::*;
    use crate::privilege;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn notice() -> Notice {
        let [server, peer] = ["192.0.2.1:5060", "198.51.100.2:5060"].map(|address| address.parse().unwrap());
        Notice::Alert(Arc::new(Event {
            names: Some(Arc::new(Names::new(b"c $(reboot); a@b", b"l", b"r", server, peer))),
            reason: Some("held: since noon".into()),
            trunk: Some("carrier".into()),
            ..Event::new(Time::from_micros(0), EventKind::RefreshOverdue)
        }))
    }

    fn shell(script: &str, timeout: Duration) -> Exec {
        Exec { command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), timeout, at_once: 1 }
    }

    #[test]
    fn it_gets_the_event_on_stdin_and_its_fields_in_an_environment_with_nothing_else() {
        let ran = once(&shell("cat; env | sort", PATIENCE), &notice(), &|| false).unwrap();
        assert!(ran.status.success(), "{}", ran.said);
        let (event, environment) = ran.said.split_once('\n').unwrap();
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["event"], "refresh_overdue");
        let names: Vec<_> = environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        // The shell sets PWD by itself.
        let own = [
            "PATH",
            "PWD",
            "SIPST_CALL_ID",
            "SIPST_EVENT",
            "SIPST_PEER",
            "SIPST_REASON",
            "SIPST_SERVER",
            "SIPST_TIME",
            "SIPST_TRUNK",
        ];
        assert_eq!(names, own, "{environment}");
        assert!(environment.contains("SIPST_CALL_ID=c $(reboot); a@b\n"), "{environment}");
        assert!(environment.contains("SIPST_REASON=held\n"), "{environment}");
    }

    #[test]
    fn it_has_no_capability_and_can_gain_none() {
        let script = "grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs)' /proc/self/status";
        let ran = privilege::without_any(|| once(&shell(script, PATIENCE), &notice(), &|| false)).unwrap().unwrap();
        let values: Vec<_> = ran.said.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(values, ["0000000000000000", "0000000000000000", "0000000000000000", "0000000000000000", "1"]);
    }

    #[test]
    fn one_that_takes_too_long_is_ended_with_all_that_it_has_started() {
        let script = "sleep 1000 & echo $!; wait";
        let ran = once(&shell(script, Duration::from_millis(300)), &notice(), &|| false).unwrap();
        assert!(!ran.status.success());
        let started: i32 = ran.said.lines().next().unwrap().parse().unwrap();
        let until = Instant::now() + PATIENCE;
        let state = || std::fs::read_to_string(format!("/proc/{started}/stat")).unwrap_or_default();
        // Whoever inherits it may not have waited for it yet.
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(Instant::now() < until, "{}", state());
        }
        assert!(once(&shell("sleep 1000", PATIENCE), &notice(), &|| true).is_ok_and(|ran| !ran.status.success()));
    }

    #[test]
    fn one_that_talks_without_end_is_cut_and_one_that_reads_nothing_is_no_failure() {
        let ran = once(&shell("yes | head -c 1000000", PATIENCE), &notice(), &|| false).unwrap();
        assert!(ran.status.success());
        assert_eq!(ran.said.len(), SAID);
        assert!(once(&shell("exec <&-; exit 0", PATIENCE), &notice(), &|| false).unwrap().status.success());
        let ran = once(&shell("yes", Duration::from_millis(100)), &notice(), &|| false).unwrap();
        assert!(!ran.status.success() && ran.said.len() < 2 * SAID);
    }

    #[test]
    fn one_that_is_not_there_is_told() {
        let exec = Exec { command: vec!["/nonexistent".into()], timeout: PATIENCE, at_once: 1 };
        assert!(once(&exec, &notice(), &|| false).is_err());
    }
}
