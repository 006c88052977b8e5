//! Events in systemd's journal, with fields that it can be asked by (systemd's native journal protocol: one datagram an entry). A
//! thread of its own sends them, so that a journal that stands still holds nothing up.

mod ids;

use std::{
    convert::Infallible,
    env,
    io::{self, Write as _},
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use rustix::fs::fstat;
use st_core::{Event, EventKind};

use crate::{alert::SinkCounts, config::Journald, words};
pub use ids::message_id;

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// How many entries wait for the journal; past that the newest are dropped and counted.
const QUEUE: usize = 4_096;

/// How long one entry waits for room.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes events into the journal.
pub struct Journal {
    entries: SyncSender<Vec<u8>>,
    counts: Arc<SinkCounts>,
    done: Receiver<Infallible>,
}

impl Journal {
    /// Starts the thread; `socket`: where the journal listens.
    ///
    /// # Errors
    /// The system has no thread or no socket left.
    pub fn start(socket: &Path) -> io::Result<Self> {
        let (entries, queue) = sync_channel(QUEUE);
        let (finished, done) = sync_channel::<Infallible>(0);
        let counts = SinkCounts::new("journal".into());
        let own = UnixDatagram::unbound()?;
        own.set_write_timeout(Some(PATIENCE))?;
        let writer = Writer { own, socket: socket.to_owned(), counts: Arc::clone(&counts), lost: 0 };
        thread::Builder::new().name("journal".into()).spawn(move || {
            writer.run(&queue);
            drop(finished);
        })?;
        Ok(Self { entries, counts, done })
    }

    /// Queues an event.
    pub fn event(&self, event: &Event) {
        let slow = "the journal takes events too slowly: the newest are dropped";
        self.counts.queue(|| self.entries.try_send(entry(event)).is_ok(), slow);
    }

    /// What became of the events.
    pub fn counts(&self) -> Arc<SinkCounts> {
        Arc::clone(&self.counts)
    }

    /// Writes what is queued, for at most `wait`.
    pub fn finish(self, wait: Duration) {
        drop(self.entries);
        // Disconnected is what it says when it is done.
        let _ = self.done.recv_timeout(wait);
    }
}

impl Journald {
    /// Whether events go to the journal: where the operator says so, or systemd has connected this process with it.
    pub fn is_on(self) -> bool {
        match self {
            Self::Auto => env::var_os("JOURNAL_STREAM").is_some_and(|stream| !stream.is_empty()),
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// Whether what is written there ends in the journal as lines: systemd names that stream by its device and inode
/// (systemd.exec(5), `JOURNAL_STREAM`).
pub fn is_stream(file: impl AsFd) -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    fstat(file).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

struct Writer {
    own: UnixDatagram,
    socket: PathBuf,
    counts: Arc<SinkCounts>,
    /// Entries that were not taken since the last that was.
    lost: u64,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Vec<u8>>) {
        for entry in queue {
            self.counts.queued.fetch_sub(1, Relaxed);
            // Not connected: a journal that is started anew listens at the same place.
            match self.own.send_to(&entry, &self.socket) {
                Ok(_) => {
                    SinkCounts::add(&self.counts.sent, 1);
                    if self.lost > 0 {
                        tracing::warn!(lost = self.lost, "the journal takes events again");
                        self.lost = 0;
                    }
                }
                Err(error) => {
                    SinkCounts::add(&self.counts.failed, 1);
                    if self.lost == 0 {
                        tracing::warn!(%error, socket = %self.socket.display(), "the journal does not take events");
                    }
                    self.lost += 1;
                }
            }
        }
    }
}

/// An event as the journal takes it.
fn entry(event: &Event) -> Vec<u8> {
    let mut entry = Vec::with_capacity(1_024);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            field(&mut entry, name, &value);
        }
    };
    add("MESSAGE", Some(format!("{}: {}", event.kind.name(), words::line(event))));
    add("MESSAGE_ID", Some(message_id(event.kind).to_owned()));
    add("PRIORITY", Some(priority(event.kind).to_string()));
    add("SYSLOG_IDENTIFIER", Some("sipst".to_owned()));
    add("SIPST_EVENT", Some(event.kind.name().to_owned()));
    add("SIPST_TIME", Some(event.time.to_string()));
    add("SIPST_CALL_ID", event.call_id().map(Into::into));
    add("SIPST_LOCAL_TAG", event.local_tag().map(Into::into));
    add("SIPST_REMOTE_TAG", event.remote_tag().map(Into::into));
    add("SIPST_SERVER", event.server().map(|address| address.to_string()));
    add("SIPST_PEER", event.peer().map(|address| address.to_string()));
    add("SIPST_TRUNK", event.trunk.clone());
    add("SIPST_REASON", crate::alert::word(event).map(str::to_owned));
    add("SIPST_REASON_DETAIL", event.reason.as_deref().map(str::to_owned));
    add("SIPST_BY", event.by.map(|by| by.to_string()));
    add("SIPST_REFRESHER", event.refresher.map(|side| side.to_string()));
    add("SIPST_METHOD", event.method.map(str::to_owned));
    add("SIPST_STATUS", event.status.map(|status| status.to_string()));
    add("SIPST_INTERVAL_S", event.interval_s.map(|interval| interval.to_string()));
    add("SIPST_DEADLINE", event.deadline.map(|time| time.to_string()));
    add("SIPST_JSON", serde_json::to_string(event).ok());
    entry
}

/// One field: as a line, or where it has more than one, with its length before it.
fn field(entry: &mut Vec<u8>, name: &str, value: &str) {
    // Writing to a vector does not fail.
    let _ = if value.contains('\n') {
        entry
            .write_all(format!("{name}\n").as_bytes())
            .and_then(|()| entry.write_all(&(value.len() as u64).to_le_bytes()))
            .and_then(|()| entry.write_all(format!("{value}\n").as_bytes()))
    } else {
        entry.write_all(format!("{name}={value}\n").as_bytes())
    };
}

/// As syslog has them: an error where a call is lost or about to be, a warning for other alerts, information.
const fn priority(kind: EventKind) -> u8 {
    if words::is_critical(kind) {
        3
    } else if kind.is_alert() {
        4
    } else {
        6
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use st_core::{Names, Time};

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    fn event(call_id: &str) -> Event {
        let [server, peer] = ["192.0.2.1:5060", "198.51.100.2:5060"].map(|address| address.parse().unwrap());
        Event {
            names: Some(Arc::new(Names::new(call_id.as_bytes(), b"l", b"r", server, peer))),
            reason: Some("refused: 403".into()),
            trunk: Some("carrier".into()),
            status: Some(403),
            ..Event::new(Time::from_micros(0), EventKind::RefreshFailed)
        }
    }

    /// An entry read by the rules of systemd's journal protocol.
    fn read(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
            let line = std::str::from_utf8(&entry[..end]).unwrap();
            entry = &entry[end + 1..];
            let (name, value) = match line.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => {
                    let (length, rest) = entry.split_first_chunk().unwrap();
                    let (value, rest) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
                    entry = rest.strip_prefix(b"\n").unwrap();
                    (line, String::from_utf8(value.to_vec()).unwrap())
                }
            };
            // systemd.journal-fields(7): what else is thrown away.
            assert!(name.len() <= 64 && name.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_')));
            assert!(fields.insert(name.to_owned(), value).is_none(), "{name} twice");
        }
        fields
    }

    /// A place for a socket that goes away with it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let dir = env::temp_dir().join(format!("sipst-journal-{}-{name}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("socket")
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_event_has_its_fields_and_what_came_from_the_wire_cannot_make_others() {
        let place = Place::new("fields");
        let listener = UnixDatagram::bind(place.socket()).unwrap();
        listener.set_read_timeout(Some(SOON)).unwrap();
        let journal = Journal::start(&place.socket()).unwrap();
        let hostile = "a\nMESSAGE_ID=0\nPRIORITY=0";
        journal.event(&event(hostile));
        let mut buffer = vec![0; 65_536];
        let len = listener.recv(&mut buffer).unwrap();
        let fields = read(&buffer[..len]);
        assert_eq!(fields["MESSAGE_ID"], message_id(EventKind::RefreshFailed));
        assert_eq!(fields["SIPST_CALL_ID"], hostile);
        let expected = [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "sipst"),
            ("SIPST_EVENT", "refresh_failed"),
            ("SIPST_REASON", "refused"),
            ("SIPST_REASON_DETAIL", "refused: 403"),
            ("SIPST_TRUNK", "carrier"),
            ("SIPST_STATUS", "403"),
            ("SIPST_PEER", "198.51.100.2:5060"),
        ];
        for (name, value) in expected {
            assert_eq!(fields[name], value, "{name}");
        }
        assert!(fields["MESSAGE"].starts_with("refresh_failed: no refresh of sipst's"), "{}", fields["MESSAGE"]);
        assert!(!fields["MESSAGE"].contains('\n'));
        assert!(!fields.contains_key("SIPST_DEADLINE"));
        let json: serde_json::Value = serde_json::from_str(&fields["SIPST_JSON"]).unwrap();
        assert_eq!(json["call_id"], hostile);
        journal.finish(SOON);
    }

    #[test]
    fn a_journal_that_is_away_is_counted_and_taken_up_again_when_it_is_back() {
        let place = Place::new("away");
        let journal = Journal::start(&place.socket()).unwrap();
        let counts = journal.counts();
        journal.event(&event("lost"));
        let until = std::time::Instant::now() + SOON;
        while counts.failed.load(Relaxed) == 0 {
            assert!(std::time::Instant::now() < until);
        }
        let listener = UnixDatagram::bind(place.socket()).unwrap();
        journal.event(&event("taken"));
        journal.finish(SOON);
        let mut buffer = vec![0; 65_536];
        let len = listener.recv(&mut buffer).unwrap();
        assert_eq!(read(&buffer[..len])["SIPST_CALL_ID"], "taken");
        assert_eq!((counts.sent.load(Relaxed), counts.queued.load(Relaxed)), (1, 0));
    }

    #[test]
    fn a_journal_that_stands_still_costs_the_newest_and_holds_up_nobody() {
        let place = Place::new("stuck");
        let _listener = UnixDatagram::bind(place.socket()).unwrap();
        let journal = Journal::start(&place.socket()).unwrap();
        for _ in 0..2 * QUEUE {
            journal.event(&event("a"));
        }
        // A few are in the socket's own queue.
        assert!(journal.counts().dropped.load(Relaxed) > QUEUE as u64 / 2);
        journal.finish(Duration::ZERO);
    }

    #[test]
    fn only_the_stream_that_systemd_names_is_the_journals() {
        let file = fs::File::open("/dev/null").unwrap();
        // Nothing here is started by systemd.
        assert!(!is_stream(&file) || env::var_os("JOURNAL_STREAM").is_some());
        assert!(!Journald::Off.is_on() && Journald::On.is_on());
    }
}
