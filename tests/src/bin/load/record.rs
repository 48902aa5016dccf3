//! What was seen: one caller's, one round's, or everybody's.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

/// Longest time that a histogram holds, in nanoseconds: ten minutes.
const LONGEST: u64 = 600_000_000_000;

/// Counts and times.
pub(crate) struct Record {
    pub(crate) answers: u64,
    pub(crate) tokens: u64,
    /// Request sent to last byte.
    pub(crate) latency: Histogram<u64>,
    /// Request sent to first text.
    pub(crate) first: Histogram<u64>,
    /// Between two pieces of text of one stream.
    pub(crate) gap: Histogram<u64>,
    pub(crate) kinds: BTreeMap<String, u64>,
    /// Of the whole turn.
    pub(crate) took: Duration,
}

impl Default for Record {
    #[expect(clippy::expect_used, reason = "the bounds are constants that hdrhistogram accepts")]
    fn default() -> Self {
        let empty = || Histogram::new_with_bounds(1, LONGEST, 3).expect("valid bounds");
        Self { answers: 0, tokens: 0, latency: empty(), first: empty(), gap: empty(), kinds: BTreeMap::new(), took: Duration::ZERO }
    }
}

impl Record {
    pub(crate) fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.tokens += other.tokens;
        for (sum, part) in [(&mut self.latency, &other.latency), (&mut self.first, &other.first), (&mut self.gap, &other.gap)] {
            // Both have the same bounds, so nothing can be out of them.
            let _ = sum.add(part);
        }
        for (kind, count) in &other.kinds {
            *self.kinds.entry(kind.clone()).or_default() += count;
        }
    }

    pub(crate) fn error(&mut self, kind: impl Into<String>) {
        *self.kinds.entry(kind.into()).or_default() += 1;
    }

    pub(crate) fn errors(&self) -> u64 {
        self.kinds.values().sum()
    }

    pub(crate) fn answers_per_s(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn tokens_per_s(&self) -> f64 {
        self.tokens as f64 / self.took.as_secs_f64()
    }

    /// One line for whoever watches.
    pub(crate) fn in_words(&self, name: &str) -> String {
        format!(
            "{name:<8} {:>9.1} requests/s {:>10.0} tokens/s  latency p50 {:>9.1} p99 {:>9.1} µs  first text p50 {:>9.1} µs  errors {}",
            self.answers_per_s(),
            self.tokens_per_s(),
            micros(&self.latency, 0.5),
            micros(&self.latency, 0.99),
            micros(&self.first, 0.5),
            self.errors()
        )
    }
}

/// Records a time; a longer one than the histogram's bound counts as the bound.
pub(crate) fn note(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LONGEST).max(1));
}

/// A quantile in microseconds.
pub(crate) fn micros(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}
