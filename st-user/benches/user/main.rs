//! What user space costs: messages a second, bytes of a session in memory and on disk, a start from the store, how all that grows
//! with the sessions, and `sipst replay` beside other readers of captures. Times are the processor's, so that they stand on a machine
//! that has other work; who runs this on an idle one sees the same and less noise.
//!
//! `cargo xtask bench user` runs all of it; `cargo bench --package sipst --bench user -- size 100000` one part, with as many sessions
//! (or, for `readers`, messages) at most.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout, reason = "a bench that cannot run says so and ends")]

mod calls;
mod capture;
mod plot;
mod readers;
mod rig;
mod size;
mod speed;

use std::{fs, path::Path};

/// Sessions, and messages of a capture.
const MOST: u64 = 1_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().expect("a number");
    // What this program runs of itself.
    match arguments[..] {
        ["held", action, sessions, dir] => return size::held(action, number(sessions), dir),
        ["start", dir] => return size::start(dir),
        ["reader", seconds, program, ref rest @ ..] => return readers::reader(number(seconds), program, rest),
        _ => {}
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("user-bench-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a writable target/");
    let most = arguments.get(1).map_or(MOST, |most| number(most));
    let wants = |part: &str| arguments.first().is_none_or(|one| *one == part);
    if wants("speed") {
        speed::run(&dir);
    }
    if wants("size") {
        size::run(&dir, most);
    }
    if wants("readers") {
        readers::run(&dir, usize::try_from(most).expect("a number of messages"));
    }
    fs::remove_dir_all(&dir).expect("a directory of this bench's");
}
