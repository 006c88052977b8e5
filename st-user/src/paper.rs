//! What describes the command line to other programs: manual pages and completions, for packages.

use std::{io, path::Path};

use clap_complete::Shell;

/// One page for the program and one for each of its commands.
///
/// # Errors
///
/// A page cannot be written.
pub fn man(command: clap::Command, dir: &Path) -> io::Result<()> {
    clap_mangen::generate_to(command, dir)
}

/// What completes the command line in `shell`.
///
/// # Errors
///
/// It cannot be written.
pub fn completions(mut command: clap::Command, shell: Shell, out: &mut dyn io::Write) -> io::Result<()> {
    // Into memory first: the generator panics where a write fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "sipst", &mut script);
    out.write_all(&script)
}
