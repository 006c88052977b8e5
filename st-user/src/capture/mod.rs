//! Captures: files of packets, and the UDP datagrams and TCP segments in them.

mod decode;
mod file;
mod streams;

use std::{borrow::Cow, io, net::SocketAddr};

use st_core::{Time, Transport, stream::Tcp};

pub use decode::Decoder;
pub use file::read;
pub use streams::Joiner;

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Ethernet, VLAN tags included.
    Ethernet,
    /// An address family in four bytes (BSD loopback).
    Loopback,
    /// IPv4 or IPv6 at once.
    Raw,
    /// Linux "cooked", first version.
    Sll,
    /// Linux "cooked", second version.
    Sll2,
    /// Something else: its LINKTYPE number.
    Unknown(u16),
}

/// One packet of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When it was seen.
    pub time: Time,
    /// What it begins with.
    pub link: Link,
    /// The bytes, as far as they were kept.
    pub bytes: &'a [u8],
}

/// One UDP datagram, or one message of a TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Which of the two.
    pub transport: Transport,
    /// From here.
    pub source: SocketAddr,
    /// To here.
    pub destination: SocketAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// What it carries.
    pub payload: Cow<'a, [u8]>,
    /// Whether the capture kept only the beginning.
    pub cut: bool,
}

/// One TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// From here.
    pub source: SocketAddr,
    /// To here.
    pub destination: SocketAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// What its header says.
    pub tcp: Tcp,
    /// What it carries, as far as the capture kept it.
    pub payload: &'a [u8],
}

/// What a frame turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// UDP, put together from its fragments if need be.
    Udp(Datagram<'a>),
    /// A TCP segment.
    Tcp(Segment<'a>),
    /// A fragment that waits for others, or cannot be used.
    Fragment,
    /// Nothing that carries SIP.
    Other,
    /// A link type that is not understood.
    UnknownLink,
}

/// Why a capture cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No such file, no permission, a directory.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// Not one byte.
    #[error("the file is empty: is the capture still being written, or did its disk fill up?")]
    Empty,
    /// Something else altogether.
    #[error("neither pcap nor pcapng: write it with `tcpdump -w FILE` or dumpcap")]
    NotACapture,
    /// A record without its end.
    #[error(
        "the file ends in the middle of a record, after {packets} packets: it was cut off; what is before was read"
    )]
    Truncated {
        /// Whole packets before.
        packets: u64,
    },
    /// A record that makes no sense.
    #[error("damaged after {packets} packets ({detail}): what is before was read")]
    Damaged {
        /// Whole packets before.
        packets: u64,
        /// What makes no sense.
        detail: &'static str,
    },
}
