//! What the kernel says is attached to an interface, by its own tools and not by sipst's.

use std::fmt;

use anyhow::{Context as _, Result};
use st_tests::Host;

use crate::bpf::{self, Tcx};

/// A program at an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// As tables name it: `tcx egress`, `clsact ingress`, `xdp native`.
    pub(crate) hook: &'static str,
    /// The program's id.
    pub(crate) program: u32,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (program {})", self.hook, self.program)
    }
}

/// All of sipst's at an interface of a host.
pub(crate) fn seen(host: &Host, interface: &str) -> Result<Vec<Attached>> {
    let index = host.read(format!("/sys/class/net/{interface}/ifindex"))?;
    let index: u32 = String::from_utf8_lossy(&index).trim().parse().context("an interface without a number")?;
    let tcx = host.enter(move || {
        let at = |hook, name| bpf::tcx(index, hook).into_iter().map(move |program| Attached { hook: name, program });
        at(Tcx::Ingress, "tcx ingress").chain(at(Tcx::Egress, "tcx egress")).collect::<Vec<_>>()
    });
    let mut found = tcx;
    for (side, hook) in [("ingress", "clsact ingress"), ("egress", "clsact egress")] {
        let shown = host.run("tc", &["filter", "show", "dev", interface, side])?;
        let programs = shown.lines().filter(|line| line.contains(" st_")).filter_map(|line| number(line, "id"));
        found.extend(programs.map(|program| Attached { hook, program }));
    }
    let shown = host.run("ip", &["-details", "link", "show", "dev", interface])?;
    if let Some(line) = shown.lines().find(|line| line.contains("prog/xdp")) {
        let hook = if shown.contains("xdpgeneric") { "xdp generic" } else { "xdp native" };
        found.extend(number(line, "id").map(|program| Attached { hook, program }));
    }
    Ok(found)
}

/// What of sipst's is left on a host that should have nothing: hooks, qdiscs, pins.
pub(crate) fn left(host: &Host, interface: &str) -> Result<Vec<String>> {
    let mut left: Vec<_> = seen(host, interface)?.iter().map(Attached::to_string).collect();
    let qdiscs = host.run("tc", &["qdisc", "show", "dev", interface])?;
    left.extend(qdiscs.lines().filter(|line| line.contains("clsact")).map(str::to_owned));
    let pins = host.list("/sys/fs/bpf").into_iter().filter(|name| name == "sipst");
    left.extend(pins.map(|name| format!("/sys/fs/bpf/{name}")));
    Ok(left)
}

/// The number behind a word.
fn number(line: &str, word: &str) -> Option<u32> {
    let mut words = line.split_whitespace().skip_while(|one| *one != word);
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_id_is_read_from_what_the_tools_print() {
        let filter =
            "filter protocol all pref 1 bpf chain 0 handle 0x5150 st_egress direct-action not_in_hw id 12 tag 5a";
        assert_eq!(number(filter, "id"), Some(12));
        assert_eq!(number("    prog/xdp id 7 name st_ingress tag 2f jited", "id"), Some(7));
        assert_eq!(number("filter protocol all pref 1 bpf chain 0", "id"), None);
    }
}
