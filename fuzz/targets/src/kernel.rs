//! See [`st_fuzz::kernel`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| st_fuzz::kernel(data));
