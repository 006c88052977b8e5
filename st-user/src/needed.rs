//! Which calls the kernel programs are still needed for: for whoever wants to take these away.

use std::{path::Path, sync::Arc};

use anyhow::{Error, anyhow};
use st_core::{
    Engine, Names, Policy, Side,
    engine::{EngineConfig, Limits, Mode, record::COMMON},
};

use crate::{
    kernel::{Kernel, KernelError, Maps},
    output::printable,
    store,
};

/// So many calls are named.
const NAMED: usize = 10;

/// An error of somebody's who wants to take the programs away: where calls depend on them, with those that are known by
/// what is kept of the calls.
pub(crate) fn name(error: KernelError, pin_dir: &Path, state_dir: &Path) -> Error {
    let KernelError::Shifting { dialogs } = error else { return error.into() };
    let named = Kernel::open_pinned(pin_dir).map(|maps| names(&maps, state_dir)).unwrap_or_default();
    let all: Vec<String> = named.iter().map(|names| printable(&String::from_utf8_lossy(names.call_id()))).collect();
    let more = if dialogs > all.len() { " and others" } else { "" };
    if all.is_empty() { error.into() } else { anyhow!("{error}. They are: {}{more}", all.join(", ")) }
}

fn names(maps: &Maps, state_dir: &Path) -> Vec<Arc<Names>> {
    let config =
        EngineConfig { policy: Arc::new(Policy::default()), mode: Mode::Replay, seed: 0, limits: Limits::default() };
    let mut engine = Engine::new(config);
    let mut found = Vec::new();
    let read = store::look_through(state_dir, |key, record| {
        if key == COMMON || found.len() >= NAMED {
            return true;
        }
        let Ok(Some(restored)) = engine.restore(key, record) else { return true };
        let Some(names) = engine.names(restored.session) else { return true };
        let sides = [(Side::Server, names.local_tag()), (Side::Peer, names.remote_tag())];
        let needed = |(side, tag)| maps.key(names.call_id(), tag, side).is_ok_and(|key| maps.is_shifted(key));
        if sides.into_iter().any(needed) {
            found.push(names);
        }
        true
    });
    if let Err(error) = read {
        tracing::debug!("what is kept of the calls cannot be read: {error}");
    }
    found
}
