//! Families of metrics as the text that Prometheus reads, encoded by the crate `prometheus`.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};

use super::histogram::Counted;

/// The media type of the text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Names and values of the labels of one series.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// All families of one scrape.
#[derive(Debug, Default)]
pub struct Exposition {
    families: Vec<MetricFamily>,
}

/// A family that is being filled.
#[derive(Debug)]
pub struct Family {
    kind: MetricType,
    name: &'static str,
    help: &'static str,
    series: Vec<Metric>,
}

fn labelled(labels: Labels<'_>) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut metric = Metric::default();
    metric.set_label(labels.iter().map(pair).collect());
    metric
}

impl Family {
    /// A family of counters, which only grow.
    pub fn counter(name: &'static str, help: &'static str) -> Family {
        Family { kind: MetricType::COUNTER, name, help, series: Vec::new() }
    }

    /// A family of gauges, which show present values.
    pub fn gauge(name: &'static str, help: &'static str) -> Family {
        Family { kind: MetricType::GAUGE, name, help, series: Vec::new() }
    }

    /// A family of histograms of times.
    pub fn histogram(name: &'static str, help: &'static str) -> Family {
        Family { kind: MetricType::HISTOGRAM, name, help, series: Vec::new() }
    }

    /// Adds a series with its value.
    pub fn add(&mut self, labels: Labels<'_>, value: f64) {
        let mut metric = labelled(labels);
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.series.push(metric);
    }

    /// Adds a series of times.
    pub fn add_times(&mut self, labels: Labels<'_>, counted: &Counted) {
        let bucket = |(bound, count): &(f64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_sample_count(counted.count);
        histogram.set_sample_sum(counted.sum);
        histogram.set_bucket(counted.within.iter().map(bucket).collect());
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.series.push(metric);
    }
}

impl Exposition {
    /// Adds a family, if it has any series.
    pub fn add(&mut self, family: Family) {
        if family.series.is_empty() {
            return;
        }
        let mut all = MetricFamily::default();
        all.set_name(family.name.to_owned());
        all.set_help(family.help.to_owned());
        all.set_field_type(family.kind);
        all.set_metric(family.series);
        self.families.push(all);
    }

    /// Adds a gauge without labels.
    pub fn add_gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        let mut family = Family::gauge(name, help);
        family.add(&[], value);
        self.add(family);
    }

    /// Adds a counter without labels.
    pub fn add_counter(&mut self, name: &'static str, help: &'static str, value: f64) {
        let mut family = Family::counter(name, help);
        family.add(&[], value);
        self.add(family);
    }

    /// The text.
    pub fn to_text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.families, &mut text) {
            log::error!(target: "metrics", "they cannot be written: {error}");
        }
        text
    }
}

/// A number in the type of metrics; counts are exact up to 2^53.
pub fn float(number: impl TryInto<u64>) -> f64 {
    let number = number.try_into().unwrap_or(u64::MAX);
    let (high, low) =
        (u32::try_from(number >> 32), u32::try_from(number & u64::from(u32::MAX)));
    f64::from(high.unwrap_or(u32::MAX)) * 4_294_967_296.0 + f64::from(low.unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_with_their_labels_escaped() {
        let mut all = Exposition::default();
        let mut family = Family::counter("a_total", "What a is.");
        family.add(&[("key", "a\"b\\c\nd"), ("server", "s")], 2.0);
        all.add(family);
        all.add(Family::gauge("empty", "Nothing."));
        all.add_gauge("g", "What g is.", 1.5);
        let text = String::from_utf8(all.to_text()).unwrap();
        assert_eq!(
            text,
            "# HELP a_total What a is.\n# TYPE a_total counter\n\
             a_total{key=\"a\\\"b\\\\c\\nd\",server=\"s\"} 2\n\
             # HELP g What g is.\n# TYPE g gauge\ng 1.5\n"
        );
    }

    #[test]
    fn numbers_keep_their_value() {
        for number in [0, 1, 4_294_967_295, 4_294_967_296, 9_007_199_254_740_992_u64] {
            assert_eq!(format!("{}", float(number)), number.to_string());
        }
    }
}
