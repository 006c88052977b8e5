//! Receivers on the loopback that take, refuse and never answer.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::channel,
};

use st_core::{EventKind, Names, Time};

use super::{sink::QUEUE, *};
use crate::config::{Alertmanager, Exec, Receiver as Config, Webhook};

/// No pause where a test has none to wait for.
const PACE: Pace = Pace { backoff: Duration::ZERO, resend: Duration::from_secs(3_600) };

fn alerting(receivers: Vec<Config>) -> Alerting {
    Alerting { receivers, rate: None }
}

fn webhooks(webhooks: &[&Webhook]) -> Alerting {
    alerting(webhooks.iter().map(|webhook| Config::Webhook(Webhook::clone(webhook))).collect())
}

fn start(webhook: &Webhook) -> Alerts {
    Alerts::start_with(&webhooks(&[webhook]), PACE).unwrap()
}

/// Queued, sent, failed, dropped, folded.
fn counted(counts: &SinkCounts) -> [u64; 5] {
    [&counts.queued, &counts.sent, &counts.failed, &counts.dropped, &counts.folded].map(|count| count.load(Relaxed))
}

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn event(kind: EventKind, reason: &str) -> Event {
    Event { reason: Some(reason.to_owned().into()), ..Event::new(Time::from_micros(0), kind) }
}

/// In place of a status: the request is read and never answered.
const SILENCE: u16 = 0;

/// A web server on the loopback that answers the n-th request with the n-th status, the last one from then on, and
/// tells what it was asked.
fn server(statuses: &'static [u16], timeout: Duration) -> (Webhook, Receiver<(String, serde_json::Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/secret", listener.local_addr().unwrap());
    let (seen, requests) = channel();
    thread::spawn(move || {
        let mut held = Vec::new();
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let request = read(&stream);
            if seen.send(request).is_err() {
                return;
            }
            match statuses[n.min(statuses.len() - 1)] {
                SILENCE => held.push(stream),
                status => {
                    let answer = format!("HTTP/1.1 {status} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        }
    });
    (Webhook { url, timeout }, requests)
}

/// The header lines and the body.
fn read(stream: &TcpStream) -> (String, serde_json::Value) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

fn reasons(requests: &Receiver<(String, serde_json::Value)>, count: usize) -> Vec<String> {
    let reason = |_| requests.recv_timeout(PATIENCE).unwrap().1["reason"].as_str().unwrap().to_owned();
    (0..count).map(reason).collect()
}

#[test]
fn alerts_are_posted_as_json_and_other_events_are_not() {
    let (webhook, requests) = server(&[200], PATIENCE);
    let mut alerts = start(&webhook);
    alerts.event(&event(EventKind::SessionStarted, "no alert"));
    alerts.event(&event(EventKind::RefreshOverdue, "late"));
    alerts.finish(PATIENCE);
    let (head, body) = requests.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("post /secret http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    assert_eq!(body["event"], "refresh_overdue");
    assert_eq!(body["reason"], "late");
    assert!(requests.try_recv().is_err());
}

#[test]
fn a_failing_webhook_is_tried_three_times_and_then_the_next_alert_has_its_turn() {
    let (webhook, requests) = server(&[500, 503, 429, 200], PATIENCE);
    let mut alerts = start(&webhook);
    alerts.event(&event(EventKind::RefreshFailed, "one"));
    alerts.event(&event(EventKind::RefreshFailed, "two"));
    alerts.finish(PATIENCE);
    assert_eq!(reasons(&requests, 4), ["one", "one", "one", "two"]);
    assert!(requests.try_recv().is_err());
}

#[test]
fn what_cannot_get_better_is_not_tried_again() {
    let (webhook, requests) = server(&[404, 302, 200], PATIENCE);
    let mut alerts = start(&webhook);
    for reason in ["one", "two", "three"] {
        alerts.event(&event(EventKind::SessionExpired, reason));
    }
    alerts.finish(PATIENCE);
    assert_eq!(reasons(&requests, 3), ["one", "two", "three"]);
    assert!(requests.try_recv().is_err());
}

#[test]
fn a_webhook_that_does_not_answer_is_left_at_its_timeout() {
    let (webhook, requests) = server(&[SILENCE, 200], Duration::from_millis(100));
    let mut alerts = start(&webhook);
    alerts.event(&event(EventKind::SessionExpiring, "one"));
    assert_eq!(reasons(&requests, 2), ["one", "one"]);
    alerts.finish(PATIENCE);
}

#[test]
fn a_queue_that_is_full_drops_the_newest_and_holds_up_nobody() {
    let (webhook, requests) = server(&[SILENCE], PATIENCE);
    let (other, others) = server(&[200], PATIENCE);
    let mut alerts = Alerts::start_with(&webhooks(&[&webhook, &other]), PACE).unwrap();
    alerts.event(&event(EventKind::CaptureLoss, "held"));
    assert_eq!(reasons(&requests, 1), ["held"]);
    assert_eq!(reasons(&others, 1), ["held"]);
    for index in 0..QUEUE + 3 {
        alerts.event(&event(EventKind::CaptureLoss, &index.to_string()));
        // The other webhook keeps up, whatever this one does.
        assert_eq!(reasons(&others, 1), [index.to_string()]);
    }
    let [one, two] = &alerts.counts().sinks()[..] else { panic!() };
    assert_eq!(counted(one), [QUEUE as u64, 0, 0, 3, 0]);
    assert_eq!(counted(two)[3..], [0, 0]);
    alerts.finish(Duration::ZERO);
}

#[test]
fn nobody_listening_is_given_up_within_the_wait() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let webhook = Webhook { url: format!("http://127.0.0.1:{port}/"), timeout: PATIENCE };
    let mut alerts = start(&webhook);
    alerts.event(&event(EventKind::NegotiationFault, "one"));
    alerts.finish(PATIENCE);
}

/// An alert of a call's.
fn call(kind: EventKind, call: &str) -> Event {
    let [server, peer] = ["192.0.2.1:5060", "198.51.100.2:5060"].map(|address| address.parse().unwrap());
    let names = Some(Arc::new(Names::new(call.as_bytes(), b"l", b"r", server, peer)));
    Event { names, trunk: Some("carrier".into()), ..Event::new(Time::from_micros(0), kind) }
}

#[test]
fn the_same_is_told_once_and_a_flood_of_one_trunk_is_told_as_a_number() {
    let (webhook, requests) = server(&[200], PATIENCE);
    let config = Alerting { rate: Some(3), ..webhooks(&[&webhook]) };
    let mut alerts = Alerts::start_with(&config, PACE).unwrap();
    for index in 0..3 {
        alerts.event(&call(EventKind::SessionExpiring, &index.to_string()));
    }
    alerts.event(&call(EventKind::SessionExpiring, "0"));
    for index in 3..44 {
        alerts.event(&call(EventKind::SessionExpiring, &index.to_string()));
    }
    let counts = alerts.counts();
    alerts.finish(PATIENCE);
    let told: Vec<_> = requests.try_iter().map(|(_, body)| body).collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[..3].iter().all(|body| body["event"] == "session_expiring"));
    assert_eq!(told[3]["event"], "alerts_folded");
    assert_eq!(told[3]["text"], "and 41 more on trunk carrier in 60 s");
    assert_eq!(told[3]["kinds"]["session_expiring"], 41);
    assert_eq!(counts.sinks().iter().map(|counts| counted(counts)).collect::<Vec<_>>(), [[0, 4, 0, 0, 42]]);
}

#[test]
fn a_dead_receiver_shows_in_its_counters() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let webhook = Webhook { url: format!("http://127.0.0.1:{port}/secret"), timeout: PATIENCE };
    let mut alerts = start(&webhook);
    let counts = alerts.counts();
    alerts.event(&call(EventKind::SessionExpiring, "a"));
    alerts.finish(PATIENCE);
    let [dead] = &counts.sinks()[..] else { panic!() };
    assert_eq!(dead.name, format!("webhook http://127.0.0.1:{port}"));
    assert_eq!(counted(dead), [0, 0, 1, 0, 0]);
}

#[test]
fn an_alertmanager_hears_that_an_alert_fires_that_it_goes_on_and_that_it_is_over() {
    let (Webhook { url, timeout }, requests) = server(&[200], PATIENCE);
    let manager = Alertmanager { url: url.replace("/secret", "/"), timeout, runbook: Some("http://wiki/".into()) };
    let pace = Pace { resend: Duration::from_millis(200), ..PACE };
    let mut alerts = Alerts::start_with(&alerting(vec![Config::Alertmanager(manager)]), pace).unwrap();
    alerts.event(&call(EventKind::RefreshOverdue, "a"));
    let mut ends = Vec::new();
    for _ in 0..2 {
        let (head, body) = requests.recv_timeout(PATIENCE).unwrap();
        assert!(head.starts_with("post /api/v2/alerts http/1.1\r\n"), "{head}");
        assert_eq!(body[0]["labels"]["alertname"], "SipstRefreshOverdue");
        assert_eq!(body[0]["annotations"]["runbook_url"], "http://wiki/#refresh_overdue");
        ends.push(body[0]["endsAt"].as_str().unwrap().to_owned());
    }
    assert!(ends[0] < ends[1], "{ends:?}");
    alerts.event(&call(EventKind::SessionRefreshed, "a"));
    alerts.finish(PATIENCE);
    let last = requests.try_iter().last().unwrap().1;
    // At the latest when it was sent; an alert that goes on ends later than that.
    let wall = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
    assert!(last[0]["endsAt"].as_str().unwrap() <= wall.as_str(), "{last}");
}

#[test]
fn an_alertmanager_that_was_away_hears_what_still_fires_once_it_is_back() {
    let (Webhook { url, timeout }, requests) = server(&[503, 503, 200], PATIENCE);
    let manager = Alertmanager { url: url.replace("/secret", ""), timeout, runbook: None };
    let mut alerts = Alerts::start_with(&alerting(vec![Config::Alertmanager(manager)]), PACE).unwrap();
    let counts = alerts.counts();
    alerts.event(&call(EventKind::RefreshOverdue, "a"));
    for _ in 0..3 {
        let body = requests.recv_timeout(PATIENCE).unwrap().1;
        assert_eq!(body[0]["labels"]["call_id"], "a");
    }
    alerts.finish(PATIENCE);
    assert_eq!(counted(&counts.sinks()[0]), [0, 1, 0, 0, 0]);
    assert!(requests.try_recv().is_err());
}

#[test]
fn a_program_is_run_for_each_alert_and_ended_at_the_end() {
    let dir = std::env::temp_dir().join(format!("sipst-alert-exec-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let exec = |script: &str| {
        let command = ["/bin/sh", "-c", script, dir.to_str().unwrap()].map(str::to_owned).to_vec();
        Config::Exec(Exec { command, timeout: PATIENCE, at_once: 2 })
    };
    let told = exec("cat > \"$0/$SIPST_CALL_ID\"");
    let mut alerts = Alerts::start_with(&alerting(vec![told]), PACE).unwrap();
    let counts = alerts.counts();
    for id in ["a", "b", "c"] {
        alerts.event(&call(EventKind::SessionExpiring, id));
    }
    alerts.finish(PATIENCE);
    for id in ["a", "b", "c"] {
        let event: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join(id)).unwrap()).unwrap();
        assert_eq!(event["call_id"], id);
    }
    assert_eq!(counted(&counts.sinks()[0]), [0, 3, 0, 0, 0]);
    let endless = exec("echo $$ > \"$0/new\"; mv \"$0/new\" \"$0/id\"; exec sleep 1000");
    let mut alerts = Alerts::start_with(&alerting(vec![endless]), PACE).unwrap();
    alerts.event(&call(EventKind::SessionExpiring, "a"));
    let until = Instant::now() + PATIENCE;
    let id = loop {
        match std::fs::read_to_string(dir.join("id")) {
            Ok(id) => break id,
            Err(_) => assert!(Instant::now() < until),
        }
    };
    alerts.finish(Duration::ZERO);
    while std::path::Path::new("/proc").join(id.trim()).exists() {
        assert!(Instant::now() < until);
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_reload_keeps_the_receivers_that_stay_and_tells_what_is_queued_for_those_that_go() {
    let (stays, heard) = server(&[200], PATIENCE);
    let (goes, gone) = server(&[200], PATIENCE);
    let (comes, new) = server(&[200], PATIENCE);
    let mut alerts = Alerts::start_with(&webhooks(&[&stays, &goes]), PACE).unwrap();
    alerts.event(&call(EventKind::SessionExpiring, "a"));
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap().1["call_id"], "a");
    assert_eq!(gone.recv_timeout(PATIENCE).unwrap().1["call_id"], "a");
    let before = alerts.counts().sinks();
    alerts.reconfigure(&webhooks(&[&comes, &stays])).unwrap();
    let after = alerts.counts().sinks();
    assert!(Arc::ptr_eq(&before[0], &after[0]) && after.len() == 2);
    alerts.event(&call(EventKind::SessionExpiring, "b"));
    alerts.finish(PATIENCE);
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap().1["call_id"], "b");
    assert_eq!(new.recv_timeout(PATIENCE).unwrap().1["call_id"], "b");
    assert!(gone.try_recv().is_err());
}
