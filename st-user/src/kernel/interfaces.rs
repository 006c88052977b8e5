//! The interfaces of this host, and which of them one packet crosses both.
//!
//! By rtnetlink and not from sysfs, which goes on showing the namespace that it was mounted in.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{Netlink, Want};

/// The kernel stacks interfaces no deeper than this.
const MAX_NESTING: usize = 8;

/// What matters about how an interface is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One end of a pair.
    Veth,
    /// A bridge: its ports have it as their master.
    Bridge,
    /// A bond or a team: its slaves have it as their master.
    Bond,
    /// It carries its packets inside others, which are no packets of ours.
    Tunnel,
    /// A process stands behind it, a virtual machine for the most part.
    Tap,
    /// Everything else, hardware included.
    Other,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether its frames have Ethernet headers on a wire: the loopback does not count.
    pub ethernet: bool,
    /// Whether it is the loopback, where every packet both leaves and comes in.
    pub loopback: bool,
    /// How it is made.
    pub kind: Kind,
    /// The interface of this namespace under it (a VLAN's parent) or at the other end (veth).
    pub lower: Option<u32>,
    /// Its bridge, bond or team.
    pub master: Option<u32>,
    /// Whether an XDP program runs in the driver, and whether one runs behind it.
    pub xdp: Option<XdpHook>,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpHook {
    /// In the driver, or on the card.
    Native,
    /// Behind the driver, on whole `sk_buff`s.
    Generic,
}

/// Two interfaces that one packet crosses both: it would be shifted twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// One of them.
    pub a: String,
    /// The other.
    pub b: String,
    /// What they are to each other.
    pub why: String,
}

/// Every interface of this namespace.
pub fn list() -> io::Result<Vec<Interface>> {
    list_by(&mut Netlink::open(NETLINK_ROUTE)?)
}

/// Every interface of the namespace that the socket is of.
pub(super) fn list_by(netlink: &mut Netlink) -> io::Result<Vec<Interface>> {
    let mut found = Vec::new();
    netlink.request(RouteNetlinkMessage::GetLink(LinkMessage::default()), Want::Dump, |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            found.extend(interface(&link));
        }
    })?;
    Ok(found)
}

/// Every address of the namespace that the socket is of.
#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel adds to these")]
pub(super) fn addresses_by(netlink: &mut Netlink) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    netlink.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), Want::Dump, |answer| {
        if let RouteNetlinkMessage::NewAddress(message) = answer {
            // Of a point-to-point interface ADDRESS is the other end's.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let plain = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            found.extend(local.or(plain));
        }
    })?;
    Ok(found)
}

/// Indexes of the interfaces that the default routes of the main table leave by, of both families.
pub(crate) fn default_routes() -> io::Result<Vec<u32>> {
    default_routes_by(&mut Netlink::open(NETLINK_ROUTE)?)
}

/// The same in the namespace that the socket is of.
pub(super) fn default_routes_by(netlink: &mut Netlink) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut ask = RouteMessage::default();
        ask.header.address_family = family;
        netlink.request(RouteNetlinkMessage::GetRoute(ask), Want::Dump, |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                found.extend(leaves_by(&route));
            }
        })?;
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Where a default route leaves; nothing for any other route.
#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel adds to these")]
fn leaves_by(route: &RouteMessage) -> Vec<u32> {
    let RouteHeader { destination_prefix_length, table, kind, .. } = route.header;
    if destination_prefix_length != 0 || table != RouteHeader::RT_TABLE_MAIN || kind != RouteType::Unicast {
        return Vec::new();
    }
    let hops = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(hops).collect()
}

/// The index of an interface of this namespace.
pub(crate) fn index(name: &str) -> io::Result<Option<u32>> {
    Ok(list()?.into_iter().find(|one| one.name == name).map(|one| one.index))
}

/// The pairs among `names` that one packet crosses both. Names that do not exist are left out.
pub fn overlaps(names: &[String]) -> io::Result<Vec<Overlap>> {
    Ok(overlaps_among(&list()?, names))
}

/// Whether every packet that leaves by `index` crosses one of `attached`: it is one of them, or stands on them.
pub(crate) fn covered(all: &[Interface], attached: &[u32], index: u32) -> bool {
    covered_within(all, attached, index, MAX_NESTING)
}

fn covered_within(all: &[Interface], attached: &[u32], index: u32, depth: usize) -> bool {
    if attached.contains(&index) {
        return true;
    }
    let below: Vec<u32> =
        all.iter().filter(|one| one.index == index).flat_map(|one| directly_below(all, one)).collect();
    depth > 0 && !below.is_empty() && below.iter().all(|lower| covered_within(all, attached, *lower, depth - 1))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel adds to these")]
fn interface(link: &LinkMessage) -> Option<Interface> {
    let mut name = None;
    let (mut lower, mut elsewhere, mut master, mut kind, mut xdp) = (None, false, None, Kind::Other, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Link(index) if *index != 0 => lower = Some(*index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::Controller(index) => master = Some(*index),
            LinkAttribute::LinkInfo(infos) => kind = infos.iter().find_map(made_as).unwrap_or(kind),
            LinkAttribute::Xdp(parts) => xdp = parts.iter().find_map(xdp_hook),
            _ => {}
        }
    }
    let index = link.header.index;
    Some(Interface {
        index,
        name: name?,
        up: link.header.flags.contains(LinkFlags::Up),
        ethernet: link.header.link_layer_type == LinkLayerType::Ether,
        loopback: link.header.link_layer_type == LinkLayerType::Loopback,
        kind,
        lower: lower.filter(|lower| !elsewhere && *lower != index),
        master,
        xdp,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel adds to these")]
fn made_as(info: &LinkInfo) -> Option<Kind> {
    let LinkInfo::Kind(kind) = info else { return None };
    Some(match kind {
        InfoKind::Veth | InfoKind::Netkit => Kind::Veth,
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Bond | InfoKind::Team => Kind::Bond,
        InfoKind::Tun => Kind::Tap,
        InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::ErSpan
        | InfoKind::Ip6ErSpan
        | InfoKind::MacSec
        | InfoKind::BareUdp
        | InfoKind::Wireguard => Kind::Tunnel,
        _ => Kind::Other,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel adds to these")]
fn xdp_hook(part: &LinkXdp) -> Option<XdpHook> {
    let LinkXdp::Attached(attached) = part else { return None };
    match attached {
        XdpAttached::Driver | XdpAttached::Hardware | XdpAttached::Multiple => Some(XdpHook::Native),
        XdpAttached::SocketBuffer => Some(XdpHook::Generic),
        _ => None,
    }
}

/// What a packet that crosses `one` crosses too, one step down.
fn directly_below(all: &[Interface], one: &Interface) -> Vec<u32> {
    let stands_on = one.lower.filter(|_| !matches!(one.kind, Kind::Veth | Kind::Tunnel));
    let members = all.iter().filter(|other| other.master == Some(one.index)).map(|other| other.index);
    stands_on.into_iter().chain(members).collect()
}

/// Whether every packet of `upper`'s may cross the interface with this index too.
pub(crate) fn stands_on(all: &[Interface], upper: &Interface, index: u32) -> bool {
    let mut seen = vec![upper.index];
    let mut next = directly_below(all, upper);
    while let Some(lower) = next.pop() {
        if lower == index {
            return true;
        }
        if !seen.contains(&lower) {
            seen.push(lower);
            next.extend(all.iter().filter(|one| one.index == lower).flat_map(|one| directly_below(all, one)));
        }
    }
    false
}

pub(crate) fn overlaps_among(all: &[Interface], names: &[String]) -> Vec<Overlap> {
    let listed: Vec<&Interface> = names.iter().filter_map(|name| all.iter().find(|one| one.name == *name)).collect();
    let mut found = Vec::new();
    for (position, a) in listed.iter().enumerate() {
        for b in listed.iter().skip(position + 1).filter(|b| b.index != a.index) {
            if let Some(Relation { why, .. }) = relation(all, a, b).or_else(|| relation(all, b, a)) {
                found.push(Overlap { a: a.name.clone(), b: b.name.clone(), why });
            }
        }
    }
    found
}

/// What two interfaces are to each other that one packet can cross both.
pub(crate) struct Relation {
    /// In words.
    pub(crate) why: String,
    /// The first stands on the second: what crosses one crosses the other, always.
    pub(crate) below: bool,
}

/// Why packets cross both, seen from `a`.
pub(crate) fn relation(all: &[Interface], a: &Interface, b: &Interface) -> Option<Relation> {
    let (a_name, b_name) = (&a.name, &b.name);
    if b.master == Some(a.index) {
        let port = if a.kind == Kind::Bridge { "a port" } else { "a slave" };
        return Some(Relation { why: format!("{b_name} is {port} of {a_name}"), below: true });
    }
    if stands_on(all, a, b.index) {
        return Some(Relation { why: format!("{a_name} stands on {b_name}"), below: true });
    }
    if a.kind == Kind::Veth && b.kind == Kind::Veth && a.lower == Some(b.index) {
        return Some(Relation {
            why: format!("{a_name} and {b_name} are the two ends of one veth pair"),
            below: false,
        });
    }
    let bridge = all.iter().find(|one| one.kind == Kind::Bridge && a.master == Some(one.index));
    if let Some(bridge) = bridge.filter(|bridge| b.master == Some(bridge.index)) {
        let why = format!("{a_name} and {b_name} are ports of {}, which passes packets between them", bridge.name);
        return Some(Relation { why, below: false });
    }
    // What goes over the loopback goes nowhere else.
    (a.kind == Kind::Veth && b.kind != Kind::Veth && !b.loopback).then(|| {
        let why =
            format!("{a_name} leads into another namespace, and what comes out of it leaves this host by {b_name}");
        Relation { why, below: false }
    })
}

/// One that is up, for tests: a card, but for what its name says.
#[cfg(test)]
pub(super) fn made(index: u32, name: &str, kind: Kind, lower: Option<u32>, master: Option<u32>) -> Interface {
    let loopback = name == "lo";
    Interface {
        index,
        name: name.into(),
        up: true,
        ethernet: !loopback && !name.starts_with("tun"),
        loopback,
        kind,
        lower,
        master,
        xdp: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<Interface> {
        vec![
            made(2, "eth0", Kind::Other, None, Some(4)),
            made(3, "eth1", Kind::Other, None, Some(4)),
            made(4, "bond0", Kind::Bond, None, None),
            made(5, "bond0.100", Kind::Other, Some(4), None),
            made(6, "br0", Kind::Bridge, None, None),
            made(7, "tap0", Kind::Other, None, Some(6)),
            made(8, "tap1", Kind::Other, None, Some(6)),
            made(9, "veth0", Kind::Veth, Some(10), None),
            made(10, "veth1", Kind::Veth, Some(9), None),
            made(11, "eth2", Kind::Other, None, None),
            made(12, "vxlan0", Kind::Tunnel, Some(11), None),
            made(13, "veth2", Kind::Veth, None, None),
            made(14, "eth3", Kind::Other, None, None),
            made(15, "bond0.200", Kind::Other, Some(4), None),
        ]
    }

    fn pairs(names: &[&str]) -> Vec<String> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        overlaps_among(&host(), &names).into_iter().map(|found| found.why).collect()
    }

    #[test]
    fn a_vlan_overlaps_with_its_parent_and_with_what_is_under_that() {
        assert_eq!(pairs(&["bond0", "bond0.100"]), ["bond0.100 stands on bond0"]);
        assert_eq!(pairs(&["bond0.100", "eth1"]), ["bond0.100 stands on eth1"]);
    }

    #[test]
    fn a_master_overlaps_with_its_members() {
        assert_eq!(pairs(&["eth0", "bond0"]), ["eth0 is a slave of bond0"]);
        assert_eq!(pairs(&["br0", "tap1"]), ["tap1 is a port of br0"]);
    }

    #[test]
    fn ports_of_one_bridge_overlap_and_slaves_of_one_bond_do_not() {
        assert_eq!(pairs(&["tap0", "tap1"]), ["tap0 and tap1 are ports of br0, which passes packets between them"]);
        assert!(pairs(&["eth0", "eth1"]).is_empty());
    }

    #[test]
    fn a_veth_overlaps_with_its_other_end_and_with_an_uplink() {
        assert_eq!(pairs(&["veth0", "veth1"]), ["veth0 and veth1 are the two ends of one veth pair"]);
        assert_eq!(pairs(&["eth3", "veth2"]).len(), 1);
        assert!(pairs(&["veth0", "veth2"]).is_empty());
    }

    #[test]
    fn what_is_apart_does_not_overlap() {
        assert!(pairs(&["eth2", "eth3", "vxlan0"]).is_empty());
        assert!(pairs(&["bond0.100", "bond0.200"]).is_empty());
        assert!(pairs(&["eth2", "no-such-interface", "eth2"]).is_empty());
    }

    #[test]
    fn a_loop_of_masters_comes_to_an_end() {
        let all = [made(1, "a", Kind::Bond, None, Some(2)), made(2, "b", Kind::Bond, None, Some(1))];
        assert_eq!(overlaps_among(&all, &["a".into(), "b".into()]).len(), 1);
        assert!(!covered(&all, &[9], 1));
    }

    #[test]
    fn a_route_is_covered_where_all_that_is_under_it_is_attached() {
        let all = host();
        assert!(covered(&all, &[11], 11));
        assert!(covered(&all, &[4], 5));
        assert!(covered(&all, &[2, 3], 5));
        assert!(!covered(&all, &[2], 5));
        assert!(!covered(&all, &[11], 12));
        assert!(!covered(&all, &[10], 9));
        assert!(!covered(&all, &[11], 99));
    }

    #[test]
    fn this_namespaces_own_interfaces_are_listed() {
        let all = list().unwrap();
        let loopback = all.iter().find(|one| one.name == "lo").unwrap();
        assert!(loopback.loopback && !loopback.ethernet);
    }
}
