//! `cargo xtask test foreign`: the packages for the kind of machine that this one is not, and what is in them under emulation.

use std::process::Command;

use anyhow::Result;

use super::{Packing, VERSION, archive, check::Tally, deb, directory, stage, staged};
use crate::{
    bare::Arch,
    shell::{self, step},
    test::Outcome,
};

/// Makes the packages without optimisation, and looks into them.
pub(crate) fn foreign() -> Result<Outcome> {
    let arch = Arch::FOREIGN;
    step("dist", format_args!("the packages for {}, without optimisation", arch.name()));
    stage(arch, false)?;
    let home = directory().join("foreign");
    let package = deb(arch, VERSION, &home, Packing::Fast)?;
    let archive = archive(arch, &home, Packing::Fast)?;
    let mut tally = Tally::default();
    let of_package = output(shell::clean("dpkg-deb").arg("-f").arg(&package).arg("Architecture"));
    tally.says("the package is for it", same(&of_package, arch.debian()));
    let sipst = format!("sipst-{VERSION}-{}/bin/sipst", arch.name());
    let in_archive = output(shell::clean("tar").arg("-tzf").arg(&archive).arg(&sipst));
    tally.says("the archive too", same(&in_archive, &sipst));
    for words in [&["--version"], &["generate-config"]] {
        let there = output(shell::clean(arch.emulator()).arg(staged().join("bin/sipst")).args(words));
        let here = output(shell::clean(shell::sipst(false)).args(words));
        tally.says(&format!("`sipst {}` says what it says here", words.join(" ")), same(&there, &here));
    }
    Ok(tally.outcome())
}

/// What it prints, or nothing.
fn output(command: &mut Command) -> String {
    shell::output(command).unwrap_or_default().trim().to_owned()
}

fn same(said: &str, wanted: &str) -> Result<(), String> {
    if said == wanted && !wanted.is_empty() { Ok(()) } else { Err(format!("it is {said:?}, not {wanted:?}")) }
}
