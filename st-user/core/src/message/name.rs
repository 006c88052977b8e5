//! Names of methods and headers.

use serde::{Deserialize, Serialize};

use super::text::{same_word, trim};

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
            #[inline(always)]
            pub fn from_bytes(name: &[u8]) -> Option<Self> {
                let (known, header) = PLACES[place(name)?]?;
                same_word(name, known).then_some(header)
            }

            /// The same where blanks may stand about the name.
            #[cold]
            pub(super) fn from_padded(name: &[u8]) -> Option<Self> {
                Self::from_bytes(trim(name))
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
    // Factors that were tried out: no two of the names come to the same place.
    Some((4 * name.len() + (*first | 0x20) as usize + 11 * (*last | 0x20) as usize) % 256)
}

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
    fn methods_are_case_sensitive() {
        assert_eq!(MethodName::from_bytes(b"UPDATE"), MethodName::Update);
        assert_eq!(MethodName::from_bytes(b"update"), MethodName::Other);
    }
}
