//! The daemon's side of the control socket. Every client has a task, which asks the daemon's loop for a piece at a time and writes
//! it out before it asks for the next: so whoever reads slowly waits, and the loop never does.

use std::{
    io,
    os::unix::net::UnixListener as StdListener,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::json;
use st_core::{
    Event, SessionId,
    engine::{Denial, Wish},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, UCred},
    },
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    asker::{Asker, Nearest, ending},
    protocol::{Answer, Call, Failure, MAX_ORDERED, MAX_REQUEST, Only, OnlyEvents, Order, Request, Row},
    socket::Bound,
};
use crate::page::trace::Step;

/// Clients at a time; further ones are told so and sent away.
pub(crate) const MAX_CLIENTS: usize = 32;

/// Questions that wait for the loop; who has one more waits in its own task.
const ASKS: usize = 64;

/// Events that wait for one client; past that the newest are lost to it, and counted.
pub(crate) const EVENTS: usize = 1_024;

/// Sessions that one question looks at, and the most that it shows.
pub(crate) const LOOKED_AT: usize = 1_024;
pub(crate) const SHOWN: usize = 128;

/// How many sessions are shown in the order of their deadlines where nothing is said.
const ORDERED: usize = 1_000;

/// How long a client may say nothing.
const IDLE: Duration = Duration::from_secs(60);

/// How long it may take nothing of what it is sent, events apart.
const STUCK: Duration = Duration::from_secs(30);

/// What is asked of the daemon's loop, and where the answer goes.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A piece of the sessions from one on.
    Page { from: SessionId, only: Arc<Only>, reply: oneshot::Sender<Page> },
    /// The same, only counted.
    Census { from: SessionId, census: Census, reply: oneshot::Sender<(Census, Option<SessionId>)> },
    /// All that is known of one.
    Show { session: SessionId, reply: oneshot::Sender<Option<Box<Call>>> },
    /// The messages of a call that were seen lately.
    Trace { call_id: String, reply: oneshot::Sender<Vec<Step>> },
    /// Something is to be done in one.
    Wish { session: SessionId, wish: Wish, by: String, reply: oneshot::Sender<Result<(), Denial>> },
    /// The events that are kept.
    Kept { only: OnlyEvents, reply: oneshot::Sender<Vec<String>> },
    /// Those that come.
    Follow { follower: Follower },
    /// How the daemon does, but for what a census tells.
    Status { reply: oneshot::Sender<serde_json::Value> },
    /// The configuration is to be read anew.
    Reload { by: String, reply: oneshot::Sender<Result<Vec<String>, Failure>> },
}

/// A piece of the sessions.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) rows: Vec<(SessionId, Row)>,
    /// Where the next one begins; `None`: there is none.
    pub(crate) next: Option<SessionId>,
}

/// Sessions, counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    /// By the place of their state in [`st_core::engine::Standing::ALL`].
    pub(crate) states: [u64; st_core::engine::Standing::ALL.len()],
    pub(crate) held: u64,
    pub(crate) unsure: u64,
    /// The nearest deadline that has not passed, in seconds.
    pub(crate) next_s: Option<f64>,
}

/// A client that follows the events.
#[derive(Debug)]
pub(crate) struct Follower {
    only: OnlyEvents,
    lines: mpsc::Sender<Arc<str>>,
    lost: Arc<AtomicU64>,
}

/// The socket, and what comes in by it.
pub(crate) struct Control {
    asks: mpsc::Receiver<Ask>,
    /// For whoever asks by another way than the socket.
    asker: Asker,
    /// One that was taken while the loop was at rest.
    next: Option<Ask>,
    followers: Vec<Follower>,
    clients: Arc<AtomicUsize>,
    lost: u64,
    listens: Option<(Bound, JoinHandle<()>)>,
}

impl Control {
    /// Begins to listen.
    ///
    /// # Errors
    /// The listener cannot be waited for.
    pub(crate) fn start(socket: Option<(Bound, StdListener)>) -> io::Result<Self> {
        let (send, asks) = mpsc::channel(ASKS);
        let asker = Asker::new(send);
        let clients = Arc::new(AtomicUsize::new(0));
        let listens = match socket {
            Some((bound, listener)) => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                Some((bound, tokio::spawn(listen(listener, asker.clone(), Arc::clone(&clients)))))
            }
            None => None,
        };
        Ok(Self { asks, asker, next: None, followers: Vec::new(), clients, lost: 0, listens })
    }

    /// Where questions are put by another way than the socket.
    pub(crate) fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Until something is asked; where nobody can ask, for ever.
    pub(crate) async fn asked(&mut self) {
        if self.next.is_some() {
            return;
        }
        match self.asks.recv().await {
            Some(ask) => self.next = Some(ask),
            None => std::future::pending().await,
        }
    }

    /// The next question.
    pub(crate) fn take(&mut self) -> Option<Ask> {
        self.next.take().or_else(|| self.asks.try_recv().ok())
    }

    pub(crate) fn follow(&mut self, follower: Follower) {
        self.followers.push(follower);
    }

    /// Hands an event to whoever follows.
    pub(crate) fn event(&mut self, event: &Event) {
        if self.followers.is_empty() {
            return;
        }
        let mut line: Option<Arc<str>> = None;
        let lost = &mut self.lost;
        self.followers.retain(|follower| {
            if !follower.only.covers(event) {
                return !follower.lines.is_closed();
            }
            if line.is_none() {
                line = serde_json::to_string(event).ok().map(|event| format!("{{\"event\":{event}}}\n").into());
            }
            let Some(line) = &line else { return true };
            match follower.lines.try_send(Arc::clone(line)) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    follower.lost.fetch_add(1, Relaxed);
                    *lost += 1;
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
    }

    /// How many clients there are, and how many events were lost to such as read too slowly.
    pub(crate) fn counts(&self) -> (usize, u64) {
        (self.clients.load(Relaxed), self.lost)
    }

    /// The daemon ends: nobody is listened to any more.
    pub(crate) fn close(&mut self) {
        if let Some((bound, task)) = self.listens.take() {
            task.abort();
            drop(bound);
        }
        self.asks.close();
        self.next = None;
        while self.asks.try_recv().is_ok() {}
        self.followers.clear();
    }
}

/// A client's place; it is free again when this is dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(clients: &Arc<AtomicUsize>) -> Option<Self> {
        let free = |taken| (taken < MAX_CLIENTS).then_some(taken + 1);
        clients.fetch_update(Relaxed, Relaxed, free).ok().map(|_| Self(Arc::clone(clients)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn listen(listener: UnixListener, asks: Asker, clients: Arc<AtomicUsize>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match Place::take(&clients) {
                Some(place) => drop(tokio::spawn(serve(stream, asks.clone(), place))),
                None => turn_away(&stream),
            },
            Err(error) => {
                tracing::warn!(%error, "the control socket takes no client just now");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// One line, if it fits into the socket's buffer, which is empty.
fn turn_away(stream: &UnixStream) {
    let message = format!(
        "{MAX_CLIENTS} clients are connected, and there can be no more: end one (`ss -xp` tells which there are)"
    );
    if let Ok(line) = line(&Answer::Error(Failure::new("too_many_clients", message))) {
        let _ = stream.try_write(line.as_bytes());
    }
}

fn line(answer: &Answer) -> io::Result<String> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    Ok(line)
}

/// Why a client is served no longer, or one request is not.
enum End {
    /// It is to be told.
    Told(Failure),
    /// It is gone, or stuck.
    Gone,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Told(failure)
    }
}

async fn serve(stream: UnixStream, asks: Asker, place: Place) {
    let by = stream.peer_cred().map_or_else(|_| "unknown".into(), |peer| named(&peer));
    let (read, write) = stream.into_split();
    let mut client = Client { read: BufReader::new(read), write, asks, by, _place: place };
    // What is wrong with a client concerns nobody else.
    let _ = client.serve().await;
}

/// Who is at the other end, for the log.
fn named(peer: &UCred) -> String {
    let process = peer.pid().map_or(String::new(), |pid| format!(", process {pid}"));
    format!("user {}{process}", peer.uid())
}

struct Client {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    asks: Asker,
    by: String,
    _place: Place,
}

impl Client {
    /// Request after request, until it goes.
    async fn serve(&mut self) -> io::Result<()> {
        let mut request = Vec::new();
        loop {
            request.clear();
            let mut limited = (&mut self.read).take(MAX_REQUEST as u64 + 1);
            let Ok(read) = timeout(IDLE, limited.read_until(b'\n', &mut request)).await else { return Ok(()) };
            if read? == 0 {
                return Ok(());
            }
            if request.last() != Some(&b'\n') && request.len() > MAX_REQUEST {
                let message = format!("a request has {MAX_REQUEST} bytes at most");
                return self.say(&Answer::Error(Failure::new("too_long", message))).await;
            }
            let done = match serde_json::from_slice::<Request>(&request) {
                Ok(request) => self.answer(request).await,
                Err(error) => Err(Failure::new("bad_request", format!("this is no request: {error}")).into()),
            };
            match done {
                Ok(done) => self.say(&Answer::Done(done)).await?,
                Err(End::Told(failure)) => self.say(&Answer::Error(failure)).await?,
                Err(End::Gone) => return Ok(()),
            }
        }
    }

    async fn answer(&mut self, request: Request) -> Result<serde_json::Value, End> {
        match request {
            Request::Status {} => self.status().await,
            Request::Sessions { only, order, limit } => {
                if let Some(fault) = only.fault() {
                    return Err(Failure::new("bad_request", fault).into());
                }
                match order {
                    Order::Age => self.by_age(only, limit).await,
                    Order::Deadline => self.by_deadline(only, limit.unwrap_or(ORDERED)).await,
                }
            }
            Request::Show { call_id } => self.show(call_id).await,
            Request::Refresh { call_id } => self.wish(call_id, Wish::Refresh).await,
            Request::Hold { call_id } => self.wish(call_id, Wish::Hold).await,
            Request::Release { call_id } => self.wish(call_id, Wish::Release).await,
            Request::Events { only, follow: false } => {
                let kept = self.asks.ask(|reply| Ask::Kept { only, reply }).await?;
                for line in &kept {
                    self.write(line.as_bytes()).await?;
                }
                Ok(json!({ "events": kept.len() }))
            }
            Request::Events { only, follow: true } => self.follow(only).await,
            Request::Reload {} => {
                let by = self.by.clone();
                let changes = self.asks.ask(|reply| Ask::Reload { by, reply }).await??;
                Ok(json!({ "changes": changes }))
            }
        }
    }

    async fn say(&mut self, answer: &Answer) -> io::Result<()> {
        let line = line(answer)?;
        self.write(line.as_bytes()).await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(STUCK, self.write.write_all(bytes)).await?
    }

    async fn status(&mut self) -> Result<serde_json::Value, End> {
        let mut status = self.asks.ask(|reply| Ask::Status { reply }).await?;
        let census = self.asks.census().await?;
        let states = st_core::engine::Standing::ALL.iter().zip(census.states);
        let states: serde_json::Map<_, _> = states.map(|(state, count)| (state.name().into(), count.into())).collect();
        status["sessions"] = json!({
            "states": states,
            "held": census.held,
            "unsure": census.unsure,
            "next_deadline_s": census.next_s,
        });
        Ok(status)
    }

    async fn by_age(&mut self, only: Only, limit: Option<usize>) -> Result<serde_json::Value, End> {
        let only = Arc::new(only);
        let (mut next, mut shown) = (Some(SessionId(0)), 0);
        let limit = limit.unwrap_or(usize::MAX);
        while let Some(from) = next {
            let page = self.asks.page(from, &only).await?;
            for (_, row) in page.rows {
                if shown == limit {
                    return Ok(json!({ "sessions": shown, "more": true }));
                }
                self.say(&Answer::Session(Box::new(row))).await?;
                shown += 1;
            }
            next = page.next;
        }
        Ok(json!({ "sessions": shown, "more": false }))
    }

    async fn by_deadline(&mut self, only: Only, limit: usize) -> Result<serde_json::Value, End> {
        if limit > MAX_ORDERED {
            let message =
                format!("`limit` is {MAX_ORDERED} at most in the order of deadlines; `order: age` has no limit");
            return Err(Failure::new("bad_request", message).into());
        }
        let Nearest { rows, found } = self.asks.nearest(only, limit).await?;
        for row in rows {
            self.say(&Answer::Session(Box::new(row))).await?;
        }
        Ok(json!({ "sessions": found.min(limit), "more": found > limit, "found": found }))
    }

    /// The dialogs of a call; one at least.
    async fn dialogs(&mut self, call_id: String) -> Result<Vec<SessionId>, End> {
        let dialogs = self.asks.dialogs(&call_id).await?;
        if dialogs.is_empty() {
            let message = format!(
                "no call has the Call-ID `{call_id}`: `sipst sessions` lists those that there are (it takes the whole Call-ID)"
            );
            return Err(Failure::new("no_such_call", message).into());
        }
        Ok(dialogs)
    }

    async fn show(&mut self, call_id: String) -> Result<serde_json::Value, End> {
        let mut shown = 0;
        for session in self.dialogs(call_id).await? {
            if let Some(call) = self.asks.ask(|reply| Ask::Show { session, reply }).await? {
                self.say(&Answer::Call(call)).await?;
                shown += 1;
            }
        }
        Ok(json!({ "dialogs": shown }))
    }

    /// Does something in all dialogs of a call that are up; what one of them does not allow is told where none does.
    async fn wish(&mut self, call_id: String, wish: Wish) -> Result<serde_json::Value, End> {
        let (mut done, mut denied) = (0, None);
        for session in self.dialogs(call_id).await? {
            let by = self.by.clone();
            match self.asks.ask(|reply| Ask::Wish { session, wish, by, reply }).await? {
                Ok(()) => done += 1,
                // One that is over is no obstacle to what is wanted in another.
                Err(denial @ (Denial::Gone | Denial::Over)) => drop(denied.get_or_insert(denial)),
                Err(denial) => denied = Some(denial),
            }
        }
        match denied.filter(|_| done == 0) {
            Some(denial) => Err(Failure::new(denial.word(), denial.to_string()).into()),
            None => Ok(json!({ "dialogs": done })),
        }
    }

    async fn follow(&mut self, only: OnlyEvents) -> Result<serde_json::Value, End> {
        let (lines, mut queue) = mpsc::channel::<Arc<str>>(EVENTS);
        let lost = Arc::new(AtomicU64::new(0));
        let follower = Follower { only, lines, lost: Arc::clone(&lost) };
        self.asks.put(Ask::Follow { follower }).await?;
        loop {
            let line = tokio::select! {
                line = queue.recv() => line,
                // Whatever it says now, it is not listened to; that it goes is heard.
                read = self.read.fill_buf() => match read?.len() {
                    0 => return Err(End::Gone),
                    read => {
                        self.read.consume(read);
                        continue;
                    }
                },
            };
            let Some(line) = line else { return Err(ending().into()) };
            self.write.write_all(line.as_bytes()).await?;
            // They would have come behind those that waited.
            let lost = if queue.is_empty() { lost.swap(0, Relaxed) } else { 0 };
            if lost > 0 {
                let line = self::line(&Answer::Lost(lost))?;
                self.write.write_all(line.as_bytes()).await?;
            }
        }
    }
}
