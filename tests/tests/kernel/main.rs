//! The kernel programs by BPF_PROG_TEST_RUN: tables of a description, the packet that goes in, the verdict, the packet
//! that comes out, the ring's records and the counters.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod ack;
mod acting;
mod agrees;
mod any_port;
mod assist;
mod commit;
mod cost;
mod fragments;
mod frame;
mod harmless;
mod hold;
mod joined;
mod large;
mod latest;
mod loopback;
mod media;
mod peer;
mod quoted;
mod race;
mod record;
mod sample;
mod shift;
mod stream;
mod take;
mod tester;
mod traffic;
