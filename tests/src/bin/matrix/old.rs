//! A kernel that is too old: sipst says so and leaves it as it was.

use anyhow::Result;
use st_tests::{
    Lab, Sipst,
    matrix::{Check, Subject, Verdict},
};

use crate::{
    bpf::{Kind, has_helper},
    hooks,
};

/// What the programs cannot do without: the helper's number (`enum bpf_func_id`) and the Linux that brought it.
const HELPERS: [(&str, Kind, i32, &str); 3] = [
    ("bpf_loop", Kind::Tc, 181, "5.17"),
    ("bpf_xdp_get_buff_len", Kind::Xdp, 188, "5.18"),
    ("bpf_xdp_load_bytes", Kind::Xdp, 189, "5.18"),
];

pub(crate) fn look(each: &mut dyn FnMut(Check) -> Result<()>) -> Result<()> {
    let verdict = refused().unwrap_or_else(|error| Verdict::Fail(format!("{error:#}")));
    each(Check { subject: Subject::Verify, way: String::new(), verdict })
}

fn refused() -> Result<Verdict> {
    let lab = Lab::new()?;
    let (code, _, said) = Sipst::command(&lab.server, &["load", "--interface", "eth0"])?;
    if code != Some(1) || !said.contains("too old") {
        return Ok(Verdict::Fail(format!("sipst should say that the kernel is too old; exit code {code:?}, {said}")));
    }
    let left = hooks::left(&lab.server, "eth0")?;
    if !left.is_empty() {
        return Ok(Verdict::Fail(format!("refused, but left {}", left.join(", "))));
    }
    let lacks: Vec<_> = HELPERS
        .iter()
        .filter(|(_, kind, number, _)| !has_helper(*kind, *number))
        .map(|(name, _, _, since)| format!("{name} ({since})"))
        .collect();
    if lacks.is_empty() {
        return Ok(Verdict::Fail("sipst refuses, but the kernel lacks nothing that the programs need".into()));
    }
    Ok(Verdict::Missing(format!("sipst refuses it, and it lacks {}", lacks.join(", "))))
}
