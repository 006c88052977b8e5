//! Alerts: to the log at once; to webhooks, an Alertmanager and programs from threads of their own. The loop hands events to a
//! dispatcher, which tells each receiver what is new, and never waits for any of them.

mod alertmanager;
mod counts;
mod dispatcher;
mod exec;
mod limits;
mod notice;
mod post;
mod sink;
#[cfg(test)]
mod tests;
mod webhook;

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use st_core::Event;

use crate::{config::Alerting, sink::EventSink};
pub use counts::{Counts, SinkCounts};
use dispatcher::Shared;
pub(crate) use notice::word;
use sink::{Pace, Rest, Sink};

/// How many alerts wait for the dispatcher; past that the newest are dropped.
const QUEUE: usize = 4_096;

/// How much more room there is for what ends an alert: it must not be lost among alerts.
const ENDS: usize = 4_096;

/// Raises alerts.
pub struct Alerts {
    events: SyncSender<Arc<Event>>,
    shared: Arc<Shared>,
    counts: Counts,
    /// Receivers that a reload has taken away, and which are not at their end.
    retired: Vec<Rest>,
    done: Receiver<Infallible>,
    pace: Pace,
    is_told: bool,
}

impl Alerts {
    /// Starts the threads of the dispatcher and of all receivers.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(config: &Alerting) -> io::Result<Self> {
        Self::start_with(config, Pace::NORMAL)
    }

    fn start_with(config: &Alerting, pace: Pace) -> io::Result<Self> {
        let (events, queue) = sync_channel(QUEUE + ENDS);
        let (finished, done) = sync_channel::<Infallible>(0);
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("alerts".into()).spawn(move || {
            dispatcher::run(&queue, &theirs);
            drop(finished);
        })?;
        let mut alerts =
            Self { events, shared, counts: Counts::default(), retired: Vec::new(), done, pace, is_told: false };
        alerts.reconfigure(config)?;
        Ok(alerts)
    }

    /// Takes other receivers. Those that stay know on of what fires; what is queued for those that go is still told.
    ///
    /// # Errors
    /// The system has no thread left; all is as before.
    pub fn reconfigure(&mut self, config: &Alerting) -> io::Result<()> {
        let mut fresh = Vec::new();
        {
            let sinks = self.shared.sinks();
            for receiver in &config.receivers {
                if !sinks.iter().any(|sink| sink.config == *receiver) {
                    fresh.push(Sink::start(receiver, self.pace)?);
                }
            }
        }
        let mut sinks = self.shared.sinks();
        let (mut kept, gone): (Vec<_>, Vec<_>) =
            sinks.drain(..).partition(|sink| config.receivers.contains(&sink.config));
        kept.append(&mut fresh);
        self.shared.rate.store(config.rate.unwrap_or(0), Relaxed);
        self.shared.any.store(!kept.is_empty(), Relaxed);
        self.shared.ends.store(kept.iter().any(Sink::hears_the_end), Relaxed);
        self.counts.set(kept.iter().map(|sink| Arc::clone(&sink.counts)).collect());
        *sinks = kept;
        drop(sinks);
        self.retired.retain(|rest| !rest.is_done());
        self.retired.extend(gone.into_iter().map(Sink::close));
        Ok(())
    }

    /// Whether alerts are told where the log goes by other means, and need not be in the log too.
    pub fn leave_out_of_the_log(&mut self, is_told: bool) {
        self.is_told = is_told;
    }

    /// What became of the alerts, for each receiver.
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Tells what is queued, for at most `wait` in all, and gives up the rest.
    pub fn finish(self, wait: Duration) {
        let until = Instant::now() + wait;
        let Self { events, shared, mut retired, done, .. } = self;
        drop(events);
        // It waits for nobody, so this is a moment.
        let _ = done.recv_timeout(wait);
        retired.extend(shared.sinks().drain(..).map(Sink::close));
        for rest in retired {
            rest.finish(until);
        }
    }
}

impl EventSink for Alerts {
    fn event(&mut self, event: &Event) {
        if event.kind.is_alert()
            && !self.is_told
            && let Ok(body) = serde_json::to_string(event)
        {
            tracing::warn!("alert {body}");
        }
        if !self.shared.wants(event) {
            return;
        }
        let waiting = self.shared.waiting.fetch_add(1, SeqCst);
        let room = waiting < QUEUE || !event.kind.is_alert();
        if !room || self.events.try_send(Arc::new(event.clone())).is_err() {
            self.shared.waiting.fetch_sub(1, SeqCst);
            self.shared.sinks().iter().for_each(Sink::drop_one);
        }
    }
}
