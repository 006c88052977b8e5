//! `Require: timer`: who insists on session timers and whom that meets in vain. No call comes of it, so it is told with what to do.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use super::{
    Mode,
    dialog::Dialog,
    heard::{Heard, Named},
    invite::Invite,
    limits::MAX_DOMAIN,
    reason,
    shared::Shared,
};
use crate::{
    Action, Assist, By, Event, EventKind, Names, Side, Time,
    message::{Message, MethodName},
};

/// How long the same is not told again of calls of the same trunk.
const PAUSE: Duration = Duration::from_secs(60);

/// What to do where the peer demands what the server does not offer.
const OFFER: &str = "switch session timers on at the server, so that it lists `timer` in Supported, or have the peer ask for them \
                     without demanding them";

/// What to do where the server refuses what the peer demands.
const ACCEPT: &str =
    "switch session timers on at the server, or have the peer send `Supported: timer` instead of `Require: timer`";

/// What was told, by trunk: of each reason, when, and of how many calls nothing was told since.
#[derive(Debug, Default)]
pub(super) struct Demands(HashMap<String, [Option<(Time, u64)>; 2]>);

impl Demands {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether it is told now, and of how many calls like it nothing was told before.
    fn untold(&mut self, now: Time, trunk: &str, demand: Demand) -> Option<u64> {
        if !self.0.contains_key(trunk) {
            self.0.insert(trunk.to_owned(), [None; 2]);
        }
        let told = &mut self.0.get_mut(trunk)?[demand as usize];
        match told {
            Some((at, others)) if now.since(*at) < PAUSE => {
                *others += 1;
                None
            }
            _ => Some(told.replace((now, 0)).map_or(0, |(_, others)| others)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Demand {
    /// 421
    Demanded,
    /// 420
    Refused,
}

impl Demand {
    /// What a failure says of it; `required`: whether the request has `Require: timer`.
    fn of(message: &Message<'_>, sender: Side, status: u16, required: impl FnOnce() -> bool) -> Option<Self> {
        match (sender, status) {
            (Side::Server, 421) => message.requires(b"timer").then_some(Self::Demanded),
            // An answer that does not say what it lacks lacks what was required.
            (Side::Peer, 420) => message.lacks(b"timer").unwrap_or_else(required).then_some(Self::Refused),
            _ => None,
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::Demanded => reason::TIMER_DEMANDED,
            Self::Refused => reason::TIMER_REFUSED,
        }
    }

    const fn cure(self) -> &'static str {
        match self {
            Self::Demanded => OFFER,
            Self::Refused => ACCEPT,
        }
    }

    fn details(self, status: u16, method: MethodName) -> String {
        format!("{status} to {}; {}", method.name(), self.cure())
    }
}

/// Tells of an INVITE that was to make a dialog, where that is why it was turned down. Whoever calls can make a server refuse
/// without end: so it is told once a minute for each trunk.
pub(super) fn tell(sx: &mut Shared, heard: &Heard<'_>, invite: &Invite, status: u16) {
    let Heard { message, named: Named { client, .. }, .. } = *heard;
    let request = || Message::scan(&invite.bytes, invite.truncated).ok();
    let required = || request().is_some_and(|request| request.requires(b"timer"));
    let Some(demand) = Demand::of(message, client, status, required) else { return };
    let (Some(from), Some(to)) = (message.from(), message.to()) else { return };
    let (local, remote) = match client {
        Side::Server => (from, to),
        Side::Peer => (to, from),
    };
    let domain = Some(remote.host()).filter(|host| host.len() <= MAX_DOMAIN).unwrap_or_default();
    let policy = Arc::clone(&sx.policy);
    let (trunk, rules) = policy.find(invite.peer.ip(), &String::from_utf8_lossy(domain));
    if rules.action == Action::Observe {
        return;
    }
    let others = match sx.mode {
        Mode::Live => sx.demands.untold(sx.now, trunk, demand),
        Mode::Replay => Some(0),
    };
    let Some(others) = others else { return };
    let mut reason = format!("{}: {}", demand.reason(), demand.details(status, heard.cseq.method));
    if let Some(Assist::LetBe(why)) = invite.assist {
        reason += &format!("; `assist` has let the INVITE be: {}", why.words());
    }
    if others > 0 {
        reason += &format!("; {others} more such calls since the last time");
    }
    let tag = |tag: Option<&[u8]>| tag.unwrap_or_default().to_vec();
    let names = Names::new(heard.call_id, &tag(local.tag), &tag(remote.tag), invite.server, invite.peer);
    let event = Event {
        names: Some(Arc::new(names)),
        trunk: Some(trunk.into()),
        by: Some(By::from(client.other())),
        method: Some(heard.cseq.method.name()),
        status: Some(status),
        reason: Some(Cow::from(reason)),
        ..Event::new(sx.now, EventKind::NegotiationFault)
    };
    sx.output(crate::Output::Event(event));
}

impl Dialog {
    /// The same of a request in a dialog, once for each.
    pub(super) fn demands_timers(
        &mut self,
        sx: &mut Shared,
        message: &Message<'_>,
        sender: Side,
        method: MethodName,
        status: u16,
    ) {
        if let Some(demand) = Demand::of(message, sender, status, || false) {
            self.fault(sx, demand.reason(), &demand.details(status, method));
        }
    }
}
