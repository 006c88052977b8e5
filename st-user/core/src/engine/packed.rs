//! Sessions in which nothing happens for a while, made small: most of a call's life is silence. What stands in their records is
//! kept in place of them, written as what it differs in from another session's of the same trunk: a trunk's session descriptions,
//! addresses and headers differ in few bytes. Whoever wants to change one has it unpacked, and it is packed again later.

use std::{collections::VecDeque, ops::Deref, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Dialogs, Mode,
    ahead::of_each_line,
    census::{Place, trunk_of},
    dialog::Dialog,
    hash::Fingerprint,
    keepalive::Wanted,
    record,
    refresh::Stage,
    shared::Shared,
    template::{Kind, Templates},
    timers::Timer,
    written,
};
use crate::{Names, Policy, SessionId, Time};

/// How long nobody may have spoken in a session that is packed. What is said in one breath is over by then, and nothing is lost where
/// it is not: whatever stands in a record is packed, open transactions too. A capture is read as fast as can be, and where few are
/// unpacked there is room for more.
const fn quiet(sx: &Shared, unpacked: usize) -> Duration {
    match sx.mode {
        Mode::Live if unpacked > sx.limits.unpacked => LEAST_QUIET,
        Mode::Live | Mode::Replay => Duration::from_secs(60),
    }
}

/// The shortest time for which that is.
pub(super) const LEAST_QUIET: Duration = Duration::from_secs(10);

/// A session, as it can be changed or packed; by default none.
pub(super) enum Entry {
    Open(Box<Dialog>),
    Packed(Packed),
}

/// It and its timers.
pub(super) type Whole = (Box<Dialog>, Vec<(Time, Timer)>);

/// A [`Label`], then its body.
pub(super) struct Packed(Box<[u8]>);

/// What is known of a packed session without unpacking it. Its body follows, as [`written::pack`] makes it.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Label {
    flags: u8,
    counted: Option<Place>,
    keeps: Option<Wanted>,
}

/// Bits of [`Label::flags`].
mod flag {
    /// [`super::Dialog::restored`]
    pub(super) const RESTORED: u8 = 1;
    /// [`super::Dialog::forsaken`]
    pub(super) const FORSAKEN: u8 = 2;
    /// It was taken back from its record and not unpacked since: what is done then is still to be done.
    pub(super) const UNTOUCHED: u8 = 4;
    /// [`super::Dialog::followed`]
    pub(super) const FOLLOWED: u8 = 8;
}

impl Default for Entry {
    fn default() -> Self {
        Self::Packed(Packed(Box::default()))
    }
}

impl Entry {
    /// Whether there is no session.
    pub(super) fn is_vacant(&self) -> bool {
        matches!(self, Self::Packed(packed) if packed.0.is_empty())
    }
}

impl Packed {
    #[cfg(test)]
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// For [`super::Engine::look_ahead`].
    pub(super) fn glance(&self) -> usize {
        of_each_line(&self.0)
    }

    fn label(&self) -> Option<(Label, &[u8])> {
        postcard::take_from_bytes(&self.0).ok()
    }

    /// As it stands in a record.
    pub(super) fn body(&self) -> Option<&[u8]> {
        self.label().map(|(_, body)| body)
    }

    fn has(&self, flag: u8) -> bool {
        self.label().is_some_and(|(label, _)| label.flags & flag != 0)
    }

    /// Whether it is as its record says.
    pub(super) fn is_untouched(&self) -> bool {
        self.has(flag::UNTOUCHED)
    }

    /// Whether the kernel follows the server's numbers.
    pub(super) fn is_followed(&self) -> bool {
        self.has(flag::FOLLOWED)
    }
}

/// What packs and unpacks.
#[derive(Default)]
pub(super) struct Packing {
    pub(super) templates: Templates,
    /// Those that are up and not packed, each once, and when it was made, unpacked or last looked at.
    open: VecDeque<(Time, SessionId)>,
    /// Whether what finds sessions is what their records say: by another secret they are found by something else.
    pub(super) is_known: bool,
    /// When an outage was over; sessions that were taken back are told when they are unpacked.
    pub(super) outage: Option<Time>,
    /// Room for a session's bytes, and for what they are packed into.
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Packing {
    /// How many are packed.
    pub(super) fn sessions(&self) -> usize {
        self.templates.users()
    }

    /// Those that are looked at to be packed by then.
    pub(super) fn looked_at(&self, sx: &Shared, until: Time) -> impl Iterator<Item = SessionId> {
        let quiet = quiet(sx, self.open.len());
        self.open.iter().take_while(move |(at, _)| *at + quiet <= until).map(|(_, session)| *session)
    }

    /// A session was made or unpacked.
    pub(super) fn opened(&mut self, sx: &Shared, session: SessionId) {
        self.open.push_back((sx.now, session));
    }

    /// Packs a session; `None` where it is too long.
    fn pack(&mut self, policy: &Policy, dialog: &Dialog, timers: &[(Time, Timer)]) -> Option<Packed> {
        self.plain.clear();
        self.plain = record::plain(dialog, timers, std::mem::take(&mut self.plain)).ok()?;
        let number = self.templates.serving(dialog.kind(policy), &self.plain)?;
        let flags =
            [(dialog.restored, flag::RESTORED), (dialog.forsaken, flag::FORSAKEN), (dialog.followed, flag::FOLLOWED)];
        let flags = flags.iter().map(|(is_so, bit)| u8::from(*is_so) * bit).sum();
        let label = Label { flags, counted: dialog.counted, keeps: dialog.keeps };
        self.packed.clear();
        self.packed = postcard::to_extend(&label, std::mem::take(&mut self.packed)).ok()?;
        let before = self.packed.len();
        if !written::pack(number, self.templates.bytes(number)?, &self.plain, &mut self.packed) {
            return None;
        }
        self.templates.used(number, self.packed.len() - before, self.plain.len());
        Some(Packed(self.packed.as_slice().into()))
    }

    /// Takes a session back from its record's body.
    pub(super) fn take_back(&mut self, counted: Place, followed: bool, body: &[u8]) -> Option<Packed> {
        let number = written::template_of(body)?;
        let flags = flag::RESTORED | flag::UNTOUCHED | if followed { flag::FOLLOWED } else { 0 };
        let label = Label { flags, counted: Some(counted), keeps: None };
        let mut bytes = postcard::to_extend(&label, std::mem::take(&mut self.packed)).ok()?;
        bytes.extend_from_slice(body);
        self.templates.more(number);
        let packed = Packed(bytes.as_slice().into());
        bytes.clear();
        self.packed = bytes;
        Some(packed)
    }

    /// The session, and its timers.
    pub(super) fn read(&self, packed: &Packed) -> Option<Whole> {
        let (label, body) = packed.label()?;
        self.whole(label, body)
    }

    fn whole(&self, Label { flags, counted, keeps }: Label, body: &[u8]) -> Option<Whole> {
        let plain = self.templates.unpack(body)?;
        let (mut dialog, timers) = record::whole(&plain).ok()?;
        let has = |bit| flags & bit != 0;
        (dialog.counted, dialog.keeps) = (counted, keeps);
        (dialog.restored, dialog.forsaken) = (has(flag::RESTORED), has(flag::FORSAKEN));
        if has(flag::UNTOUCHED) {
            dialog.is_taken_back();
            if let Some(outage) = self.outage {
                dialog.nobody_watched(outage);
            }
        }
        Some((dialog, timers))
    }

    /// What names it.
    pub(super) fn names(&self, packed: &Packed) -> Option<Arc<Names>> {
        record::names_in(&self.templates.unpack(packed.label()?.1)?)
    }

    /// A session, unpacked where it was packed.
    pub(super) fn open<'e>(&mut self, sx: &mut Shared, entry: &'e mut Entry) -> Option<&'e mut Box<Dialog>> {
        if let Entry::Packed(packed) = entry {
            let (label, body) = packed.label()?;
            let (mut dialog, timers) = self.whole(label, body)?;
            if let Some(number) = written::template_of(body) {
                self.templates.less(number);
            }
            self.opened(sx, dialog.id);
            sx.timers.bring_back(dialog.id, timers);
            dialog.look.share(&mut sx.own_headers);
            *entry = Entry::Open(dialog);
        }
        match entry {
            Entry::Open(dialog) => Some(dialog),
            Entry::Packed(_) => None,
        }
    }
}

/// A session to be looked at.
pub(super) enum Seen<'a> {
    Open(&'a Dialog),
    Unpacked(Box<Dialog>),
}

impl Deref for Seen<'_> {
    type Target = Dialog;

    fn deref(&self) -> &Dialog {
        match self {
            Self::Open(dialog) => dialog,
            Self::Unpacked(dialog) => dialog,
        }
    }
}

impl Dialogs {
    /// Packs those that are at rest, having looked at no more than `most`.
    pub(super) fn settle(&mut self, sx: &mut Shared, most: usize) {
        for _ in 0..most {
            let quiet = quiet(sx, self.packing.open.len());
            let Some((_, session)) = self.packing.open.pop_front_if(|(at, _)| *at + quiet <= sx.now) else { return };
            let Some(key) = self.keys.get(session) else { continue };
            if !self.pack(sx, &key, quiet) {
                self.packing.opened(sx, session);
            }
        }
    }

    /// Packs one in which nobody has spoken for so long. Whether that was done, or never can be.
    pub(super) fn pack(&mut self, sx: &mut Shared, key: &Fingerprint, quiet: Duration) -> bool {
        let Some(entry) = self.all.get_mut(key) else { return true };
        let Entry::Open(dialog) = entry else { return true };
        if dialog.is_over() {
            // It goes before long, and never is at rest.
            return true;
        }
        if !dialog.is_at_rest(sx, quiet) {
            return false;
        }
        let timers = sx.timers.put_away(dialog.id);
        match self.packing.pack(&sx.policy, dialog, &timers) {
            Some(packed) => *entry = Entry::Packed(packed),
            None => sx.timers.bring_back(dialog.id, timers),
        }
        matches!(entry, Entry::Packed(_))
    }

    /// The session, to be looked at.
    pub(super) fn see(&self, key: &Fingerprint) -> Option<Seen<'_>> {
        self.seen(self.all.get(key)?)
    }

    fn seen<'a>(&self, entry: &'a Entry) -> Option<Seen<'a>> {
        Some(match entry {
            Entry::Open(dialog) => Seen::Open(dialog),
            Entry::Packed(packed) => Seen::Unpacked(self.packing.read(packed)?.0),
        })
    }

    /// All of them, likewise.
    pub(super) fn see_all(&self) -> impl Iterator<Item = Seen<'_>> {
        self.all.iter().filter_map(|(_, entry)| self.seen(entry))
    }

    /// Those that are not packed: nothing is under way in the others.
    pub(super) fn opened(&self) -> impl Iterator<Item = &Dialog> {
        self.all.iter().filter_map(|(_, entry)| match entry {
            Entry::Open(dialog) => Some(&**dialog),
            Entry::Packed(_) => None,
        })
    }

    /// The same, to be changed.
    pub(super) fn opened_mut(&mut self) -> impl Iterator<Item = &mut Box<Dialog>> {
        self.all.iter_mut().filter_map(|(_, entry)| match entry {
            Entry::Open(dialog) => Some(dialog),
            Entry::Packed(_) => None,
        })
    }
}

impl Dialog {
    /// As what it is packed.
    pub(super) fn kind(&self, policy: &Policy) -> Kind {
        let trunk = self.counted.map_or_else(|| trunk_of(self.rules(policy).1, policy), Place::trunk);
        (trunk, self.caller)
    }

    /// Whether nothing is under way in it that its record would not tell, so that it can be packed.
    fn is_at_rest(&self, sx: &Shared, quiet: Duration) -> bool {
        self.heard + quiet <= sx.now
            && self.own.is_empty()
            && self.cycle.stage == Stage::Idle
            && self.cycle.due.is_none()
            && self.telling.is_none()
            && self.responding.is_none()
            && self.hangup.is_none()
            && !self.listed
            && !self.touched
            && self.numbers.is_on_record()
            && self.peer_numbers.is_on_record()
            && self.others.is_on_record()
    }
}
