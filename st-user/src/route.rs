//! By which interface a packet to the peer leaves, by rtnetlink.

use std::{io, net::SocketAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{Netlink, Want};

/// Asks for routes.
pub struct Routes {
    netlink: Netlink,
}

impl Routes {
    /// Opens the socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(NETLINK_ROUTE)? })
    }

    /// Index of the interface by which a UDP packet leaves, as the kernel would choose it; `None` where there is no route.
    pub fn interface(&mut self, server: SocketAddr, peer: SocketAddr) -> io::Result<Option<u32>> {
        let mut ask = RouteMessage::default();
        let (family, prefix) = if peer.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
        ask.header.address_family = family;
        ask.header.destination_prefix_length = prefix;
        ask.header.source_prefix_length = prefix;
        ask.attributes = vec![
            RouteAttribute::Destination(peer.ip().into()),
            RouteAttribute::Source(server.ip().into()),
            RouteAttribute::IpProto(libc::IPPROTO_UDP as u8),
            RouteAttribute::Sport(server.port()),
            RouteAttribute::Dport(peer.port()),
        ];
        let mut out = None;
        let asked = self.netlink.request(RouteNetlinkMessage::GetRoute(ask), Want::One, |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                let index =
                    |attribute: &_| if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None };
                out = route.attributes.iter().find_map(index);
            }
        });
        match asked {
            Ok(()) => Ok(out),
            Err(error) if unreachable(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// EINVAL is what a source address gives that is not this host's.
fn unreachable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn what_goes_to_this_host_itself_leaves_by_the_loopback() {
        let mut routes = Routes::open().unwrap();
        let lo = crate::kernel::list().unwrap().into_iter().find(|one| one.name == "lo").unwrap().index;
        for address in ["127.0.0.1", "::1"] {
            let ip: IpAddr = address.parse().unwrap();
            let found = routes.interface(SocketAddr::new(ip, 5060), SocketAddr::new(ip, 5080)).unwrap();
            assert_eq!(found, Some(lo), "{address}");
        }
    }

    #[test]
    fn a_source_that_is_not_this_hosts_has_no_route() {
        let found = Routes::open()
            .unwrap()
            .interface("192.0.2.99:5060".parse().unwrap(), "127.0.0.1:5080".parse().unwrap())
            .unwrap();
        assert_eq!(found, None);
    }
}
