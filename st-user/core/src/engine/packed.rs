//! Sessions in which nothing happens for a while, made small: most of a call's life is silence. What stands in their records is
//! kept in place of them, written as what it differs in from another session's of the same trunk: a trunk's session descriptions,
//! addresses and headers differ in few bytes. Whoever wants to change one has it unpacked, and it is packed again later.

use std::{collections::VecDeque, ops::Deref, time::Duration};

use lz4_flex::block::{compress_into_with_dict, decompress_into_with_dict, get_maximum_output_size};
use serde::{Deserialize, Serialize};

use super::{
    Dialogs, Mode,
    census::Place,
    dialog::Dialog,
    hash::Fingerprint,
    keepalive::Wanted,
    limits::{MAX_PACKED, MAX_TEMPLATES},
    record::{Behind, sealed},
    refresh::Stage,
    shared::Shared,
    timers::Timer,
};
use crate::{SessionId, Side, Time};

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

/// So many sessions in a row that a template does not make half as small want another one.
const POOR: u8 = 16;

/// A session, as it can be changed or packed.
pub(super) enum Entry {
    Open(Box<Dialog>),
    Packed(Packed),
}

/// It and its timers.
type Whole = (Box<Dialog>, Vec<(Time, Timer)>);

/// A [`Head`], then LZ4.
pub(super) struct Packed(Box<[u8]>);

/// What stands in front of LZ4's bytes.
struct Head {
    /// The number of the template.
    template: u16,
    /// Of the bytes that were packed.
    length: u16,
}

impl Head {
    const LENGTH: usize = 4;

    fn bytes(&self) -> [u8; Self::LENGTH] {
        let ([a, b], [c, d]) = (self.template.to_le_bytes(), self.length.to_le_bytes());
        [a, b, c, d]
    }

    fn of(packed: &Packed) -> Option<Self> {
        let &[a, b, c, d] = packed.0.first_chunk::<{ Self::LENGTH }>()?;
        Some(Self { template: u16::from_le_bytes([a, b]), length: u16::from_le_bytes([c, d]) })
    }
}

/// What does not stand among the fields of a session's record.
#[derive(Serialize, Deserialize)]
struct Label {
    counted: Option<Place>,
    keeps: Option<Wanted>,
    restored: bool,
    forsaken: bool,
    behind: Behind,
}

/// A session of which others are written as what they differ in.
struct Template {
    /// Of which trunk, and who called.
    of: (u32, Side),
    bytes: Box<[u8]>,
    /// Sessions that are written so.
    users: usize,
    /// How many in a row it was of little use to.
    poor: u8,
}

/// What packs and unpacks.
#[derive(Default)]
pub(super) struct Packing {
    templates: Vec<Template>,
    /// Those that are up and not packed, each once, and when it was made, unpacked or last looked at.
    open: VecDeque<(Time, SessionId)>,
    /// Room for a session's bytes, and for what they are packed into.
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Packing {
    /// How many are packed.
    pub(super) fn sessions(&self) -> usize {
        self.templates.iter().map(|template| template.users).sum()
    }

    /// A session was made or unpacked.
    pub(super) fn opened(&mut self, sx: &Shared, session: SessionId) {
        self.open.push_back((sx.now, session));
    }

    /// The place of the template for such a session: the youngest one, unless that is of little use. One that is not there yet, or is to
    /// take another's place, is made of the session's own bytes.
    fn template(&mut self, of: (u32, Side)) -> Option<usize> {
        let found = self.templates.iter().rposition(|template| template.of == of);
        let serves = |at: &usize| self.templates[*at].poor < POOR;
        if let Some(at) = found.filter(serves) {
            return Some(at);
        }
        let fresh = Template { of, bytes: self.plain.as_slice().into(), users: 0, poor: 0 };
        if self.templates.len() < MAX_TEMPLATES {
            self.templates.push(fresh);
            return Some(self.templates.len() - 1);
        }
        let unused = self.templates.iter().position(|template| template.users == 0);
        if let Some(at) = unused {
            self.templates[at] = fresh;
        }
        // Any is better than none.
        unused.or(found).or(Some(0))
    }

    /// Writes a session into `plain`.
    fn write(&mut self, dialog: &Dialog, timers: &[(Time, Timer)]) -> postcard::Result<()> {
        let label = Label {
            counted: dialog.counted,
            keeps: dialog.keeps,
            restored: dialog.restored,
            forsaken: dialog.forsaken,
            behind: Behind::of(dialog),
        };
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        plain = postcard::to_extend(&(dialog, timers), postcard::to_extend(&label, plain)?)?;
        self.plain = plain;
        Ok(())
    }

    /// Packs what stands in `plain`; `None` where it is too long.
    fn pack(&mut self, trunk: u32, caller: Side) -> Option<Packed> {
        let length = u16::try_from(self.plain.len()).ok().filter(|length| usize::from(*length) <= MAX_PACKED)?;
        let at = self.template((trunk, caller))?;
        let head = Head { template: u16::try_from(at).ok()?, length };
        self.packed.resize(Head::LENGTH + get_maximum_output_size(self.plain.len()), 0);
        let (front, room) = self.packed.split_at_mut(Head::LENGTH);
        front.copy_from_slice(&head.bytes());
        let template = &mut self.templates[at];
        let packed = compress_into_with_dict(&self.plain, room, &template.bytes).ok()?;
        template.poor = if packed * 2 > self.plain.len() { template.poor.saturating_add(1) } else { 0 };
        template.users += 1;
        Some(Packed(self.packed[..Head::LENGTH + packed].into()))
    }

    /// What was packed.
    fn unpack(&self, packed: &Packed) -> Option<Vec<u8>> {
        let Head { template, length, .. } = Head::of(packed)?;
        let template = self.templates.get(usize::from(template))?;
        let mut plain = vec![0; length.into()];
        let unpacked = decompress_into_with_dict(&packed.0[Head::LENGTH..], &mut plain, &template.bytes).ok()?;
        (unpacked == usize::from(length)).then_some(plain)
    }

    /// A packed session is no more.
    fn gone(&mut self, packed: &Packed) {
        let template = Head::of(packed).and_then(|head| self.templates.get_mut(usize::from(head.template)));
        if let Some(template) = template {
            template.users = template.users.saturating_sub(1);
        }
    }

    /// The session, and its timers.
    fn read(&self, packed: &Packed) -> Option<Whole> {
        let plain = self.unpack(packed)?;
        let (label, record): (Label, _) = postcard::take_from_bytes(&plain).ok()?;
        let (mut dialog, timers): (Box<Dialog>, _) = postcard::from_bytes(record).ok()?;
        (dialog.counted, dialog.keeps) = (label.counted, label.keeps);
        (dialog.restored, dialog.forsaken) = (label.restored, label.forsaken);
        label.behind.put_into(&mut dialog);
        Some((dialog, timers))
    }

    /// A session, unpacked where it was packed.
    pub(super) fn open<'e>(&mut self, sx: &mut Shared, entry: &'e mut Entry) -> Option<&'e mut Box<Dialog>> {
        if let Entry::Packed(packed) = entry {
            let (mut dialog, timers) = self.read(packed)?;
            self.gone(packed);
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

    /// The session's record.
    pub(super) fn record(&self, packed: &Packed) -> Option<Vec<u8>> {
        let plain = self.unpack(packed)?;
        let (label, fields): (Label, _) = postcard::take_from_bytes(&plain).ok()?;
        Some(sealed(fields, label.behind))
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
            let Some(key) = self.keys.get(&session).copied() else { continue };
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
        let trunk = dialog.counted.map_or(u32::MAX, |place| place.trunk());
        let timers = sx.timers.put_away(dialog.id);
        let written = self.packing.write(dialog, &timers);
        let packed = written.ok().and_then(|()| self.packing.pack(trunk, dialog.caller));
        match packed {
            Some(packed) => *entry = Entry::Packed(packed),
            None => sx.timers.bring_back(dialog.id, timers),
        }
        matches!(entry, Entry::Packed(_))
    }

    /// The session, to be looked at.
    pub(super) fn see(&self, key: &Fingerprint) -> Option<Seen<'_>> {
        Some(match self.all.get(key)? {
            Entry::Open(dialog) => Seen::Open(dialog),
            Entry::Packed(packed) => Seen::Unpacked(self.packing.read(packed)?.0),
        })
    }

    /// All of them, likewise.
    pub(super) fn see_all(&self) -> impl Iterator<Item = Seen<'_>> {
        self.all.keys().filter_map(|key| self.see(key))
    }

    /// Those that are not packed: nothing is under way in the others.
    pub(super) fn opened(&self) -> impl Iterator<Item = &Dialog> {
        self.all.values().filter_map(|entry| match entry {
            Entry::Open(dialog) => Some(&**dialog),
            Entry::Packed(_) => None,
        })
    }

    /// The same, to be changed.
    pub(super) fn opened_mut(&mut self) -> impl Iterator<Item = &mut Box<Dialog>> {
        self.all.values_mut().filter_map(|entry| match entry {
            Entry::Open(dialog) => Some(dialog),
            Entry::Packed(_) => None,
        })
    }
}

impl Dialog {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(packing: &mut Packing, trunk: usize, text: &str) -> Packed {
        packing.plain.clear();
        packing.plain.extend_from_slice(text.as_bytes());
        packing.pack(u32::try_from(trunk).unwrap(), Side::Server).unwrap()
    }

    /// Bytes in which nothing repeats.
    fn noise(seed: u32) -> String {
        let mut state = seed;
        let mut letter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b' ' + u8::try_from(state >> 26).unwrap())
        };
        (0..500).map(|_| letter()).collect()
    }

    #[test]
    fn what_is_alike_is_written_once() {
        let mut packing = Packing::default();
        let first = noise(1);
        let all: Vec<_> = (0..100).map(|number| format!("{first}{number}")).collect();
        let packed: Vec<_> = all.iter().map(|text| pack(&mut packing, 0, text)).collect();
        assert!(packed.iter().all(|packed| packed.0.len() < 30));
        for (packed, text) in packed.iter().zip(&all) {
            assert_eq!(packing.unpack(packed).unwrap(), text.as_bytes());
        }
        assert_eq!((packing.templates.len(), packing.sessions()), (1, 100));
    }

    #[test]
    fn a_template_that_is_of_no_more_use_is_followed_by_another() {
        let mut packing = Packing::default();
        let old = pack(&mut packing, 0, &noise(1));
        for _ in 0..POOR {
            assert!(pack(&mut packing, 0, &noise(2)).0.len() > 300);
        }
        assert!(pack(&mut packing, 0, &noise(2)).0.len() < 30);
        assert_eq!(packing.unpack(&old).unwrap(), noise(1).as_bytes());
    }

    #[test]
    fn with_more_trunks_than_templates_others_serve_until_one_is_not_in_use() {
        let mut packing = Packing::default();
        let all: Vec<_> = (0..MAX_TEMPLATES + 3).map(|trunk| pack(&mut packing, trunk, &noise(3))).collect();
        assert_eq!((packing.templates.len(), packing.sessions()), (MAX_TEMPLATES, all.len()));
        assert!(all.iter().all(|packed| packing.unpack(packed).unwrap() == noise(3).as_bytes()));
        packing.gone(&all[7]);
        pack(&mut packing, MAX_TEMPLATES + 3, &noise(4));
        assert_eq!(&*packing.templates[7].bytes, noise(4).as_bytes());
    }
}
