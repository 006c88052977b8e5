//! HEP version 3, as Homer and other captures of SIP take it: `HEP3`, the length of it all, then chunks of vendor, type, length and
//! value (HEP3 specification, sipcapture.org).

use std::net::{IpAddr, SocketAddr};

use st_core::Time;

/// The generic chunks that are written (section "chunk types"); vendor 0.
mod chunk {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const SOURCE_V4: u16 = 3;
    pub(super) const DESTINATION_V4: u16 = 4;
    pub(super) const SOURCE_V6: u16 = 5;
    pub(super) const DESTINATION_V6: u16 = 6;
    pub(super) const SOURCE_PORT: u16 = 7;
    pub(super) const DESTINATION_PORT: u16 = 8;
    pub(super) const SECONDS: u16 = 9;
    pub(super) const MICROSECONDS: u16 = 10;
    pub(super) const PAYLOAD_TYPE: u16 = 11;
    pub(super) const CAPTURE_ID: u16 = 12;
    pub(super) const PASSWORD: u16 = 14;
    pub(super) const PAYLOAD: u16 = 15;
    pub(super) const CORRELATION_ID: u16 = 17;
}

/// `AF_INET`, `AF_INET6` and `IPPROTO_UDP` as they are on the wire, whatever the system calls them.
const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;
const UDP: u8 = 17;

/// The longest correlation id, in bytes.
const MAX_ID: usize = 512;
/// The longest payload, in bytes: with all else it fits into a datagram over IPv4.
pub(super) const MAX_PAYLOAD: usize = 60_000;

/// What the payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A SIP message.
    Sip = 1,
    /// A JSON object that belongs to a call.
    Json = 100,
}

/// One packet of HEP.
pub(super) struct Report<'a> {
    pub(super) kind: Kind,
    pub(super) time: Time,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) capture_id: u32,
    pub(super) password: Option<&'a str>,
    pub(super) correlation_id: &'a str,
    pub(super) payload: &'a [u8],
}

impl Report<'_> {
    /// As bytes; `None` where it is too long for a datagram.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        if self.payload.len() > MAX_PAYLOAD {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.payload.len() + 256);
        bytes.extend(b"HEP3\0\0");
        let mut add = |kind: u16, value: &[u8]| {
            let length = u16::try_from(value.len() + 6).ok()?;
            bytes.extend(0_u16.to_be_bytes());
            bytes.extend(kind.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend(value);
            Some(())
        };
        let v6 = self.from.is_ipv6() || self.to.is_ipv6();
        add(chunk::FAMILY, &[if v6 { FAMILY_V6 } else { FAMILY_V4 }])?;
        add(chunk::PROTOCOL, &[UDP])?;
        let ends =
            [(self.from, chunk::SOURCE_V4, chunk::SOURCE_V6), (self.to, chunk::DESTINATION_V4, chunk::DESTINATION_V6)];
        for (end, v4_kind, v6_kind) in ends {
            match end.ip() {
                IpAddr::V4(ip) if !v6 => add(v4_kind, &ip.octets())?,
                IpAddr::V4(ip) => add(v6_kind, &ip.to_ipv6_mapped().octets())?,
                IpAddr::V6(ip) => add(v6_kind, &ip.octets())?,
            }
        }
        add(chunk::SOURCE_PORT, &self.from.port().to_be_bytes())?;
        add(chunk::DESTINATION_PORT, &self.to.port().to_be_bytes())?;
        let micros = self.time.as_micros();
        // Seconds have 32 bits there: until 2106.
        add(chunk::SECONDS, &u32::try_from(micros / 1_000_000).unwrap_or(u32::MAX).to_be_bytes())?;
        add(chunk::MICROSECONDS, &((micros % 1_000_000) as u32).to_be_bytes())?;
        add(chunk::PAYLOAD_TYPE, &[self.kind as u8])?;
        add(chunk::CAPTURE_ID, &self.capture_id.to_be_bytes())?;
        if let Some(password) = self.password {
            add(chunk::PASSWORD, password.as_bytes())?;
        }
        let id = self.correlation_id.as_bytes();
        if !id.is_empty() {
            add(chunk::CORRELATION_ID, &id[..id.len().min(MAX_ID)])?;
        }
        add(chunk::PAYLOAD, self.payload)?;
        let length = u16::try_from(bytes.len()).ok()?;
        bytes[4..6].copy_from_slice(&length.to_be_bytes());
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(from: &str, to: &str) -> Report<'static> {
        Report {
            kind: Kind::Sip,
            time: Time::from_micros(1_700_000_000_000_042),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            capture_id: 2001,
            password: Some("pw"),
            correlation_id: "c@h",
            payload: b"BYE",
        }
    }

    #[test]
    fn every_byte_is_where_the_specification_has_it() {
        let expected: &[&[u8]] = &[
            b"HEP3",
            &[0, 124],
            &[0, 0, 0, 1, 0, 7, 2],
            &[0, 0, 0, 2, 0, 7, 17],
            &[0, 0, 0, 3, 0, 10, 192, 0, 2, 1],
            &[0, 0, 0, 4, 0, 10, 198, 51, 100, 2],
            &[0, 0, 0, 7, 0, 8, 0x13, 0xc4],
            &[0, 0, 0, 8, 0, 8, 0x13, 0xc6],
            &[0, 0, 0, 9, 0, 10, 0x65, 0x53, 0xf1, 0x00],
            &[0, 0, 0, 10, 0, 10, 0, 0, 0, 42],
            &[0, 0, 0, 11, 0, 7, 1],
            &[0, 0, 0, 12, 0, 10, 0, 0, 0x07, 0xd1],
            &[0, 0, 0, 14, 0, 8, b'p', b'w'],
            &[0, 0, 0, 17, 0, 9, b'c', b'@', b'h'],
            &[0, 0, 0, 15, 0, 9, b'B', b'Y', b'E'],
        ];
        let bytes = report("192.0.2.1:5060", "198.51.100.2:5062").encode().unwrap();
        let mut expected = expected.concat();
        let length = u16::try_from(expected.len()).unwrap();
        expected[4..6].copy_from_slice(&length.to_be_bytes());
        assert_eq!(bytes, expected);
    }

    #[test]
    fn ipv6_has_its_own_chunks_and_what_is_too_long_is_none() {
        let bytes = report("[2001:db8::1]:5060", "[2001:db8::2]:5060").encode().unwrap();
        assert_eq!(bytes[6..13], [0, 0, 0, 1, 0, 7, 10]);
        assert_eq!(bytes[20..26], [0, 0, 0, 5, 0, 22]);
        assert_eq!(bytes[42..48], [0, 0, 0, 6, 0, 22]);
        let payload = vec![b'x'; MAX_PAYLOAD + 1];
        assert!(Report { payload: &payload, ..report("192.0.2.1:1", "192.0.2.2:2") }.encode().is_none());
        let id = "i".repeat(MAX_ID + 9);
        let long = Report { correlation_id: &id, payload: &payload[1..], ..report("192.0.2.1:1", "192.0.2.2:2") };
        assert!(long.encode().is_some_and(|bytes| bytes.len() < 65_507));
    }
}
