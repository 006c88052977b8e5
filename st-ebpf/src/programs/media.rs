//! When media of the server's were last seen leaving, for those flows that user space watches. What is not on a watched port
//! costs one bit test more than nothing.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use st_ebpf::abi::Flow;

use super::{
    access::Access,
    maps::{FLOW_PORTS, FLOWS},
    packet::{Ip, source_address},
};

/// Takes in a datagram that is no SIP and leaves from port `source`.
#[inline(always)]
pub fn saw(access: &impl Access, ip: Ip, source: u16) {
    let Some(word) = FLOW_PORTS.get((source >> 6) as u32) else { return };
    if word >> (source & 63) & 1 == 0 {
        return;
    }
    let mut flow = Flow { address: [0; 16], port: source.to_be_bytes(), reserved: [0; 6] };
    if !source_address(access, ip, &mut flow.address) {
        return;
    }
    let Some(seen) = FLOWS.get_ptr_mut(flow) else { return };
    // SAFETY: no arguments. Since Linux 5.11.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: an aligned word of the map's element. Written only when it changes: once in a tick, whatever the packet rate.
    unsafe {
        if seen.read_volatile() != now {
            seen.write_volatile(now);
        }
    }
}
