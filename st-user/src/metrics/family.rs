//! Counters, gauges and histograms with labels, by the values of these alone.

use std::{borrow::Cow, sync::atomic::AtomicU64, sync::atomic::Ordering::Relaxed};

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

/// A label's value.
pub(crate) type Word = Cow<'static, str>;

/// The labels of one series.
type Labels<const N: usize> = [(&'static str, Word); N];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

impl Kind {
    #[cfg(test)]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

fn labels<const N: usize>(names: &[&'static str; N], values: [Word; N]) -> Labels<N> {
    let mut names = names.iter();
    values.map(|value| (names.next().copied().unwrap_or_default(), value))
}

macro_rules! families {
    ($($(#[doc = $doc:literal])* $name:ident of $metric:ty as $kind:ident;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug)]
        pub(crate) struct $name<const N: usize> {
            names: [&'static str; N],
            family: Family<Labels<N>, $metric>,
        }

        impl<const N: usize> $name<N> {
            pub(crate) const KIND: Kind = Kind::$kind;

            pub(crate) fn new(names: [&'static str; N]) -> Self {
                let family = Family::default();
                if N == 0 {
                    drop(family.get_or_create(&labels(&names, std::array::from_fn(|_| Word::default()))));
                }
                Self { names, family }
            }

            pub(crate) fn family(&self) -> Family<Labels<N>, $metric> {
                self.family.clone()
            }

            fn with<T>(&self, values: [Word; N], done: impl FnOnce(&$metric) -> T) -> T {
                done(&self.family.get_or_create(&labels(&self.names, values)))
            }
        }
    )*};
}

families! {
    /// What only grows.
    Counters of Counter as Counter;
    /// What goes up and down.
    Gauges of Gauge<f64, AtomicU64> as Gauge;
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
}

impl<const N: usize> Gauges<N> {
    /// So much.
    pub(crate) fn set(&self, values: [Word; N], value: f64) {
        self.with(values, |gauge| {
            gauge.set(value);
        });
    }
}
