//! pcap and pcapng, read as a stream.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use pcap_parser::{
    Block, LegacyPcapReader, Linktype, PcapBlockOwned, PcapError, PcapHeader, PcapNGReader,
    traits::{PcapNGPacketBlock as _, PcapReaderIterator},
};
use st_core::Time;

use super::{CaptureError, Frame, Link};

/// The longest record, in bytes: four times the longest that libpcap writes.
const MAX_RECORD: usize = 1 << 20;
/// How many interfaces a section of a pcapng file may have.
const MAX_INTERFACES: usize = 4096;
/// Microseconds.
const PER_SECOND: u128 = 1_000_000;

/// What the packets of a source have in common.
#[derive(Clone, Copy)]
struct Source {
    link: Link,
    /// Time stamps count this many in a second.
    per_second: u128,
    /// Seconds to add.
    offset: i64,
}

/// Hands every packet of the file to `each`, in the order of the file.
///
/// # Errors
/// The file's, after all whole packets before were handed over; or what `each` says.
pub fn read<E: From<CaptureError>>(path: &Path, mut each: impl FnMut(&Frame<'_>) -> Result<(), E>) -> Result<(), E> {
    let mut reader = open(path)?;
    let mut sources: Vec<Source> = Vec::new();
    let mut packets = 0;
    let mut last = Time::from_micros(0);
    loop {
        let consumed = match reader.next() {
            Ok((length, block)) => {
                let damaged = |detail| CaptureError::Damaged { packets, detail };
                if let Some(frame) = frame(&block, &mut sources, last).map_err(damaged)? {
                    last = frame.time;
                    packets += 1;
                    each(&frame)?;
                }
                length
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => 0,
            Err(PcapError::UnexpectedEof) => Err(CaptureError::Truncated { packets })?,
            Err(PcapError::BufferTooSmall) => Err(CaptureError::Damaged { packets, detail: "a record over 1 MiB" })?,
            Err(PcapError::ReadError) => Err(CaptureError::Io(io::Error::other("the disk has failed")))?,
            Err(PcapError::HeaderNotRecognized | PcapError::NomError(..) | PcapError::OwnedNomError(..)) => {
                Err(CaptureError::Damaged { packets, detail: "no record begins where one should" })?
            }
        };
        if consumed > 0 {
            reader.consume(consumed);
            continue;
        }
        let before = reader.data().len();
        if reader.refill().is_err() {
            Err(CaptureError::Io(io::Error::other("the disk has failed")))?;
        }
        if reader.data().len() == before && !reader.reader_exhausted() {
            Err(CaptureError::Damaged { packets, detail: "a record over 1 MiB" })?;
        }
    }
}

fn open(path: &Path) -> Result<Box<dyn PcapReaderIterator>, CaptureError> {
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    file.by_ref().take(4).read_to_end(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    let header = |error| match error {
        PcapError::Incomplete(_) | PcapError::Eof | PcapError::UnexpectedEof => CaptureError::Truncated { packets: 0 },
        PcapError::ReadError => CaptureError::Io(io::Error::other("the disk has failed")),
        PcapError::BufferTooSmall
        | PcapError::HeaderNotRecognized
        | PcapError::NomError(..)
        | PcapError::OwnedNomError(..) => CaptureError::Damaged { packets: 0, detail: "its header makes no sense" },
    };
    match start.as_slice() {
        [] => Err(CaptureError::Empty),
        [0x0a, 0x0d, 0x0d, 0x0a] => Ok(Box::new(PcapNGReader::new(MAX_RECORD, file).map_err(header)?)),
        [0xd4, 0xc3, 0xb2, 0xa1]
        | [0xa1, 0xb2, 0xc3, 0xd4]
        | [0x4d, 0x3c, 0xb2, 0xa1]
        | [0xa1, 0xb2, 0x3c, 0x4d]
        | [0x34, 0xcd, 0xb2, 0xa1] => Ok(Box::new(LegacyPcapReader::new(MAX_RECORD, file).map_err(header)?)),
        _ => Err(CaptureError::NotACapture),
    }
}

/// The packet in a block, if there is one. `last`: the time of the packet before.
fn frame<'a>(
    block: &'a PcapBlockOwned<'a>,
    sources: &mut Vec<Source>,
    last: Time,
) -> Result<Option<Frame<'a>>, &'static str> {
    const NO_SOURCE: &str = "a packet of an interface that is not described";
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            sources.push(legacy_source(header));
            Ok(None)
        }
        PcapBlockOwned::Legacy(packet) => {
            let source = sources.first().ok_or(NO_SOURCE)?;
            let fraction = u128::from(packet.ts_usec) * PER_SECOND / source.per_second;
            let time = micros(u128::from(packet.ts_sec) * PER_SECOND + fraction, source.offset);
            Ok(Some(Frame { time, link: source.link, bytes: packet.data }))
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            sources.clear();
            Ok(None)
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            if sources.len() == MAX_INTERFACES {
                return Err("too many interfaces");
            }
            let per_second = resolution(interface.if_tsresol).ok_or("an interface with an impossible clock")?;
            sources.push(Source { link: link(interface.linktype), per_second, offset: interface.if_tsoffset });
            Ok(None)
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let source = usize::try_from(packet.if_id).ok().and_then(|index| sources.get(index)).ok_or(NO_SOURCE)?;
            let stamp = u128::from(packet.ts_high) << 32 | u128::from(packet.ts_low);
            let time = micros(stamp * PER_SECOND / source.per_second, source.offset);
            Ok(Some(Frame { time, link: source.link, bytes: packet.packet_data() }))
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let source = sources.first().ok_or(NO_SOURCE)?;
            // It has no time of its own.
            Ok(Some(Frame { time: last, link: source.link, bytes: packet.packet_data() }))
        }
        PcapBlockOwned::NG(
            Block::NameResolution(_)
            | Block::InterfaceStatistics(_)
            | Block::SystemdJournalExport(_)
            | Block::DecryptionSecrets(_)
            | Block::ProcessInformation(_)
            | Block::Custom(_)
            | Block::Unknown(_),
        ) => Ok(None),
    }
}

fn legacy_source(header: &PcapHeader) -> Source {
    let per_second = if header.is_nanosecond_precision() { 1_000_000_000 } else { PER_SECOND };
    Source { link: link(header.network), per_second, offset: header.thiszone.into() }
}

/// `if_tsresol`: a negative power of ten or, with the highest bit, of two.
fn resolution(if_tsresol: u8) -> Option<u128> {
    let exponent = u32::from(if_tsresol & 0x7f);
    let base: u128 = if if_tsresol & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(exponent)
}

fn micros(micros: u128, offset: i64) -> Time {
    let micros = i128::try_from(micros).unwrap_or(i128::MAX).saturating_add(i128::from(offset) * 1_000_000);
    Time::from_micros(u64::try_from(micros.max(0)).unwrap_or(u64::MAX))
}

/// LINKTYPE numbers as tcpdump.org lists them; the upper bits of the field say other things.
fn link(linktype: Linktype) -> Link {
    match linktype.0 & 0xffff {
        1 => Link::Ethernet,
        0 | 108 => Link::Loopback,
        12 | 14 | 101 | 228 | 229 => Link::Raw,
        113 => Link::Sll,
        276 => Link::Sll2,
        other => Link::Unknown(u16::try_from(other).unwrap_or(u16::MAX)),
    }
}
