//! The session-timer engine of sipst: RFC 4028 as seen from beside one end of the dialog.
//!
//! Sans-IO: no clock, no socket, no thread. Whoever drives an [`Engine`] tells it what happened
//! ([`Engine::handle_packet`], [`Engine::handle_timeout`], [`Engine::handle_command`]) and **after every such call drains
//! [`Engine::poll_output`] until it says [`Output::Timeout`]**. The same engine serves the daemon, `sipst replay` and the
//! simulated-time tests.
//!
//! Words: *server* is the unmodified SIP server on this host, *peer* the other end of the dialog, *egress* server to peer,
//! *ingress* peer to server.

pub mod build;
pub mod digest;
pub mod engine;
pub mod event;
pub mod io;
pub mod message;
pub mod policy;
pub mod reassembly;
pub mod stream;
pub mod time;

pub use engine::Engine;
pub use event::{Breach, By, Event, EventKind, Names, Side};
pub use io::{
    AnsweredInvite, Arm, Assist, Command, Datagram, Direction, Inject, KeepAlive, LetBe, Mark, MediaSeen, Output,
    Packet, ReadyAck, Refusal, SessionId,
};
pub use message::Transport;
pub use policy::{
    Action, AssumeMode, Credentials, DomainPattern, Matcher, Method, OnExpired, OnMoved, OverTcp, Policy, Rate,
    Respond, Rules, Trunk,
};
pub use time::Time;
