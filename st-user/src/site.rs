//! What the daemon asks of the kernel in a network namespace, and sends there: in its own, or in those of containers. Which it is the
//! server's address tells.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use st_core::Refusal;
use tracing::warn;

use crate::{
    inject::{Envelope, Injector},
    kernel::Namespace,
    owner::Owners,
    route::Routes,
};

/// One namespace. Its sockets stay there, wherever they are used from.
pub struct Site {
    /// `None`: the daemon's own.
    namespace: Option<Arc<Namespace>>,
    /// Its addresses; empty for the daemon's own, which has all that are nobody else's.
    addresses: Vec<IpAddr>,
    injector: Injector,
    owners: Owners,
    routes: Routes,
}

/// All of them, by their number.
#[derive(Default)]
pub struct Sites {
    sites: Vec<Option<Site>>,
}

impl Site {
    /// Opens its sockets, in the namespace that this thread is in.
    ///
    /// # Errors
    /// The kernel has none of the kind.
    pub(crate) fn open(namespace: Option<Arc<Namespace>>, addresses: Vec<IpAddr>) -> io::Result<Self> {
        let (owners, routes) = (Owners::open()?, Routes::open()?);
        Ok(Self { namespace, addresses, injector: Injector::default(), owners, routes })
    }

    /// The daemon's own.
    pub(crate) fn here(owners: Owners, routes: Routes) -> Self {
        Self { namespace: None, addresses: Vec::new(), injector: Injector::default(), owners, routes }
    }

    /// Makes sure of the raw socket for an address.
    fn ready(&mut self, server: IpAddr) -> Result<(), Refusal> {
        let Self { namespace, injector, .. } = self;
        match namespace {
            Some(namespace) if !injector.is_open(server) => {
                namespace.enter(|| injector.open(server).map(drop)).unwrap_or_else(|error| {
                    warn!(%error, %server, "the server's network namespace cannot be entered");
                    Err(Refusal::Send)
                })
            }
            Some(_) | None => injector.open(server).map(drop),
        }
    }
}

impl Sites {
    /// The daemon's own namespace alone.
    pub(crate) fn here(site: Site) -> Self {
        Self { sites: vec![Some(site)] }
    }

    /// So many that are not known yet.
    pub(crate) fn elsewhere(count: usize) -> Self {
        Self { sites: (0..count).map(|_| None).collect() }
    }

    /// Another namespace in the place of one that is gone, or none.
    pub(crate) fn replace(&mut self, number: usize, site: Option<Site>) {
        if let Some(place) = self.sites.get_mut(number) {
            *place = site;
        }
    }

    /// The addresses of one.
    pub(crate) fn readdress(&mut self, number: usize, addresses: Vec<IpAddr>) {
        if let Some(Some(site)) = self.sites.get_mut(number) {
            site.addresses = addresses;
        }
    }

    /// The one with this address; where there is none, or there are several, no call of that address can be acted upon.
    fn of(&mut self, server: IpAddr) -> Result<(usize, &mut Site), Refusal> {
        let mut found = self.sites.iter_mut().enumerate().filter_map(|(number, site)| Some((number, site.as_mut()?)));
        let mut has = found.by_ref().filter(|(_, site)| site.namespace.is_none() || site.addresses.contains(&server));
        match (has.next(), has.next()) {
            (Some(one), None) => Ok(one),
            // Its container is gone, and with it the server's socket.
            (None, _) => Err(Refusal::ServerGone),
            (Some(_), Some(_)) => {
                warn!(%server, "two of the namespaces have this address: nothing is sent from it");
                Err(Refusal::Unattached)
            }
        }
    }

    /// Whether packets from `server`, sent by the socket with this cookie, are a living local socket's own.
    pub(crate) fn check(&mut self, cookie: u64, server: SocketAddr) -> Result<(), Refusal> {
        if cookie == 0 {
            return Err(Refusal::Translated);
        }
        let (_, site) = self.of(server.ip())?;
        match site.owners.check(cookie, server) {
            // The socket is another namespace's, whose packets this host passes on, where the address is none of this one's.
            Err(Refusal::ServerGone) => Err(site.ready(server.ip()).err().unwrap_or(Refusal::ServerGone)),
            checked => checked,
        }
    }

    /// The inode of the server's socket of a connection that is still there. [`Refusal::TcpClosed`]: it is not.
    pub(crate) fn connection(&mut self, server: SocketAddr, peer: SocketAddr, cookie: u64) -> Result<u32, Refusal> {
        let (_, site) = self.of(server.ip())?;
        let found = site.owners.connection(server, peer, cookie).map_err(|error| {
            warn!(%error, "the connections of this host cannot be listed: the kernel needs sock_diag for TCP, try `modprobe tcp_diag`");
            Refusal::TcpNoSocket
        })?;
        found.ok_or(Refusal::TcpClosed)
    }

    /// The socket with this cookie has sent something at this time, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) fn spoke(&mut self, cookie: u64, at_ns: u64) {
        self.sites.iter_mut().flatten().for_each(|site| site.owners.spoke(cookie, at_ns));
    }

    /// Whether what is sent from here to the peer leaves under the server's address by an interface of which `covers` says, with its
    /// namespace's number, that it is attached.
    pub(crate) fn reach(
        &mut self,
        server: SocketAddr,
        peer: SocketAddr,
        covers: impl FnOnce(usize, u32) -> bool,
    ) -> Result<(), Refusal> {
        let (number, site) = self.of(server.ip())?;
        site.ready(server.ip())?;
        let way = site.routes.interface(server, peer).map_err(|error| {
            warn!(%error, %peer, "the route to the peer cannot be asked for");
            Refusal::Send
        })?;
        if way.is_some_and(|index| covers(number, index)) { Ok(()) } else { Err(Refusal::Unattached) }
    }

    /// Sends one message. It has left when st_egress says so.
    pub(crate) fn send(&mut self, envelope: &Envelope, message: &[u8]) -> Result<(), Refusal> {
        let (_, site) = self.of(envelope.server.ip())?;
        site.ready(envelope.server.ip())?;
        site.injector.send(envelope, message)
    }
}
