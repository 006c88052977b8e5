//! Pieces of the grammar that all headers share: blanks, numbers, quoted strings, parameters.

use super::find::find;

/// Blanks, line ends of folds included.
#[inline]
pub(crate) const fn is_blank(byte: u8) -> bool {
    // One comparison for most bytes.
    byte <= b' ' && matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// What a token is made of (RFC 3261, section 25.1); `%` is among it.
pub(crate) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

/// Without the outer blanks.
#[inline]
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes))
}

/// Without the leading blanks.
#[inline]
pub(crate) fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    bytes
}

/// Without the trailing blanks.
#[inline]
pub(crate) fn trim_end(mut bytes: &[u8]) -> &[u8] {
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

/// A number of decimal digits and nothing else; `None` also where it does not fit.
pub(crate) fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    let mut sum = 0_u32;
    for &b in digits {
        let digit = Some(b.wrapping_sub(b'0')).filter(|digit| *digit < 10)?;
        sum = sum.checked_mul(10)?.checked_add(digit.into())?;
    }
    Some(sum)
}

/// Whether two words are the same in any case. Most stacks write as the RFCs do, so that is tried first.
#[inline]
pub(crate) fn same_word(found: &[u8], known: &[u8]) -> bool {
    found.len() == known.len() && (is_same(found, known) || same_letters(found, known))
}

/// Not inlined, so that [`same_word`] is.
#[cold]
fn same_letters(found: &[u8], known: &[u8]) -> bool {
    found.eq_ignore_ascii_case(known)
}

/// Whether two words of one length are the same; for short ones it takes no call.
#[inline(always)]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    #[inline]
    fn ends<const N: usize>(one: &[u8], other: &[u8]) -> Option<bool> {
        Some(one.first_chunk::<N>()? == other.first_chunk()? && one.last_chunk::<N>()? == other.last_chunk()?)
    }
    if one.len() > 16 {
        return one == other;
    }
    ends::<8>(one, other)
        .or_else(|| ends::<4>(one, other))
        .or_else(|| ends::<2>(one, other))
        .unwrap_or_else(|| one.first() == other.first())
}

/// Whether there are quoted strings, each of them closed; where one is not, all quotes are ordinary bytes.
pub(crate) fn has_quotes(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(quote) = find(&bytes[at..], [b'"']).map(|found| at + found) {
        let opens = find(&bytes[at..quote], [b'<']).map_or(quote, |found| at + found);
        let Some(behind) = behind(bytes, opens) else { return bytes[opens] == b'<' };
        at = behind;
    }
    at > 0
}

/// Where `wanted` first stands outside quoted strings and angle brackets. `quotes`: what [`has_quotes`] said.
pub(crate) fn find_outside(bytes: &[u8], wanted: u8, quotes: bool) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let found = if quotes { find(rest, [wanted, b'"', b'<']) } else { find(rest, [wanted, b'<']) };
        let special = at + found?;
        if bytes[special] == wanted {
            return Some(special);
        }
        at = behind(bytes, special)?;
    }
}

/// Where the first angle bracket opens outside quoted strings.
pub(crate) fn find_bracket(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&b'<') {
        return Some(0);
    }
    let first = find(bytes, [b'<', b'"'])?;
    if bytes[first] == b'<' {
        return Some(first);
    }
    // A display name in quotes mostly, and no quotes behind it.
    if let Some(closed) = behind(bytes, first) {
        let open = closed + find(&bytes[closed..], [b'<', b'"'])?;
        if bytes[open] == b'<' && find(&bytes[open..], [b'"']).is_none() {
            return Some(open);
        }
    }
    find_outside(bytes, b'<', has_quotes(bytes))
}

/// What comes behind the quoted string or the angle brackets that open at `at`; `None` where they are not closed.
fn behind(bytes: &[u8], at: usize) -> Option<usize> {
    let mut inside = at + 1;
    if bytes[at] == b'<' {
        return find(&bytes[inside..], [b'>']).map(|length| inside + length + 1);
    }
    loop {
        let special = inside + find(bytes.get(inside..)?, [b'"', b'\\'])?;
        match bytes[special] {
            b'"' => return Some(special + 1),
            // What is escaped closes nothing.
            _ => inside = special + 2,
        }
    }
}

/// The parameters of a header value or URI, without the semicolons between.
#[derive(Clone, Debug)]
pub(crate) struct Params<'a> {
    rest: Option<&'a [u8]>,
    /// What [`has_quotes`] said; `None` before the first quote or bracket.
    quotes: Option<bool>,
}

impl<'a> Params<'a> {
    /// From the bytes that begin with the first semicolon; what stands before it is skipped.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut params = Self { rest: Some(bytes), quotes: None };
        match bytes {
            [] => params.rest = None,
            [b';', rest @ ..] => params.rest = Some(rest),
            _ => _ = params.next(),
        }
        params
    }

    /// The value of the first parameter of that name, in any case; empty where it has none.
    #[inline]
    pub(crate) fn get(mut self, name: &[u8]) -> Option<&'a [u8]> {
        // Mostly it is the first one, and written as the RFCs do.
        if let Some([b'=', value @ ..]) = self.rest?.strip_prefix(name) {
            match find(value, [b';', b'"', b'<']) {
                None => return Some(trim(value)),
                Some(end) if value[end] == b';' => return Some(trim(&value[..end])),
                Some(_) => {}
            }
        }
        self.find_map(|param| value_of(param, name))
    }
}

/// The value of a parameter, empty where it has none; `None` where it has another name. `name` has neither blanks nor `=`.
#[inline(always)]
pub(crate) fn value_of<'a>(param: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = trim_start(param).split_at_checked(name.len())?;
    let rest = trim_start(rest);
    match rest {
        [b'=', value @ ..] if same_word(found, name) => Some(trim(value)),
        [] if same_word(found, name) => Some(rest),
        _ => None,
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        let end = match find(rest, [b';', b'"', b'<']) {
            Some(special) if rest[special] != b';' => {
                // There was none before.
                let quotes = *self.quotes.get_or_insert_with(|| has_quotes(rest));
                find_outside(rest, b';', quotes)
            }
            end => end,
        };
        let (param, behind) = rest.split_at(end.unwrap_or(rest.len()));
        self.rest = behind.get(1..);
        Some(param)
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
    fn a_bracket_is_found_by_the_short_way_where_it_is_by_the_long_one() {
        const BYTES: &[u8] = b"<>\"\\a";
        for length in 0..8_u32 {
            for which in 0..BYTES.len().pow(length) {
                let text: Vec<u8> = (0..length).map(|at| BYTES[which / BYTES.len().pow(at) % BYTES.len()]).collect();
                let expected = find_outside(&text, b'<', has_quotes(&text));
                assert_eq!(find_bracket(&text), expected, "{}", String::from_utf8_lossy(&text));
            }
        }
        for (text, at) in [
            ("sip:a@b", None),
            ("<sip:a>", Some(0)),
            ("A <sip:a>", Some(2)),
            ("\"A <b>\" <sip:a>;x=\"<\"", Some(8)),
            ("\"A \\\" <\" <sip:a>", Some(9)),
            ("\"A <sip:a>", Some(3)),
        ] {
            assert_eq!(find_bracket(text.as_bytes()), at, "{text}");
        }
    }

    #[test]
    fn words_of_any_length_are_compared_whole_and_in_any_case() {
        for length in 1..=40 {
            let word: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
            assert!(same_word(&word, &word) && same_word(&word.to_ascii_uppercase(), &word));
            for at in 0..length {
                let mut other = word.clone();
                other[at] = b'-';
                assert!(!same_word(&other, &word), "{length}, {at}");
            }
        }
    }

    #[test]
    fn parameters_survive_quotes_blanks_and_missing_values() {
        let params = Params::new(b"x; a = \"1;b=2\" ;lr;\r\n c=3");
        let wanted =
            [("A", Some("\"1;b=2\"")), ("b", None), ("l", None), ("lr", Some("")), ("rl", None), ("c", Some("3"))];
        for (name, value) in wanted {
            assert_eq!(params.clone().get(name.as_bytes()), value.map(str::as_bytes), "{name}");
        }
        assert_eq!(Params::new(b";a=\"1;tag=2").get(b"TAG"), Some(&b"2"[..]), "an unclosed quote is an ordinary byte");
    }
}
