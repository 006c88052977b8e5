//! Whose packets they are: is the socket that sent them still there, and under the same address?
//!
//! By sock_diag, which needs no capability. A dialog belongs to the socket that made it: once that is closed, the server
//! has forgotten the call.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_UDP, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use st_core::Refusal;

use crate::netlink::{Netlink, Want};

/// How old what is known of sockets may be.
const MAX_AGE: Duration = Duration::from_secs(1);

/// How many sockets are kept of one asking. On a host with more, the rest count as gone.
const MAX_SOCKETS: usize = 1 << 20;

/// For all ports at once.
const EVERY_PORT: u16 = 0;

/// The UDP sockets of this namespace.
pub struct Owners {
    netlink: Netlink,
    /// By cookie: where each is bound.
    sockets: HashMap<u64, SocketAddr>,
    /// The ports that were asked for.
    asked: HashSet<u16>,
    /// When the first of them was.
    since: Instant,
}

impl Owners {
    /// Lists the sockets once, so that a kernel that cannot is found out at the start.
    pub fn open() -> io::Result<Self> {
        let netlink = Netlink::open(NETLINK_SOCK_DIAG)?;
        let mut owners = Self { netlink, sockets: HashMap::new(), asked: HashSet::new(), since: Instant::now() };
        owners.ask(EVERY_PORT)?;
        Ok(owners)
    }

    /// Whether packets from `server`, sent by the socket with this cookie (0 for none), are a living local socket's own.
    pub fn check(&mut self, cookie: u64, server: SocketAddr) -> Result<(), Refusal> {
        if cookie == 0 {
            return Err(Refusal::Translated);
        }
        if self.since.elapsed() > MAX_AGE {
            self.forget();
        }
        let bound = self.find(cookie, server.port()).map_err(|error| {
            tracing::warn!(%error, "the sockets of this host cannot be listed");
            Refusal::Send
        })?;
        let bound = bound.ok_or(Refusal::ServerGone)?;
        let own_address = bound.ip().is_unspecified() || bound.ip() == server.ip();
        if own_address && bound.port() == server.port() { Ok(()) } else { Err(Refusal::Translated) }
    }

    /// Where the socket is bound. First among those of the port: that is one answer of the kernel's, while a list of all,
    /// which takes several, can miss a socket when others are closed meanwhile.
    fn find(&mut self, cookie: u64, port: u16) -> io::Result<Option<SocketAddr>> {
        for port in [port, EVERY_PORT] {
            if !self.asked.contains(&port) {
                self.ask(port)?;
            }
            if let Some(bound) = self.sockets.get(&cookie) {
                return Ok(Some(*bound));
            }
        }
        Ok(None)
    }

    fn forget(&mut self) {
        self.sockets.clear();
        self.asked.clear();
        self.since = Instant::now();
    }

    fn ask(&mut self, port: u16) -> io::Result<()> {
        for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let request = SockDiagMessage::InetRequest(InetRequest {
                family,
                protocol: IPPROTO_UDP,
                extensions: ExtensionFlags::empty(),
                states: StateFlags::all(),
                socket_id: SocketId { source_port: port, ..any },
            });
            self.netlink.request(request, Want::Dump, |answer| {
                if let SockDiagMessage::InetResponse(found) = answer
                    && self.sockets.len() < MAX_SOCKETS
                {
                    let SocketId { source_address, source_port, cookie, .. } = found.header.socket_id;
                    let bound = SocketAddr::new(source_address.to_canonical(), source_port);
                    self.sockets.insert(u64::from_ne_bytes(cookie), bound);
                }
            })?;
        }
        self.asked.insert(port);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use rustix::net::sockopt;

    use super::*;

    fn cookie(socket: &UdpSocket) -> u64 {
        sockopt::socket_cookie(socket).unwrap()
    }

    #[test]
    fn an_open_socket_is_alive_and_a_closed_one_is_gone() {
        for any in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let socket = UdpSocket::bind(any).unwrap();
            let bound = socket.local_addr().unwrap();
            let cookie = cookie(&socket);
            let mut owners = Owners::open().unwrap();
            assert_eq!(owners.check(cookie, bound), Ok(()), "{any}");
            drop(socket);
            owners.forget();
            assert_eq!(owners.check(cookie, bound), Err(Refusal::ServerGone), "{any}");
        }
    }

    #[test]
    fn one_port_can_be_asked_for() {
        let (socket, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut owners = Owners::open().unwrap();
        owners.forget();
        owners.ask(socket.local_addr().unwrap().port()).unwrap();
        assert!(owners.sockets.contains_key(&cookie(&socket)) && !owners.sockets.contains_key(&cookie(&other)));
    }

    #[test]
    fn a_connected_socket_is_alive() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        assert_eq!(Owners::open().unwrap().check(cookie(&socket), socket.local_addr().unwrap()), Ok(()));
    }

    #[test]
    fn a_socket_for_both_families_sends_ipv4_under_its_own_address() {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let server = SocketAddr::new([192, 0, 2, 1].into(), port);
        assert_eq!(Owners::open().unwrap().check(cookie(&socket), server), Ok(()));
    }

    #[test]
    fn packets_under_another_address_or_port_are_translated() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let bound = socket.local_addr().unwrap();
        let mut owners = Owners::open().unwrap();
        let other_port = SocketAddr::new(bound.ip(), bound.port() ^ 1);
        let other_address = SocketAddr::new([192, 0, 2, 1].into(), bound.port());
        assert_eq!(owners.check(cookie(&socket), other_port), Err(Refusal::Translated));
        assert_eq!(owners.check(cookie(&socket), other_address), Err(Refusal::Translated));
        assert_eq!(owners.check(0, bound), Err(Refusal::Translated));
    }
}
