//! Counters of a running server and their text form (Prometheus exposition format 0.0.4).
//! Labels are route patterns, known methods and our own statuses: a stranger adds no series.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::util::limits::LATENCY_BUCKETS_S;
use crate::util::sync::lock;

/// What is counted.
#[derive(Default)]
pub struct Metrics {
    /// Snapshots and versions stored.
    pub pushes: Counter,
    /// Snapshots and versions sent.
    pub pulls: Counter,
    /// Logins refused for a wrong password or token, or throttled.
    pub login_failures: Counter,
    /// Bytes of request bodies received.
    pub bytes_in: Counter,
    /// Bytes of answer bodies sent.
    pub bytes_out: Counter,
    /// Connections accepted.
    pub opened: Counter,
    /// Connections ended.
    pub closed: Counter,
    /// Connections and forwarded requests that found no slot.
    pub refused: Counter,
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    counts: BTreeMap<(&'static str, &'static str, u16), u64>,
    durations: BTreeMap<&'static str, Histogram>,
}

#[derive(Default)]
struct Histogram {
    /// How many were at most as long as the bucket of this place says, and longer than the one
    /// before.
    buckets: [u64; LATENCY_BUCKETS_S.len()],
    count: u64,
    sum_s: f64,
}

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// Counts a request that is over; `route` is the pattern, empty if there was none.
    pub fn request(&self, route: &'static str, method: &str, status: u16, took: Duration) {
        const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        let route = if route.is_empty() { "none" } else { route };
        let mut requests = lock(&self.requests);
        *requests.counts.entry((route, method, status)).or_default() += 1;
        let histogram = requests.durations.entry(route).or_default();
        let seconds = took.as_secs_f64();
        if let Some(at) = LATENCY_BUCKETS_S.iter().position(|bound| seconds <= *bound)
            && let Some(bucket) = histogram.buckets.get_mut(at)
        {
            *bucket += 1;
        }
        histogram.count += 1;
        histogram.sum_s += seconds;
    }

    /// The text of all counters.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, help, counter) in [
            ("configsync_pushes_total", "Snapshots and versions stored.", &self.pushes),
            ("configsync_pulls_total", "Snapshots and versions sent.", &self.pulls),
            ("configsync_login_failures_total", "Logins refused.", &self.login_failures),
            (
                "configsync_http_request_bytes_total", "Bytes of request bodies received.",
                &self.bytes_in,
            ),
            (
                "configsync_http_response_bytes_total", "Bytes of answer bodies sent.",
                &self.bytes_out,
            ),
            (
                "configsync_connections_refused_total",
                "Connections and forwarded requests that found no slot.",
                &self.refused,
            ),
        ] {
            single(&mut out, name, "counter", help, counter.value());
        }
        let open = self.opened.value().saturating_sub(self.closed.value());
        single(&mut out, "configsync_connections_open", "gauge", "Connections open now.", open);
        let requests = lock(&self.requests);
        let name = "configsync_http_requests_total";
        describe(&mut out, name, "counter", "Requests answered, by route.");
        for ((route, method, status), n) in &requests.counts {
            let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
            line(&mut out, format_args!("{name}{{{labels}}} {n}"));
        }
        let name = "configsync_http_request_duration_seconds";
        describe(&mut out, name, "histogram", "Time from the head to the end of the answer.");
        for (route, histogram) in &requests.durations {
            let mut so_far = 0;
            for (bound, n) in LATENCY_BUCKETS_S.iter().zip(histogram.buckets) {
                so_far += n;
                let labels = format!("route=\"{route}\",le=\"{bound}\"");
                line(&mut out, format_args!("{name}_bucket{{{labels}}} {so_far}"));
            }
            let Histogram { count, sum_s, .. } = histogram;
            line(&mut out, format_args!("{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {count}"));
            line(&mut out, format_args!("{name}_sum{{route=\"{route}\"}} {sum_s}"));
            line(&mut out, format_args!("{name}_count{{route=\"{route}\"}} {count}"));
        }
        out
    }
}

/// A metric of one value without labels.
pub fn single(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    describe(out, name, kind, help);
    line(out, format_args!("{name} {value}"));
}

/// What stands before the values of a metric.
pub fn describe(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_adds_no_series() {
        let metrics = Metrics::default();
        for method in ["BREW", "X\"}", "get"] {
            metrics.request("", method, 400, Duration::from_millis(1));
        }
        let text = metrics.text();
        let wanted =
            "configsync_http_requests_total{route=\"none\",method=\"other\",status=\"400\"} 3\n";
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn buckets_count_all_that_was_at_most_as_long() {
        let metrics = Metrics::default();
        for ms in [1, 20, 20, 60_000] {
            metrics.request("/x", "GET", 200, Duration::from_millis(ms));
        }
        let text = metrics.text();
        let name = "configsync_http_request_duration_seconds";
        for (le, n) in [("0.001", 1), ("0.01", 1), ("0.05", 3), ("10", 3), ("+Inf", 4)] {
            let wanted = format!("{name}_bucket{{route=\"/x\",le=\"{le}\"}} {n}\n");
            assert!(text.contains(&wanted), "{wanted}{text}");
        }
        assert!(text.contains(&format!("{name}_count{{route=\"/x\"}} 4\n")));
    }
}
