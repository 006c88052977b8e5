//! Whether media still flow: a call whose server has sent no RTP for a whole interval, though nobody holds it, is one that its
//! server has lost without a word; and whoever hangs up on a call that has expired needs their silence both ways.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Mode, dialog::Dialog, media, reason, shared::Shared};
use crate::{Action, By, Event, EventKind, MediaSeen, Output, Respond, Side, Time};

/// How long nothing may be seen either way before a call that has expired is hung up.
pub const MEDIA_SILENCE: Duration = Duration::from_secs(60);

/// What the media say about a call that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// They flow: last seen then.
    Flow(Time),
    /// A side has said that it does not send, or not receive: silence is nothing.
    Held,
    /// They were not seen both ways, or may go where they are not seen: silence is nothing.
    Unknown,
    /// They are silent, though not for long enough before then, as far as was seen.
    SilentAt(Time),
}

/// What is known of the media in one dialog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Evidence {
    /// Where the server's come from; never empty.
    flows: Vec<SocketAddr>,
    /// Since when both sides have said without a break that the server's flow; `None` on hold.
    since: Option<Time>,
    /// When they were last seen.
    seen: MediaSeen,
}

impl Evidence {
    pub(super) fn flows(&self) -> &[SocketAddr] {
        &self.flows
    }

    /// Takes in when they were last seen.
    pub(super) fn saw(&mut self, seen: MediaSeen) {
        self.seen = self.seen.or_later(seen);
    }

    /// For how long the server's were silent though they had to flow. `None`: nobody holds the server to them, or none were ever
    /// seen.
    fn silence(&self, sx: &Shared) -> Option<Duration> {
        Some(sx.now.since(self.seen.left?.max(self.since?).max(sx.blind)))
    }

    /// Since when nothing was seen either way, as far as anybody looked. `None`: likewise, or not seen both ways before.
    fn silent_since(&self, sx: &Shared) -> Option<Time> {
        Some(self.seen.left?.max(self.seen.came?).max(self.since?).max(sx.blind).max(sx.resumed))
    }
}

impl Dialog {
    /// The server's ends of the flows that are watched.
    pub(super) fn watched_flows(&self) -> Vec<SocketAddr> {
        self.evidence.as_ref().map(|evidence| evidence.flows().to_vec()).unwrap_or_default()
    }

    /// Has the flows watched that the two sides agree on now.
    pub(super) fn watch(&mut self, sx: &mut Shared) {
        let counts = self.media_count(sx);
        // Most refreshes say nothing of media.
        if let Some(evidence) = self.evidence.as_ref().filter(|_| counts && self.media_read) {
            debug_assert_eq!(self.flows(), Some((evidence.flows.clone(), evidence.since.is_some())));
            return;
        }
        let wanted = if counts { self.flows() } else { None };
        self.media_read = true;
        if let (Some(evidence), Some((flows, flowing))) = (&mut self.evidence, &wanted)
            && evidence.flows == *flows
        {
            evidence.since = flowing.then(|| evidence.since.unwrap_or(sx.now));
            return;
        }
        self.unwatch(sx);
        if let Some((flows, flowing)) = wanted.filter(|(flows, _)| sx.watch(flows)) {
            self.evidence =
                Some(Box::new(Evidence { flows, since: flowing.then_some(sx.now), seen: MediaSeen::default() }));
        }
    }

    /// Has them watched again, after a restart.
    pub(super) fn watch_again(&mut self, sx: &mut Shared) {
        self.evidence = self.evidence.take().filter(|evidence| sx.watch(&evidence.flows));
    }

    /// Nobody looked for a while, until then: they may have flown.
    pub(super) fn nobody_watched(&mut self, until: Time) {
        if let Some(since) = self.evidence.as_mut().and_then(|evidence| evidence.since.as_mut()) {
            *since = until;
        }
    }

    /// Has nothing watched any more.
    pub(super) fn unwatch(&mut self, sx: &mut Shared) {
        if let Some(evidence) = self.evidence.take() {
            sx.unwatch(&evidence.flows);
        }
    }

    /// Whether it is of use to know of the server's flows.
    fn media_count(&self, sx: &Shared) -> bool {
        let policy = Arc::clone(&sx.policy);
        let rules = self.rules(&policy).1;
        let refreshes = rules.action == Action::Refresh && sx.mode == Mode::Live && !self.is_over() && !self.relayed;
        let acts =
            rules.respond == Respond::OnReject || rules.hangs_up() || self.takes_over(rules) || self.is_handed_off();
        let counts = |refresher: Side| refresher == Side::Server || acts;
        refreshes && self.session.refresher().is_some_and(counts) && rules.media_evidence
    }

    /// The server's flows, and whether it has to send them; `None` where that is not known.
    fn flows(&self) -> Option<(Vec<SocketAddr>, bool)> {
        let server = self.server_media()?;
        let peer = media::Media::read(self.peer_sdp.as_ref()?)?.within(&server);
        server.flows(&peer).filter(|(flows, _)| !flows.is_empty())
    }

    /// Whether its media say that nobody is there any more.
    pub(super) fn is_silent(&self, sx: &Shared) -> bool {
        let policy = Arc::clone(&sx.policy);
        let agreed = || self.session.agreed.map(|agreed| Duration::from_secs(agreed.interval.into()));
        let interval = self.session.interval().or_else(agreed);
        let silence = self.evidence.as_ref().and_then(|evidence| evidence.silence(sx));
        self.rules(&policy).1.media_evidence
            && silence.zip(interval).is_some_and(|(silence, interval)| silence >= interval)
    }

    /// What its media say about whether anybody is there.
    pub(super) fn media_say(&self, sx: &Shared) -> Media {
        let Some(evidence) = &self.evidence else { return Media::Unknown };
        let last = evidence.seen.left.max(evidence.seen.came);
        if let Some(last) = last.filter(|at| sx.now.since(*at) < MEDIA_SILENCE) {
            return Media::Flow(last);
        }
        let agreed = self.server_media().zip(self.peer_media_as_said());
        match agreed.and_then(|(server, peer)| server.flow_both_ways(&peer)) {
            Some(true) => {
                evidence.silent_since(sx).map_or(Media::Unknown, |since| Media::SilentAt(since + MEDIA_SILENCE))
            }
            Some(false) => Media::Held,
            None => Media::Unknown,
        }
    }

    /// Has the driver look when they were last seen; false where nothing is watched.
    pub(super) fn look(&self, sx: &mut Shared) -> bool {
        let Some(evidence) = &self.evidence else { return false };
        sx.output(Output::Look { session: self.id, media: evidence.flows.clone() });
        true
    }

    /// It is told, and nothing is sent unless media are seen again before the interval is over.
    pub(super) fn hold_back(&mut self, sx: &mut Shared) {
        if !std::mem::replace(&mut self.cycle.silent, true) {
            let reason = Some(reason::MEDIA_SILENT.into());
            let event = Event { reason, ..self.due_event(sx, EventKind::RefreshOverdue, By::Server) };
            self.tell(sx, event);
        }
        self.later(sx, (reason::MEDIA_SILENT, None), self.session.pause() * 5);
    }
}

impl Shared {
    /// Has flows watched; false where there are too many.
    pub(super) fn watch(&mut self, flows: &[SocketAddr]) -> bool {
        if !self.can_watch(flows) {
            self.stats.unwatched += 1;
            return false;
        }
        for flow in flows {
            let count = self.flows.entry(*flow).or_default();
            *count += 1;
            if *count == 1 {
                self.output(Output::Watch { flow: *flow });
            }
        }
        true
    }

    /// Whether there is room for them.
    pub(super) fn can_watch(&self, flows: &[SocketAddr]) -> bool {
        let new = |flow: &&SocketAddr| !self.flows.contains_key(flow);
        // Mostly there is room whichever of them are new.
        self.flows.len() + flows.len() <= self.limits.flows
            || self.flows.len() + flows.iter().filter(new).count() <= self.limits.flows
    }

    fn unwatch(&mut self, flows: &[SocketAddr]) {
        for flow in flows {
            let Some(count) = self.flows.get_mut(flow) else { continue };
            *count -= 1;
            if *count == 0 {
                self.flows.remove(flow);
                self.output(Output::Unwatch { flow: *flow });
            }
        }
    }
}
