//! What receivers are told.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use st_core::{Event, Time};

use super::limits::WINDOW;

/// The name that the number of alerts not told one by one has where an event has its kind.
pub(super) const FOLDED: &str = "alerts_folded";

/// One thing to tell.
#[derive(Clone, Debug)]
pub(super) enum Notice {
    /// An alert.
    Alert(Arc<Event>),
    /// How many others there were.
    More(Arc<More>),
}

/// Alerts of one trunk that are not told one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct More {
    /// When the last of them was.
    pub(super) time: Time,
    pub(super) trunk: Option<String>,
    /// How many of each kind.
    pub(super) kinds: BTreeMap<&'static str, u64>,
}

impl More {
    pub(super) fn count(&self) -> u64 {
        self.kinds.values().sum()
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        let on = self.trunk.as_ref().map(|trunk| format!(" on trunk {trunk}")).unwrap_or_default();
        format!("and {} more{on} in {} s", self.count(), WINDOW.as_secs())
    }
}

impl Notice {
    /// What it is: the event's kind.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Alert(event) => event.kind.name(),
            Self::More(_) => FOLDED,
        }
    }

    /// As one JSON object.
    pub(super) fn json(&self) -> String {
        match self {
            // An event is plain data: nothing in it fails.
            Self::Alert(event) => serde_json::to_string(event.as_ref()).unwrap_or_default(),
            Self::More(more) => {
                let mut value = json!({
                    "time": more.time.to_string(),
                    "event": FOLDED,
                    "folded": more.count(),
                    "within_s": WINDOW.as_secs(),
                    "kinds": more.kinds,
                    "text": more.text(),
                });
                if let Some(trunk) = &more.trunk {
                    value["trunk"] = Value::from(trunk.as_str());
                }
                value.to_string()
            }
        }
    }
}

/// The word that an event's reason begins with.
pub(crate) fn word(event: &Event) -> Option<&str> {
    event.reason.as_deref().map(|reason| reason.split(':').next().unwrap_or(reason).trim())
}
