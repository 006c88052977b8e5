//! A host: a thread with its own network and mounts. What is opened or started there stays there; all of it vanishes
//! with the thread, and so with this process however it ends.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    process::Command,
    sync::{
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::Process;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace and a mount namespace, with a thread that lives in both.
pub struct Host {
    name: String,
    tid: i32,
    wires: AtomicU8,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// A host without any wire yet: loopback up, an empty bpffs on `/sys/fs/bpf`, an empty `/run`. Needs root.
    pub fn new(name: &str) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let result = separate();
                let good = result.is_ok();
                if ready.send(result).is_ok() && good {
                    queue.into_iter().for_each(|job| job());
                }
            })
            .context("cannot start a thread")?;
        let tid = made.recv().context("the host's thread ended at once")?.with_context(|| {
            format!("cannot make the host {name}: network and mount namespaces need root (CAP_SYS_ADMIN)")
        })?;
        let host = Self { name: name.into(), tid, wires: AtomicU8::new(0), jobs: Some(jobs), thread: Some(thread) };
        host.run("ip", &["link", "set", "lo", "up"])?;
        Ok(host)
    }

    /// Its name, in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of its thread: `/proc/<tid>/ns` leads to its namespaces.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// The number of the next wire.
    pub(crate) fn next_wire(&self) -> u8 {
        self.wires.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs a closure on the host's own thread; sockets that it makes stay in this host. A panic goes on in the caller.
    pub fn enter<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            // Whoever asked may have given up; that is not this thread's concern.
            let _ = done.send(catch_unwind(AssertUnwindSafe(f)));
        });
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        match (sent, result.recv()) {
            (Some(Ok(())), Ok(Ok(value))) => value,
            (_, Ok(Err(panic))) => resume_unwind(panic),
            _ => panic!("the thread of host {} is gone", self.name),
        }
    }

    /// Starts a program in this host. It is killed when the [`Process`] is dropped, or with this process.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        self.enter(move || Process::spawn(command))
    }

    /// Runs a program to its end and returns what it printed; an error, with what it said, unless it succeeds.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(args);
        let text = format!("{program} {}", args.join(" "));
        let output = self
            .enter(move || command.output())
            .with_context(|| format!("cannot run `{text}`: `cargo xtask setup` brings the programs that are needed"))?;
        if !output.status.success() {
            bail!("{}: `{text}` failed: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Writes a file that only this host has, and tells where.
    pub fn file(&self, name: &str, contents: impl Into<Vec<u8>>) -> Result<PathBuf> {
        let path = PathBuf::from("/run").join(name);
        let (to, contents) = (path.clone(), contents.into());
        self.enter(move || std::fs::write(&to, contents))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Reads a file as this host has it.
    pub fn read(&self, path: impl Into<PathBuf>) -> Result<Vec<u8>> {
        let path = path.into();
        let from = path.clone();
        self.enter(move || std::fs::read(&from)).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Whether anything in this host has a UDP port open.
    pub fn listens(&self, port: u16) -> bool {
        ["udp", "udp6"].iter().any(|table| {
            let table = self.read(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
            String::from_utf8_lossy(&table).contains(&format!(":{port:04X} "))
        })
    }

    /// Whether anything in this host waits for connections at a TCP port.
    pub fn listens_tcp(&self, port: u16) -> bool {
        ["tcp", "tcp6"].iter().any(|table| {
            let table = self.read(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
            let waits = |line: &str| line.contains(&format!(":{port:04X} ")) && line.contains(" 0A ");
            String::from_utf8_lossy(&table).lines().any(waits)
        })
    }

    /// The names in a directory as this host has it; none where there is no such directory.
    pub fn list(&self, path: impl Into<PathBuf>) -> Vec<String> {
        let path = path.into();
        self.enter(move || {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Gives the calling thread a network and mounts of its own; returns its id.
fn separate() -> Result<i32> {
    // SAFETY: the file descriptor table stays shared; own mounts and network concern this thread alone, and no code
    // that runs elsewhere relies on this thread's.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }.context("unshare")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).context("private mounts")?;
    // A sysfs shows the network of whoever mounted it.
    mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).context("mount /sys")?;
    mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None).context("mount /sys/fs/bpf")?;
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).context("mount /run")?;
    Ok(rustix::thread::gettid().as_raw_nonzero().get())
}
