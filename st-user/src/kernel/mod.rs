//! The kernel side as user space sees it: the embedded programs, loaded, attached and pinned; the maps.

mod assists;
mod attach;
mod bpf;
#[cfg(test)]
mod elsewhere;
mod error;
mod filters;
mod flows;
mod group;
mod holds;
mod interfaces;
mod joined;
mod maps;
mod netns;
mod news;
#[cfg(test)]
mod once;
mod pins;
mod place;
mod plans;
mod reconfigure;
mod select;
#[cfg(test)]
pub(crate) mod tests;
mod upgrade;
mod watch;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::mpsc,
};

use aya::{
    EbpfLoader,
    maps::{MapData, RingBuf},
    util::KernelVersion,
};
use rustix::thread::{CapabilitySet, capabilities};
use serde::Serialize;
use st_ebpf::abi::names;

pub use assists::Assists;
pub use error::KernelError;
pub use flows::Flows;
pub use group::Group;
pub use holds::Holds;
pub use interfaces::{Interface, Kind, Overlap, XdpHook, list, overlaps};
pub use maps::{Maps, OnRecord};
pub(crate) use netns::Namespace;
pub use plans::Plans;
pub(crate) use select::is_like;
pub(crate) use watch::{GroupView, Lookout, Scout, Sight, View, Watch};

use crate::{
    config::{Attach, Ports},
    privilege,
    site::Sites,
};
use attach::Hooks;
use group::Elsewhere;
use maps::SHAPES;
use pins::{Lock, Pins};
use place::{Loaded, Place};
use select::Chosen;
use upgrade::Older;

/// The kernel programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/st-ebpf"));

/// The default pin directory.
pub const PIN_DIR: &str = "/sys/fs/bpf/sipst";

/// The oldest kernel: `bpf_loop` came with 5.17, `bpf_xdp_load_bytes` with 5.18; 6.1 is the first long-term kernel with
/// both.
const OLDEST: KernelVersion = KernelVersion::new(6, 1, 0);

/// No interface has this index.
const GONE: u32 = 0;

/// What to attach where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of interfaces, patterns, exclusions, `default`.
    pub interfaces: Vec<String>,
    /// The network namespaces in which these are meant; none: the daemon's own.
    pub namespaces: Vec<Group>,
    /// By which hook packets are seen on their way in.
    pub attach: Attach,
    /// The ports that carry SIP.
    pub ports: Vec<Ports>,
    /// Those on which connections are counted, for their traffic cannot be read.
    pub opaque_ports: Vec<Ports>,
    /// Whether UDP of other ports is looked at too, where it begins as SIP does.
    pub any_port: bool,
    /// Where to pin, a directory on a bpf file system.
    pub pin_dir: PathBuf,
    /// Whether the programs copy what they rewrite into the ring, for the flight recorder.
    pub recording: bool,
    /// Whether calls over TCP are refreshed in any trunk: the programs that this takes are called.
    pub acting: bool,
}

/// A hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// TC, packets coming in.
    TcIngress,
    /// TC, packets going out.
    TcEgress,
    /// XDP in the driver.
    XdpNative,
    /// XDP behind the driver.
    XdpGeneric,
}

/// One program at one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The group of the configuration's in whose network namespace the interface is; `None`: this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The interface's name.
    pub interface: String,
    /// Where in it.
    pub hook: Hook,
    /// The program's id, as bpftool shows it.
    pub program: u32,
    /// The pinned link.
    pub pin: PathBuf,
    /// Whether the interface it was attached to is gone.
    pub gone: bool,
}

/// What [`Kernel::unload`] has taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unloaded {
    /// How many links.
    pub links: usize,
}

/// What became of the programs at a clean end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// All is taken away.
    Unloaded,
    /// This many dialogs depend on the rewriting of their numbers: all stays.
    Kept {
        /// How many.
        dialogs: usize,
    },
}

/// The programs, loaded and attached. They stay so when this is dropped.
pub struct Kernel {
    loaded: Loaded,
    /// The namespace that the daemon lives in.
    here: Place,
    /// Those of containers, by their number. Where there are any, nothing is attached in the daemon's own.
    elsewhere: Vec<Elsewhere>,
    /// What is asked and sent there; taken once.
    sites: Sites,
    scout: Scout,
    lookout: Lookout,
    /// The maps.
    pub maps: Maps,
    /// Media flows of the server's.
    pub flows: Flows,
    /// Dialogs in which the server's refusals are held back.
    pub holds: Holds,
    /// Peers whose INVITEs are changed.
    pub assists: Assists,
    /// TCP connections that are written into.
    pub plans: Plans,
    _lock: Lock,
}

impl Kernel {
    /// Loads the programs, attaches them and pins links and maps; where that was done before, takes over: the maps with
    /// all that is in them, and the links with a new program inside. So it does where an older version did that.
    pub fn attach(options: &Options) -> Result<(Self, RingBuf<MapData>), KernelError> {
        Self::attach_by(Hooks::new(), Pins::new(&options.pin_dir), options)
    }

    fn attach_by(hooks: Hooks, pins: Pins, options: &Options) -> Result<(Self, RingBuf<MapData>), KernelError> {
        check_release()?;
        check_privilege(CapabilitySet::NET_ADMIN)?;
        let all = list().map_err(KernelError::Interfaces)?;
        if !options.namespaces.is_empty() && !hooks.links() {
            return Err(KernelError::NamespacesNeedLinks);
        }
        if !options.namespaces.is_empty() && !netns::may_enter() {
            return Err(KernelError::NoNamespaces);
        }
        if options.acting && !may_trace() {
            return Err(KernelError::NoTracing);
        }
        let chosen = choose(&all, options.here())?;
        let lock = pins.prepare()?;
        let fresh = !pins.complete();
        let older = Older::find(&options.pin_dir, &pins)?;
        let upgrading = older.is_some();
        match bring_up(hooks, &pins, older, chosen, all, options) {
            Ok((attached, (maps, flows, holds, assists, plans), ring)) => {
                let Anywhere { loaded, here, elsewhere, sites, scout } = attached;
                let lookout = Lookout::new(pins, here.follows_routes());
                Ok((
                    Self {
                        loaded,
                        here,
                        elsewhere,
                        sites,
                        scout,
                        lookout,
                        maps,
                        flows,
                        holds,
                        assists,
                        plans,
                        _lock: lock,
                    },
                    ring,
                ))
            }
            Err(error) => {
                // Nothing half done is left behind; what an earlier daemon left to go on does go on.
                let taken = match (fresh, upgrading) {
                    (true, false) => pins.remove().map(drop),
                    // The older version's links are still its own.
                    (true, true) if pins.links().is_empty() && pins.places().is_empty() => pins.remove().map(drop),
                    (false, _) | (true, true) => Ok(()),
                };
                if let Err(second) = taken {
                    tracing::warn!(error = &second as &dyn std::error::Error, "what was loaded stays");
                }
                Err(error)
            }
        }
    }

    /// The maps of what is pinned, to be looked at.
    pub fn open_pinned(pin_dir: &Path) -> Result<Maps, KernelError> {
        let pins = Pins::new(pin_dir);
        if !pins.complete() {
            return Err(match pins.other_version()? {
                Some(path) => KernelError::OtherVersion { path },
                None => KernelError::NotLoaded { path: pin_dir.to_owned() },
            });
        }
        maps::open_pinned(&pins)
    }

    /// What is attached by pinned links.
    pub fn status(pin_dir: &Path) -> Result<Vec<Attached>, KernelError> {
        let all = list().map_err(KernelError::Interfaces)?;
        let by_name = |name: &str| all.iter().find(|one| one.name == name);
        let pins = Pins::new(pin_dir);
        let here = pins.links();
        let here = here.iter().map(|link| attach::describe(link, by_name(&link.interface)));
        let elsewhere = pins.places().into_iter().flat_map(|name| {
            let links = pins.place(&name).links();
            links.iter().map(|link| attach::describe_elsewhere(&name, link)).collect::<Vec<_>>()
        });
        Ok(here.chain(elsewhere).collect())
    }

    /// Detaches and unpins everything. Refuses while dialogs depend on it, unless `force`, which also takes away what
    /// other versions have left.
    pub fn unload(pin_dir: &Path, force: bool) -> Result<Unloaded, KernelError> {
        check_privilege(CapabilitySet::NET_ADMIN)?;
        let pins = Pins::new(pin_dir);
        if !force && let Some(path) = pins.other_version()? {
            return Err(KernelError::OtherVersion { path });
        }
        let lock = if pins.root().exists() { Some(pins.lock()?) } else { None };
        if !force && pins.complete() {
            refuse_while_shifting(&maps::open_pinned(&pins)?)?;
        }
        let links = if force { pins.remove_all()? } else { pins.remove()? };
        drop(lock);
        Ok(Unloaded { links })
    }

    /// At a clean end: takes everything away, or leaves it where dialogs depend on it.
    pub fn release(self) -> Result<Released, KernelError> {
        match self.maps.shifting() {
            0 => self.here.pins.remove().map(|_| Released::Unloaded),
            dialogs => Ok(Released::Kept { dialogs }),
        }
    }

    /// Names of the interfaces that the configuration stands for; those of another namespace behind its group's.
    pub(crate) fn configured(&self) -> Vec<String> {
        self.attached().map(|(name, _)| name).collect()
    }

    /// The same, each with whether the programs are attached to it, as last seen.
    pub(crate) fn attached(&self) -> impl Iterator<Item = (String, bool)> {
        let here = self.here.attached().map(|(name, held)| (name.to_owned(), held));
        here.chain(self.elsewhere.iter().flat_map(Elsewhere::attached))
    }

    /// What is not as the configuration has it, for people.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let elsewhere = self.elsewhere.iter().flat_map(Elsewhere::remarks);
        self.here.remarks().into_iter().chain(elsewhere).collect()
    }

    /// What is asked and sent in the namespaces of groups, and who looks into them, once. Where there is no group, there is nothing in
    /// either.
    pub(crate) fn take_elsewhere(&mut self) -> (Sites, Scout) {
        (std::mem::take(&mut self.sites), std::mem::take(&mut self.scout))
    }

    /// The capabilities that are needed from now on.
    pub(crate) fn needs(&self) -> CapabilitySet {
        let running = privilege::running(!self.loaded.hooks.links());
        let running = if self.elsewhere.is_empty() { running } else { running | privilege::ELSEWHERE };
        if self.plans.wanted() { running | privilege::ACTING } else { running }
    }

    /// Who looks whether all is still as it was attached.
    pub(crate) fn lookout(&self) -> Lookout {
        self.lookout.clone()
    }

    /// Whether every packet that leaves by the interface crosses `st_egress`, as last seen: what leaves where that is not
    /// takes a number that nobody has committed.
    #[cfg(test)]
    pub(crate) fn covers(&self, index: u32) -> bool {
        self.covers_at(0, index)
    }

    /// The same in the namespace with this number: 0 is the daemon's own, where there are no others.
    pub(crate) fn covers_at(&self, number: usize, index: u32) -> bool {
        match self.elsewhere.get(number) {
            Some(group) => group.covers(index),
            None => self.elsewhere.is_empty() && self.here.covers(index),
        }
    }

    /// Attaches anew to interfaces that were deleted and made again, and to those whose links somebody took away, and to those that the
    /// configuration has come to stand for. False: until now the programs have not seen all.
    pub(crate) fn follow(&mut self, view: View) -> bool {
        self.here.follow(&mut self.loaded, &self.maps, view)
    }

    /// The same for the namespaces of groups. What is asked and sent there goes to the new ones.
    pub(crate) fn follow_elsewhere(&mut self, looks: Vec<GroupView>, sites: &mut Sites) -> bool {
        let mut saw_all = true;
        for (number, (group, look)) in self.elsewhere.iter_mut().zip(looks).enumerate() {
            let followed = group.follow(&mut self.loaded, &self.maps, look);
            saw_all &= !followed.missed;
            if let Some(site) = followed.site {
                sites.replace(number, site);
            }
            if let Some(addresses) = followed.addresses {
                sites.readdress(number, addresses);
            }
        }
        saw_all
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TcIngress => "tc ingress",
            Self::TcEgress => "tc egress",
            Self::XdpNative => "xdp native",
            Self::XdpGeneric => "xdp generic",
        })
    }
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, interface, hook, program, pin, gone } = self;
        let place = namespace.as_ref().map_or(interface.clone(), |namespace| format!("{namespace}/{interface}"));
        write!(f, "{place:<15} {hook:<11} program {program:<6} {}", pin.display())?;
        if *gone { f.write_str(" (the interface is gone)") } else { Ok(()) }
    }
}

/// Those that are pinned, and those that begin anew with each daemon.
type AllMaps = (Maps, Flows, Holds, Assists, Plans);

/// What is attached, in the daemon's own namespace and in others.
struct Anywhere {
    loaded: Loaded,
    here: Place,
    elsewhere: Vec<Elsewhere>,
    sites: Sites,
    scout: Scout,
}

impl Options {
    /// What is meant in the daemon's own namespace.
    fn here(&self) -> Option<&[String]> {
        self.namespaces.is_empty().then_some(self.interfaces.as_slice())
    }
}

fn bring_up(
    hooks: Hooks,
    pins: &Pins,
    older: Option<Older>,
    chosen: Chosen,
    all: Vec<Interface>,
    options: &Options,
) -> Result<(Anywhere, AllMaps, RingBuf<MapData>), KernelError> {
    maps::check_shapes(pins)?;
    let mut loader = EbpfLoader::new();
    for (name, ..) in SHAPES {
        loader.map_pin_path(name, pins.map(name));
    }
    let (recording, any_port) = (u8::from(options.recording), u8::from(options.any_port));
    loader.override_global(names::RECORDING, &recording, true);
    loader.override_global(names::ANY_PORT, &any_port, true);
    // No program is relocated against the kernel's own types.
    let mut ebpf = loader.btf(None).load(OBJECT).map_err(KernelError::load)?;
    let carried = older.as_ref().map(Older::hash_key);
    let (mut maps, ring) = maps::set_up(&mut ebpf, [&options.ports, &options.opaque_ports], carried)?;
    let flows = Flows::take(&mut ebpf)?;
    let holds = Holds::take(&mut ebpf, maps.hash_key())?;
    let assists = Assists::take(&mut ebpf)?;
    let mut plans = Plans::take(&mut ebpf, options.acting, older.as_ref().map_or(&[], Older::plans))?;
    joined::call(&mut ebpf)?;
    hooks.load(&mut ebpf, options.attach)?;
    let older = match older {
        Some(mut older) => {
            older.hand_over(&mut maps, pins)?;
            Some(older)
        }
        None => None,
    };
    let mut loaded = Loaded { ebpf, hooks };
    let terms = options.here().unwrap_or_default();
    let here = Place::attach(&mut loaded, pins.clone(), options.attach, terms, chosen, all)?;
    let (elsewhere, sites, scout) = attach_elsewhere(&mut loaded, pins, &options.namespaces)?;
    if let Some(older) = older {
        let dialogs = older.retire(&mut maps, &mut plans)?;
        tracing::info!(dialogs, "took over from an older version, with these dialogs whose numbers may be rewritten");
    }
    Ok((Anywhere { loaded, here, elsewhere, sites, scout }, (maps, flows, holds, assists, plans), ring))
}

/// Attaches in the namespaces of groups, as far as they are there. What is pinned for others is taken away.
fn attach_elsewhere(
    loaded: &mut Loaded,
    pins: &Pins,
    groups: &[Group],
) -> Result<(Vec<Elsewhere>, Sites, Scout), KernelError> {
    for name in pins.places().iter().filter(|name| !groups.iter().any(|group| group.name == **name)) {
        tracing::info!(namespace = name, "no longer configured: detached");
        pins.place(name).remove_place()?;
    }
    let (watch, joined) = mpsc::channel();
    let scout = Scout::new(groups, pins, joined);
    let mut sites = Sites::elsewhere(groups.len());
    let mut elsewhere = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        let mut group = Elsewhere::new(number, group.clone(), pins, watch.clone());
        sites.replace(number, group.begin(loaded)?);
        elsewhere.push(group);
    }
    Ok((elsewhere, sites, scout))
}

fn refuse_while_shifting(maps: &Maps) -> Result<(), KernelError> {
    match maps.shifting() {
        0 => Ok(()),
        dialogs => Err(KernelError::Shifting { dialogs }),
    }
}

/// What the entries stand for in the daemon's own namespace.
fn choose(all: &[Interface], terms: Option<&[String]>) -> Result<Chosen, KernelError> {
    let Some(terms) = terms else { return Ok(Chosen::default()) };
    select::check(all, terms)?;
    let routes = if select::follows_routes(terms) { interfaces::default_routes() } else { Ok(Vec::new()) };
    Ok(select::choose(all, &routes.map_err(KernelError::Interfaces)?, terms))
}

fn check_release() -> Result<(), KernelError> {
    match KernelVersion::current() {
        Ok(now) if now < OLDEST => {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            Err(KernelError::TooOld { release })
        }
        // A version that cannot be read is no reason to stop: the verifier has the last word.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether other processes' sockets may be duplicated.
fn may_trace() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(privilege::ACTING))
}

/// Whether the capabilities are there: BPF and PERFMON, which SYS_ADMIN includes, and `others`.
pub(crate) fn check_privilege(others: CapabilitySet) -> Result<(), KernelError> {
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let missing = missing(held, others);
    if missing.is_empty() { Ok(()) } else { Err(KernelError::Privilege { missing: missing.join(", ") }) }
}

fn missing(held: CapabilitySet, others: CapabilitySet) -> Vec<&'static str> {
    let mut wanted = others;
    if !held.contains(CapabilitySet::SYS_ADMIN) {
        wanted |= CapabilitySet::BPF | CapabilitySet::PERFMON;
    }
    let names = [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    ];
    names.into_iter().filter(|(one, _)| wanted.contains(*one) && !held.contains(*one)).map(|(_, name)| name).collect()
}
