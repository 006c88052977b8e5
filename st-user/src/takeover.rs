//! What a daemon takes over from an earlier one: its sessions from the state directory, and what the kernel has on record of
//! them.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use st_core::{
    Engine, SessionId, Side, Time,
    engine::{
        EngineConfig,
        record::{COMMON, RecordError, Restored, Unrecorded},
    },
};
use st_ebpf::key::DialogKey;
use tracing::info;

use crate::{
    clock::{Clock, monotonic_ns},
    kernel::Maps,
    leftover::Leftovers,
    store::{About, Opened},
};

/// An engine that goes on from what was written, before it is told of what happened meanwhile.
pub struct TakenOver {
    /// Knows the sessions that were written down.
    pub engine: Engine,
    /// Their time goes on in it.
    pub clock: Clock,
    /// What there is in the state directory.
    pub opened: Opened,
    /// What the records were written with; `None` where there were none, or none that can be read.
    pub before: Option<About>,
    /// Whether the host was started anew since.
    pub rebooted: bool,
    /// Requests of these sessions that have not left, by what the kernel has on record. A copy of one would go out with a number
    /// that it was refused.
    pub unsent: Vec<u64>,
    /// Sessions of which the kernel may know something.
    sessions: Vec<Restored>,
}

impl TakenOver {
    /// Reads the state directory.
    pub fn read(mut opened: Opened, config: &EngineConfig, boot: &str) -> Self {
        let mut engine: Option<Engine> = None;
        let (mut sessions, mut known) = (Vec::new(), 0_usize);
        let kept = opened.records();
        opened.read(|key, record| {
            if key == COMMON {
                engine = Engine::restored(config.clone(), record).ok();
                engine.iter_mut().for_each(|engine| engine.reserve(kept));
                return engine.is_some();
            }
            match engine.get_or_insert_with(|| Engine::new(config.clone())).restore(key, record) {
                Ok(restored) => {
                    known += usize::from(restored.is_some());
                    sessions.extend(restored.filter(|restored| restored.followed || !restored.tokens.is_empty()));
                    true
                }
                // It is whole; there is no use for it.
                Err(RecordError::Full | RecordError::Twice) => true,
                Err(RecordError::Damaged | RecordError::Version(_)) => false,
            }
        });
        let before = opened.about.take();
        let rebooted = before.as_ref().is_some_and(|about| about.boot != boot);
        // Deadlines are on the scale of the clock that they were made with.
        let mut clock = match &before {
            Some(about) if !rebooted && known > 0 => Clock::resume(about.offset_ns),
            Some(_) | None => Clock::start(),
        };
        clock.look();
        let engine = engine.unwrap_or_else(|| Engine::new(config.clone()));
        if known > 0 {
            info!(sessions = known, "calls of an earlier run's are known again");
        }
        Self { engine, clock, opened, before, rebooted, unsent: Vec::new(), sessions }
    }

    /// Brings sessions and kernel together. Requests on record that no session knows are taken over where they have left;
    /// nobody waits for the answers to the others, which are taken off the wire all the same. A 2xx to a re-INVITE of these
    /// must be ACKed, though, or it ends the call (R44): the programs do that.
    pub fn match_kernel(&mut self, maps: &mut Maps) -> Leftovers {
        let mut known: HashSet<u64> = self.sessions.iter().flat_map(|restored| &restored.tokens).copied().collect();
        let followed: HashSet<DialogKey> = maps.dialogs().into_iter().collect();
        let requests = maps.requests();
        let on_record: HashSet<DialogKey> =
            requests.iter().map(|request| request.dialog).chain(followed.iter().copied()).collect();
        let mut found =
            Found { maps, followed: &followed, on_record: &on_record, dialogs: HashMap::new(), peers: HashSet::new() };
        // First those that say that the kernel knows of them.
        self.sessions.iter().for_each(|restored| found.look(&mut self.engine, restored.session));
        // What the kernel knows beyond that was done between the last writing and the end. It can be any session's, and one's own request
        // a fork's: all have to be looked at.
        if !on_record.iter().all(|key| found.is_told(key)) || requests.iter().any(|one| !known.contains(&one.token)) {
            let told: HashSet<SessionId> = self.sessions.iter().map(|restored| restored.session).collect();
            let others = self.engine.all_sessions().into_iter().filter(|session| !told.contains(session));
            others.for_each(|session| found.look(&mut self.engine, session));
        }
        let dialogs = found.dialogs;
        let tokens = self.sessions.iter().flat_map(|restored| &restored.tokens).copied();
        self.unsent = tokens.filter(|token| !maps.has_left(*token)).collect();
        let at = self.last_sign(maps);
        let mut adopted = 0_usize;
        for request in requests {
            if known.contains(&request.token) {
                continue;
            }
            let Some([session]) = dialogs.get(&request.dialog).map(Vec::as_slice) else { continue };
            let ack = request.reinvite.as_ref().map(|(_, ack)| ack.token);
            let (token, number) = (request.token, request.number);
            if self.engine.adopt(*session, Unrecorded { token, number, at, reinvite: request.reinvite }) {
                known.extend([Some(token), ack].into_iter().flatten());
                adopted += 1;
            }
        }
        if adopted > 0 {
            info!(requests = adopted, "requests that an earlier run had sent last are known again");
        }
        let orphans = maps.orphan_others(&known);
        if !orphans.is_empty() {
            info!(
                reinvites = orphans.len() / 2,
                "re-INVITEs of an earlier run's may still be answered, and are ACKed then"
            );
        }
        let others = followed.into_iter().filter(|key| !dialogs.contains_key(key));
        // Without moving the clock on: records from before the start must keep their time.
        Leftovers::new(self.clock.past(monotonic_ns()), others, orphans)
    }

    /// When an earlier daemon was last alive: by then its requests had left.
    fn last_sign(&self, maps: &Maps) -> Time {
        let beat = maps.last_beat().ok().flatten();
        self.clock.past(beat.unwrap_or_else(monotonic_ns))
    }
}

/// Which sessions are those that the kernel knows something of.
struct Found<'a> {
    maps: &'a Maps,
    followed: &'a HashSet<DialogKey>,
    on_record: &'a HashSet<DialogKey>,
    /// Forks of one INVITE of the server's have one entry together. Whose an unrecorded request was is then not known: it is
    /// left to the programs, which ACK its 2xx, and the refresh comes again.
    dialogs: HashMap<DialogKey, Vec<SessionId>>,
    /// What stands for the peers' numbers.
    peers: HashSet<DialogKey>,
}

impl Found<'_> {
    /// Tells a session whether its numbers are followed.
    fn look(&mut self, engine: &mut Engine, session: SessionId) {
        let Some(names) = engine.names(session) else { return };
        let Ok(key) = self.maps.key(names.call_id(), names.local_tag(), Side::Server) else { return };
        engine.set_followed(session, self.followed.contains(&key));
        if self.on_record.contains(&key) {
            self.dialogs.entry(key).or_default().push(session);
        }
        self.peers.extend(self.maps.key(names.call_id(), names.remote_tag(), Side::Peer));
    }

    /// Whether it is a session's.
    fn is_told(&self, key: &DialogKey) -> bool {
        self.dialogs.contains_key(key) || self.peers.contains(key)
    }
}

/// Which boot of the host this is.
pub fn boot() -> String {
    // Where that cannot be told, it is taken for the same one.
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into()
}
