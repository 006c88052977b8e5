//! Who is told of what sipst sees and does: receivers of alerts.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use st_tests::{Host, Lab};

use crate::plan::{Plan, SOON};

/// A web server in the host that takes all, and tells what it was sent.
fn taker(host: &Host, address: &'static str) -> Receiver<(String, Value)> {
    let listener = host.enter(move || TcpListener::bind(address)).unwrap();
    let (seen, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let request = read(&stream);
            (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            if seen.send(request).is_err() {
                return;
            }
        }
    });
    requests
}

fn read(stream: &TcpStream) -> (String, Value) {
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

/// The first alert of that name, over or not.
fn alert(requests: &Receiver<(String, Value)>, name: &str, over: bool) -> Value {
    let until = Instant::now() + 2 * SOON;
    loop {
        let (head, body) = requests.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap();
        assert!(head.starts_with("post /api/v2/alerts http/1.1\r\n"), "{head}");
        let found = body.as_array().unwrap().iter().find(|alert| {
            // What goes on is good for minutes.
            let ends = alert["endsAt"].as_str().unwrap();
            let soon =
                humantime::format_rfc3339_millis(std::time::SystemTime::now() + Duration::from_secs(60)).to_string();
            alert["labels"]["alertname"] == name && (ends < soon.as_str()) == over
        });
        if let Some(found) = found {
            return found.clone();
        }
    }
}

#[test]
fn an_alertmanager_hears_of_a_call_in_danger_and_of_its_end_and_a_program_of_the_alert() {
    let lab = Lab::new().unwrap();
    let alerts = taker(&lab.server, "127.0.0.1:9093");
    lab.server.file("told.sh", "#!/bin/sh\ncat > \"/run/told-$SIPST_EVENT-$SIPST_TRUNK\"\n").unwrap();
    lab.server.run("chmod", &["755", "/run/told.sh"]).unwrap();
    let receivers =
        "alerts:\n  - alertmanager: { url: \"http://127.0.0.1:9093\" }\n  - exec: { command: [/run/told.sh] }\n";
    let call =
        Plan { rules: vec!["action: alert"], ..Plan::default() }.start_in(lab, |config| format!("{config}{receivers}"));
    let overdue = call.sipst.event("refresh_overdue", SOON).unwrap();
    let fires = alert(&alerts, "SipstRefreshOverdue", false);
    assert_eq!(fires["labels"]["trunk"], "carrier", "{fires}");
    assert_eq!(fires["labels"]["call_id"], overdue["call_id"], "{fires}");
    assert!(call.peer.ended(SOON).unwrap().0, "{}", call.story());
    let over = alert(&alerts, "SipstRefreshOverdue", true);
    assert_eq!(over["labels"], fires["labels"]);
    let until = Instant::now() + SOON;
    let told = loop {
        let told = call.lab.server.read("/run/told-refresh_overdue-carrier").unwrap_or_default();
        if let Ok(event) = serde_json::from_slice::<Value>(&told) {
            break event;
        }
        assert!(Instant::now() < until, "{}", call.story());
    };
    assert_eq!(told, overdue);
    call.clean();
}

#[test]
fn the_journal_has_a_calls_events_with_their_fields() {
    let lab = Lab::new().unwrap();
    lab.server.run("mkdir", &["-p", "/run/systemd/journal"]).unwrap();
    let journal = lab.server.enter(|| UnixDatagram::bind("/run/systemd/journal/socket")).unwrap();
    journal.set_read_timeout(Some(2 * SOON)).unwrap();
    let call = Plan { rules: vec!["action: alert"], ..Plan::default() }
        .start_in(lab, |config| format!("{config}journald: true\n"));
    let overdue = call.sipst.event("refresh_overdue", SOON).unwrap();
    let mut buffer = vec![0; 65_536];
    let mut fields = Vec::new();
    while !fields.iter().any(|field| field == "SIPST_EVENT=refresh_overdue") {
        let len = journal.recv(&mut buffer).unwrap();
        fields = String::from_utf8(buffer[..len].to_vec()).unwrap().lines().map(str::to_owned).collect();
    }
    let call_id = overdue["call_id"].as_str().unwrap();
    for field in [&format!("SIPST_CALL_ID={call_id}"), "SIPST_TRUNK=carrier", "PRIORITY=4", "SYSLOG_IDENTIFIER=sipst"] {
        assert!(fields.iter().any(|found| found == field), "no {field} in {fields:#?}");
    }
    // On stdout it was as well: that is no stream of the journal's here.
    assert!(fields.iter().any(|field| {
        field
            .strip_prefix("SIPST_JSON=")
            .is_some_and(|json| serde_json::from_str::<Value>(json).is_ok_and(|event| event == overdue))
    }));
}
