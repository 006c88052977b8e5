//! The kernel programs: `st_ingress` (XDP), `st_ingress_tc` and `st_egress` (TC), and those that these of TC call: `st_stream_ingress`
//! and `st_stream_egress` for TCP segments where they are to be written into, `st_joined_ingress` and `st_joined_egress` for several
//! datagrams as one packet. Verdicts are given here and nowhere
//! else: what is not dropped goes on to the next program (`TCX_NEXT`, which is `TC_ACT_UNSPEC`, so that a user's
//! programs behind these still run), and nothing is dropped but sipst's own requests, the answers to them, ICMP errors about
//! them, the server's refusals that a living daemon answers or lets out, and the ACKs to its answers. Two packets are sent back:
//! the 2xx to a re-INVITE of sipst's own, made into its ACK where no daemon lives, and a request of sipst's in the peer's name,
//! which is for the server.
//!
//! Functions whose names begin with `st_` beside those of the programs are global to the verifier: it goes through each once, by itself,
//! with whatever it may be given, where it goes through others anew for each state in which they are called. So they take the scratch
//! place and numbers, nothing that has to be known, and what they return is any number to who has called them.
//!
//! Kernel 6.1 or later: `bpf_loop` (5.17), `bpf_xdp_load_bytes` and `bpf_xdp_store_bytes` (5.18).
#![no_std]
#![no_main]
#![feature(core_intrinsics, adt_const_params)]
#![allow(internal_features, reason = "`AtomicU64::compare_exchange` is missing on this target; its intrinsic is not")]
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "the programs are entered by the kernel, through names in ELF sections"
)]

mod programs {
    pub mod access;
    pub mod ack;
    pub mod acting;
    pub mod assist;
    pub mod egress;
    pub mod fragments;
    pub mod glance;
    pub mod hold;
    pub mod ingress;
    pub mod joined;
    pub mod lengthen;
    pub mod loopback;
    pub mod maps;
    pub mod media;
    pub mod message;
    pub mod packet;
    pub mod record;
    pub mod rewrite;
    pub mod shift;
    pub mod stream;
    pub mod turn;
}

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::generated::bpf_redirect,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use programs::{
    access::{Access as _, Skb, Xdp},
    acting::{act, go_on},
    egress::egress,
    glance::{Way, is_none_of_ours},
    ingress::ingress,
    joined::{read_next, read_on},
};
use st_ebpf::abi::direction;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Pass,
    /// It is taken off the wire.
    Take,
    /// It has become another, which goes the other way by the same interface.
    Back,
    /// A TCP segment of a SIP port goes on, by way of what writes into connections.
    Segment,
    /// Several datagrams as one packet go on, by way of what reads them.
    Joined,
}

/// What a function says in a verdict's place for [`Fate::Segment`] and [`Fate::Joined`]: none of TC's.
const SEGMENT: i32 = 100;
const JOINED: i32 = 101;

#[xdp(frags)]
pub fn st_ingress(ctx: XdpContext) -> u32 {
    let xdp = Xdp(ctx.ctx);
    if is_none_of_ours(&xdp, Way::In) { xdp_action::XDP_PASS } else { ingress_xdp(xdp) }
}

#[classifier]
pub fn st_ingress_tc(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if is_none_of_ours(&skb, Way::In) {
        return TC_ACT_UNSPEC;
    }
    match ingress_tc(Skb(skb.0)) {
        SEGMENT => go_on(&skb, direction::INGRESS),
        JOINED => read_on(&skb, direction::INGRESS),
        verdict => verdict,
    }
}

#[classifier]
pub fn st_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if is_none_of_ours(&skb, Way::Out) {
        return TC_ACT_UNSPEC;
    }
    match egress_tc(Skb(skb.0)) {
        SEGMENT => go_on(&skb, direction::EGRESS),
        JOINED => read_on(&skb, direction::EGRESS),
        verdict => verdict,
    }
}

#[classifier]
pub fn st_stream_egress(ctx: TcContext) -> i32 {
    act(&Skb(ctx.skb.skb), direction::EGRESS);
    TC_ACT_UNSPEC
}

#[classifier]
pub fn st_stream_ingress(ctx: TcContext) -> i32 {
    act(&Skb(ctx.skb.skb), direction::INGRESS);
    TC_ACT_UNSPEC
}

#[classifier]
pub fn st_joined_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if read_next(&skb, direction::EGRESS) { read_on(&skb, direction::EGRESS) } else { TC_ACT_UNSPEC }
}

#[classifier]
pub fn st_joined_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if read_next(&skb, direction::INGRESS) { read_on(&skb, direction::INGRESS) } else { TC_ACT_UNSPEC }
}

// The rest, each in a function of its own: what is let by at first sight does not pay for its frame.

#[inline(never)]
fn ingress_xdp(xdp: Xdp) -> u32 {
    match ingress(&xdp) {
        // What writes into connections is at TC, and nothing is joined before that.
        Fate::Pass | Fate::Segment | Fate::Joined => xdp_action::XDP_PASS,
        Fate::Take => xdp_action::XDP_DROP,
        Fate::Back => xdp_action::XDP_TX,
    }
}

#[inline(never)]
fn ingress_tc(skb: Skb) -> i32 {
    match ingress(&skb) {
        Fate::Pass => TC_ACT_UNSPEC,
        Fate::Segment => SEGMENT,
        Fate::Joined => JOINED,
        Fate::Take => TC_ACT_SHOT,
        // SAFETY: no pointers. st_egress sees it leave.
        Fate::Back => unsafe { bpf_redirect(skb.interface(), 0) as i32 },
    }
}

#[inline(never)]
fn egress_tc(skb: Skb) -> i32 {
    match egress(&skb) {
        Fate::Pass => TC_ACT_UNSPEC,
        Fate::Segment => SEGMENT,
        Fate::Joined => JOINED,
        Fate::Take => TC_ACT_SHOT,
        // SAFETY: no pointers. It comes in by the interface that it was to leave by.
        Fate::Back => unsafe { bpf_redirect(skb.interface(), BPF_F_INGRESS as u64) as i32 },
    }
}

/// Never reached: the code has no panicking path that survives optimisation, else the verifier would refuse it.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
