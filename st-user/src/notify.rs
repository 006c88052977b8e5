//! What the daemon tells its supervisor (sd_notify(3)), and the watchdog, which is fed only while both what comes in and what is
//! due are worked on.

use std::{
    env,
    ffi::OsString,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::{Duration, Instant},
};

use crate::clock::monotonic_ns;

/// How soon it is tried again where it could not be.
const AGAIN: Duration = Duration::from_millis(50);

/// Where there is a supervisor, its socket.
#[derive(Debug)]
pub(crate) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often the watchdog is fed: twice in the time that it waits.
    every: Option<Duration>,
    fed: Option<Instant>,
    pulse: Pulse,
}

/// Which parts of the loop have come on since the watchdog was last fed.
#[derive(Clone, Copy, Debug, Default)]
struct Pulse {
    /// The ring was read to its end, or records were taken out of it.
    reader: bool,
    /// What was due was done, or nothing was.
    timers: bool,
}

impl Notify {
    /// As the environment says.
    pub(crate) fn from_env() -> Self {
        let own = |pid: OsString| pid.to_str().and_then(|pid| pid.parse().ok()) == Some(std::process::id());
        let mine = env::var_os("WATCHDOG_PID").is_none_or(own);
        let limit = env::var("WATCHDOG_USEC").ok().filter(|_| mine).and_then(|limit| limit.parse().ok());
        Self::new(env::var_os("NOTIFY_SOCKET"), limit.filter(|limit| *limit > 0).map(Duration::from_micros))
    }

    fn new(socket: Option<OsString>, limit: Option<Duration>) -> Self {
        let to = socket.filter(|socket| !socket.is_empty()).and_then(|socket| {
            let opened = open(&socket);
            opened.inspect_err(|error| tracing::warn!(?socket, %error, "the supervisor cannot be told anything")).ok()
        });
        let every = limit.filter(|_| to.is_some()).map(|limit| limit / 2);
        Self { to, every, fed: None, pulse: Pulse::default() }
    }

    /// It reads, and keeps calls alive.
    pub(crate) fn ready(&self) {
        self.say("READY=1");
    }

    /// The configuration is being read anew; [`Self::ready`] follows.
    pub(crate) fn reloading(&self) {
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_ns() / 1000));
    }

    /// It ends.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub(crate) fn status(&self, text: &str) {
        self.say(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// Packets were read, or there were none.
    pub(crate) fn reader_progressed(&mut self) {
        self.pulse.reader = true;
    }

    /// What was due was done.
    pub(crate) fn timers_progressed(&mut self) {
        self.pulse.timers = true;
    }

    /// Feeds the watchdog where it is time to and both have come on since the last time.
    pub(crate) fn feed(&mut self) {
        let Some(every) = self.every else { return };
        if self.fed.is_some_and(|fed| fed.elapsed() < every) {
            return;
        }
        if let Pulse { reader: true, timers: true } = self.pulse
            && self.say("WATCHDOG=1")
        {
            self.fed = Some(Instant::now());
            self.pulse = Pulse::default();
        }
    }

    /// How long the loop may rest until the watchdog wants to be fed.
    pub(crate) fn rest(&self) -> Option<Duration> {
        let left = |fed: Instant, every: Duration| every.saturating_sub(fed.elapsed());
        self.every.map(|every| self.fed.map_or(AGAIN, |fed| left(fed, every).max(AGAIN)))
    }

    /// Never waits: a supervisor that stands still holds no call up.
    fn say(&self, text: &str) -> bool {
        let Some((socket, to)) = &self.to else { return false };
        match socket.send_to_addr(text.as_bytes(), to) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, text, "the supervisor takes nothing just now");
                false
            }
        }
    }
}

fn open(socket: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let own = UnixDatagram::unbound()?;
    own.set_nonblocking(true)?;
    Ok((own, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A supervisor with an abstract socket, and the daemon's side.
    fn supervised(name: &str, limit: Option<Duration>) -> (UnixDatagram, Notify) {
        let name = format!("sipst-notify-{}-{name}", std::process::id());
        let supervisor = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        supervisor.set_nonblocking(true).unwrap();
        (supervisor, Notify::new(Some(format!("@{name}").into()), limit))
    }

    fn heard(supervisor: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 256];
        let read = supervisor.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..read].to_vec()).unwrap())
    }

    #[test]
    fn the_watchdog_is_fed_only_when_both_the_reader_and_the_timers_have_come_on() {
        let (supervisor, mut notify) = supervised("both", Some(Duration::from_nanos(2)));
        type Progress = fn(&mut Notify);
        let (reader, timers): (Progress, Progress) = (Notify::reader_progressed, Notify::timers_progressed);
        for (progress, fed) in [
            (&[][..], false),
            (&[reader], false),
            (&[reader, reader], false),
            (&[timers], true),
            (&[timers], false),
            (&[timers, timers], false),
            (&[reader], true),
            (&[reader, timers], true),
            (&[], false),
        ] {
            progress.iter().for_each(|progress| progress(&mut notify));
            notify.feed();
            assert_eq!(heard(&supervisor), fed.then(|| "WATCHDOG=1".to_owned()));
        }
    }

    #[test]
    fn it_is_fed_no_more_often_than_twice_in_its_time() {
        let (supervisor, mut notify) = supervised("often", Some(Duration::from_secs(3600)));
        for _ in 0..3 {
            notify.reader_progressed();
            notify.timers_progressed();
            notify.feed();
        }
        assert_eq!(heard(&supervisor).as_deref(), Some("WATCHDOG=1"));
        assert_eq!(heard(&supervisor), None);
        assert!(notify.rest().is_some_and(|rest| rest <= Duration::from_secs(1800)));
    }

    #[test]
    fn a_reload_names_its_moment_and_ends_with_ready() {
        let (supervisor, notify) = supervised("reload", None);
        notify.reloading();
        notify.ready();
        let first = heard(&supervisor).unwrap();
        let micros = first.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().is_ok_and(|micros| micros <= monotonic_ns() / 1000));
        assert_eq!(heard(&supervisor).as_deref(), Some("READY=1"));
    }

    #[test]
    fn a_supervisor_that_reads_nothing_or_is_gone_holds_nothing_up() {
        let (supervisor, notify) = supervised("stuck", Some(Duration::from_secs(1)));
        for _ in 0..10_000 {
            notify.ready();
        }
        drop(supervisor);
        notify.ready();
        let mut nobody = Notify::new(None, Some(Duration::from_secs(1)));
        nobody.feed();
        assert_eq!(nobody.rest(), None);
        let mut gone = Notify::new(Some("@sipst-nobody-listens-here".into()), Some(Duration::from_secs(1)));
        gone.reader_progressed();
        gone.timers_progressed();
        gone.feed();
        assert!(gone.rest().is_some_and(|rest| rest >= AGAIN), "the loop does not spin");
    }
}
