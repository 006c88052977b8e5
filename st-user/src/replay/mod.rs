//! A capture through the engine, as if it were happening: the capture's time stamps are the time.

mod calls;
mod progress;
pub(crate) mod report;
mod sides;
mod summary;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use st_core::{
    Direction, Engine, Output, Packet, Policy, Time, Transport,
    engine::{EngineConfig, Limits, Mode},
    stream::StreamStats,
};

use crate::{
    capture::{self, CaptureError, Datagram, Decoded, Decoder, Joiner},
    output::Format,
};
pub use calls::{Call, Calls, Counts, Verdict, Wrong};
pub use progress::Progress;
pub use report::Stories;
use sides::{Sides, Survey};
pub use summary::Summary;

/// What to do with a capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the server is; where empty, it is the side that never offered timers.
    pub servers: Vec<IpNet>,
    /// The trunks and their rules.
    pub policy: Arc<Policy>,
    /// How events are written.
    pub format: Format,
    /// Where it is told how far it is.
    pub progress: Progress,
}

/// Why a replay did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The capture cannot be read, or not to its end.
    #[error("{}", file.display())]
    Capture {
        /// The capture.
        file: PathBuf,
        /// Why not.
        source: CaptureError,
    },
    /// The events cannot be written.
    #[error("cannot write events")]
    Output(#[source] io::Error),
    /// A pipe cannot be read twice.
    #[error("{}: no regular file: give `--server NET`, or it would have to be read twice", file.display())]
    OnceOnly {
        /// The capture.
        file: PathBuf,
    },
    /// Nothing in it can be read.
    #[error("{}: link type {link} is not understood: capture on Ethernet, or with `tcpdump -i any`", file.display())]
    Link {
        /// The capture.
        file: PathBuf,
        /// Its LINKTYPE number.
        link: u16,
    },
}

/// Why reading stopped, before it is known which file it was.
enum Stop {
    Capture(CaptureError),
    Output(io::Error),
}

impl From<CaptureError> for Stop {
    fn from(error: CaptureError) -> Self {
        Self::Capture(error)
    }
}

/// Writes the events of the capture to `out`. What was learnt up to an error is in `summary`.
///
/// # Errors
/// The capture's and those of `out`, after all events up to there.
pub fn replay(file: &Path, options: &Options, out: &mut dyn Write, summary: &mut Summary) -> Result<(), ReplayError> {
    let failed = |stop| match stop {
        Stop::Capture(source) => ReplayError::Capture { file: file.to_owned(), source },
        Stop::Output(error) => ReplayError::Output(error),
    };
    let sides = if options.servers.is_empty() {
        // What cannot be opened is told by the reading itself.
        if file.metadata().is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
            return Err(ReplayError::OnceOnly { file: file.to_owned() });
        }
        options.progress.begins(file, 2);
        survey(file, &options.progress, summary)
    } else {
        options.progress.begins(file, 1);
        Sides::Networks(options.servers.clone())
    };
    let engine = Engine::new(EngineConfig {
        policy: Arc::clone(&options.policy),
        mode: Mode::Replay,
        seed: 0,
        limits: Limits::default(),
    });
    let (now, format, line) = (Time::from_micros(0), options.format, Vec::new());
    let mut player = Player { engine, due: None, now, format, line, out, summary };
    let (mut decoder, mut joiner) = (Decoder::default(), Joiner::default());
    let read = capture::read(file, |frame| {
        options.progress.read(frame.bytes.len());
        player.tick(frame.time).map_err(Stop::Output)?;
        let decoded = decoder.decode(frame);
        player.summary.count(frame, &decoded);
        let mut played = Ok(());
        let now = player.now;
        let mut play = |datagram: Datagram<'_>| {
            if played.is_ok() && is_sip(&datagram.payload) {
                played = player.message(&datagram, &sides);
            }
        };
        joiner.time(now, &mut play);
        match decoded {
            Decoded::Udp(datagram) => play(datagram),
            Decoded::Tcp(segment) => joiner.segment(now, &segment, &mut play),
            Decoded::Fragment | Decoded::Other | Decoded::UnknownLink => {}
        }
        played.map_err(Stop::Output)
    });
    let mut played = Ok(());
    let now = player.now;
    joiner.finish(now, &mut |datagram| {
        if played.is_ok() {
            played = player.message(&datagram, &sides);
        }
    });
    let StreamStats { gaps, tls, websocket, .. } = joiner.stats();
    (player.summary.gaps, player.summary.opaque) = (gaps, tls + websocket);
    player.summary.reassembled = decoder.reassembled();
    player.summary.incomplete = decoder.incomplete();
    options.progress.ends();
    let finished = played.and_then(|()| player.finish()).map_err(ReplayError::Output);
    read.map_err(failed).and(finished)?;
    match summary.only_link {
        Some(link) if summary.unknown_link == summary.packets => Err(ReplayError::Link { file: file.to_owned(), link }),
        Some(_) | None => Ok(()),
    }
}

/// Reads the capture once to find out which side is the server.
fn survey(file: &Path, progress: &Progress, summary: &mut Summary) -> Sides {
    let mut survey = Survey::default();
    let (mut decoder, mut joiner, mut last) = (Decoder::default(), Joiner::default(), Time::from_micros(0));
    let mut look = |datagram: Datagram<'_>| {
        if is_sip(&datagram.payload) {
            survey.message(&datagram);
        }
    };
    // An error is told when the capture is read for its events; until there it counts.
    let _ = capture::read(file, |frame| {
        progress.read(frame.bytes.len());
        last = last.max(frame.time);
        joiner.time(last, &mut look);
        match decoder.decode(frame) {
            Decoded::Udp(datagram) => look(datagram),
            Decoded::Tcp(segment) => joiner.segment(last, &segment, &mut look),
            Decoded::Fragment | Decoded::Other | Decoded::UnknownLink => {}
        }
        Ok::<(), Stop>(())
    });
    joiner.finish(last, &mut look);
    survey.decide(&mut summary.sides)
}

struct Player<'a> {
    engine: Engine,
    /// When the engine wants to be called.
    due: Option<Time>,
    now: Time,
    format: Format,
    /// Room for the line of an event.
    line: Vec<u8>,
    out: &'a mut dyn Write,
    summary: &'a mut Summary,
}

impl Player<'_> {
    /// The time is now `time`, or stays where it is if that is earlier.
    fn tick(&mut self, time: Time) -> io::Result<()> {
        if time < self.now {
            self.summary.backwards += 1;
        }
        let now = self.now.max(time);
        while let Some(due) = self.due.filter(|due| *due <= now) {
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
            self.drain()?;
        }
        self.now = now;
        if let Some(stories) = &mut self.summary.stories {
            stories.time(now);
        }
        Ok(())
    }

    fn message(&mut self, datagram: &Datagram<'_>, sides: &Sides) -> io::Result<()> {
        let Datagram { transport, source, destination, tos, ttl, payload, cut } = datagram;
        self.summary.messages += 1;
        self.summary.tcp += u64::from(*transport == Transport::Tcp);
        self.summary.cut += u64::from(*cut);
        let Some(direction) = self.summary.place(sides.direction(*source, *destination)) else { return Ok(()) };
        let (server, peer) = match direction {
            Direction::Egress => (*source, *destination),
            Direction::Ingress => (*destination, *source),
        };
        let packet = Packet {
            direction,
            server,
            peer,
            transport: *transport,
            interface: 0,
            tos: *tos,
            ttl: *ttl,
            cookie: 0,
            truncated: *cut,
            bytes: payload,
        };
        self.engine.handle_packet(self.now, &packet);
        self.drain()
    }

    /// The capture is over: what was due by its last packet has been done, the rest is not known.
    fn finish(&mut self) -> io::Result<()> {
        self.engine.finish(self.now);
        self.drain()?;
        if let Some(calls) = &mut self.summary.calls {
            calls.close();
        }
        self.out.flush()
    }

    fn drain(&mut self) -> io::Result<()> {
        loop {
            match self.engine.poll_output() {
                Output::Event(event) => {
                    self.summary.event(&event);
                    self.line.clear();
                    self.format.write(&event, &mut self.line)?;
                    self.out.write_all(&self.line)?;
                }
                // A replay sends nothing.
                Output::Arm(_)
                | Output::Inject(_)
                | Output::Watch { .. }
                | Output::Mark(_)
                | Output::Unmark { .. }
                | Output::Weigh { .. }
                | Output::Send(_)
                | Output::KeepAlive(_)
                | Output::Unwatch { .. }
                | Output::StopAssisting { .. }
                | Output::Look { .. }
                | Output::Retire { .. }
                | Output::Disarm { .. } => {}
                Output::Timeout(due) => {
                    self.due = due;
                    return Ok(());
                }
            }
        }
    }
}

/// Whether a datagram on whatever port begins as a SIP message does.
fn is_sip(payload: &[u8]) -> bool {
    let start = payload.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(payload.len());
    let rest = &payload[start..];
    let version = |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| bytes.eq_ignore_ascii_case(b"SIP/2.0"));
    if version(rest.get(..7)) {
        return true;
    }
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    line.len() > 7 && version(line.get(line.len() - 7..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sip_is_known_by_its_first_line() {
        for yes in [
            &b"SIP/2.0 200 OK\r\n"[..],
            b"INVITE sip:a SIP/2.0\r\nVia",
            b"\r\n\r\nBYE sip:a sip/2.0\n",
            b"INVITE sip:a SIP/2.0",
        ] {
            assert!(is_sip(yes), "{}", yes.escape_ascii());
        }
        for no in [&b""[..], b"\r\n\r\n", b"GET / HTTP/1.1\r\n", b"\x80\x08\x00", b"SIP/3.0 200", b"a\nSIP/2.0 200 OK"]
        {
            assert!(!is_sip(no), "{}", no.escape_ascii());
        }
    }
}
