//! What the binary says, where, and with which exit code.

#![allow(clippy::unwrap_used, reason = "what cannot be started fails the test")]

mod samples;

use std::{
    io::Read as _,
    process::{Command, Output, Stdio},
};

use samples::*;

fn sipst(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sipst")).args(args).env_remove("SIPST_LOG").output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Path of a sample in UTF-8, as all temporary ones are here.
fn path(temp: &Temp) -> &str {
    temp.path().to_str().unwrap()
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [&[][..], &["fly"], &["run"], &["load"], &["replay", "f", "--server", "host"]] {
        let output = sipst(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty());
    }
    assert_eq!(sipst(&["--version"]).status.code(), Some(0));
}

#[test]
fn the_generated_configuration_checks_as_it_is() {
    let generated = sipst(&["generate-config"]);
    assert_eq!(generated.status.code(), Some(0));
    let temp = Temp::new(&generated.stdout);
    let checked = sipst(&["check-config", path(&temp)]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    assert_eq!(
        stdout(&checked),
        format!("{}: OK: 1 port on eth0, 0 trunks, 0 alert receivers, refreshes nothing\n", path(&temp))
    );
}

#[test]
fn three_mistakes_are_three_lines_and_exit_code_2_for_whoever_reads_the_file() {
    let temp = Temp::new(b"interfaces: [eth0]\nports: [0]\nattatch: tc\ndefault:\n  action: maybe\n");
    let capture = Temp::new(&Pcap::default().file(&call(10)));
    let expected = format!(
        "{0}:2:9: `ports` is `0`, which is not a port or a range of ports: write a number from 1 to 65535, or a range such as 5060-5069\n\
         {0}:3:1: unknown key `attatch`: did you mean `attach`?\n\
         {0}:5:11: `action` is `maybe`: use one of observe, alert, refresh\n",
        path(&temp)
    );
    for args in [
        &["check-config", path(&temp)][..],
        &["run", "-c", path(&temp)],
        &["load", "-c", path(&temp)],
        &["replay", path(&capture), "-c", path(&temp)],
    ] {
        let output = sipst(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(stderr(&output), expected, "{args:?}");
        assert!(stdout(&output).is_empty());
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_one_line_and_exit_code_2() {
    for args in [&["check-config", "/nonexistent"][..], &["run", "-c", "/nonexistent"]] {
        let output = sipst(args);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stderr(&output).lines().count(), 1);
        assert!(stderr(&output).starts_with("sipst: /nonexistent: No such file"), "{}", stderr(&output));
    }
}

#[test]
fn replay_prints_events_on_stdout_and_its_summary_on_stderr() {
    let temp = Temp::new(&Pcap::default().file(&call(10)));
    let json = sipst(&["replay", path(&temp), "--json"]);
    assert_eq!(json.status.code(), Some(0), "{}", stderr(&json));
    let names: Vec<_> = stdout(&json)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["session_started", "timer_negotiated", "session_ended"]);
    assert!(stderr(&json).contains("packets: 6, SIP messages: 6, sessions: 1"), "{}", stderr(&json));
    let human = sipst(&["replay", path(&temp)]);
    let starts: Vec<_> = stdout(&human).lines().map(|line| line.find("192.0.2.1:5060")).collect();
    assert!(starts.len() == 3 && starts.iter().all(|start| start.is_some() && *start == starts[0]), "{starts:?}");
}

#[test]
fn the_rules_of_a_configuration_hold_in_a_replay() {
    let config = Temp::new(b"interfaces: [eth0]\ntrunks: [{name: carrier, match: {peers: [198.51.100.0/24]}}]\n");
    let capture = Temp::new(&Pcap::default().file(&call(10)));
    let output = sipst(&["replay", path(&capture), "-c", path(&config), "--json"]);
    assert!(stdout(&output).contains(r#""trunk":"carrier""#), "{}", stdout(&output));
}

#[test]
fn a_capture_that_ends_early_gives_its_events_and_one_error_and_exit_code_1() {
    let whole = Pcap::default().file(&call(10));
    let temp = Temp::new(&whole[..whole.len() - 1]);
    let output = sipst(&["replay", path(&temp), "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("session_started"));
    let errors: Vec<_> =
        stderr(&output).lines().filter(|line| line.starts_with("sipst: ")).map(str::to_owned).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("ends in the middle of a record, after 5 packets"), "{errors:?}");
}

#[test]
fn bad_captures_are_one_error_and_exit_code_1() {
    let (empty, garbage) = (Temp::new(b""), Temp::new(b"this is no capture"));
    for (file, expected) in [
        (path(&empty), "the file is empty"),
        (path(&garbage), "neither pcap nor pcapng"),
        ("/nonexistent", "No such file"),
        ("/", "Is a directory"),
    ] {
        let output = sipst(&["replay", file]);
        assert_eq!(output.status.code(), Some(1), "{file}");
        let said = stderr(&output);
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("sipst: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{said}");
        assert!(stdout(&output).is_empty());
    }
}

#[test]
fn a_reader_of_stdout_that_goes_away_is_a_quiet_end() {
    let frames: Vec<_> = std::iter::repeat_n(call(10), 3000)
        .enumerate()
        .flat_map(|(index, frames)| {
            frames.into_iter().map(move |(time, frame)| {
                let text =
                    String::from_utf8_lossy(&frame[42..]).replace("Call-ID: sample", &format!("Call-ID: {index}"));
                let (from, to) = if frame[26..30] == SERVER { (SERVER, PEER) } else { (PEER, SERVER) };
                (time + index as u64 * 20_000_000, ethernet(&ipv4(from, to, (5060, 5060), text.as_bytes()), &[]))
            })
        })
        .collect();
    let temp = Temp::new(&Pcap::default().file(&frames));
    let mut child = Command::new(env!("CARGO_BIN_EXE_sipst"))
        .args(["replay", path(&temp), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
}

#[test]
fn an_interface_that_does_not_exist_is_no_mistake_in_the_configuration() {
    let temp = Temp::new(b"interfaces: [sipst-none0]\n");
    assert_eq!(sipst(&["check-config", path(&temp)]).status.code(), Some(0));
}
