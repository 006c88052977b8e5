//! What the page is fed with: one look at the sessions for all who watch them, and one at each call that somebody has open. Who reads
//! slowly is sent the latest and not what was before it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http_body_util::{BodyExt as _, channel::Channel, channel::Sender};
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use st_core::{SessionId, engine::Standing};
use tokio::{sync::watch, time::sleep};

use crate::{
    control::{
        asker::{Asker, Nearest},
        protocol::{Failure, Only, Row},
        server::Ask,
        show,
    },
    http::Body,
};

pub(super) const EVENTS: &str = "text/event-stream";

/// Sessions that are shown: those with the nearest deadlines.
pub(crate) const ROWS: usize = 200;

/// How often is looked, at most.
const EVERY: Duration = Duration::from_secs(1);

/// How many times as long as a look took is waited until the next, so that it costs the daemon's loop a twentieth at most.
const SPARED: u32 = 20;

/// How often a reader to whom nothing is new hears that all is well.
const BEAT: Duration = Duration::from_secs(10);

/// How long it is not looked for further dialogs of an open call.
const FORKS: Duration = Duration::from_secs(10);

/// The farthest deadline that is looked for before all are.
const FAR_S: u64 = 7 * 86_400;

/// Frames that wait for a reader, beside the one that is being written.
const WAITING: usize = 1;

/// The page, and who watches it.
#[derive(Debug)]
pub(crate) struct Page {
    on: AtomicBool,
    asker: Asker,
    /// The latest look at all; `None` while nobody watches.
    latest: watch::Sender<Option<Bytes>>,
    /// Whether somebody looks.
    looks: Mutex<bool>,
}

impl Page {
    pub(crate) fn new(asker: Asker, on: bool) -> Arc<Self> {
        Arc::new(Self { on: on.into(), asker, latest: watch::Sender::new(None), looks: Mutex::new(false) })
    }

    /// Shows it from now on, or shows it nobody any more.
    pub(crate) fn switch(&self, on: bool) {
        self.on.store(on, Relaxed);
        if !on {
            self.latest.send_replace(None);
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// The sessions, as they change.
    pub(super) fn all(self: Arc<Self>) -> Body {
        let (sender, body) = Channel::new(WAITING);
        let latest = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            let latest = self.latest.subscribe();
            if !std::mem::replace(&mut *looks, true) {
                tokio::spawn(Arc::clone(&self).look());
            }
            latest
        };
        tokio::spawn(async move { self.feed(Feed(sender), latest).await });
        body.boxed_unsync()
    }

    /// Until it is switched off or the reader is gone.
    async fn feed(&self, mut feed: Feed, mut latest: watch::Receiver<Option<Bytes>>) {
        while self.is_on() {
            let look = latest.borrow_and_update().clone();
            if let Some(look) = look
                && (!feed.now().await || !feed.send(look).await)
            {
                return;
            }
            loop {
                tokio::select! {
                    changed = latest.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    () = sleep(BEAT) => if !feed.now().await {
                        return;
                    },
                }
            }
        }
    }

    /// For as long as anybody watches.
    async fn look(self: Arc<Self>) {
        let mut within = None;
        loop {
            let began = Instant::now();
            let look = self.sessions(&mut within).await;
            let failed = look.is_err();
            if let Some(look) = look.ok().filter(|_| self.is_on()) {
                self.latest.send_if_modified(|latest| {
                    let differs = latest.as_ref() != Some(&look);
                    if differs {
                        *latest = Some(look);
                    }
                    differs
                });
            }
            pause(began).await;
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            if failed || self.latest.receiver_count() == 0 {
                *looks = false;
                self.latest.send_replace(None);
                return;
            }
        }
    }

    /// One look: the sessions with the nearest deadlines, and how many there are in all. `within` narrows the next one to what is
    /// shown of it, so that of many sessions most are passed over unread.
    async fn sessions(&self, within: &mut Option<u64>) -> Result<Bytes, Failure> {
        let only = Only { due_within_s: *within, ..Only::default() };
        let Nearest { rows, found } = self.asker.nearest(only, ROWS).await?;
        let census = self.asker.census().await?;
        *within = narrowed(*within, &rows, found);
        let states = Standing::ALL.iter().zip(census.states);
        let states: serde_json::Map<_, _> = states.map(|(state, count)| (state.name().into(), count.into())).collect();
        let rows: Vec<Value> = rows.into_iter().map(timeless).collect();
        Ok(event("sessions", &json!({ "sessions": rows, "states": states, "held": census.held })))
    }

    /// One call, as it goes on.
    pub(super) fn one(self: Arc<Self>, call_id: String) -> Body {
        let (sender, body) = Channel::new(WAITING);
        tokio::spawn(async move { self.follow(Feed(sender), call_id).await });
        body.boxed_unsync()
    }

    async fn follow(&self, mut feed: Feed, call_id: String) {
        let (mut last, mut told) = (Bytes::new(), Instant::now());
        let (mut dialogs, mut sought): (Vec<SessionId>, Option<Instant>) = (Vec::new(), None);
        while self.is_on() {
            let began = Instant::now();
            if dialogs.is_empty() || sought.is_none_or(|at| at.elapsed() >= FORKS) {
                let Ok(found) = self.asker.dialogs(&call_id).await else { return };
                (dialogs, sought) = (found, Some(began));
            }
            let Ok(look) = self.call(&call_id, &dialogs).await else { return };
            if look != last {
                if !feed.now().await || !feed.send(look.clone()).await {
                    return;
                }
                (last, told) = (look, Instant::now());
            } else if told.elapsed() >= BEAT {
                if !feed.now().await {
                    return;
                }
                told = Instant::now();
            }
            pause(began).await;
        }
    }

    async fn call(&self, call_id: &str, dialogs: &[SessionId]) -> Result<Bytes, Failure> {
        let mut calls = Vec::new();
        for &session in dialogs {
            let call = self.asker.ask(|reply| Ask::Show { session, reply }).await?;
            calls.extend(call.map(|call| {
                let outlook = show::outlook(&call);
                let mut call = timeless(*call);
                call["outlook"] = outlook.into();
                call
            }));
        }
        let call_id = call_id.to_owned();
        let messages = self.asker.ask(|reply| Ask::Trace { call_id, reply }).await?;
        Ok(event("call", &json!({ "calls": calls, "messages": messages })))
    }
}

/// What is looked for next, after a look has found so many.
fn narrowed(within: Option<u64>, rows: &[Row], found: usize) -> Option<u64> {
    let farthest = rows.last().and_then(|row| row.left_s);
    match (within, farthest) {
        (_, Some(left)) if found > 4 * ROWS => Some(left.max(0.0) as u64 + 60),
        (Some(within), _) if found < ROWS => Some(within.saturating_mul(2)).filter(|within| *within < FAR_S),
        (within, _) => within,
    }
}

/// Without what differs at each look for no other reason than that time goes by: the page counts by itself.
fn timeless(row: impl Serialize) -> Value {
    let mut value = serde_json::to_value(row).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        for name in ["age_s", "left_s", "heard"] {
            fields.remove(name);
        }
    }
    value
}

/// JSON has no line ends of its own.
fn event(name: &str, data: &Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

async fn pause(began: Instant) {
    sleep(EVERY.max(began.elapsed() * SPARED)).await;
}

/// A reader.
struct Feed(Sender<Bytes>);

impl Feed {
    /// Whether it is still there. Waits until it has read what was before.
    async fn send(&mut self, bytes: Bytes) -> bool {
        self.0.send_data(bytes).await.is_ok()
    }

    /// Tells what the clock of this host says, in milliseconds.
    async fn now(&mut self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.send(format!("event: now\ndata: {now}\n\n").into()).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::mpsc, task::yield_now};

    use super::*;

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_sent_the_latest_and_not_all_that_was_before() {
        const LOOKS: usize = 1_000;
        // Nobody answers: the looks are the test's own.
        let (send, _asks) = mpsc::channel(1);
        let page = Page::new(Asker::new(send), true);
        let mut body = Arc::clone(&page).all();
        for number in 0..=LOOKS {
            page.latest.send_replace(Some(event("sessions", &number.into())));
            yield_now().await;
        }
        let mut looks = 0;
        loop {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            looks += usize::from(frame.starts_with(b"event: sessions"));
            if frame == event("sessions", &LOOKS.into()) {
                break;
            }
        }
        assert!(looks <= WAITING + 3, "{looks} of {LOOKS} were kept for it");
    }

    #[test]
    fn the_next_look_is_at_those_that_are_shown_as_long_as_there_are_so_many() {
        let row = |left_s: Option<f64>| {
            let row = serde_json::json!({
                "call_id": "c", "local_tag": "l", "remote_tag": "r", "server": "192.0.2.1:5060", "peer": "203.0.113.1:5060",
                "trunk": "t", "action": "alert", "state": "running", "caller": "server", "started": "", "age_s": 7, "heard": "",
                "left_s": left_s
            });
            serde_json::from_value::<Row>(row).unwrap()
        };
        assert_eq!(narrowed(None, &[row(Some(90.0))], ROWS), None);
        assert_eq!(narrowed(None, &[row(Some(90.0))], 4 * ROWS + 1), Some(150));
        assert_eq!(narrowed(None, &[row(Some(-5.0))], 4 * ROWS + 1), Some(60));
        assert_eq!(narrowed(None, &[row(None)], 4 * ROWS + 1), None);
        assert_eq!(narrowed(Some(150), &[row(Some(140.0))], ROWS), Some(150));
        assert_eq!(narrowed(Some(150), &[row(Some(140.0))], ROWS - 1), Some(300));
        assert_eq!(narrowed(Some(FAR_S), &[], 0), None);
    }
}
