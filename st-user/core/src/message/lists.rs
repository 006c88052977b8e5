//! Iterators over header lines and over the elements of comma lists.

use super::{Message, find::find, text};

/// The values of all header lines of one name. See [`super::Message::lines`].
#[derive(Clone, Debug)]
pub struct Lines<'a, 'm> {
    message: &'m Message<'a>,
    next: u8,
}

impl<'a, 'm> Lines<'a, 'm> {
    pub(super) fn new(message: &'m Message<'a>, first: u8) -> Self {
        Self { message, next: first }
    }
}

impl<'a> Iterator for Lines<'a, '_> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let line = self.message.line(self.next)?;
        self.next = self.message.next[usize::from(self.next)];
        self.message.bytes.get(usize::from(line.start)..usize::from(line.end))
    }
}

/// The elements of one comma list, without outer blanks. Commas in quoted strings and in angle brackets do not part
/// elements; empty elements are skipped.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    commas: Commas,
}

/// What the commas of a value do.
#[derive(Clone, Copy, Debug)]
enum Commas {
    /// There are none.
    None,
    /// Each parts two elements: there are neither quotes nor brackets.
    Plain,
    /// Some may stand in angle brackets or, where `quotes`, in quoted strings.
    Nested {
        /// What [`text::has_quotes`] said.
        quotes: bool,
    },
}

impl<'a> Elements<'a> {
    /// Takes a header value apart.
    pub fn new(value: &'a [u8]) -> Self {
        let commas = if find(value, [b',']).is_none() {
            Commas::None
        } else if find(value, [b'"', b'<']).is_none() {
            Commas::Plain
        } else {
            Commas::Nested { quotes: text::has_quotes(value) }
        };
        Self { rest: value, commas }
    }

    /// What stands before the next comma.
    fn take(&mut self) -> &'a [u8] {
        let comma = match self.commas {
            Commas::None => None,
            // Elements of such lists are short.
            Commas::Plain => find(self.rest, [b',']),
            Commas::Nested { quotes } => text::find_outside(self.rest, b',', quotes),
        };
        let (element, rest) = match comma {
            Some(at) => (&self.rest[..at], &self.rest[at + 1..]),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        text::trim(element)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let element = self.take();
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
        Self { lines, current: Elements { rest: &[], commas: Commas::None } }
    }
}

impl<'a> Iterator for Values<'a, '_> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(element) = self.current.next() {
                return Some(element);
            }
            self.current = Elements::new(self.lines.next()?);
        }
    }
}

/// Whether a comma list has `word` as an element. `same`: whether two words are, in whatever case.
#[inline]
pub(super) fn has(list: &[u8], word: &[u8], same: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    let Some(first) = word.first() else { return false };
    let wanted = [first.to_ascii_lowercase(), first.to_ascii_uppercase(), b'"', b'<'];
    let mut at = 0;
    while let Some(begin) = find(&list[at..], wanted).map(|found| at + found) {
        let (before, rest) = list.split_at(begin);
        if matches!(rest[0], b'"' | b'<') {
            // From here on commas need not part elements.
            return Elements::new(list).any(|found| same(found, word));
        }
        if let Some((found, behind)) = rest.split_at_checked(word.len())
            && same(found, word)
            && matches!(text::trim(before).last(), None | Some(b','))
            && matches!(text::trim_start(behind).first(), None | Some(b','))
        {
            return true;
        }
        at = begin + 1;
    }
    false
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
    fn a_list_has_what_stands_between_commas() {
        for (list, has_it) in [
            ("timer", true),
            ("xtimer, timer2, 100rel ,TIMER\r\n ", true),
            (",,timer ,", true),
            ("<timer>, \"timer\" , timer", true),
            ("xtimer, timer2, a timer, timer a, timer\"\"", false),
            ("\", timer, \"", false),
            ("time", false),
            ("", false),
        ] {
            assert_eq!(has(list.as_bytes(), b"timer", text::same_word), has_it, "{list}");
        }
        assert!(!has(b",", b"", text::same_word) && !has(b"update", b"UPDATE", |found, word| found == word));
    }

    #[test]
    fn an_unclosed_quote_or_bracket_swallows_no_more_than_its_line() {
        assert_eq!(Elements::new(b"\"a <sip:x>, <sip:y>").count(), 2);
        assert_eq!(Elements::new(b"<sip:x, <sip:y").count(), 1);
    }
}
