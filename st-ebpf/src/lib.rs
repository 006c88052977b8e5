//! What the kernel programs and user space share: the ABI ([`abi`]), the CSeq mapping ([`cseq`]), the dialog key ([`key`])
//! the kernel's reading of a message ([`scan`], [`timers`]) and the plans of TCP connections ([`plan`]). `no_std`, no dependencies, testable on any host.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod cseq;
pub mod key;
pub mod plan;
pub mod scan;
pub mod timers;

#[cfg(feature = "user")]
mod pod;
