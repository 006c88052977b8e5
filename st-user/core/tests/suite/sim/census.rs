//! What the engine counts as it goes is what somebody finds who goes through all its sessions: whatever has happened to
//! them.

use std::collections::BTreeMap;

use st_core::{
    SessionId, Time,
    engine::{Engine, Standing},
};

/// More sessions are not gone through each time that something happens.
const FEW: usize = 40;

/// The two agree. Not to be asked while a timer is due.
pub(crate) fn agrees(engine: &mut Engine, now: Time) {
    if engine.counted().sessions <= FEW {
        compare(engine, now);
    }
}

/// The same, however many there are.
pub(crate) fn compare(engine: &mut Engine, now: Time) {
    let mut walked: BTreeMap<_, usize> = BTreeMap::new();
    let (mut held, mut next) = (0, None::<Time>);
    let end = engine.sessions(now, SessionId(0), usize::MAX, |view| {
        let over = view.state == Standing::Ended;
        let refresher = view.refresher.filter(|_| !over).map(|side| side.to_string());
        *walked.entry((view.trunk.to_owned(), view.state, refresher)).or_default() += 1;
        held += usize::from(view.held && !over);
        let ahead = |deadline: &Time| !over && deadline.as_micros() / 1_000_000 >= now.as_micros() / 1_000_000;
        next = [next, view.deadline.filter(ahead)].into_iter().flatten().min();
        true
    });
    assert!(end.is_none());
    let counted: BTreeMap<_, usize> = engine
        .census(now)
        .map(|tally| {
            ((tally.trunk.to_owned(), tally.state, tally.refresher.map(|side| side.to_string())), tally.sessions)
        })
        .collect();
    assert_eq!(counted, walked);
    assert_eq!(engine.held(now), held);
    let seconds = |time: Time| time.as_micros() / 1_000_000;
    assert_eq!(engine.next_deadline(now).map(seconds), next.map(seconds));
}
