//! A program that runs in a host, ended by its own id and never outliving us.

use std::{
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::Host;

/// Lines as they come, for whoever waits for one.
#[derive(Default)]
pub(crate) struct Lines {
    state: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lines so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().0.clone()
    }

    /// Waits until `found` finds something in the lines, or they end, or the time is over.
    pub(crate) fn wait<T>(&self, within: Duration, mut found: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let until = Instant::now() + within;
        let mut state = self.lock();
        loop {
            if let Some(value) = found(&state.0) {
                return Some(value);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                return None;
            }
            state = self.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn read_from(self: Arc<Self>, from: impl Read + Send + 'static) -> JoinHandle<()> {
        thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { break };
                self.lock().0.push(String::from_utf8_lossy(&line).into_owned());
                self.grown.notify_all();
            }
            self.lock().1 = true;
            self.grown.notify_all();
        })
    }
}

/// A running program; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    pub(crate) stdout: Arc<Lines>,
    pub(crate) stderr: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it on the calling thread, whose end would end it too.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: prctl is async-signal-safe, and nothing is allocated between fork and exec.
        unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let (stdout, stderr) = (Arc::<Lines>::default(), Arc::<Lines>::default());
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|pipe| Arc::clone(&stdout).read_from(pipe)));
        readers.extend(child.stderr.take().map(|pipe| Arc::clone(&stderr).read_from(pipe)));
        Ok(Self { name, child, stdout, stderr, readers })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().with_context(|| format!("lost {}", self.name))
    }

    /// Waits for its end; an error with what it said where that takes longer.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().with_context(|| format!("lost {}", self.name))? {
                self.readers.drain(..).for_each(|reader| drop(reader.join()));
                return Ok(status);
            }
            if Instant::now() >= until {
                bail!("{} still runs after {within:?}; it said:\n{}", self.name, self.said());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until something in its host, which is hopefully this program, has a UDP port open; an error where it ends before.
    pub fn opens(&mut self, host: &Host, port: u16, within: Duration) -> Result<()> {
        self.opens_one(host, port, within, Host::listens)
    }

    /// The same of a TCP port.
    pub fn opens_tcp(&mut self, host: &Host, port: u16, within: Duration) -> Result<()> {
        self.opens_one(host, port, within, Host::listens_tcp)
    }

    fn opens_one(&mut self, host: &Host, port: u16, within: Duration, listens: fn(&Host, u16) -> bool) -> Result<()> {
        let until = Instant::now() + within;
        while !listens(host, port) {
            let ended = self.child.try_wait().with_context(|| format!("lost {}", self.name))?;
            if ended.is_some() || Instant::now() > until {
                bail!("{} does not open port {port}: {}\n{}", self.name, self.said(), self.printed());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What it has printed to stdout so far.
    pub fn printed(&self) -> String {
        self.stdout.all().join("\n")
    }

    /// What it has printed to stderr so far.
    pub fn said(&self) -> String {
        self.stderr.all().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
