//! Which network namespace is meant: a file's, a process's, or a container's by its name. Containers are found by what their runtimes keep
//! on disk (Docker, containerd and with it nerdctl and Kubernetes, podman, CRI-O); no daemon is asked, and nothing but root's files are
//! read.

mod docker;
mod oci;
#[cfg(test)]
mod tests;

use std::{
    fmt, fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::kernel::is_like;

/// The longest file of a runtime's that is read.
const MAX_FILE: u64 = 4 << 20;

/// How many containers of one runtime are looked at.
const MAX_CONTAINERS: usize = 4_096;

/// `f_type` of a namespace's file.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// What names a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file that stands for it, as `ip netns` makes them.
    File(PathBuf),
    /// A process in it.
    Process(u32),
    /// A container, by its name or a pattern of it.
    Container(String),
}

/// A namespace as it was found. Another one is never equal to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighted {
    /// By its file.
    File {
        /// Where.
        path: PathBuf,
        /// The device and the inode of what is there.
        identity: (u64, u64),
    },
    /// By a process.
    Process {
        /// Its id.
        pid: u32,
        /// When it was started, in clock ticks since the boot.
        started: u64,
    },
}

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Container {
    /// What it may be called by.
    names: Vec<String>,
    /// Its network.
    network: Network,
    /// What says so.
    state: PathBuf,
}

/// What a runtime says of a container's network.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Network {
    /// The host's own.
    Host,
    /// A file stands for it; or else a process is in it.
    Own { file: Option<PathBuf>, pid: Option<u32> },
}

impl Network {
    /// Whether it is the same: by the file that stands for it, where there is one, whichever process is told beside it.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Own { file: Some(one), .. }, Self::Own { file: Some(other), .. }) => one == other,
            (one, other) => one == other,
        }
    }
}

/// Finds a namespace again and again.
#[derive(Debug)]
pub struct Finder {
    target: Target,
    /// The directory that stands for `/`.
    root: PathBuf,
    /// Where a container was found the last time: it is looked at first.
    last: Option<PathBuf>,
}

impl Target {
    /// A finder on this host.
    pub fn finder(&self) -> Finder {
        Finder { target: self.clone(), root: "/".into(), last: None }
    }
}

impl Finder {
    /// The namespace, or why there is none, for people.
    pub fn find(&mut self) -> Result<Sighted, String> {
        match &self.target {
            Target::File(path) => by_file(path).map_err(|error| format!("{}: {error}", path.display())),
            Target::Process(pid) => by_process(*pid),
            Target::Container(pattern) => {
                let known = self.last.take().and_then(|state| read_again(&self.root, &state, pattern));
                let container = match known {
                    Some(container) => container,
                    None => only_one(all(&self.root, pattern), pattern)?,
                };
                let sighted = container.sighted(pattern)?;
                self.last = Some(container.state);
                Ok(sighted)
            }
        }
    }
}

impl Container {
    fn is_called(&self, pattern: &str) -> bool {
        self.names.iter().any(|name| is_like(pattern, name))
    }

    fn sighted(&self, pattern: &str) -> Result<Sighted, String> {
        match &self.network {
            Network::Host => Err(format!(
                "container {pattern} has the host's network: use `interfaces` in the place of `namespaces` for it ({})",
                self.state.display()
            )),
            Network::Own { file: Some(path), pid } => by_file(path).or_else(|error| match pid {
                Some(pid) => by_process(*pid),
                None => Err(format!("container {pattern}: {}: {error}", path.display())),
            }),
            Network::Own { file: None, pid: Some(pid) } => by_process(*pid),
            Network::Own { file: None, pid: None } => {
                Err(format!("container {pattern}: nothing tells its network ({})", self.state.display()))
            }
        }
    }
}

/// All running containers that are called like that.
fn all(root: &Path, pattern: &str) -> Vec<Container> {
    let mut found: Vec<Container> = docker::all(root).chain(oci::all(root)).collect();
    found.retain(|container| container.is_called(pattern));
    found
}

/// The same container, from the same file; `None` where it is no longer that, or does not run.
fn read_again(root: &Path, state: &Path, pattern: &str) -> Option<Container> {
    let container = docker::read(root, state).or_else(|| oci::read(root, state))?;
    container.is_called(pattern).then_some(container)
}

/// One group has one namespace. Containers of one pod share theirs.
fn only_one(mut found: Vec<Container>, pattern: &str) -> Result<Container, String> {
    let Some(first) = found.pop() else {
        return Err(format!(
            "no container that runs is called {pattern} (Docker, containerd, podman and CRI-O were looked at)"
        ));
    };
    let other = found.iter().find(|other| !other.network.is(&first.network));
    match other {
        None => Ok(first),
        Some(other) => Err(format!(
            "several containers are called {pattern} ({}; {}): say which by a longer name",
            first.names.join(", "),
            other.names.join(", ")
        )),
    }
}

fn by_file(path: &Path) -> io::Result<Sighted> {
    if let Some(pid) = process_of(path) {
        return by_process(pid).map_err(io::Error::other);
    }
    let found = fs::metadata(path)?;
    let kind = rustix::fs::statfs(path)?.f_type;
    if kind as u64 != NSFS_MAGIC {
        return Err(io::Error::other("it stands for no namespace"));
    }
    Ok(Sighted::File { path: path.to_owned(), identity: (found.dev(), found.ino()) })
}

/// The process in a path `/proc/PID/ns/net`, whose file only those may look at who may look into the process.
fn process_of(path: &Path) -> Option<u32> {
    let pid = path.strip_prefix("/proc").ok()?.to_str()?.strip_suffix("/ns/net")?;
    pid.parse().ok()
}

fn by_process(pid: u32) -> Result<Sighted, String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    let stat = stat.map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            format!("there is no process {pid}")
        } else {
            format!("process {pid}: {error}")
        }
    })?;
    // The name in parentheses may hold anything; the state comes next, and the start 19 fields later (proc_pid_stat(5)).
    let mut fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).ok_or("/proc is none")?;
    let state = fields.next();
    let started = fields.nth(18).and_then(|field| field.parse().ok());
    match (state, started) {
        (Some("Z" | "X"), _) => Err(format!("process {pid} has ended")),
        (_, Some(started)) => Ok(Sighted::Process { pid, started }),
        (_, None) => Err(format!("process {pid}: its start cannot be read")),
    }
}

impl Sighted {
    /// The file to open.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::File { path, .. } => path.clone(),
            Self::Process { pid, .. } => format!("/proc/{pid}/ns/net").into(),
        }
    }

    /// Whether an open file is of this namespace: between the look and the opening another may have come. A process is looked at
    /// once more.
    pub fn is(&self, opened: &fs::File) -> io::Result<bool> {
        match self {
            Self::File { identity, .. } => Ok(opened.metadata().map(|found| (found.dev(), found.ino()))? == *identity),
            Self::Process { pid, .. } => Ok(by_process(*pid).as_ref() == Ok(self)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Container(name) => write!(f, "container {name}"),
        }
    }
}

/// The JSON of a runtime's file; `None` where it cannot be read, is none or is too long.
fn json(path: &Path) -> Option<Value> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MAX_FILE + 1).read_to_string(&mut text).ok()?;
    if text.len() as u64 > MAX_FILE {
        tracing::debug!(path = %path.display(), "longer than any runtime writes");
        return None;
    }
    serde_json::from_str(&text).ok()
}

/// The directories in one, as many as are looked at.
fn directories(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).take(MAX_CONTAINERS)
}

/// A path of the host's, below the directory that stands for `/`.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
