//! Events on stdout: one JSON object or one readable line each.

mod waiting;

use std::{
    fmt::{self, Write as _},
    io::{self, ErrorKind, Write},
    sync::mpsc::{Receiver, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use st_core::{Breach, Event, Time};

use crate::sink::EventSink;

/// What an event looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// One line for people, in columns.
    Human,
}

impl Format {
    /// The event as one line, with its newline.
    ///
    /// # Errors
    /// None in practice: an event is plain data.
    pub fn line(self, event: &Event) -> io::Result<String> {
        let mut line = String::new();
        self.write(event, &mut line)?;
        Ok(line)
    }

    /// Writes the same behind what stands there.
    pub(crate) fn write(self, event: &Event, line: &mut String) -> io::Result<()> {
        match self {
            Self::Json => json(event, line)?,
            Self::Human => human(event, line).map_err(io::Error::other)?,
        }
        line.push('\n');
        Ok(())
    }
}

/// The event as an object, behind what stands there.
fn json(event: &Event, line: &mut String) -> io::Result<()> {
    Ok(serde_json::to_writer(Text(line), event)?)
}

/// A string as serde_json writes to it: in pieces, each of which is text.
struct Text<'a>(&'a mut String);

impl Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push_str(std::str::from_utf8(bytes).map_err(io::Error::other)?);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints events from a thread of its own, so that whoever reads stdout can be as slow as they like.
pub struct Printer {
    lines: waiting::Sender,
    format: Format,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Printer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(format: Format, out: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, queue) = waiting::lines();
        let (finished, done) = sync_channel(1);
        let thread = thread::Builder::new().name("output".into()).spawn(move || {
            print(&queue, out);
            // The other end is gone where nobody waits.
            let _ = finished.send(());
        })?;
        Ok(Self { lines, format, done, thread })
    }

    /// Prints what is queued, for at most `wait`.
    pub fn finish(self, wait: Duration) {
        let Self { lines, format: _, done, thread } = self;
        drop(lines);
        if done.recv_timeout(wait).is_ok() && thread.join().is_err() {
            tracing::error!("the output thread has failed");
        }
    }
}

impl EventSink for Printer {
    fn event(&mut self, event: &Event) {
        // Once stdout is closed, which was logged, nothing is kept.
        self.lines.put(|line| self.format.write(event, line));
    }
}

fn print(queue: &waiting::Receiver, mut out: impl Write) {
    let mut text = String::new();
    while let Some((lines, lost)) = queue.take(text) {
        if let Err(error) = out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
            if error.kind() == ErrorKind::BrokenPipe {
                tracing::warn!("stdout is closed: events are no longer printed, everything else goes on");
            } else {
                tracing::error!(%error, "cannot write to stdout: events are no longer printed, everything else goes on");
            }
            return;
        }
        if lost > 0 {
            tracing::warn!(lost, "stdout is read too slowly: events were not printed");
        }
        text = lines;
    }
}

/// Columns: time, event, who does it, server, peer, trunk, then what else there is, the dialog last.
fn human(event: &Event, line: &mut String) -> fmt::Result {
    let Event {
        time,
        kind,
        names: _,
        trunk,
        interval_s,
        refresher,
        by,
        method,
        status,
        deadline,
        lag,
        reason,
        breaches,
    } = event;
    write!(line, "{time}  {:<17}  ", kind.name())?;
    column(line, 6, *by)?;
    column(line, 21, event.server())?;
    column(line, 21, event.peer())?;
    column(line, 10, Some(Printable(trunk.as_deref().unwrap_or("-"))))?;
    // The next one brings its own.
    line.truncate(line.len() - GAP.len());
    if let Some(seconds) = interval_s {
        write!(line, "  interval={seconds}s")?;
    }
    detail(line, "refresher", *refresher)?;
    detail(line, "method", method.map(Printable))?;
    detail(line, "status", *status)?;
    if let Some(deadline) = deadline {
        line.push_str("  deadline=");
        clock(line, *deadline)?;
    }
    detail(line, "lag", lag.map(|lag| format!("{:.3}s", lag.as_secs_f64())))?;
    detail(line, "reason", reason.as_deref().map(Printable))?;
    detail(line, "breaches", (!breaches.is_empty()).then(|| listed(breaches)))?;
    detail(line, "call_id", event.call_id().as_deref().map(Printable))
}

/// What stands between two columns.
const GAP: &str = "  ";

/// A column of so many characters at least, `-` where there is nothing.
fn column(line: &mut String, width: usize, value: Option<impl fmt::Display>) -> fmt::Result {
    let begin = line.len();
    match value {
        Some(value) => write!(line, "{value}")?,
        None => line.push('-'),
    }
    let short = width.saturating_sub(line[begin..].chars().count());
    line.extend(std::iter::repeat_n(' ', short));
    line.push_str(GAP);
    Ok(())
}

fn detail(line: &mut String, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(line, "{GAP}{name}={value}"))
}

fn listed(breaches: &[Breach]) -> String {
    breaches.iter().map(Breach::to_string).collect::<Vec<_>>().join(",")
}

/// The clock part of a time: the date is in the first column.
fn clock(line: &mut String, time: Time) -> fmt::Result {
    let begin = line.len();
    write!(line, "{time}")?;
    if let Some(date) = line[begin..].find('T') {
        line.drain(begin..=begin + date);
    }
    Ok(())
}

/// An error with its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// What came from the wire, with nothing in it that a terminal obeys.
pub(crate) fn printable(text: &str) -> String {
    Printable(text).to_string()
}

/// The same, to be written somewhere.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return f.write_str(text);
        }
        text.chars().try_for_each(|c| {
            if c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                write!(f, "{}", c.escape_default())
            } else {
                f.write_char(c)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use st_core::{By, EventKind, Names, Side};

    use super::{
        waiting::{QUEUE, WRITTEN_AT_ONCE},
        *,
    };

    fn event(call_id: &str) -> Event {
        Event {
            time: Time::from_micros(1_700_000_000_000_001),
            kind: EventKind::RefreshSent,
            names: Some(Arc::new(Names::new(
                call_id.as_bytes(),
                b"l",
                b"r",
                "192.0.2.1:5060".parse().unwrap(),
                "198.51.100.2:5060".parse().unwrap(),
            ))),
            trunk: Some("carrier".into()),
            interval_s: Some(90),
            refresher: Some(Side::Server),
            by: Some(By::Sipst),
            method: Some("UPDATE"),
            status: None,
            deadline: Some(Time::from_micros(1_700_000_060_000_000)),
            reason: None,
            lag: None,
            breaches: Vec::new(),
        }
    }

    /// A writer whose bytes can be looked at, and which fails when told to.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<(Vec<u8>, Option<ErrorKind>)>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut inner = self.0.lock().unwrap();
            match inner.1 {
                Some(kind) => Err(kind.into()),
                None => inner.0.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_is_one_object_per_line_without_absent_fields() {
        let line = Format::Json.line(&event("a\nb")).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["event"], "refresh_sent");
        assert_eq!(value["time"], "2023-11-14T22:13:20.000001Z");
        assert_eq!(value["call_id"], "a\nb");
        assert_eq!(value["by"], "sipst");
        assert!(value.get("status").is_none());
    }

    #[test]
    fn a_readable_line_has_its_columns_in_line_and_obeys_no_wire() {
        let one = Format::Human.line(&event("a")).unwrap();
        let mut other = event("a\u{1b}[2Jb\u{202e}");
        (other.kind, other.by) = (EventKind::TimerNegotiated, None);
        let other = Format::Human.line(&other).unwrap();
        assert_eq!(one.find("198.51.100.2"), other.find("198.51.100.2"));
        assert_eq!(one.find("interval="), other.find("interval="));
        assert!(one.contains("deadline=22:14:20.000000Z"), "{one}");
        assert!(other.contains(r"call_id=a\u{1b}[2Jb\u{202e}"), "{other}");
    }

    #[test]
    fn everything_queued_is_printed_before_the_end() {
        let out = Shared::default();
        let mut printer = Printer::start(Format::Json, out.clone()).unwrap();
        for index in 0..100 {
            printer.event(&event(&index.to_string()));
        }
        printer.finish(Duration::from_secs(30));
        assert_eq!(out.0.lock().unwrap().0.iter().filter(|byte| **byte == b'\n').count(), 100);
    }

    #[test]
    fn a_closed_stdout_stops_nothing() {
        let out = Shared::default();
        out.0.lock().unwrap().1 = Some(ErrorKind::BrokenPipe);
        let mut printer = Printer::start(Format::Json, out).unwrap();
        for _ in 0..2 * QUEUE {
            printer.event(&event("a"));
        }
        printer.finish(Duration::from_secs(30));
    }

    /// A writer that waits for its leave.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_stdout_costs_the_newest_events_and_blocks_nobody() {
        let (leave, stuck) = mpsc::channel();
        let mut printer = Printer::start(Format::Json, Stuck(stuck)).unwrap();
        let sent = 2 * QUEUE as u64;
        for _ in 0..sent {
            printer.event(&event("a"));
        }
        let dropped = printer.lines.dropped();
        // Some may be in the writer's hands.
        let written = WRITTEN_AT_ONCE / Format::Json.line(&event("a")).unwrap().len() + 1;
        let least = sent - (QUEUE + written) as u64;
        assert!((least..=sent - QUEUE as u64).contains(&dropped), "{dropped}");
        printer.finish(Duration::ZERO);
        drop(leave);
    }
}
