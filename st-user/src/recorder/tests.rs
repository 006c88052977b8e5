//! What is kept is read back by the reader of captures, and what cannot be kept is counted.

use std::fs;

use st_core::Time;

use super::*;
use crate::{capture, sighting::Numbers};

const SOON: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { size: 1 << 20, files: 2 };

/// A directory that goes away with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sipst-recorder-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            fs::read_dir(self.0.join(DIRECTORY)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sighting(deed: Deed, cseq: u32, v6: bool) -> Arc<Sighting> {
    let ends = if v6 { ["[2001:db8::1]:5060", "[2001:db8::2]:5062"] } else { ["192.0.2.1:5060", "198.51.100.2:5062"] };
    let [from, to] = ends.map(|address| address.parse().unwrap());
    let bytes = format!(
        "BYE sip:p@198.51.100.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:s@h>;tag=s\r\n\
         To: <sip:p@h>;tag=p\r\nCall-ID: c@h\r\nCSeq: {cseq} BYE\r\nContent-Length: 0\r\n\r\n"
    );
    let time = Time::from_micros(1_700_000_000_000_001);
    let bytes = bytes.into_bytes();
    Arc::new(Sighting { deed, time, interface: 7, from, to, tos: 0x60, ttl: 63, truncated: false, bytes })
}

/// Time, ends and message of each packet in a file, as the reader of captures has them.
fn read(path: &Path) -> Vec<(Time, Vec<u8>)> {
    let mut packets = Vec::new();
    capture::read::<capture::CaptureError>(path, |frame| {
        packets.push((frame.time, frame.bytes.to_vec()));
        Ok(())
    })
    .unwrap();
    packets
}

#[test]
fn packets_are_kept_whole_with_their_times_and_the_reason_as_a_comment() {
    let place = Place::new("whole");
    let recorder = Recorder::start(&place.0, LIMITS).unwrap();
    let counts = recorder.counts();
    let numbers = Numbers { before: 5, after: 7 };
    let (before, after) = (sighting(Deed::Before(numbers), 5, false), sighting(Deed::Rewritten(numbers), 7, false));
    let sent = sighting(Deed::Sent, 6, true);
    // One that could not be rewritten is no packet of ours.
    recorder.keep(&sighting(Deed::Before(Numbers { before: 1, after: 2 }), 1, false));
    [&before, &sent, &after].into_iter().for_each(|one| recorder.keep(one));
    recorder.finish(SOON);
    let [file] = &place.files()[..] else { panic!("{:?}", place.files()) };
    let packets = read(file);
    let expected = [&sent, &before, &after].map(|one| (one.time, file::packet(one)));
    assert_eq!(packets, expected);
    for (_, packet) in &packets {
        let parsed = etherparse::SlicedPacket::from_ip(packet).unwrap();
        assert!(matches!(parsed.transport, Some(etherparse::TransportSlice::Udp(udp)) if udp.source_port() == 5060));
    }
    let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
    for comment in [
        "sent BYE in the server's name in call c@h",
        "rewritten: CSeq 5 -> 7: as it was, BYE in call c@h",
        "rewritten: CSeq 5 -> 7: as it is, BYE in call c@h",
    ] {
        assert!(text.contains(comment), "{comment}");
    }
    assert_eq!(counts.sent.load(Relaxed), 3);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn files_have_a_size_and_a_number_and_a_new_start_begins_a_new_one() {
    let place = Place::new("rotate");
    let limits = Limits { size: 10_000, files: 3 };
    for _ in 0..2 {
        let recorder = Recorder::start(&place.0, limits).unwrap();
        for cseq in 0..200 {
            recorder.keep(&sighting(Deed::Sent, cseq, false));
        }
        recorder.finish(SOON);
    }
    let files = place.files();
    assert_eq!(files.len(), 3);
    for file in &files {
        // One packet more than there was room for, at most.
        assert!(fs::metadata(file).unwrap().len() < 11_000);
        assert!(!read(file).is_empty());
    }
}

#[test]
fn a_disk_that_takes_nothing_is_counted_and_taken_up_again() {
    let place = Place::new("full");
    // A file where the directory is to be.
    let blocked = place.0.join(DIRECTORY);
    fs::write(&blocked, "").unwrap();
    let recorder = Recorder::start(&place.0, LIMITS).unwrap();
    let counts = recorder.counts();
    let until = Instant::now() + SOON;
    for cseq in 0..10 {
        recorder.keep(&sighting(Deed::Sent, cseq, false));
    }
    while counts.failed.load(Relaxed) < 10 {
        assert!(Instant::now() < until);
    }
    fs::remove_file(&blocked).unwrap();
    while counts.sent.load(Relaxed) == 0 {
        recorder.keep(&sighting(Deed::Sent, 11, false));
        thread::sleep(Duration::from_millis(5));
        assert!(Instant::now() < until);
    }
    recorder.finish(SOON);
    assert!(!read(&place.files()[0]).is_empty());
}
