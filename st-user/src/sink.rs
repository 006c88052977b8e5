//! Where events go.

use st_core::Event;

/// Takes the engine's events: a printer, a webhook, a test.
///
/// Called on the engine's own thread: an implementation must never block. What it cannot take at once it queues within
/// a bound, and past that drops and counts.
pub trait EventSink {
    /// One event, in the order in which they happened.
    fn event(&mut self, event: &Event);
}
