//! What became of what was handed to a thread of its own: alerts to their receivers, events and packets to where they are
//! kept.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::family::{Counters, Gauges};
use crate::alert::SinkCounts;

/// What becomes of an alert; all but the last, of anything else that is handed over.
pub(crate) const RESULTS: [&str; 4] = ["sent", "failed", "dropped", "folded"];

/// The sinks that there were when they were last published.
#[derive(Debug, Default)]
pub(crate) struct Published(HashSet<String>);

impl Published {
    /// Publishes these results of all sinks that there are. Those that have the same name are one here; of those that are
    /// no more nothing is left.
    pub(crate) fn publish(
        &mut self,
        counters: &Counters<2>,
        waiting: &Gauges<1>,
        results: &[&'static str],
        sinks: &[Arc<SinkCounts>],
    ) {
        let mut counts: HashMap<&str, [u64; 5]> = HashMap::new();
        for sink in sinks {
            let SinkCounts { name, queued, sent, failed, dropped, folded } = &**sink;
            let sums = counts.entry(name).or_default();
            for (sum, count) in sums.iter_mut().zip([queued, sent, failed, dropped, folded]) {
                *sum += count.load(Relaxed);
            }
        }
        self.0.retain(|name| {
            let stays = counts.contains_key(&**name);
            if !stays {
                waiting.remove([name.clone().into()]);
                for result in results {
                    counters.remove([name.clone().into(), (*result).into()]);
                }
            }
            stays
        });
        for (name, [queued, of_results @ ..]) in counts {
            waiting.set([name.to_owned().into()], queued as f64);
            for (result, count) in results.iter().zip(of_results) {
                counters.set([name.to_owned().into(), (*result).into()], count);
            }
            self.0.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Metrics, tests::shown},
        *,
    };

    #[test]
    fn sinks_of_one_name_are_one_and_of_those_that_are_gone_nothing_is_left() {
        let metrics = Metrics::start().unwrap();
        let families = &metrics.families;
        let sink = |name: &str, sent: u64, dropped: u64| {
            let counts = SinkCounts::new(name.into());
            SinkCounts::add(&counts.sent, sent);
            SinkCounts::add(&counts.dropped, dropped);
            counts
        };
        let mut published = Published::default();
        let mut publish = |sinks: &[Arc<SinkCounts>]| {
            published.publish(&families.exports, &families.exports_waiting, &RESULTS[..3], sinks);
            let [text, _] = shown(&metrics);
            text
        };
        let series = |sink: &str, result: &str, count: u64| {
            format!("sipst_exports_total{{sink=\"{sink}\",result=\"{result}\"}} {count}\n")
        };
        let shown = publish(&[sink("recorder", 1, 2), sink("hep h:1", 3, 0), sink("hep h:1", 4, 0)]);
        assert!(shown.contains(&series("recorder", "dropped", 2)), "{shown}");
        assert!(shown.contains(&series("hep h:1", "sent", 7)), "{shown}");
        assert!(shown.contains(&series("hep h:1", "failed", 0)) && !shown.contains("folded"), "{shown}");
        let shown = publish(&[sink("recorder", 1, 2)]);
        assert!(shown.contains(&series("recorder", "sent", 1)) && !shown.contains("hep h:1"), "{shown}");
    }
}
