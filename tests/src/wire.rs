//! A wire between two hosts: a veth pair with addresses of both families, and whole checksums in every packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::Host;

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Family {
    V4,
    V6,
}

/// One end of a wire.
#[derive(Clone, Debug)]
pub struct End {
    /// Name of the interface.
    pub interface: String,
    /// Its IPv4 address, of a /24.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, of a /64.
    pub v6: Ipv6Addr,
}

impl End {
    /// Its address of a family.
    pub fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

/// A veth pair; it goes with its hosts.
pub struct Wire {
    /// The first host's end.
    pub a: End,
    /// The second host's end.
    pub b: End,
}

impl Wire {
    /// Joins two hosts; the first wire of a host is its `eth0`.
    pub fn between(a: &Host, b: &Host) -> Result<Self> {
        let (i, j) = (a.next_wire(), b.next_wire());
        let end = |number: u8, last: u8| End {
            interface: format!("eth{number}"),
            v4: Ipv4Addr::new(10, i, j, last),
            v6: Ipv6Addr::new(0xfd00, i.into(), j.into(), 0, 0, 0, 0, last.into()),
        };
        let wire = Self { a: end(i, 1), b: end(j, 2) };
        let there = b.tid().to_string();
        let (here, far) = (&wire.a.interface, &wire.b.interface);
        a.run("ip", &["link", "add", here, "type", "veth", "peer", "name", far, "netns", &there])?;
        for (host, end) in [(a, &wire.a), (b, &wire.b)] {
            // Else veth leaves checksums partial, and a wrong one would go unseen.
            host.run("ethtool", &["-K", &end.interface, "tx", "off"])?;
            host.run("ip", &["address", "add", &format!("{}/24", end.v4), "dev", &end.interface])?;
            host.run("ip", &["address", "add", &format!("{}/64", end.v6), "dev", &end.interface, "nodad"])?;
            host.run("ip", &["link", "set", &end.interface, "up"])?;
        }
        Ok(wire)
    }
}
