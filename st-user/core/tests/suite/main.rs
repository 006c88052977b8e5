//! The engine in simulated time: a fake kernel, scripted servers and peers, one subject a file.
//!
//! One program, since each one more is linked anew for every change of the engine. `memory` stands alone: it counts what
//! its whole process allocates. `world` is a run of many calls.

mod answers;
mod assist;
mod assume;
mod attackers;
mod breaker;
mod census;
mod demand;
mod dialogs;
mod endings;
mod evidence;
mod hangup;
mod hostile;
mod joined;
mod keepalive;
mod kernel_agrees;
mod limits;
mod links;
mod loss;
mod malformed;
mod mid_call;
mod misfortunes;
mod numbers;
mod obligations;
mod own;
mod packed;
mod peers;
mod rates;
mod refresh;
mod reload;
mod replay;
mod respond;
mod restart;
mod rules_breaches;
mod rules_dialog;
mod rules_table;
mod shared_numbers;
mod sim;
mod take_over;
mod tcp;
mod tcp_refresh;
mod telling;
mod torture;
mod waits;
mod wishes;
