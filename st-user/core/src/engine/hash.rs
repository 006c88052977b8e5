//! How the engine's tables are keyed: what comes from the wire under a secret, so that nobody can make it meet in one place;
//! what the engine counts itself without.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hash128, Hasher128 as _, SipHasher13};
use st_ebpf::key::Sip;

use crate::{Names, Side};

/// A table whose keys nobody outside can choose: numbers that the engine gives, and [`Fingerprint`]s.
pub(super) type Table<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Plain>>;

/// The key of the hash.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Secret([u64; 2]);

impl Secret {
    /// From the engine's seed, but nothing that is drawn from that seed tells of it.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(!seed);
        Self([rng.random(), rng.random()])
    }

    /// What stands for the numbers of one side: forks of one INVITE of its have the same ones.
    pub(super) fn entry(self, names: &Names, side: Side) -> Fingerprint {
        self.entry_of(side, names.call_id(), names.tag(side))
    }

    /// The same by Call-ID and that side's tag.
    pub(super) fn entry_of(self, side: Side, call_id: &[u8], tag: &[u8]) -> Fingerprint {
        let mark: &[u8] = if side == Side::Server { b"s" } else { b"p" };
        self.key([call_id, tag, mark])
    }

    /// As [`Secret::fingerprint`], for tables: nobody sees what is in them, so that SipHash-1-3 is enough, which takes half as long. It
    /// stands in records too: another function wants another version of them.
    pub(super) fn key<const N: usize>(self, identifiers: [&[u8]; N]) -> Fingerprint {
        const { assert!(N <= 3) };
        let mut hash = SipHasher13::new_with_keys(self.0[0], self.0[1]);
        let mut lengths = 0;
        for identifier in identifiers {
            hash.write(identifier);
            // A message has no more than 65,535 bytes.
            lengths = lengths << 16 | identifier.len() as u64;
        }
        hash.write_u64(lengths);
        let Hash128 { h1, h2 } = hash.finish128();
        Fingerprint(h1, h2)
    }

    /// What stands for these identifiers of a message, three at most, in this order: 128 bits of SipHash-2-4 over them and
    /// their lengths. It may stand in records.
    pub(super) fn fingerprint<const N: usize>(self, identifiers: [&[u8]; N]) -> Fingerprint {
        const { assert!(N <= 3) };
        let mut hash = Sip::new(self.0);
        let mut lengths = [0; 3];
        for (length, identifier) in lengths.iter_mut().zip(identifiers) {
            *length = identifier.len();
            padded(&mut hash, identifier);
        }
        // A message has no more than 65,535 bytes.
        let key = hash.finish(lengths[0] | lengths[1] << 16, lengths[2]);
        Fingerprint(key.map, key.check)
    }
}

/// As [`Sip::padded`]; an identifier's last word is taken from its last eight bytes at once.
#[inline]
fn padded(hash: &mut Sip, bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| hash.word(u64::from_le_bytes(*word)));
    match bytes.last_chunk::<8>() {
        _ if rest.is_empty() => {}
        Some(last) => hash.word(u64::from_le_bytes(*last) >> (64 - 8 * rest.len())),
        None => hash.padded(rest),
    }
}

/// Stands for identifiers of whatever length; two that differ have the same one by a chance of 2^-128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint(u64, u64);

impl Fingerprint {
    /// For a table that nobody outside can fill in one place.
    pub(super) const fn place(&self) -> u64 {
        self.0
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl BuildHasher for Secret {
    type Hasher = Keyed;

    fn build_hasher(&self) -> Keyed {
        Keyed(Sip::new(self.0))
    }
}

/// For keys from the wire.
pub(super) struct Keyed(Sip);

impl Hasher for Keyed {
    fn write(&mut self, bytes: &[u8]) {
        self.0.padded(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0.word(number);
    }

    fn finish(&self) -> u64 {
        self.0.finish(0, 0).map
    }
}

/// For keys that are as good as random, or consecutive.
#[derive(Clone, Copy, Default)]
pub(super) struct Plain(u64);

impl Hasher for Plain {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // An odd factor loses nothing and reaches the upper bits; the golden ratio's spreads neighbours.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_padded_with_zeros_whatever_their_length() {
        let bytes: Vec<u8> = (1..=40).collect();
        for length in 0..=bytes.len() {
            let [mut ours, mut plain] = [Sip::new([1, 2]); 2];
            padded(&mut ours, &bytes[..length]);
            plain.padded(&bytes[..length]);
            assert_eq!(ours.finish(0, 0), plain.finish(0, 0), "{length}");
        }
    }

    #[test]
    fn a_fingerprint_depends_on_the_secret_and_on_where_one_identifier_ends() {
        for of in [Secret::fingerprint::<3>, Secret::key::<3>] {
            let found = of(Secret::new(1), [b"call", b"a", b"b"]);
            assert_eq!(found, of(Secret::new(1), [b"call", b"a", b"b"]));
            assert_ne!(found, of(Secret::new(2), [b"call", b"a", b"b"]));
            for other in
                [[&b"cal"[..], b"la", b"b"], [b"call", b"b", b"a"], [b"call", b"a\0", b"b"], [b"call", b"ab", b""]]
            {
                assert_ne!(found, of(Secret::new(1), other));
            }
        }
    }
}
