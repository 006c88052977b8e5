//! Records what real SIP stacks say to a scripted probe, for the simulator's models to be held against.
//!
//! `cargo run -p st-tests --bin record -- <stack>...` writes `st-user/core/tests/world/traces/<stack>.txt` anew. Needs
//! root; each call has a laboratory of its own. `tests/record/README.md` tells where the stacks come from.

mod probe;
mod scenarios;
mod stacks;

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, bail};
use st_tests::Lab;

use crate::{
    probe::Probe,
    scenarios::Scenario,
    stacks::{Setting, Stack},
};

/// Where the stack and the probe stand (RFC 5737), and a second probe, which is called by way of the stack.
const STACK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PROBE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const CALLEE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

const TRACES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../st-user/core/tests/world/traces");

/// Held by the call whose stack comes up.
static STARTING: Mutex<()> = Mutex::new(());

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let names: Vec<_> = args.by_ref().take_while(|arg| arg != "--only").collect();
    let only: Vec<_> = args.collect();
    let wanted: Vec<_> = Stack::ALL.into_iter().filter(|stack| names.iter().any(|name| name == stack.name())).collect();
    if wanted.is_empty() {
        let known: Vec<_> = Stack::ALL.iter().map(|stack| stack.name()).collect();
        bail!("which stack? {}", known.join(", "));
    }
    for stack in wanted {
        record(stack, &only)?;
    }
    Ok(())
}

/// All calls of a stack, at the same time.
#[allow(clippy::print_stdout)]
fn record(stack: Stack, only: &[String]) -> Result<()> {
    let mut scenarios = scenarios::of(stack);
    scenarios.retain(|scenario| only.is_empty() || only.iter().any(|name| name == scenario.name));
    let calls = scenarios.iter().map(|scenario| {
        let scenario = *scenario;
        (scenario, thread::spawn(move || call(stack, &scenario)))
    });
    let calls: Vec<_> = calls.collect();
    let (about, name) = (stack.about()?, stack.name());
    let mut file = format!("# {about}\n# Recorded by `cargo run -p st-tests --bin record -- {name}`.\n");
    for (Scenario { name, interval, min_se, updates, .. }, thread) in calls {
        let Ok(trace) = thread.join() else { bail!("{name}: the recorder panicked") };
        let trace = trace.with_context(|| name.to_owned())?;
        write!(file, "\n== {name} interval={interval} min_se={min_se} updates={updates}\n{trace}")?;
    }
    if only.is_empty() {
        let path = Path::new(TRACES).join(format!("{name}.txt"));
        return std::fs::write(&path, file).with_context(|| path.display().to_string());
    }
    println!("{file}");
    Ok(())
}

fn call(stack: Stack, scenario: &Scenario) -> Result<String> {
    let Scenario { name, interval, min_se, updates, script, callee } = *scenario;
    let lab = Lab::new()?;
    for (host, end, ip) in [(&lab.server, &lab.wire.a, STACK), (&lab.peer, &lab.wire.b, PROBE)] {
        // Its other addresses would find their way into messages.
        host.run("ip", &["address", "flush", "dev", &end.interface])?;
        host.run("ip", &["address", "add", &format!("{ip}/24"), "dev", &end.interface])?;
        let other = if ip == STACK { PROBE } else { STACK };
        host.run("ip", &["route", "add", "default", "via", &other.to_string()])?;
    }
    lab.peer.run("ip", &["address", "add", &format!("{CALLEE}/24"), "dev", &lab.wire.b.interface])?;
    let open = |ip: Ipv4Addr, tag| Probe::open(&lab.peer, (ip, 5060).into(), (STACK, 5060).into(), name, tag);
    let (probe, second) = (open(PROBE, probe::PROBE)?, open(CALLEE, probe::CALLEE)?);
    let calls = scenario.calls().then_some(PROBE);
    // All at once, they would take longer to come up than anyone waits.
    let turn = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let processes = stack.start(&lab.server, Setting { own: STACK, interval, min_se, updates, calls })?;
    drop(turn);
    let played = if callee.is_empty() { probe.play(script) } else { probe.play_to(script, second, callee) };
    played.with_context(|| {
        let said = processes.iter().map(|process| format!("{}\n{}\n", process.said(), process.printed()));
        format!("the stack said\n{}", said.collect::<String>())
    })
}
