//! Who is shown the page and who is not, what each answer forbids the browser, and what it costs that many watch.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{HTML, Page, SCRIPT, STYLE, call_id, live::ROWS, routes};
use crate::{
    control::{
        asker::Asker,
        protocol::Row,
        server::{Ask, Page as Piece},
    },
    http::{Counts, Server},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A session with identifiers that are none of a well-meaning peer's.
fn row(number: usize) -> Row {
    serde_json::from_value(serde_json::json!({
        "call_id": format!("<script>alert({number})</script>\u{202e}"), "local_tag": "l", "remote_tag": "r",
        "server": "192.0.2.1:5060", "peer": "203.0.113.1:5060", "trunk": "carrier", "action": "alert", "state": "running",
        "caller": "server", "started": "2026-03-01T09:15:00Z", "age_s": 7, "heard": "2026-03-01T09:15:00Z",
        "interval_s": 90, "refresher": "server", "act": "2026-03-01T09:15:45Z", "deadline": "2026-03-01T09:16:00Z",
        "expires": "2026-03-01T09:16:30Z", "left_s": 60.0
    }))
    .unwrap()
}

/// What the daemon's loop would answer, and how often it was asked.
#[derive(Default)]
struct Loop {
    looks: AtomicUsize,
    shown: AtomicUsize,
}

impl Loop {
    async fn answer(self: Arc<Self>, mut asks: mpsc::Receiver<Ask>) {
        while let Some(ask) = asks.recv().await {
            match ask {
                Ask::Page { reply, only, .. } => {
                    if only.call_id.is_none() {
                        self.looks.fetch_add(1, Relaxed);
                    }
                    let rows =
                        (0..self.shown.load(Relaxed)).map(|number| (st_core::SessionId(number as u64), row(number)));
                    let _ = reply.send(Piece { rows: rows.collect(), next: None });
                }
                Ask::Census { census, reply, .. } => drop(reply.send((census, None))),
                Ask::Trace { reply, .. } => drop(reply.send(Vec::new())),
                Ask::Show { reply, .. } => drop(reply.send(None)),
                Ask::Wish { .. } | Ask::Kept { .. } | Ask::Follow { .. } | Ask::Status { .. } | Ask::Reload { .. } => {
                    panic!("the page asks for nothing of the kind")
                }
            }
        }
    }
}

/// The page on a thread of its own, for as long as `test` takes.
fn serving(on: bool, test: impl FnOnce(SocketAddr, &Page, &Loop)) {
    let listener = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (send, asks) = mpsc::channel(64);
    let page = Page::new(Asker::new(send), on);
    let daemon = Arc::new(Loop { shown: 1.into(), ..Loop::default() });
    let (theirs, its, stop) = (Arc::clone(&page), Arc::clone(&daemon), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::spawn(its.answer(asks));
                let _server = Server::start(listener, Arc::new(routes(&theirs)), Arc::<Counts>::default()).unwrap();
                while !stop.load(Relaxed) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(address, &page, &daemon)));
        stop.store(true, Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn open(address: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\n{headers}\r\n").unwrap();
    stream
}

fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let mut answer = String::new();
    open(address, path, headers).read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

/// Reads until the text is there.
fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&all).contains(text) {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "{text}: {}", String::from_utf8_lossy(&all));
        all.extend(&piece[..read]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

const PATHS: [&str; 5] = ["/", "/page.css", "/page.js", "/live", "/call?id=x"];

#[test]
fn switched_off_it_shows_nobody_anything() {
    serving(false, |address, page, daemon| {
        for path in PATHS {
            let (status, answer) = get(address, path, "Host: localhost\r\n");
            assert_eq!(status, 404, "{path}: {answer}");
        }
        assert_eq!(daemon.looks.load(Relaxed), 0);
        page.switch(true);
        assert_eq!(get(address, "/", "Host: localhost\r\n").0, 200);
    });
}

#[test]
fn under_a_name_that_others_can_point_here_nothing_is_shown() {
    serving(true, |address, _, daemon| {
        let evil = [
            "",
            "Host: evil.example\r\n",
            "Host: 127.0.0.1.evil.example\r\n",
            "Host: a\r\nHost: 127.0.0.1\r\n",
            "Host: localhost.evil:9464\r\n",
        ];
        for host in evil {
            for path in PATHS {
                let (status, answer) = get(address, path, host);
                assert!(status == 421 || status == 400, "{host:?} {path}: {answer}");
            }
        }
        assert_eq!(daemon.looks.load(Relaxed), 0);
        for host in ["127.0.0.1:9464", "[::1]:9464", "192.0.2.1", "LocalHost:80"] {
            assert_eq!(get(address, "/", &format!("Host: {host}\r\n")).0, 200, "{host}");
        }
    });
}

#[test]
fn other_sites_may_lead_here_and_may_not_read() {
    serving(true, |address, _, _| {
        for site in ["cross-site", "same-site"] {
            let headers = format!("Host: 127.0.0.1\r\nSec-Fetch-Site: {site}\r\n");
            assert_eq!(get(address, "/", &headers).0, 200);
            for path in &PATHS[1..] {
                assert_eq!(get(address, path, &headers).0, 403, "{path}");
            }
        }
    });
}

#[test]
fn every_answer_forbids_frames_and_whatever_is_not_the_pages_own() {
    serving(true, |address, _, _| {
        for path in &PATHS[..3] {
            let (status, answer) = get(address, path, "Host: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n");
            assert_eq!(status, 200);
            for header in [
                "content-security-policy: default-src 'none'; script-src 'self'",
                "frame-ancestors 'none'",
                "x-content-type-options: nosniff",
                "x-frame-options: DENY",
                "referrer-policy: no-referrer",
                "cross-origin-resource-policy: same-origin",
                "cache-control: no-store",
            ] {
                assert!(answer.contains(header), "{path} lacks {header}: {answer}");
            }
            assert!(!answer.to_lowercase().contains("access-control-allow"), "{path}");
        }
    });
}

#[test]
fn the_files_ask_for_nothing_from_elsewhere_and_set_no_markup() {
    for (_, file) in [HTML, STYLE, SCRIPT] {
        for outside in ["http:", "https:", "//cdn", "@import", "url("] {
            assert!(!file.contains(outside), "{outside}");
        }
    }
    for markup in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "setAttribute(\"style\""] {
        assert!(!SCRIPT.1.contains(markup), "{markup}");
    }
    for inline in ["<style", " style=", " onclick", " onload", "javascript:"] {
        assert!(!HTML.1.contains(inline), "{inline}");
    }
}

#[test]
fn what_the_wire_brought_is_one_line_of_json() {
    serving(true, |address, _, _| {
        let answer = read_until(&mut open(address, "/live", "Host: 127.0.0.1\r\n"), "\"states\"");
        assert!(answer.contains("content-type: text/event-stream"), "{answer}");
        let data = answer.lines().find_map(|line| line.strip_prefix("data: {")).unwrap();
        assert!(answer.contains("event: now\ndata: ") && data.contains("<script>alert(0)</script>"), "{answer}");
        assert!(!data.contains("age_s") && !data.contains("left_s"), "{data}");
    });
}

#[test]
fn many_who_watch_cost_one_look_and_nobody_who_watches_costs_none() {
    serving(true, |address, page, daemon| {
        let began = Instant::now();
        let mut watchers: Vec<_> = (0..20).map(|_| open(address, "/live", "Host: 127.0.0.1\r\n")).collect();
        for watcher in &mut watchers {
            read_until(watcher, "event: sessions");
        }
        let looks = daemon.looks.load(Relaxed);
        assert!(looks as u64 <= began.elapsed().as_secs() + 1, "{looks} looks");
        // A change goes to all of them.
        daemon.shown.store(3, Relaxed);
        for watcher in &mut watchers {
            read_until(watcher, "alert(2)");
        }
        // Switched off, their streams end.
        page.switch(false);
        for watcher in &mut watchers {
            let mut rest = Vec::new();
            watcher.read_to_end(&mut rest).unwrap();
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let before = daemon.looks.load(Relaxed);
            thread::sleep(Duration::from_millis(2_500));
            if daemon.looks.load(Relaxed) == before {
                break;
            }
            assert!(Instant::now() < end, "it is looked though nobody watches");
        }
    });
}

#[test]
fn of_many_sessions_those_with_the_nearest_deadlines_are_sent() {
    serving(true, |address, _, daemon| {
        daemon.shown.store(ROWS + 50, Relaxed);
        let answer = read_until(&mut open(address, "/live", "Host: 127.0.0.1\r\n"), "\"states\"");
        assert_eq!(answer.matches("\"call_id\"").count(), ROWS);
    });
}

#[test]
fn a_call_that_there_is_not_is_told_as_none() {
    serving(true, |address, _, _| {
        let answer = read_until(&mut open(address, "/call?id=a%20b%40c", "Host: 127.0.0.1\r\n"), "\"messages\"");
        assert!(answer.contains("event: call\ndata: {\"calls\":[],\"messages\":[]}"), "{answer}");
        assert_eq!(get(address, "/call", "Host: 127.0.0.1\r\n").0, 400);
    });
    assert_eq!(call_id("x=1&id=a%20b%40c").as_deref(), Some("a b@c"));
    assert_eq!((call_id("id="), call_id("id=%ff"), call_id("di=x")), (None, None, None));
}
