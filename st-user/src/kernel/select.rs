//! Which interfaces are meant: names, patterns, exclusions and the default route's.
//!
//! A name is attached to wherever it is; what a pattern or `default` stands for follows the host. No packet is to be seen at two of
//! them, for its numbers would be shifted twice: where one packet would cross two, one of the two is passed over.

use super::{
    KernelError,
    interfaces::{Interface, Kind, Relation, relation, stands_on},
};

/// Stands for the interfaces that default routes leave by.
pub(crate) const DEFAULT: &str = "default";

/// More are never attached to, whatever a pattern covers: each has its links and its look once a second.
pub(crate) const MAX_ATTACHED: usize = 64;

/// More are not even looked at, in the order of their numbers.
const MAX_COVERED: usize = 256;

/// What one entry of the list stands for.
enum Term<'a> {
    /// One interface, which is waited for.
    Name(&'a str),
    /// Every one whose name is like that: `*` for any characters, `?` for one.
    Like(&'a str),
    /// The default routes'.
    Default,
    /// None whose name is like that, unless it is named.
    Not(&'a str),
}

/// One that an entry covers, and whether by its name.
type Found<'a> = (&'a Interface, bool);

/// What a list of entries stands for on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// To be attached to, in the order of the list.
    pub(crate) interfaces: Vec<Interface>,
    /// What is not, though the list covers it, and why.
    pub(crate) passed_over: Vec<String>,
}

impl<'a> Term<'a> {
    fn of(text: &'a str) -> Self {
        match text.strip_prefix('!') {
            Some(pattern) => Self::Not(pattern),
            None if text == DEFAULT => Self::Default,
            None if text.contains(['*', '?']) => Self::Like(text),
            None => Self::Name(text),
        }
    }
}

/// Whether the entry is the name of one interface.
pub(crate) fn is_name(text: &str) -> bool {
    matches!(Term::of(text), Term::Name(_))
}

/// Whether any entry follows the default routes.
pub(crate) fn follows_routes(terms: &[String]) -> bool {
    terms.iter().any(|text| text == DEFAULT)
}

/// What has to be there: a name that is not is told with those that are.
pub(crate) fn check(all: &[Interface], terms: &[String]) -> Result<(), KernelError> {
    for name in terms.iter().filter(|text| is_name(text)) {
        match all.iter().find(|one| one.name == *name) {
            None => {
                let there: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
                return Err(KernelError::NoInterface { name: name.clone(), there: there.join(", ") });
            }
            Some(found) if !carries(found) => return Err(KernelError::NotEthernet { name: name.clone() }),
            Some(_) => {}
        }
    }
    if terms.iter().all(|text| matches!(Term::of(text), Term::Not(_))) {
        return Err(KernelError::NoInterfaces);
    }
    Ok(())
}

/// What the entries stand for among `all`, where default routes leave by `defaults`.
pub(crate) fn choose(all: &[Interface], defaults: &[u32], terms: &[String]) -> Chosen {
    let excluded = |one: &Interface| {
        terms.iter().any(|text| matches!(Term::of(text), Term::Not(pattern) if is_like(pattern, &one.name)))
    };
    let mut found: Vec<Found<'_>> = Vec::new();
    let mut passed_over = Vec::new();
    for text in terms {
        let covered: Vec<Found<'_>> = match Term::of(text) {
            Term::Name(name) => all.iter().filter(|one| one.name == name).map(|one| (one, true)).collect(),
            // The loopback only by its name.
            Term::Like(pattern) => {
                let covers = |one: &&Interface| one.ethernet && is_like(pattern, &one.name) && !excluded(one);
                all.iter().filter(covers).map(|one| (one, false)).collect()
            }
            Term::Default => {
                let leaves = |one: &&Interface| defaults.contains(&one.index) && !excluded(one);
                all.iter().filter(leaves).map(|one| (one, false)).collect()
            }
            Term::Not(_) => Vec::new(),
        };
        for (one, named) in covered {
            match found.iter_mut().find(|(earlier, _)| earlier.index == one.index) {
                Some((_, earlier)) => *earlier |= named,
                None if carries(one) => found.push((one, named)),
                None => passed_over.push(format!("{}: it is not Ethernet", one.name)),
            }
        }
    }
    // Each is held against each: what is past the limit of that is passed over unseen.
    for (one, _) in found.drain(found.len().min(MAX_COVERED)..) {
        passed_over.push(format!("{}: the list covers more than {MAX_COVERED}", one.name));
    }
    let loses = |one: Found<'_>| {
        found.iter().any(|other| yields(all, one, *other).is_some_and(|(loser, _)| loser == one.0.index))
    };
    let mut kept: Vec<Found<'_>> = found.iter().copied().filter(|one| !loses(*one)).collect();
    for one in &found {
        // What it gave way to gave way itself, to something that does not see its packets.
        if loses(*one) && among(all, *one, &kept).is_none() {
            kept.push(*one);
        }
    }
    let is_kept = |one: &Interface| kept.iter().any(|(other, _)| other.index == one.index);
    for one in found.iter().filter(|(one, _)| !is_kept(one)) {
        if let Some(why) = among(all, *one, &kept) {
            passed_over.push(format!("{}: {why}", one.0.name));
        }
    }
    let mut interfaces: Vec<Interface> =
        found.iter().map(|(one, _)| *one).filter(|one| is_kept(one)).cloned().collect();
    passed_over.extend(
        interfaces.iter().skip(MAX_ATTACHED).map(|one| format!("{}: {MAX_ATTACHED} others are attached", one.name)),
    );
    interfaces.truncate(MAX_ATTACHED);
    Chosen { interfaces, passed_over }
}

/// Why one of these and that one cannot both stay; `None` where all can.
fn among(all: &[Interface], one: Found<'_>, others: &[Found<'_>]) -> Option<String> {
    others.iter().find_map(|other| yields(all, one, *other)).map(|(_, why)| why)
}

/// Which of two that one packet can cross both is passed over, by its index, and why; `None` where both stay. A member gives way to its bond or
/// bridge, which outlives a failed link; what stands on another gives way to that, which sees its packets with their tags. What leads
/// to guests gives way to what leads out of the host.
fn yields<'a>(all: &[Interface], a: Found<'a>, b: Found<'a>) -> Option<(u32, String)> {
    let ((first, a_named), (second, b_named)) = if a.0.index < b.0.index { (a, b) } else { (b, a) };
    let both_named = a_named && b_named;
    let of =
        |upper: &'a Interface, lower: &'a Interface| relation(all, upper, lower).map(|found| (found, upper, lower));
    let (one, other) = (of(first, second), of(second, first));
    let surely = |found: &Option<(Relation, _, _)>| found.as_ref().is_some_and(|(found, ..)| found.below);
    let found = if surely(&other) { other } else { one.or(other) };
    let (why, loser, winner) = match found {
        _ if first.index == second.index => return None,
        Some((Relation { why, below: true }, upper, lower)) => {
            let member = lower.master.is_some_and(|master| master == upper.index || stands_on(all, upper, master));
            if member { (why, lower, upper) } else { (why, upper, lower) }
        }
        // Who names both sees to it; with `refresh` that is a problem of the configuration.
        _ if both_named => return None,
        Some((Relation { why, below: false }, upper, lower))
            if upper.kind == Kind::Veth && lower.kind != Kind::Veth =>
        {
            (why, upper, lower)
        }
        Some((Relation { why, below: false }, ..)) => (why, second, first),
        None => {
            let (guests, out) = match (leads_to_guests(all, first), leads_to_guests(all, second)) {
                (true, false) => (first, second),
                (false, true) => (second, first),
                _ => return None,
            };
            if out.kind == Kind::Veth || out.loopback {
                return None;
            }
            let why = format!("{} leads to guests of this host, whose packets leave by {}", guests.name, out.name);
            (why, guests, out)
        }
    };
    // A name counts for more than a pattern.
    let named = |one: &Interface| if one.index == first.index { a_named } else { b_named };
    Some((if named(loser) && !named(winner) { winner.index } else { loser.index }, why))
}

/// A bridge that has no port but those of containers and virtual machines.
fn leads_to_guests(all: &[Interface], one: &Interface) -> bool {
    let mut ports = all.iter().filter(|port| port.master == Some(one.index));
    one.kind == Kind::Bridge && ports.all(|port| matches!(port.kind, Kind::Veth | Kind::Tap))
}

/// Whether its frames are such as the programs read.
fn carries(one: &Interface) -> bool {
    one.ethernet || one.loopback
}

/// Whether a name is like a pattern, where `*` stands for any characters and `?` for one.
pub(crate) fn is_like(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                (p, n) = (p + 1, n + 1);
            }
            Some(_) | None => match star {
                // The last star takes one character more.
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::{super::interfaces::made, *};

    fn host() -> Vec<Interface> {
        vec![
            made(1, "lo", Kind::Other, None, None),
            made(2, "eth0", Kind::Other, None, Some(4)),
            made(3, "eth1", Kind::Other, None, Some(4)),
            made(4, "bond0", Kind::Bond, None, None),
            made(5, "bond0.100", Kind::Other, Some(4), None),
            made(6, "docker0", Kind::Bridge, None, None),
            made(7, "veth1", Kind::Veth, None, Some(6)),
            made(8, "veth2", Kind::Veth, None, Some(6)),
            made(9, "eth2", Kind::Other, None, None),
            made(10, "tun0", Kind::Tap, None, None),
            made(11, "br0", Kind::Bridge, None, None),
            made(12, "eth3", Kind::Other, None, Some(11)),
        ]
    }

    fn chosen(terms: &[&str]) -> (Vec<String>, Vec<String>) {
        let terms: Vec<String> = terms.iter().map(|term| (*term).to_owned()).collect();
        let Chosen { interfaces, passed_over } = choose(&host(), &[9, 10], &terms);
        (interfaces.into_iter().map(|one| one.name).collect(), passed_over)
    }

    #[test]
    fn all_that_there_is_is_what_leads_out_of_the_host_and_each_packet_crosses_one_of_it() {
        let (names, passed_over) = chosen(&["*"]);
        assert_eq!(names, ["bond0", "eth2", "br0"]);
        assert_eq!(
            passed_over,
            [
                "eth0: eth0 is a slave of bond0",
                "eth1: eth1 is a slave of bond0",
                "bond0.100: bond0.100 stands on bond0",
                "docker0: docker0 leads to guests of this host, whose packets leave by bond0",
                "veth1: veth1 leads into another namespace, and what comes out of it leaves this host by bond0",
                "veth2: veth2 leads into another namespace, and what comes out of it leaves this host by bond0",
                "eth3: eth3 is a port of br0",
            ]
        );
    }

    #[test]
    fn a_pattern_covers_names_and_an_exclusion_takes_some_out_wherever_it_stands() {
        assert_eq!(chosen(&["eth?"]).0, ["eth0", "eth1", "eth2", "eth3"]);
        assert_eq!(chosen(&["!eth1", "eth?", "!*3"]).0, ["eth0", "eth2"]);
        assert_eq!(chosen(&["eth?", "!eth?", "eth1"]).0, ["eth1"], "a name counts for more");
        assert!(chosen(&["wlan*"]).0.is_empty());
    }

    #[test]
    fn the_default_routes_interface_is_taken_where_it_carries_ethernet() {
        let (names, passed_over) = chosen(&["default"]);
        assert_eq!(names, ["eth2"]);
        assert_eq!(passed_over, ["tun0: it is not Ethernet"]);
    }

    #[test]
    fn a_name_counts_for_more_than_a_pattern() {
        assert_eq!(chosen(&["bond0.100", "bond*"]).0, ["bond0.100"]);
        assert_eq!(chosen(&["veth1", "eth2"]).0, ["veth1", "eth2"], "who names both sees to it");
        assert_eq!(chosen(&["bond0", "bond0.100"]).0, ["bond0"], "but for what is surely seen twice");
        assert_eq!(chosen(&["lo", "*"]).0, ["lo", "bond0", "eth2", "br0"]);
    }

    #[test]
    fn there_are_never_more_than_the_limit() {
        let all: Vec<Interface> =
            (1..=MAX_ATTACHED as u32 + 2).map(|n| made(n, &format!("e{n}"), Kind::Other, None, None)).collect();
        let Chosen { interfaces, passed_over } = choose(&all, &[], &["e*".into()]);
        assert_eq!((interfaces.len(), passed_over.len()), (MAX_ATTACHED, 2));
        assert_eq!(passed_over[0], "e65: 64 others are attached");
    }

    #[test]
    fn more_than_the_limit_are_not_held_against_each_other() {
        let all: Vec<Interface> = (1..=MAX_COVERED as u32 + 3)
            .map(|n| made(n, &format!("e{n}"), Kind::Other, Some(1).filter(|_| n > 1), None))
            .collect();
        let Chosen { interfaces, passed_over } = choose(&all, &[], &["e*".into()]);
        assert_eq!((interfaces.len(), passed_over.len()), (1, MAX_COVERED + 2));
        assert_eq!(passed_over[0], "e257: the list covers more than 256");
    }

    #[test]
    fn what_is_named_has_to_be_there_and_to_carry_ethernet() {
        let check = |terms: &[&str]| {
            let terms: Vec<String> = terms.iter().map(|term| (*term).to_owned()).collect();
            super::check(&host(), &terms).map_err(|error| error.to_string())
        };
        assert!(check(&["eth9"]).unwrap_err().contains("interface eth9 does not exist: there are lo, eth0"));
        assert!(check(&["tun0"]).unwrap_err().contains("not Ethernet"));
        assert!(check(&[]).is_err() && check(&["!eth0"]).is_err());
        assert_eq!(check(&["lo", "wlan*", "!x"]), Ok(()));
    }

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name) in
            [("*", "eth0"), ("e*0", "eth0"), ("e??0", "eth0"), ("*.100", "a.b.100"), ("eth0*", "eth0")]
        {
            assert!(is_like(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("e*1", "eth0"), ("e?0", "eth0"), ("eth", "eth0"), ("?", ""), ("*a*b", "ba")] {
            assert!(!is_like(pattern, name), "{pattern} {name}");
        }
    }
}
