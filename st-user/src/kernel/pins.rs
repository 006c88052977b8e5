//! What outlives the daemon: maps and links, pinned in a directory of their own on a bpf file system.
//!
//! ```text
//! <pin_dir>/v<ABI version>/maps/NAME
//!                          links/IFNAME-ingress
//!                          links/IFNAME-egress
//!                          filters/IFNAME-ingress    without TCX: the program that is in a filter
//!                          filters/IFNAME-egress
//!                          filters/IFNAME-qdisc      the filters' qdisc was added by sipst
//!                          places/GROUP/links/...    the same for another network namespace
//! ```
//!
//! bpf file systems allow no dot in a name: `eth0.100` is written `eth0:100`, as no interface's name has a colon.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FlockOperation, Mode, OFlags},
    io::Errno,
    mount::{MountFlags, mount},
};
use st_ebpf::abi;

use super::{
    KernelError,
    bpf::{self, LinkInfo, LinkKind},
    filters, interfaces,
    maps::SHAPES,
};

const LINKS: &str = "links";
const FILTERS: &str = "filters";
const MAPS: &str = "maps";
const PLACES: &str = "places";

/// The place where bpf file systems are mounted.
const BPFFS: &str = "/sys/fs/bpf";

/// How deep other pin directories are looked for.
const MAX_DEPTH: usize = 6;

/// `f_type` of a bpf file system.
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// Which way the packets of a link go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Ingress,
    Egress,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A link in the pin directory, or the program of a filter.
#[derive(Debug)]
pub(crate) struct PinnedLink {
    pub(crate) path: PathBuf,
    pub(crate) interface: String,
    pub(crate) side: Side,
    pub(crate) info: LinkInfo,
}

/// The pin directory of this ABI version.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    parent: PathBuf,
    root: PathBuf,
    /// Where links and filters are: `root`, or below it for another network namespace.
    base: PathBuf,
}

impl Pins {
    pub(crate) fn new(pin_dir: &Path) -> Self {
        Self::of(pin_dir, abi::VERSION)
    }

    /// Those of another ABI version.
    pub(crate) fn of(pin_dir: &Path, version: u32) -> Self {
        let root = pin_dir.join(format!("v{version}"));
        Self { parent: pin_dir.to_owned(), base: root.clone(), root }
    }

    /// Those of another network namespace, that of a group of this name. The maps are the same.
    pub(crate) fn place(&self, name: &str) -> Self {
        Self { base: self.root.join(PLACES).join(name), ..self.clone() }
    }

    /// The names of the groups for whose namespaces anything is pinned.
    pub(crate) fn places(&self) -> Vec<String> {
        let all = entries(&self.root.join(PLACES)).into_iter();
        let mut names: Vec<String> = all.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        names.sort();
        names
    }

    /// Takes away what is pinned for this namespace, and nothing else.
    pub(crate) fn remove_place(&self) -> Result<usize, KernelError> {
        let links = drop_all(&self.base)?;
        if self.base != self.root {
            remove_directories(&[self.base.join(LINKS), self.base.join(FILTERS), self.base.clone()])?;
        }
        Ok(links)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join(MAPS).join(name)
    }

    pub(crate) fn link(&self, interface: &str, side: Side) -> PathBuf {
        self.base.join(LINKS).join(pin_name(interface, side.name()))
    }

    pub(crate) fn filter(&self, interface: &str, side: Side) -> PathBuf {
        self.base.join(FILTERS).join(pin_name(interface, side.name()))
    }

    pub(crate) fn qdisc(&self, interface: &str) -> PathBuf {
        self.base.join(FILTERS).join(pin_name(interface, "qdisc"))
    }

    /// Whether all maps are pinned.
    pub(crate) fn complete(&self) -> bool {
        SHAPES.iter().all(|(name, ..)| self.map(name).exists())
    }

    /// Mounts the bpf file system if it must, makes the directories, and sees to it that nobody else holds them.
    pub(crate) fn prepare(&self) -> Result<Lock, KernelError> {
        if self.root.to_string_lossy().contains('.') {
            let source = io::Error::other("names on a bpf file system must have no dot");
            return Err(KernelError::PinDir { path: self.parent.clone(), source });
        }
        self.mount()?;
        for directory in [MAPS, LINKS] {
            make(self.root.join(directory))?;
        }
        self.lock()
    }

    /// Makes the directory for a namespace's links.
    pub(crate) fn prepare_place(&self) -> Result<(), KernelError> {
        make(self.base.join(LINKS))
    }

    /// Holds the directory as long as the result lives.
    pub(crate) fn lock(&self) -> Result<Lock, KernelError> {
        let failed = |error: Errno| KernelError::PinDir { path: self.root.clone(), source: error.into() };
        let directory =
            rustix::fs::openat(CWD, &self.root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { directory }),
            Err(Errno::WOULDBLOCK) => Err(KernelError::Busy { path: self.root.clone() }),
            Err(error) => Err(failed(error)),
        }
    }

    /// The links and filters that are there. Links that the kernel no longer knows are left out.
    pub(crate) fn links(&self) -> Vec<PinnedLink> {
        let mut found: Vec<_> = held(&self.base).filter_map(pinned_link).collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// The links that other pin directories on the usual bpf file system hold.
    pub(crate) fn links_elsewhere(&self) -> Vec<PinnedLink> {
        let mut found = Vec::new();
        let mut directories = vec![(PathBuf::from(BPFFS), 0)];
        while let Some((directory, depth)) = directories.pop() {
            let is_ours = directory.file_name().is_some_and(|name| name == LINKS || name == FILTERS);
            for path in entries(&directory) {
                if path.is_dir() && depth < MAX_DEPTH && path != self.root {
                    directories.push((path, depth + 1));
                } else if is_ours {
                    found.extend(pinned_link(path));
                }
            }
        }
        found
    }

    /// Takes a link or a filter off its interface and out of the directory.
    pub(crate) fn drop_link(path: &Path) -> Result<(), KernelError> {
        let failed = |source| KernelError::PinDir { path: path.to_owned(), source };
        if is_filter(path) {
            return drop_filter(path).map_err(failed);
        }
        match bpf::Pinned::open(path).and_then(|link| link.detach()) {
            Ok(()) => {}
            // Its interface is gone, or it is none: nothing is attached.
            Err(error) => tracing::debug!(path = %path.display(), %error, "a pinned link that is attached to nothing"),
        }
        unpin(path).map_err(failed)
    }

    /// Takes everything of this version away: links, maps, directories. Returns how many links there were.
    pub(crate) fn remove(&self) -> Result<usize, KernelError> {
        let links = remove_version(&self.root)?;
        // Stays where another version lives in it.
        let _ = fs::remove_dir(&self.parent);
        Ok(links)
    }

    /// The same for every version.
    pub(crate) fn remove_all(&self) -> Result<usize, KernelError> {
        let mut links = 0;
        for root in self.versions()? {
            links += remove_version(&root)?;
        }
        let _ = fs::remove_dir(&self.parent);
        Ok(links)
    }

    /// The directory of another ABI version, if there is one.
    pub(crate) fn other_version(&self) -> Result<Option<PathBuf>, KernelError> {
        Ok(self.versions()?.into_iter().find(|path| *path != self.root))
    }

    /// The number of the other ABI version, if there is one.
    pub(crate) fn other_number(&self) -> Result<Option<u32>, KernelError> {
        let other = self.other_version()?;
        let number = other.as_ref().and_then(|path| path.file_name()?.to_str()?.strip_prefix('v'));
        // What is no number of 32 bits is newer than anything.
        Ok(number.map(|number| number.parse().unwrap_or(u32::MAX)))
    }

    /// Takes the links and filters of another version's directory over: they stay attached, with the program that is in them.
    pub(crate) fn take_links(&self, other: &Self) -> Result<(), KernelError> {
        let mut pairs = vec![(other.root.clone(), self.root.clone())];
        pairs.extend(other.places().iter().map(|name| (other.place(name).base, self.place(name).base)));
        for (from, to) in pairs {
            for directory in [LINKS, FILTERS] {
                let (from, to) = (from.join(directory), to.join(directory));
                let moved = entries(&from).into_iter().try_for_each(|path| {
                    fs::create_dir_all(&to)?;
                    fs::rename(&path, to.join(path.file_name().unwrap_or_default()))
                });
                moved.map_err(|source| KernelError::PinDir { path: to, source })?;
            }
        }
        Ok(())
    }

    fn versions(&self) -> Result<Vec<PathBuf>, KernelError> {
        let entries = match fs::read_dir(&self.parent) {
            Ok(entries) => entries,
            Err(error) if missing(&error) => return Ok(Vec::new()),
            Err(source) => return Err(KernelError::PinDir { path: self.parent.clone(), source }),
        };
        let is_version = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix('v'));
            name.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        };
        Ok(entries.flatten().map(|entry| entry.path()).filter(is_version).collect())
    }

    fn mount(&self) -> Result<(), KernelError> {
        if on_bpffs(&self.root) {
            return Ok(());
        }
        let failed = |source| KernelError::NoBpffs { path: self.parent.clone(), source };
        if !self.root.starts_with(BPFFS) {
            return Err(failed(io::Error::other(format!("it is not below {BPFFS}"))));
        }
        // For root alone, as systemd mounts it.
        match mount("bpf", BPFFS, "bpf", MountFlags::empty(), c"mode=700") {
            Ok(()) => {}
            Err(Errno::NODEV) => return Err(KernelError::NoBpf),
            Err(error) => return Err(failed(error.into())),
        }
        tracing::info!("mounted a bpf file system on {BPFFS}");
        Ok(())
    }
}

/// Keeps a second daemon away.
#[derive(Debug)]
pub(crate) struct Lock {
    directory: OwnedFd,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do while a child that has not come to its exec holds a copy.
        let _ = rustix::fs::flock(&self.directory, FlockOperation::Unlock);
    }
}

/// Whether the path, or the nearest directory above it that exists, is on a bpf file system.
fn on_bpffs(path: &Path) -> bool {
    let nearest = path.ancestors().find(|path| path.exists());
    nearest.and_then(|path| rustix::fs::statfs(path).ok()).is_some_and(|found| found.f_type as u64 == BPFFS_MAGIC)
}

fn remove_version(root: &Path) -> Result<usize, KernelError> {
    let mut links = drop_all(root)?;
    for place in entries(&root.join(PLACES)) {
        links += drop_all(&place)?;
        remove_directories(&[place.join(LINKS), place.join(FILTERS), place])?;
    }
    for path in [FILTERS, MAPS].into_iter().flat_map(|directory| entries(&root.join(directory))) {
        fs::remove_file(&path).map_err(|source| KernelError::PinDir { path, source })?;
    }
    let parts = [LINKS, FILTERS, MAPS, PLACES].map(|directory| root.join(directory));
    remove_directories(&parts)?;
    remove_directories(&[root.to_owned()])?;
    Ok(links)
}

/// Takes what is pinned there off its interfaces; how many there were.
fn drop_all(base: &Path) -> Result<usize, KernelError> {
    let mut links = 0;
    for path in held(base) {
        Pins::drop_link(&path)?;
        links += 1;
    }
    Ok(links)
}

fn remove_directories(paths: &[PathBuf]) -> Result<(), KernelError> {
    for path in paths {
        match fs::remove_dir(path) {
            Ok(()) => {}
            Err(error) if missing(&error) => {}
            Err(source) => return Err(KernelError::PinDir { path: path.clone(), source }),
        }
    }
    Ok(())
}

fn make(path: PathBuf) -> Result<(), KernelError> {
    fs::create_dir_all(&path).map_err(|source| KernelError::PinDir { path, source })
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// What is pinned for links and filters.
fn held(root: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let all = [LINKS, FILTERS].map(|directory| entries(&root.join(directory)));
    all.into_iter().flatten().filter(|path| place(path).is_some())
}

fn pin_name(interface: &str, what: &str) -> String {
    format!("{}-{what}", interface.replace('.', ":"))
}

/// The interface and the side that a pin's name tells.
fn place(path: &Path) -> Option<(String, Side)> {
    let (interface, side) = path.file_name()?.to_str()?.rsplit_once('-')?;
    let side = [Side::Ingress, Side::Egress].into_iter().find(|one| one.name() == side)?;
    Some((interface.replace(':', "."), side))
}

fn pinned_link(path: PathBuf) -> Option<PinnedLink> {
    let (interface, side) = place(&path)?;
    let pinned = bpf::Pinned::open(&path).ok()?;
    let info = if is_filter(&path) {
        let program = pinned.program().ok()?;
        let holds = |index: &u32| filters::program(*index, side).is_ok_and(|there| there == Some(program));
        let interface = interfaces::index(&interface).ok()?.filter(holds).unwrap_or(0);
        LinkInfo { kind: Some(LinkKind::Filter), id: 0, program, interface }
    } else {
        pinned.info().ok()?
    };
    Some(PinnedLink { path, interface, side, info })
}

fn is_filter(path: &Path) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|directory| directory == FILTERS)
}

/// Takes a filter off its interface, unless another program is in its place; after the last one the qdisc, if sipst has
/// added that.
fn drop_filter(path: &Path) -> io::Result<()> {
    let Some((interface, side)) = place(path) else { return unpin(path) };
    let index = interfaces::index(&interface)?;
    if let Some(index) = index {
        filters::take(index, side, bpf::Pinned::open(path)?.program()?)?;
    }
    unpin(path)?;
    let beside = |what| path.with_file_name(pin_name(&interface, what));
    let (qdisc, last) =
        (beside("qdisc"), [Side::Ingress, Side::Egress].iter().all(|side| !beside(side.name()).exists()));
    if last && qdisc.exists() {
        index.map_or(Ok(()), filters::take_qdisc)?;
        unpin(&qdisc)?;
    }
    Ok(())
}

fn unpin(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| if missing(&error) { Ok(()) } else { Err(error) })
}

fn missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
