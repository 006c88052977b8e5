//! A packet as TC and as XDP give it, behind one face.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, xdp_md},
    helpers::generated::{
        bpf_check_mtu, bpf_get_socket_cookie, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
};
use st_ebpf::abi::flags;

use super::maps::WIDTH;

/// What the programs need of a packet. Offsets are from the Ethernet header.
pub trait Access {
    /// Bit of [`flags`] for records of packets that came this way.
    const FLAGS: u8;

    /// Begin of the bytes that can be read directly.
    fn data(&self) -> usize;

    /// End of them.
    fn data_end(&self) -> usize;

    /// Length of the whole packet.
    fn len(&self) -> u32;

    /// Copies `len` bytes out; false where the packet is shorter.
    ///
    /// # Safety
    /// `to` must have room for `len` bytes, and `len` must not be 0.
    unsafe fn load(&self, offset: u32, to: *mut u8, len: u32) -> bool;

    /// Overwrites bytes, then mends the checksum at `checksum` by `diff`; a checksum of 0 (none) stays.
    fn store(&self, offset: u32, from: &[u8; WIDTH], checksum: u32, diff: u32) -> bool;

    /// Overwrites `len` bytes.
    ///
    /// # Safety
    /// `from` must have `len` bytes, and `len` must not be 0.
    unsafe fn overwrite(&self, offset: u32, from: *const u8, len: u32) -> bool;

    /// Makes the packet `to` bytes long. False, and nothing is changed, where that cannot be.
    fn resize(&self, to: u32) -> bool;

    /// Whether the packet may leave by its interface if it grows by that many bytes.
    fn may_grow(&self, by: i32) -> bool;

    /// Mends the UDP checksum at `checksum` of a packet whose payload was written anew, between the same two ends. A
    /// program at TC cannot tell whether it is whole or only begun (`CHECKSUM_PARTIAL`), so it is changed by what has
    /// changed.
    fn renew_checksum(&self, checksum: u32, change: &Change) -> bool;

    /// Whether it stands for several packets, which the kernel parts later or has put together. XDP in the driver comes before all that,
    /// and that of the kernel itself (generic) does not show it.
    fn is_joined(&self) -> bool;

    /// Interface index.
    fn interface(&self) -> u32;

    /// Cookie of the socket that sent it, 0 for none.
    fn cookie(&self) -> u64;
}

/// How a UDP checksum changes when a packet is written anew.
pub struct Change {
    /// By its payload.
    pub payload: u32,
    /// The UDP length before, network order.
    pub old_len: u16,
    /// The UDP length now, network order.
    pub new_len: u16,
    /// The checksum of the new packet, as it stands in memory.
    pub whole: [u8; 2],
    /// It stood in the first fragment of a longer packet: what it was before cannot be told from there, but it was whole.
    pub fragment: bool,
}

/// A packet at a TC hook.
pub struct Skb(pub *mut __sk_buff);

impl Skb {
    /// Of several packets as one: how many bytes each of them carries, but for the last, which may carry fewer. 0: it is only one.
    #[inline(always)]
    pub fn size_of_each(&self) -> u32 {
        // SAFETY: the context that the kernel gave. Since Linux 5.7.
        unsafe { (*self.0).gso_size }
    }
}

impl Access for Skb {
    const FLAGS: u8 = 0;

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context that the kernel gave.
        unsafe { (*self.0).data as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.0).data_end as usize }
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { bpf_skb_load_bytes(self.0.cast::<c_void>(), offset, to.cast(), len) == 0 }
    }

    #[inline(always)]
    fn store(&self, offset: u32, from: &[u8; WIDTH], checksum: u32, diff: u32) -> bool {
        // Flags 0, and never BPF_F_RECOMPUTE_CSUM: with it `skb->csum` is wrong on NICs that do CHECKSUM_COMPLETE.
        // SAFETY: as above; the helper checks the offsets.
        unsafe {
            bpf_skb_store_bytes(self.0, offset, from.as_ptr().cast(), from.len() as u32, 0) == 0
                && bpf_l4_csum_replace(self.0, checksum, 0, diff as u64, BPF_F_MARK_MANGLED_0 as u64) == 0
        }
    }

    #[inline(always)]
    unsafe fn overwrite(&self, offset: u32, from: *const u8, len: u32) -> bool {
        // SAFETY: the caller's promise; the helper checks the offset.
        unsafe { bpf_skb_store_bytes(self.0, offset, from.cast(), len, 0) == 0 }
    }

    #[inline(always)]
    fn resize(&self, to: u32) -> bool {
        // SAFETY: the context that the kernel gave.
        unsafe { bpf_skb_change_tail(self.0, to, 0) == 0 }
    }

    #[inline(always)]
    fn may_grow(&self, by: i32) -> bool {
        let mut mtu = 0_u32;
        // SAFETY: the context that the kernel gave, and a place for the MTU. Since Linux 5.12.
        unsafe { bpf_check_mtu(self.0.cast(), 0, &raw mut mtu, by, 0) == 0 }
    }

    #[inline(always)]
    fn renew_checksum(&self, checksum: u32, change: &Change) -> bool {
        let &Change { payload, old_len, new_len, ref whole, fragment } = change;
        if fragment {
            // SAFETY: two bytes.
            return unsafe { self.overwrite(checksum, whole.as_ptr(), 2) };
        }
        let (old_len, new_len) = (old_len as u64, new_len as u64);
        let flags = BPF_F_MARK_MANGLED_0 as u64;
        // The length stands in the UDP header and in the pseudo-header.
        // SAFETY: as above; the helper checks the offset.
        unsafe {
            bpf_l4_csum_replace(self.0, checksum, 0, payload as u64, flags) == 0
                && bpf_l4_csum_replace(self.0, checksum, old_len, new_len, flags | 2) == 0
                && bpf_l4_csum_replace(self.0, checksum, old_len, new_len, flags | BPF_F_PSEUDO_HDR as u64 | 2) == 0
        }
    }

    #[inline(always)]
    fn is_joined(&self) -> bool {
        self.size_of_each() != 0
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).ifindex }
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }
}

/// A packet at the XDP hook.
pub struct Xdp(pub *mut xdp_md);

impl Access for Xdp {
    const FLAGS: u8 = flags::XDP;

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context that the kernel gave.
        unsafe { (*self.0).data as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.0).data_end as usize }
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: as above.
        unsafe { bpf_xdp_get_buff_len(self.0) as u32 }
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { bpf_xdp_load_bytes(self.0, offset, to.cast(), len) == 0 }
    }

    #[inline(always)]
    fn store(&self, offset: u32, from: &[u8; WIDTH], checksum: u32, diff: u32) -> bool {
        let mut sum = [0_u8; 2];
        // SAFETY: two bytes; the helper checks the offset.
        if !unsafe { self.load(checksum, sum.as_mut_ptr(), 2) } {
            return false;
        }
        let old = u16::from_ne_bytes(sum);
        // SAFETY: the helper checks the offset.
        if unsafe { bpf_xdp_store_bytes(self.0, offset, from.as_ptr().cast_mut().cast(), from.len() as u32) } != 0 {
            return false;
        }
        if old == 0 {
            return true;
        }
        let mut new = (!old as u64) + diff as u64;
        new = (new & 0xffff) + (new >> 16);
        new = (new & 0xffff) + (new >> 16);
        new = (new & 0xffff) + (new >> 16);
        let folded = !(new as u16);
        let sum = (if folded == 0 { 0xffff } else { folded }).to_ne_bytes();
        // SAFETY: two bytes; the helper checks the offset.
        unsafe { bpf_xdp_store_bytes(self.0, checksum, sum.as_ptr().cast_mut().cast(), 2) == 0 }
    }

    #[inline(always)]
    unsafe fn overwrite(&self, offset: u32, from: *const u8, len: u32) -> bool {
        // SAFETY: the caller's promise; the helper checks the offset.
        unsafe { bpf_xdp_store_bytes(self.0, offset, from.cast_mut().cast(), len) == 0 }
    }

    #[inline(always)]
    fn resize(&self, to: u32) -> bool {
        // SAFETY: the context that the kernel gave.
        unsafe { bpf_xdp_adjust_tail(self.0, to.wrapping_sub(self.len()) as i32) == 0 }
    }

    #[inline(always)]
    fn may_grow(&self, _by: i32) -> bool {
        false
    }

    #[inline(always)]
    fn renew_checksum(&self, checksum: u32, change: &Change) -> bool {
        // SAFETY: two bytes.
        unsafe { self.overwrite(checksum, change.whole.as_ptr(), 2) }
    }

    #[inline(always)]
    fn is_joined(&self) -> bool {
        false
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        0
    }
}
