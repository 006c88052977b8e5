//! The bytes of a session that nobody needs just now, on disk as in memory: what it differs in from a template, by LZ4. Whoever
//! writes records to a disk does that part of the work.

use std::sync::Arc;

use lz4_flex::block::{compress_into_with_dict, decompress_into_with_dict, get_maximum_output_size};

use super::{limits::MAX_PACKED, record::sum_up};

/// In place of a template's number: what follows stands as it is.
const NONE: u16 = u16::MAX;

/// Length of a body's head: the template's number, and how long it is unpacked.
const HEAD: usize = 4;

/// A record on its way to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// All but its body.
    pub(super) front: Vec<u8>,
    pub(super) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Nothing.
    None,
    /// As it is packed.
    Packed(Vec<u8>),
    /// To be packed, by the template of this number.
    Plain { number: u16, template: Arc<[u8]>, plain: Vec<u8> },
}

impl Record {
    /// What is to be written: packs what is not packed.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    /// The same, in place of what stands in `to`.
    pub fn write(&self, to: &mut Vec<u8>) {
        to.clear();
        to.extend_from_slice(&self.front);
        match &self.body {
            Body::None => {}
            Body::Packed(body) => to.extend_from_slice(body),
            Body::Plain { number, template, plain } => {
                if !pack(*number, template, plain, to) {
                    to.extend(NONE.to_le_bytes());
                    to.extend([0; 2]);
                    to.extend_from_slice(plain);
                }
            }
        }
        sum_up(to);
    }

    /// How much memory it takes, in bytes.
    pub fn size(&self) -> usize {
        let body = match &self.body {
            Body::None => 0,
            Body::Packed(bytes) | Body::Plain { plain: bytes, .. } => bytes.len(),
        };
        self.front.len() + body
    }
}

/// Packs by a template, behind what stands in `to`; false where it is too long: nothing is changed.
pub(super) fn pack(number: u16, template: &[u8], plain: &[u8], to: &mut Vec<u8>) -> bool {
    let Some(length) = u16::try_from(plain.len()).ok().filter(|length| usize::from(*length) <= MAX_PACKED) else {
        return false;
    };
    let begin = to.len();
    to.extend(number.to_le_bytes());
    to.extend(length.to_le_bytes());
    to.resize(begin + HEAD + get_maximum_output_size(plain.len()), 0);
    match compress_into_with_dict(plain, &mut to[begin + HEAD..], template) {
        Ok(packed) => to.truncate(begin + HEAD + packed),
        Err(_) => to.truncate(begin),
    }
    to.len() > begin
}

/// By which template a body is packed; `None` where by none.
pub(super) fn template_of(body: &[u8]) -> Option<u16> {
    body.first_chunk().map(|number| u16::from_le_bytes(*number)).filter(|number| *number != NONE)
}

/// What was packed. `template` is only asked for where it is needed.
pub(super) fn unpack<'t>(body: &[u8], template: impl FnOnce(u16) -> Option<&'t [u8]>) -> Option<Vec<u8>> {
    let (&[a, b, c, d], packed) = body.split_first_chunk::<HEAD>()?;
    let (number, length) = (u16::from_le_bytes([a, b]), usize::from(u16::from_le_bytes([c, d])));
    if number == NONE {
        return Some(packed.to_vec());
    }
    let mut plain = vec![0; length];
    let unpacked = decompress_into_with_dict(packed, &mut plain, template(number)?).ok()?;
    (unpacked == length).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::SUM;

    #[test]
    fn what_is_packed_is_unpacked_as_it_was_and_what_is_too_long_stands_as_it_is() {
        let template: Arc<[u8]> = (0..500_u32).map(|number| (number * number % 251) as u8).collect();
        for length in [0, 1, 500, MAX_PACKED, MAX_PACKED + 1, 100_000] {
            let plain: Vec<u8> = template.iter().copied().cycle().skip(1).take(length).collect();
            let body = Body::Plain { number: 7, template: Arc::clone(&template), plain: plain.clone() };
            let bytes = Record { front: vec![1, 2], body }.bytes();
            let body = &bytes[2..bytes.len() - SUM];
            assert_eq!(template_of(body), Some(7).filter(|_| length <= MAX_PACKED));
            assert_eq!(unpack(body, |_| Some(&template)).as_ref(), Some(&plain), "{length}");
            assert_eq!(unpack(body, |_| None), None.or(Some(plain).filter(|_| length > MAX_PACKED)));
        }
    }

    #[test]
    fn what_is_no_body_is_not_unpacked() {
        for bytes in [&b""[..], b"abc", &[1, 0, 9, 0], &[1, 0, 0, 1, 0xff, 0xff, 0xff]] {
            assert_eq!(unpack(bytes, |_| Some(b"template")), None);
        }
    }
}
