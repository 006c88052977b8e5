//! Which side of a capture is the server.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use st_core::{
    Direction,
    message::{Message, MethodName},
};

use crate::capture::Datagram;

/// How many pairs of hosts are told apart; messages of further ones belong to nobody.
const MAX_PAIRS: usize = 65_536;

/// A host; its port too where both ends are on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Host(IpAddr, u16);

/// Two hosts, the lesser first.
pub(super) type Pair = (Host, Host);

/// How much a side has to do with session timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Timers {
    /// Never a word of them.
    #[default]
    Silent,
    /// Lists `timer` in Supported or Require.
    Listed,
    /// Sends Session-Expires of its own.
    Sent,
}

/// Why a side is taken for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It has less to do with timers than the other side.
    Timers,
    /// It is the server towards another host.
    Elsewhere,
    /// It took the first call, or else the first request.
    Callee,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timers => "it never offered timers, or less than the other side",
            Self::Elsewhere => "timers tell no difference, and it is the server towards others",
            Self::Callee => "timers tell no difference, and it was called first; `--server NET` says otherwise",
        })
    }
}

/// What is known about a pair of hosts, by the place in the pair.
#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    timers: [Timers; 2],
    /// Who got the first INVITE, and the first request of all.
    called: Option<usize>,
    asked: Option<usize>,
}

/// Collects evidence from a capture's messages.
#[derive(Default)]
pub(super) struct Survey {
    pairs: HashMap<Pair, Evidence>,
    /// The pairs in the order in which they were seen.
    order: Vec<Pair>,
}

/// Tells which way a message goes.
#[derive(Debug)]
pub(super) enum Sides {
    /// The server is in one of these networks.
    Networks(Vec<IpNet>),
    /// The server of each pair, by its place.
    Pairs(HashMap<Pair, usize>),
}

/// Why a message goes neither way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nowhere {
    /// Both ends are servers.
    Both,
    /// Neither is.
    Neither,
}

impl Survey {
    pub(super) fn message(&mut self, datagram: &Datagram<'_>) {
        let Ok(message) = Message::scan(&datagram.payload, datagram.cut) else { return };
        // What sipst sent in the server's name tells nothing about the server.
        if message.top_via().is_some_and(|via| via.our_token().is_some()) {
            return;
        }
        let (pair, sender) = pair(datagram.source, datagram.destination);
        if !self.pairs.contains_key(&pair) {
            if self.order.len() == MAX_PAIRS {
                return;
            }
            self.order.push(pair);
        }
        let evidence = self.pairs.entry(pair).or_default();
        let shown = timers(&message);
        evidence.timers[sender] = evidence.timers[sender].max(shown);
        if let Some(method) = message.request_method() {
            evidence.asked.get_or_insert(1 - sender);
            if method == MethodName::Invite {
                evidence.called.get_or_insert(1 - sender);
            }
        }
    }

    /// Decides every pair, and tells how in `told`.
    pub(super) fn decide(self, told: &mut Vec<String>) -> Sides {
        let Self { pairs, order } = self;
        let mut servers: HashMap<Pair, (usize, Why)> = HashMap::new();
        for (pair, evidence) in &pairs {
            match evidence.timers[0].cmp(&evidence.timers[1]) {
                std::cmp::Ordering::Less => servers.insert(*pair, (0, Why::Timers)),
                std::cmp::Ordering::Greater => servers.insert(*pair, (1, Why::Timers)),
                std::cmp::Ordering::Equal => None,
            };
        }
        let known: std::collections::HashSet<Host> =
            servers.iter().map(|(pair, (place, _))| host(pair, *place)).collect();
        for pair in &order {
            let Some(evidence) = pairs.get(pair).filter(|_| !servers.contains_key(pair)) else { continue };
            let decided = match (known.contains(&pair.0), known.contains(&pair.1)) {
                (true, false) => Some((0, Why::Elsewhere)),
                (false, true) => Some((1, Why::Elsewhere)),
                (true, true) | (false, false) => evidence.called.or(evidence.asked).map(|place| (place, Why::Callee)),
            };
            if let Some(decided) = decided {
                servers.insert(*pair, decided);
            }
        }
        let with_calls = |pair: &&Pair| pairs.get(pair).is_some_and(|evidence| evidence.called.is_some());
        for pair in order.iter().filter(with_calls) {
            if let Some((place, why)) = servers.get(pair) {
                told.push(format!("server {}, peer {}: {why}", host(pair, *place), host(pair, 1 - *place)));
            }
        }
        Sides::Pairs(servers.into_iter().map(|(pair, (place, _))| (pair, place)).collect())
    }
}

impl Sides {
    pub(super) fn direction(&self, source: SocketAddr, destination: SocketAddr) -> Result<Direction, Nowhere> {
        match self {
            Self::Networks(networks) => {
                let inside = |address: SocketAddr| networks.iter().any(|network| network.contains(&address.ip()));
                match (inside(source), inside(destination)) {
                    (true, false) => Ok(Direction::Egress),
                    (false, true) => Ok(Direction::Ingress),
                    (true, true) => Err(Nowhere::Both),
                    (false, false) => Err(Nowhere::Neither),
                }
            }
            Self::Pairs(servers) => {
                let (pair, sender) = pair(source, destination);
                match servers.get(&pair) {
                    Some(server) if *server == sender => Ok(Direction::Egress),
                    Some(_) => Ok(Direction::Ingress),
                    None => Err(Nowhere::Neither),
                }
            }
        }
    }
}

/// The pair, and the place in it of the first argument.
fn pair(source: SocketAddr, destination: SocketAddr) -> (Pair, usize) {
    let one_host = source.ip() == destination.ip();
    let host = |address: SocketAddr| Host(address.ip(), if one_host { address.port() } else { 0 });
    let (source, destination) = (host(source), host(destination));
    if source <= destination { ((source, destination), 0) } else { ((destination, source), 1) }
}

fn host(pair: &Pair, place: usize) -> Host {
    if place == 0 { pair.0 } else { pair.1 }
}

fn timers(message: &Message<'_>) -> Timers {
    let cseq = message.cseq().map(|cseq| cseq.method);
    let negotiates = matches!(cseq, Some(MethodName::Invite | MethodName::Update))
        && message.status().is_none_or(|status| (200..300).contains(&status));
    if negotiates && message.session_expires().is_some() {
        Timers::Sent
    } else if message.supports(b"timer") || message.requires(b"timer") {
        Timers::Listed
    } else {
        Timers::Silent
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(address, 0) => address.fmt(f),
            Self(address, port) => SocketAddr::new(address, port).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "192.0.2.1:5060";
    const B: &str = "198.51.100.2:5060";
    const C: &str = "203.0.113.3:5060";

    fn message(survey: &mut Survey, from: &str, to: &str, start: &str, method: &str, more: &str) {
        let payload = format!("{start}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nCSeq: 1 {method}\r\n{more}\r\n");
        survey.message(&Datagram {
            transport: st_core::Transport::Udp,
            source: from.parse().unwrap(),
            destination: to.parse().unwrap(),
            tos: 0,
            ttl: 64,
            payload: payload.into_bytes().into(),
            cut: false,
        });
    }

    fn invite(survey: &mut Survey, from: &str, to: &str, more: &str) {
        message(survey, from, to, "INVITE sip:x@h SIP/2.0", "INVITE", more);
    }

    fn answer(survey: &mut Survey, from: &str, to: &str, more: &str) {
        message(survey, from, to, "SIP/2.0 200 OK", "INVITE", more);
    }

    #[track_caller]
    fn server_is(survey: Survey, server: &str, peer: &str, why: Why) {
        let mut told = Vec::new();
        let sides = survey.decide(&mut told);
        let (server, peer): (SocketAddr, SocketAddr) = (server.parse().unwrap(), peer.parse().unwrap());
        assert_eq!(sides.direction(server, peer), Ok(Direction::Egress), "{told:?}");
        assert_eq!(sides.direction(peer, server), Ok(Direction::Ingress), "{told:?}");
        assert!(told.iter().any(|line| line.contains(&server.ip().to_string()) && line.ends_with(&why.to_string())));
    }

    #[test]
    fn the_side_without_timers_is_the_server_whoever_calls() {
        for (caller, callee) in [(A, B), (B, A)] {
            let mut survey = Survey::default();
            let offer = |side| if side == B { "Supported: timer\r\n" } else { "" };
            invite(&mut survey, caller, callee, offer(caller));
            answer(&mut survey, callee, caller, offer(callee));
            server_is(survey, A, B, Why::Timers);
        }
    }

    #[test]
    fn listing_timer_is_less_than_sending_session_expires() {
        let mut survey = Survey::default();
        invite(&mut survey, A, B, "k: 100rel, timer\r\n");
        answer(&mut survey, B, A, "Session-Expires: 90;refresher=uac\r\nRequire: timer\r\n");
        server_is(survey, A, B, Why::Timers);
    }

    #[test]
    fn session_expires_in_a_refusal_or_in_other_methods_is_no_offer() {
        let mut survey = Survey::default();
        invite(&mut survey, A, B, "");
        message(&mut survey, B, A, "SIP/2.0 486 Busy", "INVITE", "Session-Expires: 90\r\n");
        message(&mut survey, B, A, "BYE sip:x@h SIP/2.0", "BYE", "Session-Expires: 90\r\n");
        server_is(survey, B, A, Why::Callee);
    }

    #[test]
    fn what_sipst_sent_says_nothing_about_the_server() {
        let mut survey = Survey::default();
        invite(&mut survey, A, B, "");
        answer(&mut survey, B, A, "Session-Expires: 90;refresher=uac\r\n");
        let branch = format!("{}0123456789abcdef", String::from_utf8_lossy(&st_ebpf::abi::BRANCH_PREFIX));
        let payload = format!(
            "UPDATE sip:x@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nCSeq: 2 UPDATE\r\nSession-Expires: 90\r\n\r\n"
        );
        survey.message(&Datagram {
            transport: st_core::Transport::Udp,
            source: A.parse().unwrap(),
            destination: B.parse().unwrap(),
            tos: 0,
            ttl: 64,
            payload: payload.into_bytes().into(),
            cut: false,
        });
        server_is(survey, A, B, Why::Timers);
    }

    #[test]
    fn a_host_that_is_the_server_elsewhere_is_it_here_too() {
        let mut survey = Survey::default();
        invite(&mut survey, A, C, "");
        invite(&mut survey, A, B, "");
        answer(&mut survey, B, A, "Session-Expires: 90;refresher=uac\r\n");
        server_is(survey, A, C, Why::Elsewhere);
    }

    #[test]
    fn without_any_offer_the_callee_is_the_server() {
        let mut survey = Survey::default();
        message(&mut survey, B, A, "OPTIONS sip:x@h SIP/2.0", "OPTIONS", "");
        invite(&mut survey, A, B, "");
        answer(&mut survey, B, A, "");
        server_is(survey, B, A, Why::Callee);
    }

    #[test]
    fn two_programs_on_one_host_are_told_apart_by_their_ports() {
        let mut survey = Survey::default();
        invite(&mut survey, "127.0.0.1:5060", "127.0.0.1:5070", "Supported: timer\r\n");
        answer(&mut survey, "127.0.0.1:5070", "127.0.0.1:5060", "");
        server_is(survey, "127.0.0.1:5070", "127.0.0.1:5060", Why::Timers);
    }

    #[test]
    fn networks_decide_and_leave_what_is_between_two_servers_or_none() {
        let sides = Sides::Networks(vec!["192.0.2.0/24".parse().unwrap()]);
        let way = |from: &str, to: &str| sides.direction(from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(way(A, B), Ok(Direction::Egress));
        assert_eq!(way(B, A), Ok(Direction::Ingress));
        assert_eq!(way(B, C), Err(Nowhere::Neither));
        assert_eq!(way(A, "192.0.2.9:5060"), Err(Nowhere::Both));
    }
}
