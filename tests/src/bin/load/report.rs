//! The JSON document at the end.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::record::{Record, micros};

/// Everything about every target; `vs_base` compares it with the first, round by round.
pub(crate) fn document(lanes: &[(&str, &[Record])]) -> Value {
    let base = lanes.first().map_or(&[][..], |(_, rounds)| rounds);
    let targets: Vec<Value> = lanes.iter().map(|(name, rounds)| target(name, rounds, base)).collect();
    json!({"rounds": base.len(), "targets": targets})
}

fn target(name: &str, rounds: &[Record], base: &[Record]) -> Value {
    let mut all = Record::default();
    for round in rounds {
        all.add(round);
    }
    let over_rounds = |read: &dyn Fn(&Record) -> f64| median(rounds.iter().map(read).collect());
    let against_base = |compare: &dyn Fn(&Record, &Record) -> f64| {
        median(rounds.iter().zip(base).map(|(round, base)| compare(round, base)).collect())
    };
    let added = |of: fn(&Record) -> &Histogram<u64>, quantile: f64| {
        against_base(&|round, base| micros(of(round), quantile) - micros(of(base), quantile))
    };
    json!({
        "name": name,
        "answers": all.answers,
        "errors": all.errors(),
        "error_kinds": all.kinds,
        "requests_per_s": over_rounds(&Record::answers_per_s),
        "tokens_per_s": over_rounds(&Record::tokens_per_s),
        "latency_us": quantiles(&all.latency),
        "ttft_us": quantiles(&all.first),
        "gap_us": quantiles(&all.gap),
        "vs_base": {
            "rps_ratio": against_base(&|round, base| round.answers_per_s() / base.answers_per_s()),
            "tokens_ratio": against_base(&|round, base| round.tokens_per_s() / base.tokens_per_s()),
            "latency_p50_us": added(|record| &record.latency, 0.5),
            "latency_p99_us": added(|record| &record.latency, 0.99),
            "ttft_p50_us": added(|record| &record.first, 0.5),
            "gap_p99_us": added(|record| &record.gap, 0.99),
        },
    })
}

fn quantiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    json!({
        "p50": micros(histogram, 0.5), "p90": micros(histogram, 0.9), "p99": micros(histogram, 0.99), "max": micros(histogram, 1.0),
        "count": histogram.len(),
    })
}

/// The middle one; `null` in JSON when there is none.
fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.retain(|number| number.is_finite());
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(numbers[middle]),
        _ => Some(f64::midpoint(numbers[middle - 1], numbers[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, f64::NAN, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
