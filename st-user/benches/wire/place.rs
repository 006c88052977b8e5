//! What each tool takes beside the same traffic, and what it does to it: SIPp and RTP on one processor, the tool on another.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use st_tests::{
    Host, Lab, Process,
    figure::{Target, tell},
};

use crate::{
    daemon::Daemon,
    traffic::{self, Called, MESSAGES, Media, PROCESSOR},
    usage::{Usage, resident_mb},
};

/// How long a tool has to get ready, and to take in what has come last.
const SETTLE: Duration = Duration::from_secs(2);

/// How long sipst keeps anything of calls that are over, and a little longer.
const FORGOTTEN: Duration = Duration::from_secs(45);

/// What is run beside sipst, each with the filter that leaves it SIP alone. Who gives up being root would outlive this process.
const TOOLS: [(&str, &str); 3] = [
    ("sipgrep", "exec sipgrep -R -C -d IF >/dev/null"),
    ("sngrep", "exec sngrep -N -q -l 1000000 -d IF port 5060 >/dev/null"),
    ("tcpdump", "exec tcpdump -n -Z root -i IF -w /run/capture.pcap port 5060"),
];

/// With traffic beside it, one tool or none.
struct Beside {
    called: Called,
    /// Packets of media that were sent, and lost.
    media: (u64, u64),
    tool: Usage,
    programs: Duration,
    packets: u64,
    resident_mb: f64,
}

impl Beside {
    fn messages(&self) -> f64 {
        (self.called.successful * MESSAGES) as f64
    }

    /// Microseconds of a processor for each message.
    fn each(&self) -> f64 {
        (self.tool.busy + self.programs).as_secs_f64() * 1e6 / self.messages()
    }
}

pub(crate) fn run(time: Duration) {
    let _counted = aya::sys::enable_stats(aya::sys::Stats::RunTime).expect("Linux 5.8 or later");
    let other = usize::from(thread::available_parallelism().map_or(1, usize::from) > 1);
    if other == PROCESSOR {
        eprintln!("place: there is one processor: tool and traffic share it");
    }
    let bare = traffic_of(&Lab::new().expect("two hosts"), time, || (Usage::default(), 0.0));
    told("no tool", &bare, None);
    let ours = sipst(other, time, &bare);
    for (name, line) in TOOLS {
        let theirs = tool(line, other, time);
        told(name, &theirs, Some(&bare));
        let ratio = ours / theirs.each();
        let target = if name == "sipgrep" { Target::AtMost(0.5) } else { Target::None };
        tell(&format!("place/sipst for a message, to {name}"), ratio, "x", target);
    }
}

/// Calls and media for so long; `take`: what the tool has taken so far.
fn traffic_of(lab: &Lab, time: Duration, take: impl Fn() -> (Usage, f64)) -> Beside {
    let before = take().0;
    let media = Media::start(lab);
    let called = traffic::call(lab, time);
    let media = media.stop();
    thread::sleep(SETTLE);
    let (after, resident_mb) = take();
    Beside { called, media, tool: after.since(before), programs: Duration::ZERO, packets: 0, resident_mb }
}

fn told(name: &str, beside: &Beside, bare: Option<&Beside>) {
    let Beside { called, media, tool, programs, packets, resident_mb } = beside;
    let name = |what: &str| format!("place/{name}: {what}");
    tell(&name("calls"), called.successful as f64, "", Target::None);
    tell(&name("calls that failed"), called.failed as f64, "", Target::AtMost(0.0));
    let most = bare.map_or(Target::None, |bare| Target::AtMost(bare.called.sent_again as f64));
    tell(&name("messages sent again"), called.sent_again as f64, "", most);
    tell(&name("RTP packets"), media.0 as f64, "", Target::None);
    tell(&name("RTP packets lost"), media.1 as f64, "", Target::None);
    tell(&name("SIPp's processor"), called.busy.as_secs_f64() * 1e6 / beside.messages(), "us a message", Target::None);
    if bare.is_some() {
        tell(&name("processor"), tool.busy.as_secs_f64() * 1e6 / beside.messages(), "us a message", Target::None);
        tell(&name("resident memory"), *resident_mb, "MB", Target::None);
    }
    if *packets > 0 {
        tell(&name("kernel programs"), programs.as_secs_f64() * 1e6 / beside.messages(), "us a message", Target::None);
        tell(
            &name("kernel programs, of each packet"),
            programs.as_nanos() as f64 / *packets as f64,
            "ns",
            Target::None,
        );
        tell(&name("processor and kernel programs"), beside.each(), "us a message", Target::None);
    }
}

/// Beside sipst: with calls and media, then with media alone. Returns what a message costs.
fn sipst(processor: usize, time: Duration, bare: &Beside) -> f64 {
    let lab = Lab::new().expect("two hosts");
    let config = format!(
        "interfaces: [{}]\nstate_dir: /run/state\ncontrol:\n  socket: off\ndefault:\n  action: refresh\n",
        lab.wire.a.interface
    );
    let daemon = Daemon::start(&lab.server, &config, Some(processor), Duration::from_secs(60));
    let before = daemon.programs.ran();
    let mut beside = traffic_of(&lab, time, || (daemon.usage(), daemon.resident_mb()));
    let after = daemon.programs.ran();
    (beside.programs, beside.packets) = (after.0 - before.0, after.1 - before.1);
    told("sipst", &beside, Some(bare));
    let (mut begun, mut over, mut lost) = (0_u64, 0_u64, 0_u64);
    daemon.events(&lab.server, |event| match event["event"].as_str() {
        Some("session_started") => begun += 1,
        Some("session_ended") => over += 1,
        Some("capture_loss") => lost += 1,
        _ => {}
    });
    tell("place/sipst: events that were not printed", daemon.unprinted() as f64, "", Target::AtMost(0.0));
    let calls = beside.called.successful;
    tell("place/sipst: losses told", lost as f64, "", Target::AtMost(0.0));
    tell(
        "place/sipst: calls not seen to begin and end",
        (2 * calls).saturating_sub(begun + over) as f64,
        "",
        Target::AtMost(0.0),
    );

    // Nothing is left of the calls, and nothing has to be written.
    thread::sleep(FORGOTTEN);
    let time = (time / 3).max(Duration::from_secs(5));
    let idle = daemon.usage();
    thread::sleep(time);
    let idle = daemon.usage().since(idle);
    let (media, before, ran) = (Media::start(&lab), daemon.usage(), daemon.programs.ran());
    let began = Instant::now();
    thread::sleep(time);
    let (busy, took) = (daemon.usage().since(before), began.elapsed());
    let after = daemon.programs.ran();
    let (sent, lost) = media.stop();
    let percent = |usage: Usage, of: Duration| usage.busy.as_secs_f64() * 100.0 / of.as_secs_f64();
    tell("place/RTP alone: packets a second", sent as f64 / took.as_secs_f64(), "", Target::None);
    tell("place/RTP alone: packets lost", lost as f64, "", Target::None);
    tell("place/RTP alone: sipst's processor", percent(busy, took), "%", Target::None);
    tell("place/no traffic: sipst's processor", percent(idle, time), "%", Target::None);
    // It wakes up once a second either way.
    let more = (percent(busy, took) - percent(idle, time)).max(0.0);
    tell("place/RTP alone: more than without", more, "%", Target::AtMost(0.05));
    tell("place/RTP alone: wakeups", busy.wakeups as f64 / took.as_secs_f64(), "a second", Target::None);
    let each = (after.0 - ran.0).as_nanos() as f64 / (after.1 - ran.1).max(1) as f64;
    tell("place/RTP alone: kernel programs, of each packet", each, "ns", Target::None);
    daemon.show_warnings();
    beside.each()
}

/// Beside another tool.
fn tool(line: &str, processor: usize, time: Duration) -> Beside {
    let lab = Lab::new().expect("two hosts");
    let mut process = start(&lab.server, &line.replace("IF", &lab.wire.a.interface), processor);
    thread::sleep(SETTLE);
    assert!(process.wait(Duration::ZERO).is_err(), "{line}: {}", process.said());
    let id = process.id();
    traffic_of(&lab, time, || (Usage::of(id), resident_mb(id)))
}

fn start(host: &Host, line: &str, processor: usize) -> Process {
    let mut command = Command::new("taskset");
    command.current_dir("/run").env("TERM", "dumb").env("HOME", "/run");
    command.args(["-c", &processor.to_string(), "sh", "-c", line]);
    host.spawn(command).expect("a process")
}
