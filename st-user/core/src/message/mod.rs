//! The scanner: what a SIP message says, read in place from bytes that nobody has vouched for.
//!
//! One pass over the start line and the header lines, no copy, and no allocation unless there are more than 24 of them;
//! values are slices of the input, taken apart when they are asked for. It takes what the wire brings: compact names,
//! folding, any case, blanks before the colon, repeated headers and comma lists, bare LF, bytes that are not UTF-8. What a
//! message lacks or garbles reads as `None`; nothing panics.

mod find;
mod headers;
mod lists;
mod name;
mod text;
mod uri;

#[cfg(test)]
mod tests;

pub(crate) use find::find;
pub use headers::{
    Body, CSeq, Challenge, Contact, HeaderFault, Layout, Party, RAck, Role, SessionExpires, Transport, Via, has_lr,
    route_uri,
};
pub use lists::{Elements, Lines, Values};
pub use name::{HeaderName, MethodName};
pub use uri::Uri;

use find::LineEnds;
use text::{is_blank, trim, trim_end, trim_start};

/// The longest message that is read, in bytes: what a UDP datagram can hold.
pub const MAX_MESSAGE: usize = 65_535;

/// How many header lines with names in [`HeaderName`] a message may have. One with more is refused whole: to read just
/// the first of them could misread it.
pub const MAX_LINES: usize = 128;

/// Why bytes are not read as a SIP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Nothing, or nothing but line ends: a keep-alive.
    #[error("no message, only line ends")]
    Empty,
    /// The first line is neither a request line nor a status line, or it is cut short.
    #[error("the first line is no SIP request line or status line")]
    StartLine,
    /// Another version than SIP/2.0.
    #[error("the SIP version is not 2.0")]
    Version,
    /// The status is not a number from 100 to 699.
    #[error("the status is no number from 100 to 699")]
    Status,
    /// Longer than [`MAX_MESSAGE`].
    #[error("longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// More than [`MAX_LINES`] header lines.
    #[error("more than {MAX_LINES} header lines")]
    TooManyLines,
}

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// A request line.
    Request {
        /// The method.
        method: MethodName,
        /// The method as written.
        method_text: &'a [u8],
        /// The Request-URI as written, without outer blanks.
        uri: &'a [u8],
    },
    /// A status line.
    Response {
        /// From 100 to 699.
        status: u16,
        /// The reason phrase, empty where there is none.
        reason: &'a [u8],
    },
}

/// How many header lines a message holds in itself; those of a longer one are on the heap.
const INLINE_LINES: usize = 24;

/// Where the value of one header line lies, without its outer blanks.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    start: u16,
    end: u16,
}

/// In place of the index of a line.
const NO_LINE: u8 = u8::MAX;
const _: () = assert!(MAX_LINES <= NO_LINE as usize);

/// A SIP message, read in place.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    start: Start<'a>,
    lines: [Line; INLINE_LINES],
    /// The lines behind these, [`MAX_LINES`] in all.
    more: Vec<Line>,
    line_count: u8,
    /// The first line of each name, by its place in [`HeaderName::ALL`], [`NO_LINE`] where there is none.
    first: [u8; HeaderName::ALL.len()],
    /// For each line the next of the same name, [`NO_LINE`] where there is none.
    next: [u8; MAX_LINES],
    /// Where the body begins; `None` where the blank line before it is missing.
    body_at: Option<usize>,
    truncated: bool,
}

impl<'a> Message<'a> {
    /// Reads a message. `truncated`: the bytes are only the beginning of it; a header line that the cut may have gone
    /// through is left out.
    pub fn scan(bytes: &'a [u8], truncated: bool) -> Result<Self, ScanError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(ScanError::TooLong);
        }
        let begin = bytes.iter().position(|&b| b != b'\r' && b != b'\n').ok_or(ScanError::Empty)?;
        let mut ends = LineEnds::new(bytes, begin);
        let (first, at) = ends.next();
        if truncated && at == bytes.len() {
            return Err(ScanError::StartLine);
        }
        let mut message = Self {
            bytes,
            start: start_line(trim(&bytes[begin..first]))?,
            lines: [Line::default(); INLINE_LINES],
            more: Vec::new(),
            line_count: 0,
            first: [NO_LINE; HeaderName::ALL.len()],
            next: [NO_LINE; MAX_LINES],
            body_at: None,
            truncated,
        };
        message.read_lines(ends, at)?;
        Ok(message)
    }

    /// Takes in the header lines from `at` on.
    fn read_lines(&mut self, mut ends: LineEnds<'a>, mut at: usize) -> Result<(), ScanError> {
        let bytes = self.bytes;
        while let Some(&byte) = bytes.get(at) {
            let begin = at;
            let mut end;
            (end, at) = ends.next();
            if matches!(byte, b'\r' | b'\n') && trim_start(&bytes[begin..end]).is_empty() {
                self.body_at = (end < at).then_some(at);
                break;
            }
            while is_fold(bytes, at) {
                (end, at) = ends.next();
            }
            if self.truncated && at == bytes.len() {
                break;
            }
            // One without a colon or with an unknown name is skipped.
            if let Some((name, colon)) = HeaderName::of_line(&bytes[begin..], end - begin) {
                self.push(name, begin + colon + 1, end)?;
            }
        }
        Ok(())
    }

    /// Takes in a header line (with its folds) whose value stands there.
    #[inline]
    fn push(&mut self, name: HeaderName, start: usize, end: usize) -> Result<(), ScanError> {
        let (start, end) = trimmed(self.bytes, start, end);
        let at = self.line_count;
        // `scan` has checked that no position is above u16::MAX.
        let line = Line { start: start as u16, end: end as u16 };
        match self.lines.get_mut(usize::from(at)) {
            Some(place) => *place = line,
            None if usize::from(at) < MAX_LINES => self.more.push(line),
            None => return Err(ScanError::TooManyLines),
        }
        self.line_count += 1;
        let mut link = &mut self.first[name as usize];
        while *link != NO_LINE {
            link = &mut self.next[usize::from(*link)];
        }
        *link = at;
        Ok(())
    }

    /// A header line by its index, `None` for [`NO_LINE`].
    fn line(&self, at: u8) -> Option<Line> {
        let at = usize::from(at);
        if at < INLINE_LINES { Some(self.lines[at]) } else { self.more.get(at - INLINE_LINES).copied() }
    }

    /// Where the header ends, and the body begins.
    pub fn body_at(&self) -> Option<usize> {
        self.body_at
    }

    /// The first line.
    pub fn start(&self) -> Start<'a> {
        self.start
    }

    /// The method, where this is a request.
    pub fn request_method(&self) -> Option<MethodName> {
        match self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    /// The Request-URI, where this is a request.
    pub fn request_uri(&self) -> Option<&'a [u8]> {
        match self.start {
            Start::Request { uri, .. } => Some(uri),
            Start::Response { .. } => None,
        }
    }

    /// The status, where this is a response.
    pub fn status(&self) -> Option<u16> {
        match self.start {
            Start::Request { .. } => None,
            Start::Response { status, .. } => Some(status),
        }
    }

    /// Whether all header lines are here. Where they are not, a header that reads as absent may have been cut off.
    pub fn headers_complete(&self) -> bool {
        self.body_at.is_some() || !self.truncated
    }

    /// The values of all header lines of one name, in order, without outer blanks; folds inside are left as they are.
    pub fn lines(&self, name: HeaderName) -> Lines<'a, '_> {
        Lines::new(self, self.first[name as usize])
    }

    /// The elements of all header lines of one name, comma lists taken apart, in order. Not for headers whose grammar has
    /// commas of its own (challenges, dates).
    pub fn values(&self, name: HeaderName) -> Values<'a, '_> {
        Values::new(self.lines(name))
    }

    /// The value of the first header line of that name.
    pub fn first(&self, name: HeaderName) -> Option<&'a [u8]> {
        self.lines(name).next()
    }
}

/// Whether a line can be the first one of a message.
pub(crate) fn is_start_line(line: &[u8]) -> bool {
    start_line(trim(line)).is_ok()
}

/// Where a value begins and ends without its outer blanks.
#[inline]
fn trimmed(bytes: &[u8], start: usize, end: usize) -> (usize, usize) {
    // Nearly all have one blank before them and a carriage return behind.
    match &bytes[start..end] {
        [b' ', first, .., last, b'\r'] if !is_blank(*first) && !is_blank(*last) => (start + 1, end - 1),
        value => {
            let value = trim_start(value);
            let start = end - value.len();
            (start, start + trim_end(value).len())
        }
    }
}

/// Whether a line that begins at `at` continues the one before.
fn is_fold(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at), Some(b' ' | b'\t'))
}

/// Reads the first line, which has no outer blanks.
fn start_line(line: &[u8]) -> Result<Start<'_>, ScanError> {
    let first = find(line, [b' ', b'\t', b'\r', b'\n']).ok_or(ScanError::StartLine)?;
    let (word, rest) = (&line[..first], trim_start(&line[first..]));
    if is_version(word) {
        return status_line(word, rest);
    }
    let method = MethodName::from_bytes(word);
    if method == MethodName::Other && !word.iter().all(|&b| text::is_token(b)) {
        return Err(ScanError::StartLine);
    }
    let uri = match rest.strip_suffix(b" SIP/2.0") {
        Some(uri) => uri,
        None => {
            let last = rest.iter().rposition(|&b| is_blank(b)).ok_or(ScanError::StartLine)?;
            let (uri, version) = (&rest[..last], &rest[last + 1..]);
            if !is_version(version) {
                return Err(ScanError::StartLine);
            }
            check_version(version)?;
            uri
        }
    };
    Ok(Start::Request { method, method_text: word, uri: trim_end(uri) })
}

fn status_line<'a>(version: &[u8], rest: &'a [u8]) -> Result<Start<'a>, ScanError> {
    check_version(version)?;
    let digits = rest.iter().position(|&b| is_blank(b)).unwrap_or(rest.len());
    let status = match rest[..digits] {
        [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return Err(ScanError::Status),
    };
    Ok(Start::Response { status, reason: trim(&rest[digits..]) })
}

fn is_version(word: &[u8]) -> bool {
    word.get(..4).is_some_and(|start| text::same_word(start, b"SIP/"))
}

fn check_version(version: &[u8]) -> Result<(), ScanError> {
    if version[4..] == *b"2.0" { Ok(()) } else { Err(ScanError::Version) }
}
