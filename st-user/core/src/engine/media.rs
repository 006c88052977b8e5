//! What of a peer's SDP matters to a refresh: where its media go, and whether a re-INVITE would disturb them.

use std::net::{IpAddr, SocketAddr};

use super::limits::{MAX_FORMATS, MAX_STREAMS};
use crate::message::find;

/// Which way media flow, as one side says it (RFC 3264, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Both,
    Send,
    Receive,
    Neither,
}

impl Flow {
    fn named(line: &[u8]) -> Option<Self> {
        match line {
            b"a=sendrecv" => Some(Self::Both),
            b"a=sendonly" => Some(Self::Send),
            b"a=recvonly" => Some(Self::Receive),
            b"a=inactive" => Some(Self::Neither),
            _ => None,
        }
    }

    const fn sends(self) -> bool {
        matches!(self, Self::Both | Self::Send)
    }

    const fn receives(self) -> bool {
        matches!(self, Self::Both | Self::Receive)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stream<'a> {
    kind: &'a [u8],
    port: &'a [u8],
    protocol: &'a [u8],
    /// With blanks between.
    formats: &'a [u8],
    connection: &'a [u8],
    flow: Flow,
    /// `a=crypto`, `a=fingerprint`, `a=ice-ufrag` and `a=ice-pwd` lines.
    keys: Vec<&'a [u8]>,
}

/// What lines with keys begin with.
const KEYS: [&[u8]; 4] = [b"a=crypto:", b"a=fingerprint:", b"a=ice-ufrag:", b"a=ice-pwd:"];

/// The streams of one session description, read in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Media<'a> {
    /// The `o=` line: the same as long as the session is (R22).
    origin: &'a [u8],
    streams: Vec<Stream<'a>>,
}

/// Whether two SDPs of one side describe the same session, as far as they can be read (R22).
pub(super) fn same_session(before: &[u8], now: &[u8]) -> bool {
    if before == now {
        return Media::read(now).is_some();
    }
    Media::read(before).zip(Media::read(now)).is_some_and(|(before, now)| before.origin == now.origin)
}

impl<'a> Media<'a> {
    /// Reads an SDP; `None` where it has no media, too many streams, formats or keys, or lines that are none.
    pub(super) fn read(sdp: &'a [u8]) -> Option<Self> {
        let mut origin: &[u8] = b"";
        let mut connection: &[u8] = b"";
        let mut flow = Flow::Both;
        let mut keys = Vec::new();
        let mut streams: Vec<Stream<'_>> = Vec::new();
        let mut rest = sdp;
        while !rest.is_empty() {
            let end = find(rest, [b'\n']).unwrap_or(rest.len());
            let whole = &rest[..end];
            let line = || whole.trim_ascii_end();
            rest = rest.get(end + 1..).unwrap_or_default();
            match whole {
                [b'm', b'=', words @ ..] => {
                    if streams.len() == MAX_STREAMS {
                        return None;
                    }
                    let mut words = words.trim_ascii_end();
                    let mut next = || next_word(&mut words);
                    let [kind, port, protocol] = [next()?, next()?, next()?];
                    if self::words(words).nth(MAX_FORMATS).is_some() {
                        return None;
                    }
                    streams.push(Stream { kind, port, protocol, formats: words, connection, flow, keys: keys.clone() });
                }
                [b'o', b'=', ..] => origin = line(),
                [b'c', b'=', ..] => match streams.last_mut() {
                    Some(stream) => stream.connection = line(),
                    None => connection = line(),
                },
                // What says which way they flow, and keys: few lines begin like them.
                [b'a', b'=', b's' | b'r', b'e', ..]
                | [b'a', b'=', b'i', b'n' | b'c', ..]
                | [b'a', b'=', b'c', b'r', ..]
                | [b'a', b'=', b'f', b'i', ..] => {
                    let line = line();
                    if let Some(named) = Flow::named(line) {
                        match streams.last_mut() {
                            Some(stream) => stream.flow = named,
                            None => flow = named,
                        }
                    } else if KEYS.iter().any(|key| line.starts_with(key)) {
                        let keys = streams.last_mut().map_or(&mut keys, |stream| &mut stream.keys);
                        if keys.len() == MAX_FORMATS {
                            return None;
                        }
                        keys.push(line);
                    }
                }
                _ => {}
            }
        }
        (!streams.is_empty()).then_some(Self { origin, streams })
    }

    /// The same with every stream flowing only as far as the other side's SDP lets it: an answer to a hold says less than an
    /// offer may have said before.
    pub(super) fn within(mut self, other: &Media<'_>) -> Self {
        for (own, other) in self.streams.iter_mut().zip(&other.streams) {
            own.flow = match (own.flow.sends() && other.flow.receives(), own.flow.receives() && other.flow.sends()) {
                (true, true) => Flow::Both,
                (true, false) => Flow::Send,
                (false, true) => Flow::Receive,
                (false, false) => Flow::Neither,
            };
        }
        self
    }

    /// Whether an answer leaves the media where `self`, the same side's last SDP, had them (F9). An answer may choose among
    /// the formats and keys of an offer.
    pub(super) fn stays_in(&self, answer: &Media<'_>) -> bool {
        self.streams.len() == answer.streams.len()
            && self.streams.iter().zip(&answer.streams).all(|(old, new)| {
                old.kind == new.kind
                    && old.port == new.port
                    && old.protocol == new.protocol
                    && old.connection == new.connection
                    && old.flow == new.flow
                    && words(new.formats).all(|format| words(old.formats).any(|known| known == format))
                    && new.keys.iter().all(|key| old.keys.contains(key))
            })
    }

    /// Where this side, the server, sends from in streams that carry media, and whether `peer`, the other side, and it have said
    /// that it does so now in one of them. `None` where the two do not go together.
    pub(super) fn flows(&self, peer: &Media<'_>) -> Option<(Vec<SocketAddr>, bool)> {
        if self.streams.len() != peer.streams.len() {
            return None;
        }
        let (mut flows, mut flowing) = (Vec::new(), false);
        for (own, peer) in self.streams.iter().zip(&peer.streams) {
            // Fax is silent at times.
            if own.kind == b"image" || stream_is_off(own) || stream_is_off(peer) {
                continue;
            }
            let Some(flow) = own.address() else { continue };
            // RFC 3264, section 8.4: an older peer holds by the address 0.0.0.0.
            let held = peer.address().is_some_and(|address| address.ip().is_unspecified());
            flowing |= own.flow.sends() && peer.flow.receives() && !held && !flow.ip().is_unspecified();
            if !flow.ip().is_unspecified() && !flows.contains(&flow) {
                flows.push(flow);
            }
        }
        Some((flows, flowing))
    }

    /// Whether this side, the server, and `peer`, the other one, have said that every stream flows both ways, so that silence
    /// means something. `None` where that is not to be known: the two do not go together, it is fax, which is silent at times, or
    /// ICE may have taken a stream to where neither has said.
    pub(super) fn flow_both_ways(&self, peer: &Media<'_>) -> Option<bool> {
        if self.streams.len() != peer.streams.len() {
            return None;
        }
        let on =
            || self.streams.iter().zip(&peer.streams).filter(|(own, peer)| !stream_is_off(own) && !stream_is_off(peer));
        let hides = |stream: &Stream<'_>| {
            let ice = stream.keys.iter().any(|key| key.starts_with(b"a=ice-"));
            ice || stream.kind == b"image" || stream.address().is_none()
        };
        if on().next().is_none() || on().any(|(own, peer)| hides(own) || hides(peer)) {
            return None;
        }
        let goes = |stream: &Stream<'_>| {
            let held = stream.address().is_some_and(|address| address.ip().is_unspecified());
            stream.flow == Flow::Both && !held
        };
        Some(on().all(|(own, peer)| goes(own) && goes(peer)))
    }

    /// F22: fax or the like in place of voice.
    pub(super) fn has_image(&self) -> bool {
        self.streams.iter().any(|stream| stream.kind == b"image" && stream.port != b"0")
    }

    /// F11: whether this side, the peer, holds a stream that `server`'s last SDP would take off hold.
    pub(super) fn hold_would_be_lifted_by(&self, server: &Media<'_>) -> bool {
        self.streams.len() != server.streams.len()
            || self.streams.iter().zip(&server.streams).any(|(peer, server)| {
                let off = stream_is_off(peer) || stream_is_off(server);
                !off && ((server.flow.sends() && !peer.flow.receives())
                    || (server.flow.receives() && !peer.flow.sends()))
            })
    }
}

impl Stream<'_> {
    /// Where its packets go to and, nearly always, come from; `None` where that is named by a name.
    fn address(&self) -> Option<SocketAddr> {
        let text = std::str::from_utf8(self.connection.strip_prefix(b"c=IN IP")?).ok()?;
        let (_, address) = text.split_once(' ')?;
        let port = std::str::from_utf8(self.port).ok()?.parse().ok()?;
        Some(SocketAddr::new(address.trim().parse::<IpAddr>().ok()?.to_canonical(), port))
    }
}

fn stream_is_off(stream: &Stream<'_>) -> bool {
    stream.port == b"0"
}

/// Takes the next word of a line off.
fn next_word<'a>(line: &mut &'a [u8]) -> Option<&'a [u8]> {
    let begin = line.iter().position(|byte| *byte != b' ')?;
    let end = line[begin..].iter().position(|byte| *byte == b' ').map_or(line.len(), |length| begin + length);
    let word = &line[begin..end];
    *line = &line[end..];
    Some(word)
}

/// The words of a line.
fn words(mut line: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || next_word(&mut line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(lines: &str) -> Media<'static> {
        Media::read(format!("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n{lines}").leak().as_bytes()).unwrap()
    }

    const OFFER: &str = "c=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\n";

    #[test]
    fn f09_an_answer_may_choose_formats_but_not_move() {
        let offer = media(OFFER);
        assert!(offer.stays_in(&media("c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8 101\r\na=sendrecv\r\n")));
        for moved in [
            "c=IN IP4 192.0.2.1\r\nm=audio 4002 RTP/AVP 8\r\n",
            "c=IN IP4 192.0.2.9\r\nm=audio 4000 RTP/AVP 8\r\n",
            "c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 9\r\n",
            "c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/SAVP 8\r\n",
            "c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8\r\na=sendonly\r\n",
            "c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8\r\na=fingerprint:sha-256 AA\r\n",
            "c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8\r\nm=video 0 RTP/AVP 96\r\n",
        ] {
            assert!(!offer.stays_in(&media(moved)), "{moved}");
        }
        assert!(offer.stays_in(&media("c=IN IP4 192.0.2.9\r\nm=audio 4000 RTP/AVP 8\r\nc=IN IP4 192.0.2.1\r\n")));
    }

    #[test]
    fn f11_a_hold_that_the_replayed_sdp_matches_is_not_lifted() {
        let held = media(&format!("{OFFER}a=sendonly\r\n"));
        assert!(held.hold_would_be_lifted_by(&media(OFFER)));
        assert!(!held.hold_would_be_lifted_by(&media(&format!("{OFFER}a=recvonly\r\n"))));
        assert!(!media(OFFER).hold_would_be_lifted_by(&media(OFFER)));
        let inactive = media(&format!("a=inactive\r\n{OFFER}"));
        assert!(inactive.hold_would_be_lifted_by(&media(OFFER)));
        assert!(!inactive.hold_would_be_lifted_by(&inactive));
    }

    #[test]
    fn f09_an_answer_to_a_hold_that_says_less_than_an_earlier_offer_does_not_move() {
        let hold = media(&format!("{OFFER}a=sendonly\r\n"));
        let (offered, answered) = (media(OFFER), media(&format!("{OFFER}a=recvonly\r\n")));
        assert!(offered.clone().within(&hold).stays_in(&answered.within(&hold)));
        assert!(!offered.within(&hold).hold_would_be_lifted_by(&hold));
    }

    #[test]
    fn the_servers_flows_are_those_of_its_streams_that_are_on_and_flow_where_both_sides_say_so() {
        let flow = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let (server, peer) = (media(OFFER), media("c=IN IP4 198.51.100.1\r\nm=audio 6000 RTP/AVP 0\r\n"));
        assert_eq!(server.flows(&peer), Some((vec![flow("192.0.2.1:4000")], true)));
        for (own, other) in [
            ("a=recvonly", "a=sendonly"),
            ("a=inactive", "a=inactive"),
            ("a=sendrecv", "a=sendonly"),
            ("a=sendrecv", "c=IN IP4 0.0.0.0"),
        ] {
            let server = media(&format!("{OFFER}{own}\r\n"));
            let peer = media(&format!("c=IN IP4 198.51.100.1\r\nm=audio 6000 RTP/AVP 0\r\n{other}\r\n"));
            assert_eq!(server.flows(&peer), Some((vec![flow("192.0.2.1:4000")], false)), "{own} {other}");
        }
        let two = media("c=IN IP6 2001:db8::1\r\nm=audio 4000 RTP/AVP 0\r\nm=video 4002 RTP/AVP 96\r\n");
        let audio = media("c=IN IP6 2001:db8::2\r\nm=audio 6000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n");
        assert_eq!(two.flows(&audio), Some((vec![flow("[2001:db8::1]:4000")], true)));
        assert_eq!(two.flows(&peer), None, "an answer has the offer's streams");
        for none in ["c=IN IP4 media.example\r\nm=audio 4000 RTP/AVP 0\r\n", "m=audio 4000 RTP/AVP 0\r\n"] {
            assert_eq!(media(none).flows(&peer), Some((vec![], false)), "{none}");
        }
        let fax = "c=IN IP4 192.0.2.1\r\nm=image 4000 udptl t38\r\n";
        assert_eq!(media(fax).flows(&media(fax)), Some((vec![], false)));
    }

    #[test]
    fn silence_means_something_only_where_every_stream_flows_both_ways_between_known_places() {
        let (server, peer) = (media(OFFER), media("c=IN IP4 198.51.100.1\r\nm=audio 6000 RTP/AVP 0\r\n"));
        assert_eq!(server.flow_both_ways(&peer), Some(true));
        let with = |lines: &str| media(&format!("c=IN IP4 198.51.100.1\r\nm=audio 6000 RTP/AVP 0\r\n{lines}"));
        for held in ["a=sendonly\r\n", "a=recvonly\r\n", "a=inactive\r\n", "c=IN IP4 0.0.0.0\r\n"] {
            assert_eq!(server.flow_both_ways(&with(held)), Some(false), "{held}");
            assert_eq!(media(&format!("{OFFER}{held}")).flow_both_ways(&peer), Some(false), "{held}");
        }
        for unknown in ["a=ice-ufrag:x\r\n", "c=IN IP4 media.example\r\n", "m=audio 6002 RTP/AVP 0\r\n"] {
            assert_eq!(server.flow_both_ways(&with(unknown)), None, "{unknown}");
        }
        let two = media(&format!("{OFFER}m=video 4002 RTP/AVP 96\r\n"));
        assert_eq!(two.flow_both_ways(&with("m=video 6002 RTP/AVP 96\r\na=inactive\r\n")), Some(false));
        assert_eq!(two.flow_both_ways(&with("m=video 0 RTP/AVP 96\r\na=inactive\r\n")), Some(true), "it is off");
        let fax = media(&format!("{OFFER}m=image 4002 udptl t38\r\n"));
        assert_eq!(fax.flow_both_ways(&with("m=image 6002 udptl t38\r\n")), None);
        let off = media("c=IN IP4 192.0.2.1\r\nm=audio 0 RTP/AVP 0\r\n");
        assert_eq!(off.flow_both_ways(&peer), None, "there are no media");
    }

    #[test]
    fn f22_an_image_stream_is_seen_while_it_is_on() {
        assert!(media("m=image 5000 udptl t38\r\n").has_image());
        assert!(!media("m=image 0 udptl t38\r\nm=audio 1 RTP/AVP 0\r\n").has_image());
    }

    #[test]
    fn what_is_no_sdp_is_not_read() {
        assert_eq!(Media::read(b""), None);
        assert_eq!(Media::read(b"m=audio\r\n"), None);
        assert_eq!(Media::read("m=audio 1 RTP/AVP 0\r\n".repeat(MAX_STREAMS + 1).as_bytes()), None);
        let is_read = |formats, keys| {
            let keys = "a=ice-ufrag:x\r\n".repeat(keys);
            Media::read(format!("m=audio 1 RTP/AVP{}\r\n{keys}", " 0".repeat(formats)).as_bytes()).is_some()
        };
        assert!(is_read(MAX_FORMATS, MAX_FORMATS));
        assert!(!is_read(MAX_FORMATS + 1, 0) && !is_read(1, MAX_FORMATS + 1));
    }
}
