//! The plans of TCP connections, and the programs that carry them out. Pinned, as the numbers are: they go on without a daemon.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use aya::{
    Ebpf,
    maps::{HashMap as Table, MapData, MapError, ProgramArray},
};
use st_ebpf::{
    abi::{direction, names},
    plan::{Connection, PATCHES, Plan, bits},
};

use super::{KernelError, attach::classifier, error::errno, maps, pins::Pins};

/// `BPF_NOEXIST`, `BPF_EXIST`.
const NOEXIST: u64 = 1;
const EXIST: u64 = 2;

/// The connections that are written into.
pub struct Plans {
    table: Table<MapData, Connection, Plan>,
    _programs: ProgramArray<MapData>,
    /// Whether they are called.
    acting: bool,
    wanted: bool,
}

impl Plans {
    /// `wanted`: some trunk has calls over TCP refreshed. Where none has, the programs are called as long as connections have plans that an
    /// earlier daemon made. `carried`: those of an older version.
    pub(crate) fn take(ebpf: &mut Ebpf, wanted: bool, carried: &[(Connection, Plan)]) -> Result<Self, KernelError> {
        let mut take = |name| ebpf.take_map(name).ok_or(KernelError::Lacks { name });
        let (table, acting) = (take(names::PLANS)?, take(names::ACTING)?);
        let failed = |name| move |source| KernelError::Map { name, source };
        let mut table: Table<_, Connection, Plan> = table.try_into().map_err(failed(names::PLANS))?;
        for (connection, plan) in carried {
            match table.insert(connection, plan, NOEXIST) {
                Ok(()) => {}
                // By a take-over that did not come to its end.
                Err(error) if errno(&error) == Some(libc::EEXIST) => {}
                Err(source) => return Err(failed(names::PLANS)(source)),
            }
        }
        let mut programs: ProgramArray<MapData> = acting.try_into().map_err(failed(names::ACTING))?;
        let acting = wanted || table.keys().next().is_some();
        for (way, name) in [(direction::INGRESS, names::STREAM_INGRESS), (direction::EGRESS, names::STREAM_EGRESS)] {
            if acting {
                let descriptor = classifier(ebpf, name)?.fd().map_err(|error| KernelError::program(name, error))?;
                programs.set(way.into(), descriptor, 0).map_err(failed(names::ACTING))?;
            } else if let Err(source) = programs.clear_index(&way.into())
                && errno(&source) != Some(libc::ENOENT)
            {
                return Err(failed(names::ACTING)(source));
            }
        }
        Ok(Self { table, _programs: programs, acting, wanted })
    }

    /// Whether the programs are called at all.
    pub fn acts(&self) -> bool {
        self.acting
    }

    /// Whether the configuration has calls over TCP refreshed.
    pub(crate) fn wanted(&self) -> bool {
        self.wanted
    }

    /// Those that have a plan.
    pub fn connections(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let address = |ip: [u8; 16], port: [u8; 2]| {
            SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)).to_canonical(), u16::from_be_bytes(port))
        };
        let ends = |of: Connection| (address(of.server, of.server_port), address(of.peer, of.peer_port));
        self.table.keys().flatten().map(ends).collect()
    }

    /// Makes an empty plan, unless there is one; false where that cannot be.
    pub fn follow(&mut self, ends: (SocketAddr, SocketAddr)) -> bool {
        let plan = Plan { flags: bits::NUMBERS, ..Plan::default() };
        match self.table.insert(key(ends), plan, NOEXIST) {
            Ok(()) => true,
            Err(error) if errno(&error) == Some(libc::EEXIST) => true,
            Err(error) => {
                tracing::warn!(%error, "a TCP connection gets no plan: calls on it are not refreshed");
                false
            }
        }
    }

    /// Leaves numbers alone from here on, but in answers to requests that have left before; what is planned stays.
    pub fn leave_numbers(&mut self, ends: (SocketAddr, SocketAddr)) {
        let key = key(ends);
        if let Ok(plan) = self.table.get(&key, 0) {
            let flags = if plan.flags & bits::NUMBERS == 0 { plan.flags } else { bits::ANSWERS };
            let left = self.table.insert(key, Plan { flags, ..plan }, EXIST);
            told("left alone", left);
        }
    }

    /// What an older version's programs have planned since its plans were copied.
    pub(super) fn catch_up(&mut self, connection: Connection, seen: &Plan) -> Result<(), KernelError> {
        let Ok(mut plan) = self.table.get(&connection, 0) else { return Ok(()) };
        catch_up(&mut plan, seen);
        let result = self.table.insert(connection, plan, EXIST);
        result.map_err(|source| KernelError::Map { name: names::PLANS, source })
    }

    /// What is planned for a connection.
    #[cfg(test)]
    pub(super) fn plan(&self, ends: (SocketAddr, SocketAddr)) -> Plan {
        self.table.get(&key(ends), 0).unwrap()
    }

    /// The connection is gone.
    pub fn forget(&mut self, ends: (SocketAddr, SocketAddr)) {
        told("forgotten", self.table.remove(&key(ends)));
    }
}

/// The plans of an older version: those of before ABI 10 have none.
pub(super) fn pinned(pins: &Pins) -> Result<Option<Table<MapData, Connection, Plan>>, KernelError> {
    if !pins.map(names::PLANS).exists() {
        return Ok(None);
    }
    maps::pinned(pins, names::PLANS).map(Some)
}

/// Adds to a plan what another one of the same connection has beyond it: a copy of the segment may come yet. What each has by itself
/// stays.
fn catch_up(plan: &mut Plan, seen: &Plan) {
    for way in 0..plan.patches.len() {
        if (seen.acknowledged[way].wrapping_sub(plan.acknowledged[way]) as i32) > 0 || plan.acknowledged[way] == 0 {
            plan.acknowledged[way] = seen.acknowledged[way];
        }
        // In the order in which they were made.
        for step in 0..PATCHES as u32 {
            let patch = seen.patches[way][seen.next[way].wrapping_add(step) as usize % PATCHES];
            if patch.len > 0 && !plan.patches[way].contains(&patch) {
                plan.patches[way][plan.next[way] as usize % PATCHES] = patch;
                plan.next[way] = plan.next[way].wrapping_add(1);
            }
        }
    }
}

fn told(what: &str, result: Result<(), MapError>) {
    if let Err(error) = result
        && errno(&error) != Some(libc::ENOENT)
    {
        tracing::warn!(%error, "the numbers of a TCP connection cannot be {what}");
    }
}

fn key((server, peer): (SocketAddr, SocketAddr)) -> Connection {
    Connection::between(server, peer)
}

#[cfg(test)]
mod tests {
    use st_ebpf::plan::{PATCH_BYTES, Patch};

    use super::*;

    fn patch(first: u32) -> Patch {
        Patch { first, len: 3, bytes: [b'1'; PATCH_BYTES] }
    }

    fn plan(firsts: impl IntoIterator<Item = u32>) -> Plan {
        let mut plan = Plan { flags: bits::NUMBERS, ..Plan::default() };
        for first in firsts {
            plan.patches[1][plan.next[1] as usize % PATCHES] = patch(first);
            plan.next[1] += 1;
        }
        plan
    }

    fn firsts(plan: &Plan) -> Vec<u32> {
        let mut firsts: Vec<_> =
            plan.patches[1].iter().filter(|patch| patch.len > 0).map(|patch| patch.first).collect();
        firsts.sort_unstable();
        firsts
    }

    #[test]
    fn a_plan_has_what_was_planned_elsewhere_meanwhile_and_keeps_its_own() {
        let mut now = plan([1, 2, 30]);
        now.acknowledged = [5, u32::MAX];
        let mut seen = plan([1, 2, 3]);
        seen.acknowledged = [4, 7];
        catch_up(&mut now, &seen);
        assert_eq!((firsts(&now), now.next, now.acknowledged), (vec![1, 2, 3, 30], [0, 4], [5, 7]));
        let same = now;
        catch_up(&mut now, &seen);
        assert_eq!(now, same, "nothing twice");
        // More than there is room for: the newest are there.
        let mut now = plan([]);
        catch_up(&mut now, &plan(1..=PATCHES as u32 + 3));
        assert_eq!(firsts(&now), (4..=PATCHES as u32 + 3).collect::<Vec<_>>());
    }
}
