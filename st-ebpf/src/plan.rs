//! The plan of a TCP connection: what is written over which bytes of it, by their sequence numbers. A segment has these bytes written
//! wherever it overlaps one of the plan's patches, so that every copy of it reads the same, however it is cut.

use core::net::SocketAddr;

use crate::abi::mapped;

/// How many connections can have a plan at once.
pub const PLANS: u32 = 4_096;

/// How many patches a direction's plan has room for. The oldest goes for the newest: it is the first to be acknowledged, and what is
/// acknowledged is delivered no more.
pub const PATCHES: usize = 8;

/// How many bytes a patch has at most: a number, the blanks it may take, and what stands beside them.
pub const PATCH_BYTES: usize = 24;

/// A connection: the server's end and the peer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Connection {
    /// The server's address.
    pub server: [u8; 16],
    /// The peer's.
    pub peer: [u8; 16],
    /// The server's port, network order.
    pub server_port: [u8; 2],
    /// The peer's, network order.
    pub peer_port: [u8; 2],
    /// Always 0.
    pub reserved: [u8; 4],
}

impl Connection {
    /// That of these two ends.
    pub const fn between(server: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            server: mapped(server.ip()),
            peer: mapped(peer.ip()),
            server_port: server.port().to_be_bytes(),
            peer_port: peer.port().to_be_bytes(),
            reserved: [0; 4],
        }
    }
}

/// Bits of [`Plan::flags`].
pub mod bits {
    /// Numbers are shifted: so far every message began a segment, with its whole header in it.
    pub const NUMBERS: u32 = 1;
    /// No longer, but no request of the server's has left since: an answer that begins a segment is to one from before, whose number was
    /// shifted.
    pub const ANSWERS: u32 = 2;
}

/// Bytes of a direction that others take the place of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Patch {
    /// The sequence number of the first.
    pub first: u32,
    /// How many there are, [`PATCH_BYTES`] at most; 0 for none.
    pub len: u32,
    /// What takes their place.
    pub bytes: [u8; PATCH_BYTES],
}

impl Patch {
    /// Whether anything of a segment of `len` bytes that begins at `sequence` is to be written. Numbers go round (RFC 9293, section 3.4).
    #[inline(always)]
    pub const fn overlaps(first: u32, patched: u32, sequence: u32, len: u32) -> bool {
        patched != 0 && (first.wrapping_sub(sequence) < len || (len != 0 && sequence.wrapping_sub(first) < patched))
    }
}

/// What the programs know of a connection; the key is [`Connection`]. The daemon makes and removes entries and writes `flags`, the rest
/// is the programs' own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Plan {
    /// Bits of [`bits`].
    pub flags: u32,
    /// Always 0.
    pub reserved: u32,
    /// By direction ([`crate::abi::direction`]): up to where its receiver has last acknowledged it.
    pub acknowledged: [u32; 2],
    /// By direction: the place of the next patch, modulo [`PATCHES`].
    pub next: [u32; 2],
    /// By direction.
    pub patches: [[Patch; PATCHES]; 2],
}

/// What a byte that is written changes of a checksum over 16-bit words as they stand in memory, `even` by its offset: to be added up in
/// 32 bits.
#[inline(always)]
pub const fn change(even: bool, old: u8, new: u8) -> u32 {
    let shift = if even { 0 } else { 8 };
    ((new as u32) << shift) + (0xffff ^ ((old as u32) << shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_meets_the_segments_that_have_any_byte_of_it() {
        for first in [1_000_u32, u32::MAX - 10, 0, u32::MAX] {
            for from in -40..40_i32 {
                for len in 0..40_u32 {
                    let sequence = first.wrapping_add_signed(from);
                    let expected = (0..len).any(|at| sequence.wrapping_add(at).wrapping_sub(first) < 24);
                    assert_eq!(Patch::overlaps(first, 24, sequence, len), expected, "{first} {from} {len}");
                    assert!(!Patch::overlaps(first, 0, sequence, len), "an empty place");
                }
            }
        }
    }

    /// The checksum of RFC 1071 over words as they stand in memory.
    fn sum(bytes: &[u8]) -> u16 {
        let total: u32 =
            bytes.chunks(2).map(|word| u32::from(u16::from_le_bytes([word[0], *word.get(1).unwrap_or(&0)]))).sum();
        fold(total)
    }

    fn fold(mut sum: u32) -> u16 {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn a_checksum_changes_by_the_bytes_that_are_written() {
        let before: std::vec::Vec<u8> = (0..60_u8).map(|byte| byte.wrapping_mul(37)).collect();
        for at in 0..36_usize {
            let mut after = before.clone();
            let mut by = 0;
            for (index, byte) in after[at..at + 24].iter_mut().enumerate() {
                let new = byte.wrapping_mul(11).wrapping_add(index as u8);
                by += change((at + index) % 2 == 0, *byte, new);
                *byte = new;
            }
            assert_eq!(fold(u32::from(sum(&before)) + u32::from(fold(by))), sum(&after), "{at}");
        }
    }
}
