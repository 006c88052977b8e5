//! What outlives the daemon: maps and links, pinned in a directory of their own on a bpf file system.
//!
//! ```text
//! <pin_dir>/v<ABI version>/maps/NAME
//!                          links/IFNAME-ingress
//!                          links/IFNAME-egress
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

use super::{KernelError, bpf, maps::SHAPES};

/// The place where bpf file systems are mounted.
const BPFFS: &str = "/sys/fs/bpf";

/// How deep other pin directories are looked for.
const MAX_DEPTH: usize = 4;

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

/// A link in the pin directory.
#[derive(Debug)]
pub(crate) struct PinnedLink {
    pub(crate) path: PathBuf,
    pub(crate) interface: String,
    pub(crate) side: Side,
    pub(crate) info: bpf::LinkInfo,
}

/// The pin directory of this ABI version.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    parent: PathBuf,
    root: PathBuf,
}

impl Pins {
    pub(crate) fn new(pin_dir: &Path) -> Self {
        Self::of(pin_dir, abi::VERSION)
    }

    /// Those of another ABI version.
    pub(crate) fn of(pin_dir: &Path, version: u32) -> Self {
        Self { parent: pin_dir.to_owned(), root: pin_dir.join(format!("v{version}")) }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    pub(crate) fn link(&self, interface: &str, side: Side) -> PathBuf {
        self.root.join("links").join(format!("{}-{}", interface.replace('.', ":"), side.name()))
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
        for directory in ["maps", "links"] {
            let path = self.root.join(directory);
            fs::create_dir_all(&path).map_err(|source| KernelError::PinDir { path, source })?;
        }
        self.lock()
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

    /// The links that are there. Those that the kernel no longer knows are left out.
    pub(crate) fn links(&self) -> Vec<PinnedLink> {
        let entries = fs::read_dir(self.root.join("links")).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries.filter_map(|entry| pinned_link(entry.path())).collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// The links that other pin directories on the usual bpf file system hold.
    pub(crate) fn links_elsewhere(&self) -> Vec<PinnedLink> {
        let mut found = Vec::new();
        let mut directories = vec![(PathBuf::from(BPFFS), 0)];
        while let Some((directory, depth)) = directories.pop() {
            let is_ours = directory.file_name().is_some_and(|name| name == "links");
            for path in fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() && depth < MAX_DEPTH && path != self.root {
                    directories.push((path, depth + 1));
                } else if is_ours {
                    found.extend(pinned_link(path));
                }
            }
        }
        found
    }

    /// Takes a link off its interface and out of the directory.
    pub(crate) fn drop_link(path: &Path) -> Result<(), KernelError> {
        let failed = |source| KernelError::PinDir { path: path.to_owned(), source };
        match bpf::RawLink::open(path).and_then(|link| link.detach()) {
            Ok(()) => {}
            // Its interface is gone, or it is none: nothing is attached.
            Err(error) => tracing::debug!(path = %path.display(), %error, "a pinned link that is attached to nothing"),
        }
        fs::remove_file(path).or_else(|error| if missing(&error) { Ok(()) } else { Err(error) }).map_err(failed)
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

    /// Takes the links of another version's directory over: they stay attached, with the program that is in them.
    pub(crate) fn take_links(&self, other: &Self) -> Result<(), KernelError> {
        for link in other.links() {
            let to = self.link(&link.interface, link.side);
            fs::rename(&link.path, &to).map_err(|source| KernelError::PinDir { path: to, source })?;
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
    let mut links = 0;
    for entry in fs::read_dir(root.join("links")).into_iter().flatten().flatten() {
        Pins::drop_link(&entry.path())?;
        links += 1;
    }
    for entry in fs::read_dir(root.join("maps")).into_iter().flatten().flatten() {
        let path = entry.path();
        fs::remove_file(&path).map_err(|source| KernelError::PinDir { path, source })?;
    }
    for path in [root.join("links"), root.join("maps"), root.to_owned()] {
        match fs::remove_dir(&path) {
            Ok(()) => {}
            Err(error) if missing(&error) => {}
            Err(source) => return Err(KernelError::PinDir { path, source }),
        }
    }
    Ok(links)
}

fn pinned_link(path: PathBuf) -> Option<PinnedLink> {
    let (interface, side) = path.file_name()?.to_str()?.rsplit_once('-')?;
    let side = [Side::Ingress, Side::Egress].into_iter().find(|one| one.name() == side)?;
    let interface = interface.replace(':', ".");
    let info = bpf::RawLink::open(&path).and_then(|link| link.info()).ok()?;
    Some(PinnedLink { path, interface, side, info })
}

fn missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
