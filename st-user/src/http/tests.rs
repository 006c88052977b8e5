//! What a server must bear: readers that read nothing, guests who say nothing or say too much, and more of them than there is room for.

use std::{
    convert::Infallible,
    future::ready,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, channel::Channel};
use hyper::{Response, StatusCode, body::Bytes};

use super::{
    routes::{Asked, Routes, full, text},
    server::{Counts, ListenError, MAX_CONNECTIONS, MAX_REQUEST, MAX_STREAMS, Server, Times},
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// For servers that are to lose their patience.
const SOON: Times = Times {
    asking: Duration::from_millis(200),
    answering: Duration::from_millis(200),
    stuck: Duration::from_millis(200),
    short: Duration::from_millis(600),
};

const NEVER: Times = Times { asking: PATIENCE, answering: PATIENCE, stuck: PATIENCE, short: PATIENCE };

/// More than any socket's buffers hold.
const LARGE: usize = 64 << 20;

fn routes() -> Routes {
    let large = Bytes::from(vec![b'x'; LARGE]);
    let more = Routes::default()
        .below("/below/", |Asked { rest, query, .. }| ready(text(StatusCode::OK, format!("{rest} {query:?}"))))
        .stream("/stream", |_| {
            // One piece, and nothing more for ever.
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
            tokio::spawn(async move {
                let _ = sender.send_data(Bytes::from_static(b"first")).await;
                std::future::pending::<()>().await;
            });
            ready(Response::new(body.boxed_unsync()))
        });
    Routes::default()
        .get("/text", |_| ready(text(StatusCode::OK, "hello\n")))
        .get("/large", move |_| ready(Response::new(full(large.clone()))))
        .get("/late", |_| std::future::pending())
        .and(more)
}

/// A server on a thread of its own, for as long as `test` takes. What else the thread does, its ticks tell: they have to go on.
fn serving(times: Times, test: impl FnOnce(SocketAddr, &Counts)) {
    let listener = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::new(Counts::default());
    let (theirs, stop) = (Arc::clone(&counts), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let _server = Server::start_with(listener, Arc::new(routes()), theirs, times).unwrap();
                while !stop.load(Relaxed) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(address, &counts)));
        stop.store(true, Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that comes in answer to some bytes, as far as it comes.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    // The server may have closed before all is written.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn paths_are_answered_by_what_fits_first_and_nothing_can_be_changed() {
    serving(NEVER, |address, counts| {
        let answer = get(address, "/text");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello\n"), "{answer}");
        assert!(answer.contains("x-content-type-options: nosniff") && answer.contains("cache-control: no-store"));
        assert!(get(address, "/below/one/two?a=b").ends_with("one/two Some(\"a=b\")"));
        let none = get(address, "/nothing");
        assert!(none.starts_with("HTTP/1.1 404") && none.contains("/text\n/large\n"), "{none}");
        let head = ask(address, "HEAD /text HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let answer = ask(address, &format!("{method} /text HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
            assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD\r\n"), "{answer}");
        }
        assert_eq!(counts.requests.load(Relaxed), 9);
        until(|| counts.connections.load(Relaxed) == 0);
    });
}

#[test]
fn junk_is_turned_down_and_the_next_one_is_served() {
    serving(NEVER, |address, counts| {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_REQUEST));
        let headers = format!("GET /text HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200));
        let junk =
            ["\0\0\0\0\r\n\r\n", "INVITE sip:x SIP/2.0\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}", &long, &headers];
        for junk in junk {
            let mut stream = connect(address);
            let _ = stream.write_all(junk.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{junk:?}: {answer}");
        }
        assert_eq!(counts.requests.load(Relaxed), 0);
        assert!(get(address, "/text").ends_with("hello\n"));
        until(|| counts.connections.load(Relaxed) == 0);
        assert!(counts.broken.load(Relaxed) > 0);
    });
}

#[test]
fn who_says_nothing_reads_nothing_or_is_not_answered_is_left_after_a_time_and_holds_nobody_up() {
    serving(SOON, |address, counts| {
        let mut mute = connect(address);
        let mut half = connect(address);
        half.write_all(b"GET /text HT").unwrap();
        let mut reader = connect(address);
        reader.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        until(|| counts.connections.load(Relaxed) == 3);
        // Whoever asks meanwhile is served.
        assert!(get(address, "/text").ends_with("hello\n"));
        assert!(get(address, "/late").contains("did not answer in time"));
        let mut nothing = Vec::new();
        for stream in [&mut mute, &mut half] {
            let _ = stream.read_to_end(&mut nothing);
        }
        until(|| counts.connections.load(Relaxed) == 0);
        // What it gets is what stood in the buffers.
        let mut some = Vec::new();
        let _ = reader.read_to_end(&mut some);
        assert!(some.len() < LARGE, "{}", some.len());
        assert_eq!(counts.broken.load(Relaxed), 3);
    });
}

#[test]
fn who_reads_a_little_at_a_time_is_left_too() {
    serving(Times { stuck: PATIENCE, ..SOON }, |address, counts| {
        let mut reader = connect(address);
        reader.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut byte = [0];
        let read = (0..).take_while(|_| {
            thread::sleep(Duration::from_millis(1));
            counts.broken.load(Relaxed) == 0 && reader.read_exact(&mut byte).is_ok()
        });
        assert!(read.count() < LARGE);
        until(|| counts.connections.load(Relaxed) == 0);
    });
}

#[test]
fn more_connections_than_there_is_room_for_are_told_so_and_there_is_room_again() {
    serving(NEVER, |address, counts| {
        let guests: Vec<_> = (0..MAX_CONNECTIONS).map(|_| connect(address)).collect();
        until(|| counts.connections.load(Relaxed) == MAX_CONNECTIONS);
        let mut further = connect(address);
        let mut answer = String::new();
        further.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("64 connections"), "{answer}");
        assert_eq!(counts.refused.load(Relaxed), 1);
        drop(guests);
        until(|| counts.connections.load(Relaxed) == 0);
        assert!(get(address, "/text").ends_with("hello\n"));
    });
}

#[test]
fn streams_go_on_past_the_time_of_other_answers_and_leave_room_for_those() {
    serving(SOON, |address, counts| {
        let streams: Vec<_> = (0..MAX_STREAMS)
            .map(|_| {
                let mut stream = connect(address);
                stream.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                stream
            })
            .collect();
        until(|| counts.streams.load(Relaxed) == MAX_STREAMS);
        assert!(get(address, "/stream").starts_with("HTTP/1.1 503"));
        assert!(get(address, "/text").ends_with("hello\n"));
        thread::sleep(SOON.short * 2);
        assert_eq!(counts.streams.load(Relaxed), MAX_STREAMS);
        for mut stream in streams {
            let mut answer = [0; 4096];
            let read = stream.read(&mut answer).unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK"));
        }
        // Who goes is not noticed before something is sent; who asks for one more is.
        until(|| get(address, "/text").ends_with("hello\n"));
    });
}

#[test]
fn a_server_that_is_dropped_listens_no_more_and_ends_its_streams() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let server = Server::start_with(listener, Arc::new(routes()), Arc::clone(&counts), NEVER).unwrap();
        assert_eq!(server.address(), address);
        let mut stream = connect(address);
        stream.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        while counts.streams.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        drop(server);
        while counts.streams.load(Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn an_address_that_is_taken_or_not_here_is_one_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Server::bind(address).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }));
    assert!(error.to_string().contains(&format!("another program listens on {address} already")), "{error}");
    let error = Server::bind("192.0.2.1:9464".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("192.0.2.1:9464 is no address of this host"), "{error}");
}
