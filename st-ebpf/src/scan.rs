//! The kernel's view of a SIP message: the few places in its header that decide whether it is sampled, taken or shifted.
//!
//! One step looks for the next byte that matters, eight bytes at once, a few times, and reads on from there while one thing follows
//! the other: a line's beginning, the colon, a parameter. The kernel programs repeat it by `bpf_loop`, tests by a plain loop. All offsets are masked into the window, so that
//! neither the verifier nor Rust needs to know what a hostile message says.

use crate::abi::{BRANCH_LEN, BRANCH_PREFIX, CAPTURE, PEER_BRANCH_PREFIX};

/// The bytes of a message, with room to read eight of them at any offset below [`CAPTURE`].
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Window {
    /// The message, then zeros for at least eight bytes.
    pub bytes: [u8; CAPTURE + 16],
}

impl Window {
    /// Eight bytes, little-endian; `offset` is taken modulo [`CAPTURE`].
    #[inline(always)]
    pub fn word(&self, offset: u32) -> u64 {
        let at = offset as usize & (CAPTURE - 1);
        match self.bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => u64::from_le_bytes(bytes),
            None => 0,
        }
    }

    /// One byte; `offset` is taken modulo [`CAPTURE`].
    #[inline(always)]
    pub fn byte(&self, offset: u32) -> u8 {
        self.bytes[offset as usize & (CAPTURE - 1)]
    }
}

/// Methods as the kernel tells them apart.
#[allow(missing_docs)]
pub mod method {
    pub const OTHER: u32 = 0;
    pub const INVITE: u32 = 1;
    pub const ACK: u32 = 2;
    pub const BYE: u32 = 3;
    pub const CANCEL: u32 = 4;
    pub const UPDATE: u32 = 5;
    pub const PRACK: u32 = 6;
    pub const INFO: u32 = 7;
    pub const OPTIONS: u32 = 8;
    pub const REGISTER: u32 = 9;
    pub const SUBSCRIBE: u32 = 10;
    pub const MESSAGE: u32 = 11;
    pub const PUBLISH: u32 = 12;
    pub const NOTIFY: u32 = 13;
}

pub(crate) const fn text(bytes: &[u8]) -> u64 {
    let mut word = 0;
    let mut at = bytes.len();
    while at > 0 {
        at -= 1;
        word = word << 8 | bytes[at] as u64;
    }
    word
}

pub(crate) const fn low(bytes: u32) -> u64 {
    (1 << (8 * bytes)) - 1
}

/// The method that `word` and the byte after it, `ninth`, begin with; the method must end with a blank or a line's end.
#[inline(always)]
fn method_of(word: u64, ninth: u8) -> u32 {
    let ends = |length: u32| (word >> (8 * length)) as u8 <= b' ';
    let is = |name: u64, length: u32| word & low(length) == name && ends(length);
    // By its first letter, so that few are compared.
    match word as u8 {
        b'I' if is(text(b"INVITE"), 6) => method::INVITE,
        b'I' if is(text(b"INFO"), 4) => method::INFO,
        b'A' if is(text(b"ACK"), 3) => method::ACK,
        b'B' if is(text(b"BYE"), 3) => method::BYE,
        b'C' if is(text(b"CANCEL"), 6) => method::CANCEL,
        b'U' if is(text(b"UPDATE"), 6) => method::UPDATE,
        b'P' if is(text(b"PRACK"), 5) => method::PRACK,
        b'P' if is(text(b"PUBLISH"), 7) => method::PUBLISH,
        b'O' if is(text(b"OPTIONS"), 7) => method::OPTIONS,
        b'R' if word == text(b"REGISTER") && ninth <= b' ' => method::REGISTER,
        b'S' if word == text(b"SUBSCRIB") && ninth == b'E' => method::SUBSCRIBE,
        b'M' if is(text(b"MESSAGE"), 7) => method::MESSAGE,
        b'N' if is(text(b"NOTIFY"), 6) => method::NOTIFY,
        _ => method::OTHER,
    }
}

/// Whether a response is one of the refusals that may be held back: the server cannot do what it was asked, which says nothing
/// of the dialog.
#[inline(always)]
pub fn is_refusal(window: &Window) -> bool {
    let status = window.word(8) & low(4);
    status == text(b"405 ")
        || status == text(b"420 ")
        || status == text(b"488 ")
        || status == text(b"500 ")
        || status == text(b"501 ")
        || status == text(b"503 ")
}

/// Whether a response is a 500, which a Retry-After makes into something that passes by itself.
#[inline(always)]
pub fn is_500(window: &Window) -> bool {
    window.word(8) & low(4) == text(b"500 ")
}

/// What a datagram on a SIP port begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A request; its method.
    Request(u32),
    /// A response.
    Response,
    /// A keep-alive: line ends, a NUL, STUN.
    KeepAlive,
    /// Something else.
    NotSip,
}

/// Whether something begins as SIP does: with `SIP/2.0 `, or a method of RFC 3261 and those after it, and a blank. By its first nine
/// bytes.
#[inline(always)]
pub fn begins_as_sip(word: u64, ninth: u8) -> bool {
    let blank = |length: u32| (word >> (8 * length)) as u8 == b' ';
    match method_of(word, ninth) {
        method::OTHER => word == text(b"SIP/2.0 ") || word & low(5) == text(b"REFER") && blank(5),
        method::ACK | method::BYE => blank(3),
        method::INFO => blank(4),
        method::PRACK => blank(5),
        method::INVITE | method::CANCEL | method::UPDATE | method::NOTIFY => blank(6),
        method::OPTIONS | method::MESSAGE | method::PUBLISH => blank(7),
        method::REGISTER => ninth == b' ',
        // The blank is the tenth.
        _ => true,
    }
}

/// Tells requests, responses and the rest apart by their first bytes.
#[inline(always)]
pub fn start(window: &Window) -> Start {
    let word = window.word(0);
    let first = word as u8;
    if word == text(b"SIP/2.0 ") {
        Start::Response
    } else if first.is_ascii_uppercase() {
        Start::Request(method_of(word, window.byte(8)))
    } else if first == b'\r' || first == b'\n' || first < 4 {
        Start::KeepAlive
    } else if first.is_ascii_alphanumeric() || first == b'-' || first == b'_' {
        // Methods are tokens: rare, but legal.
        Start::Request(method::OTHER)
    } else {
        Start::NotSip
    }
}

/// How many steps the end of a message's first line is looked for.
pub const LINE_STEPS: u32 = 128;

/// The first line of what may be a message: in a stream a segment may begin with anything that is a part of one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FirstLine {
    at: u32,
    /// Where its LF is, 0 until that was found.
    end: u32,
}

impl FirstLine {
    /// One step; true once the line's end was found.
    #[inline(always)]
    pub fn step(&mut self, window: &Window) -> bool {
        let marks = equal(window.word(self.at), all(b'\n'));
        if marks == 0 {
            self.at += 8;
            return false;
        }
        self.end = self.at + lowest(marks);
        true
    }

    /// Whether it is that of a request (RFC 3261, section 7.1), which no header line and hardly any line of a body is.
    #[inline(always)]
    pub fn is_requests(&self, window: &Window) -> bool {
        let end = self.end.wrapping_sub((window.byte(self.end.wrapping_sub(1)) == b'\r') as u32);
        self.end > 16 && window.word(end.wrapping_sub(8)) == text(b" SIP/2.0")
    }
}

/// A stretch of the window; empty where nothing was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Span {
    /// Where it begins.
    pub at: u32,
    /// Its length in bytes.
    pub len: u32,
}

/// Bits of [`Scan::want`] and [`Scan::found`].
#[allow(missing_docs)]
pub mod part {
    pub const VIA: u32 = 1;
    pub const FROM: u32 = 2;
    pub const TO: u32 = 4;
    pub const CALL_ID: u32 = 8;
    pub const CSEQ: u32 = 16;
    /// The number of the INVITE in RAck (RFC 3262, section 7.2).
    pub const RACK: u32 = 32;
    /// The `id` of an Event that is `refer`: the number of the REFER (RFC 3515, section 2.4.6).
    pub const EVENT: u32 = 64;
    /// That there is a Retry-After.
    pub const RETRY_AFTER: u32 = 128;
    /// The empty line: no header is this, so who wants it has the whole header gone through ([`super::Scan::saw_end`]).
    pub const END: u32 = 256;
}

mod mode {
    /// At the beginning of a line.
    pub(super) const LINE: u32 = 0;
    /// Behind a header's name, before the colon.
    pub(super) const COLON: u32 = 1;
    /// Before the value of Call-ID.
    pub(super) const CALL_ID: u32 = 2;
    /// Before the number of CSeq, in it, and behind it.
    pub(super) const CSEQ: u32 = 3;
    pub(super) const CSEQ_NUMBER: u32 = 4;
    pub(super) const CSEQ_METHOD: u32 = 5;
    /// Behind a `;`: at a parameter's name, at its `=`, before its value.
    pub(super) const PARAMETER: u32 = 6;
    pub(super) const EQUALS: u32 = 7;
    pub(super) const VALUE: u32 = 8;
    /// Before the first number of RAck, in it, and before the second.
    pub(super) const RACK: u32 = 9;
    pub(super) const RACK_FIRST: u32 = 10;
    pub(super) const RACK_SECOND: u32 = 11;
    /// Before the name of an event package.
    pub(super) const EVENT: u32 = 12;
    /// From here on: looking for the next byte that matters.
    pub(super) const SEEK: u32 = 16;
    pub(super) const SKIP: u32 = 16;
    pub(super) const PARTY: u32 = 17;
    pub(super) const QUOTED: u32 = 18;
    pub(super) const ANGLE: u32 = 19;
    pub(super) const VIA: u32 = 20;
    pub(super) const TOKEN: u32 = 21;
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Marks the bytes of `word` that equal those of `pattern`; marks above the lowest may be wrong.
#[inline(always)]
pub(crate) const fn equal(word: u64, pattern: u64) -> u64 {
    let diff = word ^ pattern;
    diff.wrapping_sub(ONES) & !diff & HIGHS
}

/// Marks the bytes of `word` below `limit` (at most 128); marks above the lowest may be wrong.
#[inline(always)]
const fn below(word: u64, limit: u64) -> u64 {
    word.wrapping_sub(ONES * limit) & !word & HIGHS
}

/// The index of the lowest mark.
#[inline(always)]
pub(crate) const fn lowest(marks: u64) -> u32 {
    let bit = marks & marks.wrapping_neg();
    ((bit.wrapping_sub(1) & ONES).wrapping_mul(ONES) >> 56) as u32 - 1
}

pub(crate) const fn all(byte: u8) -> u64 {
    ONES * byte as u64
}

/// How many steps a scan may take; a header that needs more is not SIP that anyone speaks.
pub const MAX_STEPS: u32 = 2 * CAPTURE as u32;

/// The state of a scan, and what it has found.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Scan {
    pos: u32,
    end: u32,
    mode: u32,
    /// The header being read, one of [`part`].
    header: u32,
    /// The mode in which a folded line goes on, 0 for none.
    resume: u32,
    /// Where the token being read begins.
    token: u32,
    stops: [u64; 3],
    /// What is looked for; the scan ends once all of it is found.
    pub want: u32,
    /// What was found.
    pub found: u32,
    /// Call-ID.
    pub call_id: Span,
    /// The tag in From.
    pub from_tag: Span,
    /// The tag in To.
    pub to_tag: Span,
    /// The branch of the topmost Via.
    pub branch: Span,
    /// The digits of CSeq.
    pub cseq: Span,
    /// Blanks (SP) directly before them that can be spent on further digits.
    pub cseq_spaces: u32,
    /// CSeq's number; meaningless with more than ten digits.
    pub number: u64,
    /// The digits of another header that quotes a CSeq number: RAck or Event.
    pub quoted: Span,
    /// Blanks (SP) before them that can be spent on further digits.
    pub quoted_spaces: u32,
    /// Its number; meaningless with more than ten digits.
    pub quoted_number: u64,
    /// CSeq's method, one of [`method`].
    pub method: u32,
}

impl Scan {
    /// Sets out to find `want` in a message of `len` bytes.
    #[inline(always)]
    pub fn begin(&mut self, len: u32, want: u32) {
        self.end = if len > CAPTURE as u32 { CAPTURE as u32 } else { len };
        self.want = want;
        self.found = 0;
        self.pos = 0;
        self.resume = 0;
        self.call_id = Span { at: 0, len: 0 };
        self.from_tag = Span { at: 0, len: 0 };
        self.to_tag = Span { at: 0, len: 0 };
        self.branch = Span { at: 0, len: 0 };
        self.cseq = Span { at: 0, len: 0 };
        self.quoted = Span { at: 0, len: 0 };
        self.method = method::OTHER;
        self.seek(mode::SKIP, b'\n', b'\n', b'\n');
    }

    /// Whether the scan has come to the empty line behind the header. Only where [`part::END`] was wanted.
    #[inline(always)]
    pub fn saw_end(&self, window: &Window) -> bool {
        let byte = window.byte(self.pos);
        self.mode == mode::LINE && self.pos < self.end && (byte == b'\r' || byte == b'\n')
    }

    #[inline(always)]
    fn seek(&mut self, mode: u32, a: u8, b: u8, c: u8) {
        self.mode = mode;
        self.stops = [all(a), all(b), all(c)];
    }

    #[inline(always)]
    fn skip_line(&mut self) {
        self.resume = 0;
        self.seek(mode::SKIP, b'\n', b'\n', b'\n');
    }

    #[inline(always)]
    fn seek_party(&mut self) {
        self.seek(mode::PARTY, b'"', b'<', b';');
    }

    #[inline(always)]
    fn seek_angle(&mut self) {
        self.seek(mode::ANGLE, b'>', b'\n', b'\n');
    }

    #[inline(always)]
    fn seek_via(&mut self) {
        self.seek(mode::VIA, b';', b',', b'\n');
    }

    /// The header is read, whatever came of it: only its first occurrence counts.
    #[inline(always)]
    fn done(&mut self) {
        self.want &= !self.header;
        self.skip_line();
    }

    #[inline(always)]
    fn next_parameter(&mut self) {
        if self.header == part::VIA { self.seek_via() } else { self.seek_party() }
    }

    /// At a line's end inside a value: a folded line goes on in `mode`.
    #[inline(always)]
    fn fold(&mut self, mode: u32) {
        self.resume = mode;
        self.mode = mode::LINE;
    }

    /// Marks the bytes of `word` that [`Scan::seek`] asked for, and line ends.
    #[inline(always)]
    fn marks(&self, word: u64) -> u64 {
        equal(word, self.stops[0])
            | equal(word, self.stops[1])
            | equal(word, self.stops[2])
            | if self.mode == mode::TOKEN { below(word, 0x21) } else { equal(word, all(b'\n')) }
    }

    /// One step; true once there is nothing more to find.
    #[inline(always)]
    pub fn step(&mut self, window: &Window) -> bool {
        let Some(mut word) = self.here(window) else { return true };
        if self.mode >= mode::SEEK {
            let Some(byte) = self.find(window, word) else { return false };
            if self.pos >= self.end {
                return true;
            }
            self.stop(window, byte);
            if self.mode >= mode::SEEK {
                return self.want == 0;
            }
            let Some(here) = self.here(window) else { return true };
            word = here;
        }
        if self.mode == mode::LINE {
            if self.line(word) {
                return true;
            }
            if self.mode >= mode::SEEK {
                return false;
            }
            let Some(here) = self.here(window) else { return true };
            word = here;
        }
        if self.mode == mode::COLON {
            self.colon(word);
            if self.mode >= mode::SEEK || self.mode == mode::COLON {
                return false;
            }
            let Some(here) = self.here(window) else { return true };
            word = here;
        }
        if self.mode >= mode::PARAMETER && self.mode <= mode::VALUE {
            self.parameter(window, word)
        } else {
            self.value(window, word)
        }
    }

    /// Eight bytes from here on; `None` at the message's end, or where nothing more is wanted.
    #[inline(always)]
    fn here(&self, window: &Window) -> Option<u64> {
        if self.pos >= self.end || self.want == 0 { None } else { Some(window.word(self.pos)) }
    }

    /// Goes on to the next byte that matters, which may stand behind the end. `None`: it is not among the next few words, the first of
    /// which is `word`: four, or eight where only the line's end matters, which costs a quarter. A step is a call, which costs as much as
    /// several of them. Behind the window's end it begins anew.
    #[inline(always)]
    fn find(&mut self, window: &Window, mut word: u64) -> Option<u8> {
        let mut pos = self.pos;
        // Once, and once more for each word given until there is a mark. Written out, for as a loop its end may stand before its head,
        // and Linux 6.1 takes none that is fallen into ("back-edge").
        macro_rules! first {
            ($marks:expr, $($again:ident)*) => {{
                let mut marks = $marks;
                $(
                    let $again = marks == 0;
                    if $again {
                        pos += 8;
                        word = window.word(pos);
                        marks = $marks;
                    }
                )*
                marks
            }};
        }
        let marks = if self.mode == mode::SKIP {
            first!(equal(word, all(b'\n')), second third fourth fifth sixth seventh eighth)
        } else {
            first!(self.marks(word), second third fourth)
        };
        if marks == 0 {
            self.pos = pos + 8;
            return None;
        }
        let index = lowest(marks);
        self.pos = pos + index;
        Some((word >> (8 * index)) as u8)
    }

    /// Behind a header's name.
    #[inline(always)]
    fn colon(&mut self, word: u64) {
        let byte = word as u8;
        if byte == b' ' || byte == b'\t' {
            self.pos += 1;
            return;
        }
        if byte != b':' {
            return self.skip_line();
        }
        let blank = (word >> 8) as u8 == b' ';
        self.pos += 1 + blank as u32;
        match self.header {
            part::VIA => self.seek_via(),
            part::CALL_ID => self.mode = mode::CALL_ID,
            part::CSEQ => {
                self.mode = mode::CSEQ;
                self.cseq_spaces = blank as u32;
            }
            part::RACK => self.mode = mode::RACK,
            part::EVENT => self.mode = mode::EVENT,
            // `: <`, as most write it.
            _ if blank && (word >> 16) as u8 == b'<' => {
                self.pos += 1;
                self.seek_angle();
            }
            _ => self.seek_party(),
        }
    }

    /// At a parameter's name, at its `=`, or before its value: most have no blank between them.
    #[inline(always)]
    fn parameter(&mut self, window: &Window, mut word: u64) -> bool {
        if self.blank(word as u8) {
            return false;
        }
        if self.mode == mode::PARAMETER {
            let name = word | all(0x20);
            let length = if self.header == part::VIA && name & low(6) == text(b"branch") {
                6
            } else if self.header == part::EVENT && name & low(2) == text(b"id") {
                2
            } else if self.header & (part::FROM | part::TO) != 0 && name & low(3) == text(b"tag") {
                3
            } else {
                self.next_parameter();
                return false;
            };
            self.pos += length;
            self.mode = mode::EQUALS;
            let Some(here) = self.here(window) else { return true };
            word = here;
            if self.blank(word as u8) {
                return false;
            }
        }
        if self.mode == mode::EQUALS {
            if word as u8 != b'=' {
                // A longer name, or a parameter without a value.
                self.next_parameter();
                return false;
            }
            self.pos += 1;
            self.mode = mode::VALUE;
            let Some(here) = self.here(window) else { return true };
            if self.blank(here as u8) {
                return false;
            }
        }
        if self.header == part::EVENT {
            self.quoted_begins();
        } else {
            self.token = self.pos;
            self.seek(mode::TOKEN, b';', b',', b'>');
        }
        false
    }

    /// Passes over a blank in or around a parameter, or a fold; false where there is none.
    #[inline(always)]
    fn blank(&mut self, byte: u8) -> bool {
        if byte > b' ' {
            return false;
        }
        self.pos += 1;
        if byte == b'\n' {
            self.fold(self.mode);
        }
        true
    }

    /// In the value of Call-ID, CSeq, RAck or Event.
    #[inline(always)]
    fn value(&mut self, window: &Window, word: u64) -> bool {
        let byte = word as u8;
        match self.mode {
            mode::CALL_ID => {
                if byte == b'\n' {
                    self.pos += 1;
                    self.fold(mode::CALL_ID);
                } else if byte <= b' ' {
                    self.pos += 1;
                } else {
                    self.token = self.pos;
                    self.seek(mode::TOKEN, b'\n', b'\n', b'\n');
                }
            }
            mode::CSEQ => {
                if byte == b' ' {
                    self.pos += 1;
                    self.cseq_spaces = self.cseq_spaces.wrapping_add(1);
                } else if byte == b'\n' {
                    self.pos += 1;
                    // The blank that makes the fold is not room for a digit.
                    self.cseq_spaces = u32::MAX;
                    self.fold(mode::CSEQ);
                } else if byte.is_ascii_digit() {
                    self.token = self.pos;
                    self.number = 0;
                    self.mode = mode::CSEQ_NUMBER;
                    return self.digits(word);
                } else if byte < b' ' {
                    // A tab or a fold between blanks and number: neither is room for digits.
                    self.pos += 1;
                    self.cseq_spaces = 0;
                } else {
                    self.done();
                }
            }
            mode::CSEQ_NUMBER => return self.digits(word),
            mode::RACK | mode::RACK_FIRST | mode::RACK_SECOND => self.rack(byte),
            mode::EVENT => {
                let package = word | all(0x20);
                let after = (word >> 40) as u8;
                if byte == b' ' || byte == b'\t' {
                    self.pos += 1;
                } else if package & low(5) == text(b"refer") && (after == b';' || after <= b' ') {
                    self.pos += 5;
                    self.seek_party();
                } else {
                    self.done();
                }
            }
            mode::CSEQ_METHOD => {
                if byte == b'\n' {
                    self.pos += 1;
                    self.fold(mode::CSEQ_METHOD);
                } else if byte <= b' ' {
                    self.pos += 1;
                } else {
                    self.method = method_of(word, window.byte(self.pos.wrapping_add(8)));
                    if self.cseq.len <= 10 {
                        self.found |= part::CSEQ;
                    }
                    self.done();
                }
            }
            _ => return true,
        }
        self.want == 0
    }

    /// Takes in the digits of a number, of those that `word` begins with.
    #[inline(always)]
    fn digits(&mut self, mut word: u64) -> bool {
        let cseq = self.header == part::CSEQ;
        let mut number = if cseq { self.number } else { self.quoted_number };
        let mut digits = 0;
        while digits < 8 && (word as u8).is_ascii_digit() {
            number = number.wrapping_mul(10).wrapping_add((word as u8 - b'0') as u64);
            word >>= 8;
            digits += 1;
        }
        if cseq {
            self.number = number;
        } else {
            self.quoted_number = number;
        }
        self.pos += digits;
        if digits == 8 {
            return false;
        }
        if self.pos >= self.end {
            return true;
        }
        self.number_ends(word as u8);
        self.want == 0
    }

    /// Behind the last digit of a number.
    #[inline(always)]
    fn number_ends(&mut self, byte: u8) {
        let span = Span { at: self.token, len: self.pos - self.token };
        if self.header == part::CSEQ {
            self.cseq = span;
            self.mode = mode::CSEQ_METHOD;
        } else {
            self.quoted = span;
            if span.len > 0 && span.len <= 10 && (byte <= b' ' || byte == b';') {
                self.found |= self.header;
            }
            self.done();
        }
    }

    /// At what should be the first digit of a quoted number.
    #[inline(always)]
    fn quoted_begins(&mut self) {
        self.token = self.pos;
        self.quoted_number = 0;
        self.mode = mode::CSEQ_NUMBER;
    }

    /// In RAck: the number of the response, then that of the INVITE.
    #[inline(always)]
    fn rack(&mut self, byte: u8) {
        let digit = byte.is_ascii_digit();
        if byte <= b' ' {
            if self.mode == mode::RACK_FIRST {
                self.mode = mode::RACK_SECOND;
                // One blank must stay between the two.
                self.quoted_spaces = u32::MAX;
            }
            self.pos += 1;
            if byte == b' ' {
                self.quoted_spaces = self.quoted_spaces.wrapping_add(1);
            } else if byte == b'\n' {
                // Nor is the blank that makes the fold room for a digit.
                self.quoted_spaces = u32::MAX;
                self.fold(self.mode);
            } else {
                self.quoted_spaces = 0;
            }
        } else if digit && self.mode == mode::RACK_SECOND {
            self.quoted_begins();
        } else if digit {
            self.mode = mode::RACK_FIRST;
            self.pos += 1;
        } else {
            self.done();
        }
    }

    /// At the beginning of a line.
    #[inline(always)]
    fn line(&mut self, word: u64) -> bool {
        let byte = word as u8;
        if byte == b' ' || byte == b'\t' {
            match self.resume {
                0 => self.skip_line(),
                mode::PARTY => self.seek_party(),
                mode::VIA => self.seek_via(),
                mode::QUOTED => self.seek(mode::QUOTED, b'"', b'\\', b'\n'),
                mode::ANGLE => self.seek_angle(),
                mode => self.mode = mode,
            }
            self.resume = 0;
            return false;
        }
        if self.resume != 0 {
            // The header ended without it.
            self.want &= !self.header;
            self.resume = 0;
            if self.want == 0 {
                return true;
            }
        }
        if byte == b'\r' || byte == b'\n' {
            return true;
        }
        let name = word | all(0x20);
        let ends = |length: u32| matches!((word >> (8 * length)) as u8, b':' | b' ' | b'\t');
        let is = |text: u64, length: u32| name & low(length) == text && ends(length);
        // By its first letter, so that few are compared.
        let (header, length) = match name as u8 {
            b'v' if ends(1) => (part::VIA, 1),
            b'v' if is(text(b"via"), 3) => (part::VIA, 3),
            b'f' if ends(1) => (part::FROM, 1),
            b'f' if is(text(b"from"), 4) => (part::FROM, 4),
            b't' if ends(1) => (part::TO, 1),
            b't' if is(text(b"to"), 2) => (part::TO, 2),
            b'i' if ends(1) => (part::CALL_ID, 1),
            b'c' if is(text(b"call-id"), 7) => (part::CALL_ID, 7),
            b'c' if is(text(b"cseq"), 4) => (part::CSEQ, 4),
            b'o' if ends(1) => (part::EVENT, 1),
            b'e' if is(text(b"event"), 5) => (part::EVENT, 5),
            b'r' if is(text(b"rack"), 4) => (part::RACK, 4),
            b'r' if name == text(b"retry-af") => (part::RETRY_AFTER, 8),
            _ => (0, 0),
        };
        if header & self.want == 0 {
            self.skip_line();
        } else if header == part::RETRY_AFTER {
            self.found |= header;
            self.want &= !header;
            self.skip_line();
        } else {
            self.header = header;
            self.pos += length;
            self.mode = mode::COLON;
        }
        false
    }

    /// Goes past a line's end that stands here, which saves a step; false where none does.
    #[inline(always)]
    fn passes_line_end(&mut self, window: &Window) -> bool {
        let ends = window.word(self.pos) & low(2) == text(b"\r\n") && self.pos + 1 < self.end;
        if ends {
            self.pos += 2;
        }
        ends
    }

    /// At a byte that [`Scan::seek`] asked for.
    #[inline(always)]
    fn stop(&mut self, window: &Window, byte: u8) {
        match self.mode {
            mode::SKIP => {
                self.pos += 1;
                self.mode = mode::LINE;
            }
            mode::PARTY => {
                self.pos += 1;
                match byte {
                    b'"' => self.seek(mode::QUOTED, b'"', b'\\', b'\n'),
                    b'<' => self.seek_angle(),
                    b';' => self.mode = mode::PARAMETER,
                    _ => self.fold(mode::PARTY),
                }
            }
            mode::QUOTED => match byte {
                b'"' => {
                    self.pos += 1;
                    self.seek_party();
                }
                b'\\' => self.pos += 2,
                _ => {
                    self.pos += 1;
                    self.fold(mode::QUOTED);
                }
            },
            mode::ANGLE => {
                self.pos += 1;
                if byte != b'>' {
                    self.fold(mode::ANGLE);
                } else if window.byte(self.pos) == b';' && self.pos < self.end {
                    self.pos += 1;
                    self.mode = mode::PARAMETER;
                } else if self.passes_line_end(window) {
                    self.fold(mode::PARTY);
                } else {
                    self.seek_party();
                }
            }
            mode::VIA => {
                self.pos += 1;
                match byte {
                    b';' => self.mode = mode::PARAMETER,
                    b',' => self.done(),
                    _ => self.fold(mode::VIA),
                }
            }
            _ => {
                let span = Span { at: self.token, len: self.pos - self.token };
                match self.header {
                    part::VIA => self.branch = span,
                    part::FROM => self.from_tag = span,
                    part::TO => self.to_tag = span,
                    _ => self.call_id = span,
                }
                if span.len > 0 {
                    self.found |= self.header;
                }
                self.done();
                if self.passes_line_end(window) {
                    self.mode = mode::LINE;
                }
            }
        }
    }
}

/// Whether the branch at `span` begins as those of sipst's own requests in the server's name do ([`BRANCH_PREFIX`]).
#[inline(always)]
pub fn has_our_prefix(window: &Window, span: Span) -> bool {
    const TAIL: u64 = text(BRANCH_PREFIX.last_chunk::<4>().unwrap().as_slice());
    begins(window, span, TAIL)
}

/// The same of those in the peer's name ([`PEER_BRANCH_PREFIX`]).
#[inline(always)]
pub fn has_peer_prefix(window: &Window, span: Span) -> bool {
    const TAIL: u64 = text(PEER_BRANCH_PREFIX.last_chunk::<4>().unwrap().as_slice());
    begins(window, span, TAIL)
}

/// Whether a branch begins with what both prefixes begin with, and then `tail`.
#[inline(always)]
fn begins(window: &Window, span: Span, tail: u64) -> bool {
    const HEAD: u64 = text(BRANCH_PREFIX.first_chunk::<8>().unwrap().as_slice());
    const { assert!(HEAD == text(PEER_BRANCH_PREFIX.first_chunk::<8>().unwrap().as_slice())) };
    span.len >= BRANCH_PREFIX.len() as u32 && window.word(span.at) == HEAD && window.word(span.at + 8) & low(4) == tail
}

/// The token in the branch at `span`, if it is that of one of sipst's own requests in the server's name.
#[inline(always)]
pub fn our_token(window: &Window, span: Span) -> Option<u64> {
    if has_our_prefix(window, span) { token(window, span) } else { None }
}

/// The same in the peer's name.
#[inline(always)]
pub fn peer_token(window: &Window, span: Span) -> Option<u64> {
    if has_peer_prefix(window, span) { token(window, span) } else { None }
}

/// The token behind the prefix of a branch.
#[inline(always)]
pub fn token(window: &Window, span: Span) -> Option<u64> {
    if span.len != BRANCH_LEN as u32 {
        return None;
    }
    let digits = span.at + BRANCH_PREFIX.len() as u32;
    let high = hexadecimal(window.word(digits))?;
    Some(high << 32 | hexadecimal(window.word(digits + 8))?)
}

/// Eight lower-case hexadecimal digits, the first one the most significant; all at once, since every branch costs the
/// verifier a path.
#[inline(always)]
fn hexadecimal(word: u64) -> Option<u64> {
    let digits = (word & all(0x0f)).wrapping_add((word >> 6 & ONES).wrapping_mul(9));
    let letters = digits.wrapping_add(all(6)) >> 4 & ONES;
    let written = digits.wrapping_add(all(b'0')).wrapping_add(letters.wrapping_mul((b'a' - b'0' - 10) as u64));
    if digits & all(0xf0) != 0 || written != word {
        return None;
    }
    let pairs = (digits << 4 | digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs << 8 | pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some((fours << 16 | fours >> 32) & 0xffff_ffff)
}

#[cfg(test)]
mod tests;
