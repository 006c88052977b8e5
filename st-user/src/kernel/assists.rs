//! Networks of peers whose INVITEs the kernel programs change, as the trunks have it. A fresh map with every daemon: where none lives,
//! nobody would refresh.

use std::{collections::HashSet, net::IpAddr};

use aya::{
    Ebpf,
    maps::{
        MapData,
        lpm_trie::{Key, LpmTrie},
    },
};
use ipnet::IpNet;
use st_core::Policy;
use st_ebpf::abi::{mapped, names};
use tracing::{debug, error, info};

use super::KernelError;

/// Bits before an IPv4 address in its IPv4-mapped IPv6 one.
const MAPPED: u32 = 96;

/// The map, and what is in it.
pub struct Assists {
    networks: LpmTrie<MapData, [u8; 16], u32>,
    known: HashSet<(u32, [u8; 16])>,
    /// Trunks that are let be, whatever their rules say.
    off: HashSet<String>,
}

impl Assists {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let name = names::ASSISTED;
        let map = ebpf.take_map(name).ok_or(KernelError::Lacks { name })?;
        let networks = LpmTrie::try_from(map).map_err(|source| KernelError::Map { name, source })?;
        Ok(Self { networks, known: HashSet::new(), off: HashSet::new() })
    }

    /// Has INVITEs changed as these trunks say, and no others.
    pub fn follow(&mut self, policy: &Policy) {
        self.off.clear();
        self.set(policy);
    }

    /// Lets those of one trunk be from now on.
    pub fn switch_off(&mut self, policy: &Policy, trunk: String) {
        info!(trunk, "INVITEs from and to this trunk are let be from now on");
        self.off.insert(trunk);
        self.set(policy);
    }

    /// Lets all be.
    pub fn clear(&mut self) {
        for (bits, address) in std::mem::take(&mut self.known) {
            // What stays does nothing for long: the heartbeat ends.
            if let Err(error) = self.networks.remove(&Key::new(bits, address)) {
                debug!(%error, "a network goes on being marked");
            }
        }
    }

    /// In between INVITEs are let be.
    fn set(&mut self, policy: &Policy) {
        self.clear();
        for (bits, address, on) in table(policy, &self.off) {
            if let Err(error) = self.networks.insert(&Key::new(bits, address), u32::from(on), 0) {
                error!(%error, "`assist` is off for all trunks: their networks do not fit into the kernel's map");
                return self.clear();
            }
            self.known.insert((bits, address));
        }
    }
}

/// Prefixes of IPv6 addresses, IPv4 as IPv4-mapped, and whether INVITEs from and to there are changed; the longest counts.
fn table(policy: &Policy, off: &HashSet<String>) -> Vec<(u32, [u8; 16], bool)> {
    let networks = policy.assisted();
    let on = |name: &Option<&str>| name.is_some_and(|name| !off.contains(name));
    if !networks.iter().any(|(_, name)| on(name)) {
        return Vec::new();
    }
    let entry = |(network, name): &(IpNet, Option<&str>)| {
        let (bits, address) = (u32::from(network.prefix_len()), network.network());
        match address {
            IpAddr::V4(_) => Some((bits + MAPPED, mapped(address), on(name))),
            // No packet has such an address.
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() && bits >= MAPPED => None,
            IpAddr::V6(_) => Some((bits, mapped(address), on(name))),
        }
    };
    networks.iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use st_core::{Action, Matcher, Rules, Trunk};

    use super::*;

    fn policy() -> Policy {
        let trunk = |name: &str, peers: &[&str], assist| Trunk {
            name: name.into(),
            matcher: Matcher { peers: peers.iter().map(|net| net.parse().unwrap()).collect(), domains: vec![] },
            rules: Rules { action: Action::Refresh, assist, ..Rules::default() },
        };
        let trunks = vec![
            trunk("a", &["10.1.0.0/16", "2001:db8::/32"], true),
            trunk("b", &["10.0.0.0/8", "::ffff:0:0/96"], false),
        ];
        Policy { trunks, ..Policy::default() }
    }

    #[test]
    fn ipv4_stands_where_the_programs_look_for_it_and_all_that_is_left_is_let_be() {
        let v4 = |a, b| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, 0, 0];
        let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            table(&policy(), &HashSet::new()),
            [
                (112, v4(10, 1), true),
                (32, v6, true),
                (104, v4(10, 0), false),
                (96, v4(0, 0), false),
                (0, [0; 16], false)
            ]
        );
    }

    #[test]
    fn without_a_trunk_that_is_on_there_is_nothing_to_look_for() {
        assert!(table(&policy(), &HashSet::from(["a".to_owned()])).is_empty());
        assert!(!table(&policy(), &HashSet::from(["b".to_owned()])).is_empty());
        assert!(table(&Policy::default(), &HashSet::new()).is_empty());
    }
}
