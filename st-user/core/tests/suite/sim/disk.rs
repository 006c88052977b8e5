//! Where an engine's records are kept, in memory.
#![allow(dead_code, unreachable_pub, reason = "each test is a program of its own and uses its part")]

use std::collections::BTreeMap;

use st_core::{
    Engine,
    engine::{
        EngineConfig,
        record::{COMMON, Change, Restored, TEMPLATES},
    },
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk(pub BTreeMap<u64, Vec<u8>>);

impl Disk {
    /// Writes what has changed.
    pub fn write(&mut self, engine: &mut Engine) {
        while let Some(Change { key, record }) = engine.poll_change() {
            match record {
                Some(record) => self.0.insert(key, record.bytes()),
                None => self.0.remove(&key),
            };
        }
    }

    /// All keys but those of what records are packed by.
    pub fn keys(&self) -> Vec<u64> {
        self.0.range(..TEMPLATES).map(|(key, _)| *key).collect()
    }

    /// What there would be if all were written anew.
    pub fn whole(engine: &mut Engine) -> Self {
        let mut disk = Self::default();
        engine.follow_changes();
        disk.write(engine);
        disk
    }

    /// A new engine that knows what is here, and follows its changes.
    pub fn restore(&self, config: EngineConfig) -> (Engine, Vec<Restored>) {
        let mut engine = Engine::restored(config, &self.0[&COMMON]).expect("a record");
        let (templates, sessions) = (self.0.range(TEMPLATES..), self.0.range(COMMON + 1..TEMPLATES));
        let take = |(key, record): (&u64, &Vec<u8>)| engine.restore(*key, record).expect("a record");
        let restored = templates.chain(sessions).filter_map(take).collect();
        engine.follow_on();
        (engine, restored)
    }
}
