//! What an INVITE's header says of session timers, where user space has it made to say something else: the server's that it
//! supports them, the peer's that it does so instead of demanding them. As in [`crate::scan`], one step at a time.
//!
//! Nothing but what is certain is changed. A list that goes over two lines, two lists, anything that is no list of option tags: each is
//! let be, whatever it means.

use crate::{
    abi::{CAPTURE, assist},
    scan::{Window, all, equal, low, lowest, text},
};

/// What is put before the empty line where the server has no Supported.
pub const LINE: [u8; 18] = *b"Supported: timer\r\n";

/// What is put behind the last option tag where it has one. Two blanks: what is inserted has an even length, so that all that stands
/// behind it keeps its place in the checksum's words.
pub const ITEM: [u8; 8] = *b",  timer";

/// What is put behind the colon where it has one that is empty, as baresip writes it.
pub const ONLY: [u8; 6] = *b" timer";

/// What `Require:` becomes, with as many bytes: `Supported:` in its compact form (RFC 3261, section 20.37).
pub const SUPPORTED: [u8; REQUIRE.len()] = *b"k:      ";

/// What it stands in the place of, in any case.
pub const REQUIRE: [u8; 8] = *b"Require:";

/// Bits of [`Reading::said`].
mod said {
    /// There is such a list.
    pub(super) const LIST: u32 = 1;
    /// It has `timer`.
    pub(super) const TIMER: u32 = 2;
    /// It has something else.
    pub(super) const OTHER: u32 = 4;
    /// There are other headers about session timers.
    pub(super) const TERMS: u32 = 8;
    /// It cannot be told for certain what the list says.
    pub(super) const ODD: u32 = 16;
    /// There is a Via.
    pub(super) const VIA: u32 = 32;
    /// There is another.
    pub(super) const VIAS: u32 = 64;
    /// The header ends in what was read.
    pub(super) const WHOLE: u32 = 128;
}

mod mode {
    /// At the beginning of a line.
    pub(super) const LINE: u32 = 0;
    /// Behind the name of the list.
    pub(super) const COLON: u32 = 1;
    /// In it.
    pub(super) const TAGS: u32 = 2;
    /// Looking for the line's end.
    pub(super) const SKIP: u32 = 3;
    /// The same in a Via, or for a comma.
    pub(super) const VIA: u32 = 4;
}

/// A line that may go on in the next one.
mod before {
    pub(super) const OTHER: u32 = 0;
    pub(super) const LIST: u32 = 1;
    pub(super) const VIA: u32 = 2;
}

/// Which list is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum List {
    /// Supported, in an INVITE of the server's.
    Supported,
    /// Require, in one of the peer's.
    Require,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// [`LINE`] is to be inserted at this offset.
    Line(u32),
    /// [`ITEM`] is.
    Item(u32),
    /// [`ONLY`] is.
    Only(u32),
    /// [`SUPPORTED`] is to be written over what stands there.
    Soften(u32),
}

/// The state of a reading, and what was found.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Reading {
    pos: u32,
    end: u32,
    mode: u32,
    /// Not 0 where Require is looked for.
    require: u32,
    /// What the line before is, one of [`before`].
    before: u32,
    said: u32,
    /// Where the list's name begins.
    name: u32,
    /// One past its last tag; without any, past its colon.
    last: u32,
    /// Where the empty line begins.
    blank: u32,
    /// The tag that is being read.
    tag: u32,
    tag_len: u32,
    /// Whether a tag may begin.
    fresh: u32,
}

impl Reading {
    /// Sets out to read a message of `len` bytes.
    #[inline(always)]
    pub fn begin(&mut self, len: u32, list: List) {
        *self = Self {
            end: if len > CAPTURE as u32 { CAPTURE as u32 } else { len },
            mode: mode::SKIP,
            require: list as u32,
            ..Self::default()
        };
    }

    /// One step; true once there is nothing more to find.
    #[inline(always)]
    pub fn step(&mut self, window: &Window) -> bool {
        if self.pos >= self.end {
            return true;
        }
        let word = window.word(self.pos);
        let byte = word as u8;
        match self.mode {
            mode::SKIP | mode::VIA => {
                let commas = if self.mode == mode::VIA { equal(word, all(b',')) } else { 0 };
                let marks = equal(word, all(b'\n')) | commas;
                if marks == 0 {
                    self.pos += 8;
                    return false;
                }
                let index = lowest(marks);
                self.pos += index + 1;
                if (word >> (8 * index)) as u8 == b',' {
                    self.said |= said::VIAS;
                } else {
                    self.mode = mode::LINE;
                }
            }
            mode::LINE => {
                return self.line(word, window.byte(self.pos.wrapping_add(8)), window.byte(self.pos.wrapping_add(9)));
            }
            mode::COLON => {
                if byte == b':' {
                    self.pos += 1;
                    self.last = self.pos;
                    self.mode = mode::TAGS;
                    self.fresh = 1;
                } else if (byte == b' ' || byte == b'\t') && self.require == 0 {
                    self.pos += 1;
                } else {
                    self.odd();
                }
            }
            _ => self.tags(byte, window),
        }
        false
    }

    /// Nothing more of this line is read.
    #[inline(always)]
    fn odd(&mut self) {
        self.said |= said::ODD;
        self.mode = mode::SKIP;
    }

    /// In the list.
    #[inline(always)]
    fn tags(&mut self, byte: u8, window: &Window) {
        if is_token(byte) {
            if self.tag_len == 0 {
                if self.fresh == 0 {
                    return self.odd();
                }
                self.fresh = 0;
                self.tag = self.pos;
            }
            self.tag_len += 1;
            self.pos += 1;
            self.last = self.pos;
            return;
        }
        if self.tag_len > 0 {
            let is_timer = self.tag_len == 5 && (window.word(self.tag) | all(0x20)) & low(5) == text(b"timer");
            self.said |= if is_timer { said::TIMER } else { said::OTHER };
            self.tag_len = 0;
        }
        match byte {
            b' ' | b'\t' | b'\r' => self.pos += 1,
            // An empty place in the list.
            b',' if self.fresh != 0 => self.odd(),
            // The same behind the last comma.
            b'\n' if self.fresh != 0 && self.said & (said::TIMER | said::OTHER) != 0 => self.odd(),
            b',' => {
                self.pos += 1;
                self.fresh = 1;
            }
            b'\n' => {
                self.pos += 1;
                self.mode = mode::LINE;
            }
            _ => self.odd(),
        }
    }

    /// At the beginning of a line, the bytes behind whose first eight are given too.
    #[inline(always)]
    fn line(&mut self, word: u64, ninth: u8, tenth: u8) -> bool {
        let byte = word as u8;
        if byte == b' ' || byte == b'\t' {
            if self.before == before::LIST {
                self.said |= said::ODD;
            }
            self.mode = if self.before == before::VIA { mode::VIA } else { mode::SKIP };
            return false;
        }
        self.before = before::OTHER;
        if byte == b'\r' || byte == b'\n' {
            if word as u16 == u16::from_le_bytes(*b"\r\n") {
                self.said |= said::WHOLE;
                self.blank = self.pos;
            }
            return true;
        }
        let name = word | all(0x20);
        let ends = |byte: u8| matches!(byte, b':' | b' ' | b'\t');
        let nth = |index: u32| (word >> (8 * index)) as u8;
        self.mode = mode::SKIP;
        if self.require != 0 {
            if name & low(7) == text(b"require") && ends(nth(7)) {
                self.listed(7);
            }
        } else if name == text(b"supporte") && ninth | 0x20 == b'd' && ends(tenth) {
            self.listed(9);
        } else if name as u8 == b'k' && ends(nth(1)) {
            self.listed(1);
        } else if name as u8 == b'x' && ends(nth(1))
            || name == text(b"session-") && ninth | 0x20 == b'e'
            || name & low(6) == text(b"min-se") && ends(nth(6))
        {
            self.said |= said::TERMS;
        } else if name as u8 == b'v' && ends(nth(1)) || name & low(3) == text(b"via") && ends(nth(3)) {
            if self.said & said::VIA != 0 {
                self.said |= said::VIAS;
            }
            self.said |= said::VIA;
            self.before = before::VIA;
            self.mode = mode::VIA;
        }
        false
    }

    /// At the list's name, of that length.
    #[inline(always)]
    fn listed(&mut self, length: u32) {
        if self.said & said::LIST != 0 {
            return self.odd();
        }
        self.said |= said::LIST;
        self.before = before::LIST;
        self.name = self.pos;
        self.pos += length;
        self.mode = mode::COLON;
    }

    /// What is to be done with an INVITE of the server's, or one of [`assist`] for why it is let be.
    #[inline(always)]
    pub fn offer(&self) -> Result<Edit, u8> {
        if self.said & said::VIAS != 0 {
            Err(assist::RELAYED)
        } else if self.said & (said::TIMER | said::TERMS) != 0 {
            Err(assist::OWN)
        } else if self.said & said::ODD != 0 || self.said & said::WHOLE == 0 {
            Err(assist::UNCLEAR)
        } else if self.said & said::OTHER != 0 {
            Ok(Edit::Item(self.last))
        } else if self.said & said::LIST != 0 {
            Ok(Edit::Only(self.last))
        } else {
            Ok(Edit::Line(self.blank))
        }
    }

    /// The same with one of the peer's; `None` where it demands nothing.
    #[inline(always)]
    pub fn soften(&self) -> Option<Result<Edit, u8>> {
        if self.said & said::LIST == 0 {
            None
        } else if self.said & said::ODD != 0 || self.said & said::WHOLE == 0 {
            Some(Err(assist::UNCLEAR))
        } else if self.said & said::TIMER == 0 {
            None
        } else if self.said & said::OTHER != 0 {
            Some(Err(assist::OTHERS))
        } else {
            Some(Ok(Edit::Soften(self.name)))
        }
    }
}

/// Whether a byte may stand in an option tag (RFC 3261, section 25.1: token).
#[inline(always)]
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

/// What a text adds to a checksum when it is inserted at an offset: its 16-bit words as they stand in memory. It has an even
/// length.
pub const fn sum(text: &[u8], at: u32) -> u32 {
    let mut sum = 0;
    let mut index = 0;
    while index + 1 < text.len() {
        let pair = if at & 1 == 0 { [text[index], text[index + 1]] } else { [text[index + 1], text[index]] };
        sum += u16::from_ne_bytes(pair) as u32;
        index += 2;
    }
    sum
}

#[cfg(test)]
mod tests;
