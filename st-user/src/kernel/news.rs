//! What the kernel says of interfaces and routes by itself, so that they are listed when something has changed and not at every look: a
//! list takes the kernel longer than all else in a look, and the host's rtnl lock with it.

use std::{
    io,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{
    interfaces::{self, Interface},
    watch::{Lookout, View, linked},
};

/// How often they are listed all the same: an XDP program that somebody attaches by a link is no news of the kernel's.
pub(super) const LISTED_ANEW: Duration = Duration::from_secs(10);

/// Groups of messages of rtnetlink (`RTMGRP_*`), as bits.
const LINKS: u32 = 0x1;
const ROUTES: u32 = 0x40 | 0x400;

/// Whether the kernel has said anything since this was opened.
struct News(Socket);

impl News {
    fn open(groups: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        Ok(Self(socket))
    }

    /// What it was is not asked. More than there was room for is an error, and news.
    fn has_come(&self) -> bool {
        let mut first = [0_u8; 16];
        let read = self.0.recv(&mut &mut first[..], libc::MSG_DONTWAIT);
        !read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// What was listed last.
struct Listed {
    at: Instant,
    /// With the default routes.
    routes: bool,
    interfaces: Vec<Interface>,
    defaults: Vec<u32>,
    news: News,
}

/// Looks again and again, in the namespace of the thread that it is asked on.
pub(super) struct Again {
    lookout: Lookout,
    listed: Option<Listed>,
}

impl Again {
    pub(super) fn new(lookout: Lookout) -> Self {
        Self { lookout, listed: None }
    }

    /// What [`Lookout::look`] says. Whether the programs are attached is asked each time: of that there are no news.
    pub(super) fn look(&mut self) -> io::Result<View> {
        let began = Instant::now();
        let routes = self.lookout.routes.load(Ordering::Relaxed);
        let listed = match self.listed.take() {
            Some(listed) if listed.routes == routes && began - listed.at < LISTED_ANEW && !listed.news.has_come() => {
                listed
            }
            // A socket of its own for each list: what is left unread in the last one goes with it, however much it is.
            Some(_) | None => Listed::new(routes, began)?,
        };
        let Listed { interfaces, defaults, .. } = self.listed.insert(listed);
        let (interfaces, defaults) = (interfaces.clone(), defaults.clone());
        let linked = linked(&interfaces, &self.lookout.pins);
        Ok(View { began, interfaces, linked, defaults })
    }
}

impl Listed {
    fn new(routes: bool, at: Instant) -> io::Result<Self> {
        // First the news, then the list: what changes meanwhile is in both.
        let news = News::open(if routes { LINKS | ROUTES } else { LINKS })?;
        let interfaces = interfaces::list()?;
        let defaults = if routes { interfaces::default_routes()? } else { Vec::new() };
        Ok(Self { at, routes, interfaces, defaults, news })
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, thread};

    use rustix::thread::{CapabilitySet, UnshareFlags};

    use super::*;
    use crate::{
        kernel::{PIN_DIR, pins::Pins, tests::with_only},
        namespace::{ip, unshare},
    };

    /// In a namespace without a carrier that could come up later by itself.
    #[test]
    fn interfaces_and_routes_are_listed_again_when_they_change_and_not_before() {
        let test = || {
            unshare(UnshareFlags::NEWNET);
            let lookout = Lookout::new(Pins::new(Path::new(PIN_DIR)), false);
            let mut again = Again::new(lookout.clone());
            let mut look = |lists: bool, after: &str| {
                let before = again.listed.as_ref().map(|listed| listed.at);
                // It is a thread without any.
                let view = with_only(CapabilitySet::empty(), || again.look().unwrap());
                assert_eq!(before != again.listed.as_ref().map(|listed| listed.at), lists, "{after}");
                let plain = lookout.look().unwrap();
                assert_eq!((&view.interfaces, &view.defaults), (&plain.interfaces, &plain.defaults), "{after}");
                view
            };
            look(true, "nothing");
            for change in ["link add v0 type veth peer name v1", "link set v0 name v9", "link del v9", "link set lo up"]
            {
                look(false, change);
                ip(change);
                look(true, change);
            }
            ip("route add default dev lo");
            assert_eq!(look(false, "a route that nobody wants to know of").defaults.len(), 0);
            lookout.follow_routes(true);
            assert_eq!(look(true, "somebody does").defaults.len(), 1);
            look(false, "nothing");
            ip("route del default");
            assert_eq!(look(true, "it is gone").defaults.len(), 0);
            again.listed.as_mut().unwrap().at -= LISTED_ANEW;
            again.look().unwrap();
            assert!(again.listed.unwrap().at.elapsed() < LISTED_ANEW, "and now and then in any case");
        };
        thread::spawn(test).join().unwrap();
    }
}
