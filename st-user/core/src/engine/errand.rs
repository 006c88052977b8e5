//! What the driver is asked for in the name of one side, for a refresh, for what the server is told and for a BYE alike: its numbers,
//! and that a message leaves.

use std::{net::SocketAddr, time::Duration};

use st_ebpf::cseq::State;

use super::{Mode, dialog::Dialog, shared::Shared};
use crate::{
    Arm, Inject, Output, ReadyAck, Side, Transport, build,
    message::{HeaderName, route_uri},
};

/// How long the driver's answer to [`Output::Arm`] is waited for.
pub(super) const ARM_PATIENCE: Duration = Duration::from_secs(2);

/// A message of ours.
pub(super) struct Errand<'a> {
    /// In whose name.
    pub(super) whose: Side,
    /// The peer's end of its way.
    pub(super) hop: SocketAddr,
    pub(super) token: u64,
    pub(super) bytes: &'a [u8],
}

impl Dialog {
    /// Asks for the numbers of one side. `media`: what the driver looks at before it answers; `ends`: a call that is to be ended need
    /// not be alive.
    pub(super) fn arm(&self, sx: &mut Shared, whose: Side, hop: SocketAddr, media: Vec<SocketAddr>, ends: bool) {
        let numbers = match whose {
            Side::Server => &self.numbers,
            Side::Peer => &self.peer_numbers,
        };
        sx.output(Output::Arm(Arm {
            session: self.id,
            side: whose,
            call_id: self.names.call_id().to_vec(),
            tag: self.names.tag(whose).to_vec(),
            server: self.sends_from(),
            peer: hop,
            transport: self.transport(),
            cookie: self.streamed.map_or(self.cookie, |streamed| streamed.cookie),
            state: numbers.fresh(),
            media,
            ends,
        }));
    }

    /// Asks for a message to be sent. `commit`: the state whose next number it takes; `ack`: that to the 2xx it may get.
    pub(super) fn send_out(&self, sx: &mut Shared, errand: &Errand<'_>, commit: Option<State>, ack: Option<ReadyAck>) {
        if sx.mode == Mode::Replay {
            return;
        }
        let Errand { whose, hop, token, bytes } = *errand;
        sx.output(Output::Inject(Inject {
            session: self.id,
            side: whose,
            token,
            commit,
            ack,
            call_id: self.names.call_id().to_vec(),
            tag: self.names.tag(whose).to_vec(),
            server: self.sends_from(),
            peer: hop,
            transport: self.transport(),
            tos: self.tos,
            ttl: self.ttl,
            bytes: bytes.to_vec(),
        }));
    }

    /// What all our requests in the server's name have in common.
    pub(super) fn template<'a>(
        &'a self,
        path: &'a build::Path,
        sent_by: &'a [u8],
        own: &'a [(HeaderName, &'a [u8])],
    ) -> build::Template<'a> {
        build::Template {
            path,
            transport: self.transport(),
            sent_by,
            from: &self.from,
            to: &self.to,
            call_id: self.names.call_id(),
            contact: self.look.contact(),
            own,
        }
    }

    /// The same in the peer's name.
    pub(super) fn peers_template<'a>(
        &'a self,
        path: &'a build::Path,
        sent_by: &'a [u8],
        contact: Option<&'a [u8]>,
    ) -> build::Template<'a> {
        build::Template {
            path,
            transport: Transport::Udp,
            sent_by,
            from: &self.to,
            to: &self.from,
            call_id: self.names.call_id(),
            contact,
            own: &[],
        }
    }
}

/// Straight to the server, by its Contact.
pub(super) fn path_to_server(contact: &[u8]) -> build::Path {
    build::Path { uri: route_uri(contact).to_vec(), routes: Vec::new() }
}
