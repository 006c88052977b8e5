//! What the kernel programs and user space share: the ABI ([`abi`]), the CSeq mapping ([`cseq`]) and the dialog key
//! ([`key`]). `no_std`, no dependencies, testable on any host.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod cseq;
pub mod key;

#[cfg(feature = "user")]
mod pod;
