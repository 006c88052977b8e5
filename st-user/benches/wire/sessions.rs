//! Sessions on disk, as a daemon leaves them that has followed their calls: the next one finds them there, and each falls due when it
//! is wanted to.

use std::{path::Path, thread, time::Duration};

use sipst::{
    clock::monotonic_ns,
    store::{About, Opened, Store},
    takeover,
};
use st_core::{Action, Packet, Side, Time};

use crate::{
    calls::{
        Call,
        Step::{Ack, Answer, Invite},
    },
    rig::{BEGIN, Rig},
};

/// What the peer asks for, and so when a server that knows nothing of timers is stood in for.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1_800);
pub(crate) const DUE: Duration = Duration::from_secs(INTERVAL.as_secs() / 2);

/// The `number`th call: the server has made it, and its Call-ID says which one it is.
pub(crate) fn call(number: u64) -> Call {
    let mut call = Call::new(number);
    (call.call_id, call.caller) = (format!("{number}-{}", call.call_id), Side::Server);
    call
}

/// Which call a message is of.
pub(crate) fn number(call_id: &str) -> Option<usize> {
    call_id.split('-').next()?.parse().ok()
}

/// Writes a session for each of `dues`, which say how long after the first it falls due, in this order. That is `ahead` of when this
/// returns, more or less; returned is when, in nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn write(dir: &Path, cookie: u64, dues: &[Duration], ahead: Duration) -> u64 {
    let first_due = BEGIN + DUE;
    let last = *dues.last().expect("a session");
    assert!(last + ahead <= DUE, "the last call begins before the daemon does");
    let mut rig = Rig::new(Action::Refresh);
    // Known once all but the last are written: that one takes it along.
    let mut offset_ns = 0;
    let about = |offset_ns| About { boot: takeover::boot(), offset_ns, ..About::default() };
    for (number, due) in (0..).zip(&dues[..dues.len() - 1]) {
        set_up(&mut rig, &call(number), *due, cookie);
    }
    let mut store = Opened::new(dir).follow(&mut rig.engine, false).expect("a thread");
    written(&mut store, &mut rig, || about(offset_ns));
    set_up(&mut rig, &call(dues.len() as u64 - 1), last, cookie);
    let now_us = first_due.as_micros() - ahead.as_micros() as u64;
    offset_ns = now_us * 1_000 - monotonic_ns();
    assert!(store.finish(&mut rig.engine, &about(offset_ns)), "all is written");
    assert_eq!(rig.engine.stats().timed, dues.len(), "each has an interval");
    first_due.as_micros() * 1_000 - offset_ns
}

fn written(store: &mut Store, rig: &mut Rig, about: impl Fn() -> About) {
    while store.due(&rig.engine).is_some() {
        store.turn(&mut rig.engine, &about);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sets a call up, so that it falls due that long after the first of all.
fn set_up(rig: &mut Rig, call: &Call, due: Duration, cookie: u64) {
    let at: Time = BEGIN + due;
    rig.pass(at.since(rig.now));
    for step in [Invite, Answer, Ack] {
        let mut message = call.say(step, 0);
        if step == Invite {
            // The server knows nothing of timers.
            message.text = message.text.replace("Session-Expires: 1800;refresher=uac\r\n", "").replace("timer, ", "");
        }
        rig.packet(&Packet { cookie, ..message.packet() });
    }
}
