//! Media flows of the server's that are watched for a sign of life, each way.

use std::{collections::HashMap, net::SocketAddr};

use aya::{
    Ebpf,
    maps::{Array, HashMap as Map, MapData, MapError},
};
use st_ebpf::abi::{Flow, Ports, Seen, mapped, names};

use super::KernelError;

/// The maps, which belong to the programs of this daemon: whoever loads its own begins with none.
pub struct Flows {
    seen: Map<MapData, Flow, Seen>,
    ports: Array<MapData, Ports>,
    /// What stands there: it is written as a whole.
    marked: Box<Ports>,
    /// How many flows there are on each port that has any.
    on_port: HashMap<u16, u32>,
}

impl Flows {
    /// Takes them out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let mut take = |name: &'static str| ebpf.take_map(name).ok_or(KernelError::Lacks { name });
        let failed = |name| move |source| KernelError::Map { name, source };
        Ok(Self {
            seen: Map::try_from(take(names::FLOWS)?).map_err(failed(names::FLOWS))?,
            ports: Array::try_from(take(names::FLOW_PORTS)?).map_err(failed(names::FLOW_PORTS))?,
            marked: Box::new(Ports { words: [0; 1024] }),
            on_port: HashMap::new(),
        })
    }

    /// Watches a flow from now on. One that cannot be watched is one that is never seen, and nothing follows from that.
    pub fn watch(&mut self, flow: SocketAddr) {
        let result = self.seen.insert(key(flow), Seen::default(), 0).and_then(|()| {
            *self.on_port.entry(flow.port()).or_default() += 1;
            self.mark(flow.port())
        });
        if let Err(error) = result {
            tracing::warn!(%error, %flow, "a media flow cannot be watched");
        }
    }

    /// Watches it no longer.
    pub fn unwatch(&mut self, flow: SocketAddr) {
        if self.seen.remove(&key(flow)).is_err() {
            // It could not be watched.
            return;
        }
        if let Some(count) = self.on_port.get_mut(&flow.port()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.on_port.remove(&flow.port());
            }
        }
        if let Err(error) = self.mark(flow.port()) {
            tracing::debug!(%error, port = flow.port(), "a port goes on being looked at");
        }
    }

    /// When a flow was last seen each way; 0: never since it is watched.
    pub fn seen(&self, flow: SocketAddr) -> Seen {
        self.seen.get(&key(flow), 0).unwrap_or_default()
    }

    /// Tells the programs whether there are flows on a port.
    fn mark(&mut self, port: u16) -> Result<(), MapError> {
        let bit = 1_u64 << (port % 64);
        if let Some(word) = self.marked.words.get_mut(usize::from(port / 64)) {
            *word = if self.on_port.contains_key(&port) { *word | bit } else { *word & !bit };
        }
        self.ports.set(0, *self.marked, 0)
    }
}

fn key(flow: SocketAddr) -> Flow {
    Flow { address: mapped(flow.ip()), port: flow.port().to_be_bytes(), reserved: [0; 6] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{self, Attach},
        kernel::{Kernel, Options, PIN_DIR},
        namespace::in_a_namespace,
    };

    fn attach() -> Kernel {
        let options = Options {
            interfaces: vec!["v0".into()],
            namespaces: vec![],
            attach: Attach::Auto,
            ports: vec![config::Ports::one(5060)],
            opaque_ports: vec![config::Ports::one(5061)],
            any_port: false,
            pin_dir: PIN_DIR.into(),
            recording: false,
            acting: false,
        };
        Kernel::attach(&options).unwrap().0
    }

    fn flow(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_port_is_looked_at_for_as_long_as_a_flow_is_on_it() {
        in_a_namespace(|| {
            let mut flows = attach().flows;
            let (first, second) = (flow("192.0.2.1:4000"), flow("[2001:db8::1]:4000"));
            let bits = |flows: &Flows| flows.ports.get(&0, 0).unwrap().words[62];
            for watched in [first, second, flow("192.0.2.1:4001")] {
                flows.watch(watched);
                assert_eq!(flows.seen(watched), Seen::default(), "never so far");
            }
            assert_eq!(bits(&flows), 0b11 << 32);
            flows.unwatch(first);
            flows.unwatch(first);
            assert_eq!(bits(&flows), 0b11 << 32);
            flows.unwatch(second);
            assert_eq!(bits(&flows), 0b10 << 32);
            let seen = Seen { left_ns: 7, came_ns: 8 };
            flows.seen.insert(key(flow("192.0.2.1:4001")), seen, 0).unwrap();
            assert_eq!((flows.seen(flow("192.0.2.1:4001")), flows.seen(second)), (seen, Seen::default()));
        });
    }

    #[test]
    fn the_next_daemon_begins_with_none() {
        in_a_namespace(|| {
            let mut first = attach();
            first.flows.watch(flow("192.0.2.1:4000"));
            drop(first);
            let flows = attach().flows;
            let marked = flows.ports.get(&0, 0).unwrap().words;
            assert_eq!((marked, flows.seen.keys().count()), ([0; 1024], 0));
        });
    }
}
