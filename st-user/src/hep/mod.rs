//! Export to Homer by HEP: the SIP that sipst itself has sent, and events as JSON with the Call-ID as what they belong to. UDP from a
//! thread of its own: what cannot leave at once is lost and counted.

mod encode;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};
use st_core::{Event, Time};

use crate::{
    alert::SinkCounts,
    sighting::{Deed, Sighting},
};
use encode::{Kind, Report};

/// How many packets and events wait; past that the newest are dropped and counted.
const QUEUE: usize = 4_096;

/// How long the address of a name is good for, and how long after a failure it is looked up anew.
const LOOK_UP: Duration = Duration::from_secs(60);

/// Where to, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// The host's name or address.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
    /// What this host is called there.
    pub capture_id: u32,
    /// What Homer asks for, if it does.
    pub password: Option<SecretString>,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        let secret = |target: &Self| target.password.as_ref().map(|password| password.expose_secret().to_owned());
        (&self.host, self.port, self.capture_id) == (&other.host, other.port, other.capture_id)
            && secret(self) == secret(other)
    }
}

/// Reports to Homer.
pub struct Hep {
    reports: SyncSender<What>,
    counts: Arc<SinkCounts>,
    done: Receiver<Infallible>,
}

enum What {
    Packet(Arc<Sighting>),
    Event(Box<Event>),
}

impl Hep {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(target: Target) -> io::Result<Self> {
        let (reports, queue) = sync_channel(QUEUE);
        let (finished, done) = sync_channel::<Infallible>(0);
        let counts = SinkCounts::new(format!("hep {}:{}", target.host, target.port));
        let mut reporter = Reporter { target, way: None, looked_up: None, counts: Arc::clone(&counts), lost: 0 };
        thread::Builder::new().name("hep".into()).spawn(move || {
            reporter.run(&queue);
            drop(finished);
        })?;
        Ok(Self { reports, counts, done })
    }

    /// Reports a packet, if sipst has sent it.
    pub fn packet(&self, sighting: &Arc<Sighting>) {
        if matches!(sighting.deed, Deed::Sent | Deed::SentBeside) {
            self.queue(What::Packet(Arc::clone(sighting)));
        }
    }

    /// Reports an event.
    pub fn event(&self, event: &Event) {
        self.queue(What::Event(Box::new(event.clone())));
    }

    fn queue(&self, what: What) {
        let slow = "reports to Homer do not leave fast enough: the newest are dropped";
        self.counts.queue(|| self.reports.try_send(what).is_ok(), slow);
    }

    /// What became of the reports.
    pub fn counts(&self) -> Arc<SinkCounts> {
        Arc::clone(&self.counts)
    }

    /// Sends what is queued, for at most `wait`.
    pub fn finish(self, wait: Duration) {
        drop(self.reports);
        // Disconnected is what it says when it is done.
        let _ = self.done.recv_timeout(wait);
    }
}

struct Reporter {
    target: Target,
    way: Option<UdpSocket>,
    looked_up: Option<Instant>,
    counts: Arc<SinkCounts>,
    /// Reports that could not be sent since the last that was.
    lost: u64,
}

impl Reporter {
    fn run(&mut self, queue: &Receiver<What>) {
        for what in queue {
            self.counts.queued.fetch_sub(1, Relaxed);
            let sent = match what {
                What::Packet(packet) => {
                    let Sighting { time, from, to, ref bytes, .. } = *packet;
                    self.send(Kind::Sip, time, [from, to], &packet.call_id(), bytes)
                }
                What::Event(event) => {
                    let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
                    let ends = [event.server().unwrap_or(nobody), event.peer().unwrap_or(nobody)];
                    let call_id = event.call_id().unwrap_or_default();
                    // An event is plain data: nothing in it fails.
                    let json = serde_json::to_vec(&*event).unwrap_or_default();
                    self.send(Kind::Json, event.time, ends, &call_id, &json)
                }
            };
            match sent {
                Ok(()) => {
                    SinkCounts::add(&self.counts.sent, 1);
                    self.lost = 0;
                }
                Err(error) => {
                    SinkCounts::add(&self.counts.failed, 1);
                    if self.lost == 0 {
                        tracing::warn!(%error, to = self.counts.name, "Homer cannot be reported to");
                    }
                    self.lost += 1;
                }
            }
        }
    }

    fn send(
        &mut self,
        kind: Kind,
        time: Time,
        [from, to]: [SocketAddr; 2],
        id: &str,
        payload: &[u8],
    ) -> io::Result<()> {
        let Target { capture_id, ref password, .. } = self.target;
        let password = password.as_ref().map(ExposeSecret::expose_secret);
        let report = Report { kind, time, from, to, capture_id, password, correlation_id: id, payload };
        let bytes = report.encode().ok_or(io::ErrorKind::FileTooLarge)?;
        let way = self.way()?;
        way.send(&bytes).map(drop)
    }

    /// A socket to where the name leads.
    fn way(&mut self) -> io::Result<&UdpSocket> {
        let old = self.looked_up.is_none_or(|at| at.elapsed() >= LOOK_UP);
        if old {
            self.looked_up = Some(Instant::now());
            match connect(&self.target) {
                Ok(way) => self.way = Some(way),
                // Where it was a minute ago it may be still.
                Err(error) if self.way.is_none() => return Err(error),
                Err(error) => tracing::debug!(%error, "Homer's name cannot be looked up"),
            }
        }
        self.way.as_ref().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

fn connect(target: &Target) -> io::Result<UdpSocket> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (target.host.as_str(), target.port).to_socket_addrs()? {
        let own = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let opened = UdpSocket::bind(own).and_then(|socket| {
            socket.connect(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use st_core::{EventKind, Names};

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    /// Chunks by their type, read by the rules of the specification and nothing of the encoder's.
    fn chunks(packet: &[u8]) -> BTreeMap<u16, Vec<u8>> {
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        assert_eq!(&packet[..4], b"HEP3");
        assert_eq!(usize::from(word(4)), packet.len());
        let (mut chunks, mut at) = (BTreeMap::new(), 6);
        while at < packet.len() {
            let (vendor, kind, length) = (word(at), word(at + 2), usize::from(word(at + 4)));
            assert_eq!(vendor, 0);
            assert!(chunks.insert(kind, packet[at + 6..at + length].to_vec()).is_none());
            at += length;
        }
        assert_eq!(at, packet.len());
        chunks
    }

    fn target(port: u16) -> Target {
        Target { host: "127.0.0.1".into(), port, capture_id: 7, password: Some("pw".to_owned().into()) }
    }

    #[test]
    fn what_was_sent_goes_out_as_sip_and_events_as_json_of_the_same_call_and_nothing_else() {
        let homer = UdpSocket::bind("127.0.0.1:0").unwrap();
        homer.set_read_timeout(Some(SOON)).unwrap();
        let hep = Hep::start(target(homer.local_addr().unwrap().port())).unwrap();
        let [server, peer] = ["192.0.2.1:5060", "198.51.100.2:5062"].map(|address| address.parse().unwrap());
        let bytes = b"BYE sip:p@h SIP/2.0\r\nCall-ID: c@h\r\n\r\n".to_vec();
        let time = Time::from_micros(1_700_000_000_000_042);
        let sent = Sighting {
            deed: Deed::TookAnswer,
            time,
            interface: 0,
            from: server,
            to: peer,
            tos: 0,
            ttl: 0,
            truncated: false,
            bytes,
        };
        hep.packet(&Arc::new(sent.clone()));
        hep.packet(&Arc::new(Sighting { deed: Deed::Sent, ..sent.clone() }));
        let names = Some(Arc::new(Names::new(b"c@h", b"l", b"r", server, peer)));
        let event = Event { names, ..Event::new(time, EventKind::RefreshSent) };
        hep.event(&event);
        let counts = hep.counts();
        hep.finish(SOON);
        let mut buffer = [0; 65_536];
        let mut next = || {
            let len = homer.recv(&mut buffer).unwrap();
            chunks(&buffer[..len])
        };
        let sip = next();
        assert_eq!((&*sip[&11], &*sip[&15], &*sip[&17]), (&[1][..], &*sent.bytes, &b"c@h"[..]));
        assert_eq!((&*sip[&3], &*sip[&4]), (&[192, 0, 2, 1][..], &[198, 51, 100, 2][..]));
        assert_eq!((&*sip[&12], &*sip[&14]), (&[0, 0, 0, 7][..], &b"pw"[..]));
        let json = next();
        assert_eq!((&*json[&11], &*json[&17]), (&[100][..], &b"c@h"[..]));
        let told: serde_json::Value = serde_json::from_slice(&json[&15]).unwrap();
        assert_eq!(told, serde_json::to_value(&event).unwrap());
        assert_eq!(counts.sent.load(Relaxed), 2);
    }

    #[test]
    fn a_homer_that_is_not_there_is_counted_and_holds_up_nobody() {
        let hep = Hep::start(Target { host: "no-such-host.invalid".into(), ..target(9060) }).unwrap();
        let counts = hep.counts();
        for _ in 0..3 * QUEUE {
            hep.event(&Event::new(Time::from_micros(0), EventKind::CaptureLoss));
        }
        hep.finish(SOON);
        assert_eq!(counts.sent.load(Relaxed), 0);
        assert_eq!(counts.failed.load(Relaxed) + counts.dropped.load(Relaxed), 3 * QUEUE as u64);
    }
}
