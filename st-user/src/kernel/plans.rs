//! The plans of TCP connections, and the programs that carry them out. Pinned, as the numbers are: they go on without a daemon.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use aya::{
    Ebpf,
    maps::{HashMap as Table, MapData, MapError, ProgramArray},
    programs::SchedClassifier,
};
use st_ebpf::{
    abi::{direction, names},
    plan::{Connection, Plan, bits},
};

use super::{KernelError, error::errno};

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
    /// earlier daemon made.
    pub(crate) fn take(ebpf: &mut Ebpf, wanted: bool) -> Result<Self, KernelError> {
        let mut take = |name| ebpf.take_map(name).ok_or(KernelError::Lacks { name });
        let (table, acting) = (take(names::PLANS)?, take(names::ACTING)?);
        let failed = |name| move |source| KernelError::Map { name, source };
        let table: Table<_, _, _> = table.try_into().map_err(failed(names::PLANS))?;
        let mut programs: ProgramArray<MapData> = acting.try_into().map_err(failed(names::ACTING))?;
        let acting = wanted || table.keys().next().is_some();
        for (way, name) in [(direction::INGRESS, names::STREAM_INGRESS), (direction::EGRESS, names::STREAM_EGRESS)] {
            if acting {
                let program = ebpf.program_mut(name).ok_or(KernelError::Lacks { name })?;
                let program: &mut SchedClassifier =
                    program.try_into().map_err(|error| KernelError::program(name, error))?;
                program.load().map_err(|error| KernelError::program(name, error))?;
                let descriptor = program.fd().map_err(|error| KernelError::program(name, error))?;
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

    /// Leaves numbers alone from here on; what is planned stays.
    pub fn leave_numbers(&mut self, ends: (SocketAddr, SocketAddr)) {
        let key = key(ends);
        if let Ok(plan) = self.table.get(&key, 0) {
            let left = self.table.insert(key, Plan { flags: plan.flags & !bits::NUMBERS, ..plan }, EXIST);
            told("left alone", left);
        }
    }

    /// The connection is gone.
    pub fn forget(&mut self, ends: (SocketAddr, SocketAddr)) {
        told("forgotten", self.table.remove(&key(ends)));
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
