//! When media were last seen, each way, for those flows that user space watches: what leaves from the server's end of one, and what
//! comes in for it. What is not on a watched port costs one bit test more than nothing.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use st_ebpf::abi::{Flow, Seen};

use super::{
    access::Access,
    maps::{FLOW_PORTS, FLOWS},
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
    let word = FLOW_PORTS.get((port >> 6) as u32)?;
    if word >> (port & 63) & 1 == 0 {
        return None;
    }
    let mut flow = Flow { address: [0; 16], port: port.to_be_bytes(), reserved: [0; 6] };
    if address(&mut flow.address) { FLOWS.get_ptr_mut(flow) } else { None }
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
