//! See [`st_fuzz::stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| st_fuzz::stream(data));
