//! A stranger on the wire who knows a call's names and sends what they like, under any address.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    thread,
    time::Duration,
};

use etherparse::{Icmpv4Type, PacketBuilder, icmpv4};
use socket2::{Domain, Protocol, Socket, Type};
use st_tests::{
    OWN_BRANCH,
    agent::{Event, Message},
};

use crate::plan::{Call, Plan, SOON};

/// What a stranger puts behind the prefix of sipst's branches: tokens that somebody made up.
const GUESSES: [&str; 4] = ["0000000000000000", "0123456789abcdef", "ffffffffffffffff", "no-token"];

/// A host at the peer's end of the wire.
struct Stranger {
    own: SocketAddrV4,
    /// What the server answers comes to nobody.
    _open: UdpSocket,
    /// For packets with an IP header of its making.
    raw: Socket,
    server: SocketAddrV4,
    peer: SocketAddrV4,
    /// Call-ID, and the tags of the server and the peer.
    names: [String; 3],
}

impl Stranger {
    fn of(call: &Call) -> Self {
        let [a, b, c, _] = call.lab.wire.b.v4.octets();
        let own = SocketAddrV4::new(Ipv4Addr::new(a, b, c, 66), 5060);
        call.lab.peer.run("ip", &["address", "add", &format!("{}/24", own.ip()), "dev", "eth0"]).unwrap();
        let (open, raw) = call.lab.peer.enter(move || {
            let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
            (UdpSocket::bind(own).unwrap(), raw)
        });
        let ack = call.peer.received(&["ACK"], 1, SOON).unwrap();
        let tag = |header| ack.param(header, "tag").unwrap().to_owned();
        Self {
            own,
            _open: open,
            raw,
            server: SocketAddrV4::new(call.lab.wire.a.v4, 5060),
            peer: SocketAddrV4::new(call.lab.wire.b.v4, 5060),
            names: [ack.header("Call-ID").unwrap().to_owned(), tag("From"), tag("To")],
        }
    }

    fn send(&self, bytes: &[u8]) {
        self.raw.send_to(bytes, &SocketAddr::from(self.server).into()).unwrap();
    }

    /// A datagram to the server under this address.
    fn datagram(&self, from: SocketAddrV4, payload: &str) {
        let packet = PacketBuilder::ipv4(from.ip().octets(), self.server.ip().octets(), 64).udp(from.port(), 5060);
        let mut bytes = Vec::new();
        packet.write(&mut bytes, payload.as_bytes()).unwrap();
        self.send(&bytes);
    }

    /// What follows the Via of a message in the call, with these tags of the server's and the peer's; `asked` by the peer or not.
    fn rest(&self, asked: bool, local: &str, remote: &str, cseq: &str) -> String {
        let (from, to) = if asked { (remote, local) } else { (local, remote) };
        format!(
            "From: <sip:a@host>;tag={from}\r\nTo: <sip:b@host>;tag={to}\r\nCall-ID: {}\r\nCSeq: {cseq}\r\n\
             Max-Forwards: 70\r\nContact: <sip:x@{}>\r\nContent-Length: 0\r\n\r\n",
            self.names[0], self.own
        )
    }

    /// Requests inside the call with tags that are guessed, under their own address and under the peer's.
    fn requests(&self, round: usize) {
        let [_, local, remote] = &self.names;
        for method in ["BYE", "INVITE", "UPDATE"] {
            for (number, (local, remote)) in [("x", remote.as_str()), ("x", "y")].into_iter().enumerate() {
                let branch = format!("z9hG4bKx{method}{round}{number}");
                let rest = self.rest(true, local, remote, &format!("900 {method}"));
                let via = format!("Via: SIP/2.0/UDP {};branch={branch}\r\n", self.own);
                self.datagram(self.own, &format!("{method} sip:server@{} SIP/2.0\r\n{via}{rest}", self.server));
            }
        }
        // A call of their own with this one's Call-ID, towards the entry of the shift that it has.
        let via = format!("Via: SIP/2.0/UDP {};branch=z9hG4bKxOPTIONS{round}\r\n", self.own);
        let rest = self.rest(true, local, "other", "1 OPTIONS");
        self.datagram(self.own, &format!("OPTIONS sip:server@{} SIP/2.0\r\n{via}{rest}", self.server));
    }

    /// Answers to sipst, with tokens that are guessed, and ICMP errors about its requests.
    fn answers(&self) {
        let [_, local, remote] = &self.names;
        for token in GUESSES {
            let via = format!("Via: SIP/2.0/UDP {};rport=5060;branch={OWN_BRANCH}{token}\r\n", self.server);
            for status in [100, 200, 401, 408, 481, 500] {
                for method in ["UPDATE", "INVITE", "BYE"] {
                    let rest = self.rest(false, local, remote, &format!("3 {method}"));
                    for from in [self.peer, self.own] {
                        self.datagram(from, &format!("SIP/2.0 {status} Because\r\n{via}{rest}"));
                    }
                }
            }
            let rest = self.rest(false, local, remote, "3 UPDATE");
            let quoted = format!("UPDATE sip:peer@{} SIP/2.0\r\n{via}{rest}", self.peer);
            let mut inner = Vec::new();
            let packet =
                PacketBuilder::ipv4(self.server.ip().octets(), self.peer.ip().octets(), 64).udp(5060, self.peer.port());
            packet.write(&mut inner, quoted.as_bytes()).unwrap();
            for code in [icmpv4::DestUnreachableHeader::Port, icmpv4::DestUnreachableHeader::Host] {
                let packet = PacketBuilder::ipv4(self.peer.ip().octets(), self.server.ip().octets(), 64)
                    .icmpv4(Icmpv4Type::DestinationUnreachable(code));
                let mut bytes = Vec::new();
                packet.write(&mut bytes, &inner).unwrap();
                self.send(&bytes);
            }
        }
    }
}

/// What the server received with a branch of sipst's.
fn leaked(call: &Call) -> Vec<Message> {
    let records = call.server.records().into_iter();
    let received = records.filter_map(|record| match record.event {
        Event::Received(message) => Some(message),
        Event::Sent(_) | Event::Established | Event::Ended { .. } | Event::Fault(_) => None,
    });
    received.filter(|message| message.header("Via").is_some_and(|via| via.contains(OWN_BRANCH))).collect()
}

#[test]
fn a_call_outlives_a_stranger_who_sends_what_they_like_with_the_daemon_and_without() {
    let mut call = Plan { attach: "tc", ..Plan::default() }.start();
    let stranger = Stranger::of(&call);
    for refreshes in 1..=3 {
        stranger.requests(refreshes);
        stranger.answers();
        call.refreshed(refreshes);
    }
    call.sipst.kill().unwrap();
    stranger.requests(4);
    stranger.answers();
    thread::sleep(Duration::from_millis(500));
    call.server.bye();
    assert_eq!(call.server.answered("BYE", SOON).unwrap(), 200, "{}", call.story());
    let (by_peer, _) = call.peer.ended(SOON).unwrap();
    assert!(!by_peer, "{}", call.story());
    assert_eq!(call.server.requests("OPTIONS").len(), 4, "what the stranger sends arrives\n{}", call.story());
    assert!(leaked(&call).is_empty(), "{:?}", leaked(&call));
    // An answer or an ICMP error that the server met would be a fault.
    call.clean();
    // All that sipst sent went to the peer, and to nobody else.
    let server = SocketAddr::from(stranger.server);
    let sent = call.tap.datagrams().unwrap().into_iter().filter(|datagram| datagram.from == server);
    let ours = sent.filter(|datagram| {
        let text = String::from_utf8_lossy(&datagram.payload);
        !text.starts_with("SIP/2.0 ") && text.contains(OWN_BRANCH)
    });
    let hops: Vec<_> = ours.map(|datagram| datagram.to).collect();
    assert!(hops.len() >= 3, "{}", call.story());
    assert!(hops.iter().all(|hop| *hop == SocketAddr::from(stranger.peer)), "{hops:?}");
}
