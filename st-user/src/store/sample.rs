//! How records stand in the file: as what they differ in from a sample of them, for the calls of a trunk differ in few bytes.

use lz4_flex::block::{compress_into_with_dict, compress_with_dict, decompress_with_dict, get_maximum_output_size};
use st_core::engine::record::Change;

/// How long a sample is at most, in bytes: the more there is of it, the longer it takes to write a record.
const MAX_SAMPLE: usize = 4_096;

/// The longest record that is read, in bytes: a longer one is none of sipst's.
const MAX_RECORD: usize = 1 << 24;

/// Length of what stands in front of LZ4's bytes: how long they are unpacked.
const HEAD: usize = 4;

/// Records of other sessions.
#[derive(Debug, Default)]
pub(super) struct Sample(pub(super) Vec<u8>);

impl Sample {
    /// From the first ones that are written, as many as there is room for. Never empty where there is any.
    pub(super) fn of(changes: &[Change]) -> Self {
        let mut sample = Vec::new();
        // Calls that come one after the other are often alike.
        let step = (changes.len() / 16).max(1);
        for record in changes.iter().rev().filter_map(|change| change.record.as_ref()).step_by(step) {
            if sample.is_empty() || sample.len() + record.len() <= MAX_SAMPLE {
                sample.extend_from_slice(&record[..record.len().min(MAX_SAMPLE)]);
            }
        }
        Self(sample)
    }

    /// Writes a record into `room`, which grows where it has to: what is to be kept of it.
    pub(super) fn pack<'r>(&self, record: &[u8], room: &'r mut Vec<u8>) -> &'r [u8] {
        let most = HEAD + get_maximum_output_size(record.len());
        room.resize(room.len().max(most), 0);
        room[..HEAD].copy_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
        match compress_into_with_dict(record, &mut room[HEAD..], &self.0) {
            Ok(length) => &room[..HEAD + length],
            // There is room for whatever it becomes.
            Err(_) => {
                room.truncate(HEAD);
                room.extend(compress_with_dict(record, &self.0));
                room
            }
        }
    }

    /// `None`: it is not as it was written.
    pub(super) fn unpack(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (head, packed) = bytes.split_first_chunk::<HEAD>()?;
        let length = usize::try_from(u32::from_le_bytes(*head)).ok().filter(|length| *length <= MAX_RECORD)?;
        decompress_with_dict(packed, length, &self.0).ok().filter(|record| record.len() == length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u32) -> Vec<u8> {
        let sdp =
            "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8 0\r\n";
        format!("{sdp}{}", number.wrapping_mul(2_654_435_761)).into_bytes()
    }

    fn pack(sample: &Sample, record: &[u8]) -> Vec<u8> {
        sample.pack(record, &mut vec![7; 3]).to_vec()
    }

    #[test]
    fn a_record_is_written_as_what_it_differs_in_from_a_sample_of_bounded_length() {
        let change = |number: u32| Change { key: number.into(), record: Some(record(number)) };
        let changes: Vec<_> = (1..10_000).map(change).collect();
        let sample = Sample::of(&changes);
        assert!(sample.0.len() > record(1).len() && sample.0.len() <= MAX_SAMPLE);
        let packed = pack(&sample, &record(7));
        assert!(packed.len() < record(7).len() / 3);
        assert_eq!(sample.unpack(&packed), Some(record(7)));
        let long = Change { key: 1, record: Some(vec![7; 2 * MAX_SAMPLE]) };
        assert_eq!(Sample::of(&[Change { key: 2, record: None }, long]).0.len(), MAX_SAMPLE);
        assert_eq!(Sample::default().unpack(&pack(&Sample::default(), b"")), Some(Vec::new()));
    }

    #[test]
    fn what_was_not_written_so_is_no_record() {
        let sample = Sample(record(1));
        let packed = pack(&sample, &record(2));
        for bytes in [&b""[..], b"abc", b"\xff\xff\xff\xff", &packed[..packed.len() - 1], &[5, 0, 0, 0, 0x10]] {
            assert_eq!(sample.unpack(bytes), None);
        }
        assert_ne!(Sample::default().unpack(&packed), Some(record(2)));
    }
}
