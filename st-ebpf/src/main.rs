//! x
#![no_std]
#![no_main]
use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
#[classifier]
pub fn st_egress(ctx: TcContext) -> i32 {
    let _ = ctx.len();
    TC_ACT_UNSPEC
}
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
