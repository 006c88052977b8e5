//! When media were last seen, each way, for those flows that user space watches: what leaves from the server's end of one, and what
//! comes in for it. What is not on a watched port costs one bit test more than nothing.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use st_ebpf::abi::{Flow, Seen};

use super::{
    access::Access,
    maps::{FLOW_PORTS, FLOWS, bits_from},
    packet::{Ip, destination_address, source_address},
};

/// Takes in a datagram that is no SIP and leaves from port `source`.
#[inline(always)]
pub fn left(access: &impl Access, ip: Ip, source: u16) {
    let Some(seen) = entry(source, |address| source_address(access, ip, address)) else { return };
    // SAFETY: an element of the map.
    tick(unsafe { &raw mut (*seen).left_ns });
}

/// The same of one that comes in for port `destination`. Anybody can send one: it only ever keeps a call from being ended.
#[inline(always)]
pub fn came(access: &impl Access, ip: Ip, destination: u16) {
    let Some(seen) = entry(destination, |address| destination_address(access, ip, address)) else { return };
    // SAFETY: as above.
    tick(unsafe { &raw mut (*seen).came_ns });
}

/// The watched flow of a port and an address of the server's.
#[inline(always)]
fn entry(port: u16, address: impl Fn(&mut [u8; 16]) -> bool) -> Option<*mut Seen> {
    if bits_from(&raw const FLOW_PORTS, u32::from(port)) & 1 == 0 {
        return None;
    }
    // In whole words, which the stack wants aligned.
    let mut flow = [0, 0, u64::from(port.to_be())];
    // SAFETY: the first sixteen of its bytes.
    if !address(unsafe { &mut *flow.as_mut_ptr().cast() }) {
        return None;
    }
    // SAFETY: as many bytes, of which any will do.
    FLOWS.get_ptr_mut(unsafe { core::mem::transmute::<[u64; 3], Flow>(flow) })
}

/// Writes the time: only when it changes, which is once in a tick, whatever the packet rate.
#[inline(always)]
fn tick(at: *mut u64) {
    // SAFETY: no arguments. Since Linux 5.11.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: an aligned word of the map's element.
    unsafe {
        if at.read_volatile() != now {
            at.write_volatile(now);
        }
    }
}
