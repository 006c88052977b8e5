//! One file of the flight recorder, and those before it.

use std::{
    borrow::Cow,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};
use pcap_file::{
    DataLink, Endianness,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution},
            opt_common::CommonOption,
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

use crate::sighting::Sighting;

/// Names begin with this; a number follows that grows.
const PREFIX: &str = "flight-";
const SUFFIX: &str = ".pcapng";

/// How many interfaces a file describes; packets of further ones are described as of any.
const MAX_INTERFACES: usize = 64;

/// A file that is being written.
pub(super) struct Flight {
    writer: PcapNgWriter<BufWriter<File>>,
    written: u64,
    /// The index of each interface that the file describes, in its order. The first is for packets of which it is not known.
    interfaces: Vec<u32>,
}

impl Flight {
    /// Begins a new one, and takes the oldest away so that no more than `files` are there.
    pub(super) fn begin(dir: &Path, files: usize) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut there = flights(dir)?;
        let number = there.last().map_or(1, |(number, _)| number + 1);
        while there.len() >= files.max(1) {
            fs::remove_file(there.remove(0).1)?;
        }
        let path = dir.join(format!("{PREFIX}{number:08}{SUFFIX}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let application = concat!("sipst ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(application))],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(BufWriter::new(file), section).map_err(io::Error::other)?;
        let mut flight = Self { writer, written: 64, interfaces: Vec::new() };
        flight.describe(0, "any")?;
        Ok(flight)
    }

    /// Whether it is smaller than that.
    pub(super) fn has_room(&self, size: u64) -> bool {
        self.written < size
    }

    /// Writes a packet.
    pub(super) fn write(&mut self, sighting: &Sighting) -> io::Result<()> {
        let interface_id = match self.interfaces.iter().position(|index| *index == sighting.interface) {
            Some(at) => at,
            None if self.interfaces.len() < MAX_INTERFACES => {
                // Names change, and another namespace has others: the index is what the kernel programs saw.
                self.describe(sighting.interface, &format!("index {}", sighting.interface))?;
                self.interfaces.len() - 1
            }
            None => 0,
        };
        let data = packet(sighting);
        let block = EnhancedPacketBlock {
            interface_id: interface_id.try_into().unwrap_or_default(),
            timestamp: Duration::from_micros(sighting.time.as_micros()),
            original_len: data.len().try_into().unwrap_or(u32::MAX),
            data: Cow::Owned(data),
            options: vec![EnhancedPacketOption::Common(CommonOption::Comment(Cow::Owned(sighting.words())))],
        };
        self.block(|writer| writer.write_pcapng_block(block))
    }

    /// Has it all on the disk, as far as the system cares.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    fn describe(&mut self, index: u32, name: &str) -> io::Result<()> {
        let options = vec![
            InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())),
            InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
        ];
        // IP packets, with nothing before them.
        let block = InterfaceDescriptionBlock { linktype: DataLink::RAW, snaplen: 0, options };
        self.block(|writer| writer.write_pcapng_block(block))?;
        self.interfaces.push(index);
        Ok(())
    }

    fn block<E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        write: impl FnOnce(&mut PcapNgWriter<BufWriter<File>>) -> Result<usize, E>,
    ) -> io::Result<()> {
        let written = write(&mut self.writer).map_err(io::Error::other)?;
        self.written += written as u64;
        Ok(())
    }
}

/// The files that are there, the oldest first.
fn flights(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The IP packet with the message in it, as it was but for what nobody has kept: identification and checksums are made anew.
pub(super) fn packet(sighting: &Sighting) -> Vec<u8> {
    let &Sighting { from, to, tos, ttl, ref bytes, .. } = sighting;
    let ttl = if ttl == 0 { 64 } else { ttl };
    let length = u16::try_from(UdpHeader::LEN + bytes.len()).unwrap_or(u16::MAX);
    let mut packet = Vec::with_capacity(bytes.len() + 48);
    let udp = UdpHeader { source_port: from.port(), destination_port: to.port(), length, checksum: 0 };
    let udp = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = Ipv4Header { time_to_live: ttl, protocol: IpNumber::UDP, ..Ipv4Header::default() };
            (ip.source, ip.destination) = (from.octets(), to.octets());
            ip.total_len = length.saturating_add(Ipv4Header::MIN_LEN as u16);
            (ip.dscp, ip.ecn) = ((tos >> 2).try_into().unwrap_or_default(), (tos & 3).try_into().unwrap_or_default());
            ip.header_checksum = ip.calc_header_checksum();
            packet.extend_from_slice(&ip.to_bytes());
            udp.calc_checksum_ipv4(&ip, bytes).map(|checksum| UdpHeader { checksum, ..udp.clone() })
        }
        (from, to) => {
            let ip = Ipv6Header {
                traffic_class: tos,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: length,
                next_header: IpNumber::UDP,
                hop_limit: ttl,
                source: st_ebpf::abi::mapped(from),
                destination: st_ebpf::abi::mapped(to),
            };
            packet.extend_from_slice(&ip.to_bytes());
            udp.calc_checksum_ipv6(&ip, bytes).map(|checksum| UdpHeader { checksum, ..udp.clone() })
        }
    };
    // What is too long for a datagram is none that was ever seen.
    packet.extend_from_slice(&udp.map_or([0; UdpHeader::LEN], |udp| udp.to_bytes()));
    packet.extend_from_slice(bytes);
    packet
}
