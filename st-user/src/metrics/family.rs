//! Counters, gauges and histograms with labels, by the values of these alone.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus_client::metrics::{
    counter::Counter,
    family::{Family, MetricConstructor},
    gauge::Gauge,
    histogram::Histogram,
};

/// A label's value.
pub(crate) type Word = Cow<'static, str>;

/// The labels of one series.
type Labels<const N: usize> = [(&'static str, Word); N];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    #[cfg(test)]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Upper bounds of the lag of a refresh, in seconds: from what nobody notices to what a call dies of.
const LAGS: [f64; 12] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Makes a series of its kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fresh;

impl MetricConstructor<Counter> for Fresh {
    fn new_metric(&self) -> Counter {
        Counter::default()
    }
}

impl MetricConstructor<Counter<f64, AtomicU64>> for Fresh {
    fn new_metric(&self) -> Counter<f64, AtomicU64> {
        Counter::default()
    }
}

impl MetricConstructor<Gauge<f64, AtomicU64>> for Fresh {
    fn new_metric(&self) -> Gauge<f64, AtomicU64> {
        Gauge::default()
    }
}

impl MetricConstructor<Histogram> for Fresh {
    fn new_metric(&self) -> Histogram {
        Histogram::new(LAGS)
    }
}

fn labels<const N: usize>(names: &[&'static str; N], values: [Word; N]) -> Labels<N> {
    let mut names = names.iter();
    values.map(|value| (names.next().copied().unwrap_or_default(), value))
}

macro_rules! families {
    ($($(#[doc = $doc:literal])* $name:ident of $metric:ty as $kind:ident, at first $first:literal;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug)]
        pub(crate) struct $name<const N: usize> {
            names: [&'static str; N],
            family: Family<Labels<N>, $metric, Fresh>,
        }

        impl<const N: usize> $name<N> {
            pub(crate) const KIND: Kind = Kind::$kind;

            /// Without labels there is one series.
            pub(crate) fn new(names: [&'static str; N]) -> Self {
                let family = Family::new_with_constructor(Fresh);
                if N == 0 && $first {
                    drop(family.get_or_create(&labels(&names, std::array::from_fn(|_| Word::default()))));
                }
                Self { names, family }
            }

            pub(crate) fn family(&self) -> Family<Labels<N>, $metric, Fresh> {
                self.family.clone()
            }

            fn with(&self, values: [Word; N], done: impl FnOnce(&$metric)) {
                done(&self.family.get_or_create(&labels(&self.names, values)));
            }
        }
    )*};
}

families! {
    /// What only grows.
    Counters of Counter as Counter, at first true;
    /// The same, in fractions.
    Times of Counter<f64, AtomicU64> as Counter, at first true;
    /// What goes up and down.
    Gauges of Gauge<f64, AtomicU64> as Gauge, at first true;
    /// The same, where there may be nothing to tell.
    Maybe of Gauge<f64, AtomicU64> as Gauge, at first false;
    /// How things are spread.
    Histograms of Histogram as Histogram, at first true;
}

impl<const N: usize> Counters<N> {
    /// One more.
    pub(crate) fn add(&self, values: [Word; N]) {
        self.with(values, |counter| {
            counter.inc();
        });
    }

    /// So many in all, as somebody else has counted.
    pub(crate) fn set(&self, values: [Word; N], count: u64) {
        self.with(values, |counter| counter.inner().store(count, Relaxed));
    }

    /// There is no such thing any more.
    pub(crate) fn remove(&self, values: [Word; N]) {
        self.family.remove(&labels(&self.names, values));
    }
}

impl Times<0> {
    /// So much in all, as somebody else has counted.
    pub(crate) fn set(&self, value: f64) {
        self.with([], |counter| counter.inner().store(value.to_bits(), Relaxed));
    }
}

impl<const N: usize> Gauges<N> {
    /// So much.
    pub(crate) fn set(&self, values: [Word; N], value: f64) {
        self.with(values, |gauge| {
            gauge.set(value);
        });
    }

    /// There is no such thing any more.
    pub(crate) fn remove(&self, values: [Word; N]) {
        self.family.remove(&labels(&self.names, values));
    }
}

impl Maybe<0> {
    /// So much, or nothing that could be told.
    pub(crate) fn set(&self, value: Option<f64>) {
        match value {
            Some(value) => self.with([], |gauge| {
                gauge.set(value);
            }),
            None => drop(self.family.remove(&[])),
        }
    }
}

impl<const N: usize> Histograms<N> {
    /// One more.
    pub(crate) fn observe(&self, values: [Word; N], value: f64) {
        self.with(values, |histogram| histogram.observe(value));
    }
}
