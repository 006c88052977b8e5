//! Where events go.

use std::{io, sync::Arc};

use st_core::Event;

use crate::{
    alert::{Counts, SinkCounts},
    config::Config,
    sighting::Sighting,
};

/// Takes the engine's events: a printer, a webhook, a test.
///
/// Called on the engine's own thread: an implementation must never block. What it cannot take at once it queues within
/// a bound, and past that drops and counts.
pub trait EventSink {
    /// One event, in the order in which they happened.
    fn event(&mut self, event: &Event);

    /// What became of the alerts, for each receiver that there is now.
    fn receivers(&self) -> Counts {
        Counts::default()
    }

    /// What became of what goes to the journal, the flight recorder and Homer, for each that there is now.
    fn exports(&self) -> Vec<Arc<SinkCounts>> {
        Vec::new()
    }

    /// Whether it takes packets as well.
    fn wants_packets(&self) -> bool {
        false
    }

    /// A packet that sipst has sent, taken, held back or rewritten.
    fn packet(&mut self, sighting: &Arc<Sighting>) {
        let _ = sighting;
    }

    /// Another configuration holds from now on. Returns what changes by that, for people.
    ///
    /// # Errors
    /// It cannot be taken; all is as before.
    fn reconfigure(&mut self, config: &Config) -> io::Result<Vec<String>> {
        let _ = config;
        Ok(Vec::new())
    }
}
