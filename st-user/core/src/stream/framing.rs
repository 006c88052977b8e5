//! Where one message ends and the next begins in the bytes of one direction (RFC 3261, section 18.3): by the empty line and
//! Content-Length. What cannot be framed is gone through line by line until a message begins that is one.

use super::{MAX_HEADER, MAX_LINE, MAX_STREAMED, Opaque};
use crate::message::{Message, find, is_start_line};

/// What was found in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A message.
    Message {
        /// All of it, or its beginning, with the whole header.
        bytes: &'a [u8],
        /// Whether it is its beginning.
        truncated: bool,
    },
    /// It is not known where the next one begins.
    Lost,
    /// What comes cannot be read, and why.
    Opaque(Opaque),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A message begins where the bytes do, or is about to.
    Message,
    /// So many bytes of a message that was told of are still to come.
    Skip(usize),
    /// A message that begins a line is looked for.
    Hunt,
}

/// What a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    Sip,
    Http,
}

/// The bytes of one direction, taken apart.
#[derive(Debug)]
pub(super) struct Framer {
    state: State,
    /// What has come of a message, or of a line.
    held: Vec<u8>,
    /// Where in that the line begins that is looked at next.
    line: usize,
    /// How long the message is, once its header is there.
    length: Option<usize>,
    /// Where nothing is known: what the bytes begin as, if they may begin a message.
    candidate: Option<Begins>,
    /// Whether the beginning of the line was too long to be kept.
    torn: bool,
    /// Whether nothing was seen before.
    fresh: bool,
    /// Bytes that were gone through in vain since the last message.
    hunted: u64,
}

impl Framer {
    /// `begins`: whether the first byte is the connection's first.
    pub(super) fn new(begins: bool) -> Self {
        Self {
            state: if begins { State::Message } else { State::Hunt },
            held: Vec::new(),
            line: 0,
            length: None,
            candidate: None,
            torn: false,
            fresh: true,
            hunted: 0,
        }
    }

    /// How many bytes are kept.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// How many bytes were gone through in vain since the last message.
    pub(super) fn hunted(&self) -> u64 {
        self.hunted
    }

    /// Takes in what comes next.
    pub(super) fn push(&mut self, bytes: &[u8], found: &mut dyn FnMut(Found<'_>)) {
        if self.held.is_empty() {
            let used = self.run(bytes, found);
            self.held = bytes[used..].to_vec();
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let used = self.run(&held, found);
        if used < held.len() {
            held.drain(..used);
            self.held = held;
        }
    }

    /// So many bytes went by unseen.
    pub(super) fn gap(&mut self, bytes: usize, found: &mut dyn FnMut(Found<'_>)) {
        let held = std::mem::take(&mut self.held);
        let missing = match (self.state, self.length) {
            (State::Skip(left), _) => Some(left),
            (State::Message, Some(length)) => {
                found(Found::Message { bytes: &held, truncated: true });
                Some(length - held.len())
            }
            (State::Message | State::Hunt, _) => None,
        };
        match missing.filter(|missing| *missing >= bytes) {
            Some(missing) => self.begin(missing - bytes),
            None => self.lose(found),
        }
    }

    /// A message is at its end but for so many bytes that nobody needs.
    fn begin(&mut self, skip: usize) {
        self.state = if skip > 0 { State::Skip(skip) } else { State::Message };
        (self.line, self.length, self.candidate, self.hunted) = (0, None, None, 0);
    }

    /// It is not known where the next message begins.
    fn lose(&mut self, found: &mut dyn FnMut(Found<'_>)) {
        if self.state != State::Hunt {
            found(Found::Lost);
        }
        self.state = State::Hunt;
        (self.line, self.length, self.candidate, self.torn) = (0, None, None, false);
    }

    /// Finds what there is; how many of the bytes are done with.
    fn run(&mut self, bytes: &[u8], found: &mut dyn FnMut(Found<'_>)) -> usize {
        if self.fresh {
            match is_tls(bytes) {
                None => return 0,
                Some(true) => {
                    found(Found::Opaque(Opaque::Tls));
                    self.lose(found);
                }
                Some(false) => {}
            }
            self.fresh = false;
        }
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let step = match self.state {
                State::Skip(left) => {
                    let used = left.min(rest.len());
                    self.begin(left - used);
                    (used > 0).then_some(used)
                }
                State::Message => self.message(rest, found),
                State::Hunt => self.hunt(rest, found),
            };
            match step {
                Some(used) => at += used,
                None => return at,
            }
        }
    }

    /// What begins where a message is to begin; how many bytes are done with, `None` where more have to come first.
    fn message(&mut self, bytes: &[u8], found: &mut dyn FnMut(Found<'_>)) -> Option<usize> {
        if self.line == 0 {
            // RFC 5626, section 3.5.1, and whoever else sends empty lines.
            let blank = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
            if blank > 0 {
                return Some(blank);
            }
        }
        let length = match self.length {
            Some(length) => length,
            None => {
                let header = match self.header(bytes) {
                    Ok(header) => header?,
                    Err(used) => {
                        self.lose(found);
                        return Some(used);
                    }
                };
                let length = header.len() + body_length(header).unwrap_or_default();
                if length > MAX_STREAMED {
                    found(Found::Message { bytes: header, truncated: true });
                    self.begin(length - header.len());
                    return Some(header.len());
                }
                *self.length.insert(length)
            }
        };
        let message = bytes.get(..length)?;
        found(Found::Message { bytes: message, truncated: false });
        self.begin(0);
        Some(length)
    }

    /// The header of the message that begins here, `None` where more has to come first; how many bytes to go on behind, where it is
    /// none.
    fn header<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, usize> {
        loop {
            let end = find(&bytes[self.line..], [b'\n']).map(|end| self.line + end);
            let limit = if self.line == 0 { MAX_LINE } else { MAX_HEADER };
            let Some(end) = end else { return if bytes.len() > limit { Err(0) } else { Ok(None) } };
            let line = without_cr(&bytes[self.line..end]);
            if end >= limit || (self.line == 0 && !is_start_line(line)) {
                return Err(0);
            }
            self.line = end + 1;
            if line.is_empty() {
                let header = &bytes[..=end];
                return if body_length(header).is_some() { Ok(Some(header)) } else { Err(header.len()) };
            }
        }
    }

    /// Goes through one line where it is not known where a message begins; as [`Framer::message`].
    fn hunt(&mut self, bytes: &[u8], found: &mut dyn FnMut(Found<'_>)) -> Option<usize> {
        let Some(end) = find(&bytes[self.line..], [b'\n']).map(|end| self.line + end) else {
            return self.hunt_on(bytes);
        };
        let line = without_cr(&bytes[self.line..end]);
        let is_whole = !std::mem::take(&mut self.torn) && end - self.line < MAX_LINE;
        // A body need not end its last line.
        let within = begins_within(line).filter(|_| self.candidate.is_none());
        let begun = within.or_else(|| begins(line).map(|begins| (0, begins)));
        if let Some((within, begins)) = begun.filter(|_| is_whole) {
            let used = self.line + within;
            self.candidate = Some(begins);
            self.line = end + 1 - used;
            self.hunted += used as u64;
            // With no bytes used the next line is gone on with all the same.
            return Some(used);
        }
        match self.candidate {
            Some(_) if end < MAX_HEADER && !line.is_empty() => {
                self.line = end + 1;
                return Some(0);
            }
            Some(Begins::Sip) if end < MAX_HEADER && is_message(&bytes[..=end]) => {
                self.begin(0);
                return Some(0);
            }
            Some(Begins::Http) if end < MAX_HEADER && is_upgrade(&bytes[..=end]) => {
                found(Found::Opaque(Opaque::WebSocket));
            }
            Some(Begins::Sip | Begins::Http) | None => {}
        }
        Some(self.drop_to(end + 1))
    }

    /// The line is not at its end: what is kept of it, and of what is before it.
    fn hunt_on(&mut self, bytes: &[u8]) -> Option<usize> {
        let used = match self.candidate {
            Some(_) if bytes.len() <= MAX_HEADER => return None,
            Some(_) => self.line,
            None if bytes.len() <= MAX_LINE => return None,
            None => bytes.len(),
        };
        self.torn |= self.candidate.is_none();
        Some(self.drop_to(used))
    }

    fn drop_to(&mut self, used: usize) -> usize {
        (self.candidate, self.line) = (None, 0);
        self.hunted += used as u64;
        used
    }
}

/// What begins the requests that count.
const METHODS: [&[u8]; 14] = [
    b"INVITE ",
    b"ACK ",
    b"BYE ",
    b"CANCEL ",
    b"UPDATE ",
    b"PRACK ",
    b"INFO ",
    b"OPTIONS ",
    b"REGISTER ",
    b"SUBSCRIBE ",
    b"NOTIFY ",
    b"REFER ",
    b"MESSAGE ",
    b"PUBLISH ",
];

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The length of the body, if this is a header from the first line to the empty one.
fn body_length(header: &[u8]) -> Option<usize> {
    let message = Message::scan(header, false).ok().filter(|message| message.body_at() == Some(header.len()))?;
    message.stream_length()
}

/// Whether a header is a message's by all that has to be in it (RFC 3261, section 8.1.1), and not something that begins likewise.
fn is_message(header: &[u8]) -> bool {
    let Ok(message) = Message::scan(header, false) else { return false };
    let names = message.call_id().zip(message.from()).zip(message.to()).zip(message.top_via());
    let same = |cseq: crate::message::CSeq| message.request_method().is_none_or(|method| method == cseq.method);
    names.is_some() && message.cseq().is_some_and(same) && body_length(header).is_some()
}

fn begins(line: &[u8]) -> Option<Begins> {
    let is_response = line.starts_with(b"SIP/2.0 ");
    if is_start_line(line) && !(is_response && line.ends_with(b" SIP/2.0")) {
        Some(Begins::Sip)
    } else if line.starts_with(b"HTTP/1.1 101") || (line.starts_with(b"GET ") && line.ends_with(b" HTTP/1.1")) {
        Some(Begins::Http)
    } else {
        None
    }
}

/// Where a message begins behind the end of a body, on the same line.
fn begins_within(line: &[u8]) -> Option<(usize, Begins)> {
    let wanted = |known: &&[u8]| {
        let mut places = line.windows(known.len()).enumerate().rev();
        places.find(|(at, place)| place == known && is_start_line(&line[*at..])).map(|(at, _)| at)
    };
    let at = if line.ends_with(b" SIP/2.0") {
        METHODS.iter().filter_map(wanted).max()
    } else {
        [&b"SIP/2.0 "[..]].iter().find_map(wanted)
    };
    at.map(|at| (at, Begins::Sip))
}

/// Whether the header of an HTTP message goes over to WebSocket (RFC 6455, section 4).
fn is_upgrade(header: &[u8]) -> bool {
    header.split(|byte| *byte == b'\n').any(|line| {
        let Some((name, value)) = line.iter().position(|byte| *byte == b':').map(|colon| line.split_at(colon)) else {
            return false;
        };
        name.eq_ignore_ascii_case(b"Upgrade") && value[1..].trim_ascii().eq_ignore_ascii_case(b"websocket")
    })
}

/// Whether the first bytes are a record of TLS (RFC 8446, section 5.1); `None` where more have to come first.
fn is_tls(bytes: &[u8]) -> Option<bool> {
    match *bytes {
        [] | [20..=23] | [20..=23, 3] => None,
        [20..=23, 3, 0..=4, ..] => Some(true),
        _ => Some(false),
    }
}
