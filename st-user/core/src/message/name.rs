//! Names of methods and headers.

use serde::{Deserialize, Serialize};

use super::{
    find::{self, find},
    text::{same_word, trim},
};

macro_rules! methods {
    ($($name:ident = $text:literal,)*) => {
        /// A request method (RFC 3261 and the RFCs that extend it).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum MethodName {
            $($name,)*
            /// Any other token.
            Other,
        }

        impl MethodName {
            /// The method of that name; methods are case-sensitive (RFC 3261, section 7.1).
            pub fn from_bytes(name: &[u8]) -> Self {
                $(if name == $text.as_bytes() { return Self::$name; })*
                Self::Other
            }

            /// The name; `OTHER` for one that is not known here.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other => "OTHER",
                }
            }
        }
    };
}

methods! {
    Invite = "INVITE",
    Ack = "ACK",
    Bye = "BYE",
    Cancel = "CANCEL",
    Update = "UPDATE",
    Prack = "PRACK",
    Info = "INFO",
    Options = "OPTIONS",
    Register = "REGISTER",
    Subscribe = "SUBSCRIBE",
    Notify = "NOTIFY",
    Refer = "REFER",
    Message = "MESSAGE",
    Publish = "PUBLISH",
}

macro_rules! headers {
    ($($name:ident = $text:literal $(| $compact:literal)?,)*) => {
        /// A header that somebody here reads or replays; lines with other names are skipped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum HeaderName { $($name,)* }

        impl HeaderName {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The header of that name or compact name, in any case.
            pub fn from_bytes(name: &[u8]) -> Option<Self> {
                let (known, header) = PLACES[place(name)?]?;
                same_word(name, known).then_some(header)
            }

            /// The same where blanks may stand about the name.
            #[cold]
            pub(super) fn from_padded(name: &[u8]) -> Option<Self> {
                Self::from_bytes(trim(name))
            }

            /// The name of the header line that `rest` begins with and that has so many bytes, and where its colon stands; `None` where
            /// it has no colon, or an unknown name.
            #[inline]
            pub(super) fn of_line(rest: &[u8], length: usize) -> Option<(Self, usize)> {
                // Nearly all names are short, and written as the RFCs do.
                if let Some(sixteen) = rest.first_chunk()
                    && let Some(colon) = find::first_in(sixteen, b':').filter(|colon| (1..length).contains(colon))
                    && let place = spot(colon, sixteen[0], sixteen[colon - 1])
                    && find::begin_alike(sixteen, &SHORT[place], colon + 1)
                    && let Some((_, header)) = PLACES[place]
                {
                    return Some((header, colon));
                }
                Self::of_any_line(&rest[..length])
            }

            /// The same whatever it looks like.
            fn of_any_line(line: &[u8]) -> Option<(Self, usize)> {
                let colon = find(line, [b':'])?;
                let name = &line[..colon];
                Self::from_bytes(name).or_else(|| Self::from_padded(name)).map(|header| (header, colon))
            }

            /// The long name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The compact name, where there is one.
            pub const fn compact(self) -> Option<&'static [u8]> {
                const NONE: Option<&[u8]> = None;
                match self { $(Self::$name => { $(if true { return Some($compact); })? NONE })* }
            }
        }
    };
}

/// Where a name stands in [`PLACES`], by its length, its first and its last letter, in any case.
const fn place(name: &[u8]) -> Option<usize> {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return None };
    Some(spot(name.len(), *first, *last))
}

/// The same where it is not empty.
#[inline]
const fn spot(length: usize, first: u8, last: u8) -> usize {
    // Factors that were tried out: no two of the names come to the same place.
    (4 * length + (first | 0x20) as usize + 11 * (last | 0x20) as usize) % 256
}

/// Those of [`PLACES`] that are short enough, as they are written, with a colon behind.
static SHORT: [[u8; 16]; 256] = {
    let mut short = [[0; 16]; 256];
    let mut at = 0;
    while at < short.len() {
        if let Some((name, _)) = PLACES[at]
            && name.len() < 16
        {
            short[at] = [b':'; 16];
            short[at].split_at_mut(name.len()).0.copy_from_slice(name);
        }
        at += 1;
    }
    short
};

/// All names and compact names.
static PLACES: [Option<(&[u8], HeaderName)>; 256] = {
    let mut places: [Option<(&[u8], HeaderName)>; 256] = [None; 256];
    let mut at = 0;
    while at < HeaderName::ALL.len() {
        let header = HeaderName::ALL[at];
        let names = [Some(header.name().as_bytes()), header.compact()];
        let mut which = 0;
        while which < names.len() {
            if let Some(name) = names[which]
                && let Some(place) = place(name)
            {
                assert!(places[place].is_none(), "two names in one place: try other factors");
                places[place] = Some((name, header));
            }
            which += 1;
        }
        at += 1;
    }
    places
};

headers! {
    Via = "Via" | b"v",
    From = "From" | b"f",
    To = "To" | b"t",
    CallId = "Call-ID" | b"i",
    CSeq = "CSeq",
    Contact = "Contact" | b"m",
    Route = "Route",
    RecordRoute = "Record-Route",
    Supported = "Supported" | b"k",
    Require = "Require",
    ProxyRequire = "Proxy-Require",
    Unsupported = "Unsupported",
    Allow = "Allow",
    SessionExpires = "Session-Expires" | b"x",
    MinSe = "Min-SE",
    RetryAfter = "Retry-After",
    RSeq = "RSeq",
    RAck = "RAck",
    WwwAuthenticate = "WWW-Authenticate",
    ProxyAuthenticate = "Proxy-Authenticate",
    Authorization = "Authorization",
    ProxyAuthorization = "Proxy-Authorization",
    ContentType = "Content-Type" | b"c",
    ContentLength = "Content-Length" | b"l",
    ContentEncoding = "Content-Encoding" | b"e",
    MaxForwards = "Max-Forwards",
    UserAgent = "User-Agent",
    Server = "Server",
    PAssertedIdentity = "P-Asserted-Identity",
    PPreferredIdentity = "P-Preferred-Identity",
    Privacy = "Privacy",
    SessionId = "Session-ID",
    Reason = "Reason",
    Warning = "Warning",
    Event = "Event" | b"o",
    ReferTo = "Refer-To" | b"r",
    ReferredBy = "Referred-By" | b"b",
    AllowEvents = "Allow-Events" | b"u",
    Subject = "Subject" | b"s",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_names_are_found_in_any_case_and_in_compact_form() {
        assert_eq!(HeaderName::from_bytes(b"x"), Some(HeaderName::SessionExpires));
        assert_eq!(HeaderName::from_bytes(b"K"), Some(HeaderName::Supported));
        assert_eq!(HeaderName::from_bytes(b"cseq"), Some(HeaderName::CSeq));
        assert_eq!(HeaderName::from_bytes(b"Cseq"), Some(HeaderName::CSeq));
        assert_eq!(HeaderName::from_bytes(b"C%53eq"), None);
        assert_eq!(HeaderName::from_bytes(b""), None);
        for &name in HeaderName::ALL {
            assert_eq!(HeaderName::from_bytes(name.name().to_ascii_uppercase().as_bytes()), Some(name));
            if let Some(compact) = name.compact() {
                assert_eq!(HeaderName::from_bytes(compact), Some(name));
            }
        }
    }

    #[test]
    fn the_name_of_a_line_is_read_alike_by_the_short_way_and_by_the_long_one() {
        for &name in HeaderName::ALL {
            let long = name.name().as_bytes();
            for written in [Some(long), name.compact(), Some(&long.to_ascii_lowercase())].into_iter().flatten() {
                for behind in [
                    &b":"[..],
                    b": a value that is long enough",
                    b" : a value that is long enough",
                    b"-X: another name",
                ] {
                    let line = [written, behind].concat();
                    let found = HeaderName::of_line(&line, line.len());
                    assert_eq!(found, HeaderName::of_any_line(&line), "{}", String::from_utf8_lossy(&line));
                    assert_eq!(found.map(|(name, _)| name), Some(name).filter(|_| !behind.starts_with(b"-")));
                }
            }
        }
        // What the next line says is none of this one's.
        assert_eq!(HeaderName::of_line(b"v\r\n: 0123456789abcdef", 2), None);
        assert_eq!(HeaderName::of_line(b": 0123456789abcdef", 18), None);
    }

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(MethodName::from_bytes(b"UPDATE"), MethodName::Update);
        assert_eq!(MethodName::from_bytes(b"update"), MethodName::Other);
    }
}
