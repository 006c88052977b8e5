//! See [`st_fuzz::headers`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| st_fuzz::headers(data));
