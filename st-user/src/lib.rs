//! The sipst daemon and its command line: everything around the engine that reads clocks, opens sockets and talks to
//! the kernel.

mod acting;
mod alarm;
pub mod alert;
pub mod batch;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod container;
pub mod control;
mod fragments;
pub mod hep;
mod http;
pub mod inject;
pub mod journal;
pub mod kernel;
pub mod leftover;
mod level;
mod metrics;
#[cfg(test)]
mod namespace;
mod needed;
mod netlink;
mod notify;
pub mod output;
pub mod owner;
mod pace;
mod page;
pub mod paper;
pub mod privilege;
pub mod recorder;
pub mod replay;
pub mod ring;
pub mod route;
pub mod run;
pub mod sighting;
pub mod sink;
pub mod site;
pub mod status;
pub mod store;
pub mod takeover;
mod top;
mod transports;
pub mod words;
#[cfg(test)]
mod written;

/// In place of the C library's: musl's, with which the packages are linked, takes half as long again for every message.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
