//! The two ends of the queue between the dispatcher and a receiver's thread.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use st_core::Event;

use super::{alertmanager, counts::SinkCounts, exec, notice::Notice, post, webhook};
use crate::config::Receiver as Config;

/// How many alerts wait for one receiver; past that the newest are dropped and counted.
pub(super) const QUEUE: usize = 256;

/// How long what runs for the receiver may take to end once it is told to.
const LAST: Duration = Duration::from_millis(500);

/// How long a receiver's thread waits for what, so that tests need not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Before the second attempt.
    pub(super) backoff: Duration,
    /// Between two tellings of an alert that is still firing.
    pub(super) resend: Duration,
}

impl Pace {
    pub(super) const NORMAL: Self = Self { backoff: Duration::from_millis(500), resend: Duration::from_secs(60) };
}

/// What a receiver's thread hears.
#[derive(Clone, Debug)]
pub(super) enum Signal {
    /// To be told.
    Tell(Notice),
    /// It was told a moment ago.
    Repeat(Arc<Event>),
    /// No alert: what it is about may have ended others.
    Over(Arc<Event>),
}

/// The dispatcher's end.
pub(super) struct Sink {
    pub(super) config: Config,
    pub(super) counts: Arc<SinkCounts>,
    signals: SyncSender<Signal>,
    rest: Rest,
}

/// What is left of a receiver that hears nothing any more.
pub(super) struct Rest {
    name: String,
    done: Receiver<Infallible>,
    shared: Arc<Shared>,
    /// Dropping it ends the pauses between attempts.
    stop: SyncSender<Infallible>,
}

#[derive(Default)]
struct Shared {
    /// Alerts that found the queue full and have not been told of.
    untold: AtomicU64,
    /// Whether those that are still queued are given up.
    hurry: AtomicBool,
}

/// The receiver's end.
pub(super) struct Feed {
    signals: Receiver<Signal>,
    stopped: Receiver<Infallible>,
    shared: Arc<Shared>,
    pub(super) counts: Arc<SinkCounts>,
    _finished: SyncSender<Infallible>,
}

/// The receiver's end, for several threads.
#[derive(Clone)]
pub(super) struct SharedFeed {
    feed: Arc<Mutex<Feed>>,
    shared: Arc<Shared>,
    pub(super) counts: Arc<SinkCounts>,
}

impl Sink {
    /// Starts the receiver's threads.
    pub(super) fn start(config: &Config, pace: Pace) -> io::Result<Self> {
        let name = match config {
            Config::Webhook(webhook) => post::name(&webhook.url),
            Config::Alertmanager(manager) => post::name(&manager.url),
            Config::Exec(exec) => exec.command.first().cloned().unwrap_or_default(),
        };
        let counts = SinkCounts::new(format!("{} {name}", config.kind()));
        let (signals, queue) = sync_channel(QUEUE);
        let (finished, done) = sync_channel(0);
        let (stop, stopped) = sync_channel(0);
        let shared = Arc::new(Shared::default());
        let feed = Feed {
            signals: queue,
            stopped,
            shared: Arc::clone(&shared),
            counts: Arc::clone(&counts),
            _finished: finished,
        };
        match config.clone() {
            Config::Webhook(webhook) => {
                spawn("webhook", move || webhook::run(&webhook, &name, pace, &feed))?;
            }
            Config::Alertmanager(manager) => {
                spawn("alertmanager", move || alertmanager::run(&manager, &name, pace, &feed))?;
            }
            Config::Exec(exec) => {
                let exec = Arc::new(exec);
                let feed = SharedFeed {
                    shared: Arc::clone(&feed.shared),
                    counts: Arc::clone(&feed.counts),
                    feed: Arc::new(Mutex::new(feed)),
                };
                for _ in 0..exec.at_once {
                    let (exec, feed) = (Arc::clone(&exec), feed.clone());
                    spawn("alert-exec", move || exec::run(&exec, &feed))?;
                }
            }
        }
        let rest = Rest { name: counts.name.clone(), done, shared, stop };
        Ok(Self { config: config.clone(), counts, signals, rest })
    }

    /// Whether it hears what ends an alert, too.
    pub(super) fn hears_the_end(&self) -> bool {
        matches!(self.config, Config::Alertmanager(_))
    }

    /// Hands it something, or drops that.
    pub(super) fn offer(&self, signal: Signal) {
        SinkCounts::add(&self.counts.queued, 1);
        match self.signals.try_send(signal) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.queued.fetch_sub(1, Relaxed);
                self.drop_one();
            }
        }
    }

    /// Counts one that there was no room for.
    pub(super) fn drop_one(&self) {
        SinkCounts::add(&self.counts.dropped, 1);
        if self.rest.shared.untold.fetch_add(1, Relaxed) == 0 {
            tracing::warn!(receiver = self.rest.name, "too many alerts are waiting: the newest are dropped");
        }
    }

    /// It hears nothing any more; what is queued is still told.
    pub(super) fn close(self) -> Rest {
        self.rest
    }
}

impl Rest {
    /// Whether all is told.
    pub(super) fn is_done(&self) -> bool {
        self.done.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits for what is queued to be told, until then at most, and has the rest given up.
    pub(super) fn finish(self, until: Instant) {
        let Self { name, done, shared, stop } = self;
        let wait = |until: Instant| done.recv_timeout(until.saturating_duration_since(Instant::now()));
        let late = wait(until) == Err(RecvTimeoutError::Timeout);
        if late {
            shared.hurry.store(true, SeqCst);
            tracing::warn!(receiver = name, "the last alerts could not be posted in time");
        }
        drop(stop);
        if late && name.starts_with("exec ") {
            // What it runs is ended.
            let _ = wait(Instant::now() + LAST);
        }
        shared.tell_dropped(&name);
    }
}

impl Shared {
    /// Says how many alerts found the queue full since the last time.
    fn tell_dropped(&self, name: &str) {
        let dropped = self.untold.swap(0, Relaxed);
        if dropped > 0 {
            tracing::warn!(receiver = name, dropped, "alerts were not posted: too many at once");
        }
    }
}

impl Feed {
    /// The next signal, until then; `None`: for ever.
    pub(super) fn next(&self, until: Option<Instant>) -> Result<Signal, RecvTimeoutError> {
        let signal = match until {
            None => self.signals.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => self.signals.recv_timeout(until.saturating_duration_since(Instant::now())),
        }?;
        self.counts.queued.fetch_sub(1, Relaxed);
        self.shared.tell_dropped(&self.counts.name);
        if self.is_hurried() { Err(RecvTimeoutError::Disconnected) } else { Ok(signal) }
    }

    /// Whether what is left is given up.
    pub(super) fn is_hurried(&self) -> bool {
        self.shared.hurry.load(SeqCst)
    }

    /// A pause; false: it is the end.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        self.stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
    }
}

impl SharedFeed {
    /// The next signal.
    pub(super) fn next(&self) -> Option<Signal> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).next(None).ok()
    }

    /// Whether what is left is given up.
    pub(super) fn is_hurried(&self) -> bool {
        self.shared.hurry.load(SeqCst)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(run).map(drop)
}
