//! What strangers can make the engine hold is bounded, whatever they send: measured by an allocator that counts.

#[path = "suite/sim/mod.rs"]
mod sim;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use sim::{Call, Sim, manners, sdp};
use st_core::{
    Action, Direction, Packet, Policy, Side,
    engine::{
        Limits, Mode,
        limits::{MAX_FORKS, MAX_HEADERS, MAX_IDENTIFIER, MAX_INVITE, MAX_SDP, MAX_TRIES, PACKED_PER_CALL},
    },
};

/// Bytes that are allocated now.
static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What maps and lists take beside their contents, for each entry.
const OVERHEAD: usize = 1_024;

/// The most that one INVITE or UPDATE outside known dialogs can hold: its copies, a session description of a provisional
/// response, and its identifiers, which stand in two maps.
const REQUEST: usize = MAX_TRIES * (MAX_INVITE + MAX_IDENTIFIER) + MAX_SDP + 8 * MAX_IDENTIFIER + OVERHEAD;

const LIMITS: Limits = Limits {
    sessions: 2_000,
    pending: 16,
    strangers: 32,
    remembered: 16,
    waiting: 16,
    flows: 16,
    keepalives: 16,
    unpacked: 0,
};

fn feed(sim: &mut Sim, direction: Direction, bytes: &[u8]) {
    let packet = Packet {
        direction,
        server: sim::text::SERVER.parse().expect("an address"),
        peer: sim::text::PEER.parse().expect("an address"),
        transport: st_core::Transport::Udp,
        interface: 1,
        tos: 0,
        ttl: 64,
        cookie: 1,
        truncated: false,
        bytes,
    };
    sim.engine.handle_packet(sim.now, &packet);
    while !matches!(sim.engine.poll_output(), st_core::Output::Timeout(_)) {}
}

/// What the engine holds more after `flood` than before.
fn growth(sim: &mut Sim, flood: impl FnOnce(&mut Sim)) -> usize {
    let before = HELD.load(Relaxed);
    flood(sim);
    HELD.load(Relaxed).saturating_sub(before)
}

fn fresh() -> Sim {
    Sim::custom(Policy { default: sim::rules(Action::Refresh), ..Policy::default() }, Mode::Live, LIMITS)
}

/// One test, for what others allocate at the same time would count.
#[test]
fn what_floods_make_the_engine_hold_stays_below_what_the_limits_say() {
    let huge = |name: &str| format!("{name}: {}\r\n", "y".repeat(20_000));
    let padding = huge("X");

    // Strangers' INVITEs as large as they can be, several for each call, and requests of dialogs that nobody knows.
    let mut sim = fresh();
    let grown = growth(&mut sim, |sim| {
        for number in 0..200 {
            let call = Call::new(&format!("{number}{}", "x".repeat(400)), Side::Peer);
            for attempt in 0..8 {
                let invite = call.request(Side::Peer, "INVITE", attempt, "z9hG4bKi", false, &padding, "");
                feed(sim, Direction::Ingress, invite.as_bytes());
            }
            let update = call.request(Side::Peer, "UPDATE", 1, "z9hG4bKu", true, &padding, "");
            feed(sim, Direction::Ingress, update.as_bytes());
        }
    });
    let bound = 2 * LIMITS.strangers * REQUEST;
    assert!(grown < bound, "strangers: {grown} of {bound}");

    // A peer that answers the server's INVITE with tags without end.
    let mut sim = fresh();
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    let via = format!("SIP/2.0/UDP {};branch={}", sim::text::SERVER, call.invite.1);
    let grown = growth(&mut sim, |sim| {
        for number in 0..1_000 {
            let fork = Call { remote: format!("f{number}"), ..call.clone() };
            let header = ["X", "Contact", "Record-Route", "User-Agent", "Reason"][number % 5];
            let extra = manners(Side::Peer, true) + &huge(header);
            let ok = fork.response(Side::Peer, 200, "INVITE", call.invite.0, &via, &extra, &sdp(Side::Peer));
            feed(sim, Direction::Ingress, ok.as_bytes());
        }
    });
    let dialog = 4 * MAX_HEADERS + 2 * MAX_SDP + 8 * MAX_IDENTIFIER + 16 * OVERHEAD;
    let bound = MAX_FORKS * dialog;
    assert!(grown < bound, "forks: {grown} of {bound}");

    // A call whose peer writes whatever it can, as long as it can, in every header that is kept.
    let mut sim = fresh();
    let call = sim.call("a", Side::Server, "Session-Expires: 90;refresher=uac\r\n");
    let grown = growth(&mut sim, |sim| {
        for number in 0..500_u32 {
            let branch = format!("z9hG4bK{number}{}", "b".repeat(if number % 2 == 0 { 400 } else { 4_000 }));
            let method = ["UPDATE", "INVITE", "INFO", "UPDATE"][number as usize % 4];
            let contact = format!("Contact: <sip:{}@h>\r\n", "c".repeat(4_000));
            let extra = match number % 5 {
                0 => contact,
                1 => huge("Contact"),
                2 => format!("Contact: <sip:c>\r\n{}", huge("Record-Route")),
                3 => huge("User-Agent"),
                _ => huge("Content-Type"),
            };
            let body = format!("{}{}", sdp(Side::Peer), "a=ice-ufrag:x\r\n".repeat(number as usize % 500));
            let request = call.request(Side::Peer, method, number, &branch, true, &extra, &body);
            feed(sim, Direction::Ingress, request.as_bytes());
            if number % 3 == 0 {
                let via = format!("SIP/2.0/UDP {};branch={branch}", sim::text::PEER);
                let ok = call.response(Side::Server, 200, method, number, &via, "", &sdp(Side::Server));
                feed(sim, Direction::Egress, ok.as_bytes());
            }
        }
    });
    let exchange = 2 * MAX_SDP + MAX_HEADERS / 2 + MAX_IDENTIFIER + OVERHEAD;
    let bound = 16 * exchange + 4 * MAX_HEADERS + 4 * MAX_SDP + 16 * OVERHEAD;
    assert!(grown < bound, "one call: {grown} of {bound}");
    assert_eq!(sim.engine.stats().sessions, 1);

    // Calls in which nothing happens, as a trunk has them: what repeats is held once.
    let mut sim = fresh();
    let calls = 1_000;
    let set_up = |sim: &mut Sim, number: usize| {
        let call = Call::new(&format!("{number}-{}", "x".repeat(50)), Side::Server);
        let branch = format!("z9hG4bKi{number}");
        let own = manners(Side::Server, true) + "Supported: timer\r\n";
        let invite = call.request(Side::Server, "INVITE", 1, &branch, false, &own, &sdp(Side::Server));
        let via = format!("SIP/2.0/UDP {};branch={branch}", sim::text::SERVER);
        let extra = manners(Side::Peer, true) + "Session-Expires: 1800;refresher=uac\r\n";
        let ok = call.response(Side::Peer, 200, "INVITE", 1, &via, &extra, &sdp(Side::Peer));
        let ack = call.request(Side::Server, "ACK", 1, &format!("{branch}a"), true, "", "");
        for (direction, text) in [(Direction::Egress, invite), (Direction::Ingress, ok), (Direction::Egress, ack)] {
            feed(sim, direction, text.as_bytes());
        }
    };
    let grown = growth(&mut sim, |sim| {
        (0..calls).for_each(|number| set_up(sim, number));
        sim.now = sim.now + Duration::from_secs(60);
        for _ in 0..=calls / PACKED_PER_CALL {
            sim.engine.handle_timeout(sim.now);
            while !matches!(sim.engine.poll_output(), st_core::Output::Timeout(_)) {}
        }
        // With it goes what was kept of the others' INVITEs.
        set_up(sim, calls);
    });
    assert_eq!((sim.engine.stats().sessions, sim.engine.stats().packed), (calls + 1, calls));
    assert!(grown < 700 * calls, "{} bytes of a quiet call", grown / calls);
}
