//! What monitoring sees of a call, over real sockets: before, during and after it; and that nobody who asks holds a call up.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

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

#[test]
fn values_move_with_a_call_and_health_and_readiness_are_told() {
    let call = Plan::default().start_with(|config| config + METRICS);
    let host = &call.lab.server;
    until(host, "sipst_events_total{event=\"session_started\",trunk=\"carrier\"}", |value| value == 1.0);
    assert_eq!(get(host, ADDRESS, "/health"), Some((200, "ok\n".into())));
    call.refreshed(2);
    let refreshed = "sipst_refreshes_total{trunk=\"carrier\",by=\"sipst\",result=\"succeeded\"}";
    until(host, refreshed, |value| value >= 2.0);
    until(host, "sipst_kernel_packets_total{what=\"committed\"}", |value| value >= 2.0);
    until(host, "sipst_ready", |value| value == 1.0);
    assert_eq!(get(host, ADDRESS, "/ready"), Some((200, "ok\n".into())));
    call.server_hangs_up();
    until(host, "sipst_events_total{event=\"session_ended\",trunk=\"carrier\"}", |value| value == 1.0);
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
