//! A request in the peer's name: it leaves as one from the server to the peer, and is turned round to come in as one of the
//! peer's. So it takes the way that the peer's own packets take, and neither a routing table nor a firewall has to know of it.

use super::{access::Access, maps::Scratch, message::forgetting, packet::Ip};

/// Length of an Ethernet address.
const MAC: u32 = 6;

/// Exchanges the two ends of a packet. Checksums stay right. False where the packet is shorter than it said.
#[inline(always)]
pub fn turn<A: Access>(access: &A, scratch: &mut Scratch) -> bool {
    let ip = forgetting(scratch).ip;
    scratch.turned = 1;
    exchange(access, scratch, ip.next, 2) && turn_ends(access, scratch, ip)
}

/// The same of a fragment after the first, which has no ports.
#[inline(always)]
pub fn turn_ends<A: Access>(access: &A, scratch: &mut Scratch, ip: Ip) -> bool {
    let addresses =
        if ip.v6 { exchange(access, scratch, ip.at + 8, 16) } else { exchange(access, scratch, ip.at + 12, 4) };
    addresses && exchange(access, scratch, 0, MAC)
}

/// Exchanges two neighbours of `len` bytes each, as a window of the rewriting holds.
#[inline(always)]
fn exchange<A: Access>(access: &A, scratch: &mut Scratch, at: u32, len: u32) -> bool {
    let (first, second) = (scratch.old.as_mut_ptr(), scratch.new.as_mut_ptr());
    // SAFETY: both are WIDTH bytes.
    unsafe {
        access.load(at, first, len)
            && access.load(at + len, second, len)
            && access.overwrite(at, second, len)
            && access.overwrite(at + len, first, len)
    }
}
