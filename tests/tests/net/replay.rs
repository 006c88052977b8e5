//! `sipst replay` on captures of calls that sipst kept alive.

use serde_json::Value;
use st_tests::{
    Play, Sipst, Tap,
    agent::{Agent, Profile, Update},
};

use crate::plan::{INTERVAL_S, Plan, SOON, config};

/// What must be the same live and in replay: all but the times. One line per event.
fn essence(events: &[Value]) -> Vec<String> {
    let line = |event: &Value| {
        let fields = event.as_object().unwrap().iter();
        let fields = fields.filter(|(name, _)| !["time", "deadline", "lag_s"].contains(&name.as_str()));
        fields.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    events.iter().map(line).collect()
}

/// An event a line, for a failed test's message.
fn listing(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn replayed(host: &st_tests::Host, server: &str) -> (Option<i32>, Vec<Value>, String) {
    let args = ["replay", "/run/call.pcap", "--json", "--server", server, "-c", "/run/sipst.yaml"];
    let (code, out, log) = Sipst::command(host, &args).unwrap();
    (code, out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), log)
}

#[test]
fn a_capture_taken_at_the_peers_end_tells_what_was_told_live() {
    for update in [Update::Accept, Update::Unknown] {
        let profile = Profile { update, ..Profile::strict_peer(INTERVAL_S, "uac") };
        let mut call = Plan { peer: profile, ..Plan::default() }.start();
        call.refreshed(3);
        // Else the BYE may cross the answer, and both orders would be true.
        call.sipst.event_count("refresh_succeeded", 3, SOON).unwrap();
        call.server_hangs_up();
        assert!(call.sipst.stop().unwrap().success(), "{}", call.story());
        let live = call.sipst.events();
        let capture = call.tap.capture();
        call.lab.server.file("call.pcap", capture).unwrap();
        let (code, events, log) = replayed(&call.lab.server, "10.0.0.1/32");
        assert_eq!(code, Some(0), "{log}");
        let same = essence(&events) == essence(&live);
        assert!(same, "replay:\n{}live:\n{}{log}", listing(&events), listing(&live));
    }
}

#[test]
fn a_capture_taken_on_the_host_itself_is_called_partial() {
    let lab = st_tests::Lab::new().unwrap();
    // Before XDP there is nothing that a capture could see.
    let mut sipst = Sipst::start(&lab.server, &config("xdp", &["action: refresh", "min_se: 2s"])).unwrap();
    let tap = Tap::start(&lab.server, "eth0").unwrap();
    let target = (lab.wire.b.v4, 5060).into();
    let peer = Agent::start(&lab.peer, target, Profile::strict_peer(INTERVAL_S, "uac")).unwrap();
    let hold = std::time::Duration::from_secs(10);
    let own = lab.wire.a.v4;
    let mut server = st_tests::Sipp::start(&lab.server, Play::server_calls(own, target, hold)).unwrap();
    server.succeeds(&lab.server, 2 * SOON).unwrap();
    assert!(peer.refreshes().len() >= 2, "{peer}\n{}", sipst.report());
    assert!(sipst.stop().unwrap().success());
    lab.server.file("call.pcap", tap.capture()).unwrap();
    let (code, events, log) = replayed(&lab.server, "10.0.0.1/32");
    assert_eq!(code, Some(0), "{log}");
    let loss: Vec<_> = events.iter().filter(|event| event["event"] == "capture_loss").collect();
    assert_eq!(loss.len(), 1, "{events:?}");
    assert!(loss[0]["reason"].as_str().is_some_and(|reason| reason.starts_with("capture_on_host")), "{}", loss[0]);
    assert!(log.contains("partial"), "{log}");
}
