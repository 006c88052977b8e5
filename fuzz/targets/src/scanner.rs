//! See [`st_fuzz::scanner`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| st_fuzz::scanner(data));
