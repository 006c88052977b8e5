//! What sipst does in place, between real interfaces: whether its refreshes leave when they are due, and what it costs beside real
//! traffic. Each host is a namespace; all of them, and what runs in them, go with this process.
//!
//! `cargo xtask bench punctual` and `cargo xtask bench place` run this; behind `--` may stand how much of it, in this order:
//! `punctual -- SESSIONS SECONDS HERD`, `place -- SECONDS SECONDS_HELD`.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout, reason = "a bench that cannot run says so and ends")]

#[path = "../user/calls.rs"]
#[allow(dead_code, reason = "the bench of user space uses the rest")]
mod calls;
mod daemon;
mod held;
mod peer;
mod place;
mod punctual;
#[path = "../user/rig.rs"]
#[allow(dead_code, reason = "the bench of user space uses the rest")]
mod rig;
mod sessions;
mod stage;
mod traffic;
mod usage;

use std::{fs, path::Path, time::Duration};

use punctual::Size;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, usual: u64| arguments.get(at).map_or(usual, |text| text.parse().expect("a number"));
    // One that was interrupted leaves it behind.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wire-bench");
    let _ = fs::remove_dir_all(&dir);
    match arguments.first().map(String::as_str) {
        Some("punctual") => {
            let sessions = number(1, 1_000_000);
            let size = Size {
                sessions: sessions as usize,
                window: Duration::from_secs(number(2, 60)),
                herd: number(3, sessions / 10) as usize,
            };
            punctual::run(&dir, size);
        }
        Some("place") => {
            place::run(Duration::from_secs(number(1, 60)));
            held::run(&dir, Duration::from_secs(number(2, 60)));
        }
        _ => panic!("which part: punctual or place"),
    }
    let _ = fs::remove_dir_all(&dir);
}
