//! The dialog key: SipHash-2-4 with 128 bits of output over the Call-ID and the tag of the side whose numbers they are, each
//! padded with zeros to whole words, and a word with both lengths, whose highest bit says that the side is the peer. The
//! kernel programs and user space compute it alike, from the boot-time key.

/// The longest Call-ID that the kernel programs hash; dialogs with a longer one are never shifted.
pub const MAX_CALL_ID: usize = 256;

/// The longest tag that the kernel programs hash; dialogs with a longer one are never shifted.
pub const MAX_TAG: usize = 128;

/// Whose numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// The server's: those of its requests grow on their way out.
    Server,
    /// The peer's: those of its requests grow on their way in.
    Peer,
}

impl Whose {
    /// The length of this side's tag as [`Sip::finish`] takes it.
    #[inline(always)]
    pub const fn mark(self, tag_len: usize) -> usize {
        match self {
            Self::Server => tag_len,
            Self::Peer => tag_len | 1 << 31,
        }
    }
}

/// What stands for a Via branch under this key; `None` where it is empty or longer than [`MAX_TAG`].
pub fn branch(hash_key: [u64; 2], branch: &[u8]) -> Option<u64> {
    if branch.is_empty() || branch.len() > MAX_TAG {
        return None;
    }
    let mut hash = Sip::new(hash_key);
    hash.padded(branch);
    // No dialog has a Call-ID of no length.
    Some(hash.finish(0, branch.len()).map)
}

/// Where the numbers of one side of a dialog stand in the kernel's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DialogKey {
    /// The map key.
    pub map: u64,
    /// The second half, kept in the value.
    pub check: u64,
}

impl DialogKey {
    /// The key of the server's numbers in a dialog, or `None` where the kernel programs would not come to it: identifiers that
    /// are too long, or hold a byte at which the kernel's scan stops.
    pub fn new(hash_key: [u64; 2], call_id: &[u8], server_tag: &[u8]) -> Option<Self> {
        Self::of(hash_key, call_id, server_tag, Whose::Server)
    }

    /// That of one side's numbers; `tag` is its tag.
    pub fn of(hash_key: [u64; 2], call_id: &[u8], tag: &[u8], whose: Whose) -> Option<Self> {
        let stops = |byte: &u8| *byte <= b' ';
        if call_id.iter().any(stops) || tag.iter().any(|byte| stops(byte) || b";,>".contains(byte)) {
            return None;
        }
        if call_id.is_empty() || call_id.len() > MAX_CALL_ID || tag.is_empty() || tag.len() > MAX_TAG {
            return None;
        }
        let mut hash = Sip::new(hash_key);
        hash.padded(call_id);
        hash.padded(tag);
        Some(hash.finish(call_id.len(), whose.mark(tag.len())))
    }
}

/// SipHash-2-4-128 over whole words.
#[derive(Clone, Copy)]
pub struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
    words: u64,
}

impl Sip {
    /// A fresh state.
    #[inline(always)]
    pub const fn new(key: [u64; 2]) -> Self {
        Self {
            v0: key[0] ^ 0x736f_6d65_7073_6575,
            v1: key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: key[0] ^ 0x6c79_6765_6e65_7261,
            v3: key[1] ^ 0x7465_6462_7974_6573,
            words: 0,
        }
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }

    /// Takes in eight bytes, little-endian.
    #[inline(always)]
    pub fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.round();
        self.v0 ^= word;
        self.words += 1;
    }

    /// Takes in bytes, padded with zeros to whole words.
    pub fn padded(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut word = [0; 8];
            word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            self.word(u64::from_le_bytes(word));
        }
    }

    /// Takes in the lengths and closes.
    #[inline(always)]
    pub fn finish(mut self, call_id_len: usize, tag_len: usize) -> DialogKey {
        self.word(call_id_len as u64 | (tag_len as u64) << 32);
        let last = (self.words * 8) << 56;
        self.v3 ^= last;
        self.round();
        self.round();
        self.v0 ^= last;
        self.v2 ^= 0xee;
        self.round();
        self.round();
        self.round();
        self.round();
        let map = self.v0 ^ self.v1 ^ self.v2 ^ self.v3;
        self.v1 ^= 0xdd;
        self.round();
        self.round();
        self.round();
        self.round();
        DialogKey { map, check: self.v0 ^ self.v1 ^ self.v2 ^ self.v3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use siphasher::sip128::{Hasher128, SipHasher24};
    use std::{hash::Hasher, vec::Vec};

    proptest! {
        #[test]
        fn agrees_with_the_reference_over_the_padded_bytes(
            key: [u64; 2],
            call_id in proptest::collection::vec(b'!'..=255, 1..=MAX_CALL_ID),
            tag in proptest::collection::vec(b'?'..=255, 1..=MAX_TAG),
            peer: bool,
        ) {
            let mut bytes = Vec::new();
            for part in [&call_id, &tag] {
                bytes.extend_from_slice(part);
                bytes.resize(bytes.len().next_multiple_of(8), 0);
            }
            let lengths = call_id.len() as u64 | (tag.len() as u64) << 32 | u64::from(peer) << 63;
            bytes.extend_from_slice(&lengths.to_le_bytes());
            let mut reference = SipHasher24::new_with_keys(key[0], key[1]);
            reference.write(&bytes);
            let expected = reference.finish128();
            let found = DialogKey::of(key, &call_id, &tag, if peer { Whose::Peer } else { Whose::Server }).unwrap();
            prop_assert_eq!((found.map, found.check), (expected.h1, expected.h2));
        }
    }

    #[test]
    fn a_branch_has_a_key_of_its_own() {
        let of = |key, text: &[u8]| branch(key, text);
        assert_ne!(of([1, 2], b"z9hG4bK1"), of([1, 2], b"z9hG4bK2"));
        assert_ne!(of([1, 2], b"z9hG4bK1"), of([3, 2], b"z9hG4bK1"));
        assert_eq!((of([1, 2], b""), of([1, 2], &[b'a'; MAX_TAG + 1])), (None, None));
        assert!(of([1, 2], &[b'a'; MAX_TAG]).is_some());
    }

    #[test]
    fn refuses_what_the_kernel_does_not_hash() {
        assert!(DialogKey::new([1, 2], &[b'a'; MAX_CALL_ID], &[b't'; MAX_TAG]).is_some());
        assert_eq!(DialogKey::new([1, 2], &[b'a'; MAX_CALL_ID + 1], b"t"), None);
        assert_eq!(DialogKey::new([1, 2], b"c", &[b'a'; MAX_TAG + 1]), None);
        assert_eq!(DialogKey::new([1, 2], b"c", b""), None);
        assert_eq!(DialogKey::new([1, 2], b"c d", b"t"), None);
        assert_eq!(DialogKey::new([1, 2], b"c", b"t>"), None);
    }
}
