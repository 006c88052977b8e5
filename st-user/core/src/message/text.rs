//! Pieces of the grammar that all headers share: blanks, numbers, quoted strings, parameters.

use memchr::{memchr, memchr2, memchr3};

/// Blanks, line ends of folds included.
pub(crate) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// What a token is made of (RFC 3261, section 25.1); `%` is among it.
pub(crate) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

/// Without the outer blanks.
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}

/// The leading run of bytes that satisfy `keep`, and the rest.
pub(crate) fn take_while(bytes: &[u8], keep: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|&b| !keep(b)).unwrap_or(bytes.len()))
}

/// Without the leading blanks.
pub(crate) fn trim_start(bytes: &[u8]) -> &[u8] {
    take_while(bytes, is_blank).1
}

/// A number of decimal digits and nothing else; `None` also where it does not fit.
pub(crate) fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |sum, &b| {
        b.is_ascii_digit().then_some(())?;
        sum.checked_mul(10)?.checked_add(u32::from(b - b'0'))
    })
}

/// Whether every quoted string is closed; where one is not, quotes are taken as ordinary bytes.
pub(crate) fn quotes_close(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(special) = memchr2(b'"', b'<', &bytes[at..]).map(|found| at + found) {
        let Some(behind) = behind(bytes, special) else { return bytes[special] == b'<' };
        at = behind;
    }
    true
}

/// Where `wanted` first stands outside quoted strings and angle brackets. `quotes`: what [`quotes_close`] said.
pub(crate) fn find_outside(bytes: &[u8], wanted: u8, quotes: bool) -> Option<usize> {
    let mut at = 0;
    while let Some(special) = memchr3(wanted, b'"', b'<', &bytes[at..]).map(|found| at + found) {
        at = match bytes[special] {
            found if found == wanted => return Some(special),
            b'"' if !quotes => special + 1,
            _ => behind(bytes, special)?,
        };
    }
    None
}

/// What comes behind the quoted string or the angle brackets that open at `at`; `None` where they are not closed.
fn behind(bytes: &[u8], at: usize) -> Option<usize> {
    let mut inside = at + 1;
    if bytes[at] == b'<' {
        return memchr(b'>', &bytes[inside..]).map(|length| inside + length + 1);
    }
    loop {
        let special = inside + memchr2(b'"', b'\\', bytes.get(inside..)?)?;
        match bytes[special] {
            b'"' => return Some(special + 1),
            // What is escaped closes nothing.
            _ => inside = special + 2,
        }
    }
}

/// The parameters of a header value or URI.
#[derive(Clone, Debug)]
pub(crate) struct Params<'a> {
    rest: Option<&'a [u8]>,
    quotes: bool,
}

impl<'a> Params<'a> {
    /// From the bytes that begin with the first semicolon; what stands before it is skipped.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let quotes = quotes_close(bytes);
        let rest = find_outside(bytes, b';', quotes).map(|at| &bytes[at + 1..]);
        Self { rest, quotes }
    }

    /// The value of the first parameter of that name, in any case; empty where it has none.
    pub(crate) fn get(mut self, name: &[u8]) -> Option<&'a [u8]> {
        self.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        let param = match find_outside(rest, b';', self.quotes) {
            Some(at) => {
                self.rest = Some(&rest[at + 1..]);
                &rest[..at]
            }
            None => {
                self.rest = None;
                rest
            }
        };
        let (name, value) = take_while(param, |b| b != b'=');
        Some((trim(name), trim(value.get(1..).unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_do_not_fit_are_none() {
        assert_eq!(number(b"0004294967295"), Some(u32::MAX));
        for bad in [&b"4294967296"[..], b"", b"-1", b"+1", b"1 ", b"99999999999999999999999"] {
            assert_eq!(number(bad), None);
        }
    }

    #[test]
    fn parameters_survive_quotes_blanks_and_missing_values() {
        let found: Vec<_> = Params::new(b"x; a = \"1;b=2\" ;lr;\r\n c=3").collect();
        assert_eq!(found, [(&b"a"[..], &b"\"1;b=2\""[..]), (b"lr", b""), (b"c", b"3")]);
        assert_eq!(Params::new(b";a=\"1;tag=2").get(b"TAG"), Some(&b"2"[..]), "an unclosed quote is an ordinary byte");
    }
}
