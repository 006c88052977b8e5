//! The listener and its connections. Each is a task with a place, a time for its request and a time for its answer; a reader that takes
//! nothing is left. One request a connection.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;

use super::routes::{Found, Lasts, Reply, Routes, text};

/// Connections at a time; further ones are told so and closed.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// Of these, answers that go on for as long as somebody reads them: the rest stays for those who ask and go.
pub(crate) const MAX_STREAMS: usize = 32;

/// A request's first line and headers, in bytes (the least that hyper takes), and how many headers.
pub(crate) const MAX_REQUEST: usize = 8_192;
pub(crate) const MAX_HEADERS: usize = 64;

/// How long a request may take to come in.
const ASKING: Duration = Duration::from_secs(5);

/// How long a handler may take.
const ANSWERING: Duration = Duration::from_secs(10);

/// How long a reader may take nothing of what it is sent.
const STUCK: Duration = Duration::from_secs(10);

/// How long a connection may last whose answer is no stream.
const SHORT: Duration = Duration::from_secs(30);

/// The times that a connection is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) asking: Duration,
    pub(crate) answering: Duration,
    pub(crate) stuck: Duration,
    pub(crate) short: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { asking: ASKING, answering: ANSWERING, stuck: STUCK, short: SHORT }
    }
}

/// Why nothing can be asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub(crate) enum ListenError {
    #[error("another program listens on {address} already: end it, or name another `metrics.listen`")]
    InUse { address: SocketAddr },
    #[error("{address} is no address of this host: name another `metrics.listen`")]
    NotHere { address: SocketAddr },
    #[error("`metrics.listen` {address} cannot be listened on")]
    Other {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// What the server counts, for whoever shows it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Connections that there are.
    pub(crate) connections: AtomicUsize,
    /// Of these, streams.
    pub(crate) streams: AtomicUsize,
    /// Connections and streams that found no place.
    pub(crate) refused: AtomicU64,
    /// Requests that were answered.
    pub(crate) requests: AtomicU64,
    /// Connections that ended for want of a request, a reader or time.
    pub(crate) broken: AtomicU64,
}

/// A listener. Dropped, nobody is listened to any more, and every connection ends.
pub(crate) struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
    _open: watch::Sender<()>,
}

impl Server {
    /// Listens, without taking anybody in.
    ///
    /// # Errors
    /// It cannot, and why.
    pub(crate) fn bind(address: SocketAddr) -> Result<StdListener, ListenError> {
        let bound = StdListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        bound.map_err(|source| {
            let kind = source.kind();
            if kind == io::ErrorKind::AddrInUse {
                ListenError::InUse { address }
            } else if kind == io::ErrorKind::AddrNotAvailable {
                ListenError::NotHere { address }
            } else {
                ListenError::Other { address, source }
            }
        })
    }

    /// Takes in who comes.
    ///
    /// # Errors
    /// The listener cannot be waited for.
    pub(crate) fn start(listener: StdListener, routes: Arc<Routes>, counts: Arc<Counts>) -> io::Result<Self> {
        Self::start_with(listener, routes, counts, Times::default())
    }

    pub(crate) fn start_with(
        listener: StdListener,
        routes: Arc<Routes>,
        counts: Arc<Counts>,
        times: Times,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let (open, closed) = watch::channel(());
        let task = tokio::spawn(listen(listener, Site { routes, counts, times, closed }));
        Ok(Self { address, task, _open: open })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What every connection has in common.
#[derive(Clone)]
struct Site {
    routes: Arc<Routes>,
    counts: Arc<Counts>,
    times: Times,
    /// Fails once the server is dropped.
    closed: watch::Receiver<()>,
}

/// A place among so many; it is free again when this is dropped.
struct Place<F: Fn(&Counts) -> &AtomicUsize>(Arc<Counts>, F);

impl<F: Fn(&Counts) -> &AtomicUsize> Place<F> {
    fn take(counts: &Arc<Counts>, which: F, most: usize) -> Option<Self> {
        let free = |taken| (taken < most).then_some(taken + 1);
        if which(counts).fetch_update(Relaxed, Relaxed, free).is_err() {
            counts.refused.fetch_add(1, Relaxed);
            return None;
        }
        Some(Self(Arc::clone(counts), which))
    }
}

impl<F: Fn(&Counts) -> &AtomicUsize> Drop for Place<F> {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Relaxed);
    }
}

async fn listen(listener: TcpListener, site: Site) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match Place::take(&site.counts, |counts| &counts.connections, MAX_CONNECTIONS) {
                Some(place) => {
                    let site = site.clone();
                    tokio::spawn(async move {
                        serve(stream, site).await;
                        drop(place);
                    });
                }
                None => turn_away(&stream),
            },
            Err(error) => {
                tracing::warn!(%error, "the metrics address takes nobody in just now");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// One short answer, if it fits into the socket's buffer, which is empty.
fn turn_away(stream: &TcpStream) {
    let body = format!("{MAX_CONNECTIONS} connections are open, and there can be no more\n");
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(answer.as_bytes());
}

async fn serve(stream: TcpStream, site: Site) {
    let Site { times, counts, closed: mut closing, .. } = site.clone();
    let streams = Arc::new(AtomicBool::new(false));
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(times.stuck));
    let service = service_fn(|request| answer(request, &site, &streams));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(times.asking).keep_alive(false);
    http.max_buf_size(MAX_REQUEST).max_headers(MAX_HEADERS);
    let stream = Box::pin(stream);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let over = tokio::select! {
        ended = &mut connection => ended.is_ok(),
        // Never anything else than that its sender is gone.
        _ = closing.changed() => true,
        () = sleep(times.short) => {
            streams.load(Relaxed) && tokio::select! {
                ended = &mut connection => ended.is_ok(),
                _ = closing.changed() => true,
            }
        }
    };
    if !over {
        counts.broken.fetch_add(1, Relaxed);
    }
}

async fn answer(request: Request<Incoming>, site: &Site, streams: &AtomicBool) -> Result<Reply, Infallible> {
    let (request, _) = request.into_parts();
    let mut reply = match site.routes.find(request) {
        Ok(Found { lasts: Lasts::Short, answer }) => in_time(site.times, answer).await,
        Ok(Found { lasts: Lasts::Stream, answer }) => {
            match Place::take(&site.counts, |counts| &counts.streams, MAX_STREAMS) {
                Some(place) => {
                    streams.store(true, Relaxed);
                    held(in_time(site.times, answer).await, place)
                }
                None => {
                    let full = format!("{MAX_STREAMS} such answers are under way, and there can be no more\n");
                    text(StatusCode::SERVICE_UNAVAILABLE, full)
                }
            }
        }
        Err(reply) => *reply,
    };
    site.counts.requests.fetch_add(1, Relaxed);
    let headers = reply.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    Ok(reply)
}

/// The answer, with something that is dropped when the last of it is sent.
fn held(reply: Reply, place: impl Send + 'static) -> Reply {
    use http_body_util::BodyExt as _;
    reply.map(|body| {
        body.map_frame(move |frame| {
            let _held = &place;
            frame
        })
        .boxed_unsync()
    })
}

async fn in_time(times: Times, answer: impl Future<Output = Reply>) -> Reply {
    let late = |_| text(StatusCode::SERVICE_UNAVAILABLE, "the daemon did not answer in time\n");
    timeout(times.answering, answer).await.unwrap_or_else(late)
}
