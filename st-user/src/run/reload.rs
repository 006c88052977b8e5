//! Another configuration while the daemon runs. It is read by a thread of its own, for the disk and the kernel's rtnl lock may take
//! their time, and taken whole or not at all.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use serde_json::json;
use st_core::SessionId;
use tokio::sync::oneshot;
use tracing::{error, info};

use super::{Driver, RunConfig};
use crate::{
    config::{Config, Ports},
    control::protocol::Failure,
    kernel::{Lookout, View},
    privilege,
};

/// Sessions that are looked at in a turn for refreshes that another policy allows.
const LOOKED_AT: usize = 1_024;

/// What waits for the outcome.
type Waiting = oneshot::Sender<Result<Vec<String>, Failure>>;

/// What is read.
type Fresh = Result<(Config, View), Failure>;

/// The reading of another configuration.
#[derive(Default)]
pub(super) struct Reload {
    reading: Option<oneshot::Receiver<Fresh>>,
    /// What was read and is to be taken.
    fresh: Option<Fresh>,
    waiting: Vec<Waiting>,
    /// Who asked while it was being read: the file may have changed since.
    next: Vec<Option<Waiting>>,
    /// Where to go on with the look for refreshes that another policy allows.
    undone: Option<SessionId>,
    /// When the last one was, and why it was not taken.
    last: Option<(String, Option<String>)>,
}

impl Reload {
    /// Until there is something to take; where nothing is read, for ever.
    pub(super) async fn read(&mut self) {
        match &mut self.reading {
            Some(reading) => {
                let lost = |_| Err(Failure::new("not_read", "the thread that reads the configuration has failed"));
                self.fresh = Some(reading.await.unwrap_or_else(lost));
                self.reading = None;
            }
            None => std::future::pending().await,
        }
    }

    pub(super) fn status(&self) -> serde_json::Value {
        match &self.last {
            Some((time, error)) => json!({ "time": time, "error": error }),
            None => serde_json::Value::Null,
        }
    }

    /// Whether the loop has more to do for it.
    pub(super) fn is_busy(&self) -> bool {
        self.fresh.is_some() || self.undone.is_some()
    }
}

impl Driver<'_> {
    /// Begins to read the configuration anew.
    pub(super) fn reload(&mut self, by: &str, reply: Option<Waiting>) {
        if self.reload.reading.is_some() || self.reload.fresh.is_some() {
            return self.reload.next.push(reply);
        }
        info!(by, "reading the configuration anew");
        self.notify.reloading();
        self.reload.waiting.extend(reply);
        match self.begin_to_read() {
            Ok(reading) => self.reload.reading = Some(reading),
            Err(failure) => self.reload.fresh = Some(Err(failure)),
        }
    }

    fn begin_to_read(&self) -> Result<oneshot::Receiver<Fresh>, Failure> {
        let Some(file) = self.config.file.clone() else {
            return Err(Failure::new("no_file", "this sipst was not started from a file"));
        };
        let lookout = self.kernel.lookout().with_routes();
        let (send, reading) = oneshot::channel();
        let start = || {
            let read = move || drop(send.send(read(&file, &lookout)));
            thread::Builder::new().name("reload".into()).spawn(read).map(drop)
        };
        privilege::without_any(start)
            .flatten()
            .map(|()| reading)
            .map_err(|error| Failure::new("no_thread", format!("no thread can be started: {error}")))
    }

    /// Takes what was read, and goes on with what follows from it.
    pub(super) fn take_up(&mut self) {
        if let Some(fresh) = self.reload.fresh.take() {
            let taken = fresh.and_then(|(config, view)| self.apply(config, view));
            let time = self.clock.now();
            let time = self.clock.wall(time).to_string();
            match &taken {
                Ok(changes) => info!("the configuration was taken: {}", changes.join("; ")),
                Err(failure) => error!("the configuration was NOT taken, the one before stays: {}", failure.message),
            }
            self.measure.metrics.reloaded(taken.is_ok());
            self.reload.last = Some((time, taken.as_ref().err().map(|failure| failure.message.clone())));
            self.notify.status(match &taken {
                Ok(_) => "the last reload was taken",
                Err(_) => "the last reload was NOT taken: see the log",
            });
            self.notify.ready();
            for reply in self.reload.waiting.drain(..) {
                // Who asked may be gone.
                let _ = reply.send(taken.clone());
            }
            let next = std::mem::take(&mut self.reload.next);
            if !next.is_empty() {
                self.reload("an operator who asked meanwhile", None);
                self.reload.waiting.extend(next.into_iter().flatten());
            }
        }
        if let Some(from) = self.reload.undone {
            let now = self.clock.now();
            self.reload.undone = self.engine.handle_policy(now, from, LOOKED_AT);
            self.outputs();
        }
    }

    /// All of it or nothing. Returns what has changed, for people.
    fn apply(&mut self, config: Config, view: View) -> Result<Vec<String>, Failure> {
        let wanted = RunConfig::new(&config, self.config.file.clone());
        self.refuse_fixed(&wanted)?;
        let listener = self.measure.other(&wanted.metrics).map_err(|error| Failure::new("refused", error))?;
        let before = &self.config.options;
        let mut changes = Vec::new();
        let (ports, opaque) = (&wanted.options.ports, &wanted.options.opaque_ports);
        if before.ports != *ports || before.opaque_ports != *opaque {
            self.kernel.set_ports([ports, opaque]).map_err(|error| refused(&error))?;
        }
        if before.ports != *ports {
            changes.push(format!("ports: {}", joined(ports)));
        }
        if before.opaque_ports != *opaque {
            changes.push(format!("ports that cannot be read: {}", joined(opaque)));
        }
        if before.interfaces != wanted.options.interfaces && before.namespaces.is_empty() {
            match self.kernel.set_interfaces(&wanted.options.interfaces, view) {
                Ok(done) => changes.extend(done),
                Err(error) => {
                    // They could be set a moment ago.
                    let _ = self.kernel.set_ports([&before.ports, &before.opaque_ports]);
                    return Err(refused(&error));
                }
            }
        }
        if self.config.policy != wanted.policy {
            self.engine.set_policy(Arc::clone(&wanted.policy));
            self.kernel.assists.follow(&wanted.policy);
            self.outputs();
            self.reload.undone = Some(SessionId(0));
            changes.push("trunks, defaults, rates and limits: they hold for every call from its next moment on".into());
        }
        match self.sink.reconfigure(&config) {
            Ok(done) => changes.extend(done),
            Err(error) => changes.push(format!("where alerts go is as before: {error}")),
        }
        self.trace.keep(wanted.metrics.page);
        changes.extend(self.measure.show_page(wanted.metrics.page));
        changes.extend(self.measure.take(listener));
        self.config = wanted;
        if changes.is_empty() {
            changes.push("nothing has changed".into());
        }
        Ok(changes)
    }

    fn refuse_fixed(&self, wanted: &RunConfig) -> Result<(), Failure> {
        let fixed = self.config.fixed_against(wanted);
        if fixed.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} cannot change while sipst runs: what that takes was given up once it read. `systemctl restart sipst` takes the new \
             configuration, and calls live through it",
            fixed.join(", ")
        );
        Err(Failure::new("needs_restart", message))
    }
}

fn read(file: &Path, lookout: &Lookout) -> Fresh {
    let config = Config::load_here(file).map_err(|error| Failure::new("bad_configuration", error.to_string()))?;
    let view = lookout.look().map_err(|error| {
        Failure::new("bad_configuration", format!("the interfaces of this host cannot be listed: {error}"))
    })?;
    Ok((config, view))
}

fn refused(error: &crate::kernel::KernelError) -> Failure {
    Failure::new("refused", crate::output::chain(error))
}

fn joined(ports: &[Ports]) -> String {
    ports.iter().map(Ports::to_string).collect::<Vec<_>>().join(", ")
}

impl RunConfig {
    /// What differs that was settled with capabilities that are given up, or that calls stand upon, and why that is so.
    pub(crate) fn fixed_against(&self, wanted: &Self) -> Vec<String> {
        let now = self;
        let fixed = [
            ("namespaces", now.options.namespaces != wanted.options.namespaces, "what entering them takes was settled"),
            ("attach", now.options.attach != wanted.options.attach, "the programs were loaded for it"),
            ("pin_dir", now.options.pin_dir != wanted.options.pin_dir, "the programs are pinned there"),
            ("state_dir", now.state_dir != wanted.state_dir, "the calls are kept there"),
            ("any_port", now.options.any_port != wanted.options.any_port, "the programs were loaded for it"),
            ("recorder", now.options.recording != wanted.options.recording, "the programs were loaded for it"),
            (
                "tcp",
                now.options.acting != wanted.options.acting,
                "whether the programs that this takes are called was settled",
            ),
            ("control", now.control != wanted.control, "the socket was made and given to its group"),
        ];
        fixed.iter().filter(|(_, differs, _)| *differs).map(|(key, _, why)| format!("`{key}` ({why})")).collect()
    }

    /// From a configuration, and the file that it was read from.
    pub fn new(config: &Config, file: Option<PathBuf>) -> Self {
        Self {
            options: crate::kernel::Options {
                interfaces: config.interfaces.clone(),
                namespaces: config.namespaces.clone(),
                attach: config.attach,
                ports: config.ports.clone(),
                opaque_ports: config.opaque_ports.clone(),
                any_port: config.any_port,
                pin_dir: config.pin_dir.clone(),
                recording: config.recorder.is_some(),
                acting: config.policy.may_any_over_tcp(),
            },
            policy: Arc::new(config.policy.clone()),
            state_dir: config.state_dir.clone(),
            control: config.control.clone(),
            metrics: config.metrics.clone(),
            file,
        }
    }
}
