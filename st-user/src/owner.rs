//! Whose packets they are: is the socket that sent them still there, under the same address, and does anybody read it?
//!
//! By sock_diag, which needs no capability. A dialog belongs to the socket that made it: once that is closed, the server
//! has forgotten the call. A server that stands still lets datagrams lie in its socket and sends none.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    time::Duration,
};

use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SockDiagMessage, TCP_ESTABLISHED,
    inet::{ExtensionFlags, InetRequest, InetResponse, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use st_core::Refusal;

use crate::{
    clock::monotonic_ns,
    netlink::{Netlink, Want},
};

/// How old what is known of sockets may be.
const MAX_AGE: Duration = Duration::from_secs(1);

/// How many sockets are kept of one asking. On a host with more, the rest count as gone.
const MAX_SOCKETS: usize = 1 << 20;

/// A look at a receive queue that is older says nothing about it now.
const LOOK_AGE: Duration = Duration::from_secs(60);

/// For all ports at once.
const EVERY_PORT: u16 = 0;

/// One socket, as it was listed.
#[derive(Clone, Copy, Debug)]
struct Listed {
    /// Where it is bound.
    bound: SocketAddr,
    /// What waits in it to be read, in bytes of the kernel's memory.
    queued: u32,
}

/// A receive queue that was not empty at the last look.
///
/// One look tells nothing: a server under load has a queue too. But that one's shrinks from one look to another, or the server
/// sends something between them.
#[derive(Clone, Copy, Debug)]
struct Queue {
    /// When it was looked at, in nanoseconds of `CLOCK_MONOTONIC`.
    at_ns: u64,
    /// What was in it.
    queued: u32,
    /// Whether its socket has sent anything since.
    spoke: bool,
    /// What the look told: nobody is known to read it.
    unread: bool,
}

impl Queue {
    /// A look, after the one before if there was one.
    fn look(before: Option<Self>, at_ns: u64, queued: u32) -> Self {
        let before = before.filter(|before| before.is_fresh(at_ns));
        let read = queued == 0 || before.is_some_and(|before| before.spoke || queued < before.queued);
        Self { at_ns, queued, spoke: false, unread: !read }
    }

    fn is_fresh(&self, now_ns: u64) -> bool {
        since(self.at_ns, now_ns) < LOOK_AGE
    }
}

/// The UDP sockets of this namespace.
pub struct Owners {
    netlink: Netlink,
    /// By cookie.
    sockets: HashMap<u64, Listed>,
    /// By cookie: those of servers whose queue was looked at less than [`LOOK_AGE`] ago, empty ones left out.
    queues: HashMap<u64, Queue>,
    /// The ports that were asked for.
    asked: HashSet<u16>,
    /// When the first of them was, in nanoseconds of `CLOCK_MONOTONIC`.
    listed_ns: u64,
}

impl Owners {
    /// Lists the sockets once, so that a kernel that cannot is found out at the start.
    pub fn open() -> io::Result<Self> {
        let netlink = Netlink::open(NETLINK_SOCK_DIAG)?;
        let (sockets, queues, asked) = (HashMap::new(), HashMap::new(), HashSet::new());
        let mut owners = Self { netlink, sockets, queues, asked, listed_ns: monotonic_ns() };
        owners.ask(EVERY_PORT)?;
        Ok(owners)
    }

    /// Whether packets from `server`, sent by the socket with this cookie (0 for none), are a living local socket's own.
    ///
    /// [`Refusal::ServerHangs`] is a doubt at first, and certain once it was the answer several times, more than a second
    /// apart. A server that stands still and that nobody sends anything has an empty queue: it is not found out.
    pub fn check(&mut self, cookie: u64, server: SocketAddr) -> Result<(), Refusal> {
        if cookie == 0 {
            return Err(Refusal::Translated);
        }
        if since(self.listed_ns, monotonic_ns()) > MAX_AGE {
            self.forget();
        }
        let found = self.find(cookie, server).map_err(|error| {
            tracing::warn!(%error, "the sockets of this host cannot be listed");
            Refusal::Send
        })?;
        let Listed { bound, queued } = found.ok_or(Refusal::ServerGone)?;
        let own_address = bound.ip().is_unspecified() || bound.ip() == server.ip();
        if !own_address || bound.port() != server.port() {
            return Err(Refusal::Translated);
        }
        if self.unread(cookie, queued) { Err(Refusal::ServerHangs) } else { Ok(()) }
    }

    /// The socket with this cookie has sent something at this time, in nanoseconds of `CLOCK_MONOTONIC`: whoever has it open did
    /// not stand still then.
    pub fn spoke(&mut self, cookie: u64, at_ns: u64) {
        if let Some(queue) = self.queues.get_mut(&cookie).filter(|queue| at_ns > queue.at_ns) {
            queue.spoke = true;
        }
    }

    /// Judges a socket's queue, once for each listing.
    fn unread(&mut self, cookie: u64, queued: u32) -> bool {
        let before = self.queues.get(&cookie).copied();
        if let Some(Queue { unread, .. }) = before.filter(|before| before.at_ns >= self.listed_ns) {
            return unread;
        }
        let queue = Queue::look(before, monotonic_ns(), queued);
        if queued == 0 {
            self.queues.remove(&cookie);
        } else {
            self.queues.insert(cookie, queue);
        }
        queue.unread
    }

    /// The socket as it is listed. First it is asked what gets what is sent to this address: that is a look-up in the kernel's table of
    /// sockets, while a list, of one port too, goes through all of it. It tells of one socket only, and nothing where that is another
    /// one (several at one port, one that is connected or bound to an interface). Then among those of the port: that is one answer of
    /// the kernel's, while a list of all, which takes several, can miss a socket when others are closed meanwhile.
    fn find(&mut self, cookie: u64, server: SocketAddr) -> io::Result<Option<Listed>> {
        if let Some(listed) = self.sockets.get(&cookie) {
            return Ok(Some(*listed));
        }
        if let Some(listed) = self.at(cookie, server)? {
            self.keep(cookie, listed);
            return Ok(Some(listed));
        }
        for port in [server.port(), EVERY_PORT] {
            if !self.asked.contains(&port) {
                self.ask(port)?;
            }
            if let Some(listed) = self.sockets.get(&cookie) {
                return Ok(Some(*listed));
            }
        }
        Ok(None)
    }

    /// The socket with this cookie, if it is the one that gets what anybody sends there.
    fn at(&mut self, cookie: u64, server: SocketAddr) -> io::Result<Option<Listed>> {
        let (family, any) =
            if server.is_ipv4() { (AF_INET, SocketId::new_v4()) } else { (AF_INET6, SocketId::new_v6()) };
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_UDP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            // Of UDP the kernel takes source and destination as they are in what comes in.
            socket_id: SocketId {
                destination_address: server.ip(),
                destination_port: server.port(),
                cookie: cookie.to_ne_bytes(),
                ..any
            },
        });
        let mut found = None;
        let answered = self.netlink.request(request, Want::One, |answer| {
            if let SockDiagMessage::InetResponse(answer) = answer {
                found = Some(listed(&answer)).filter(|(its, _)| *its == cookie).map(|(_, listed)| listed);
            }
        });
        match answered {
            Ok(()) => Ok(found),
            // There is none, or another one.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn keep(&mut self, cookie: u64, listed: Listed) {
        if self.sockets.len() < MAX_SOCKETS {
            self.sockets.insert(cookie, listed);
        }
    }

    /// The inode of the socket of an established TCP connection, if it is still there and its own; with 0 for a cookie, whosever it is.
    pub fn connection(&mut self, server: SocketAddr, peer: SocketAddr, cookie: u64) -> io::Result<Option<u32>> {
        let (family, any) =
            if server.is_ipv4() { (AF_INET, SocketId::new_v4()) } else { (AF_INET6, SocketId::new_v6()) };
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id: SocketId {
                source_address: server.ip(),
                source_port: server.port(),
                destination_address: peer.ip(),
                destination_port: peer.port(),
                // `INET_DIAG_NOCOOKIE`: any.
                cookie: if cookie == 0 { [0xff; 8] } else { cookie.to_ne_bytes() },
                ..any
            },
        });
        let mut found = None;
        let answered = self.netlink.request(request, Want::One, |answer| {
            if let SockDiagMessage::InetResponse(answer) = answer {
                let header = answer.header;
                let its = cookie == 0 || u64::from_ne_bytes(header.socket_id.cookie) == cookie;
                found = (its && header.state == TCP_ESTABLISHED).then_some(header.inode);
            }
        });
        match answered {
            Ok(()) => Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn forget(&mut self) {
        self.sockets.clear();
        self.asked.clear();
        self.listed_ns = monotonic_ns();
        self.queues.retain(|_, queue| queue.is_fresh(self.listed_ns));
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
                    let (cookie, listed) = listed(&found);
                    self.sockets.insert(cookie, listed);
                }
            })?;
        }
        self.asked.insert(port);
        Ok(())
    }
}

/// A socket's cookie, and what is kept of it.
fn listed(found: &InetResponse) -> (u64, Listed) {
    let InetResponseHeader { socket_id: SocketId { source_address, source_port, cookie, .. }, recv_queue, .. } =
        found.header;
    let bound = SocketAddr::new(source_address.to_canonical(), source_port);
    (u64::from_ne_bytes(cookie), Listed { bound, queued: recv_queue })
}

/// From one time to another, both in nanoseconds of the same clock.
fn since(then_ns: u64, now_ns: u64) -> Duration {
    Duration::from_nanos(now_ns.saturating_sub(then_ns))
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
    fn a_connection_is_found_by_its_ends_and_its_cookie_until_it_is_closed() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(any).unwrap();
            let peer = listener.local_addr().unwrap();
            let stream = std::net::TcpStream::connect(peer).unwrap();
            let (server, cookie) = (stream.local_addr().unwrap(), sockopt::socket_cookie(&stream).unwrap());
            let mut owners = Owners::open().unwrap();
            let inode = u32::try_from(rustix::fs::fstat(&stream).unwrap().st_ino).unwrap();
            assert_eq!(owners.connection(server, peer, cookie).unwrap(), Some(inode), "{any}");
            assert_eq!(owners.connection(server, peer, 0).unwrap(), Some(inode));
            assert_eq!(owners.connection(server, peer, cookie + 1).unwrap(), None, "another socket's");
            assert_eq!(owners.connection(server, server, cookie).unwrap(), None);
            drop((stream, listener));
            assert_eq!(owners.connection(server, peer, cookie).unwrap(), None, "closed");
        }
    }

    #[test]
    fn a_connected_socket_is_alive() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        assert_eq!(Owners::open().unwrap().check(cookie(&socket), socket.local_addr().unwrap()), Ok(()));
    }

    #[test]
    fn a_list_is_asked_for_only_where_another_socket_or_none_gets_what_is_sent_to_the_server() {
        let mut owners = Owners::open().unwrap();
        let mut listed = |cookie, server| {
            owners.forget();
            (owners.check(cookie, server), !owners.asked.is_empty())
        };
        for any in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let socket = UdpSocket::bind(any).unwrap();
            let bound = socket.local_addr().unwrap();
            let mine = cookie(&socket);
            assert_eq!(listed(mine, bound), (Ok(()), false), "{any}");
            assert_eq!(listed(mine + 1, bound), (Err(Refusal::ServerGone), true));
            socket.connect((bound.ip(), 9)).unwrap();
            assert_eq!(listed(mine, socket.local_addr().unwrap()), (Ok(()), true), "{any}, connected");
            let server = socket.local_addr().unwrap();
            drop(socket);
            assert_eq!(listed(mine, server), (Err(Refusal::ServerGone), true), "{any}");
        }
        let several = |at: SocketAddr| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&at.into()).unwrap();
            UdpSocket::from(socket)
        };
        let first = several("127.0.0.1:0".parse().unwrap());
        let bound = first.local_addr().unwrap();
        let second = several(bound);
        assert_eq!([&first, &second].map(|socket| listed(cookie(socket), bound).0), [Ok(()); 2]);
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

    /// The verdicts of looks a second apart: what was queued, and whether the socket sent anything before the next look.
    fn verdicts(looks: &[(u32, bool)]) -> Vec<bool> {
        let mut before: Option<Queue> = None;
        let mut verdicts = Vec::new();
        for (at_ns, (queued, spoke)) in (0..).step_by(1_000_000_000).zip(looks) {
            let queue = Queue::look(before, at_ns, *queued);
            verdicts.push(queue.unread);
            before = Some(Queue { spoke: *spoke, ..queue });
        }
        verdicts
    }

    #[test]
    fn a_queue_that_never_shrinks_is_read_by_nobody() {
        assert_eq!(verdicts(&[(768, false), (768, false), (1536, false), (1536, false)]), [true; 4]);
    }

    #[test]
    fn a_queue_that_is_empty_or_shrinks_is_read() {
        assert_eq!(verdicts(&[(0, false), (0, false)]), [false, false]);
        assert_eq!(verdicts(&[(2304, false), (1536, false), (768, false), (0, false)]), [true, false, false, false]);
        assert_eq!(verdicts(&[(768, false), (2304, false), (1536, false)]), [true, true, false]);
    }

    #[test]
    fn a_queue_that_is_always_full_is_read_while_its_server_speaks() {
        assert_eq!(
            verdicts(&[(212_992, true), (212_992, true), (212_992, false), (212_992, false)]),
            [true, false, false, true]
        );
    }

    #[test]
    fn a_look_of_long_ago_says_nothing() {
        let before = Queue::look(None, 0, 2304);
        let late = u64::try_from(LOOK_AGE.as_nanos()).unwrap();
        assert!(!Queue::look(Some(before), late - 1, 768).unread);
        assert!(Queue::look(Some(before), late, 768).unread);
    }

    #[test]
    fn what_lies_unread_in_a_socket_is_a_doubt_until_it_is_read_or_the_socket_sends() {
        let (socket, sender) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (bound, cookie) = (socket.local_addr().unwrap(), cookie(&socket));
        let mut owners = Owners::open().unwrap();
        let mut look = |spoke: Option<u64>| {
            if let Some(at_ns) = spoke {
                owners.spoke(cookie, at_ns);
            }
            owners.forget();
            (owners.check(cookie, bound), owners.queues.len())
        };
        sender.send_to(b"OPTIONS", bound).unwrap();
        let before = monotonic_ns();
        assert_eq!(look(None), (Err(Refusal::ServerHangs), 1));
        assert_eq!(look(None), (Err(Refusal::ServerHangs), 1));
        assert_eq!(look(Some(before)), (Err(Refusal::ServerHangs), 1), "sent before the last look");
        assert_eq!(look(Some(monotonic_ns())), (Ok(()), 1));
        assert_eq!(look(None), (Err(Refusal::ServerHangs), 1));
        socket.recv(&mut [0; 16]).unwrap();
        assert_eq!(look(None), (Ok(()), 0));
    }

    #[test]
    fn a_socket_is_judged_once_for_each_listing() {
        let (socket, sender) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (bound, cookie) = (socket.local_addr().unwrap(), cookie(&socket));
        sender.send_to(b"OPTIONS", bound).unwrap();
        let mut owners = Owners::open().unwrap();
        owners.forget();
        assert!(owners.unread(cookie, 1536));
        assert!(owners.unread(cookie, 768), "the same listing, the same verdict");
        owners.forget();
        assert!(!owners.unread(cookie, 768));
    }
}
