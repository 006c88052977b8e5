//! Iterators over header lines and over the elements of comma lists.

use super::{Line, text};

/// The values of all header lines of one name. See [`super::Message::lines`].
#[derive(Clone, Debug)]
pub struct Lines<'a, 'm> {
    bytes: &'a [u8],
    lines: &'m [Line],
    next: u8,
}

impl<'a, 'm> Lines<'a, 'm> {
    pub(super) fn new(bytes: &'a [u8], lines: &'m [Line], first: u8) -> Self {
        Self { bytes, lines, next: first }
    }

    /// The next value with what stands between it and the colon.
    pub(super) fn next_raw(&mut self) -> Option<&'a [u8]> {
        // `NO_LINE` is the index of no line.
        let line = self.lines.get(usize::from(self.next))?;
        self.next = line.next;
        self.bytes.get(usize::from(line.start)..usize::from(line.end))
    }
}

impl<'a> Iterator for Lines<'a, '_> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        self.next_raw().map(text::trim)
    }
}

/// The elements of one comma list, without outer blanks. Commas in quoted strings and in angle brackets do not part
/// elements; empty elements are skipped.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    quotes: bool,
}

impl<'a> Elements<'a> {
    /// Takes a header value apart.
    pub fn new(value: &'a [u8]) -> Self {
        Self { rest: value, quotes: text::quotes_close(value) }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let (element, rest) = match text::find_outside(self.rest, b',', self.quotes) {
                Some(at) => (&self.rest[..at], &self.rest[at + 1..]),
                None => (self.rest, &self.rest[self.rest.len()..]),
            };
            self.rest = rest;
            let element = text::trim(element);
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    }
}

/// The elements of all header lines of one name. See [`super::Message::values`].
#[derive(Clone, Debug)]
pub struct Values<'a, 'm> {
    lines: Lines<'a, 'm>,
    current: Elements<'a>,
}

impl<'a, 'm> Values<'a, 'm> {
    pub(super) fn new(lines: Lines<'a, 'm>) -> Self {
        Self { lines, current: Elements::new(&[]) }
    }
}

impl<'a> Iterator for Values<'a, '_> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(element) = self.current.next() {
                return Some(element);
            }
            self.current = Elements::new(self.lines.next()?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_and_brackets_do_not_part_elements() {
        let value = b"\"a, \\\"b\" <sip:x,y@h;lr> ;p=1 ,, <sip:z>\r\n ,";
        let found: Vec<_> = Elements::new(value).collect();
        assert_eq!(found, [&b"\"a, \\\"b\" <sip:x,y@h;lr> ;p=1"[..], b"<sip:z>"]);
    }

    #[test]
    fn an_unclosed_quote_or_bracket_swallows_no_more_than_its_line() {
        assert_eq!(Elements::new(b"\"a <sip:x>, <sip:y>").count(), 2);
        assert_eq!(Elements::new(b"<sip:x, <sip:y").count(), 1);
    }
}
