//! What monitoring sees of a call, over real sockets: before, during and after it; and that nobody who asks holds a
//! call up.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use st_tests::{Host, Lab, Sipst, agent::Profile};

use crate::plan::{Plan, SOON, config};

pub(crate) const ADDRESS: &str = "127.0.0.1:9464";

const METRICS: &str = "metrics: {listen: 9464}\n";

fn connect(host: &Host, address: &'static str) -> Option<TcpStream> {
    let stream = host.enter(move || TcpStream::connect(address)).ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    Some(stream)
}

/// Status and body of an answer on the host's loopback; `None` where nobody listens.
pub(crate) fn get(host: &Host, address: &'static str, path: &str) -> Option<(u16, String)> {
    let mut stream = connect(host, address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Some((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

fn scrape(host: &Host) -> String {
    let (status, text) = get(host, ADDRESS, "/metrics").unwrap();
    assert_eq!(status, 200, "{text}");
    text
}

/// The value of a series, if it is there.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Until a series has such a value.
#[track_caller]
fn until(host: &Host, series: &str, wanted: impl Fn(f64) -> bool) {
    let end = Instant::now() + SOON;
    loop {
        let text = scrape(host);
        if value(&text, series).is_some_and(&wanted) {
            return;
        }
        assert!(Instant::now() < end, "{series}:\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Prometheus's own checker finds nothing to say about what is shown: names, units, types, helps.
fn accepted(host: &Host) {
    host.file("metrics.txt", scrape(host)).unwrap();
    let said = host.run("sh", &["-c", "promtool check metrics < /run/metrics.txt 2>&1"]).unwrap();
    assert_eq!(said, "");
}

/// The series of sessions, as far as there are any.
fn sessions(state: &str) -> String {
    format!("sipst_sessions{{trunk=\"carrier\",state=\"{state}\",refresher=\"server\"}}")
}

#[test]
fn values_move_with_a_call_and_health_and_readiness_are_told() {
    // A recorder that writes, a journal that is not there, and a Homer that turns all down.
    let sinks = "recorder: { size: 1MiB, files: 2 }\njournald: true\nhep: { to: \"udp://127.0.0.1:9060\" }\n";
    let call = Plan::default().start_with(|config| config + METRICS + sinks);
    let host = &call.lab.server;
    until(host, &sessions("running"), |value| value == 1.0);
    until(host, "sipst_next_deadline_seconds", |value| value > 0.0 && value <= 8.0);
    until(host, "sipst_ring_size_bytes", |value| value == f64::from(4 << 20));
    until(host, "sipst_store_batches_total", |value| value >= 1.0);
    until(host, "process_open_fds", |value| value > 3.0);
    accepted(host);
    until(host, "sipst_events_total{event=\"session_started\",trunk=\"carrier\"}", |value| value == 1.0);
    assert_eq!(get(host, ADDRESS, "/health"), Some((200, "ok\n".into())));
    call.refreshed(2);
    let refreshed = "sipst_refreshes_total{trunk=\"carrier\",by=\"sipst\",result=\"succeeded\"}";
    until(host, refreshed, |value| value >= 2.0);
    until(host, "sipst_kernel_packets_total{what=\"committed\"}", |value| value >= 2.0);
    let exports = |sink: &str, result: &str| format!("sipst_exports_total{{sink=\"{sink}\",result=\"{result}\"}}");
    until(host, &exports("recorder", "sent"), |value| value >= 4.0);
    until(host, &exports("journal", "failed"), |value| value >= 4.0);
    until(host, &exports("hep 127.0.0.1:9060", "failed"), |value| value >= 1.0);
    assert_eq!(value(&scrape(host), &exports("recorder", "failed")), Some(0.0));
    until(host, "sipst_refresh_lag_seconds_count{trunk=\"carrier\"}", |value| value >= 2.0);
    until(host, "sipst_ready", |value| value == 1.0);
    assert_eq!(get(host, ADDRESS, "/ready"), Some((200, "ok\n".into())));
    call.server_hangs_up();
    until(host, "sipst_events_total{event=\"session_ended\",trunk=\"carrier\"}", |value| value == 1.0);
    until(host, &sessions("running"), |value| value == 0.0);
    accepted(host);
}

#[test]
fn what_stands_in_the_ring_while_the_daemon_does_not_read_is_seen_when_it_does() {
    let mut call = Plan::unhurried();
    let host = &call.lab.server;
    host.file(
        "sipst.yaml",
        format!("{}{METRICS}state_dir: /run/state\n", config("tc", &["action: refresh", "min_se: 2s"])),
    )
    .unwrap();
    let (code, printed, said) = Sipst::command(host, &["reload"]).unwrap();
    assert_eq!(code, Some(0), "{printed}{said}");
    until(host, "sipst_last_reload_taken", |value| value == 1.0);
    call.sipst.process().signal(Signal::STOP).unwrap();
    call.server.request("OPTIONS");
    assert_eq!(call.server.answered("OPTIONS", SOON).unwrap(), 200);
    call.sipst.process().signal(Signal::CONT).unwrap();
    until(&call.lab.server, "sipst_ring_used_bytes", |value| value > 400.0);
    call.server_hangs_up();
}

#[test]
fn without_metrics_nobody_can_ask_and_a_reload_switches_them_on_moves_them_and_off() {
    let lab = Lab::new().unwrap();
    let host = &lab.server;
    let plain = config("tc", &["action: alert"]);
    let mut sipst = Sipst::start(host, &plain).unwrap();
    assert_eq!(get(host, ADDRESS, "/metrics"), None);
    let reload = |metrics: &str| {
        host.file("sipst.yaml", format!("{plain}{metrics}\nstate_dir: /run/state\n")).unwrap();
        Sipst::command(host, &["reload"]).unwrap()
    };
    let (code, printed, said) = reload(METRICS);
    assert_eq!((code, printed.trim_end()), (Some(0), "metrics: at http://127.0.0.1:9464/metrics"), "{said}");
    until(host, "sipst_control_clients", |value| value == 0.0);

    // The control: a file that cannot be taken leaves all as it was.
    let taken = host.enter(|| TcpListener::bind("127.0.0.1:9465").unwrap());
    let (code, _, said) = reload("metrics: {listen: 9465}\n");
    assert_eq!(code, Some(1));
    assert!(said.contains("another program listens on 127.0.0.1:9465 already"), "{said}");
    let (code, _, said) = reload("metrics: {listen: 0.0.0.0:9464}\n");
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot go from 127.0.0.1:9464 to 0.0.0.0:9464 while sipst runs"), "{said}");
    scrape(host);

    drop(taken);
    let (code, printed, said) = reload("metrics: {listen: 9465}\n");
    assert_eq!((code, printed.trim_end()), (Some(0), "metrics: at http://127.0.0.1:9465/metrics"), "{said}");
    assert_eq!(get(host, ADDRESS, "/metrics"), None);
    assert_eq!(get(host, "127.0.0.1:9465", "/health"), Some((200, "ok\n".into())));
    let (code, printed, _) = reload("metrics: {listen: off}\n");
    assert_eq!((code, printed.trim_end()), (Some(0), "metrics: off"));
    assert_eq!(get(host, "127.0.0.1:9465", "/health"), None);
    assert!(sipst.stop().unwrap().success(), "{}", sipst.report());
}

#[test]
fn a_port_in_use_is_one_clear_error_and_the_calls_go_on() {
    let lab = Lab::new().unwrap();
    let taken = lab.server.enter(|| TcpListener::bind(ADDRESS).unwrap());
    let call = Plan::default().start_in(lab, |config| config + METRICS);
    call.refreshed(1);
    let said = call.sipst.report();
    assert_eq!(said.matches("another program listens on 127.0.0.1:9464 already").count(), 1, "{said}");
    drop(taken);
    // Asked again, it finds the port free.
    let (code, printed, said) = Sipst::command(&call.lab.server, &["reload"]).unwrap();
    assert_eq!((code, printed.trim_end()), (Some(0), "metrics: at http://127.0.0.1:9464/metrics"), "{said}");
    scrape(&call.lab.server);
    call.server_hangs_up();
}

#[test]
fn guests_who_are_many_mute_or_read_nothing_hold_up_no_refresh() {
    let call = Plan { peer: Profile::strict_peer(6, "uac"), ..Plan::default() }.start_with(|config| config + METRICS);
    let host = &call.lab.server;
    let mute: Vec<_> = (0..80).map(|_| connect(host, ADDRESS).unwrap()).collect();
    call.refreshed(1);
    // Those that were too many are gone, those that said nothing go.
    drop(mute);
    let unread: Vec<_> = (0..60)
        .filter_map(|_| {
            let mut stream = connect(host, ADDRESS)?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
            Some(stream)
        })
        .collect();
    call.refreshed(3);
    drop(unread);
    until(host, "sipst_http_refused_total", |value| value >= 1.0);
    call.server_hangs_up();
}

#[test]
fn alert_rules_fire_when_they_should_and_not_before() {
    let lab = Lab::new().unwrap();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let path = |file: &str| format!("{root}/{file}");
    lab.peer.run("promtool", &["check", "rules", &path("config/prometheus/sipst.rules.yml")]).unwrap();
    lab.peer.run("promtool", &["test", "rules", &path("tests/prometheus/sipst.test.yml")]).unwrap();
}

#[test]
fn a_receiver_of_alerts_that_is_dead_is_seen_beside_one_that_lives() {
    let lab = Lab::new().unwrap();
    let taker = lab.server.enter(|| TcpListener::bind("127.0.0.1:9000").unwrap());
    std::thread::spawn(move || {
        for stream in taker.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let webhook = |port: u16| format!("  - webhook: {{ url: \"http://127.0.0.1:{port}/\" }}\n");
    let alerts = format!("alerts:\n{}{}", webhook(9000), webhook(9001));
    let call = Plan { rules: vec!["action: alert"], ..Plan::default() }
        .start_in(lab, |config| format!("{config}{METRICS}{alerts}"));
    let host = &call.lab.server;
    let series = |port: u16, result: &str| {
        format!("sipst_alerts_total{{sink=\"webhook http://127.0.0.1:{port}\",result=\"{result}\"}}")
    };
    assert_eq!(value(&scrape(host), &series(9001, "failed")).unwrap_or(0.0), 0.0);
    call.sipst.event("refresh_overdue", SOON).unwrap();
    until(host, &series(9000, "sent"), |value| value >= 1.0);
    until(host, &series(9001, "failed"), |value| value >= 1.0);
    assert_eq!(value(&scrape(host), &series(9000, "failed")), Some(0.0));
    // There is neither a recorder nor a Homer here.
    assert!(!scrape(host).contains("sipst_exports_total{"));
    until(host, "sipst_refresh_overdue_total{trunk=\"carrier\",by=\"server\"}", |value| value >= 1.0);
}
