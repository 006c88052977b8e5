//! Every metric, declared and described: what is not here is not shown. `docs/metrics.md` is made from this file.
//!
//! Labels are bounded: names of trunks are the configuration's, everything else is one of a few words. What names a
//! call, or comes from the wire, is never one.

use prometheus_client::registry::{Registry, Unit};

use super::family::{Counters, Gauges, Histograms, Kind, Maybe, Times};

/// One metric, as it is documented.
#[derive(Clone, Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "for the documentation"))]
pub(crate) struct Declared {
    /// Without unit and `_total`.
    base: &'static str,
    kind: Kind,
    unit: Option<Unit>,
    labels: &'static [&'static str],
    help: &'static str,
}

impl Declared {
    /// How it is listed in the documentation.
    #[cfg(test)]
    pub(super) fn row(&self) -> String {
        let labels: Vec<String> = self.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |\n", self.name(), self.kind.name(), labels.join(", "), self.help())
    }

    /// As it is asked for; a histogram adds `_bucket`, `_sum` and `_count` to it.
    #[cfg(test)]
    pub(crate) fn name(&self) -> String {
        let unit = self.unit.as_ref().map_or(String::new(), |unit| format!("_{}", unit.as_str()));
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.base)
    }

    /// The names of its series.
    #[cfg(test)]
    pub(super) fn series(&self) -> Vec<String> {
        let name = self.name();
        match self.kind {
            Kind::Counter | Kind::Gauge => vec![name],
            Kind::Histogram => ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")).to_vec(),
        }
    }

    /// What it means, in one sentence or a few.
    pub(crate) fn help(&self) -> &'static str {
        self.help.trim()
    }

    /// Makes it known, so that it is shown.
    fn register(&self, registry: &mut Registry, metric: impl prometheus_client::registry::Metric) {
        // The registry puts a full stop behind it.
        let help = self.help().trim_end_matches('.');
        match &self.unit {
            Some(unit) => registry.register_with_unit(self.base, help, unit.clone(), metric),
            None => registry.register(self.base, help, metric),
        }
    }
}

/// How many labels there are.
const fn count(labels: &[&str]) -> usize {
    labels.len()
}

macro_rules! declare {
    ($($(#[doc = $doc:literal])* $field:ident: $kind:ident = $base:literal $(in $unit:ident)? [$($label:literal),*];)*) => {
        /// All of them, with their values.
        #[derive(Debug)]
        pub(crate) struct Families {
            $($(#[doc = $doc])* pub(crate) $field: $kind<{ count(&[$($label),*]) }>,)*
        }

        impl Families {
            /// None has a value yet, but for those without labels, which are 0.
            pub(crate) fn new(registry: &mut Registry) -> Self {
                let families = Self { $($field: $kind::new([$($label),*]),)* };
                let mut declared = Self::declared().into_iter();
                $(if let Some(declared) = declared.next() {
                    declared.register(registry, families.$field.family());
                })*
                families
            }

            /// All of them, described, in the order in which they are shown.
            pub(crate) fn declared() -> Vec<Declared> {
                vec![$(Declared {
                    base: $base,
                    kind: $kind::<{ count(&[$($label),*]) }>::KIND,
                    unit: None$(.or(Some(Unit::$unit)))?,
                    labels: &[$($label),*],
                    help: concat!($($doc),*),
                },)*]
            }
        }
    };
}

declare! {
    /// The version that runs; always 1.
    build: Gauges = "sipst_build_info" ["version"];
    /// When the daemon began, in seconds since 1970.
    started: Gauges = "sipst_start_time" in Seconds [];
    /// Whether `/ready` says so: attached everywhere, reading, and what is known of the calls is kept.
    ready: Gauges = "sipst_ready" [];
    /// Whether the programs are attached to an interface of the configuration's, both ways, as last seen.
    attached: Gauges = "sipst_interface_attached" ["interface"];

    /// Dialogs, by where they stand: `untimed`, `ignored`, `running`, `refreshing`, `overdue`, `expiring`, `expired`,
    /// and `ended` (over, and copies are waited for). `refresher` is who must refresh, or empty.
    sessions: Gauges = "sipst_sessions" ["trunk", "state", "refresher"];
    /// Sessions that an operator has told sipst to keep its hands off.
    hands_off: Gauges = "sipst_sessions_held" [];
    /// How long until the nearest deadline at which a peer may hang up; not there where there is none ahead.
    next_deadline: Maybe = "sipst_next_deadline" in Seconds [];
    /// How long after a refresh of sipst's was due its first request left.
    refresh_lag: Histograms = "sipst_refresh_lag" in Seconds ["trunk"];

    /// Events, by kind (docs/events.md). `trunk` is empty where an event concerns no one call.
    events: Counters = "sipst_events" ["event", "trunk"];
    /// Session timers that were agreed upon or changed, by who has to refresh.
    negotiations: Counters = "sipst_negotiations" ["trunk", "refresher"];
    /// Negotiations that cannot be relied upon or are not acted upon (`negotiation_fault`), by the first word of the
    /// reason.
    negotiation_faults: Counters = "sipst_negotiation_faults" ["trunk", "reason"];
    /// Refreshes, by who sent them and what became of them: `succeeded`, `failed` (sipst's own, for this interval),
    /// `rejected` and `ignored` (the peer's, by the server), `answered` (the peer's, by sipst in the server's name).
    refreshes: Counters = "sipst_refreshes" ["trunk", "by", "result"];
    /// Refreshes of sipst's own that came to nothing, by the first word of the reason.
    refresh_failures: Counters = "sipst_refresh_failures" ["trunk", "reason"];
    /// Moments at which somebody should have refreshed and had not, by who.
    refresh_overdue: Counters = "sipst_refresh_overdue" ["trunk", "by"];
    /// Sessions whose interval ran out, by who had to refresh.
    expired: Counters = "sipst_sessions_expired" ["trunk", "refresher"];

    /// Messages that the engine read.
    messages: Counters = "sipst_messages" [];
    /// What the engine could not use, by why: `unparsable` is no SIP message, `unidentified` lacks the headers that
    /// name a dialog, `unknown_dialog` and `unknown_request` belong to nothing that it knows, `foreign_answer` and
    /// `unknown_answer` claim to answer a request of sipst's own and do not.
    unused: Counters = "sipst_messages_unused" ["reason"];
    /// Packets lost before the engine could see them.
    lost: Counters = "sipst_packets_lost" [];
    /// How often a limit of the engine's was met (docs/bounds.md), by which.
    limits: Counters = "sipst_limit_hits" ["limit"];
    /// Refreshes that had to wait for their turn because of the rates or a breaker.
    delayed: Counters = "sipst_refreshes_delayed" [];
    /// Refreshes whose turn did not come in time.
    too_late: Counters = "sipst_refreshes_too_late" [];
    /// Keep-alives that were due (`keepalive`).
    keepalives: Counters = "sipst_keepalives" [];
    /// How often a trunk's breaker has opened.
    breakers_opened: Counters = "sipst_breakers_opened" [];
    /// Trunks whose breaker is open.
    open_breakers: Gauges = "sipst_breakers_open" [];
    /// What the engine holds, by what: `session` (those that are over and absorb copies too), `pending` and `stranger`
    /// (INVITEs without a final response), `waiting` (refreshes whose turn has not come), `flow` (media that are
    /// watched), `kept_alive` (flows that are kept open).
    held: Gauges = "sipst_engine_entries" ["what"];

    /// TCP connections that are followed.
    tcp_connections: Gauges = "sipst_tcp_connections" [];
    /// What came of TCP segments: `segment` (they, or pieces of them), `message`, `cut` (messages that were too long, or had a gap),
    /// `repeated`, `early` (before their turn), `gap` (something was missing and gone over), `lost` (where a message begins was not known
    /// any more), `evicted` (connections that had to go for others).
    tcp: Counters = "sipst_tcp" ["what"];
    /// Connections whose calls go by unseen, by why: `tls`, `websocket` and `unknown` on a port of `ports`, `port` on one of
    /// `opaque_ports`.
    unseen: Counters = "sipst_connections_unseen" ["why"];

    /// The ring between the kernel programs and the daemon: its size.
    ring_size: Gauges = "sipst_ring_size" in Bytes [];
    /// The most that stood in it when the daemon came to read, since the last time that this was published.
    ring_used: Gauges = "sipst_ring_used" in Bytes [];
    /// What the programs could not put into the ring, by why: `full`; `reserved` (a stranger's INVITE) or `segments` (TCP that came in)
    /// while the ring's last quarter was kept for known calls. Goes on where an earlier daemon's ended.
    ring_dropped: Counters = "sipst_ring_dropped" ["why"];

    /// Packets that the kernel programs handled, by what they did (docs/bounds.md). Goes on where an earlier daemon's
    /// ended.
    kernel: Counters = "sipst_kernel_packets" ["what"];

    /// Messages in IP fragments, by what became of them: `whole`, or why nothing is used of them: `incomplete` (a fragment did not
    /// come), `headless` (the first did not: mostly no SIP), `overlapping`, `too_many`, `displaced` (others took their room).
    fragmented: Counters = "sipst_fragmented_messages" ["result"];
    /// Such messages that wait for fragments.
    fragmented_waiting: Gauges = "sipst_fragmented_waiting" [];

    /// Whether what is known of the calls can be written to disk.
    store_keeps: Gauges = "sipst_store_keeps" [];
    /// Batches of what is known of the calls that were written.
    store_batches: Counters = "sipst_store_batches" [];
    /// Bytes of records in these.
    store_written: Counters = "sipst_store_written" in Bytes [];
    /// Times that nothing could be written any more.
    store_failures: Counters = "sipst_store_failures" [];

    /// Alerts, by receiver and by what became of them: `sent`, `failed` (given up after all attempts), `dropped` (no
    /// room), `folded` (said before, or more than a trunk may raise).
    alerts: Counters = "sipst_alerts" ["sink", "result"];
    /// Alerts that wait for their receiver.
    alerts_waiting: Gauges = "sipst_alerts_waiting" ["sink"];
    /// Events to the `journal`, packets to the flight `recorder`, and both to Homer (`hep` and its address), by what became of
    /// them: `sent`, `failed` (not taken or not written), `dropped` (no room). Begins anew where a reload changes the sink.
    exports: Counters = "sipst_exports" ["sink", "result"];
    /// Events and packets that wait for these.
    exports_waiting: Gauges = "sipst_exports_waiting" ["sink"];

    /// Times that another configuration was read while sipst ran, by what became of it: `taken` or `refused`.
    reloads: Counters = "sipst_reloads" ["result"];
    /// Whether the last one was taken; not there before the first.
    reloaded: Maybe = "sipst_last_reload_taken" [];

    /// Requests to this address that were answered.
    http_requests: Counters = "sipst_http_requests" [];
    /// Connections to this address, and answers without an end, that found no place.
    http_refused: Counters = "sipst_http_refused" [];
    /// Connections to this address that ended for want of a request, a reader or time.
    http_broken: Counters = "sipst_http_broken" [];
    /// Clients of the control socket.
    control_clients: Gauges = "sipst_control_clients" [];
    /// Events that were lost to clients of the control socket which read too slowly.
    control_lost: Counters = "sipst_control_events_lost" [];

    /// Processor time that the daemon has used.
    process_cpu: Times = "process_cpu" in Seconds [];
    /// Memory of the daemon's that is in RAM.
    process_resident: Gauges = "process_resident_memory" in Bytes [];
    /// Address space of the daemon's.
    process_virtual: Gauges = "process_virtual_memory" in Bytes [];
    /// Descriptors that the daemon has open.
    process_fds: Gauges = "process_open_fds" [];
    /// How many it may have open.
    process_max_fds: Gauges = "process_max_fds" [];
    /// Its threads.
    process_threads: Gauges = "process_threads" [];
}
