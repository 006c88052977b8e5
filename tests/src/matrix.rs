//! What a kernel was found to do, as the program `matrix` says it and `cargo xtask test matrix` reads it: a line a check.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Error, Result, bail};
use serde_json::{Value, json};

/// What is looked at. One may be looked at in several ways; it is as good as the worst of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The kernel's verifier takes every program.
    Verify,
    /// TC programs are held by TCX links.
    Tcx,
    /// TC programs are held by filters of a clsact qdisc.
    Clsact,
    /// The XDP program runs in the driver.
    XdpNative,
    /// The XDP program runs behind a driver that knows nothing of it.
    XdpGeneric,
    /// A call is refreshed and outlives its peer's interval, and the server ends it.
    Call,
    /// Where a packet crosses two interfaces, a call's numbers are shifted at one of them.
    Once,
    /// A call that runs through a tunnel is kept up from the tunnel's own interface.
    Tunnel,
    /// What is attached stays when the daemon is killed, and the next daemon takes it over.
    Kill,
    /// `sipst unload` leaves nothing.
    Unload,
    /// The programs are taken, and a call is kept up, by a kernel that is locked down.
    Lockdown,
}

impl Subject {
    /// In the order in which they are told.
    pub const ALL: [Self; 11] = [
        Self::Verify,
        Self::Tcx,
        Self::Clsact,
        Self::XdpNative,
        Self::XdpGeneric,
        Self::Call,
        Self::Once,
        Self::Tunnel,
        Self::Kill,
        Self::Unload,
        Self::Lockdown,
    ];

    /// Its name in lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::XdpNative => "xdp native",
            Self::XdpGeneric => "xdp generic",
            Self::Call => "call",
            Self::Once => "once",
            Self::Tunnel => "tunnel",
            Self::Kill => "kill",
            Self::Unload => "unload",
            Self::Lockdown => "lockdown",
        }
    }
}

/// How it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// The kernel has no such thing, and need not have it; why.
    Missing(String),
    /// Otherwise than it should be; what was seen.
    Fail(String),
}

/// One thing looked at in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub subject: Subject,
    /// In which way; empty where there is but one.
    pub way: String,
    /// How it is.
    pub verdict: Verdict,
}

/// A line of the program `matrix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The first: the kernel's release, as `uname -r` has it.
    Release(String),
    /// A check.
    Check(Check),
    /// The last: nothing was left out.
    End,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = match self {
            Self::Release(release) => json!({ "release": release }),
            Self::End => json!({ "end": true }),
            Self::Check(Check { subject, way, verdict }) => {
                let (verdict, text) = match verdict {
                    Verdict::Pass => ("pass", ""),
                    Verdict::Missing(why) => ("missing", why.as_str()),
                    Verdict::Fail(what) => ("fail", what.as_str()),
                };
                json!({ "subject": subject.name(), "way": way, "verdict": verdict, "text": text })
            }
        };
        write!(f, "{value}")
    }
}

impl FromStr for Line {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line.trim()).with_context(|| format!("not a line of ours: {line}"))?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        if let Some(release) = text("release") {
            return Ok(Self::Release(release));
        }
        if value.get("end").is_some() {
            return Ok(Self::End);
        }
        let name = text("subject").context("no subject")?;
        let subject = Subject::ALL.into_iter().find(|one| one.name() == name);
        let subject = subject.with_context(|| format!("no such subject: {name}"))?;
        let verdict = match (text("verdict").as_deref(), text("text").unwrap_or_default()) {
            (Some("pass"), _) => Verdict::Pass,
            (Some("missing"), why) => Verdict::Missing(why),
            (Some("fail"), what) => Verdict::Fail(what),
            (other, _) => bail!("no such verdict: {other:?}"),
        };
        Ok(Self::Check(Check { subject, way: text("way").unwrap_or_default(), verdict }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let check = |verdict| Line::Check(Check { subject: Subject::XdpGeneric, way: "xdp".into(), verdict });
        let lines = [
            Line::Release("6.1.0-50-cloud-amd64".into()),
            check(Verdict::Pass),
            check(Verdict::Missing("TCX came with Linux 6.6".into())),
            check(Verdict::Fail("two lines\n\"quoted\"".into())),
            Line::End,
        ];
        for line in lines {
            let written = line.to_string();
            assert!(!written.contains('\n'), "{written}");
            assert_eq!(written.parse::<Line>().unwrap(), line);
        }
        assert!("[    2.213743] Invalid ELF header magic: != ELF".parse::<Line>().is_err());
    }
}
