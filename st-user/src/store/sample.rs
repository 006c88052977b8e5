//! How records stood in the files of versions before: as they are, or as what they differ in from a sample of them.

use lz4_flex::block::decompress_with_dict;

/// The longest record that is read, in bytes: a longer one is none of sipst's.
const MAX_RECORD: usize = 1 << 24;

/// Length of what stands in front of LZ4's bytes: how long they are unpacked.
const HEAD: usize = 4;

/// What they differ in from.
#[derive(Debug)]
pub(super) enum Sample {
    /// They stand as they are.
    None,
    /// Records of other sessions.
    Of(Vec<u8>),
}

impl Sample {
    /// `None`: it is not as it was written.
    pub(super) fn unpack(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let Self::Of(sample) = self else { return Some(bytes.to_vec()) };
        let (head, packed) = bytes.split_first_chunk::<HEAD>()?;
        let length = usize::try_from(u32::from_le_bytes(*head)).ok().filter(|length| *length <= MAX_RECORD)?;
        decompress_with_dict(packed, length, sample).ok().filter(|record| record.len() == length)
    }

    #[cfg(test)]
    pub(super) fn pack(&self, record: &[u8]) -> Vec<u8> {
        let Self::Of(sample) = self else { return record.to_vec() };
        let mut bytes = u32::try_from(record.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend(lz4_flex::block::compress_with_dict(record, sample));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_so_is_no_record() {
        let sample = Sample::Of(b"v=0 o=- 1 1 IN IP4 192.0.2.10 s=- c=IN IP4 192.0.2.10 t=0 0 m=audio 4000".to_vec());
        let record = b"v=0 o=- 2 2 IN IP4 192.0.2.10 s=- c=IN IP4 192.0.2.10 t=0 0 m=audio 4444";
        let packed = sample.pack(record);
        assert!(packed.len() < record.len() && sample.unpack(&packed).is_some_and(|found| found == record));
        for bytes in [&b""[..], b"abc", b"\xff\xff\xff\xff", &packed[..packed.len() - 1], &[5, 0, 0, 0, 0x10]] {
            assert_eq!(sample.unpack(bytes), None);
        }
        assert_eq!(Sample::None.unpack(&packed), Some(packed));
    }
}
