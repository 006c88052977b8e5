//! Sessions that are taken back from their records and left packed: whoever speaks in one, or its first moment, unpacks it. What the
//! tables, the timers and the kernel must know of it stands in front of what is packed. That is not so of a session in which something
//! is under way, nor of one that its trunk's rules want more of at once.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::{
    Dialogs, Engine,
    census::Counted,
    dialog::{Dialog, Phase},
    hash::Fingerprint,
    packed::Entry,
    record::{RecordError, Restored, VERSION},
    refresh::Stage,
    shared::Shared,
    timers::Timer,
};
use crate::{Respond, SessionId, Side, Time};

/// What stands in front of a session's record.
#[derive(Serialize, Deserialize)]
pub(super) struct Front<'a> {
    id: SessionId,
    /// Where it can be left packed.
    #[serde(borrow)]
    asleep: Option<Asleep<'a>>,
}

/// What has to be known of a session that is left packed.
#[derive(Serialize, Deserialize)]
struct Asleep<'a> {
    /// What finds it.
    key: Fingerprint,
    heard: Time,
    /// Its first timer.
    first: Option<Time>,
    /// Of whom its trunk is told.
    peer: IpAddr,
    domain: &'a str,
    counted: Counted,
    /// When its state changes by time alone, if no timer goes off then.
    unattended: Option<Time>,
    /// What stands for the numbers that the kernel follows: the server's and the peer's.
    entries: [Option<Fingerprint>; 2],
    /// Media flows that are watched.
    flows: Cow<'a, [SocketAddr]>,
}

impl<'a> Front<'a> {
    pub(super) fn of(sx: &Shared, key: Fingerprint, dialog: &'a Dialog, timers: &[(Time, Timer)]) -> Self {
        let first = timers.iter().map(|(at, _)| *at).min();
        let asleep = dialog.can_sleep(first).then(|| {
            let entry = |is_followed: bool, side| is_followed.then(|| sx.secret.entry(&dialog.names, side));
            Asleep {
                key,
                heard: dialog.heard,
                first,
                peer: dialog.names.peer.ip(),
                domain: &dialog.domain,
                counted: Counted::of(dialog, sx.now),
                unattended: dialog.unattended(timers, sx.now),
                entries: [entry(dialog.followed, Side::Server), entry(dialog.peer_followed, Side::Peer)],
                flows: dialog.evidence.as_ref().map_or(&[][..], |evidence| evidence.flows()).into(),
            }
        });
        Self { id: dialog.id, asleep }
    }

    /// As it begins a record.
    pub(super) fn sealed(&self) -> Option<Vec<u8>> {
        postcard::to_extend(self, vec![VERSION]).ok()
    }

    pub(super) const fn id(&self) -> SessionId {
        self.id
    }
}

impl Engine {
    /// Takes a session back without unpacking it; `None` where that cannot be.
    pub(super) fn leave_asleep(&mut self, front: &Front<'_>, body: &[u8]) -> Result<Option<Restored>, RecordError> {
        let Front { id, asleep: Some(asleep) } = front else { return Ok(None) };
        let Self { sx, dialogs: Dialogs { all, keys, census, packing, .. }, .. } = self;
        if !packing.is_known {
            return Ok(None);
        }
        let Ok(vacancy) = all.vacancy(asleep.key) else { return Err(RecordError::Twice) };
        let (_, rules) = sx.policy.find(asleep.peer, asleep.domain);
        let wants_more = rules.keeps_alive().is_some() || rules.respond == Respond::OnReject;
        if wants_more || !sx.can_watch(&asleep.flows) {
            return Ok(None);
        }
        let place = census.placed(sx, rules, asleep.counted);
        let followed = asleep.entries[0].is_some();
        let Some(packed) = packing.take_back(place, followed, body) else { return Ok(None) };
        census.add(place, *id, asleep.unattended);
        sx.now = sx.now.max(asleep.heard);
        sx.watch(&asleep.flows);
        for entry in asleep.entries.into_iter().flatten() {
            *sx.entries.entry(entry).or_default() += 1;
        }
        sx.timers.put_back(*id, asleep.first);
        keys.insert(*id, asleep.key);
        vacancy.fill(Entry::Packed(packed));
        self.next = self.next.max(id.0.saturating_add(1));
        Ok(Some(Restored { session: *id, followed, tokens: Vec::new() }))
    }
}

impl Dialogs {
    /// [`crate::Command::Outage`], in all sessions that it means something to. One that was left packed hears of it when it is
    /// unpacked, unless something in it was due meanwhile.
    pub(super) fn after_outage(&mut self, sx: &mut Shared) {
        let due = sx.timers.away(sx.now);
        self.each_of(
            sx,
            |entry| !matches!(entry, Entry::Packed(packed) if packed.is_untouched()),
            Dialog::after_outage,
        );
        for session in due {
            let asleep = |entry: &Entry| matches!(entry, Entry::Packed(_));
            if self.keys.get(session).and_then(|key| self.all.get(&key)).is_some_and(asleep)
                && let Some(dialog) = self.of(sx, session)
            {
                dialog.after_outage(sx);
            }
        }
        self.packing.outage = Some(sx.now);
    }
}

impl Dialog {
    /// Whether it can be left packed when it is taken back: nothing is under way, and until its first moment an outage would change
    /// nothing in it.
    fn can_sleep(&self, first: Option<Time>) -> bool {
        !self.is_over()
            && self.own.is_empty()
            && self.cycle.stage == Stage::Idle
            && self.session.end().is_none_or(|end| first.is_some_and(|first| first <= end))
    }

    /// It was taken back from its record.
    pub(super) fn is_taken_back(&mut self) {
        if self.phase == Phase::Started {
            // Its ACK may have gone by unseen.
            self.losses_before = u64::MAX;
        }
    }
}
