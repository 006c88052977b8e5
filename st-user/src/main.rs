//! The binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    sipst::cli::main()
}
