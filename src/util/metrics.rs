//! Counters of a running server and their text form (Prometheus exposition format 0.0.4). Labels
//! are route patterns, known methods and the server's own statuses: an unauthenticated client
//! cannot add a series.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::util::limits::LATENCY_BUCKETS_S;
use crate::util::sync::lock;

/// The counters of a server.
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
    /// Bytes of response bodies sent.
    pub bytes_out: Counter,
    /// Connections accepted.
    pub opened: Counter,
    /// Connections ended.
    pub closed: Counter,
    /// Connections, and requests through a trusted proxy, that found no free slot.
    pub refused: Counter,
    /// By route pattern.
    routes: Mutex<BTreeMap<&'static str, Route>>,
}

#[derive(Default)]
struct Route {
    /// By method and status.
    counts: BTreeMap<(&'static str, u16), u64>,
    /// For each bucket, the number of requests that took at most as long as its bound.
    buckets: [u64; LATENCY_BUCKETS_S.len()],
    sum_s: f64,
}

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// Counts a finished request; `route` is the pattern, empty if no route was found.
    pub fn request(&self, route: &'static str, method: &str, status: u16, took: Duration) {
        const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        let mut routes = lock(&self.routes);
        let route = routes.entry(if route.is_empty() { "none" } else { route }).or_default();
        *route.counts.entry((method, status)).or_default() += 1;
        let seconds = took.as_secs_f64();
        for (bound, bucket) in LATENCY_BUCKETS_S.iter().zip(&mut route.buckets) {
            *bucket += u64::from(seconds <= *bound);
        }
        route.sum_s += seconds;
    }

    /// Writes all counters.
    pub fn write(&self, out: &mut Exposition) {
        for (name, help, counter) in [
            ("pushes_total", "Snapshots and versions stored.", &self.pushes),
            ("pulls_total", "Snapshots and versions sent.", &self.pulls),
            ("login_failures_total", "Logins refused.", &self.login_failures),
            ("http_request_bytes_total", "Bytes of request bodies received.", &self.bytes_in),
            ("http_response_bytes_total", "Bytes of response bodies sent.", &self.bytes_out),
            ("connections_refused_total", "Connections that found no slot.", &self.refused),
        ] {
            let name = format!("configsync_{name}");
            out.describe(&name, "counter", help);
            out.sample(&name, &[], counter.value());
        }
        let open = self.opened.value().saturating_sub(self.closed.value());
        out.gauge("configsync_connections_open", "Connections open now.", open);
        let routes = lock(&self.routes);
        let name = "configsync_http_requests_total";
        out.describe(name, "counter", "Requests answered, by route.");
        for (route, Route { counts, .. }) in routes.iter() {
            for ((method, status), n) in counts {
                let status = status.to_string();
                out.sample(name, &[("route", route), ("method", method), ("status", &status)], n);
            }
        }
        let name = "configsync_http_request_duration_seconds";
        out.describe(name, "histogram", "Time from the head to the end of the response.");
        for (route, Route { counts, buckets, sum_s }) in routes.iter() {
            let bucket = format!("{name}_bucket");
            for (bound, n) in LATENCY_BUCKETS_S.iter().zip(buckets) {
                out.sample(&bucket, &[("route", route), ("le", &bound.to_string())], n);
            }
            let count: u64 = counts.values().sum();
            out.sample(&bucket, &[("route", route), ("le", "+Inf")], count);
            out.sample(&format!("{name}_sum"), &[("route", route)], sum_s);
            out.sample(&format!("{name}_count"), &[("route", route)], count);
        }
    }
}

/// The text form while it is being written.
#[derive(Default)]
pub struct Exposition(pub String);

// Writing to a String cannot fail.
impl Exposition {
    /// Writes the HELP and TYPE lines of a metric.
    pub fn describe(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let escaped =
            |text: &str| text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
        let label = |(name, value): &(&str, &str)| format!("{name}=\"{}\"", escaped(value));
        let labels: Vec<String> = labels.iter().map(label).collect();
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    /// Writes a metric of one value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.describe(name, "gauge", help);
        self.sample(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        let mut out = Exposition::default();
        metrics.write(&mut out);
        out.0
    }

    #[test]
    fn an_unauthenticated_client_adds_no_series() {
        let metrics = Metrics::default();
        for method in ["BREW", "X\"}", "get"] {
            metrics.request("", method, 400, Duration::from_millis(1));
        }
        let text = text(&metrics);
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
        let text = text(&metrics);
        let name = "configsync_http_request_duration_seconds";
        for (le, n) in [("0.001", 1), ("0.01", 1), ("0.05", 3), ("10", 3), ("+Inf", 4)] {
            let wanted = format!("{name}_bucket{{route=\"/x\",le=\"{le}\"}} {n}\n");
            assert!(text.contains(&wanted), "{wanted}{text}");
        }
        assert!(text.contains(&format!("{name}_count{{route=\"/x\"}} 4\n")));
    }

    #[test]
    fn a_label_cannot_end_its_quotes_or_its_line() {
        let mut out = Exposition::default();
        out.sample("x", &[("user", "a\"}\\\n@b")], 1);
        assert_eq!(out.0, "x{user=\"a\\\"}\\\\\\n@b\"} 1\n");
    }
}
