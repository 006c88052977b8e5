//! The maps, and the counters.

use core::mem::MaybeUninit;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use st_ebpf::{
    abi::{
        self, Ack, Counter, Early, Flow, Follow, Fragmented, Hold, Latest, Ports, SampleHeader, Seen, Settings, Shift,
        Token,
    },
    cseq::{RANGES, Range},
    key::DialogKey,
    plan::{Connection, PLANS as MAX_PLANS, Plan},
    scan::{Scan, Window},
    timers::Reading,
};

use super::{packet::Datagram, rewrite::Place, stream::Header};

#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// The ports that are looked at: those that carry SIP, and [`OPAQUE_PORTS`]. These and [`FLOW_PORTS`] are asked for every packet, so
/// they are read in place and not looked up: a section of zeroes is a map of one element to user space, whose name is the section's
/// ([`st_ebpf::abi::names::PORTS`]).
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.ports")]
pub static mut PORTS: Ports = Ports { words: [0; 1024] };

/// Those of them whose traffic cannot be read.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.opaque_ports")]
pub static mut OPAQUE_PORTS: Ports = Ports { words: [0; 1024] };

/// Not 0: UDP of other ports is looked at too, where it begins as SIP does. Set before the programs are loaded
/// ([`st_ebpf::abi::names::ANY_PORT`]); constant from then on.
#[unsafe(no_mangle)]
static ANY_PORT: u8 = 0;

/// Whether it is. Where it is not, the verifier takes away what hangs on it.
#[inline(always)]
pub fn any_port() -> bool {
    // SAFETY: a constant in the programs' read-only data; volatile, for its value is known only when they are loaded.
    unsafe { (&raw const ANY_PORT).read_volatile() != 0 }
}

/// The ports of the media flows that are watched.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.flow_ports")]
pub static mut FLOW_PORTS: Ports = Ports { words: [0; 1024] };

#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(abi::RING_BYTES, 0);

#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

#[map]
pub static SHIFTS: HashMap<u64, Shift> = HashMap::with_max_entries(abi::SHIFTS, BPF_F_NO_PREALLOC);

#[map]
pub static SHIFTED: HashMap<[u8; 16], u64> = HashMap::with_max_entries(abi::SHIFTED_HOSTS, BPF_F_NO_PREALLOC);

/// Whoever makes an entry and then looks here knows of every request that found none, ring or no ring.
#[map]
pub static LATEST: LruHashMap<u64, Latest> = LruHashMap::with_max_entries(abi::LATEST, 0);

#[map]
pub static TOKENS: HashMap<u64, Token> = HashMap::with_max_entries(abi::TOKENS, BPF_F_NO_PREALLOC);

#[map]
pub static ACKS: HashMap<u64, Ack> = HashMap::with_max_entries(abi::ACKS, BPF_F_NO_PREALLOC);

/// When the daemon last had its ring empty, `CLOCK_MONOTONIC` nanoseconds; one element.
#[map]
pub static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// The dialogs in which refusals are held back.
#[map]
pub static HOLDS: HashMap<u64, Hold> = HashMap::with_max_entries(abi::HOLDS, BPF_F_NO_PREALLOC);

/// Until when there is any dialog in which ACKs are told apart, `CLOCK_MONOTONIC` nanoseconds; one element.
#[map]
pub static HELD_ACKS: Array<u64> = Array::with_max_entries(1, 0);

/// The media flows that are watched, and when each was last seen, each way.
#[map]
pub static FLOWS: HashMap<Flow, Seen> = HashMap::with_max_entries(abi::FLOWS, BPF_F_NO_PREALLOC);

/// Networks of peers, and whether INVITEs from and to there are changed.
#[map]
pub static ASSISTED: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(abi::ASSISTED, BPF_F_NO_PREALLOC);

/// What became of the first fragments of datagrams, for those that follow.
#[map]
pub static FRAGMENTS: LruHashMap<Fragmented, Follow> = LruHashMap::with_max_entries(abi::FRAGMENTS, 0);

/// How many fragments came before the first of their datagram; one element.
#[map]
pub static EARLY: PerCpuArray<Early> = PerCpuArray::with_max_entries(1, 0);

/// What is written into TCP connections.
#[map]
pub static PLANS: HashMap<Connection, Plan> = HashMap::with_max_entries(MAX_PLANS, BPF_F_NO_PREALLOC);

/// The programs that do that, by direction. Where nobody asked for it there are none, and nobody pays for them.
#[map]
pub static ACTING: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// The programs that read several datagrams as one packet one by one, by direction.
#[map]
pub static JOINED: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// Two places to work in, so that an egress program that interrupts an ingress program (or the other way round, on a
/// preemptible kernel) finds its own.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);

/// Elements are made when they are needed: as many calls at once as there is room for are the exception.
const BPF_F_NO_PREALLOC: u32 = aya_ebpf::bindings::BPF_F_NO_PREALLOC;

/// What is too large for the stack. `header` and `window` stand together: that is a ring record.
#[repr(C)]
pub struct Scratch {
    pub header: SampleHeader,
    pub window: Window,
    pub scan: Scan,
    /// The datagram that the message came in.
    pub datagram: MaybeUninit<Datagram>,
    /// Of a TCP segment, what its header says beside.
    pub segment: MaybeUninit<Header>,
    /// Where a number is written.
    pub place: Place,
    /// The number that is being written: where, and what is left of it.
    pub field: Field,
    /// The bytes around it, before and after.
    pub old: [u8; WIDTH],
    pub new: [u8; WIDTH],
    /// The key of a dialog.
    pub key: DialogKey,
    /// The number of a request, and by how much it is to go up.
    pub number: u32,
    pub delta: u32,
    /// A dialog's ranges, copied out of its entry.
    pub ranges: [Range; RANGES],
    /// What an INVITE says of session timers.
    pub reading: Reading,
    /// The datagram that a fragment belongs to.
    pub fragmented: Fragmented,
    /// Not 0: the message is in the ring.
    pub sampled: u32,
    /// Not 0: the packet was turned round.
    pub turned: u32,
    /// What the message begins with: its method, or that it is a response.
    pub begins: u32,
    /// The ends of a TCP connection.
    pub connection: Connection,
    /// Of several datagrams as one packet: all of them, and how many of their bytes have been gone through.
    pub joined: MaybeUninit<Datagram>,
    pub gone_through: u32,
}

/// A number that is being written from its last digit on.
#[repr(C)]
pub struct Field {
    /// Where the window of [`WIDTH`] bytes begins.
    pub start: u32,
    /// Where the blanks that can be spent begin.
    pub begin: u32,
    /// One past its place.
    pub end: u32,
    /// Where the last digit goes: at the place's end, or before the blanks that it leaves behind it.
    pub last: u32,
    /// The digits still to be written.
    pub rest: u32,
}

/// How many bytes are rewritten at once: a number, the blanks it may take, and what makes the window end on an even
/// offset, which a checksum over it needs. A multiple of 4 for `bpf_csum_diff`.
pub const WIDTH: usize = 24;

/// The bit of a port in a table, lowest; what is above it is to be left out.
#[inline(always)]
pub fn bits_from(table: *const Ports, port: u32) -> u64 {
    // SAFETY: one of the three tables, within their 1,024 words. Volatile, for user space writes them.
    let word = unsafe { table.cast::<u64>().add((port >> 6) as usize & 1023).read_volatile() };
    word >> (port & 63)
}

/// Whether a port is in a table, wherever the port comes from: the compiler drops the mask of one that it knows to be of 16 bits, and
/// the verifiers of some kernels (6.1, 6.12) no longer know that of one that has been on the stack.
#[inline(always)]
pub fn is_in(table: *const Ports, port: u16) -> bool {
    bits_from(table, core::hint::black_box(u32::from(port))) & 1 == 1
}

/// Counts one.
#[inline(always)]
pub fn count(counter: Counter) {
    count_many(counter, 1);
}

/// Counts so many.
#[inline(always)]
pub fn count_many(counter: Counter, many: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the element of this CPU.
        unsafe { *value += many };
    }
}
