//! What a session that was restored from its record has missed: nobody kept its deadlines meanwhile.

use super::{
    dialog::{Dialog, SILENCE},
    reason,
    shared::Shared,
    timers::{OF_INTERVAL, TRANSACTION, Timer},
};
use crate::Side;

impl Dialog {
    /// The kernel's part of a session that was restored.
    pub(super) fn set_followed(&mut self, sx: &mut Shared, is_followed: bool) {
        if self.followed && !is_followed {
            // The peer has seen numbers of ours: which ones, nobody knows any more.
            self.bar_for(reason::NUMBERS_LOST);
            self.hush(sx);
        }
        if is_followed {
            self.follow(sx, Side::Server);
        } else {
            self.unfollow(sx, Side::Server);
        }
    }

    /// [`crate::Command::Outage`]: what was to be done meanwhile, and would now come too late, is not done.
    pub(super) fn after_outage(&mut self, sx: &mut Shared) {
        if self.is_over() {
            return;
        }
        // A copy of a request whose time is over would be a new one to the peer.
        let timers = sx.timers.of(self.id);
        let mut late = Vec::new();
        for (_, timer) in timers.iter().filter(|(at, _)| *at <= sx.now) {
            if let Timer::GiveUp(token) = timer {
                late.extend([Timer::Retransmit(*token), Timer::Fallback(*token)]);
            }
        }
        sx.timers.cancel_all(self.id, &late);
        self.nobody_watched(sx.now);
        if self.session.end().is_none_or(|end| sx.now < end) {
            return self.queue_again(sx);
        }
        // All that can be told of this interval is that it ran out, and of one in which nobody has spoken for days not even that.
        sx.timers.cancel_all(self.id, &OF_INTERVAL);
        sx.timers.cancel(self.id, Timer::TooLate);
        self.hush(sx);
        if sx.now.since(self.heard) < SILENCE {
            sx.timers.set(self.id, Timer::Expired, sx.now);
        }
    }

    /// [`crate::Command::HostRestarted`]
    pub(super) fn after_restart(&mut self, sx: &mut Shared) {
        for own in std::mem::take(&mut self.own) {
            own.retire(sx, self.id);
        }
        self.unfollow(sx, Side::Server);
        self.end(sx, None, reason::HOST_RESTARTED.into());
        sx.timers.set(self.id, Timer::Forget, sx.now + TRANSACTION);
    }
}
