//! What is seen and what is acted upon, by transport and place: the one table, for `sipst status` and for docs/transports.md, which
//! is made of it.

use serde::Serialize;
use st_ebpf::abi::Counter;

/// What has been counted of a way.
#[derive(Clone, Copy, Debug)]
enum Count {
    /// By the kernel programs.
    Kernel(Counter),
    /// By the daemon, under these words of what it says of TCP.
    Daemon(&'static [&'static str]),
    /// Nothing is.
    No,
}

/// One way on which SIP may go by.
#[derive(Clone, Copy, Debug)]
struct Way {
    transport: &'static str,
    place: &'static str,
    /// What of it is seen.
    seen: &'static str,
    /// What is done about it at the most.
    acted: &'static str,
    count: Count,
    /// What the count is of.
    of: &'static str,
}

const HERE: &str = "an interface of `interfaces`";
const NOTHING: &str = "nothing";

const WAYS: [Way; 13] = [
    Way {
        transport: "UDP, a port of `ports`",
        place: HERE,
        seen: "every message of a dialog",
        acted: "whatever the trunk's rules say",
        count: Count::Kernel(Counter::Sampled),
        of: "messages",
    },
    Way {
        transport: "UDP in IP fragments",
        place: HERE,
        seen: "every message of a dialog, put together",
        acted: "whatever the trunk's rules say",
        count: Count::Kernel(Counter::FragmentSampled),
        of: "fragments",
    },
    Way {
        transport: "TCP, a port of `ports`",
        place: HERE,
        seen: "every message",
        acted: "alerts and events; nothing is sent (`over_tcp`)",
        count: Count::Daemon(&["messages"]),
        of: "messages",
    },
    Way {
        transport: "TLS or WebSocket, a port of `ports`",
        place: HERE,
        seen: "that there are such connections",
        acted: NOTHING,
        count: Count::Daemon(&["tls", "websocket", "unknown"]),
        of: "connections UNSEEN",
    },
    Way {
        transport: "TLS or WebSocket, a port of `opaque_ports`",
        place: HERE,
        seen: "that connections are made",
        acted: NOTHING,
        count: Count::Kernel(Counter::OpaqueConnection),
        of: "connections UNSEEN",
    },
    Way {
        transport: "SCTP, DTLS, QUIC, other ports",
        place: HERE,
        seen: NOTHING,
        acted: NOTHING,
        count: Count::No,
        of: "",
    },
    Way {
        transport: "UDP, other ports, with `any_port`",
        place: HERE,
        seen: "every message of a dialog that begins as SIP does",
        acted: "whatever the trunk's rules say",
        count: Count::No,
        of: "",
    },
    Way {
        transport: "several UDP datagrams as one packet (`UDP_SEGMENT`, `UDP_GRO`)",
        place: HERE,
        seen: "that there are some",
        acted: NOTHING,
        count: Count::Kernel(Counter::Joined),
        of: "packets UNSEEN",
    },
    Way {
        transport: "any, inside a tunnel",
        place: "the interface under the tunnel",
        seen: NOTHING,
        acted: NOTHING,
        count: Count::No,
        of: "",
    },
    Way {
        transport: "any",
        place: "an interface without Ethernet headers: tun, WireGuard, GRE, IP in IP",
        seen: NOTHING,
        acted: NOTHING,
        count: Count::No,
        of: "",
    },
    Way {
        transport: "any",
        place: "other interfaces, other network namespaces",
        seen: NOTHING,
        acted: NOTHING,
        count: Count::No,
        of: "",
    },
    Way {
        transport: "UDP in IP fragments or not, and TCP, any port",
        place: "a capture (`sipst replay`)",
        seen: "every message",
        acted: NOTHING,
        count: Count::No,
        of: "",
    },
    Way {
        transport: "TLS, WebSocket",
        place: "a capture (`sipst replay`)",
        seen: "that there are such connections",
        acted: NOTHING,
        count: Count::No,
        of: "",
    },
];

/// One of them, as `sipst status` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    transport: &'static str,
    place: &'static str,
    seen: &'static str,
    acted_upon: &'static str,
    /// How much of it there was since the programs were loaded, or the daemon began; `None` where nobody counts it, or no daemon says.
    #[serde(skip_serializing_if = "Option::is_none")]
    counted: Option<u64>,
    #[serde(skip)]
    of: &'static str,
}

/// All of them, with what was counted: by the kernel programs, and by the daemon if it says.
pub(crate) fn rows(kernel: impl Fn(Counter) -> u64, daemon: Option<&serde_json::Value>) -> Vec<Row> {
    let row = |way: &Way| {
        let &Way { transport, place, seen, acted: acted_upon, count, of } = way;
        let counted = match count {
            Count::Kernel(counter) => Some(kernel(counter)),
            Count::Daemon(words) => daemon.and_then(|said| {
                words.iter().map(|word| said["tcp"][word].as_u64()).try_fold(0_u64, |sum, count| Some(sum + count?))
            }),
            Count::No => None,
        };
        Row { transport, place, seen, acted_upon, counted, of }
    };
    WAYS.iter().map(row).collect()
}

impl Row {
    /// A line of `sipst status`; `None` where there has been nothing to count.
    pub(crate) fn line(&self) -> Option<String> {
        let Self { transport, place, seen, acted_upon, counted, of } = self;
        let counted = counted.filter(|counted| *counted > 0)?;
        let plain = |text: &str| text.replace('`', "");
        let (transport, place, seen, acted) = (plain(transport), plain(place), plain(seen), plain(acted_upon));
        Some(format!("{transport} at {place}: {counted} {of}; seen: {seen}; acted upon: {acted}"))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The document.
    fn document() -> String {
        let mut text = HEAD.to_owned();
        for Way { transport, place, seen, acted, count, of } in &WAYS {
            let counted = match count {
                Count::Kernel(counter) => format!("{}: `{}`", of.to_lowercase(), counter.name()),
                Count::Daemon(words) => {
                    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                    format!("{}: {}", of.to_lowercase(), words.join(", "))
                }
                Count::No => String::new(),
            };
            let _ = writeln!(text, "| {transport} | {place} | {seen} | {acted} | {counted} |");
        }
        text + TAIL
    }

    const HEAD: &str = "\
# What is seen and what is acted upon

By transport and place. `sipst status` shows the rows of which something was counted, `sipst status --json` all of them. The table is
made from `st-user/src/transports.rs`.

| transport | place | seen | acted upon | counted |
|---|---|---|---|---|
";

    const TAIL: &str = "
## TCP

The kernel programs hand over the segments of `ports` that carry something, or begin or end a connection, and change none. The daemon
puts each direction together and cuts it into messages by Content-Length. It may join a connection at any point: from the next message on
it reads it. What went by unseen is waited for five seconds, then gone over; within a body that costs that body alone. Bounds are in
[bounds.md](bounds.md).

A session over TCP is followed as one over UDP, with the same events and alerts. With `action: refresh` it is alert-only: a request of
sipst's would have to enter the server's own connection. `refresh_due` and `refresh_overdue` say `over_tcp`, and so does `sipst show`. It
is the server's own messages that make a session one over TCP; a session whose server goes over to TCP, for long messages say
(RFC 3261, section 18.1.1), is alert-only from then on, for the numbers of what the server sends there cannot be shifted.

## TLS and WebSocket

Nothing of it can be read. Connections on `opaque_ports` are counted when they are made, by the answer to their first segment; those that
were there before sipst are not. On a port of `ports` a connection is known for TLS by its first record, for WebSocket by its HTTP upgrade;
one with neither and no SIP in its first 16 KiB counts as `unknown`. The log says so the first time; the metric is
`sipst_connections_unseen_total`. Calls on such connections are in no list and raise no alert: where a server's calls go there, sipst does
nothing for them.
";

    #[test]
    fn the_document_is_made_of_the_table() {
        crate::written::holds("docs/transports.md", &document());
    }

    #[test]
    fn what_goes_by_unseen_is_said_with_its_number() {
        let daemon = serde_json::json!({"tcp": {"messages": 7, "tls": 2, "websocket": 1, "unknown": 0}});
        let kernel = |counter| if counter == Counter::OpaqueConnection { 4 } else { 0 };
        let lines: Vec<String> = rows(kernel, Some(&daemon)).iter().filter_map(Row::line).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("TCP, a port of ports at an interface of interfaces: 7 messages; "), "{lines:?}");
        assert!(lines[1].contains(": 3 connections UNSEEN; ") && lines[2].contains(": 4 connections UNSEEN; "));
        // Without a daemon its part is not known, and is not said to be nothing.
        let rows = rows(|_| 0, None);
        assert!(rows.iter().all(|row| row.line().is_none()) && rows[2].counted.is_none());
        assert_eq!(rows[4].counted, Some(0));
    }
}
