//! The kinds of numbers: counters, gauges, histograms, and families of them.

use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::label::Label;

/// A metric whose values can be carried to another process.
pub(super) trait Values {
    /// Calls `visit` with the name and the number of each value.
    fn visit(&self, name: &str, visit: &mut dyn FnMut(&str, &AtomicU64));
}

impl Values for Counter {
    fn visit(&self, name: &str, visit: &mut dyn FnMut(&str, &AtomicU64)) {
        visit(name, &self.0);
    }
}

impl Values for Gauge {
    fn visit(&self, name: &str, visit: &mut dyn FnMut(&str, &AtomicU64)) {
        visit(name, &self.0);
    }
}

impl<L: Label, N: Values> Values for Family<L, N> {
    fn visit(&self, name: &str, visit: &mut dyn FnMut(&str, &AtomicU64)) {
        for label in L::ALL {
            self.of(*label).visit(&format!("{name}/{}", label.label()), visit);
        }
    }
}

impl<S: Scale> Values for Histogram<S> {
    fn visit(&self, name: &str, visit: &mut dyn FnMut(&str, &AtomicU64)) {
        for (bound, count) in S::BOUNDS.iter().chain([&u64::MAX]).zip(&self.counts) {
            count.visit(&format!("{name}/{bound}"), visit);
        }
        self.sum.visit(&format!("{name}/sum"), visit);
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds from any thread.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds, in 0.5 ns; [`Self::add`] takes 5. Only for a number that no other thread writes.
    pub fn add_as_only_writer(&self, amount: u64) {
        self.0.store(self.value().wrapping_add(amount), Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A level that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the level.
    pub fn set(&self, level: usize) {
        self.0.store(level as u64, Ordering::Relaxed);
    }

    /// The level now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One number for each label of `L`.
pub struct Family<L, N> {
    numbers: Vec<N>,
    labels: PhantomData<L>,
}

impl<L: Label, N> Family<L, N> {
    /// The number that has this label.
    pub fn of(&self, label: L) -> &N {
        &self.numbers[label.index()]
    }
}

impl<L: Label, N: Default> Default for Family<L, N> {
    fn default() -> Self {
        Self { numbers: L::ALL.iter().map(|_| N::default()).collect(), labels: PhantomData }
    }
}

impl<L, N: Debug> Debug for Family<L, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.numbers.fmt(f)
    }
}

/// How often a measured value fell between two bounds. Written by one thread only.
#[derive(Debug)]
pub struct Histogram<S> {
    counts: Vec<Counter>,
    sum: Counter,
    scale: PhantomData<S>,
}

/// What a histogram measures.
pub trait Scale {
    /// The upper bounds, ascending, in the unit that is observed.
    const BOUNDS: &'static [u64];
    /// How many observed units make one shown unit.
    const PER_SHOWN: f64;
}

/// Time, observed in nanoseconds.
#[derive(Debug)]
pub enum Seconds {}

impl Scale for Seconds {
    /// From the time of a thread's wake-up to a delay that players notice.
    const BOUNDS: &'static [u64] = &[
        1_000,
        2_500,
        5_000,
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        5_000_000,
        25_000_000,
        100_000_000,
        1_000_000_000,
    ];
    const PER_SHOWN: f64 = 1e9;
}

/// Sizes of datagrams.
#[derive(Debug)]
pub enum Bytes {}

impl Scale for Bytes {
    /// Games send small datagrams, Ethernet carries 1472, UDP 65,507.
    const BOUNDS: &'static [u64] = &[32, 64, 128, 256, 512, 1024, 1472, 4096, 16_384, 65_536];
    const PER_SHOWN: f64 = 1.0;
}

impl<S: Scale> Default for Histogram<S> {
    fn default() -> Self {
        let counts = (0..=S::BOUNDS.len()).map(|_| Counter::default()).collect();
        Self { counts, sum: Counter::default(), scale: PhantomData }
    }
}

impl<S: Scale> Histogram<S> {
    /// Counts one value, in the unit of the bounds.
    pub fn observe(&self, value: u64) {
        let bucket = S::BOUNDS.iter().position(|bound| value <= *bound);
        self.counts[bucket.unwrap_or(S::BOUNDS.len())].add_as_only_writer(1);
        self.sum.add_as_only_writer(value);
    }

    /// Counts values that were counted elsewhere: how many lie between each two of the first bounds, and their sum.
    pub fn add(&self, counts: &[u64], sum: u64) {
        for (count, more) in self.counts.iter().zip(counts) {
            count.add_as_only_writer(*more);
        }
        self.sum.add_as_only_writer(sum);
    }
}

impl<S: Scale> Histogram<S> {
    /// How many values lie between the bound before and this one, in the shown unit; `None` stands for all above.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<f64>, u64)> {
        let bounds = S::BOUNDS.iter().map(|bound| Some(*bound as f64 / S::PER_SHOWN));
        bounds.chain([None]).zip(self.counts.iter().map(Counter::value))
    }

    /// The sum of all values, in the shown unit.
    pub fn sum(&self) -> f64 {
        self.sum.value() as f64 / S::PER_SHOWN
    }
}

impl Histogram<Seconds> {
    /// Counts one span of time.
    pub fn observe_time(&self, span: Duration) {
        self.observe(crate::time::nanos(span));
    }
}
