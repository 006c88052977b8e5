//! What is kept and shown of what sipst does to packets.

use std::ops::RangeInclusive;

use super::{
    fields::{Fields, Given, number, parsed},
    problem::Problem,
};
use crate::recorder::Limits;

/// Of one file, in bytes: a hundred packets at the least.
const SIZES: RangeInclusive<u64> = (1 << 20)..=(16 << 30);
const FILES: RangeInclusive<usize> = 2..=1_000;

/// Where nothing else is said.
const LIMITS: Limits = Limits { size: 64 << 20, files: 4 };

pub(super) fn recorder(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Limits> {
    let mut fields = Fields::open(given, problems)?;
    let size = fields.get("size", parsed("a size from 1MiB to 16GiB", "a number and its unit, such as 64MiB", size));
    let files = fields.get("files", number(FILES, "a number of files", "a number from 2 to 1000"));
    let sound = fields.sound("size") && fields.sound("files");
    fields.close();
    sound.then(|| Limits { size: size.unwrap_or(LIMITS.size), files: files.unwrap_or(LIMITS.files) })
}

fn size(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let (number, shift) = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))?;
    let number = number.trim_end().parse::<u64>().ok()?;
    number.checked_mul(1 << shift).filter(|size| SIZES.contains(size))
}
