//! Where bytes stand: sixteen are looked at in one step. Values are short, and a call of memchr costs more than it gains.

use wide::u8x16;

/// Where one of `wanted` first stands.
#[inline]
pub(crate) fn find<const N: usize>(bytes: &[u8], wanted: [u8; N]) -> Option<usize> {
    let mut rest = bytes;
    while let Some((sixteen, behind)) = rest.split_first_chunk() {
        let found = hits(*sixteen, wanted);
        if found != 0 {
            return Some(bytes.len() - rest.len() + found.trailing_zeros() as usize);
        }
        rest = behind;
    }
    if rest.is_empty() {
        return None;
    }
    match bytes.last_chunk() {
        // Those that were looked at before are none.
        Some(sixteen) => first(hits(*sixteen, wanted), bytes.len() - 16),
        None => find_in_few(rest, wanted),
    }
}

/// The same in fewer than sixteen.
#[inline]
fn find_in_few<const N: usize>(few: &[u8], wanted: [u8; N]) -> Option<usize> {
    let mut both = [0; 16];
    // The first and the last of them, some twice: what stands in the upper half stands that much further behind.
    if let (Some(head), Some(tail)) = (few.first_chunk::<8>(), few.last_chunk::<8>()) {
        both[..8].copy_from_slice(head);
        both[8..].copy_from_slice(tail);
        let found = hits(both, wanted);
        return first(found & 0xff, 0).or_else(|| first(found >> 8, few.len() - 8));
    }
    few.iter().position(|b| wanted.contains(b))
}

/// Where the lowest bit stands, counted from `base`.
#[inline]
fn first(found: u32, base: usize) -> Option<usize> {
    (found != 0).then(|| base + found.trailing_zeros() as usize)
}

/// A bit for each byte that is wanted, the lowest for the first.
#[inline]
fn hits<const N: usize>(sixteen: [u8; 16], wanted: [u8; N]) -> u32 {
    let sixteen = u8x16::new(sixteen);
    let none = u8x16::splat(0);
    wanted.iter().fold(none, |found, &b| found | sixteen.simd_eq(u8x16::splat(b))).to_bitmask()
}

/// Where a byte first stands among sixteen.
#[inline]
pub(super) fn first_in(sixteen: &[u8; 16], wanted: u8) -> Option<usize> {
    first(hits(*sixteen, [wanted]), 0)
}

/// Whether the first so many bytes are the same, sixteen at most.
#[inline]
pub(super) fn begin_alike(one: &[u8; 16], other: &[u8; 16], length: usize) -> bool {
    let differ = !u8x16::new(*one).simd_eq(u8x16::new(*other)).to_bitmask();
    differ.trailing_zeros() as usize >= length
}

/// Goes through the lines of a message.
pub(super) struct LineEnds<'a> {
    bytes: &'a [u8],
    /// Where the block begins that `found` tells of.
    base: usize,
    /// Line ends in it that are still to come.
    found: u64,
}

impl<'a> LineEnds<'a> {
    /// From the line that begins at `at`.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, base: at, found: line_feeds(&bytes[at..]) }
    }

    /// The end of the line without the line feed, and where the next line begins; the end of the bytes where there is no line
    /// feed any more.
    #[inline]
    pub(super) fn next(&mut self) -> (usize, usize) {
        while self.found == 0 {
            let Some(rest) = self.bytes.get(self.base + BLOCK..) else {
                return (self.bytes.len(), self.bytes.len());
            };
            self.base += BLOCK;
            self.found = line_feeds(rest);
        }
        let end = self.base + self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        (end, end + 1)
    }
}

/// Bytes of a block.
const BLOCK: usize = 64;

/// A bit for each line feed in the first block of `rest`, the lowest for the first byte.
#[inline]
fn line_feeds(rest: &[u8]) -> u64 {
    let in_block = |block: &[u8; BLOCK]| {
        let (sixteens, _) = block.as_chunks::<16>();
        sixteens.iter().rev().fold(0, |found, sixteen| found << 16 | u64::from(hits(*sixteen, [b'\n'])))
    };
    rest.first_chunk().map_or_else(|| in_block(&padded(rest)), in_block)
}

/// The last block.
#[cold]
fn padded(rest: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_are_found_where_a_plain_search_finds_them(bytes in proptest::collection::vec(0_u8..6, 0..80)) {
            prop_assert_eq!(find(&bytes, [1]), bytes.iter().position(|&b| b == 1));
            prop_assert_eq!(find(&bytes, [1, 2, 5]), bytes.iter().position(|b| [1, 2, 5].contains(b)));
        }

        #[test]
        fn lines_end_where_a_plain_split_ends_them(bytes in proptest::collection::vec(8_u8..24, 0..300), at in 0_usize..80) {
            let at = at.min(bytes.len());
            let mut ends = LineEnds::new(&bytes, at);
            let mut begin = at;
            for line in bytes[at..].split(|&b| b == b'\n') {
                let end = begin + line.len();
                prop_assert_eq!(ends.next(), (end, (end + 1).min(bytes.len())));
                begin = end + 1;
            }
            prop_assert_eq!(ends.next(), (bytes.len(), bytes.len()));
        }
    }
}
