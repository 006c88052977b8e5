//! The programs that read several datagrams as one packet, for those that are attached to call. Pinned with them: they go on without a
//! daemon.

use aya::{
    Ebpf,
    maps::{MapData, ProgramArray},
};
use st_ebpf::abi::{direction, names};

use super::{KernelError, attach::classifier};

/// Loads them, and has them called.
pub(super) fn call(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    for (way, name) in [(direction::INGRESS, names::JOINED_INGRESS), (direction::EGRESS, names::JOINED_EGRESS)] {
        let descriptor = classifier(ebpf, name)?.fd().map_err(|error| KernelError::program(name, error))?;
        let descriptor = descriptor.try_clone().map_err(|error| KernelError::program(name, error.into()))?;
        let name = names::JOINED;
        let failed = |source| KernelError::Map { name, source };
        let programs = ebpf.map_mut(name).ok_or(KernelError::Lacks { name })?;
        let mut programs: ProgramArray<&mut MapData> = programs.try_into().map_err(failed)?;
        programs.set(way.into(), &descriptor, 0).map_err(failed)?;
    }
    Ok(())
}
