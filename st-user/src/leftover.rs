//! Dialogs that an earlier daemon refreshed and this one's engine knows nothing of: the rewriting of their numbers goes on
//! until they are over, and ends then.

use std::{collections::HashMap, net::IpAddr};

use st_core::{
    Direction, Packet, Side, Time,
    engine::{SILENCE, TRANSACTION},
    message::{Message, MethodName},
};
use st_ebpf::key::DialogKey;

/// What is known of one of them: of one side's numbers.
#[derive(Clone, Copy, Debug)]
struct Leftover {
    /// When the server last spoke in it, or when this daemon began.
    heard: Time,
    /// The server's address, once it has spoken.
    server: Option<IpAddr>,
    /// Whether what it said last was its BYE, or its answer to the peer's.
    over: bool,
}

/// All of them: no more than the kernel's map holds.
#[derive(Debug)]
pub struct Leftovers {
    dialogs: HashMap<DialogKey, Leftover>,
    /// Re-INVITEs whose 2xx may still come, and their ACKs; until then.
    orphans: Vec<u64>,
    until: Time,
}

impl Leftovers {
    /// The dialogs that have entries when the daemon begins, and the tokens of re-INVITEs that may still be answered, with
    /// those of their ACKs.
    pub fn new(now: Time, dialogs: impl IntoIterator<Item = DialogKey>, orphans: Vec<u64>) -> Self {
        let fresh = Leftover { heard: now, server: None, over: false };
        let dialogs = dialogs.into_iter().map(|key| (key, fresh)).collect();
        // A re-INVITE is answered within a transaction's time, and the answer repeated for another (R32).
        Self { dialogs, orphans, until: now + TRANSACTION * 2 }
    }

    /// Takes in a message. Only what the server itself says counts: anybody can send a BYE.
    pub fn saw(&mut self, now: Time, packet: &Packet<'_>, key: impl Fn(&[u8], &[u8], Side) -> Option<DialogKey>) {
        if self.dialogs.is_empty() || packet.direction != Direction::Egress {
            return;
        }
        let Ok(message) = Message::scan(packet.bytes, packet.truncated) else { return };
        let mut parties = [(Side::Server, message.from()), (Side::Peer, message.to())];
        if message.request_method().is_none() {
            parties = [(Side::Server, message.to()), (Side::Peer, message.from())];
        }
        let Some((call_id, cseq)) = message.call_id().zip(message.cseq()) else { return };
        for (side, party) in parties {
            let key = party.and_then(|party| party.tag).and_then(|tag| key(call_id, tag, side));
            if let Some(numbers) = key.and_then(|key| self.dialogs.get_mut(&key)) {
                let over = numbers.over || cseq.method == MethodName::Bye;
                *numbers = Leftover { heard: now, server: Some(packet.server.ip()), over };
            }
        }
    }

    /// One more, that this daemon's own engine has done with and the server perhaps not.
    pub fn keep(&mut self, now: Time, key: DialogKey) {
        self.dialogs.insert(key, Leftover { heard: now, server: None, over: false });
    }

    /// The engine knows this one after all.
    pub fn adopted(&mut self, key: DialogKey) {
        self.dialogs.remove(&key);
    }

    /// The tokens of which no answer can come any more; once.
    pub fn answered(&mut self, now: Time) -> Vec<u64> {
        if now < self.until { Vec::new() } else { std::mem::take(&mut self.orphans) }
    }

    /// Those whose entries are to go now, with the server's address where it is known.
    pub fn due(&mut self, now: Time) -> Vec<(DialogKey, Option<IpAddr>)> {
        let is_due = |dialog: &Leftover| now.since(dialog.heard) > if dialog.over { TRANSACTION } else { SILENCE };
        self.dialogs.extract_if(|_, dialog| is_due(dialog)).map(|(key, dialog)| (key, dialog.server)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: DialogKey = DialogKey { map: 1, check: 2 };

    const PEERS: DialogKey = DialogKey { map: 3, check: 4 };

    fn key(call_id: &[u8], tag: &[u8], side: Side) -> Option<DialogKey> {
        match (call_id, tag, side) {
            (b"call", b"server", Side::Server) => Some(KEY),
            (b"call", b"peer", Side::Peer) => Some(PEERS),
            _ => None,
        }
    }

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn saw(leftovers: &mut Leftovers, seconds: u64, direction: Direction, start: &str, tags: [&str; 2], method: &str) {
        let [from, to] = tags;
        let text = format!(
            "{start}\r\nFrom: <sip:a>;tag={from}\r\nTo: <sip:b>;tag={to}\r\nCall-ID: call\r\nCSeq: 3 {method}\r\n\r\n"
        );
        let packet = Packet {
            direction,
            server: "192.0.2.1:5060".parse().unwrap(),
            peer: "198.51.100.1:5060".parse().unwrap(),
            transport: st_core::Transport::Udp,
            interface: 0,
            tos: 0,
            ttl: 64,
            cookie: 0,
            truncated: false,
            bytes: text.as_bytes(),
        };
        leftovers.saw(at(seconds), &packet, key);
    }

    #[test]
    fn a_leftover_goes_a_transaction_after_the_servers_bye_or_its_answer_to_the_peers() {
        for (start, tags) in [("BYE sip:b SIP/2.0", ["server", "peer"]), ("SIP/2.0 200 OK", ["peer", "server"])] {
            let mut leftovers = Leftovers::new(at(0), [KEY, PEERS], vec![]);
            saw(&mut leftovers, 5, Direction::Egress, start, tags, "BYE");
            // A copy.
            saw(&mut leftovers, 9, Direction::Egress, start, tags, "BYE");
            assert_eq!(leftovers.due(at(9 + 32)), []);
            let mut due = leftovers.due(at(9 + 33));
            due.sort_by_key(|(key, _)| key.map);
            // The server's numbers and the peer's.
            assert_eq!(due, [KEY, PEERS].map(|key| (key, Some([192, 0, 2, 1].into()))));
            assert_eq!(leftovers.due(at(9 + 34)), []);
        }
    }

    #[test]
    fn one_that_is_kept_goes_when_the_server_says_so_and_is_the_engines_where_it_asks_for_it_again() {
        let mut leftovers = Leftovers::new(at(0), [], vec![]);
        leftovers.keep(at(3), KEY);
        assert_eq!(leftovers.due(at(3_600)), []);
        saw(&mut leftovers, 3_600, Direction::Egress, "BYE sip:b SIP/2.0", ["server", "peer"], "BYE");
        assert_eq!(leftovers.due(at(3_633)).len(), 1);
        leftovers.keep(at(4_000), KEY);
        leftovers.adopted(KEY);
        assert_eq!(leftovers.due(at(500_000)), []);
    }

    #[test]
    fn neither_a_strangers_bye_nor_other_messages_nor_other_dialogs_end_it() {
        let mut leftovers = Leftovers::new(at(0), [KEY], vec![]);
        saw(&mut leftovers, 5, Direction::Ingress, "BYE sip:b SIP/2.0", ["peer", "server"], "BYE");
        saw(&mut leftovers, 5, Direction::Egress, "INFO sip:b SIP/2.0", ["server", "peer"], "INFO");
        saw(&mut leftovers, 5, Direction::Egress, "BYE sip:b SIP/2.0", ["other", "peer"], "BYE");
        assert_eq!(leftovers.due(at(47 * 3600)), []);
    }

    #[test]
    fn one_in_which_nobody_speaks_goes_after_two_days_and_one_that_the_engine_knows_is_its_own() {
        let mut leftovers = Leftovers::new(at(0), [KEY], vec![]);
        assert_eq!(leftovers.due(at(48 * 3600 + 1)), [(KEY, None)]);
        let mut leftovers = Leftovers::new(at(0), [KEY], vec![]);
        leftovers.adopted(KEY);
        assert_eq!(leftovers.due(at(48 * 3600 + 1)), []);
    }
}
