//! Looks what sipst does on the kernel that this runs on, and says so line by line ([`st_tests::matrix`]). It finds `sipst`
//! beside itself. As the first process of a machine it sets that machine up and switches it off at the end.
//!
//! Below the oldest kernel that sipst knows it shows that sipst refuses, and why it must.

mod bpf;
mod hooks;
mod machine;
mod old;
mod ways;

use std::{
    fs::File,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use st_tests::matrix::{Check, Line};

/// A kernel's version: the first two numbers of its release.
type Version = (u32, u32);

/// What README promises.
const OLDEST: Version = (6, 1);

/// TCX links.
const TCX: Version = (6, 6);

fn main() -> ExitCode {
    if std::process::id() != 1 {
        return finish(look(&mut io::stdout()));
    }
    let result = machine::set_up().and_then(|()| {
        let mut line = File::options().write(true).open(machine::LINE).context(machine::LINE)?;
        look(&mut line)
    });
    finish(result);
    machine::switch_off()
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("matrix: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn look(to: &mut dyn Write) -> Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let version = version(&release).with_context(|| format!("a kernel without a version: {release}"))?;
    let mut say = |line: Line| writeln!(to, "{line}").and_then(|()| to.flush()).context("nobody reads");
    say(Line::Release(release))?;
    let mut each = |check: Check| say(Line::Check(check));
    if version < OLDEST {
        old::look(&mut each)?
    } else {
        ways::look(version, &mut each)?
    }
    say(Line::End)
}

fn version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_a_version() {
        assert_eq!(version("6.1.0-50-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("6.12.117+deb13-cloud-amd64"), Some((6, 12)));
        assert_eq!(version("next"), None);
        assert!((5, 10) < OLDEST && (6, 12) > TCX);
    }
}
