//! The parts of a SIP URI that routing and trunk matching need.

use super::{
    find::find,
    text::{self, Params, same_word, take_while},
};

/// A `sip:` or `sips:` URI taken apart (RFC 3261, section 19.1); escapes are left as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// User and password, `None` where there is no `@`.
    pub user: Option<&'a [u8]>,
    /// The host; an IPv6 address without its brackets.
    pub host: &'a [u8],
    /// The port, `None` where there is none or it is no port.
    pub port: Option<u16>,
    /// Parameters with their leading semicolon, empty where there are none.
    params: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Takes a URI apart; `None` for other schemes and for what is none.
    pub fn parse(uri: &'a [u8]) -> Option<Self> {
        let colon = find(uri, [b':'])?;
        let scheme = &uri[..colon];
        if !same_word(scheme, b"sip") && !same_word(scheme, b"sips") {
            return None;
        }
        let rest = &uri[colon + 1..];
        // A user may contain `;` and `?`, but never `@`.
        let (user, rest) = match find(rest, [b'@']) {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        let (host, rest) = match rest {
            [b'[', inner @ ..] => {
                let (host, rest) = take_while(inner, |b| b != b']');
                (host, rest.get(1..)?)
            }
            _ => rest.split_at(find(rest, *b":;?> \t\r\n").unwrap_or(rest.len())),
        };
        if host.is_empty() {
            return None;
        }
        let (port, rest) = match rest {
            [b':', after @ ..] => take_while(after, |b| b.is_ascii_digit()),
            _ => (&[][..], rest),
        };
        let port = text::number(port).and_then(|port| u16::try_from(port).ok());
        let params = &rest[..find(rest, [b'?']).unwrap_or(rest.len())];
        Some(Self { user, host, port, params })
    }

    /// The value of a parameter, in any case; empty where it has none.
    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        Params::new(self.params).get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_apart_what_the_wire_brings() {
        let uri = Uri::parse(b"SIP:a;x?,/;;*:p@[2001:db8::1]:5070;transport=udp;LR?h=1;lr2").unwrap();
        assert_eq!((uri.user, uri.host, uri.port), (Some(&b"a;x?,/;;*:p"[..]), &b"2001:db8::1"[..], Some(5070)));
        assert_eq!(uri.param(b"lr"), Some(&b""[..]));
        assert_eq!(uri.param(b"Transport"), Some(&b"udp"[..]));
        assert_eq!(uri.param(b"lr2"), None);
        let uri = Uri::parse(b"sips:host:99999").unwrap();
        assert_eq!((uri.user, uri.host, uri.port), (None, &b"host"[..], None));
    }

    #[test]
    fn a_parameter_in_the_user_part_is_none_of_the_uri() {
        assert_eq!(Uri::parse(b"sip:a;lr@host").unwrap().param(b"lr"), None);
    }

    #[test]
    fn other_schemes_and_junk_have_no_host() {
        for bad in [
            &b"tel:+12125551212"[..],
            b"urn:service:sos",
            b"sip:",
            b"sip:a@",
            b"alan@example.com",
            b"",
            b"*",
            b"sip:[::1",
        ] {
            assert_eq!(Uri::parse(bad), None);
        }
    }
}
