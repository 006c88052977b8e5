//! What the loop publishes of itself for monitoring, and the address that monitoring asks.

use std::{
    collections::{HashMap, HashSet},
    net::TcpListener,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use st_core::reassembly::Counts as FragmentCounts;
use st_ebpf::abi::{Counter, RING_BYTES};
use tracing::{error, info, warn};

use super::{Driver, RunError};
use crate::{
    alert::SinkCounts,
    config,
    http::{Counts, Server},
    kernel::KernelError,
    metrics::{Metrics, Published, RESULTS, Word, process},
    page::{self, Page},
};

/// What is measured, and where it can be asked for.
pub(super) struct Measure {
    pub(super) metrics: Metrics,
    page: Arc<Page>,
    server: Option<Server>,
    counts: Arc<Counts>,
    /// By trunk, state and refresher, as last published.
    sessions: HashMap<[Word; 3], usize>,
    /// Receivers of alerts, as last published.
    receivers: Published,
    /// Where else events and packets go, as last published.
    exports: Published,
    /// Interfaces, as last published.
    interfaces: HashSet<String>,
}

impl Measure {
    /// Listens where the configuration says so. Where that cannot be, calls matter more.
    pub(super) fn start(metrics: Metrics, page: Arc<Page>, wanted: &config::Metrics) -> Self {
        let mut measure = Self {
            metrics,
            page,
            server: None,
            counts: Arc::default(),
            sessions: HashMap::new(),
            receivers: Published::default(),
            exports: Published::default(),
            interfaces: HashSet::new(),
        };
        match wanted.listen.map(Server::bind).transpose().map_err(|error| crate::output::chain(&error)) {
            Ok(listener) => measure.listen(listener),
            Err(error) => error!("nobody can ask for metrics in this run; calls are kept alive all the same: {error}"),
        }
        measure
    }

    /// What another configuration has it listen on, where that is another address than the one that it listens on.
    ///
    /// # Errors
    /// It cannot, and why.
    pub(super) fn other(&self, wanted: &config::Metrics) -> Result<Option<Option<TcpListener>>, String> {
        let now = self.server.as_ref().map(Server::address);
        if now == wanted.listen {
            return Ok(None);
        }
        let bound = wanted.listen.map(Server::bind).transpose();
        bound.map(Some).map_err(|error| match (now, wanted.listen) {
            (Some(now), Some(wanted)) if now.port() == wanted.port() => {
                let restart = "take another port, or `systemctl restart sipst`: calls live through that";
                format!("`metrics.listen` cannot go from {now} to {wanted} while sipst runs, for the port is its own; {restart}")
            }
            _ => crate::output::chain(&error),
        })
    }

    /// Listens there alone from now on. Returns what changes by that, for people.
    pub(super) fn take(&mut self, other: Option<Option<TcpListener>>) -> Option<String> {
        self.listen(other?);
        let now = self.server.as_ref().map(Server::address);
        Some(now.map_or("metrics: off".into(), |address| format!("metrics: at http://{address}/metrics")))
    }

    /// Shows the status page from now on, or no more. Returns what changes by that, for people.
    pub(super) fn show_page(&self, on: bool) -> Option<String> {
        if self.page.is_on() == on {
            return None;
        }
        self.page.switch(on);
        if on {
            self.warn_of_readers();
        }
        Some(if on { "the status page: on".into() } else { "the status page: off".into() })
    }

    /// Tells who can read what.
    fn warn_of_readers(&self) {
        let Some(address) = self.server.as_ref().map(Server::address).filter(|address| !address.ip().is_loopback())
        else {
            return;
        };
        let what = if self.page.is_on() { "who talks to whom, and the metrics" } else { "the metrics" };
        warn!("whoever reaches {address} can read {what}: nobody is asked who they are");
    }

    /// Publishes what became of the alerts.
    fn publish_alerts(&mut self, receivers: &[Arc<SinkCounts>]) {
        let families = &self.metrics.families;
        self.receivers.publish(&families.alerts, &families.alerts_waiting, &RESULTS, receivers);
    }

    /// Publishes what became of what goes to the journal, the flight recorder and Homer.
    fn publish_exports(&mut self, sinks: &[Arc<SinkCounts>]) {
        let families = &self.metrics.families;
        self.exports.publish(&families.exports, &families.exports_waiting, &RESULTS[..3], sinks);
    }

    /// Whether somebody can ask.
    pub(super) fn listens(&self) -> bool {
        self.server.is_some()
    }

    /// Listens there alone from now on; `None`: nowhere.
    fn listen(&mut self, listener: Option<TcpListener>) {
        self.server = None;
        let Some(listener) = listener else { return };
        let routes = Arc::new(self.metrics.routes().and(page::routes(&self.page)));
        match Server::start(listener, routes, Arc::clone(&self.counts)) {
            Ok(server) => {
                let address = server.address();
                info!("metrics at http://{address}/metrics, and /health, /ready");
                self.server = Some(server);
                self.warn_of_readers();
            }
            Err(error) => error!(%error, "nobody can ask for metrics in this run; calls are kept alive all the same"),
        }
    }
}

impl Driver<'_> {
    /// Publishes what there is to see; once a second.
    pub(super) fn publish(&mut self) -> Result<(), RunError> {
        self.measure.metrics.health.publish(self.amiss());
        if !self.measure.listens() {
            return Ok(());
        }
        self.publish_kernel()?;
        self.publish_engine();
        self.publish_streams();
        self.publish_sessions();
        self.measure.publish_alerts(&self.sink.receivers().sinks());
        self.measure.publish_exports(&self.sink.exports());
        process::publish(&self.measure.metrics.families);
        let families = &self.measure.metrics.families;
        families.started.set([], self.started.as_micros() as f64 / 1e6);
        families.ready.set([], f64::from(u8::from(self.measure.metrics.health.ready().is_ok())));
        let (clients, lost) = self.control.counts();
        families.control_clients.set([], clients as f64);
        families.control_lost.set([], lost);
        let counts = &self.measure.counts;
        families.http_requests.set([], counts.requests.load(Relaxed));
        families.http_refused.set([], counts.refused.load(Relaxed));
        families.http_broken.set([], counts.broken.load(Relaxed));
        Ok(())
    }

    /// What keeps the daemon from doing what it is there for.
    fn amiss(&self) -> Vec<String> {
        let bare = self.kernel.attached().filter(|(_, attached)| !attached);
        let mut amiss: Vec<String> = bare.map(|(name, _)| format!("interface {name}: not attached")).collect();
        if self.kernel.configured().is_empty() {
            amiss.push("nothing is attached: no interface is like what `interfaces` says".into());
        }
        if !self.store.keeps() {
            amiss.push("what is known of the calls is not kept: a restart will not know them".into());
        }
        amiss
    }

    fn publish_kernel(&mut self) -> Result<(), KernelError> {
        let families = &self.measure.metrics.families;
        for counter in Counter::ALL {
            let count = self.kernel.maps.counter(*counter)?;
            families.kernel.set([counter.name().into()], count);
            let why = [
                (Counter::RingFull, "full"),
                (Counter::RingReserved, "reserved"),
                (Counter::SegmentReserved, "segments"),
            ];
            if let Some((_, why)) = why.iter().find(|(dropped, _)| dropped == counter) {
                families.ring_dropped.set([(*why).into()], count);
            }
        }
        families.unseen.set(["port".into()], self.kernel.maps.counter(Counter::OpaqueConnection)?);
        families.ring_size.set([], f64::from(RING_BYTES));
        families.ring_used.set([], self.level.most() as f64);
        let FragmentCounts { whole, incomplete, headless, overlapping, too_many, malformed: _, displaced } =
            self.fragments.counts();
        for (result, count) in [
            ("whole", whole),
            ("incomplete", incomplete),
            ("headless", headless),
            ("overlapping", overlapping),
            ("too_many", too_many),
            ("displaced", displaced),
        ] {
            families.fragmented.set([result.into()], count);
        }
        families.fragmented_waiting.set([], self.fragments.waiting() as f64);
        let (batches, bytes, failures) = self.store.counts();
        families.store_keeps.set([], f64::from(u8::from(self.store.keeps())));
        families.store_batches.set([], batches);
        families.store_written.set([], bytes);
        families.store_failures.set([], failures);
        let interfaces: HashMap<String, bool> = self.kernel.attached().collect();
        for gone in self.measure.interfaces.iter().filter(|name| !interfaces.contains_key(*name)) {
            families.attached.remove([gone.clone().into()]);
        }
        for (name, attached) in &interfaces {
            families.attached.set([name.clone().into()], f64::from(u8::from(*attached)));
        }
        self.measure.interfaces = interfaces.into_keys().collect();
        Ok(())
    }

    fn publish_streams(&self) {
        let families = &self.measure.metrics.families;
        let (stats, connections) = self.streamed.counts();
        families.tcp_connections.set([], connections as f64);
        for (what, count) in [
            ("segment", stats.segments),
            ("message", stats.messages),
            ("cut", stats.cut),
            ("repeated", stats.repeated),
            ("early", stats.early),
            ("gap", stats.gaps),
            ("lost", stats.lost),
            ("evicted", stats.evicted),
        ] {
            families.tcp.set([what.into()], count);
        }
        for (why, count) in [("tls", stats.tls), ("websocket", stats.websocket), ("unknown", stats.unknown)] {
            families.unseen.set([why.into()], count);
        }
    }

    fn publish_sessions(&mut self) {
        let now = self.clock.now();
        let Measure { metrics, sessions, .. } = &mut self.measure;
        // What was there once and is not now is 0.
        sessions.values_mut().for_each(|count| *count = 0);
        for tally in self.engine.census(now) {
            let refresher = tally.refresher.map_or(Word::Borrowed(""), |side| side.to_string().into());
            *sessions.entry([metrics.trunk(tally.trunk), tally.state.name().into(), refresher]).or_default() +=
                tally.sessions;
        }
        for (labels, count) in sessions {
            metrics.families.sessions.set(labels.clone(), *count as f64);
        }
        metrics.families.hands_off.set([], self.engine.held(now) as f64);
        let next = self.engine.next_deadline(now);
        metrics.families.next_deadline.set(next.map(|deadline| deadline.since(now).as_secs_f64()));
    }

    fn publish_engine(&self) {
        let families = &self.measure.metrics.families;
        let stats = self.engine.counted();
        families.messages.set([], stats.messages);
        families.lost.set([], stats.lost);
        families.delayed.set([], stats.delayed);
        families.too_late.set([], stats.too_late);
        families.keepalives.set([], stats.keepalives);
        families.breakers_opened.set([], stats.breakers_opened);
        families.open_breakers.set([], stats.open_breakers as f64);
        for (reason, count) in [
            ("unparsable", stats.unparsable),
            ("unidentified", stats.unidentified),
            ("unknown_dialog", stats.unknown_dialog),
            ("unknown_request", stats.unknown_request),
            ("foreign_answer", stats.foreign_answers),
            ("unknown_answer", stats.unknown_answers),
        ] {
            families.unused.set([reason.into()], count);
        }
        for (limit, count) in [
            ("sessions", stats.refused_sessions),
            ("forks", stats.refused_forks),
            ("pending", stats.evicted_pending),
            ("strangers", stats.evicted_strangers),
            ("tries", stats.evicted_tries),
            ("remembered", stats.evicted_remembered),
            ("exchanges", stats.evicted_exchanges),
            ("length", stats.too_long),
            ("waiting", stats.evicted_waiting),
            ("flows", stats.unwatched),
            ("keepalives", stats.refused_keepalives),
        ] {
            families.limits.set([limit.into()], count);
        }
        for (what, count) in [
            ("session", stats.sessions),
            ("pending", stats.pending),
            ("stranger", stats.strangers),
            ("waiting", stats.waiting),
            ("flow", stats.flows),
            ("kept_alive", stats.kept_alive),
        ] {
            families.held.set([what.into()], count as f64);
        }
    }
}
