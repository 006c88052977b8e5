//! A tap on an interface: every frame both ways, its checksums verified, kept for a capture file.

use std::{
    io::{self, Read as _},
    mem::size_of,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::Host;

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When the kernel saw it.
    pub at: SystemTime,
    /// From its Ethernet header on.
    pub bytes: Vec<u8>,
}

/// A UDP datagram in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// Contents.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The datagram in it; `None` where there is none, an error where a length or a checksum is wrong.
    pub fn datagram(&self) -> Result<Option<Datagram>> {
        let headers = PacketHeaders::from_ethernet_slice(&self.bytes).context("headers")?;
        let Some(TransportHeader::Udp(udp)) = headers.transport else { return Ok(None) };
        let payload = headers.payload.slice();
        let (source, destination, sum): (IpAddr, IpAddr, u16) = match &headers.net {
            Some(NetHeaders::Ipv4(ip, _)) => {
                let right = ip.calc_header_checksum();
                anyhow::ensure!(ip.header_checksum == right, "IP checksum {:04x}, not {right:04x}", ip.header_checksum);
                let sum = udp.calc_checksum_ipv4_raw(ip.source, ip.destination, payload)?;
                (ip.source.into(), ip.destination.into(), sum)
            }
            Some(NetHeaders::Ipv6(ip, _)) => {
                let sum = udp.calc_checksum_ipv6_raw(ip.source, ip.destination, payload)?;
                (ip.source.into(), ip.destination.into(), sum)
            }
            _ => return Ok(None),
        };
        anyhow::ensure!(udp.checksum == sum, "UDP checksum {:04x}, not {sum:04x}", udp.checksum);
        anyhow::ensure!(usize::from(udp.length) == 8 + payload.len(), "UDP length {}", udp.length);
        let from = SocketAddr::new(source, udp.source_port);
        let to = SocketAddr::new(destination, udp.destination_port);
        Ok(Some(Datagram { from, to, payload: payload.to_vec() }))
    }
}

/// A running tap.
pub struct Tap {
    frames: Arc<Mutex<Vec<Frame>>>,
    /// How often the thread found nothing more to read.
    dry: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Taps an interface of a host.
    pub fn start(host: &Host, interface: &str) -> Result<Self> {
        let name = interface.to_owned();
        let mut socket = host.enter(move || open(&name)).with_context(|| format!("cannot tap {interface}"))?;
        let (frames, stop) = (Arc::<Mutex<Vec<Frame>>>::default(), Arc::<AtomicBool>::default());
        let dry = Arc::<AtomicU64>::default();
        let (keep, stopped, is_dry) = (Arc::clone(&frames), Arc::clone(&stop), Arc::clone(&dry));
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            // Once told to stop, it still reads what is there.
            loop {
                match socket.read(&mut buffer) {
                    Ok(len) => {
                        let frame = Frame { at: last_seen(&socket), bytes: buffer[..len].to_vec() };
                        keep.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && !stopped.load(Ordering::Relaxed) => {
                        is_dry.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => break,
                }
            }
        });
        Ok(Self { frames, dry, stop, thread: Some(thread) })
    }

    /// All frames so far. What an end has heard was on the wire before, but the thread may not have read it yet: it is given the
    /// time to, a second at most where frames come without a pause.
    pub fn frames(&self) -> Vec<Frame> {
        let (before, until) = (self.dry.load(Ordering::Relaxed), Instant::now() + Duration::from_secs(1));
        let reads = || self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        while self.dry.load(Ordering::Relaxed) == before && reads() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every UDP datagram so far; an error where any frame has a wrong length or checksum.
    pub fn datagrams(&self) -> Result<Vec<Datagram>> {
        let mut datagrams = Vec::new();
        for (number, frame) in self.frames().iter().enumerate() {
            datagrams.extend(frame.datagram().with_context(|| format!("frame {number}"))?);
        }
        Ok(datagrams)
    }

    /// Waits until there are so many UDP datagrams.
    pub fn wait(&self, count: usize, within: Duration) -> Result<Vec<Datagram>> {
        let until = Instant::now() + within;
        loop {
            let datagrams = self.datagrams()?;
            if datagrams.len() >= count {
                return Ok(datagrams);
            }
            anyhow::ensure!(Instant::now() < until, "{} datagrams, not {count}, within {within:?}", datagrams.len());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops, and returns all frames as a capture file (pcap, microseconds, Ethernet).
    pub fn capture(mut self) -> Vec<u8> {
        self.end();
        pcap(&self.frames())
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.end();
    }
}

/// Frames as a capture file (pcap, microseconds, Ethernet).
fn pcap(frames: &[Frame]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_ne_bytes());
    }
    for frame in frames {
        let at = frame.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let len = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
        for word in [seconds, at.subsec_micros(), len, len] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(&frame.bytes);
    }
    file
}

/// When the kernel saw the packet that was last read from a socket; now, where it does not tell.
fn last_seen(socket: &Socket) -> SystemTime {
    /// `SIOCGSTAMPNS` of linux/sockios.h.
    const GET_STAMP: libc::Ioctl = 0x8907;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the descriptor is open, and the kernel writes one timespec.
    let failed = unsafe { libc::ioctl(socket.as_raw_fd(), GET_STAMP, &raw mut time) } != 0;
    match (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec)) {
        (Ok(seconds), Ok(nanos)) if !failed => UNIX_EPOCH + Duration::new(seconds, nanos),
        _ => SystemTime::now(),
    }
}

fn open(interface: &str) -> Result<Socket> {
    let protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
    let index: i32 = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?.trim().parse()?;
    // Protocol 0 at first: nothing is received before the socket is bound to its interface.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    // SAFETY: `sockaddr_ll` fits into `sockaddr_storage`, is valid for writes there, and its length is set.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
            (*address).sll_protocol = protocol;
            (*address).sll_ifindex = index;
            *len = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
            Ok(())
        })
    }?;
    socket.set_recv_buffer_size(4 << 20)?;
    // Asked once, the kernel keeps the time of every packet from then on.
    last_seen(&socket);
    socket.bind(&address)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(socket)
}
