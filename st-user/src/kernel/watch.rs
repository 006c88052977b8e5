//! What the kernel holds, looked at from a thread of its own: links and interfaces are told under the kernel's rtnl lock,
//! which others may hold for a second and more, and packets and deadlines cannot wait that long.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    interfaces::{self, Interface},
    pins::{Pins, Side},
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
    routes: Arc<AtomicBool>,
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
        let links = self.pins.links();
        let holds = |index: u32, side: Side| links.iter().any(|one| one.side == side && one.info.interface == index);
        let both = |index: &u32| holds(*index, Side::Egress) && holds(*index, Side::Ingress);
        let linked = interfaces.iter().map(|one| one.index).filter(both).collect();
        Ok(View { began, interfaces, linked, defaults })
    }
}

/// The thread that looks, once a second; it ends with this.
pub(crate) struct Watch {
    views: watch::Receiver<Option<View>>,
    /// Dropped, it wakes the thread.
    _end: SyncSender<()>,
}

impl Watch {
    /// Starts it, in this thread's namespace.
    pub(crate) fn start(lookout: Lookout) -> io::Result<Self> {
        let (send, views) = watch::channel(None);
        let (end, ended) = sync_channel(0);
        thread::Builder::new().name("sipst-watch".into()).spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                match lookout.look() {
                    Ok(view) => drop(send.send_replace(Some(view))),
                    Err(error) => tracing::warn!(%error, "the interfaces of this host cannot be listed"),
                }
            }
        })?;
        Ok(Self { views, _end: end })
    }

    /// What was seen since the last time that this was asked.
    pub(crate) fn latest(&mut self) -> Option<View> {
        let new = self.views.has_changed().unwrap_or(false);
        new.then(|| self.views.borrow_and_update().clone()).flatten()
    }
}
