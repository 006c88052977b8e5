//! Interfaces in another network namespace, a container's for the most part: attached to from within it, and attached to anew when the
//! container is started again and its namespace is another one.

use std::{
    net::IpAddr,
    sync::{Arc, mpsc},
};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    Attach, KernelError, Maps, bpf,
    interfaces::{addresses_by, default_routes_by, list_by},
    netns::{self, Namespace},
    pins::{Pins, Side},
    place::{Loaded, Place},
    select,
    watch::{GroupView, Joined},
};
use crate::{
    container::{Sighted, Target},
    netlink::Netlink,
    site::Site,
};

/// So many looks in a row have to find nothing before a namespace counts as gone: what tells of it is written anew at times.
const MISSES: u32 = 2;

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What it is called.
    pub name: String,
    /// Which namespace.
    pub target: Target,
    /// What stands for the interfaces in there.
    pub interfaces: Vec<String>,
}

/// A group, and what has become of it.
pub(super) struct Elsewhere {
    number: usize,
    group: Group,
    pins: Pins,
    there: Option<There>,
    /// Why it is not there; nothing while it is.
    why: String,
    misses: u32,
    watch: mpsc::Sender<Joined>,
}

/// The namespace of the moment.
struct There {
    sighted: Sighted,
    namespace: Arc<Namespace>,
    place: Place,
}

/// What followed from a look.
#[derive(Default)]
pub(super) struct Followed {
    /// Not everything was seen until now.
    pub(super) missed: bool,
    /// The namespace is another one, or none.
    pub(super) site: Option<Option<Site>>,
    /// Its addresses, as they are now.
    pub(super) addresses: Option<Vec<IpAddr>>,
}

impl Elsewhere {
    pub(super) fn new(number: usize, group: Group, pins: &Pins, watch: mpsc::Sender<Joined>) -> Self {
        let pins = pins.place(&group.name);
        Self { number, group, pins, there: None, why: "not looked for yet".into(), misses: 0, watch }
    }

    /// The first look. Only what nobody but the operator can mend is an error.
    pub(super) fn begin(&mut self, loaded: &mut Loaded) -> Result<Option<Site>, KernelError> {
        self.pins.prepare_place()?;
        match self.group.target.finder().find() {
            Ok(sighted) => match self.join(loaded, sighted) {
                Ok(site) => Ok(Some(site)),
                Err(error @ (KernelError::NotAllowedIn { .. } | KernelError::OwnNamespace { .. })) => Err(error),
                Err(error) => {
                    self.lost(crate::output::chain(&error));
                    Ok(None)
                }
            },
            Err(why) => {
                self.lost(why);
                Ok(None)
            }
        }
    }

    /// Attaches in the namespace that was found, and opens what is asked and sent from there.
    fn join(&mut self, loaded: &mut Loaded, sighted: Sighted) -> Result<Site, KernelError> {
        let name = self.group.name.clone();
        let namespace = Arc::new(Namespace::open(&name, &sighted)?);
        let inside = || self.inside(loaded, &namespace);
        let (place, site, netlink) = namespace.enter(inside).map_err(|error| netns::refused(&name, error))??;
        tracing::info!(namespace = name, is = %self.group.target, interfaces = listed(&place), "attached in the namespace");
        self.there = Some(There { sighted: sighted.clone(), namespace, place });
        self.why.clear();
        self.misses = 0;
        // Where nobody watches any more, the daemon is ending.
        let _ = self.watch.send(Joined { number: self.number, known: Some((sighted, netlink)) });
        Ok(site)
    }

    fn inside(&self, loaded: &mut Loaded, namespace: &Arc<Namespace>) -> Result<(Place, Site, Netlink), KernelError> {
        let Group { interfaces: terms, name, .. } = &self.group;
        let failed = |source| KernelError::Namespace { name: name.clone(), source };
        let mut netlink = Netlink::open(NETLINK_ROUTE).map_err(failed)?;
        let all = list_by(&mut netlink).map_err(KernelError::Interfaces)?;
        let addresses = addresses_by(&mut netlink).map_err(KernelError::Interfaces)?;
        let routes = if select::follows_routes(terms) { default_routes_by(&mut netlink) } else { Ok(Vec::new()) };
        let chosen = select::choose(&all, &routes.map_err(KernelError::Interfaces)?, terms);
        self.drop_others()?;
        // An end of a veth for the most part, where XDP cannot do all that it has to.
        let place = Place::attach(loaded, self.pins.clone(), Attach::Tc, terms, chosen, all)?;
        let site = Site::open(Some(Arc::clone(namespace)), addresses).map_err(failed)?;
        Ok((place, site, netlink))
    }

    /// A pinned link tells the interface's number, which is the same in many a namespace. Those that are not of this one are taken away;
    /// where that cannot be asked, all are.
    fn drop_others(&self) -> Result<(), KernelError> {
        for link in self.pins.links() {
            let there = match link.side {
                Side::Ingress => bpf::ingress_programs(link.info.interface),
                Side::Egress => bpf::egress_programs(link.info.interface),
            };
            if !there.is_ok_and(|programs| programs.contains(&link.info.program)) {
                Pins::drop_link(&link.path)?;
            }
        }
        Ok(())
    }

    /// What the look has found.
    pub(super) fn follow(&mut self, loaded: &mut Loaded, maps: &Maps, look: GroupView) -> Followed {
        let GroupView { found, view } = look;
        match found {
            Err(why) => self.miss(why),
            Ok(sighted) if self.there.as_ref().is_some_and(|there| there.sighted == sighted) => {
                self.misses = 0;
                let Some((view, addresses)) = view else { return Followed::default() };
                let Some(There { namespace, place, .. }) = &mut self.there else { return Followed::default() };
                if place.is_as_it_was(&view) {
                    return Followed { addresses: Some(addresses), ..Followed::default() };
                }
                let saw_all = namespace.enter(|| place.follow(loaded, maps, view)).unwrap_or_else(|error| {
                    tracing::error!(namespace = self.group.name, %error, "the namespace cannot be entered");
                    false
                });
                Followed { missed: !saw_all, addresses: Some(addresses), site: None }
            }
            Ok(sighted) => match self.join(loaded, sighted) {
                Ok(site) => Followed { missed: true, site: Some(Some(site)), addresses: None },
                Err(error) => {
                    let had = self.leave();
                    self.lost(crate::output::chain(&error));
                    Followed { missed: had, site: had.then_some(None), addresses: None }
                }
            },
        }
    }

    fn miss(&mut self, why: String) -> Followed {
        self.misses += 1;
        if self.there.is_none() {
            self.lost(why);
            return Followed::default();
        }
        if self.misses < MISSES {
            return Followed::default();
        }
        self.leave();
        self.lost(why);
        Followed { missed: true, site: Some(None), addresses: None }
    }

    /// Lets go of what would keep the namespace alive. The programs stay as long as its interfaces do. False: there was none.
    fn leave(&mut self) -> bool {
        let _ = self.watch.send(Joined { number: self.number, known: None });
        self.there.take().is_some()
    }

    /// Tells once why it is not there.
    fn lost(&mut self, why: String) {
        if self.why != why {
            tracing::warn!(namespace = self.group.name, is = %self.group.target, "nothing is seen there until it is: {why}");
            self.why = why;
        }
    }

    pub(super) fn let_go(&mut self, maps: &Maps) {
        if let Some(There { place, .. }) = &mut self.there {
            place.let_go(maps);
        }
    }

    /// Its interfaces, each with whether the programs are attached to it; where it is not there, itself.
    pub(super) fn attached(&self) -> Vec<(String, bool)> {
        match &self.there {
            Some(There { place, .. }) => {
                place.attached().map(|(interface, held)| (format!("{}/{interface}", self.group.name), held)).collect()
            }
            None => vec![(self.group.name.clone(), false)],
        }
    }

    pub(super) fn remarks(&self) -> Vec<String> {
        match &self.there {
            Some(There { place, .. }) => {
                place.remarks().iter().map(|remark| format!("{}: {remark}", self.group.name)).collect()
            }
            None => vec![format!("{} ({}): {}", self.group.name, self.group.target, self.why)],
        }
    }

    pub(super) fn covers(&self, index: u32) -> bool {
        self.there.as_ref().is_some_and(|there| there.place.covers(index))
    }
}

fn listed(place: &Place) -> String {
    place.attached().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}
