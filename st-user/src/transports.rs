//! What is seen and what is acted upon, by transport and place: the one table, for `sipst status` and for docs/transports.md, which
//! is made of it.

use serde::Serialize;
use st_ebpf::abi::Counter;

use crate::kernel::{Attached, Interface, Kind};

/// What has been counted of a way: by whom, and what it is.
#[derive(Clone, Copy, Debug)]
enum Count {
    /// By the kernel programs.
    Kernel(Counter, &'static str),
    /// By the daemon, under these words of what it says of TCP.
    Daemon(&'static [&'static str], &'static str),
}

/// When a way is one of this host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    /// Where anything is attached in this namespace.
    Attached,
    /// Where an interface of that kind is attached.
    At(Kind),
    /// Where something that stands on another interface (a VLAN, macvlan) is attached, or what it stands on.
    Stands,
    /// Where the loopback is attached.
    Loopback,
    /// Where something is attached in a container's namespace.
    Namespaces,
    /// Where there is an interface without Ethernet headers that is up.
    Headless,
    /// Where something of it was counted.
    Counted,
    /// That is not known.
    Unknown,
}

/// One way on which SIP may go by.
#[derive(Clone, Copy, Debug)]
struct Way {
    transport: &'static str,
    place: &'static str,
    seen: bool,
    acted: bool,
    remark: &'static str,
    counts: &'static [Count],
    here: Here,
}

const UDP: &str = "UDP";
const TCP: &str = "TCP";
const ANY: &str = "any";
const ETHERNET: &str = "Ethernet";
const EVERYWHERE: &str = "wherever UDP is seen";
const CAPTURE: &str = "a capture (`sipst replay`)";
const CONNECTIONS: &str = "connections UNSEEN";

/// A way that is seen, acted upon or not, and of which nothing of its own is counted.
const fn place(transport: &'static str, place: &'static str, acts: [bool; 2], remark: &'static str, here: Here) -> Way {
    let [seen, acted] = acts;
    Way { transport, place, seen, acted, remark, counts: &[], here }
}

const BOTH: [bool; 2] = [true, true];
const SEEN: [bool; 2] = [true, false];
const NEITHER: [bool; 2] = [false, false];

const WAYS: [Way; 24] = [
    Way {
        counts: &[Count::Kernel(Counter::Sampled, "messages")],
        ..place(UDP, ETHERNET, BOTH, "an interface of `interfaces`, a port of `ports`", Here::Attached)
    },
    place(UDP, "bond, team", BOTH, "attached to itself, not to its slaves", Here::At(Kind::Bond)),
    place(UDP, "bridge", BOTH, "attached to itself, not to its ports", Here::At(Kind::Bridge)),
    place(UDP, "VLAN, macvlan, ipvlan", BOTH, "by what it stands on, tags and all, or by itself", Here::Stands),
    place(UDP, "`lo`, one of the two ports in `ports`", BOTH, "once, on the side of that port", Here::Loopback),
    Way {
        counts: &[Count::Kernel(Counter::Loopback, "packets")],
        ..place(ANY, "`lo`, both ports in `ports`", NEITHER, "either end may be the server", Here::Counted)
    },
    place(UDP, "container with the host's network", BOTH, "by `interfaces`", Here::Unknown),
    place(UDP, "container, from within", BOTH, "by `namespaces`", Here::Namespaces),
    place(
        UDP,
        "container, from the uplink, its addresses translated",
        SEEN,
        "`refresh_failed`: `address_translated`",
        Here::Unknown,
    ),
    place(ANY, "the host itself beside `namespaces`", NEITHER, "nothing is attached there", Here::Namespaces),
    place(UDP, "a host that passes the call on", SEEN, "`relayed`: neither end is its own", Here::Unknown),
    place(ANY, "tun, ppp, WireGuard", NEITHER, "no Ethernet header: cannot be attached to", Here::Headless),
    Way {
        counts: &[Count::Kernel(Counter::FragmentSampled, "fragments")],
        ..place(
            "UDP in IP fragments",
            EVERYWHERE,
            BOTH,
            "put together; what sipst sends is cut as the way wants it",
            Here::Counted,
        )
    },
    Way {
        counts: &[Count::Daemon(&["messages"], "messages")],
        ..place(
            TCP,
            EVERYWHERE,
            BOTH,
            "a port of `ports`; events and alerts, with `tcp: refresh` refreshes too",
            Here::Attached,
        )
    },
    Way {
        counts: &[Count::Daemon(&["tls", "websocket", "unknown"], CONNECTIONS)],
        ..place("TLS, WS, WSS on a port of `ports`", EVERYWHERE, NEITHER, "opaque: counted", Here::Counted)
    },
    Way {
        counts: &[
            Count::Kernel(Counter::OpaqueConnection, CONNECTIONS),
            Count::Kernel(Counter::OpaqueSegment, "segments UNSEEN"),
        ],
        ..place("TLS, WS, WSS on one of `opaque_ports`", EVERYWHERE, NEITHER, "opaque: counted", Here::Counted)
    },
    place(
        "UDP, ports that are not in `ports`",
        EVERYWHERE,
        BOTH,
        "with `any_port`, where it begins as SIP does",
        Here::Unknown,
    ),
    Way {
        counts: &[
            Count::Kernel(Counter::Joined, "packets"),
            Count::Kernel(Counter::JoinedUnread, "datagrams UNSEEN"),
            Count::Kernel(Counter::JoinedAnswer, "answers to sipst that reached the server"),
            Count::Kernel(Counter::JoinedUnshifted, "numbers not shifted"),
        ],
        ..place(
            "several UDP datagrams as one packet",
            EVERYWHERE,
            SEEN,
            "`UDP_SEGMENT`, `UDP_GRO`: each is read; what is done to one would be done to all (`joined`)",
            Here::Counted,
        )
    },
    place(UDP, "a tunnel with Ethernet headers: VXLAN, gretap", BOTH, "by its own interface", Here::Unknown),
    place(ANY, "the interface under a tunnel", NEITHER, "what is inside is not looked into", Here::Unknown),
    place("TCP in IP fragments", EVERYWHERE, NEITHER, "TCP makes its segments to fit", Here::Unknown),
    place("SCTP, DTLS, QUIC, other ports", EVERYWHERE, NEITHER, "not counted either", Here::Unknown),
    place("UDP in IP fragments or not, TCP, any port", CAPTURE, SEEN, "", Here::Unknown),
    place("TLS, WS, WSS", CAPTURE, NEITHER, "counted", Here::Unknown),
];

/// What is attached, beside what there is.
pub(crate) struct Site<'a> {
    pub(crate) attached: &'a [Attached],
    /// Of this namespace.
    pub(crate) interfaces: &'a [Interface],
}

impl Site<'_> {
    fn is_attached(&self, is_meant: impl Fn(&Interface) -> bool) -> bool {
        let here = self.attached.iter().filter(|one| one.namespace.is_none() && !one.gone);
        here.flat_map(|one| self.interfaces.iter().filter(move |other| other.name == one.interface)).any(is_meant)
    }

    fn has(&self, here: Here, counted: bool) -> bool {
        let stands = |upper: &Interface, on: &Interface| upper.kind == Kind::Other && upper.lower == Some(on.index);
        match here {
            Here::Attached => self.attached.iter().any(|one| !one.gone),
            Here::At(kind) => self.is_attached(|one| one.kind == kind),
            Here::Stands => self.is_attached(|one| {
                self.interfaces
                    .iter()
                    .any(|other| stands(other, one) || (stands(one, other) && other.index != one.index))
            }),
            Here::Loopback => self.is_attached(|one| one.loopback),
            Here::Namespaces => self.attached.iter().any(|one| one.namespace.is_some() && !one.gone),
            Here::Headless => self.interfaces.iter().any(|one| one.up && !one.ethernet && !one.loopback),
            Here::Counted => counted,
            Here::Unknown => false,
        }
    }
}

/// How much was counted since the programs were loaded, or the daemon began.
#[derive(Debug, Serialize)]
struct Counted {
    of: &'static str,
    count: u64,
}

/// One of them, as `sipst status` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    transport: String,
    place: String,
    seen: bool,
    acted_upon: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    remark: String,
    /// Whether it is one of this host's, as far as is known.
    here: bool,
    /// Without what nobody counts, and what no daemon says.
    counted: Vec<Counted>,
}

/// All of them, with what was counted: by the kernel programs, and by the daemon if it says.
pub(crate) fn rows(site: &Site<'_>, kernel: impl Fn(Counter) -> u64, daemon: Option<&serde_json::Value>) -> Vec<Row> {
    let plain = |text: &str| text.replace('`', "");
    let counted = |count: &Count| match *count {
        Count::Kernel(counter, of) => Some(Counted { of, count: kernel(counter) }),
        Count::Daemon(words, of) => {
            let said = |word: &&str| daemon?["tcp"][word].as_u64();
            let count = words.iter().map(said).try_fold(0_u64, |sum, count| Some(sum + count?));
            count.map(|count| Counted { of, count })
        }
    };
    let row = |way: &Way| {
        let &Way { transport, place, seen, acted: acted_upon, remark, counts, here } = way;
        let counted: Vec<_> = counts.iter().filter_map(counted).collect();
        let here = site.has(here, counted.iter().any(|one| one.count > 0));
        let (transport, place, remark) = (plain(transport), plain(place), plain(remark));
        Row { transport, place, seen, acted_upon, remark, here, counted }
    };
    WAYS.iter().map(row).collect()
}

impl Row {
    /// A line of `sipst status`; `None` where it is none of this host's.
    pub(crate) fn line(&self) -> Option<String> {
        let Self { transport, place, seen, acted_upon, remark, here, counted } = self;
        if !here {
            return None;
        }
        let what = match (seen, acted_upon) {
            (true, true) => "seen and acted upon",
            (true, false) => "seen, not acted upon",
            (false, _) => "NOT SEEN",
        };
        let counts = counted.iter().map(|Counted { of, count }| format!("; {count} {of}")).collect::<String>();
        let remark = if remark.is_empty() { String::new() } else { format!(" ({remark})") };
        Some(format!("{transport}, {place}: {what}{counts}{remark}"))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The document.
    fn document() -> String {
        let mut text = HEAD.to_owned();
        let yes = |is| if is { "yes" } else { "no" };
        for &Way { transport, place, seen, acted, remark, counts, .. } in &WAYS {
            let counted = counts.iter().map(|count| match count {
                Count::Kernel(counter, of) => format!("{}: `{}`", of.to_lowercase(), counter.name()),
                Count::Daemon(words, of) => {
                    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                    format!("{}: {}", of.to_lowercase(), words.join(", "))
                }
            });
            let counted = counted.collect::<Vec<_>>().join("; ");
            let (seen, acted) = (yes(seen), yes(acted));
            let _ = writeln!(text, "| {transport} | {place} | {seen} | {acted} | {remark} | {counted} |");
        }
        text + TAIL
    }

    const HEAD: &str = include_str!("transports/head.md");
    const TAIL: &str = include_str!("transports/tail.txt");

    #[test]
    fn the_document_is_made_of_the_table() {
        crate::written::holds("docs/transports.md", &document());
    }

    #[test]
    fn what_is_not_seen_is_not_acted_upon() {
        assert!(WAYS.iter().all(|way| way.seen || !way.acted));
    }

    fn interface(index: u32, name: &str, kind: Kind) -> Interface {
        let (name, ethernet, loopback) = (name.to_owned(), kind != Kind::Tunnel && name != "lo", name == "lo");
        Interface { index, name, up: true, ethernet, loopback, kind, lower: None, master: None, xdp: None }
    }

    fn attached(namespace: Option<&str>, interface: &str) -> Attached {
        Attached {
            namespace: namespace.map(str::to_owned),
            interface: interface.into(),
            hook: crate::kernel::Hook::TcEgress,
            program: 1,
            pin: "/x".into(),
            gone: false,
        }
    }

    fn lines(attached: &[Attached], interfaces: &[Interface]) -> Vec<String> {
        let site = Site { attached, interfaces };
        rows(&site, |_| 0, None).iter().filter_map(Row::line).collect()
    }

    #[test]
    fn what_goes_by_unseen_is_said_with_its_number() {
        let daemon = serde_json::json!({"tcp": {"messages": 7, "tls": 2, "websocket": 1, "unknown": 0}});
        let kernel = |counter| u64::from(counter == Counter::OpaqueConnection) * 4;
        let site = Site { attached: &[attached(None, "eth0")], interfaces: &[interface(2, "eth0", Kind::Other)] };
        let lines: Vec<String> = rows(&site, kernel, Some(&daemon)).iter().filter_map(Row::line).collect();
        let expected = [
            "UDP, Ethernet: seen and acted upon; 0 messages (an interface of interfaces, a port of ports)",
            "TCP, wherever UDP is seen: seen and acted upon; 7 messages (a port of ports; events and alerts, with tcp: \
             refresh refreshes too)",
            "TLS, WS, WSS on a port of ports, wherever UDP is seen: NOT SEEN; 3 connections UNSEEN (opaque: counted)",
            "TLS, WS, WSS on one of opaque_ports, wherever UDP is seen: NOT SEEN; 4 connections UNSEEN; 0 segments UNSEEN \
             (opaque: counted)",
        ];
        assert_eq!(lines, expected);
        // Without a daemon its part is not known, and is not said to be nothing.
        let rows = rows(&site, |_| 0, None);
        let tcp: Vec<_> = rows.iter().filter(|row| row.transport == TCP).collect();
        assert!(tcp.len() == 1 && tcp[0].here && tcp[0].counted.is_empty(), "{tcp:?}");
    }

    #[test]
    fn only_the_rows_of_this_hosts_places_are_shown() {
        let has = |lines: &[String], place: &str| lines.iter().any(|line| line.starts_with(place));
        assert_eq!(lines(&[], &[interface(2, "eth0", Kind::Other)]), Vec::<String>::new());
        let vlan = Interface { lower: Some(2), ..interface(3, "eth0.7", Kind::Other) };
        let all = [
            interface(1, "lo", Kind::Other),
            interface(2, "eth0", Kind::Other),
            vlan,
            interface(4, "bond0", Kind::Bond),
            interface(5, "br0", Kind::Bridge),
            interface(6, "wg0", Kind::Tunnel),
        ];
        let only = lines(&[attached(None, "eth0")], &all[..2]);
        assert_eq!(only.len(), 2, "{only:?}");
        for (name, place) in [
            ("lo", "UDP, lo, one of the two"),
            ("eth0", "UDP, VLAN"),
            ("eth0.7", "UDP, VLAN"),
            ("bond0", "UDP, bond"),
            ("br0", "UDP, bridge"),
        ] {
            let shown = lines(&[attached(None, name)], &all);
            assert!(has(&shown, place), "{name}: {shown:?}");
            assert!(has(&shown, "any, tun, ppp, WireGuard: NOT SEEN"), "{shown:?}");
            assert_eq!(shown.len(), 4, "{name}: {shown:?}");
        }
        // A container's interfaces have names of their own.
        let shown = lines(&[attached(Some("sip"), "bond0")], &all[..5]);
        assert!(has(&shown, "UDP, container, from within: seen and acted upon"), "{shown:?}");
        assert!(has(&shown, "any, the host itself beside namespaces: NOT SEEN"), "{shown:?}");
        assert_eq!(shown.len(), 4, "{shown:?}");
    }
}
