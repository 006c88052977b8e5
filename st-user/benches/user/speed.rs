//! Messages a second on one core: scanned and handled, and all the way from ring records into the store.

use std::{array, path::Path, thread, time::Duration};

use sipst::{
    batch::Batch,
    store::{About, Opened},
};
use st_core::{Action, Direction, engine::LOOK_AHEAD};
use st_ebpf::abi::{SampleHeader, direction, kind, mapped};
use st_tests::figure::{Target, tell};

use crate::{
    calls::{LENGTH, SERVER, Traffic},
    rig::{Rig, median, process_time, thread_time},
};

/// Calls at a time.
const CALLS: usize = 10_000;

/// How long a call lasts.
const LIFE: Duration = Duration::from_secs(60);

/// Messages of one measurement, and measurements of which the median is told.
const MEASURED: usize = 200_000;
const RUNS: usize = 5;

/// Messages that are written before they are handled.
const ROUND: usize = 256;

pub(crate) fn run(dir: &Path) {
    handled();
    kept(dir);
}

fn pace() -> Duration {
    LIFE / u32::try_from(CALLS * LENGTH).expect("a number of messages")
}

fn handled() {
    let (mut rig, mut traffic) = (Rig::new(Action::Refresh), Traffic::new(CALLS));
    let mut handle = |messages: usize| {
        let mut spent = Duration::ZERO;
        for _ in 0..messages.div_ceil(ROUND) {
            let round: Vec<_> = (0..ROUND).map(|_| traffic.next()).collect();
            let began = thread_time();
            for messages in round.chunks(LOOK_AHEAD) {
                let mut messages = messages.iter();
                let all: [_; LOOK_AHEAD] =
                    array::from_fn(|_| messages.next().map(|message| rig.engine.read(message.packet())));
                rig.engine.look_ahead(all.iter().flatten());
                for read in all.iter().flatten() {
                    rig.pass(pace());
                    rig.read(read);
                }
            }
            spent += thread_time() - began;
        }
        messages as f64 / spent.as_secs_f64()
    };
    // Until as many calls end as begin, and as many tombstones go as come.
    handle(2 * CALLS * LENGTH);
    let rates = (0..RUNS).map(|_| handle(MEASURED)).collect();
    let stats = rig.engine.stats();
    assert!(stats.sessions > CALLS / 3, "too few calls: the traffic is not what it is meant to be");
    assert_eq!((stats.unidentified, stats.unparsable, stats.unknown_dialog, stats.unknown_request), (0, 0, 0, 0));
    tell("user/scan and engine", median(rates), "messages/s", Target::AtLeast(1_000_000.0));
}

/// A record as the kernel programs write it.
fn record(message: &crate::calls::Message, time_ns: u64) -> Vec<u8> {
    let length = u16::try_from(message.text.len()).expect("a message of one packet");
    let header = SampleHeader {
        time_ns,
        cookie: 1,
        ifindex: 2,
        wire_len: length,
        captured_len: length,
        server: mapped(SERVER.ip()),
        peer: mapped(message.peer.ip()),
        server_port: SERVER.port().to_be_bytes(),
        peer_port: message.peer.port().to_be_bytes(),
        direction: if message.direction == Direction::Egress { direction::EGRESS } else { direction::INGRESS },
        kind: kind::MESSAGE,
        ttl: 64,
        ..SampleHeader::default()
    };
    // SAFETY: the header is `repr(C)` without padding.
    let bytes =
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(&header).cast::<u8>(), size_of::<SampleHeader>()) };
    [bytes, message.text.as_bytes()].concat()
}

fn kept(dir: &Path) {
    let mut traffic = Traffic::new(CALLS);
    let mut records = |messages: usize| -> Vec<Vec<u8>> { (0..messages).map(|_| record(&traffic.next(), 1)).collect() };
    let (warm, measured) = (records(CALLS * LENGTH), records(2 * MEASURED));
    let mut rig = Rig::new(Action::Refresh);
    let mut store = Opened::new(&dir.join("kept")).follow(&mut rig.engine, true).expect("a thread");
    let mut batch = Batch::default();
    let mut handle = |records: &[Vec<u8>]| {
        for round in records.chunks(ROUND) {
            for records in round.chunks(LOOK_AHEAD) {
                batch.clear();
                records.iter().for_each(|record| batch.push(record));
                for next in batch.look_ahead(&rig.engine).iter().flatten() {
                    rig.pass(pace());
                    rig.read(next.read.as_ref().expect("a message"));
                }
            }
            store.turn(&mut rig.engine, About::default);
        }
    };
    handle(&warm);
    let began = process_time();
    handle(&measured);
    let alive = rig.engine.stats().sessions;
    assert!(alive > CALLS / 3, "too few calls: the traffic is not what it is meant to be");
    while store.due(&rig.engine).is_some() {
        store.turn(&mut rig.engine, About::default);
        thread::sleep(Duration::from_millis(1));
    }
    assert!(store.finish(&mut rig.engine, &About::default()), "all is written");
    let spent = process_time() - began;
    let rate = measured.len() as f64 / spent.as_secs_f64();
    tell("user/ring, engine and store", rate, "messages/s", Target::AtLeast(300_000.0));
    tell("user/of its calls alive at the end", alive as f64 / CALLS as f64, "", Target::AtLeast(0.2));
}
