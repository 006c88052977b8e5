//! Whole calls between network namespaces: the kernel programs on real interfaces, the daemon, real SIP software and
//! strict peers. Needs root; every test has hosts of its own.

#![allow(clippy::unwrap_used, reason = "this whole crate is tests; the lint knows only functions marked so")]

mod alarm;
mod answers;
mod any_port;
mod assist;
mod assume;
mod attackers;
mod bystanders;
mod containers;
mod control;
mod crash;
mod daemon;
mod dead;
mod demand;
mod ends;
mod foreign;
mod fragments;
mod hangup;
mod keepalive;
mod large;
mod loopback;
mod media;
mod methods;
mod metrics;
mod mid_call;
mod moved;
mod numbers;
mod offloads;
mod operator;
mod page;
mod peers;
mod plan;
mod privilege;
mod real;
mod real_hangup;
mod real_respond;
mod real_take_over;
mod recorder;
mod refresh;
mod relays;
mod reload;
mod replay;
mod respond;
mod restart;
mod tcp;
mod tcp_offloads;
mod tcp_refresh;
mod told;
mod top;
mod trouble;
mod watched;
