//! The maps, typed, with the rules for who writes what.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap as Table, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use rand::RngExt as _;
use st_core::{ReadyAck, Refusal, Side};
use st_ebpf::{
    abi::{self, Ack, Counter, Latest, Ports, Settings, Shift, Token, mapped, names},
    cseq::State,
    key::{DialogKey, Whose},
    plan::{Connection, PLANS, Plan},
};

use super::{KernelError, error::errno, pins::Pins};
use crate::config;

/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

/// `BPF_EXIST`.
const EXIST: u64 = 2;

/// Name, size of a key, size of a value, number of elements (bytes, for the ring) of every map that is pinned.
pub(crate) const SHAPES: [(&str, usize, usize, usize); 12] = [
    (names::SETTINGS, 4, size_of::<Settings>(), 1),
    (names::RING, 0, 0, abi::RING_BYTES as usize),
    (names::COUNTERS, 4, 8, Counter::ALL.len()),
    (names::SHIFTS, 8, size_of::<Shift>(), abi::SHIFTS as usize),
    (names::SHIFTED, 16, 8, abi::SHIFTED_HOSTS as usize),
    (names::LATEST, 8, size_of::<Latest>(), abi::LATEST as usize),
    (names::TOKENS, 8, size_of::<Token>(), abi::TOKENS as usize),
    (names::ACKS, 8, size_of::<Ack>(), abi::ACKS as usize),
    (names::HEARTBEAT, 4, 8, 1),
    (names::PLANS, size_of::<Connection>(), size_of::<Plan>(), PLANS as usize),
    (names::ACTING, 4, 4, 2),
    (names::JOINED, 4, 4, 2),
];

/// Whether the maps that are pinned are of the shape that the programs expect: aya takes them as they are.
pub(crate) fn check_shapes(pins: &Pins) -> Result<(), KernelError> {
    for (name, key, value, elements) in SHAPES {
        let path = pins.map(name);
        if !path.exists() {
            continue;
        }
        let info = MapData::from_pin(&path).and_then(|map| map.info());
        let info = info.map_err(|source| KernelError::Map { name, source })?;
        let shape = (info.key_size() as usize, info.value_size() as usize, info.max_entries() as usize);
        if shape != (key, value, elements) {
            return Err(KernelError::OtherVersion { path });
        }
    }
    Ok(())
}

/// The key of the dialog hash in the settings that are pinned, of this version or an older one.
pub(crate) fn pinned_hash_key(pins: &Pins) -> Result<[u64; 2], KernelError> {
    let name = names::SETTINGS;
    let path = pins.map(name);
    let map = MapData::from_pin(&path).map_err(|source| KernelError::Map { name, source })?;
    let size = map.info().map_err(|source| KernelError::Map { name, source })?.value_size() as usize;
    let map = Map::from_map_data(map).map_err(|source| KernelError::Map { name, source })?;
    let read = if size == size_of::<Settings>() {
        typed::<_, Array<MapData, Settings>>(name, map)?.get(&0, 0).map(|settings| settings.hash_key)
    } else if size == size_of::<[u64; 2]>() {
        typed::<_, Array<MapData, [u64; 2]>>(name, map)?.get(&0, 0)
    } else {
        return Err(KernelError::OtherVersion { path });
    };
    read.map_err(|source| KernelError::Map { name, source })
}

/// A map of what is pinned, typed.
pub(crate) fn pinned<T: TryFrom<Map, Error = MapError>>(pins: &Pins, name: &'static str) -> Result<T, KernelError> {
    let map = MapData::from_pin(pins.map(name)).and_then(Map::from_map_data);
    typed(name, map.map_err(|source| KernelError::Map { name, source })?)
}

/// A request of sipst's own, as the kernel has it on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnRecord {
    /// Its token.
    pub token: u64,
    /// Its dialog.
    pub dialog: DialogKey,
    /// The number that it took.
    pub number: u32,
    /// Where a re-INVITE went, and the ACK for its 2xx.
    pub reinvite: Option<(SocketAddr, ReadyAck)>,
}

/// The maps of a loaded object, without the ring.
pub struct Maps {
    settings: Settings,
    counters: PerCpuArray<MapData, u64>,
    shifts: Table<MapData, u64, Shift>,
    shifted: Table<MapData, [u8; 16], u64>,
    latest: Table<MapData, u64, Latest>,
    tokens: Table<MapData, u64, Token>,
    acks: Table<MapData, u64, Ack>,
    heartbeat: Array<MapData, u64>,
}

/// Ports that carry SIP from now on, and those that carry what cannot be read.
pub(crate) fn set_ports(ebpf: &mut Ebpf, [sip, opaque]: [&[config::Ports]; 2]) -> Result<(), KernelError> {
    let mut set = |name, ports| {
        let mut table: Array<_, Ports> = typed(name, map_mut(ebpf, name)?)?;
        table.set(0, ports, 0).map_err(|source| KernelError::Map { name, source })
    };
    // One that carries SIP no more must not be taken for one that does.
    set(names::OPAQUE_PORTS, bitmap(opaque))?;
    set(names::PORTS, bitmap(&[sip, opaque].concat()))
}

/// Sets the ports and, where the maps are fresh, makes the hash key, then takes the other maps out of a loaded object.
/// What is not taken stays open in the object: programs that are loaded later need it.
///
/// `carried`: the hash key of an older version, whose entries are to be taken over.
pub(crate) fn set_up(
    ebpf: &mut Ebpf,
    ports: [&[config::Ports]; 2],
    carried: Option<[u64; 2]>,
) -> Result<(Maps, RingBuf<MapData>), KernelError> {
    let settings = settle(typed(names::SETTINGS, map_mut(ebpf, names::SETTINGS)?)?, carried)?;
    set_ports(ebpf, ports)?;
    let mut take = |name: &'static str| ebpf.take_map(name).ok_or(KernelError::Lacks { name });
    let ring = typed(names::RING, take(names::RING)?)?;
    let maps = Maps {
        settings,
        counters: typed(names::COUNTERS, take(names::COUNTERS)?)?,
        shifts: typed(names::SHIFTS, take(names::SHIFTS)?)?,
        shifted: typed(names::SHIFTED, take(names::SHIFTED)?)?,
        latest: typed(names::LATEST, take(names::LATEST)?)?,
        tokens: typed(names::TOKENS, take(names::TOKENS)?)?,
        acks: typed(names::ACKS, take(names::ACKS)?)?,
        heartbeat: typed(names::HEARTBEAT, take(names::HEARTBEAT)?)?,
    };
    Ok((maps, ring))
}

/// The key of the dialog hash: the entries that are there were made with it, so it stays as long as they do. Leaves word
/// of who loaded the programs, and when.
fn settle(mut settings: Array<&mut MapData, Settings>, carried: Option<[u64; 2]>) -> Result<Settings, KernelError> {
    let failed = |source| KernelError::Map { name: names::SETTINGS, source };
    let Settings { mut hash_key, .. } = settings.get(&0, 0).map_err(failed)?;
    if hash_key == [0, 0] {
        hash_key = carried.unwrap_or_else(|| rand::rng().random());
    }
    let mut version = [0; 16];
    version.iter_mut().zip(env!("CARGO_PKG_VERSION").bytes()).for_each(|(to, from)| *to = from);
    let loaded_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = Settings { hash_key, loaded_s, version };
    settings.set(0, now, 0).map_err(failed)?;
    Ok(now)
}

/// The maps that are pinned.
pub(crate) fn open_pinned(pins: &Pins) -> Result<Maps, KernelError> {
    let settings: Array<MapData, Settings> = pinned(pins, names::SETTINGS)?;
    Ok(Maps {
        settings: settings.get(&0, 0).map_err(|source| KernelError::Map { name: names::SETTINGS, source })?,
        counters: pinned(pins, names::COUNTERS)?,
        shifts: pinned(pins, names::SHIFTS)?,
        shifted: pinned(pins, names::SHIFTED)?,
        latest: pinned(pins, names::LATEST)?,
        tokens: pinned(pins, names::TOKENS)?,
        acks: pinned(pins, names::ACKS)?,
        heartbeat: pinned(pins, names::HEARTBEAT)?,
    })
}

fn map_mut<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Map, KernelError> {
    ebpf.map_mut(name).ok_or(KernelError::Lacks { name })
}

fn typed<M, T: TryFrom<M, Error = MapError>>(name: &'static str, map: M) -> Result<T, KernelError> {
    T::try_from(map).map_err(|source| KernelError::Map { name, source })
}

fn bitmap(ports: &[config::Ports]) -> Ports {
    let mut words = [0_u64; 1024];
    for port in ports.iter().flat_map(|ports| ports.each()) {
        if let Some(word) = words.get_mut(usize::from(port / 64)) {
            *word |= 1 << (port % 64);
        }
    }
    Ports { words }
}

impl Maps {
    /// Where the numbers of one side of a dialog, with that tag, stand, or why the kernel programs cannot find them.
    pub fn key(&self, call_id: &[u8], tag: &[u8], side: Side) -> Result<DialogKey, Refusal> {
        let whose = match side {
            Side::Server => Whose::Server,
            Side::Peer => Whose::Peer,
        };
        DialogKey::of(self.settings.hash_key, call_id, tag, whose).ok_or(Refusal::Identifiers)
    }

    /// The key of the dialog hash.
    pub(super) const fn hash_key(&self) -> [u64; 2] {
        self.settings.hash_key
    }

    /// Makes a dialog's entry from `state`, unless it has one. From then on the kernel follows its numbers.
    pub fn arm(&mut self, key: DialogKey, server: IpAddr, state: State) -> Result<(), Refusal> {
        match self.shifts.get(&key.map, 0) {
            Ok(entry) if entry.check == key.check => return Ok(()),
            Ok(_) => return Err(Refusal::MapFull),
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(refusal(&error)),
        }
        // First the address, then the dialog: the programs ask in this order, and an address alone does no harm.
        self.count_host(server, Count::Up)?;
        let entry = Shift { check: key.check, word: state.to_word(), ..Shift::default() };
        self.shifts.insert(key.map, entry, NOEXIST).map_err(|error| {
            let _ = self.count_host(server, Count::Down);
            refusal(&error)
        })
    }

    /// A dialog's numbers as the kernel has them: those that it has noted from before the entry was made count too.
    pub fn state(&self, key: DialogKey) -> Result<State, Refusal> {
        match self.shifts.get(&key.map, 0) {
            Ok(entry) if entry.check == key.check => {
                let noted = self.latest.get(&key.map, 0).ok().filter(|latest| latest.check == key.check);
                let noted = noted.and_then(|latest| u32::try_from(latest.number).ok());
                let state = State::from_word(entry.word);
                Ok(noted.map_or(state, |number| state.after_server(number)))
            }
            Ok(_) | Err(MapError::KeyNotFound) => Err(Refusal::MapFull),
            Err(error) => Err(refusal(&error)),
        }
    }

    /// The dialogs that have entries.
    pub fn dialogs(&self) -> Vec<DialogKey> {
        self.shifts.iter().flatten().map(|(map, entry)| DialogKey { map, check: entry.check }).collect()
    }

    /// Takes a dialog's entry away: its requests are no longer rewritten. Without the server's address that goes on being
    /// looked at, which costs time and changes nothing.
    pub fn disarm(&mut self, key: DialogKey, server: Option<IpAddr>) -> Result<(), Refusal> {
        match self.shifts.get(&key.map, 0) {
            Ok(entry) if entry.check == key.check => {}
            Ok(_) | Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(refusal(&error)),
        }
        self.shifts.remove(&key.map).map_err(|error| refusal(&error))?;
        server.map_or(Ok(()), |server| self.count_host(server, Count::Down))
    }

    /// Puts a request on record. `expected`: the state whose next number it takes, `None` for one that takes none, which
    /// may be on record already. Returns whether the record is new.
    pub fn record(&mut self, token: u64, key: DialogKey, expected: Option<State>) -> Result<bool, Refusal> {
        let entry = Token {
            dialog: key.map,
            check: key.check,
            expected: expected.map_or(0, State::to_word),
            committed: u64::from(expected.is_none()),
        };
        match self.tokens.insert(token, entry, NOEXIST) {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(libc::EEXIST) && expected.is_none() => Ok(false),
            Err(error) => Err(refusal(&error)),
        }
    }

    /// Keeps the ACK for the 2xx that a re-INVITE may get. To be done before the re-INVITE leaves.
    pub fn keep(&mut self, reinvite: u64, key: DialogKey, ack: &Ack) -> Result<(), Refusal> {
        self.record(ack.token, key, None)?;
        self.acks.insert(reinvite, ack, NOEXIST).map_err(|error| {
            self.retire(ack.token);
            refusal(&error)
        })
    }

    /// Takes a request off the record, and the ACK that is kept for it.
    pub fn retire(&mut self, token: u64) {
        for result in [self.tokens.remove(&token), self.acks.remove(&token)] {
            if let Err(error) = result
                && errno(&error) != Some(libc::ENOENT)
            {
                tracing::debug!(%error, "a token stays on record");
            }
        }
    }

    /// Whether a request is on record and has left.
    pub fn has_left(&self, token: u64) -> bool {
        self.tokens.get(&token, 0).is_ok_and(|entry| entry.committed != 0)
    }

    /// The requests on record that took a number and have left, in the order of their tokens.
    pub fn requests(&self) -> Vec<OnRecord> {
        let acks: HashMap<u64, Ack> = self.acks.iter().flatten().collect();
        let of_acks: HashSet<u64> = acks.values().map(|ack| ack.token).collect();
        let has_left = |(token, entry): &(u64, Token)| {
            let dialog = DialogKey { map: entry.dialog, check: entry.check };
            // An ACK's entry looks like that of a dialog's first request: such a one only counts while it stays the only one.
            let took = || self.state(dialog).is_ok_and(|state| !state.known && state.number > 0);
            entry.committed != 0 && !of_acks.contains(token) && (entry.expected != 0 || took())
        };
        let on_record = |(token, entry): (u64, Token)| OnRecord {
            token,
            dialog: DialogKey { map: entry.dialog, check: entry.check },
            number: State::from_word(entry.expected).next_injected(),
            reinvite: acks.get(&token).map(ready),
        };
        let mut found: Vec<OnRecord> = self.tokens.iter().flatten().filter(has_left).map(on_record).collect();
        found.sort_by_key(|request| request.token);
        found
    }

    /// Takes every request off the record that is not among those that a daemon knows, but for those whose 2xx must have an
    /// ACK: the programs send it from now on. Returns the tokens that stay because of that.
    pub fn orphan_others(&mut self, known: &HashSet<u64>) -> Vec<u64> {
        let acks: Vec<(u64, Ack)> = self.acks.iter().flatten().collect();
        let mut stay = Vec::new();
        for (reinvite, ack) in acks {
            let is_known = known.contains(&reinvite);
            match self.acks.insert(reinvite, Ack { orphan: u32::from(!is_known), ..ack }, EXIST) {
                Ok(()) if is_known => {}
                Ok(()) => stay.extend([reinvite, ack.token]),
                Err(error) => tracing::debug!(%error, "an ACK is not sent"),
            }
        }
        let is_others = |token: &u64| !stay.contains(token) && !known.contains(token);
        let tokens: Vec<u64> = self.tokens.keys().flatten().filter(is_others).collect();
        tokens.into_iter().for_each(|token| self.retire(token));
        stay
    }

    /// A sign of life for the programs, at this time of `CLOCK_MONOTONIC`.
    pub fn beat(&mut self, monotonic_ns: u64) -> Result<(), KernelError> {
        let result = self.heartbeat.set(0, monotonic_ns, 0);
        result.map_err(|source| KernelError::Map { name: names::HEARTBEAT, source })
    }

    /// What was known of dialogs elsewhere: from here on the kernel rewrites their numbers by these maps.
    pub(super) fn take_over(
        &mut self,
        dialogs: impl Iterator<Item = (u64, Shift)>,
        hosts: impl Iterator<Item = ([u8; 16], u64)>,
    ) -> Result<(), KernelError> {
        for (host, dialogs) in hosts {
            let result = self.shifted.insert(host, dialogs, 0);
            result.map_err(|source| KernelError::Map { name: names::SHIFTED, source })?;
        }
        for (key, entry) in dialogs {
            match self.shifts.insert(key, entry, NOEXIST) {
                Ok(()) => {}
                // By a take-over that did not come to its end.
                Err(source) if errno(&source) == Some(libc::EEXIST) => {}
                Err(source) => return Err(KernelError::Map { name: names::SHIFTS, source }),
            }
        }
        Ok(())
    }

    /// Raises a dialog's highest number of the server's own to what was seen elsewhere.
    pub(super) fn catch_up(&mut self, key: u64, seen: State) -> Result<(), KernelError> {
        let Ok(mut entry) = self.shifts.get(&key, 0) else { return Ok(()) };
        let state = State::from_word(entry.word);
        if !seen.known || (state.known && state.number >= seen.number) {
            return Ok(());
        }
        entry.word = seen.to_word();
        let result = self.shifts.insert(key, entry, EXIST);
        result.map_err(|source| KernelError::Map { name: names::SHIFTS, source })
    }

    /// When a daemon last gave a sign of life, `CLOCK_MONOTONIC` nanoseconds.
    pub fn last_beat(&self) -> Result<Option<u64>, KernelError> {
        let beat = self.heartbeat.get(&0, 0).map_err(|source| KernelError::Map { name: names::HEARTBEAT, source })?;
        Ok((beat > 0).then_some(beat))
    }

    /// The version of sipst that the programs came with, and when they were loaded.
    pub fn made(&self) -> (String, SystemTime) {
        let text = self.settings.version.split(|byte| *byte == 0).next().unwrap_or_default();
        (String::from_utf8_lossy(text).into_owned(), UNIX_EPOCH + Duration::from_secs(self.settings.loaded_s))
    }

    /// How many dialogs carry other numbers on the wire than the server wrote, now or from its next request on.
    pub fn shifting(&self) -> usize {
        self.shifts.iter().flatten().filter(|(_, entry)| shifts(State::from_word(entry.word))).count()
    }

    /// Whether that one is among those.
    pub fn is_shifted(&self, key: DialogKey) -> bool {
        let entry = self.shifts.get(&key.map, 0).ok().filter(|entry| entry.check == key.check);
        entry.is_some_and(|entry| shifts(State::from_word(entry.word)))
    }

    /// What the programs have counted since the maps were made.
    pub fn counter(&self, counter: Counter) -> Result<u64, KernelError> {
        let values = self.counters.get(&(counter as u32), 0);
        let values = values.map_err(|source| KernelError::Map { name: names::COUNTERS, source })?;
        Ok(values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)))
    }

    /// As `st_egress` does, whether or not there is an entry.
    #[cfg(test)]
    pub(super) fn note(&mut self, key: DialogKey, number: u64) {
        self.latest.insert(key.map, Latest { check: key.check, number }, 0).unwrap();
    }

    /// As `st_egress` does.
    #[cfg(test)]
    pub(super) fn commit(&mut self, token: u64) {
        let entry = self.tokens.get(&token, 0).unwrap();
        self.tokens.insert(token, Token { committed: 1, ..entry }, EXIST).unwrap();
    }

    #[cfg(test)]
    pub(super) fn is_orphan(&self, reinvite: u64) -> bool {
        self.acks.get(&reinvite, 0).unwrap().orphan != 0
    }

    #[cfg(test)]
    pub(super) fn hosts(&self) -> Vec<u64> {
        self.shifted.iter().flatten().map(|(_, dialogs)| dialogs).collect()
    }

    fn count_host(&mut self, server: IpAddr, count: Count) -> Result<(), Refusal> {
        let host = mapped(server);
        let dialogs = match self.shifted.get(&host, 0) {
            Ok(dialogs) => dialogs,
            Err(MapError::KeyNotFound) => 0,
            Err(error) => return Err(refusal(&error)),
        };
        let result = match count {
            Count::Up => self.shifted.insert(host, dialogs + 1, 0),
            Count::Down if dialogs <= 1 => self.shifted.remove(&host),
            Count::Down => self.shifted.insert(host, dialogs - 1, 0),
        };
        result.map_err(|error| refusal(&error))
    }
}

enum Count {
    Up,
    Down,
}

/// Whether numbers on the wire are others than the server wrote, or may be.
const fn shifts(state: State) -> bool {
    state.delta != 0 || (!state.known && state.number != 0)
}

/// Where an ACK that is kept goes, and what it is.
fn ready(ack: &Ack) -> (SocketAddr, ReadyAck) {
    let to = SocketAddr::new(Ipv6Addr::from(ack.peer).to_canonical(), u16::from_be_bytes(ack.peer_port));
    let length = usize::try_from(ack.len).unwrap_or(usize::MAX);
    (to, ReadyAck { token: ack.token, bytes: ack.message.get(..length).unwrap_or_default().to_vec() })
}

/// What a map operation's failure means for a refresh.
fn refusal(error: &MapError) -> Refusal {
    let code = errno(error);
    tracing::warn!(error = %code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error), "a kernel map refused");
    match code {
        Some(libc::E2BIG | libc::ENOMEM | libc::ENOSPC) => Refusal::MapFull,
        _ => Refusal::Send,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_one_bit() {
        use config::Ports as Range;
        let range = |range| Range::range(range).unwrap();
        let Ports { words } = bitmap(&[Range::one(1), Range::one(5060), Range::one(65535), range(8062..=8065)]);
        assert_eq!(words[5060 / 64], 1 << (5060 % 64));
        assert_eq!(words[0], 2);
        assert_eq!(words[1023], 1 << 63);
        assert_eq!((words[125], words[126]), (3 << 62, 3));
        assert_eq!(words.iter().map(|word| word.count_ones()).sum::<u32>(), 7);
        let Ports { words } = bitmap(&[range(1..=65535)]);
        assert_eq!(words.iter().map(|word| word.count_ones()).sum::<u32>(), 65535);
    }

    #[test]
    fn ipv4_is_kept_as_mapped_ipv6() {
        assert_eq!(mapped([192, 0, 2, 1].into()), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
    }
}
