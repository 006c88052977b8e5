//! What RTP costs in place: all of a packet's way, from the call that sends it to the one that receives it, through veth pairs that
//! differ in nothing but the programs at the server's end. They take turns.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use st_ebpf::abi::Counter;
use st_tests::{
    End, Family, Lab,
    figure::{Target, tell},
};

use crate::{
    empty::{Empty, TCX_EGRESS, TCX_INGRESS, XDP_IN_DRIVER, attach, took},
    medians,
    tester::{Program, Tester},
};

/// Packets on their way at once: as many as a socket has room for.
const BATCH: usize = 64;

/// Batches of a run, each way.
const BATCHES: usize = 150;

/// What is at the server's end, by the descriptors of its programs; that on the way in may be an XDP program.
struct Programs {
    ingress: RawFd,
    xdp: bool,
    egress: RawFd,
}

/// A wire with a socket at each end.
struct Way {
    server: UdpSocket,
    peer: UdpSocket,
    /// The programs stay as long as these.
    _links: Vec<OwnedFd>,
    lab: Lab,
}

impl Way {
    fn through(programs: Option<Programs>) -> Self {
        let lab = Lab::new().expect("two hosts");
        let (a, b) = (lab.wire.a.clone(), lab.wire.b.clone());
        let at = |end: &End, port| SocketAddr::new(end.ip(Family::V4), port);
        let (server, peer) = (at(&a, 40_000), at(&b, 40_002));
        let links = lab.server.enter(move || {
            let Some(Programs { ingress, xdp, egress }) = programs else { return vec![] };
            let hook = if xdp { XDP_IN_DRIVER } else { TCX_INGRESS };
            vec![attach(ingress, &a.interface, hook), attach(egress, &a.interface, TCX_EGRESS)]
        });
        let socket = move |own: SocketAddr, other: SocketAddr| {
            move || {
                let socket = UdpSocket::bind(own).expect("a socket");
                socket.connect(other).expect("an address on the same wire");
                socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
                socket
            }
        };
        let (server, peer) = (lab.server.enter(socket(server, peer)), lab.peer.enter(socket(peer, server)));
        Self { server, peer, _links: links, lab }
    }

    /// Nanoseconds of a packet, on average of both ways.
    fn run(&self) -> f64 {
        let packet = [0x80; 172];
        let mut place = [0; 256];
        let took = took(|| {
            for (from, to) in [(&self.peer, &self.server), (&self.server, &self.peer)].repeat(BATCHES) {
                for _ in 0..BATCH {
                    from.send(&packet).expect("it leaves");
                }
                for _ in 0..BATCH {
                    to.recv(&mut place).expect("it arrives");
                }
            }
        });
        took / (2 * BATCHES * BATCH) as f64
    }

    /// Sends a request to the server's SIP port, and one from there to the peer: both are seen, if anything is there to see them.
    fn ask(&self) {
        let to_sip = |socket: &UdpSocket| {
            let to = SocketAddr::new(socket.local_addr().expect("it is bound").ip(), 5060);
            move || UdpSocket::bind(("0.0.0.0", 0))?.send_to(b"OPTIONS sip:a SIP/2.0\r\n\r\n", to)
        };
        let far = self.lab.peer.enter(to_sip(&self.server));
        let near = self.lab.server.enter(to_sip(&self.peer));
        far.and(near).expect("requests leave");
    }
}

pub(crate) fn run(bare: [&Empty; 2]) {
    let [tc, xdp] = [(); 2].map(|()| Tester::new());
    let fd = |tester: &Tester, program| tester.fd(program).as_raw_fd();
    let [bare_xdp, bare_tc] = bare.map(Empty::fd);
    let ours = |tester: &Tester, ingress| Programs {
        ingress: fd(tester, ingress),
        xdp: ingress == Program::IngressXdp,
        egress: fd(tester, Program::Egress),
    };
    let names = ["no program", "TC, empty", "TC", "XDP, empty", "XDP"];
    let ways = [
        None,
        Some(Programs { ingress: bare_tc, xdp: false, egress: bare_tc }),
        Some(ours(&tc, Program::IngressTc)),
        Some(Programs { ingress: bare_xdp, xdp: true, egress: bare_tc }),
        Some(ours(&xdp, Program::IngressXdp)),
    ]
    .map(Way::through);
    let figures = medians(|| std::array::from_fn::<_, 5, _>(|way| ways[way].run()));
    for (tester, way) in [(&tc, &ways[2]), (&xdp, &ways[4])] {
        assert!(tester.counters().is_empty(), "RTP was looked at: {:?}", tester.counters());
        way.ask();
        assert_eq!(tester.counter(Counter::OutsideRequest), 2, "the programs are not in the way");
    }
    for (name, figure) in names.into_iter().zip(figures) {
        tell(&format!("kernel/RTP in place/{name}"), figure, "ns", Target::None);
    }
    for (name, figure) in names.into_iter().zip(figures).skip(1) {
        tell(&format!("kernel/RTP in place/{name}"), figure / figures[0], "x no program", Target::None);
    }
}
