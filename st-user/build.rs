//! Puts the kernel programs where `src/kernel` embeds them. Builds nothing: they need a compiler of their own.

use std::{env, fs, path::Path};

fn main() {
    // `cargo xtask build` leaves them here, whatever the target directory.
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/st-ebpf");
    println!("cargo::rerun-if-changed={}", object.display());
    let out = env::var_os("OUT_DIR").unwrap_or_default();
    if let Err(error) = fs::copy(&object, Path::new(&out).join("st-ebpf")) {
        println!(
            "cargo::error=the kernel programs are not built (target/bpf/st-ebpf: {error}): run `cargo xtask build`; \
             `cargo xtask setup` brings the toolchain that it needs"
        );
    }
}
