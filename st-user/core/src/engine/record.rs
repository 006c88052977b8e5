//! What an engine knows, as bytes that outlive it. [`Engine::poll_change`] says what has changed; [`Engine::restored`] and
//! [`Engine::restore`] take it back. Whoever keeps the records needs no idea of what is in them.
//!
//! A record is [`VERSION`], the fields in the encoding of postcard, and a checksum. In a session's these are packed
//! (module `written`), and in front of them stands what is needed to leave them so (module `asleep`).

use std::{
    borrow::Cow,
    hash::{BuildHasher as _, Hasher as _},
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Dialogs, Engine, EngineConfig,
    aside::Aside,
    asleep::Front,
    dialog::{Dialog, Ids},
    habits::Habit,
    hash::{Fingerprint, Secret},
    packed::{Entry, Whole},
    reason,
    shared::Ways,
    target::OwnHeaders,
    template::Said,
    timers::Timer,
    written::Body,
};
use crate::{Breach, Names, ReadyAck, Refusal, SessionId, Side, Time, build::REPEATED};

pub use super::{
    changes::{Change, MAX_GONE},
    written::Record,
};

/// Raised with every change of what stands in a record.
pub const VERSION: u8 = 5;

/// The version before, which is read too: it has another checksum.
pub const BEFORE: u8 = 4;

/// The one before that, likewise: a session's fields stand in it as they are.
pub const UNPACKED: u8 = 3;

/// Length of the checksum, in bytes.
pub(super) const SUM: usize = 4;

/// The same of versions before this one.
const SUM_BEFORE: usize = 8;

/// The key of what all sessions have in common. No session has it.
pub const COMMON: u64 = 0;

/// The first key of what sessions are packed by, and no session has it or one behind it: to be taken back before them.
pub const TEMPLATES: u64 = u64::MAX - u16::MAX as u64;

/// Why a record is not taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another version wrote it.
    #[error("a record of version {0}, where {VERSION} is read")]
    Version(u8),
    /// It is not as it was written.
    #[error("a damaged record")]
    Damaged,
    /// There are as many sessions as there may be.
    #[error("more sessions than are followed")]
    Full,
    /// That session is there.
    #[error("a second record of a session")]
    Twice,
}

/// A session that was restored, as far as its driver has to know it.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Which session: [`Engine::names`] tells its identifiers and addresses.
    pub session: SessionId,
    /// Whether the kernel was to follow its numbers.
    pub followed: bool,
    /// The tokens of its requests and ACKs that are on record.
    pub tokens: Vec<u64>,
}

/// A request of sipst's own that is on record in the kernel, and of which the session's record says nothing: it left
/// between the last writing and the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrecorded {
    /// Its token.
    pub token: u64,
    /// The number that it took.
    pub number: u32,
    /// About when it left.
    pub at: Time,
    /// Where a re-INVITE went, and the ACK for its 2xx; `None` for an UPDATE.
    pub reinvite: Option<(SocketAddr, ReadyAck)>,
}

/// What all sessions have in common.
#[derive(Serialize, Deserialize)]
struct Common {
    secret: Secret,
    losses: u64,
    peers: Vec<(SocketAddr, Ways)>,
    servers: Vec<(SocketAddr, u8)>,
    habits: Vec<(Fingerprint, Habit)>,
}

impl Engine {
    /// What is to be written of a session.
    pub(super) fn record(&mut self, session: SessionId) -> Option<Record> {
        let Self { sx, dialogs: Dialogs { all, keys, packing, .. }, .. } = self;
        let key = keys.get(session)?;
        match all.get(&key)? {
            Entry::Open(dialog) => {
                let timers = sx.timers.of(session);
                let plain = plain(dialog, timers, Vec::new()).ok()?;
                let front = Front::of(sx, key, dialog, timers).sealed()?;
                let number = packing.templates.serving(dialog.kind(&sx.policy), &plain)?;
                let template = packing.templates.share(number)?;
                Some(Record { front, body: Body::Plain { number, template, plain } })
            }
            Entry::Packed(packed) => {
                let (dialog, timers) = packing.read(packed)?;
                let front = Front::of(sx, key, &dialog, &timers).sealed()?;
                Some(Record { front, body: Body::Packed(packed.body()?.to_vec()) })
            }
        }
    }

    /// An engine that knows what the sessions of an earlier one had in common; [`Engine::restore`] brings these back. Each
    /// of them may be over, until it is heard of.
    ///
    /// # Errors
    /// The record is of another version, or damaged.
    pub fn restored(config: EngineConfig, common: &[u8]) -> Result<Self, RecordError> {
        let Common { secret, losses, peers, servers, habits } = open(common)?;
        let mut engine = Self::with(config, secret);
        engine.dialogs.packing.is_known = true;
        let sx = &mut engine.sx;
        sx.losses = losses;
        peers.into_iter().for_each(|(peer, ways)| sx.peers.insert(peer, ways));
        servers.into_iter().for_each(|(server, spaces)| sx.servers.insert(server, spaces));
        habits.into_iter().for_each(|(key, habit)| sx.habits.insert(key, habit));
        Ok(engine)
    }

    /// Makes room for so many sessions that are to be taken back, no more than there may be.
    pub fn reserve(&mut self, sessions: usize) {
        let more = sessions.min(self.sx.limits.sessions).saturating_sub(self.dialogs.all.len());
        self.dialogs.all.reserve(more);
        self.sx.timers.reserve(more);
    }

    /// Takes a session back, with its timers, or what stands under one of [`TEMPLATES`]: `None`. Its time goes on from where its
    /// record ends: what happened since can be told by [`Engine::handle_packet`], and comes before [`crate::Command::Outage`].
    ///
    /// # Errors
    /// The record is of another version or damaged, or there is no room.
    pub fn restore(&mut self, key: u64, record: &[u8]) -> Result<Option<Restored>, RecordError> {
        if let Some(number) = key.checked_sub(TEMPLATES) {
            let said: Said<'_> = open(record)?;
            let number = u16::try_from(number).map_err(|_| RecordError::Damaged)?;
            let taken = self.dialogs.packing.templates.take_back(number, &said);
            return if taken { Ok(None) } else { Err(RecordError::Damaged) };
        }
        let (version, fields) = fields(record)?;
        if self.dialogs.all.len() >= self.sx.limits.sessions {
            return Err(RecordError::Full);
        }
        if self.dialogs.keys.get(SessionId(key)).is_some() {
            return Err(RecordError::Twice);
        }
        if version == UNPACKED {
            return self.awaken(key, fields).map(Some);
        }
        let (front, body): (Front<'_>, _) = postcard::take_from_bytes(fields).map_err(|_| RecordError::Damaged)?;
        let templates = &mut self.dialogs.packing.templates;
        if front.id() != SessionId(key) || !templates.serve(body) {
            return Err(RecordError::Damaged);
        }
        if let Some(restored) = self.leave_asleep(&front, body)? {
            return Ok(Some(restored));
        }
        let plain = self.dialogs.packing.templates.unpack(body).ok_or(RecordError::Damaged)?;
        self.awaken(key, &plain).map(Some)
    }

    /// Takes a session back as one in which something is under way.
    fn awaken(&mut self, id: u64, plain: &[u8]) -> Result<Restored, RecordError> {
        let (mut dialog, timers) = whole(plain)?;
        if dialog.id.0 != id {
            return Err(RecordError::Damaged);
        }
        let (id, names) = (dialog.id, Arc::clone(&dialog.names));
        let ids = Ids { call_id: names.call_id(), local: names.local_tag(), remote: names.remote_tag() };
        let key = self.key(ids);
        if self.dialogs.all.contains_key(&key) {
            return Err(RecordError::Twice);
        }
        let sx = &mut self.sx;
        sx.now = sx.now.max(dialog.heard);
        dialog.restored = true;
        dialog.is_taken_back();
        dialog.look.share(&mut sx.own_headers);
        dialog.watch_again(sx);
        let tokens: Vec<u64> = dialog.own.iter().flat_map(super::own::Own::tokens).collect();
        sx.tokens.extend(tokens.iter().map(|token| (*token, id)));
        timers.into_iter().for_each(|(at, timer)| sx.timers.set(id, timer, at));
        let followed = dialog.followed;
        for side in [Side::Server, Side::Peer] {
            if std::mem::take(dialog.follows(side)) {
                dialog.follow(sx, side);
            }
        }
        dialog.mark(sx);
        self.next = self.next.max(id.0.saturating_add(1));
        self.dialogs.insert(&self.sx, key, *dialog);
        Ok(Restored { session: id, followed, tokens })
    }

    /// All sessions that are not forgotten, in the order of their age.
    pub fn all_sessions(&self) -> Vec<SessionId> {
        self.dialogs.keys.iter().map(|(session, _)| session).collect()
    }

    /// The identifiers and addresses of a session.
    pub fn names(&self, session: SessionId) -> Option<Arc<Names>> {
        match self.dialogs.all.get(&self.dialogs.keys.get(session)?)? {
            Entry::Open(dialog) => Some(Arc::clone(&dialog.names)),
            Entry::Packed(packed) => self.dialogs.packing.names(packed),
        }
    }

    /// Says of a restored session whether the kernel still has its numbers. Where they are lost, nothing is sent in it any
    /// more.
    pub fn set_followed(&mut self, session: SessionId, is_followed: bool) {
        let entry = self.dialogs.keys.get(session).and_then(|key| self.dialogs.all.get(&key));
        if matches!(entry, Some(Entry::Packed(packed)) if packed.is_followed() == is_followed) {
            return;
        }
        if let Some(dialog) = self.dialogs.of(&mut self.sx, session) {
            dialog.set_followed(&mut self.sx, is_followed);
        }
    }

    /// Takes in a request of sipst's own of which a restored session's record says nothing. False: there is no such session,
    /// or no room.
    pub fn adopt(&mut self, session: SessionId, unrecorded: Unrecorded) -> bool {
        let dialog = self.dialogs.of(&mut self.sx, session);
        dialog.is_some_and(|dialog| dialog.take_in(&mut self.sx, unrecorded))
    }

    pub(super) fn common(&self) -> Record {
        let sx = &self.sx;
        seal(&Common {
            secret: sx.secret,
            losses: sx.losses,
            peers: sx.peers.by_use().into_iter().map(|(peer, ways)| (*peer, *ways)).collect(),
            servers: sx.servers.by_use().into_iter().map(|(server, spaces)| (*server, *spaces)).collect(),
            habits: sx.habits.by_use().into_iter().map(|(key, habit)| (*key, *habit)).collect(),
        })
    }
}

/// What stands behind all else in a record, one bit each, and only where any of it is true.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Behind(u8);

impl Behind {
    const HELD: u8 = 1;
    const ASSISTED: u8 = 2;
    const ASIDE_CONTACT: u8 = 4;
    const ASIDE_SDP: u8 = 8;
    const STREAMED: u8 = 16;

    pub(super) fn put_into(self, dialog: &mut Dialog) {
        let has = |bit| self.0 & bit != 0;
        (dialog.held, dialog.assisted) = (has(Self::HELD), has(Self::ASSISTED));
        dialog.aside = Aside { contact: has(Self::ASIDE_CONTACT), sdp: has(Self::ASIDE_SDP) };
        // So it was written by earlier versions.
        let barred = dialog.barred.take_if(|why| *why == reason::OVER_TCP).is_some();
        if has(Self::STREAMED) || barred {
            dialog.was_streamed();
        }
    }

    pub(super) fn of(dialog: &Dialog) -> Self {
        let bits = [
            (dialog.held, Self::HELD),
            (dialog.assisted, Self::ASSISTED),
            (dialog.aside.contact, Self::ASIDE_CONTACT),
            (dialog.aside.sdp, Self::ASIDE_SDP),
            (dialog.streamed.is_some(), Self::STREAMED),
        ];
        Self(bits.iter().map(|(is_so, bit)| u8::from(*is_so) * bit).sum())
    }
}

impl<'de> Deserialize<'de> for Behind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(u8::deserialize(deserializer).unwrap_or(0)))
    }
}

pub(super) fn seal(fields: &impl Serialize) -> Record {
    // Writing to memory fails for nothing that is in a record: all lengths are known.
    Record { front: postcard::to_extend(fields, vec![VERSION]).unwrap_or_default(), body: Body::None }
}

/// A session's fields, behind what stands in `to`.
pub(super) fn plain(dialog: &Dialog, timers: &[(Time, Timer)], to: Vec<u8>) -> postcard::Result<Vec<u8>> {
    let mut bytes = postcard::to_extend(&(dialog, timers), to)?;
    let Behind(behind) = Behind::of(dialog);
    bytes.extend((behind != 0).then_some(behind));
    Ok(bytes)
}

/// A session and its timers.
pub(super) fn whole(plain: &[u8]) -> Result<Whole, RecordError> {
    match postcard::take_from_bytes::<(Box<Dialog>, Vec<(Time, Timer)>, Behind)>(plain) {
        Ok(((mut dialog, timers, behind), [])) => {
            behind.put_into(&mut dialog);
            Ok((dialog, timers))
        }
        Ok(_) | Err(_) => Err(RecordError::Damaged),
    }
}

/// What names it, which is what begins it.
pub(super) fn names_in(plain: &[u8]) -> Option<Arc<Names>> {
    #[derive(Deserialize)]
    struct Named(#[allow(dead_code, reason = "it comes first")] SessionId, #[serde(with = "names")] Arc<Names>);
    postcard::take_from_bytes::<Named>(plain).ok().map(|(named, _)| named.1)
}

pub(super) fn sum_up(bytes: &mut Vec<u8>) {
    bytes.extend(sum(bytes));
}

/// A record's version, and what stands behind that.
fn fields(record: &[u8]) -> Result<(u8, &[u8]), RecordError> {
    let version = *record.first().ok_or(RecordError::Damaged)?;
    // The checksum first: a damaged first byte is no other version.
    let rest = if version < VERSION {
        record.split_last_chunk::<SUM_BEFORE>().filter(|(rest, last)| sum_before(rest) == **last).map(|(rest, _)| rest)
    } else {
        record.split_last_chunk::<SUM>().filter(|(rest, last)| sum(rest) == **last).map(|(rest, _)| rest)
    };
    let fields = rest.and_then(|rest| rest.get(1..)).ok_or(RecordError::Damaged)?;
    if ![UNPACKED, BEFORE, VERSION].contains(&version) {
        return Err(RecordError::Version(version));
    }
    Ok((version, fields))
}

fn open<'r, T: Deserialize<'r>>(record: &'r [u8]) -> Result<T, RecordError> {
    match postcard::take_from_bytes(fields(record)?.1) {
        Ok((fields, [])) => Ok(fields),
        Ok(_) | Err(_) => Err(RecordError::Damaged),
    }
}

/// Against accidents, not against whoever can write the records.
fn sum(bytes: &[u8]) -> [u8; SUM] {
    crc32fast::hash(bytes).to_le_bytes()
}

/// The same of versions before this one.
fn sum_before(bytes: &[u8]) -> [u8; SUM_BEFORE] {
    /// It takes longer to make than most records to sum up.
    static KEY: LazyLock<Secret> = LazyLock::new(|| Secret::new(0));
    let mut hash = KEY.build_hasher();
    hash.write(bytes);
    hash.write_u64(bytes.len() as u64);
    hash.finish().to_le_bytes()
}

/// What names a dialog.
pub(super) mod names {
    use serde_bytes::Bytes;

    use super::{Arc, Deserialize, Deserializer, Names, Serialize, Serializer, SocketAddr};

    pub(in crate::engine) fn serialize<S: Serializer>(names: &Arc<Names>, serializer: S) -> Result<S::Ok, S::Error> {
        let [call_id, local, remote] = [names.call_id(), names.local_tag(), names.remote_tag()].map(Bytes::new);
        let parts = (call_id, local, remote, names.server, names.peer);
        parts.serialize(serializer)
    }

    pub(in crate::engine) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Names>, D::Error> {
        type Parts<'de> = (&'de Bytes, &'de Bytes, &'de Bytes, SocketAddr, SocketAddr);
        let (call_id, local, remote, server, peer) = Parts::deserialize(deserializer)?;
        Ok(Arc::new(Names::new(call_id, local, remote, server, peer)))
    }
}

/// The server's own headers, each named by its place in [`REPEATED`].
pub(super) mod headers {
    use serde::de::Error as _;
    use serde_bytes::Bytes;

    use super::{Arc, Deserialize, Deserializer, OwnHeaders, REPEATED, Serializer};

    pub(in crate::engine) fn serialize<S: Serializer>(own: &OwnHeaders, serializer: S) -> Result<S::Ok, S::Error> {
        let place = |name| REPEATED.iter().position(|known| *known == name).unwrap_or(REPEATED.len());
        serializer.collect_seq(own.iter().map(|(name, value)| (place(*name), Bytes::new(value))))
    }

    pub(in crate::engine) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OwnHeaders, D::Error> {
        let own = Vec::<(usize, &Bytes)>::deserialize(deserializer)?;
        let named = |(place, value): (usize, &Bytes)| REPEATED.get(place).map(|name| (*name, value[..].into()));
        own.into_iter().map(named).collect::<Option<_>>().map(Arc::new).ok_or_else(|| D::Error::custom("a header"))
    }
}

/// Words of [`reason`], which the engine has as constants.
pub(super) mod words {
    use serde::de::Error;

    use super::{Breach, Cow, Deserialize, Deserializer, Refusal, Side, reason};

    /// As a field's type it keeps serde from wanting to borrow the word from the record.
    pub(in crate::engine) type Word = &'static str;

    type Text = Cow<'static, str>;

    fn known<E: Error>(text: &str) -> Result<&'static str, E> {
        let reasons = reason::ALL.iter().map(|(word, _)| *word);
        let refusals = Refusal::ALL.iter().map(|refusal| refusal.reason());
        reasons.chain(refusals).find(|word| *word == text).ok_or_else(|| E::custom("no reason of this version's"))
    }

    pub(in crate::engine) fn breaches<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Breach>, D::Error> {
        let all = Vec::<(Side, Text)>::deserialize(deserializer)?;
        all.into_iter().map(|(by, text)| Ok(Breach { by, reason: known(&text)? })).collect()
    }

    pub(in crate::engine) fn maybe<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<&'static str>, D::Error> {
        Option::<Text>::deserialize(deserializer)?.map(|text| known(&text)).transpose()
    }

    pub(in crate::engine) fn many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'static str>, D::Error> {
        Vec::<Text>::deserialize(deserializer)?.iter().map(|text| known(text)).collect()
    }

    pub(in crate::engine) fn with_status<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<(&'static str, Option<u16>)>, D::Error> {
        let why = Option::<(Text, Option<u16>)>::deserialize(deserializer)?;
        why.map(|(text, status)| known(&text).map(|word| (word, status))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MethodName, Role};

    /// Places in a list that stand in records: they may be added to at their ends, and nowhere else.
    #[test]
    fn what_stands_in_records_by_its_place_keeps_it() {
        let place = |bytes: Vec<u8>| bytes[0];
        let of = |method: MethodName| place(postcard::to_allocvec(&method).unwrap());
        assert_eq!(
            [MethodName::Invite, MethodName::Update, MethodName::Publish, MethodName::Other].map(of),
            [0, 4, 13, 14]
        );
        let of = |timer: Timer| place(postcard::to_allocvec(&timer).unwrap());
        assert_eq!([Timer::Retransmit(1), Timer::Retire(1), Timer::Act, Timer::Forget].map(of), [0, 3, 7, 11]);
        assert_eq!([Timer::Tell, Timer::Ignored, Timer::TakeOver, Timer::Answer].map(of), [12, 13, 14, 15]);
        assert_eq!(place(postcard::to_allocvec(&Role::Uas).unwrap()), 1);
        let names: Vec<&str> = REPEATED.iter().map(|header| header.name()).collect();
        let known = [
            "Allow",
            "Supported",
            "User-Agent",
            "P-Asserted-Identity",
            "P-Preferred-Identity",
            "Privacy",
            "Session-ID",
        ];
        assert_eq!(names[..known.len()], known);
    }
}
