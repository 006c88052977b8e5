//! IP datagrams out of their fragments, in any order, within bounds. Of a datagram whose fragments overlap nothing is used, nor of what
//! comes of it later (RFC 5722, section 3; RFC 8200, section 4.5), in IPv4 as in IPv6; an exact copy of a fragment is no overlap.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use crate::Time;

/// Datagrams that are put together at the same time; past that one of the oldest goes.
pub const MAX_DATAGRAMS: usize = 1_024;

/// What they hold together, in bytes; past that likewise.
pub const MAX_BYTES: usize = 4 << 20;

/// Fragments of one datagram: 64 KiB in the shortest that IPv6 allows (RFC 8200, section 5), and some to spare.
pub const MAX_FRAGMENTS: usize = 64;

/// The longest that IP can carry, in bytes.
pub const MAX_LENGTH: usize = 65_535;

/// How long fragments wait for the others, as in Linux for IPv4 (RFC 791 has 15 s as the least, RFC 8200 has 60 s).
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where room is needed, so many of the oldest are looked at for one whose first fragment has not come.
const OLDEST: usize = 64;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    /// From there.
    pub source: IpAddr,
    /// To there.
    pub destination: IpAddr,
    /// As in the IP header, or in IPv6's fragment header.
    pub identification: u32,
    /// The protocol of what is carried.
    pub protocol: u8,
}

/// One fragment.
#[derive(Clone, Copy, Debug)]
pub struct Fragment<'a> {
    /// What it is a part of.
    pub id: Id,
    /// Where in that, in units of eight bytes.
    pub offset: u16,
    /// Whether there are others behind it.
    pub more: bool,
    /// What it holds.
    pub bytes: &'a [u8],
}

/// What became of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<H> {
    /// It waits for others, or was there already.
    Waits,
    /// It was the last that was missing: what was kept with the first, and all bytes.
    Whole(H, Vec<u8>),
    /// It cannot be used.
    Refused(Refused),
}

/// Why a fragment, and mostly its datagram, cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It overlaps another, or contradicts it: nothing of the datagram is used.
    Overlap,
    /// It is empty, of no length that others could follow, or reaches past [`MAX_LENGTH`]: it alone is not used.
    Malformed,
    /// There are more than [`MAX_FRAGMENTS`]: nothing of the datagram is used.
    TooMany,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams that were put together.
    pub whole: u64,
    /// Datagrams that had their first fragment, and lacked another at the end of [`PATIENCE`].
    pub incomplete: u64,
    /// Datagrams whose first fragment never came.
    pub headless: u64,
    /// Datagrams of which nothing is used because fragments overlap.
    pub overlapping: u64,
    /// Datagrams with too many fragments.
    pub too_many: u64,
    /// Fragments that are malformed.
    pub malformed: u64,
    /// Datagrams that gave way to others before their time.
    pub displaced: u64,
}

struct Piece {
    begin: usize,
    more: bool,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> usize {
        self.begin + self.bytes.len()
    }
}

struct Waiting<H> {
    serial: u64,
    /// `None`: refused, and so is whatever comes of it.
    pieces: Option<Vec<Piece>>,
    head: Option<H>,
    held: usize,
}

/// The datagrams that are incomplete so far. `H` is what is to be known of one from its first fragment.
pub struct Reassembly<H> {
    waiting: HashMap<Id, Waiting<H>>,
    /// Oldest first; what is no more there, or there anew, has another serial.
    queue: VecDeque<(Time, Id, u64)>,
    serial: u64,
    held: usize,
    counts: Counts,
    given_up: u64,
}

impl<H> Default for Reassembly<H> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            queue: VecDeque::new(),
            serial: 0,
            held: 0,
            counts: Counts::default(),
            given_up: 0,
        }
    }
}

impl<H> Reassembly<H> {
    /// Takes a fragment in; `head` is asked for where it is the first of its datagram.
    pub fn add(&mut self, now: Time, fragment: &Fragment<'_>, head: impl FnOnce() -> H) -> Outcome<H> {
        self.expire(now);
        let &Fragment { id, offset, more, bytes } = fragment;
        let begin = usize::from(offset) * 8;
        if bytes.is_empty() || begin + bytes.len() > MAX_LENGTH || more && !bytes.len().is_multiple_of(8) {
            self.counts.malformed += 1;
            return Outcome::Refused(Refused::Malformed);
        }
        if !self.waiting.contains_key(&id) {
            self.begin(now, id);
        }
        let Some(waiting) = self.waiting.get_mut(&id) else { return Outcome::Waits };
        let Some(pieces) = &mut waiting.pieces else { return Outcome::Refused(Refused::Overlap) };
        let at = match place(pieces, begin, more, bytes) {
            Place::At(at) if pieces.len() < MAX_FRAGMENTS => at,
            Place::At(_) => return self.refuse(id, Refused::TooMany),
            Place::Twice => return Outcome::Waits,
            Place::Overlap => return self.refuse(id, Refused::Overlap),
        };
        pieces.insert(at, Piece { begin, more, bytes: bytes.to_vec() });
        if begin == 0 {
            waiting.head = Some(head());
        }
        waiting.held += bytes.len();
        self.held += bytes.len();
        if is_whole(pieces) {
            return self.whole(id);
        }
        while self.held > MAX_BYTES && self.displace() {}
        Outcome::Waits
    }

    /// Gives up what has waited long enough. How many datagrams were given up since the last call, for want of time or of room, whose
    /// beginning was there.
    pub fn given_up(&mut self, now: Time) -> u64 {
        self.expire(now);
        std::mem::take(&mut self.given_up)
    }

    fn expire(&mut self, now: Time) {
        while let Some(&(since, id, serial)) = self.queue.front() {
            let lives = self.waiting.get(&id).is_some_and(|waiting| waiting.serial == serial);
            if lives && now.since(since) <= PATIENCE {
                break;
            }
            self.queue.pop_front();
            if lives && let Some(waiting) = self.forget(&id) {
                match (waiting.pieces, waiting.head) {
                    // Counted when it was refused.
                    (None, _) => {}
                    (Some(_), Some(_)) => {
                        self.counts.incomplete += 1;
                        self.given_up += 1;
                    }
                    (Some(_), None) => self.counts.headless += 1,
                }
            }
        }
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many datagrams wait for fragments, and how many bytes they hold.
    pub fn waiting(&self) -> (usize, usize) {
        let waiting = self.waiting.values().filter(|waiting| waiting.pieces.is_some()).count();
        (waiting, self.held)
    }

    fn begin(&mut self, now: Time, id: Id) {
        while self.waiting.len() >= MAX_DATAGRAMS && self.displace() {}
        if self.queue.len() >= 2 * MAX_DATAGRAMS {
            let waiting = &self.waiting;
            self.queue.retain(|(_, id, serial)| waiting.get(id).is_some_and(|one| one.serial == *serial));
        }
        self.serial += 1;
        self.queue.push_back((now, id, self.serial));
        self.waiting.insert(id, Waiting { serial: self.serial, pieces: Some(Vec::new()), head: None, held: 0 });
    }

    /// Makes room: what lacks its beginning goes first, else the oldest. Whether any went.
    fn displace(&mut self) -> bool {
        let live = |(_, id, serial): &(Time, Id, u64)| {
            self.waiting
                .get(id)
                .filter(|waiting| waiting.serial == *serial)
                .map(|waiting| (*id, waiting.head.is_some()))
        };
        let oldest: Vec<_> = self.queue.iter().filter_map(live).take(OLDEST).collect();
        let headless = oldest.iter().find(|(_, has_head)| !has_head);
        let Some(&(id, has_head)) = headless.or(oldest.first()) else { return false };
        self.counts.displaced += 1;
        self.given_up += u64::from(has_head);
        self.forget(&id).is_some()
    }

    fn forget(&mut self, id: &Id) -> Option<Waiting<H>> {
        let waiting = self.waiting.remove(id)?;
        self.held -= waiting.held;
        Some(waiting)
    }

    /// Uses nothing of a datagram, nor what is still to come of it.
    fn refuse(&mut self, id: Id, why: Refused) -> Outcome<H> {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            self.held -= waiting.held;
            (waiting.pieces, waiting.head, waiting.held) = (None, None, 0);
        }
        match why {
            Refused::Overlap => self.counts.overlapping += 1,
            Refused::TooMany => self.counts.too_many += 1,
            Refused::Malformed => {}
        }
        Outcome::Refused(why)
    }

    fn whole(&mut self, id: Id) -> Outcome<H> {
        match self.forget(&id) {
            Some(Waiting { pieces: Some(pieces), head: Some(head), .. }) => {
                self.counts.whole += 1;
                Outcome::Whole(head, pieces.into_iter().flat_map(|piece| piece.bytes).collect())
            }
            _ => Outcome::Waits,
        }
    }
}

/// Where a fragment goes among the others.
enum Place {
    At(usize),
    /// It is there already.
    Twice,
    Overlap,
}

fn place(pieces: &[Piece], begin: usize, more: bool, bytes: &[u8]) -> Place {
    let end = begin + bytes.len();
    let at = pieces.partition_point(|piece| piece.begin < begin);
    let (before, after) = pieces.split_at(at);
    if let Some(same) = after.first().filter(|piece| piece.begin == begin) {
        return if same.more == more && same.bytes == bytes { Place::Twice } else { Place::Overlap };
    }
    let overlaps = before.last().is_some_and(|piece| piece.end() > begin)
        || after.first().is_some_and(|piece| piece.begin < end)
        // Behind the last there is nothing.
        || before.last().is_some_and(|piece| !piece.more)
        || !more && !after.is_empty();
    if overlaps { Place::Overlap } else { Place::At(at) }
}

fn is_whole(pieces: &[Piece]) -> bool {
    let mut end = 0;
    pieces.iter().all(|piece| std::mem::replace(&mut end, piece.end()) == piece.begin)
        && pieces.last().is_some_and(|piece| !piece.more)
}

#[cfg(test)]
mod tests;
