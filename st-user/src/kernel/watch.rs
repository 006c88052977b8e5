//! What the kernel holds, looked at from a thread of its own: links and interfaces are told under the kernel's rtnl lock,
//! which others may hold for a second and more, and packets and deadlines cannot wait that long.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    group::Group,
    interfaces::{self, Interface},
    news::Again,
    pins::{Pins, Side},
    select,
};
use crate::{
    container::{Finder, Sighted},
    netlink::Netlink,
};

/// How often.
const PERIOD: Duration = Duration::from_secs(1);

/// What the kernel holds at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// When the look began: what was changed later may or may not be in it.
    pub(super) began: Instant,
    /// Every interface of this namespace.
    pub(super) interfaces: Vec<Interface>,
    /// Indexes of the interfaces that have both programs, in links or filters.
    pub(super) linked: Vec<u32>,
    /// Indexes of those that default routes leave by; none where nobody wants to know.
    pub(super) defaults: Vec<u32>,
}

/// Looks. What it says is the namespace's of the thread that it is asked on.
#[derive(Clone, Debug)]
pub(crate) struct Lookout {
    pub(super) pins: Pins,
    /// Whether the default routes matter: they are asked for by a list of all routes, which can be long.
    pub(super) routes: Arc<AtomicBool>,
}

impl Lookout {
    pub(super) fn new(pins: Pins, routes: bool) -> Self {
        Self { pins, routes: Arc::new(AtomicBool::new(routes)) }
    }

    /// Whether all lookouts that were made of this one ask for the default routes from now on.
    pub(super) fn follow_routes(&self, routes: bool) {
        self.routes.store(routes, Ordering::Relaxed);
    }

    /// One that asks for the default routes in any case.
    pub(crate) fn with_routes(&self) -> Self {
        Self::new(self.pins.clone(), true)
    }

    /// Waits for the rtnl lock.
    pub(crate) fn look(&self) -> io::Result<View> {
        let began = Instant::now();
        let interfaces = interfaces::list()?;
        let defaults = if self.routes.load(Ordering::Relaxed) { interfaces::default_routes()? } else { Vec::new() };
        let linked = linked(&interfaces, &self.pins);
        Ok(View { began, interfaces, linked, defaults })
    }
}

/// The namespaces of groups, looked for and looked into.
#[derive(Default)]
pub(crate) struct Scout {
    posts: Vec<Post>,
    joined: Option<mpsc::Receiver<Joined>>,
}

/// One of them.
struct Post {
    finder: Finder,
    pins: Pins,
    /// Whether the default routes matter.
    routes: bool,
    /// The one that the daemon is in, and a socket of its.
    known: Option<(Sighted, Netlink)>,
}

/// The daemon is in another namespace of a group's, or in none.
pub(super) struct Joined {
    pub(super) number: usize,
    pub(super) known: Option<(Sighted, Netlink)>,
}

/// What was found of a group.
#[derive(Clone, Debug)]
pub(crate) struct GroupView {
    /// Its namespace, or why there is none.
    pub(super) found: Result<Sighted, String>,
    /// What is in there, and its addresses, where the daemon is in it.
    pub(super) view: Option<(View, Vec<IpAddr>)>,
}

impl Scout {
    pub(super) fn new(groups: &[Group], pins: &Pins, joined: mpsc::Receiver<Joined>) -> Self {
        let post = |group: &Group| Post {
            finder: group.target.finder(),
            pins: pins.place(&group.name),
            routes: select::follows_routes(&group.interfaces),
            known: None,
        };
        Self { posts: groups.iter().map(post).collect(), joined: Some(joined) }
    }

    /// Waits for the rtnl lock.
    pub(crate) fn look(&mut self) -> Vec<GroupView> {
        for Joined { number, known } in self.joined.iter().flat_map(mpsc::Receiver::try_iter) {
            if let Some(post) = self.posts.get_mut(number) {
                post.known = known;
            }
        }
        self.posts.iter_mut().map(Post::look).collect()
    }
}

impl Post {
    fn look(&mut self) -> GroupView {
        let began = Instant::now();
        let found = self.finder.find();
        let Self { pins, routes, known, .. } = self;
        let netlink = known.as_mut().filter(|(sighted, _)| found.as_ref() == Ok(sighted)).map(|(_, netlink)| netlink);
        let view = netlink.and_then(|netlink| {
            look_by(netlink, pins, *routes, began)
                .inspect_err(|error| tracing::warn!(%error, "the interfaces of a namespace cannot be listed"))
                .ok()
        });
        GroupView { found, view }
    }
}

fn look_by(netlink: &mut Netlink, pins: &Pins, routes: bool, began: Instant) -> io::Result<(View, Vec<IpAddr>)> {
    let interfaces = interfaces::list_by(netlink)?;
    let addresses = interfaces::addresses_by(netlink)?;
    let defaults = if routes { interfaces::default_routes_by(netlink)? } else { Vec::new() };
    let linked = linked(&interfaces, pins);
    Ok((View { began, interfaces, linked, defaults }, addresses))
}

/// Indexes of the interfaces with both programs.
pub(super) fn linked(interfaces: &[Interface], pins: &Pins) -> Vec<u32> {
    let links = pins.links();
    let holds = |index: u32, side: Side| links.iter().any(|one| one.side == side && one.info.interface == index);
    let both = |index: &u32| holds(*index, Side::Egress) && holds(*index, Side::Ingress);
    interfaces.iter().map(|one| one.index).filter(both).collect()
}

/// One look at all.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    /// The daemon's own namespace.
    pub(crate) here: View,
    /// Those of groups, by their number.
    pub(crate) groups: Vec<GroupView>,
}

/// The thread that looks, once a second; it ends with this.
pub(crate) struct Watch {
    views: watch::Receiver<Option<Sight>>,
    /// Dropped, it wakes the thread.
    _end: SyncSender<()>,
}

impl Watch {
    /// Starts it, in this thread's namespace.
    pub(crate) fn start(lookout: Lookout, mut scout: Scout) -> io::Result<Self> {
        let (send, views) = watch::channel(None);
        let (end, ended) = sync_channel(0);
        thread::Builder::new().name("sipst-watch".into()).spawn(move || {
            let mut again = Again::new(lookout);
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let groups = scout.look();
                match again.look() {
                    Ok(here) => drop(send.send_replace(Some(Sight { here, groups }))),
                    Err(error) => tracing::warn!(%error, "the interfaces of this host cannot be listed"),
                }
            }
        })?;
        Ok(Self { views, _end: end })
    }

    /// What was seen since the last time that this was asked.
    pub(crate) fn latest(&mut self) -> Option<Sight> {
        let new = self.views.has_changed().unwrap_or(false);
        new.then(|| self.views.borrow_and_update().clone()).flatten()
    }
}
