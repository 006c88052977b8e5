//! `sipst replay` beside what else reads SIP out of captures, on the same file, one after the other.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use st_tests::figure::{Target, tell};

use crate::{capture, size::child};

/// Packets of media to each message: 97 %.
const MEDIA: usize = 32;

/// Runs of which the fastest counts: others on the machine only make one slower.
const RUNS: usize = 2;

/// How many times as much of the processor as `sipst replay` a reader may take before it is ended: sngrep looks through all calls for
/// each packet of media. More than is wanted of any.
const PATIENCE: u32 = 25;

/// What a run took: processor time, and resident memory at its largest.
#[derive(Serialize, Deserialize)]
struct Took {
    busy: Duration,
    bytes: f64,
    /// It was ended, and would have taken more.
    cut: bool,
}

pub(crate) fn run(dir: &Path, messages: usize) {
    let file = dir.join("corpus.pcap");
    for (name, messages, media) in [("SIP", messages, 0), ("97 % RTP", messages / MEDIA, MEDIA)] {
        capture::write(&file, messages, media).expect("room for a capture");
        compare(name, &file);
    }
    fs::remove_file(file).expect("a file of this bench's");
}

fn compare(name: &str, file: &Path) {
    let path = file.to_str().expect("a path of this repository's");
    let ours =
        best(env!("CARGO_BIN_EXE_sipst"), &["replay", "--server", "192.0.2.10", path], Duration::from_secs(3_600));
    assert!(!ours.cut, "sipst replay was killed");
    let patience = ours.busy * PATIENCE;
    tell(&format!("user/replay of {name}"), ours.busy.as_secs_f64(), "s", Target::None);
    tell(&format!("user/replay of {name}: memory"), ours.bytes / 1e6, "MB", Target::None);
    let readers: [(&str, &[&str], f64); 3] = [
        ("sipgrep", &["-C", "-I", path], 1.0),
        ("sngrep", &["-N", "-q", "-l", "1000000", "-I", path], 5.0),
        ("tshark", &["-n", "-r", path, "-Y", "sip.Session-Expires"], 20.0),
    ];
    for (program, arguments, wanted) in readers {
        let theirs = best(program, arguments, patience);
        let ratio = theirs.busy.as_secs_f64() / ours.busy.as_secs_f64();
        let cut = if theirs.cut { ", ended" } else { "" };
        tell(&format!("user/replay of {name}: {program}'s time{cut}"), ratio, "x", Target::AtLeast(wanted));
        tell(&format!("user/replay of {name}: {program}'s memory"), theirs.bytes / 1e6, "MB", Target::None);
    }
}

fn best(program: &str, arguments: &[&str], patience: Duration) -> Took {
    let first = took(program, arguments, patience);
    if first.cut {
        return first;
    }
    let runs = (1..RUNS).map(|_| took(program, arguments, patience)).chain([first]);
    runs.min_by_key(|took| took.busy).expect("a run")
}

/// By a process in between that is small: the kernel counts what a process was forked from as its memory.
fn took(program: &str, arguments: &[&str], patience: Duration) -> Took {
    let seconds = (patience.as_secs() + 1).to_string();
    child(&[&["reader", &seconds, program], arguments].concat())
}

/// Runs a reader for so many seconds of processor time at most, and says what it took.
#[expect(clippy::zombie_processes, reason = "`wait4` waits for it, and tells what it took")]
pub(crate) fn reader(seconds: u64, program: &str, arguments: &[&str]) {
    let null = || Stdio::from(File::options().write(true).open("/dev/null").expect("a null device"));
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--cpu={seconds}")).arg(program).args(arguments);
    let child = limited.stdin(Stdio::null()).stdout(null()).stderr(null()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{program}: {error}"));
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: both are this function's, and the child is waited for here alone.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    assert_eq!(waited, pid, "{program} is waited for");
    let status = std::process::ExitStatus::from_raw(status);
    let cut = matches!(status.signal(), Some(libc::SIGXCPU | libc::SIGKILL));
    assert!(status.success() || cut, "{program} {arguments:?}: {status}");
    // SAFETY: the kernel has filled it in, and zeros are one.
    let usage = unsafe { usage.assume_init() };
    let time =
        |time: libc::timeval| Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1_000);
    let took = Took { busy: time(usage.ru_utime) + time(usage.ru_stime), bytes: usage.ru_maxrss as f64 * 1_024.0, cut };
    println!("{}", serde_json::to_string(&took).expect("numbers"));
}
