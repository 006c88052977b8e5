//! See [`st_fuzz::engine`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| st_fuzz::engine(data));
