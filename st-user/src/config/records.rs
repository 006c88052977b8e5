//! What is kept and shown of what sipst does to packets.

use std::{
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    path::Path,
};

use super::{
    fields::{Fields, Given, number, parsed, text},
    problem::Problem,
    trunks::password,
};
use crate::{hep, recorder::Limits};

/// Of one file, in bytes: a hundred packets at the least.
const SIZES: RangeInclusive<u64> = (1 << 20)..=(16 << 30);
const FILES: RangeInclusive<usize> = 2..=1_000;

/// Where nothing else is said.
const LIMITS: Limits = Limits { size: 64 << 20, files: 4 };

/// What this host is called at Homer, where nothing else is said.
const CAPTURE_ID: u32 = 2001;

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

pub(super) fn hep(given: Given<'_>, dir: &Path, problems: &mut Vec<Problem>) -> Option<hep::Target> {
    let mut fields = Fields::open(given, problems)?;
    let to = fields.need("to", "add where Homer listens, such as `udp://homer.example:9060`", |given, problems| {
        parsed("an address of Homer's", "udp://HOST:PORT", target)(given, problems)
    });
    let capture_id = fields.get("capture_id", number(0..=u32::MAX, "a number of 32 bits", "a number such as 2001"));
    let password = fields.get("password_file", |given, problems| {
        let path = dir.join(text(given, problems)?);
        password(&path).map_err(|(what, cure)| given.wrong(what, cure, problems)).ok()
    });
    let sound = fields.sound("capture_id") && fields.sound("password_file");
    fields.close();
    let (host, port) = to?;
    sound.then(|| hep::Target { host, port, capture_id: capture_id.unwrap_or(CAPTURE_ID), password })
}

/// Host and port of `udp://HOST:PORT`; an IPv6 address stands in brackets.
fn target(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.strip_prefix("udp://")?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return Some((address.parse::<Ipv6Addr>().ok()?.to_string(), port));
    }
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let name = !host.is_empty() && host.bytes().all(word);
    (name || host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4())).then(|| (host.to_owned(), port))
}
