//! Calls that have session timers because the kernel programs have changed their INVITE (`assist`), and the end of that where a peer
//! does not take it.

use std::{borrow::Cow, sync::Arc};

use super::{
    dialog::Dialog,
    heard::{Heard, Named},
    invite::Invite,
    limits::MAX_DOMAIN,
    negotiate::Agreed,
    reason,
    session::Deal,
    shared::Shared,
};
use crate::{Assist, By, Event, EventKind, Names, Output, Side, message::Role};

/// A peer has turned an INVITE of the server's down. One 422 to one that was changed is enough: the INVITE says nothing of an interval,
/// so whoever calls it too short would do so again.
pub(super) fn refused(sx: &mut Shared, heard: &Heard<'_>, invite: &Invite, status: u16) {
    let Heard { message, named: Named { client, .. }, .. } = *heard;
    if status != 422 || client != Side::Server || invite.assist != Some(Assist::Done) {
        return;
    }
    let (Some(from), Some(to)) = (message.from(), message.to()) else { return };
    let domain = Some(to.host()).filter(|host| host.len() <= MAX_DOMAIN).unwrap_or_default();
    let policy = Arc::clone(&sx.policy);
    let (trunk, _) = policy.find(invite.peer.ip(), &String::from_utf8_lossy(domain));
    if !sx.unassisted.insert(trunk.to_owned()) {
        return;
    }
    let names =
        Names::new(heard.call_id, from.tag.unwrap_or_default(), to.tag.unwrap_or_default(), invite.server, invite.peer);
    let details = "422 to an INVITE that `timer` was added to; INVITEs from and to this trunk are let be from now on: take \
                   `assist` away, or have the peer take calls without Session-Expires";
    let event = Event {
        names: Some(Arc::new(names)),
        trunk: Some(trunk.into()),
        by: Some(By::Peer),
        method: Some(heard.cseq.method.name()),
        status: Some(status),
        reason: Some(Cow::from(format!("{}: {details}", reason::ASSIST_OFF))),
        ..Event::new(sx.now, EventKind::NegotiationFault)
    };
    sx.output(Output::Event(event));
    sx.output(Output::StopAssisting { trunk: trunk.to_owned() });
}

impl Dialog {
    /// The timer that sipst sees to where the peer has demanded one and the server, which was not shown the demand, has said nothing of
    /// it (`says`). By RFC 4028, section 7.2, the peer has none then; but one that insists on timers may well go by what it has asked for
    /// itself. The first refresh gives it what it wants.
    pub(super) fn undertaken(&self, deal: Deal, says: bool) -> Option<Agreed> {
        let first = self.assisted && deal.sender == Side::Peer && self.session.agreed.is_none();
        if !first || says {
            return None;
        }
        let refresher = match deal.terms.refresher {
            Some(Role::Uas) => Side::Server,
            // It may refresh on its own account. sipst is there before it.
            Some(Role::Uac) | None => Side::Peer,
        };
        deal.terms.interval.map(|interval| Agreed { interval, refresher })
    }
}
