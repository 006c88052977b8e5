//! See [`st_fuzz::fragments`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| st_fuzz::fragments(data));
