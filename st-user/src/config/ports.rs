//! Ports as they are listed in the file: each by itself, or a range of them.

use std::{fmt, ops::RangeInclusive};

use super::{
    fields::{Given, Placed, list, number, text},
    problem::Problem,
    tree::Value,
};

/// Entries of one list. The kernel programs have one bit for each port, so what an entry covers costs no packet anything.
const MAX_PORTS: usize = 64;

/// How a mistake is mended.
const EXAMPLE: &str = "a number from 1 to 65535, or a range such as 5060-5069";

/// A port, or a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// One port.
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// From the first to the last of these, both included; `None` where that is none.
    pub fn range(range: RangeInclusive<u16>) -> Option<Self> {
        (!range.is_empty()).then_some(Self { first: *range.start(), last: *range.end() })
    }

    /// Each of them.
    pub fn each(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// What two entries have in common.
    pub(super) fn common(self, other: Self) -> Option<Self> {
        Self::range(self.first.max(other.first)..=self.last.min(other.last))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// How many ports a list without overlaps covers.
pub(crate) fn covered(ports: &[Ports]) -> usize {
    ports.iter().map(|ports| ports.each().len()).sum()
}

/// A list of ports and of ranges of ports, none of them twice.
pub(super) fn ports(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Vec<Placed<Ports>>> {
    let listed = list(MAX_PORTS, entry)(given, problems)?;
    let before = problems.len();
    for (number, Placed { at, value }) in listed.iter().enumerate() {
        let earlier = listed.iter().take(number);
        if let Some((first, common)) = earlier.filter_map(|one| Some((one, one.value.common(*value)?))).next() {
            let name = given.name;
            let what = format!("`{name}` names {common} twice, first by {} in line {}", first.value, first.at.line);
            problems.push(Problem::new(*at, what, "name each port once"));
        }
    }
    (problems.len() == before).then_some(listed)
}

/// The same without their places.
pub(super) fn values(listed: Vec<Placed<Ports>>) -> Vec<Ports> {
    listed.into_iter().map(|placed| placed.value).collect()
}

fn entry(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Ports> {
    let range = match &given.node.value {
        Value::Scalar { text, .. } => text.split_once('-').filter(|(first, _)| !first.is_empty()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    };
    let Some((first, last)) = range else {
        return number(1..=u16::MAX, "a port or a range of ports", EXAMPLE)(given, problems).map(Ports::one);
    };
    let text = text(given, problems)?;
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    match (port(first), port(last)) {
        (Some(first), Some(last)) => Ports::range(first..=last).or_else(|| {
            given.wrong(format!("is `{text}`, which ends before it begins"), format!("write {last}-{first}"), problems);
            None
        }),
        _ => {
            let what = format!("is `{text}`, which is not a port or a range of ports");
            given.wrong(what, format!("write {EXAMPLE}"), problems);
            None
        }
    }
}
