//! How the messages of one direction of a connection stand in its segments: whether each begins one, and whether it left in one write.
//!
//! What the programs write into a connection hangs on the first, what sipst writes to it on the second: a server that writes header and
//! body apart may be between the two, though nothing of its waits to be sent. Only what comes in order tells anything.

use st_core::message::Message;

/// What a segment tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing: a copy, a keep-alive, the middle of a message, or something behind a gap.
    Nothing,
    /// A message has ended with the segment, and began one.
    Whole,
    /// A message goes on behind the segment, which is so long: in one write only where the connection takes no longer ones.
    Unended(u32),
    /// Something begins within the segment: two messages in it, or less than one.
    Mixed,
    /// The segment does not begin a message where one has to begin, or not with its whole header.
    Torn(u32),
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    /// The number of the byte that comes next, where that is known.
    next: Option<u32>,
    /// How much of a message is still to come.
    left: u32,
    /// Whether every message so far began a segment, with its whole header in it.
    ordered: bool,
    /// Whether any did.
    begun: bool,
}

impl Track {
    /// Nothing was seen of it yet.
    pub(super) const fn new() -> Self {
        Self { next: None, left: 0, ordered: true, begun: false }
    }

    /// Whether every message so far, one at least, began a segment and had its whole header in it.
    pub(super) const fn is_ordered(self) -> bool {
        self.ordered && self.begun
    }

    /// Whether one did not.
    pub(super) const fn is_broken(self) -> bool {
        !self.ordered
    }

    /// Whether a message is under way, or it is not known where the next one begins.
    pub(super) const fn is_within(self) -> bool {
        self.left > 0 || self.next.is_none()
    }

    /// Takes in a segment whose first byte has this number.
    pub(super) fn segment(&mut self, first: u32, bytes: &[u8]) -> Seen {
        let len = bytes.len() as u32;
        if len == 0 {
            return Seen::Nothing;
        }
        let Some(next) = self.next else { return self.resume(first, bytes) };
        let ahead = first.wrapping_sub(next) as i32;
        if ahead > 0 {
            // What is between went by unseen, or comes later.
            (self.next, self.left) = (None, 0);
            return self.resume(first, bytes);
        }
        let known = ahead.unsigned_abs() as usize;
        let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) else { return Seen::Nothing };
        let seen = self.go_on(new, known == 0);
        self.next = self.next.map(|next| next.wrapping_add(new.len() as u32));
        seen
    }

    /// Where nothing is known: a segment that begins a message.
    fn resume(&mut self, first: u32, bytes: &[u8]) -> Seen {
        if length(bytes).is_none() || matches!(bytes.first(), Some(b'\r' | b'\n')) {
            return Seen::Nothing;
        }
        self.next = Some(first.wrapping_add(bytes.len() as u32));
        self.message(bytes, true)
    }

    fn go_on(&mut self, bytes: &[u8], begins: bool) -> Seen {
        let len = bytes.len() as u32;
        if self.left > len {
            self.left -= len;
            return Seen::Unended(len);
        }
        if self.left == len {
            self.left = 0;
            return Seen::Whole;
        }
        if self.left > 0 {
            return self.lose(Seen::Mixed);
        }
        if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            return Seen::Nothing;
        }
        self.message(bytes, begins)
    }

    /// A message is to begin here.
    fn message(&mut self, bytes: &[u8], begins: bool) -> Seen {
        let len = bytes.len() as u32;
        if matches!(bytes.first(), Some(b'\r' | b'\n')) {
            return self.lose(Seen::Mixed);
        }
        let Some(length) = length(bytes) else { return self.lose(Seen::Torn(len)) };
        if !begins || length < len {
            return self.lose(Seen::Mixed);
        }
        self.begun = true;
        self.left = length - len;
        if self.left == 0 { Seen::Whole } else { Seen::Unended(len) }
    }

    fn lose(&mut self, seen: Seen) -> Seen {
        (self.next, self.left, self.ordered) = (None, 0, false);
        seen
    }
}

/// How long the message is that begins here with its whole header.
fn length(bytes: &[u8]) -> Option<u32> {
    let message = Message::scan(bytes, true).ok()?;
    let body = message.body_at()?;
    u32::try_from(body + message.stream_length()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: usize) -> Vec<u8> {
        let head = "OPTIONS sip:a@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
                    To: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n";
        format!("{head}Content-Length: {body}\r\n\r\n{}", "b".repeat(body)).into_bytes()
    }

    /// What segments tell that follow one another, and the track then; `None` in the place of one that went by unseen.
    fn seen(first: u32, segments: &[&[u8]]) -> (Vec<Seen>, Track) {
        let mut track = Track::new();
        let mut at = first;
        let mut all = vec![];
        for bytes in segments {
            all.push(track.segment(at, bytes));
            at = at.wrapping_add(bytes.len() as u32);
        }
        (all, track)
    }

    #[test]
    fn messages_that_each_fill_a_segment_are_whole() {
        let (one, long) = (message(0), message(900));
        for first in [5, u32::MAX - 30] {
            let (seen, track) = seen(first, &[&one, b"\r\n\r\n", &long, b"\r\n", &one]);
            assert_eq!(seen, [Seen::Whole, Seen::Nothing, Seen::Whole, Seen::Nothing, Seen::Whole]);
            assert!(track.is_ordered() && !track.is_within());
        }
    }

    #[test]
    fn a_message_that_goes_on_behind_its_segment_says_where_it_was_cut() {
        let long = message(900);
        let head = long.len() - 900;
        let (told, track) = seen(9, &[&long[..head], &long[head..]]);
        assert_eq!(told, [Seen::Unended(head as u32), Seen::Whole]);
        assert!(track.is_ordered(), "it began a segment with its header in it");
        let (told, track) = seen(9, &[&long[..600], &long[600..800]]);
        assert_eq!(told, [Seen::Unended(600), Seen::Unended(200)]);
        assert!(track.is_within());
    }

    #[test]
    fn a_header_in_two_segments_is_torn_and_nothing_makes_up_for_it() {
        let one = message(0);
        let (told, mut track) = seen(9, &[&one, &one[..40], &one[40..], &one]);
        assert_eq!(told[..2], [Seen::Whole, Seen::Torn(40)]);
        assert!(track.is_broken() && !track.is_ordered());
        track.segment(9 + 3 * one.len() as u32, &one);
        assert!(track.is_broken());
    }

    #[test]
    fn two_messages_in_a_segment_are_mixed() {
        let one = message(0);
        let two = [&one[..], &one[..]].concat();
        let (told, track) = seen(9, &[&one, &two]);
        assert_eq!((told[1], track.is_broken()), (Seen::Mixed, true));
        let long = message(900);
        let tail = [&long[700..], &one[..]].concat();
        assert_eq!(seen(9, &[&long[..700], &tail]).0[1], Seen::Mixed);
        let kept = [&b"\r\n\r\n"[..], &one[..]].concat();
        assert!(seen(9, &[&one, &kept]).1.is_broken(), "what stands behind a keep-alive does not begin the segment");
    }

    #[test]
    fn copies_tell_nothing_and_what_begins_within_one_is_mixed() {
        let one = message(0);
        let mut track = Track::new();
        assert_eq!(track.segment(100, &one), Seen::Whole);
        assert_eq!(track.segment(100, &one), Seen::Nothing);
        assert_eq!(track.segment(120, &one[20..]), Seen::Nothing);
        let both = [&one[..], &one[..]].concat();
        assert_eq!(track.segment(100, &both), Seen::Mixed, "sent again together with the next one");
    }

    #[test]
    fn behind_a_gap_the_next_message_that_begins_a_segment_counts_again() {
        let one = message(0);
        let mut track = Track::new();
        track.segment(100, &one);
        assert_eq!(track.segment(5_000, b"the middle of something"), Seen::Nothing);
        assert!(track.is_within() && !track.is_broken());
        assert_eq!(track.segment(6_000, &one), Seen::Whole);
        assert!(track.is_ordered());
    }

    #[test]
    fn what_is_no_message_where_one_has_to_begin_is_torn() {
        let one = message(0);
        let text = String::from_utf8(one.clone()).unwrap();
        for other in [&b"hello"[..], &b"\x16\x03\x01\x02"[..], text.replace("Content-Length: 0\r\n\r\n", "").as_bytes()]
        {
            assert_eq!(seen(9, &[&one, other]).0[1], Seen::Torn(other.len() as u32));
        }
        assert_eq!(seen(9, &[b"hello"]).0, [Seen::Nothing], "nothing is known yet");
        assert!(!Track::new().is_ordered(), "and nothing is proven by nothing");
    }
}
