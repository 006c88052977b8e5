//! What operators see and command by the control socket, and who may.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::Value;
use st_tests::{Host, Lab, Sipst, agent::Profile};

use crate::plan::{Call, Plan, SOON, config};

const SOCKET: &str = "/run/sipst/sipst.sock";

/// A command that has to succeed; what it printed.
fn done(host: &Host, args: &[&str]) -> String {
    let (code, printed, said) = Sipst::command(host, args).unwrap();
    assert_eq!(code, Some(0), "{args:?}\n{printed}\n{said}");
    printed
}

/// The objects that it printed.
fn objects(host: &Host, args: &[&str]) -> Vec<Value> {
    done(host, args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A command that has to fail; what it said.
fn fails(host: &Host, args: &[&str], exit: i32) -> String {
    let (code, printed, said) = Sipst::command(host, args).unwrap();
    assert_eq!(code, Some(exit), "{args:?}\n{printed}\n{said}");
    said
}

fn call_id(call: &Call) -> String {
    let started = call.sipst.event("session_started", SOON).unwrap();
    started["call_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_call_is_listed_shown_refreshed_held_and_released() {
    let mut call = Plan::unhurried();
    let host = &call.lab.server;
    let id = call_id(&call);

    let rows =
        objects(host, &["sessions", "--json", "--trunk", "carrier", "--peer", "10.0.0.0/8", "--due-within", "60s"]);
    assert_eq!(rows.len(), 1, "{rows:?}");
    for (name, value) in [
        ("call_id", id.as_str()),
        ("state", "running"),
        ("refresher", "server"),
        ("action", "refresh"),
        ("caller", "server"),
    ] {
        assert_eq!(rows[0][name], value, "{}", rows[0]);
    }
    assert!(rows[0]["left_s"].as_f64().is_some_and(|left| left > 0.0 && left < 40.0), "{}", rows[0]);
    for other in [["--trunk", "other"], ["--peer", "192.0.2.0/24"], ["--state", "overdue"], ["--due-within", "0s"]] {
        assert_eq!(objects(host, &["sessions", "--json", other[0], other[1]]).len(), 0, "{other:?}");
    }
    assert!(done(host, &["sessions", "--all"]).contains(&id));

    let shown = objects(host, &["show", "--json", &id]);
    assert_eq!((shown.len(), &shown[0]["would_send"]), (1, &Value::from("UPDATE")), "{shown:?}");
    let timeline = shown[0]["timeline"].as_array().unwrap();
    let happened: Vec<&str> = timeline.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(happened[..2], ["session_started", "timer_negotiated"]);
    assert!(happened.contains(&"refresh_succeeded"), "{happened:?}");
    let text = done(host, &["show", &id]);
    assert!(text.contains("refreshes the call with UPDATE") && text.contains("the server must refresh"), "{text}");

    let refreshed = objects(host, &["refresh", "--json", &id]);
    assert!(refreshed.iter().any(|event| event["reason"] == "asked_for"), "{refreshed:?}");
    assert_eq!(refreshed.last().unwrap()["event"], "refresh_succeeded");
    call.refreshed(2);

    done(host, &["hold", &id]);
    call.sipst.event("session_held", SOON).unwrap();
    assert!(fails(host, &["refresh", &id], 1).contains("sipst release"));
    assert!(fails(host, &["hold", &id], 1).contains("held already"));
    assert!(done(host, &["show", &id]).contains("keeps its hands off"));
    assert_eq!(objects(host, &["sessions", "--json", "--state", "held"]).len(), 1);
    // It is still held by the next daemon.
    assert!(call.sipst.stop().unwrap().success());
    call.sipst = Sipst::start(host, &config("tc", &["action: refresh", "min_se: 2s"])).unwrap();
    assert_eq!(objects(host, &["sessions", "--json", "--state", "held"]).len(), 1, "{}", call.story());
    done(host, &["release", &id]);
    assert!(fails(host, &["release", &id], 1).contains("not held"));

    let status = objects(host, &["status", "--json", "--state-dir", "/run/state"]).remove(0);
    assert_eq!(status["daemon"]["sessions"]["states"]["running"], 1, "{status}");
    assert_eq!(status["daemon"]["interfaces"][0], "eth0", "{status}");
    let said = fails(host, &["show", "no-such-call", "--json"], 1);
    assert!(said.contains("no call has the Call-ID `no-such-call`"), "{said}");

    call.server_hangs_up();
    let ended =
        objects(host, &["events", "--json", "--filter", "event=session_ended", "--filter", &format!("call_id={id}")]);
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert!(call.sipst.stop().unwrap().success());
    let said = fails(host, &["sessions"], 1);
    assert!(said.contains("no sipst runs here"), "{said}");
    let (code, printed, _) = Sipst::command(host, &["hold", "x", "--json"]).unwrap();
    let error: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &error["error"]["word"]), (Some(1), &Value::from("not_running")));
    fails(host, &["sessions", "--state", "dying"], 2);
    fails(host, &["events", "--filter", "event=nothing"], 2);
}

#[test]
fn a_call_that_is_only_watched_is_not_refreshed_because_somebody_asks() {
    for action in ["observe", "alert"] {
        let rules = if action == "observe" { "action: observe" } else { "action: alert" };
        let call = Plan { rules: vec![rules], peer: Profile::strict_peer(40, "uac"), ..Plan::default() }.start();
        let id = call_id(&call);
        let said = fails(&call.lab.server, &["refresh", &id], 1);
        assert!(said.contains(&format!("`action` is `{action}`")), "{said}");
        assert_eq!((call.peer.refreshes().len(), call.sipst.count("refresh_due")), (0, 0), "{}", call.story());
        call.server_hangs_up();
    }
}

#[test]
fn only_the_daemons_user_and_the_sockets_group_may_command() {
    let lab = Lab::new().unwrap();
    let host = &lab.server;
    let group = "control: { group: daemon }\n";
    let mut sipst = Sipst::start(host, &format!("{}{group}", config("auto", &[]))).unwrap();
    let (code, printed, said) = Sipst::command_as(host, "65534", "1", &["sessions", "--json"]).unwrap();
    assert_eq!((code, printed.as_str()), (Some(0), ""), "{said}");
    for args in [&["sessions"][..], &["reload"], &["hold", "x"]] {
        let (code, _, said) = Sipst::command_as(host, "65534", "2", args).unwrap();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("usermod -aG daemon"), "{said}");
    }
    assert!(sipst.stop().unwrap().success(), "{}", sipst.report());

    let none = "control: { group: no-such-group-here }\n";
    let sipst = Sipst::start(host, &format!("{}{none}", config("auto", &[]))).unwrap();
    let until = Instant::now() + SOON;
    while !sipst.log().contains("there is no such group") {
        assert!(Instant::now() < until, "{}", sipst.report());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, _, said) = Sipst::command_as(host, "65534", "1", &["sessions"]).unwrap();
    assert!(code == Some(1) && said.contains("groupadd --system"), "{said}");
    done(host, &["sessions"]);
}

fn connect(host: &Host) -> UnixStream {
    host.enter(|| UnixStream::connect(SOCKET).unwrap())
}

fn line(stream: &UnixStream) -> Value {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn clients_that_are_many_mute_or_malformed_hold_up_neither_calls_nor_one_another() {
    let call = Plan::default().start();
    let host = &call.lab.server;
    for (request, word) in [
        ("not json\n".to_owned(), "bad_request"),
        ("{\"do\":\"sessions\",\"limit\":999999}\n".to_owned(), "bad_request"),
        ("{\"do\":\"show\",\"call_id\":\"x\"}\n".to_owned(), "no_such_call"),
        ("x".repeat(20_000), "too_long"),
    ] {
        let mut client = connect(host);
        client.write_all(request.as_bytes()).unwrap();
        assert_eq!(line(&client)["error"]["word"], word, "{request:.40}");
    }
    // Followers that read nothing, and clients that say nothing, take all places but one.
    let mute: Vec<UnixStream> = (0..31)
        .map(|index| {
            let mut client = connect(host);
            if index % 2 == 0 {
                client.write_all(b"{\"do\":\"events\",\"follow\":true}\n").unwrap();
            }
            client
        })
        .collect();
    let mut last = connect(host);
    last.write_all(b"{\"do\":\"status\"}\n").unwrap();
    assert_eq!(line(&last)["done"]["control"]["clients"], 32);
    let mut refused = connect(host);
    assert_eq!(line(&refused)["error"]["word"], "too_many_clients");
    assert_eq!(refused.read(&mut [0; 1]).unwrap(), 0);
    call.refreshed(2);
    // A place is free as soon as one goes.
    drop(mute);
    let until = Instant::now() + SOON;
    while Sipst::command(host, &["sessions"]).unwrap().0 != Some(0) {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    }
    call.server_hangs_up();
}
