//! The thread between the daemon's loop and the receivers: what is told, to whom.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Instant,
};

use st_core::Event;

use super::{
    alertmanager::may_end,
    counts::SinkCounts,
    limits::{Limits, Verdict},
    notice::Notice,
    sink::{Signal, Sink},
};

/// What the loop and the dispatcher know together.
#[derive(Default)]
pub(super) struct Shared {
    /// Events that wait for the dispatcher.
    pub(super) waiting: AtomicUsize,
    /// Alerts of one trunk that are told in a minute; 0: any number.
    pub(super) rate: AtomicU32,
    /// Whether there is any receiver.
    pub(super) any: AtomicBool,
    /// Whether one of them hears of what ends an alert.
    pub(super) ends: AtomicBool,
    pub(super) sinks: Mutex<Vec<Sink>>,
}

impl Shared {
    /// Whether anybody wants to hear of an event.
    pub(super) fn wants(&self, event: &Event) -> bool {
        self.any.load(Relaxed) && (event.kind.is_alert() || self.ends.load(Relaxed) && may_end(event.kind))
    }

    /// The receivers. Nobody holds them for longer than it takes to hand something over.
    pub(super) fn sinks(&self) -> std::sync::MutexGuard<'_, Vec<Sink>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands on what comes, until nothing comes any more.
pub(super) fn run(events: &Receiver<Arc<Event>>, shared: &Shared) {
    let mut limits = Limits::default();
    loop {
        let event = match limits.due() {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => events.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        let ended = event == Err(RecvTimeoutError::Disconnected);
        if let Ok(event) = event {
            shared.waiting.fetch_sub(1, SeqCst);
            hand_on(&mut limits, event, shared);
        }
        for more in limits.over(Instant::now(), ended) {
            let notice = Notice::More(Arc::new(more));
            for sink in shared.sinks().iter() {
                sink.offer(Signal::Tell(notice.clone()));
            }
        }
        if ended {
            return;
        }
    }
}

fn hand_on(limits: &mut Limits, event: Arc<Event>, shared: &Shared) {
    if !event.kind.is_alert() {
        for sink in shared.sinks().iter().filter(|sink| sink.hears_the_end()) {
            sink.offer(Signal::Over(Arc::clone(&event)));
        }
        return;
    }
    let rate = Some(shared.rate.load(Relaxed)).filter(|rate| *rate > 0);
    let verdict = limits.verdict(&event, rate, Instant::now());
    for sink in shared.sinks().iter() {
        match verdict {
            Verdict::Tell => sink.offer(Signal::Tell(Notice::Alert(Arc::clone(&event)))),
            // It may have ended meanwhile, and fires anew then.
            Verdict::Repeat if sink.hears_the_end() => sink.offer(Signal::Repeat(Arc::clone(&event))),
            Verdict::Repeat | Verdict::Fold => SinkCounts::add(&sink.counts.folded, 1),
        }
    }
}
