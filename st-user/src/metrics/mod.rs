//! What monitoring sees of the daemon: counted as it happens, or published once a second by the daemon's loop. Whoever
//! asks reads that and nothing else; the text is made by a thread of its own.

pub(crate) mod declaration;
mod events;
mod expose;
mod family;
pub(crate) mod health;
pub(crate) mod process;
#[cfg(test)]
mod shipped;
mod sinks;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hyper::{StatusCode, header::ACCEPT};
use prometheus_client::registry::Registry;

use crate::http::{Routes, text};
use declaration::Families;
use expose::{Exposer, Form};
pub(crate) use family::Word;
pub(crate) use health::Health;
pub(crate) use sinks::{Published, RESULTS};

/// All that is measured.
pub(crate) struct Metrics {
    pub(crate) families: Families,
    trunks: events::Trunks,
    exposer: Exposer,
    pub(crate) health: Arc<Health>,
}

impl Metrics {
    /// Nothing is measured yet.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start() -> std::io::Result<Self> {
        let mut registry = Registry::default();
        let families = Families::new(&mut registry);
        families.build.set([env!("CARGO_PKG_VERSION").into()], 1.0);
        let exposer = Exposer::start(registry)?;
        Ok(Self { families, trunks: events::Trunks::default(), exposer, health: Arc::default() })
    }

    /// Another configuration was read.
    pub(crate) fn reloaded(&self, taken: bool) {
        self.families.reloads.add([if taken { "taken" } else { "refused" }.into()]);
        self.families.reloaded.set(Some(f64::from(u8::from(taken))));
    }

    /// `/metrics`, `/health` and `/ready`.
    pub(crate) fn routes(&self) -> Routes {
        let exposer = self.exposer.clone();
        let (lives, ready) = (Arc::clone(&self.health), Arc::clone(&self.health));
        Routes::default()
            .get("/metrics", move |asked| {
                let exposer = exposer.clone();
                let form = Form::wanted(asked.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
                async move { exposer.reply(form).await }
            })
            .get("/health", move |_| std::future::ready(reply(lives.lives())))
            .get("/ready", move |_| std::future::ready(reply(ready.ready())))
    }
}

/// 200 or 503, and why.
fn reply(well: Result<(), Vec<String>>) -> crate::http::Reply {
    match well {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(why) => {
            text(StatusCode::SERVICE_UNAVAILABLE, why.iter().map(|line| format!("{line}\n")).collect::<String>())
        }
    }
}
