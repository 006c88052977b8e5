//! Captures of every kind are read to their end, and those that have none are told apart.

mod samples;

use std::path::Path;

use samples::*;
use sipst::capture::{self, CaptureError, Datagram, Decoded, Decoder, Frame, Link};

const PAYLOAD: &[u8] = b"BYE sip:x SIP/2.0\r\n\r\n";

/// The times and the bytes of a capture, and how it ended.
fn read(file: &[u8]) -> (Frames, Result<(), CaptureError>) {
    let temp = Temp::new(file);
    let mut frames = Vec::new();
    let result = capture::read(temp.path(), |frame| {
        frames.push((frame.time.as_micros(), frame.bytes.to_vec()));
        Ok(())
    });
    (frames, result)
}

fn decode(link: Link, bytes: &[u8]) -> Decoded<'_> {
    Decoder::default().decode(&Frame { time: st_core::Time::from_micros(EPOCH), link, bytes })
}

#[track_caller]
fn udp(decoded: Decoded<'_>) -> Datagram<'_> {
    let Decoded::Udp(datagram) = decoded else { panic!("{decoded:?}") };
    datagram
}

#[test]
fn pcap_is_read_in_either_byte_order_and_resolution() {
    let frames = vec![(EPOCH + 1, vec![1, 2, 3]), (EPOCH + 2_500_000, vec![4])];
    for big_endian in [false, true] {
        for nanoseconds in [false, true] {
            let (read, result) = read(&Pcap { big_endian, nanoseconds, link: ETHERNET }.file(&frames));
            result.unwrap();
            assert_eq!(read, frames);
        }
    }
}

#[test]
fn pcapng_is_read_with_every_interfaces_own_clock() {
    for big_endian in [false, true] {
        let mut file = Pcapng::new(big_endian);
        file.interface(ETHERNET, None);
        file.interface(RAW, Some(9));
        file.block(0xbad, &[1, 2, 3, 4]);
        // 2^-10 of a second.
        file.interface(SLL, Some(0x8a));
        file.packet(0, EPOCH + 7, &[1, 2, 3]);
        file.packet(1, (EPOCH + 8) * 1000 + 999, &[4]);
        file.packet(2, at(2) / 1_000_000 * 1024 + 512, &[5; 8]);
        file.simple(&[6]);
        file.section();
        file.interface(SLL2, Some(3));
        file.packet(0, at(3) / 1000, &[7]);
        let (frames, result) = read(&file.file());
        result.unwrap();
        assert_eq!(
            frames,
            [
                (EPOCH + 7, vec![1, 2, 3]),
                (EPOCH + 8, vec![4]),
                (at(2) + 500_000, vec![5; 8]),
                (at(2) + 500_000, vec![6]),
                (at(3), vec![7]),
            ]
        );
    }
}

#[test]
fn a_capture_that_is_cut_off_gives_what_is_before_and_says_so() {
    let whole = Pcap::default().file(&[(EPOCH, vec![1; 40]), (EPOCH, vec![2; 40])]);
    for end in 81..whole.len() {
        let (frames, result) = read(&whole[..end]);
        assert_eq!(frames.len(), 1);
        assert!(matches!(result, Err(CaptureError::Truncated { packets: 1 })), "{result:?}");
    }
    for end in 4..24 {
        assert!(matches!(read(&whole[..end]).1, Err(CaptureError::Truncated { packets: 0 })));
    }
    let mut file = Pcapng::new(false);
    file.interface(ETHERNET, None);
    file.packet(0, EPOCH, &[1; 40]);
    let start = file.file().len();
    let mut file = Pcapng::new(false);
    file.interface(ETHERNET, None);
    file.packet(0, EPOCH, &[1; 40]);
    file.packet(0, EPOCH, &[1; 40]);
    let whole = file.file();
    for end in start + 1..whole.len() {
        let (frames, result) = read(&whole[..end]);
        assert_eq!(frames.len(), 1);
        assert!(matches!(result, Err(CaptureError::Truncated { packets: 1 })), "{end}: {result:?}");
    }
}

#[test]
fn what_is_no_capture_is_told() {
    assert!(matches!(read(b"").1, Err(CaptureError::Empty)));
    assert!(matches!(read(b"interfaces: [eth0]\n").1, Err(CaptureError::NotACapture)));
    assert!(matches!(read(b"abc").1, Err(CaptureError::NotACapture)));
    let missing = capture::read(Path::new("/nonexistent"), |_| Ok::<(), CaptureError>(()));
    assert!(matches!(missing, Err(CaptureError::Io(_))));
    let directory = capture::read(&std::env::temp_dir(), |_| Ok::<(), CaptureError>(()));
    assert!(matches!(directory, Err(CaptureError::Io(_))));
}

#[test]
fn a_record_that_makes_no_sense_is_damage() {
    let mut file = Pcap::default().file(&[(EPOCH, vec![1; 40]), (EPOCH, vec![2; 40])]);
    file[80 + 8..80 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&file).1, Err(CaptureError::Damaged { packets: 1, .. })));
    let mut file = Pcapng::new(false);
    file.packet(0, EPOCH, &[1; 40]);
    assert!(matches!(read(&file.file()).1, Err(CaptureError::Damaged { packets: 0, .. })));
    let mut file = Pcapng::new(false);
    file.interface(ETHERNET, Some(0x7f));
    assert!(matches!(read(&file.file()).1, Err(CaptureError::Damaged { packets: 0, .. })));
}

#[test]
fn no_bytes_make_the_reader_panic_or_go_on_for_ever() {
    let mut ng = Pcapng::new(false);
    ng.interface(ETHERNET, Some(9));
    ng.packet(0, EPOCH, &ethernet(&ipv4(SERVER, PEER, (5060, 5060), PAYLOAD), &[]));
    ng.simple(&[1; 5]);
    for whole in [Pcap::default().file(&call(10)[..2]), ng.file()] {
        let temp = Temp::new(&whole);
        // The headers of the file and of its first packets.
        for index in 0..whole.len().min(96) {
            for flip in [0x01, 0xff] {
                let mut bytes = whole.clone();
                bytes[index] ^= flip;
                std::fs::write(temp.path(), &bytes).unwrap();
                let mut decoder = Decoder::default();
                let _ = capture::read(temp.path(), |frame| {
                    decoder.decode(frame);
                    Ok::<(), CaptureError>(())
                });
            }
        }
    }
}

#[test]
fn every_link_type_leads_to_the_same_datagram() {
    let v4 = ipv4(SERVER, PEER, (5060, 5061), PAYLOAD);
    let v6 = ipv6(PAYLOAD);
    for (ip, source, destination) in [(&v4, "192.0.2.1:5060", "198.51.100.2:5061"), (&v6, "[::1]:5060", "[::2]:5060")] {
        for (link, frame) in [
            (Link::Ethernet, ethernet(ip, &[])),
            (Link::Ethernet, ethernet(ip, &[(0x8100, 7)])),
            (Link::Ethernet, ethernet(ip, &[(0x88a8, 7), (0x8100, 8)])),
            (Link::Ethernet, ethernet(ip, &[(0x9100, 7), (0x8100, 8)])),
            (Link::Ethernet, [ethernet(ip, &[]), vec![0; 9]].concat()),
            (Link::Ethernet, pppoe(ip)),
            (Link::Loopback, [&[2, 0, 0, 0][..], ip].concat()),
            (Link::Loopback, [&[0, 0, 0, 30][..], ip].concat()),
            (Link::Raw, ip.clone()),
            (Link::Sll, sll(ip)),
            (Link::Sll2, sll2(ip)),
        ] {
            let datagram = udp(decode(link, &frame));
            assert_eq!(datagram.source, source.parse().unwrap(), "{link:?}");
            assert_eq!(datagram.destination, destination.parse().unwrap());
            assert_eq!((&*datagram.payload, datagram.ttl, datagram.cut), (PAYLOAD, 64, false));
        }
    }
}

#[test]
fn tos_and_ttl_are_the_packets_own() {
    let mut ip = ipv4(SERVER, PEER, (5060, 5060), PAYLOAD);
    (ip[1], ip[8]) = (0xb9, 17);
    let datagram = udp(decode(Link::Raw, &ip));
    assert_eq!((datagram.tos, datagram.ttl), (0xb9, 17));
}

#[test]
fn a_packet_that_was_kept_in_part_is_marked() {
    let ip = ipv4(SERVER, PEER, (5060, 5060), PAYLOAD);
    let datagram = udp(decode(Link::Raw, &ip[..ip.len() - 3]));
    assert!(datagram.cut);
    assert_eq!(&*datagram.payload, &PAYLOAD[..PAYLOAD.len() - 3]);
}

#[test]
fn what_carries_no_udp_is_told_apart() {
    let mut tcp = Vec::new();
    let builder = etherparse::PacketBuilder::ipv4(SERVER, PEER, 64).tcp(5060, 5060, 0, 1000);
    builder.write(&mut tcp, PAYLOAD).unwrap();
    let Decoded::Tcp(segment) = decode(Link::Raw, &tcp) else { panic!() };
    assert_eq!((segment.source.port(), segment.tcp.sequence, segment.payload), (5060, 0, PAYLOAD));
    assert_eq!(decode(Link::Unknown(147), &tcp), Decoded::UnknownLink);
    for (link, bytes) in [
        (Link::Ethernet, &[0; 13][..]),
        (Link::Sll, &[8, 0]),
        (Link::Sll2, &[8]),
        (Link::Loopback, &[2]),
        (Link::Raw, &[]),
    ] {
        assert_eq!(decode(link, bytes), Decoded::Other);
    }
}

#[test]
fn fragments_are_put_together() {
    let payload: Vec<u8> = (0..3000).map(|index| index as u8).collect();
    let whole = ipv4(SERVER, PEER, (5060, 5060), &payload);
    let mut decoder = Decoder::default();
    let time = st_core::Time::from_micros(EPOCH);
    let parts = fragments(&whole, 1480);
    let mut decode = |bytes| {
        let decoded = decoder.decode(&Frame { time, link: Link::Raw, bytes });
        (decoded != Decoded::Fragment).then(|| udp(decoded).payload.into_owned())
    };
    assert_eq!(decode(&parts[2]), None);
    assert_eq!(decode(&parts[0]), None);
    assert_eq!(decode(&parts[1]), Some(payload));
    assert_eq!((decoder.reassembled(), decoder.incomplete()), (1, 0));
}
