//! A webhook: each alert is posted as one JSON object.

use super::{
    counts::SinkCounts,
    post::{Failure, Poster},
    sink::{Feed, Pace, Signal},
};
use crate::config::Webhook;

/// How often one alert is posted until somebody takes it.
const ATTEMPTS: u32 = 3;

/// Posts what it hears.
pub(super) fn run(webhook: &Webhook, name: &str, pace: Pace, feed: &Feed) {
    let poster = Poster::new(webhook.url.clone(), webhook.timeout);
    while let Ok(signal) = feed.next(None) {
        let Signal::Tell(notice) = signal else { continue };
        let taken = post(&poster, name, pace, feed, &notice.json());
        SinkCounts::add(if taken { &feed.counts.sent } else { &feed.counts.failed }, 1);
    }
}

/// Whether it was taken.
fn post(poster: &Poster, name: &str, pace: Pace, feed: &Feed, body: &str) -> bool {
    let mut pause = pace.backoff;
    for attempt in 1..=ATTEMPTS {
        match poster.post(body) {
            Ok(()) => return true,
            Err(Failure { reason, again }) if again && attempt < ATTEMPTS => {
                tracing::debug!(webhook = name, attempt, reason, "an alert could not be posted: again soon");
            }
            Err(Failure { reason, again: _ }) => {
                tracing::warn!(webhook = name, attempt, reason, "an alert could not be posted: given up");
                return false;
            }
        }
        if !feed.pause(pause) {
            return false;
        }
        // Each further one is four times as long.
        pause *= 4;
    }
    false
}
