//! What a configuration may say, and what is said about one that is wrong.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use secrecy::ExposeSecret as _;
use st_core::{Action, AssumeMode, Method, OnExpired, OnMoved, OverTcp, Policy, Rate, Respond, Rules};

use super::*;
use crate::container::Target;

fn parse_with(text: &str, overlaps: &dyn Fn(&[String]) -> Vec<Overlap>) -> Result<Config, String> {
    Config::parse("f", text.as_bytes(), Path::new("/nonexistent"), overlaps).map_err(|error| error.to_string())
}

fn parse(text: &str) -> Result<Config, String> {
    parse_with(text, &|_| Vec::new())
}

/// The lines that are said about `text`.
fn said(text: &str) -> Vec<String> {
    parse(text).unwrap_err().lines().map(str::to_owned).collect()
}

/// What is said about a file of `interfaces` and `text`, which begins in line 2.
#[track_caller]
fn says(text: &str, expected: &[&str]) {
    let said = said(&format!("interfaces: [eth0]\n{text}"));
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(&format!("f:{expected}")), "{said}\n  where expected: {expected}");
    }
}

/// A file in a directory that goes away with it.
struct Secret {
    dir: PathBuf,
    file: PathBuf,
}

impl Secret {
    fn new(name: &str, text: &str, mode: u32) -> Self {
        let dir = std::env::temp_dir().join(format!("sipst-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("password");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        Self { dir, file }
    }

    fn config(&self) -> String {
        format!("default: {{action: refresh, credentials: {{username: 1001, password_file: {}}}}}", self.file.display())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn everything_but_the_interfaces_has_a_default() {
    let config = parse("interfaces: [eth0]").unwrap();
    assert_eq!(
        config,
        Config {
            interfaces: vec!["eth0".into()],
            namespaces: vec![],
            attach: Attach::Auto,
            ports: vec![Ports::one(5060)],
            opaque_ports: vec![Ports::one(5061)],
            any_port: false,
            pin_dir: "/sys/fs/bpf/sipst".into(),
            state_dir: "/var/lib/sipst".into(),
            control: Control { socket: Some("/run/sipst/sipst.sock".into()), group: "sipst".into() },
            metrics: Metrics::default(),
            policy: Policy {
                trunks: vec![],
                default: Rules {
                    action: Action::Alert,
                    method: Method::Auto,
                    act_at: 0.6,
                    min_se: Duration::from_secs(90),
                    interval_floor: Duration::from_secs(90),
                    credentials: None,
                    strict_r12: false,
                    media_evidence: true,
                    refresh_rate: Rate::new(200).unwrap(),
                    on_moved: OnMoved::Alert,
                    take_over: false,
                    respond: Respond::Never,
                    on_expired: OnExpired::Alert,
                    assume_interval: None,
                    session_expires: Duration::from_secs(1_800),
                    mode: AssumeMode::Hold,
                    assist: false,
                    keepalive: None,
                    tcp: OverTcp::Alert,
                },
                max_session: Duration::from_secs(86_400),
                refresh_rate: Rate::new(500).unwrap(),
            },
            alerts: Alerting { receivers: vec![], rate: Some(30) },
            journald: Journald::Auto,
            recorder: None,
            hep: None,
        }
    );
    assert!(!config.refreshes());
}

#[test]
fn the_sample_says_the_defaults() {
    assert_eq!(parse(SAMPLE).unwrap(), parse("interfaces: [eth0]").unwrap());
}

/// The sample with its examples switched on.
pub(super) fn whole_sample() -> String {
    let mut lines = SAMPLE.lines().peekable();
    let mut whole = String::new();
    while let Some(line) = lines.next() {
        match line.strip_prefix("#  ") {
            Some(example) => whole += &format!("  {example}\n"),
            None => {
                // What stands there without the examples.
                let off =
                    line.strip_suffix(" off").filter(|_| lines.peek().is_some_and(|next| next.starts_with("#  ")));
                whole += &format!("{}\n", off.or_else(|| line.strip_suffix(" []")).unwrap_or(line));
            }
        }
    }
    whole
}

#[test]
fn the_examples_in_the_sample_are_right_too() {
    let secret = Secret::new("sample", "secret\n", 0o600);
    let file = secret.file.to_string_lossy();
    let config = parse(&whole_sample().replace("carrier.pw", &file).replace("homer.pw", &file)).unwrap();
    let trunk = &config.policy.trunks[0];
    assert_eq!(trunk.name, "carrier");
    assert!(trunk.matcher.matches("203.0.113.7".parse().unwrap(), ""));
    assert_eq!(config.namespaces.len(), 3);
    assert!(trunk.matcher.matches("198.51.100.7".parse().unwrap(), "sbc.carrier.example"));
    assert_eq!(trunk.rules.action, Action::Refresh);
    assert_eq!(trunk.rules.credentials.as_ref().unwrap().password.expose_secret(), "secret");
    let url = "http://127.0.0.1:9000/sipst".into();
    assert_eq!(config.alerts.receivers[0], Receiver::Webhook(Webhook { url, timeout: Duration::from_secs(2) }));
    assert_eq!(
        config.alerts.receivers.iter().map(Receiver::kind).collect::<Vec<_>>(),
        ["webhook", "alertmanager", "exec"]
    );
    assert!(config.refreshes());
}

#[test]
fn another_yaml_reader_finds_the_same_in_the_sample() {
    let other: serde_yaml::Value = serde_yaml::from_str(SAMPLE).unwrap();
    let ours = parse(SAMPLE).unwrap();
    assert_eq!(other["interfaces"][0].as_str(), Some(&*ours.interfaces[0]));
    assert_eq!(other["ports"][0].as_u64().map(|port| port.to_string()), Some(ours.ports[0].to_string()));
    assert_eq!(other["default"]["act_at"].as_f64(), Some(ours.policy.default.act_at));
    let keys = |value: &serde_yaml::Value| -> Vec<String> {
        value.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap().to_owned()).collect()
    };
    let said = said("interfaces: [eth0]\nzzz: 1\ndefault: {zzz: 1}");
    assert_eq!(said[0], format!("f:2:1: unknown key `zzz`: the keys here are {}", listed(&keys(&other), TOP)));
    assert_eq!(
        said[1],
        format!("f:3:11: unknown key `zzz`: the keys here are {}", listed(&keys(&other["default"]), DEFAULT))
    );
}

const TOP: &[&str] = &[
    "interfaces",
    "namespaces",
    "attach",
    "ports",
    "opaque_ports",
    "any_port",
    "pin_dir",
    "state_dir",
    "control",
    "metrics",
    "interval_floor",
    "max_session",
    "refresh_rate",
    "trunks",
    "default",
    "alerts",
    "alert_rate",
    "journald",
    "recorder",
    "hep",
];
const DEFAULT: &[&str] = &[
    "action",
    "method",
    "act_at",
    "interval_floor",
    "min_se",
    "credentials",
    "strict_r12",
    "media_evidence",
    "refresh_rate",
    "on_moved",
    "take_over",
    "respond",
    "on_expired",
    "assist",
    "keepalive",
    "tcp",
    "assume_interval",
    "session_expires",
    "mode",
];

/// `order`, once it is sure that every key the sample has is in it and, but for `credentials`, the other way round.
#[track_caller]
fn listed(sample: &[String], order: &[&str]) -> String {
    for key in sample {
        assert!(order.contains(&&**key), "{key}");
    }
    for key in order.iter().filter(|key| **key != "credentials") {
        assert!(sample.iter().any(|sample| sample == key), "{key} is not in the sample");
    }
    order.join(", ")
}

#[test]
fn three_mistakes_are_reported_at_once_where_they_are() {
    let text = "interfaces: [eth0]\nattach: tcx\ntrunks:\n  - name: a\n    actoin: refresh\n    act_at: 0.95\n";
    assert_eq!(
        said(text),
        [
            "f:2:9: `attach` is `tcx`: use one of auto, tc, xdp",
            "f:5:5: unknown key `actoin`: did you mean `action`?",
            "f:6:13: `act_at` is `0.95`, which is not a share from 0.5 to 0.9: write a number such as 0.6",
        ]
    );
}

#[test]
fn an_unknown_key_is_answered_by_the_one_meant_or_by_all_there_are() {
    assert_eq!(
        said("interface: [eth0]")[0],
        "f:1:1: `interfaces` is missing: add `interfaces: [eth0]` with the interfaces that SIP uses"
    );
    assert_eq!(said("interface: [eth0]")[1], "f:1:1: unknown key `interface`: did you mean `interfaces`?");
    says(
        "alerts: [{webhook: {url: \"http://h/\", retries: 3}}]",
        &["2:39: unknown key `retries`: the keys here are url, timeout"],
    );
    says("default: {credential: {}}", &["2:11: unknown key `credential`: did you mean `credentials`?"]);
    says(
        "trunks: [{name: a, match: {peer: [10.0.0.0/8]}}]",
        &["2:27: `match` names no peers and no domains", "2:28: unknown key `peer`: did you mean `peers`?"],
    );
}

#[test]
fn wrong_types_are_told_with_what_to_write() {
    says("ports: 5060", &["2:8: `ports` is a single value where a list is expected: write `ports: [5060]`"]);
    says("ports: [\"5060\"]", &["2:9: `ports` is text where a number is expected: write 5060 without quotes"]);
    says("default: alert", &["2:10: `default` is a single value where a mapping is expected"]);
    says("trunks: {name: a}", &["2:9: `trunks` is a mapping where a list is expected"]);
    says("attach: [tc]", &["2:9: `attach` is a list where a single value is expected: write `attach: value`"]);
    says("trunks: [a]", &["2:10: `trunks` is a single value where a mapping is expected"]);
    says("ports:", &["2:1: `ports` has no value: give it one, or take the line away"]);
    says("any_port: yes", &["2:11: `any_port` is `yes`: use one of true, false"]);
    says("default: {strict_r12: yes}", &["2:23: `strict_r12` is `yes`: use one of true, false"]);
    says("alerts: [webhook]", &["2:10: `alerts` is a single value where a mapping is expected"]);
}

#[test]
fn wrong_values_are_told_with_the_right_ones() {
    says("ports: [0, 65536, -1, 5060.5, sip]", &["2:9: ", "2:12: ", "2:19: ", "2:23: ", "2:31: "]);
    says("opaque_ports: [443, 0]", &["2:21: "]);
    says("ports: [5060, 443]\nopaque_ports: [5061, 443]", &["3:22: port 443 is in `ports` too"]);
    says("ports: [5060-5069]\nopaque_ports: [443, 5061-5080]", &["3:21: port 5061-5069 is in `ports` too"]);
    let opaque = |ports: &str| {
        parse(&format!("interfaces: [eth0]\nports: [{ports}]"))
            .unwrap()
            .opaque_ports
            .iter()
            .map(|one| one.to_string())
            .collect::<String>()
    };
    assert_eq!((opaque("5060"), opaque("5060-5069")), ("5061".into(), String::new()));
    says("ports: []", &["2:8: `ports` is an empty list"]);
    says("ports: [5060, 5069-5061]", &["2:15: `ports` is `5069-5061`, which ends before it begins: write 5061-5069"]);
    let wrong = |text: &str| {
        let cure = "write a number from 1 to 65535, or a range such as 5060-5069";
        format!("2:9: `ports` is `{text}`, which is not a port or a range of ports: {cure}")
    };
    for text in ["0", "0-5", "5060-0", "5060-", "5060-65536", "5060-5069-5079", "5060 - 5069", "a-b", "1-+2"] {
        says(&format!("ports: [{text}]"), &[&wrong(text)]);
    }
    let many: Vec<String> = (1..=65).map(|number| format!("{}-{}", number * 10, number * 10 + 5)).collect();
    says(&format!("ports: [{}]", many.join(", ")), &["2:8: `ports` has 65 entries: keep it to 64"]);
    let ports = |text: &str| {
        let ports = parse(&format!("interfaces: [eth0]\nports: [{text}]")).unwrap().ports;
        (ports.iter().map(Ports::to_string).collect::<Vec<_>>().join(" "), super::ports::covered(&ports))
    };
    assert_eq!(ports("5080, 5060-5069, \"6000-6000\""), ("5080 5060-5069 6000".into(), 12));
    assert_eq!(ports("1-65535"), ("1-65535".into(), 65_535));
    assert_eq!(ports(&many[..64].join(", ")).1, 64 * 6);
    says(
        "interval_floor: 90",
        &["2:17: `interval_floor` is `90`, which is no duration that can be used: add the unit, such as `90s`"],
    );
    says("interval_floor: soon", &["2:17: "]);
    says(
        "interval_floor: 0s",
        &["2:17: `interval_floor` is `0s`, which is no duration that can be used: use 1s to 7days"],
    );
    says("interval_floor: 1500ms", &["2:17: `interval_floor` has a fraction of a second"]);
    says("max_session: 5s", &["2:14: "]);
    says("pin_dir: pins", &["2:10: `pin_dir` is `pins`, which is not an absolute path"]);
    says("state_dir: state", &["2:12: `state_dir` is `state`, which is not an absolute path"]);
    says("default: {act_at: 0.49}", &["2:19: "]);
    says("default: {act_at: .nan}", &["2:19: "]);
    says("default: {action: Refresh}", &["2:19: `action` is `Refresh`: use one of observe, alert, refresh"]);
    says(
        "default: {action: refresh, method: invite}",
        &["2:36: `method` is `invite`: use one of auto, update, reinvite"],
    );
    says(
        "trunks: [{name: a, match: {peers: [10.0.0.1/8]}}]",
        &["2:36: `peers` is `10.0.0.1/8`, an address within a network: write 10.0.0.0/8"],
    );
    says("trunks: [{name: a, match: {peers: [10.0.0.0/33, host]}}]", &["2:36: ", "2:49: "]);
    says("trunks: [{name: a, match: {domains: [\"*\", a..b]}}]", &["2:38: ", "2:43: "]);
    says("trunks: [{name: a, match: {}}]", &["2:27: `match` names no peers and no domains"]);
    says("trunks: [{action: alert}]", &["2:10: `name` is missing"]);
    says("trunks: [{name: default}]", &["2:17: `default` is the name of what no trunk covers"]);
    says("trunks: [{name: \"\"}]", &["2:17: `name` is empty"]);
    for url in ["ftp://h/", "h:9000", "/path", "http://", "\"http://a b/\""] {
        says(&format!("alerts: [{{webhook: {{url: {url}}}}}]"), &["2:26: `url` is "]);
    }
    says("alerts: [{webhook: {timeout: 1h}}]", &["2:20: `url` is missing", "2:30: `timeout` is `1h`"]);
    says("alerts: [{}]", &["2:10: an entry of `alerts` names no receiver"]);
    says(
        "alerts: [{webhook: {url: \"http://h/\"}, exec: {command: [/bin/a]}}]",
        &["2:10: one entry names several receivers"],
    );
    says(
        "alerts: [{alertmanager: {url: \"http://h/api/v2/alerts\"}}]",
        &["2:25: `alertmanager` has the path of its API"],
    );
    says(
        "alerts: [{exec: {command: [sh, -c, x]}}]",
        &["2:27: `command` begins with `sh`, which is not an absolute path"],
    );
    says("alerts: [{exec: {command: []}}]", &["2:27: `command` is an empty list"]);
    says("alerts: [{exec: {command: [/bin/a], at_once: 0}}]", &["2:46: `at_once` is `0`, which is not a number"]);
    for size in ["64", "64MB", "1KiB", "17GiB", "-1MiB"] {
        says(&format!("recorder: {{size: {size}}}"), &["2:18: `size` is `"]);
    }
    for to in ["homer:9060", "tcp://homer:9060", "udp://homer", "udp://homer:0", "udp://a/b:1", "udp://::1:9060"] {
        says(&format!("hep: {{to: \"{to}\"}}"), &["2:11: `to` is `"]);
    }
    says("hep: {}", &["2:6: `to` is missing"]);
    says("hep: {to: \"udp://h:1\", capture_id: -1}", &["2:36: `capture_id` is `-1`"]);
    says("hep: {to: \"udp://h:1\", password_file: none}", &["2:39: `password_file` cannot be read"]);
    says("recorder: {files: 1}", &["2:19: `files` is `1`, which is not a number of files"]);
    says("recorder: on", &["2:11: `recorder` is a single value where a mapping is expected"]);
    says("journald: maybe", &["2:11: `journald` is `maybe`: use one of auto, true, false"]);
    for rate in ["0", "10001", "many", "-1"] {
        says(&format!("alert_rate: {rate}"), &["2:13: `alert_rate` is `"]);
    }
    assert_eq!(said("interfaces: [an-interface-too-long, eth/0]").len(), 2);
    parse("interfaces: [\"*\", \"!docker*\", \"ens?\", default, lo]").unwrap();
    assert!(
        said("interfaces: [\"!\", \"!!a\", \"a!b\"]").iter().all(|said| said.contains("not the name of an interface"))
    );
    assert!(
        said("interfaces: [\"!eth0\"]")[0]
            .starts_with("f:1:13: `interfaces` says only what is left out: name what is meant")
    );
    assert!(
        said("interfaces: [eth0, !eth1 ]")[0]
            .starts_with("f:1:20: a tag (`!...`): take it away, or put the value in quotes")
    );
    assert_eq!(said("interfaces: []"), ["f:1:13: `interfaces` is an empty list: name one at least"]);
}

#[test]
fn what_is_there_twice_is_reported_at_its_second_place() {
    says("ports: [5060, 5061, 5060]", &["2:21: `ports` names the same twice, first in line 2: keep one"]);
    says(
        "ports:\n- 5060-5069\n- 6000\n- 5065-5075",
        &["5:3: `ports` names 5065-5069 twice, first by 5060-5069 in line 3: name each port once"],
    );
    says("ports: [5060, 5000-5100]", &["2:15: `ports` names 5060 twice, first by 5060 in line 2: name each port once"]);
    says("attach: tc\nattach: xdp", &["3:1: `attach` is there twice, first in line 2: keep one"]);
    says(
        "trunks:\n- {name: a, match: {domains: [a.example]}}\n- {name: a, match: {domains: [b.example]}}",
        &["4:10: trunk `a` is there twice, first in line 3"],
    );
    says(
        "alerts:\n- webhook: {url: \"http://h/\"}\n- webhook: {url: \"http://h/\", timeout: 1s}",
        &["4:3: this webhook is there twice, first in line 3"],
    );
    assert_eq!(said("interfaces: [a, b, a]"), ["f:1:20: `interfaces` names the same twice, first in line 1: keep one"]);
}

#[test]
fn a_trunk_that_those_before_it_leave_nothing_to_is_a_contradiction() {
    let trunks = |matches: &[&str]| {
        let line = |(index, text): (usize, &&str)| format!("- {{name: t{index}{text}}}\n");
        format!("trunks:\n{}", matches.iter().enumerate().map(line).collect::<String>())
    };
    let a = ", match: {peers: [10.0.0.0/8], domains: [\"*.a.example\"]}";
    says(&trunks(&["", a]), &["4:3: trunk `t1` can never match, `t0` before it takes all of it: move it above `t0`"]);
    says(&trunks(&["", ""]), &["4:3: trunk `t1` can never match"]);
    says(&trunks(&[a, ", match: {peers: [10.1.0.0/16]}"]), &["4:3: trunk `t1` can never match"]);
    says(&trunks(&[a, ", match: {domains: [sbc.a.example, \"*.b.a.example\"]}"]), &["4:3: "]);
    says(&trunks(&[", match: {peers: [\"::/0\", 0.0.0.0/0]}", ", match: {domains: [x.example]}"]), &["4:3: "]);
    let split = [", match: {peers: [10.0.0.0/9]}", ", match: {peers: [10.128.0.0/9]}"];
    says(&trunks(&[split[0], split[1], ", match: {peers: [10.0.0.0/16, 10.200.0.0/16]}"]), &["5:3: "]);
    for fine in [
        trunks(&[a, ""]),
        trunks(&[a, ", match: {domains: [a.example]}"]),
        trunks(&[a, ", match: {peers: [10.1.0.0/16], domains: [b.example]}"]),
        trunks(&[", match: {peers: [10.1.0.0/16]}", a]),
        trunks(&[", match: {peers: [0.0.0.0/0]}", ", match: {peers: [\"2001:db8::/32\"]}"]),
    ] {
        parse(&format!("interfaces: [eth0]\n{fine}")).unwrap();
    }
}

#[test]
fn min_se_below_the_floor_is_a_contradiction_and_follows_it_where_it_is_not_given() {
    says(
        "default: {action: refresh, min_se: 60s}",
        &["2:36: `min_se` allows 1m, less than `interval_floor`: raise it to 1m 30s"],
    );
    says("interval_floor: 2m\ntrunks: [{name: a, action: refresh, min_se: 90s}]", &["3:45: `min_se` allows 1m 30s"]);
    says("interval_floor: 2\ntrunks: [{name: a, action: refresh, min_se: 1s}]", &["2:17: `interval_floor` is `2`"]);
    let config = parse("interfaces: [eth0]\ninterval_floor: 2m\ntrunks: [{name: a, interval_floor: 4s}]").unwrap();
    assert_eq!(config.policy.default.min_se, Duration::from_secs(120));
    assert_eq!(config.policy.default.interval_floor, Duration::from_secs(120));
    assert_eq!(config.policy.trunks[0].rules.interval_floor, Duration::from_secs(4));
    assert_eq!(config.policy.trunks[0].rules.min_se, Duration::from_secs(90));
    parse("interfaces: [eth0]\ninterval_floor: 4s\ndefault: {action: refresh, min_se: 4s}").unwrap();
}

#[test]
fn intervals_longer_than_the_longest_call_are_contradictions() {
    says("max_session: 10m\ninterval_floor: 11m", &["3:17: `interval_floor` is longer than `max_session`"]);
    says("max_session: 10m\ndefault: {action: refresh, min_se: 11m}", &["3:36: `min_se` is longer than `max_session`"]);
    says("max_session: 10m\ntrunks: [{name: a, interval_floor: 11m}]", &["3:36: `interval_floor` is longer"]);
}

#[test]
fn how_to_refresh_without_saying_refresh_is_a_contradiction() {
    says("trunks: [{name: a, method: update}]", &["2:20: says how to refresh, but no `action` is given"]);
    says("default: {min_se: 2m}", &["2:11: says how to refresh, but no `action` is given"]);
    parse("interfaces: [eth0]\ntrunks: [{name: a, action: alert, method: update}]").unwrap();
}

#[test]
fn a_namespace_is_one_of_a_container_a_file_and_a_process_and_has_a_name_of_its_own() {
    let group = |name: &str, target, interfaces: &[&str]| Group {
        name: name.into(),
        target,
        interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
    };
    let text = "interfaces: [eth0]\nnamespaces:\n  - {name: a, container: \"ns/sip-*/sip\"}\n  - {name: b, netns: /run/netns/b, \
                interfaces: [eth1, \"x*\"]}\n  - {name: c, pid: 7}";
    assert_eq!(
        parse(text).unwrap().namespaces,
        [
            group("a", Target::Container("ns/sip-*/sip".into()), &["eth0"]),
            group("b", Target::File("/run/netns/b".into()), &["eth1", "x*"]),
            group("c", Target::Process(7), &["eth0"]),
        ]
    );
    let says = |groups: &str, what: &str| {
        let said = said(&format!("interfaces: [eth0]\nnamespaces: [{groups}]"));
        assert!(said.len() == 1 && said[0].contains(what), "{groups}: {said:?}");
    };
    says("{name: a}", "f:2:14: a namespace needs one of `container`, `netns` and `pid`: say which it is");
    says(
        "{name: a, pid: 1, container: x}",
        "a namespace needs one of `container`, `netns` and `pid`: keep one of them",
    );
    says("{pid: 1}", "`name` is missing");
    says("{name: a/b, pid: 1}", "f:2:21: `name` is `a/b`, which is not a name of letters");
    says("{name: a, pid: 0}", "`pid` is `0`, which is not the id of a process");
    says("{name: a, netns: x}", "`netns` is `x`, which is not an absolute path");
    says("{name: a, container: a b}", "`container` is `a b`, which is not the name of a container");
    says("{name: a, pid: 1}, {name: a, pid: 2}", "`namespaces` names `a` twice");
    says("{name: a, pid: 1}, {name: b, pid: 1}", "`a` and `b` are the same namespace: process 1");
    says("{name: a, pid: 1, interfaces: []}", "`interfaces` is an empty list");
    let many: Vec<String> = (0..17).map(|n| format!("{{name: a{n}, pid: {}}}", n + 1)).collect();
    says(&many.join(", "), "`namespaces` has 17 entries: keep it to 16");
}

#[test]
fn interfaces_that_one_packet_crosses_twice_are_a_contradiction_for_refresh_only() {
    let overlaps = |names: &[String]| {
        assert_eq!(names, ["eth0", "eth0.7"]);
        vec![Overlap { a: "eth0".into(), b: "eth0.7".into(), why: "eth0.7 is a VLAN on eth0".into() }]
    };
    let text = |action| format!("interfaces: [eth0, eth0.7]\ntrunks: [{{name: a, action: {action}}}]");
    assert_eq!(
        parse_with(&text("refresh"), &overlaps).unwrap_err(),
        "f:1:20: one packet can cross both `eth0` and `eth0.7` (eth0.7 is a VLAN on eth0) and would be rewritten twice: \
         keep one of them, or use no `action: refresh`"
    );
    parse_with(&text("alert"), &overlaps).unwrap();
}

#[test]
fn a_password_is_the_one_line_of_a_file_that_not_every_user_can_read() {
    let read = |name: &str, text: &str, mode| {
        let secret = Secret::new(name, text, mode);
        parse(&format!("interfaces: [eth0]\n{}", secret.config()))
    };
    let credentials = read("good", "pass word\r\n", 0o640).unwrap().policy.default.credentials.unwrap();
    assert_eq!((&*credentials.username, credentials.password.expose_secret()), ("1001", "pass word"));
    assert!(!format!("{:?}", read("printed", "hunter2", 0o600).unwrap()).contains("hunter2"));
    for (name, text, mode, expected) in [
        ("open", "x", 0o644, "`password_file` is open to every user"),
        ("empty", "\n", 0o600, "`password_file` holds no single line"),
        ("two", "a\nb\n", 0o600, "`password_file` holds no single line"),
        ("long", &"x".repeat(1025), 0o600, "`password_file` holds no single line"),
    ] {
        let error = read(name, text, mode).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(error.starts_with("f:2:"), "{error}");
    }
    // The open file's group is what counts, and a pipe is no file.
    let secret = Secret::new("group", "x", 0o640);
    chown(&secret.file, None, Some(12_345)).unwrap();
    let refused = parse(&format!("interfaces: [eth0]\n{}", secret.config())).unwrap_err();
    let (what, cure) =
        ("`password_file` is open to a group, 12345, that is neither root's nor sipst's own", "run `chmod g= ");
    assert!(refused.contains(what) && refused.contains(cure), "{refused}");
    fs::set_permissions(&secret.file, fs::Permissions::from_mode(0o600)).unwrap();
    parse(&format!("interfaces: [eth0]\n{}", secret.config())).unwrap();
    fs::remove_file(&secret.file).unwrap();
    mknodat(CWD, &secret.file, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let refused = parse(&format!("interfaces: [eth0]\n{}", secret.config())).unwrap_err();
    assert!(refused.contains("`password_file` is no file"), "{refused}");
    says(
        "default: {action: refresh, credentials: {username: a, password_file: pw}}",
        &["2:70: `password_file` cannot be read: /nonexistent/pw: No such file"],
    );
    says(
        "default: {action: refresh, credentials: {password: x}}",
        &["2:41: `username` is missing", "2:41: `password_file` is missing", "2:42: unknown key `password`"],
    );
}

#[test]
fn what_is_no_yaml_is_told_once_with_its_place() {
    assert_eq!(said(""), ["f:1:1: the file is empty: start from the output of `sipst generate-config`"]);
    assert_eq!(
        said("\n# nothing\n"),
        ["f:1:1: the file says nothing: start from the output of `sipst generate-config`"]
    );
    assert_eq!(
        said("- eth0")[0],
        "f:1:1: `configuration` is a list where a mapping is expected: write `key: value` lines"
    );
    let error = Config::parse("f", b"a: 1\nb: \xff", Path::new(""), &|_| vec![]).unwrap_err().to_string();
    assert_eq!(error, "f:2:4: not UTF-8: save the file as UTF-8");
    let large = vec![b'#'; (1 << 20) + 1];
    let error = Config::parse("f", &large, Path::new(""), &|_| vec![]).unwrap_err().to_string();
    assert_eq!(error, "f:1:1: larger than 1 MiB: is this the right file?");
    for (text, at) in [
        ("interfaces: [eth0", "f:"),
        ("interfaces: [eth0]\n  attach: tc", "f:2:"),
        ("interfaces: &a [eth0]", "f:1:"),
        ("interfaces: [eth0]\nports: *a", "f:2:"),
        ("interfaces: !x [eth0]", "f:1:"),
        ("interfaces: [eth0]\n---\na: b", "f:2:"),
        ("? [a]\n: b", "f:1:"),
    ] {
        let said = said(text);
        assert!(said.len() == 1 && said[0].starts_with(at), "{said:?}");
    }
    let deep = format!("interfaces: {}", "[".repeat(100_000));
    assert_eq!(said(&deep).len(), 1);
}

#[test]
fn a_rate_is_a_number_or_off_and_nothing_is_said_to_be_sent_that_never_would_be() {
    let rates = |text: &str| {
        let policy = parse(&format!("interfaces: [eth0]\n{text}")).unwrap().policy;
        (policy.refresh_rate.per_second(), policy.default.refresh_rate.per_second())
    };
    assert_eq!(rates("refresh_rate: 1000\ndefault: {action: refresh, refresh_rate: 700}"), (Some(1000), Some(700)));
    assert_eq!(rates("refresh_rate: off\ndefault: {action: refresh, refresh_rate: off}"), (None, None));
    assert_eq!(rates("refresh_rate: 50"), (Some(50), Some(50)), "a trunk's own is no higher unless somebody says so");
    assert_eq!(rates("default: {action: refresh, refresh_rate: off}"), (Some(500), None));
    says(
        "refresh_rate: 0",
        &["2:15: `refresh_rate` is 0, with which no refresh would ever leave: use `action: alert`"],
    );
    says("refresh_rate: 10001", &["2:15: `refresh_rate` is 10001, more than can be kept"]);
    says("refresh_rate: -1", &["2:15: `refresh_rate` is `-1`, which is no number of refreshes a second"]);
    says("refresh_rate: 50/s", &["2:15: `refresh_rate` is `50/s`, which is no number"]);
    says(
        "refresh_rate: 50\ndefault: {action: refresh, refresh_rate: 51}",
        &["3:42: `refresh_rate` is higher than the 50 of all trunks together: lower it"],
    );
    says("default: {refresh_rate: 20}", &["2:11: says how to refresh, but no `action` is given"]);
}

#[test]
fn on_expired_is_bye_only_where_something_is_sent_and_the_media_are_looked_at() {
    let on_expired = |text: &str| parse(&format!("interfaces: [eth0]\n{text}")).unwrap().policy.default;
    let rules = on_expired("default: {action: refresh, on_expired: bye}");
    assert!(rules.on_expired == OnExpired::Bye && rules.hangs_up());
    for alert in
        ["default: {action: refresh, on_expired: alert}", "default: {action: refresh}", "default: {action: alert}"]
    {
        assert_eq!(on_expired(alert).on_expired, OnExpired::Alert, "{alert}");
    }
    says(
        "default: {action: refresh, media_evidence: off, on_expired: bye}",
        &["2:61: `on_expired: bye` hangs up only where the media are silent, and `media_evidence: off` looks at none"],
    );
    for action in ["alert", "observe"] {
        let text = format!("default: {{action: {action}, on_expired: bye}}");
        let at = text.find("bye").unwrap() + 1;
        says(&text, &[&format!("2:{at}: `on_expired: bye` sends BYEs, and nothing is sent without `action: refresh`")]);
    }
    says("default: {on_expired: bye}", &["2:11: says how to refresh, but no `action` is given"]);
    says("default: {action: refresh, on_expired: yes}", &["2:40: `on_expired` is `yes`: use one of alert, bye"]);
}

#[test]
fn on_moved_is_alert_or_tell_server() {
    let on_moved = |text: &str| parse(&format!("interfaces: [eth0]\n{text}")).unwrap().policy.default.on_moved;
    assert_eq!(on_moved("default: {action: refresh, on_moved: tell-server}"), OnMoved::TellServer);
    assert_eq!(on_moved("default: {action: refresh, on_moved: alert}"), OnMoved::Alert);
    says("default: {action: refresh, on_moved: yes}", &["2:38: `on_moved` is `yes`: use one of alert, tell-server"]);
}

#[test]
fn take_over_is_true_or_false() {
    let take_over = |text: &str| parse(&format!("interfaces: [eth0]\n{text}")).unwrap().policy.default.take_over;
    assert!(take_over("default: {action: refresh, take_over: true}"));
    assert!(!take_over("default: {action: refresh, take_over: false}") && !take_over("default: {action: refresh}"));
    says("default: {take_over: true}", &["2:11: says how to refresh, but no `action` is given"]);
    says("default: {action: refresh, take_over: early}", &["2:39: `take_over` is `early`"]);
}

#[test]
fn an_interval_is_assumed_where_that_can_be_kept_and_makes_no_shorter_timer() {
    let assumed = |text: &str| {
        let rules = parse(&format!("interfaces: [eth0]\n{text}")).unwrap().policy.default;
        (rules.assume_interval.map(|interval| interval.as_secs()), rules.session_expires.as_secs())
    };
    assert_eq!(assumed("default: {action: refresh, assume_interval: 300s}"), (Some(300), 1_800));
    assert_eq!(assumed("default: {action: alert, assume_interval: 1h}"), (Some(3_600), 3_600));
    assert_eq!(assumed("default: {action: refresh, assume_interval: 5m, session_expires: 10m}"), (Some(300), 600));
    assert_eq!(assumed("default: {action: refresh, assume_interval: off, session_expires: 10m}"), (None, 600));
    assert_eq!(assumed("default: {action: refresh}"), (None, 1_800));
    says("default: {assume_interval: 300s}", &["2:11: says how to refresh, but no `action` is given"]);
    says(
        "default: {action: refresh, assume_interval: 300}",
        &["2:45: `assume_interval` is `300`, which is no duration that can be used: add the unit, such as `300s`"],
    );
    says(
        "default: {action: refresh, assume_interval: 60s}",
        &["2:45: `assume_interval` is shorter than `interval_floor`, 1m 30s: raise it, or lower `interval_floor`"],
    );
    says(
        "default: {action: refresh, assume_interval: 25h}",
        &["2:45: `assume_interval` is longer than `max_session`: no call would be refreshed"],
    );
    says(
        "default: {action: refresh, session_expires: 10m}",
        &["2:45: `session_expires` says what is asked for where an interval is assumed, and none is"],
    );
    says(
        "default: {action: refresh, assume_interval: 300s, session_expires: 200s}",
        &["2:68: `session_expires` is less than `assume_interval`, 5m: raise it: a shorter timer would be made"],
    );
    says(
        "default: {action: refresh, min_se: 20m, assume_interval: 300s, session_expires: 10m}",
        &["2:81: `session_expires` is less than `min_se`, 20m: raise it, or lower `min_se`"],
    );
}

#[test]
fn the_refreshing_is_held_or_handed_off_where_an_interval_is_assumed() {
    let mode = |text: &str| parse(&format!("interfaces: [eth0]\n{text}")).unwrap().policy.default.mode;
    assert_eq!(mode("default: {action: refresh, assume_interval: 300s, mode: hand-off}"), AssumeMode::HandOff);
    assert_eq!(mode("default: {action: refresh, assume_interval: 300s, mode: hold}"), AssumeMode::Hold);
    assert_eq!(mode("default: {action: refresh, mode: hold}"), AssumeMode::Hold);
    says("default: {action: refresh, mode: handoff}", &["2:34: `mode` is `handoff`: use one of hold, hand-off"]);
    says(
        "default: {action: refresh, mode: hand-off}",
        &["2:34: `mode` is `hand-off`, and there is no `assume_interval`"],
    );
    says(
        "default: {action: refresh, take_over: true, assume_interval: 300s, mode: hand-off}",
        &["2:74: `mode: hand-off` leaves the refreshing to the peer, and `take_over: true` takes it"],
    );
}

#[test]
fn media_evidence_is_auto_or_off() {
    let evidence = |text: &str| parse(&format!("interfaces: [eth0]\n{text}")).unwrap().policy.default.media_evidence;
    assert!(evidence("default: {action: refresh}") && evidence("default: {action: refresh, media_evidence: auto}"));
    assert!(!evidence("default: {action: refresh, media_evidence: off}"));
    says("default: {action: refresh, media_evidence: yes}", &["2:44: `media_evidence` is `yes`: use one of auto, off"]);
}

#[test]
fn respond_is_never_or_on_reject_and_needs_refresh() {
    let respond = |text: &str| parse(&format!("interfaces: [eth0]\n{text}")).unwrap().policy.default.respond;
    assert_eq!(respond("default: {action: refresh, respond: on-reject}"), Respond::OnReject);
    assert_eq!(respond("default: {action: refresh, respond: never}"), Respond::Never);
    assert_eq!(respond("default: {action: alert, respond: never}"), Respond::Never);
    says("default: {action: refresh, respond: yes}", &["2:37: `respond` is `yes`: use one of never, on-reject"]);
    says(
        "default: {action: alert, respond: on-reject}",
        &["2:35: `respond` is `on-reject`, but `action` is not `refresh`"],
    );
}

#[test]
fn tcp_is_alert_or_refresh_and_needs_refresh() {
    let tcp = |text: &str| parse(&format!("interfaces: [eth0]\nattach: tc\n{text}")).unwrap().policy.default.tcp;
    assert_eq!(tcp("default: {action: refresh, tcp: refresh}"), OverTcp::Refresh);
    assert_eq!(tcp("default: {action: refresh, tcp: alert}"), OverTcp::Alert);
    assert_eq!(tcp("default: {action: alert, tcp: alert}"), OverTcp::Alert);
    assert_eq!(tcp("default: {action: refresh}"), OverTcp::Alert);
    says("default: {action: refresh, tcp: yes}", &["2:33: `tcp` is `yes`: use one of alert, refresh"]);
    says("default: {action: alert, tcp: refresh}", &["2:31: `tcp` is `refresh`, but `action` is not"]);
    says("default: {action: refresh, tcp: refresh}", &["2:1: `tcp: refresh` needs `attach: tc`"]);
    says("attach: xdp\ndefault: {action: refresh, tcp: refresh}", &["2:1: `tcp: refresh` needs `attach: tc`"]);
}

#[test]
fn keepalive_is_off_or_5_s_to_5_min_and_needs_refresh() {
    let keepalive = |text: &str| parse(&format!("interfaces: [eth0]\n{text}")).unwrap().policy.default.keepalive;
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(keepalive("default: {action: refresh}"), None);
    assert_eq!(keepalive("default: {action: alert, keepalive: off}"), None);
    for (text, value) in [("5s", 5), ("30s", 30), ("5m", 300)] {
        assert_eq!(keepalive(&format!("default: {{action: refresh, keepalive: {text}}}")), seconds(value));
    }
    for text in ["4s", "301s"] {
        says(
            &format!("default: {{action: refresh, keepalive: {text}}}"),
            &[&format!("2:39: `keepalive` is `{text}`, which is no duration that can be used: use 5s to 5m")],
        );
    }
    says("default: {action: alert, keepalive: 30s}", &["2:37: `keepalive` is on, but `action` is not `refresh`"]);
    says("default: {keepalive: 30s}", &["2:11: says how to refresh, but no `action` is given"]);
}

#[test]
fn assist_is_true_or_false_and_needs_refresh_and_peers() {
    let assist = |text: &str| parse(&format!("interfaces: [eth0]\n{text}")).unwrap().policy.default.assist;
    assert!(assist("default: {action: refresh, assist: true}"));
    assert!(!assist("default: {action: refresh, assist: false}") && !assist("default: {action: refresh}"));
    assert!(!assist("default: {action: alert, assist: false}"));
    says("default: {action: refresh, assist: yes}", &["2:36: `assist` is `yes`"]);
    says("default: {action: alert, assist: true}", &["2:34: `assist` is on, but `action` is not `refresh`"]);
    says("default: {assist: true}", &["2:11: says how to refresh, but no `action` is given"]);
    let trunk = |name: &str, reach: &str, more: &str| {
        format!("  - {name}\n    match: {{{reach}}}\n    action: refresh\n{more}").replacen(
            name,
            &format!("name: {name}"),
            1,
        )
    };
    let (peers, domains, on) = ("peers: [10.0.0.0/8]", "domains: [b.example]", "    assist: true\n");
    says(
        &format!("trunks:\n{}", trunk("a", domains, on)),
        &["6:13: `assist` goes by the peer's address, and this trunk by domains: name its `peers` instead"],
    );
    says(
        &format!("trunks:\n{}{}", trunk("a", domains, ""), trunk("b", peers, on)),
        &["9:13: `assist` goes by the peer's address, and trunk `a` above may take the same calls by their domain"],
    );
    says(
        &format!("trunks:\n{}default: {{action: refresh, assist: true}}\n", trunk("a", domains, "")),
        &["6:1: `assist` goes by the peer's address, and trunk `a` may take the same calls by their domain"],
    );
    let below = parse(&format!("interfaces: [eth0]\ntrunks:\n{}{}", trunk("a", peers, on), trunk("b", domains, "")));
    assert!(below.unwrap().policy.trunks[0].rules.assist);
}

#[test]
fn the_control_socket_can_be_elsewhere_or_nowhere() {
    let control = |text: &str| parse(&format!("interfaces: [eth0]\ncontrol: {text}")).unwrap().control;
    assert_eq!(
        control("{socket: /run/other.sock, group: voip}"),
        Control { socket: Some("/run/other.sock".into()), group: "voip".into() }
    );
    assert_eq!(control("{socket: off}"), Control { socket: None, group: "sipst".into() });
    says("control: {socket: sipst.sock}", &["2:19: `socket` is `sipst.sock`, which is not an absolute path"]);
    let long = format!("control: {{socket: /{}}}", "x".repeat(107));
    says(&long, &["2:19: `socket` is `/xx"]);
    says("control: {sockets: off}", &["2:11: unknown key `sockets`: did you mean `socket`?"]);
}

#[test]
fn metrics_are_off_or_at_an_address_and_a_port_alone_is_one_of_the_loopback() {
    let listen = |text: &str| parse(&format!("interfaces: [eth0]\nmetrics: {text}")).unwrap().metrics.listen;
    assert_eq!(listen("{listen: off}"), None);
    assert_eq!(listen("{}"), None);
    for text in ["{listen: \"127.0.0.1:9464\"}", "{listen: 127.0.0.1:9464}", "{listen: 9464}"] {
        assert_eq!(listen(text), Some("127.0.0.1:9464".parse().unwrap()), "{text}");
    }
    assert_eq!(listen("{listen: \"[::1]:9464\"}"), Some("[::1]:9464".parse().unwrap()));
    for text in ["localhost:9464", "127.0.0.1", "127.0.0.1:0", "0", ":9464", "127.0.0.1:99999"] {
        let wrong = format!("2:19: `listen` is `{text}`, which is not an IP address and a port: write 127.0.0.1:9464");
        says(&format!("metrics: {{listen: \"{text}\"}}"), &[&wrong]);
    }
    says("metrics: {listens: off}", &["2:11: unknown key `listens`: did you mean `listen`?"]);
    says("metrics: 9464", &["2:10: `metrics` is a single value where a mapping is expected"]);
}

#[test]
fn the_status_page_is_off_and_needs_an_address_to_be_shown_at() {
    let page = |text: &str| parse(&format!("interfaces: [eth0]\nmetrics: {text}")).unwrap().metrics.page;
    assert!(page("{listen: 9464, page: true}"));
    assert!(!page("{listen: 9464}") && !page("{listen: 9464, page: false}") && !page("{page: false}"));
    says("metrics: {page: true}", &["2:17: `page` is shown at `metrics.listen`, which is `off`: add `listen: 9464`"]);
    says("metrics: {listen: off, page: true}", &["2:30: `page` is shown at `metrics.listen`, which is `off`"]);
    says("metrics: {listen: 9464, page: here}", &["2:31: `page` is `here`: use one of true, false"]);
    says("metrics: {listen: here, page: true}", &["2:19: `listen` is `here`"]);
}

#[test]
fn the_recorder_is_off_or_has_its_limits() {
    let recorder = |text: &str| parse(&format!("interfaces: [eth0]\nrecorder: {text}")).unwrap().recorder;
    assert_eq!(recorder("off"), None);
    assert_eq!(recorder("{}"), Some(Limits { size: 64 << 20, files: 4 }));
    assert_eq!(recorder("{size: 2GiB, files: 9}"), Some(Limits { size: 2 << 30, files: 9 }));
}

#[test]
fn homer_is_nowhere_or_has_an_address() {
    let hep = |text: &str| parse(&format!("interfaces: [eth0]\nhep: {text}")).unwrap().hep;
    assert_eq!(hep("off"), None);
    let target = |host: &str| hep::Target { host: host.into(), port: 9060, capture_id: 2001, password: None };
    assert_eq!(hep("{to: \"udp://homer.example:9060\"}"), Some(target("homer.example")));
    assert_eq!(hep("{to: \"udp://[::1]:9060\"}"), Some(target("::1")));
    assert_ne!(hep("{to: \"udp://[::1]:9060\", capture_id: 7}"), Some(target("::1")));
}
