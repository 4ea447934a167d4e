//! The record of a finished request, and where it goes: the log and the counters.

use std::net::IpAddr;
use std::time::Instant;

use super::head::Head;
use super::response::Response;
use crate::util::limits::LOG_PATH_CHARS_MAX;
use crate::util::log::{self, Level};
use crate::util::metrics::Metrics;
use crate::util::types::RandomId;

/// A request and its response; counted and logged on drop, even in a panic.
pub struct AccessRecord<'a> {
    pub id: RandomId,
    /// None if no request could be parsed.
    pub head: Option<&'a Head>,
    /// The route's pattern; empty if no route was found.
    pub route: &'static str,
    /// Until there is a response, the status is that of a client that left.
    pub response: Response,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// When the head had arrived.
    pub started: Instant,
    pub user: Option<i64>,
    pub peer: IpAddr,
    pub metrics: &'a Metrics,
}

impl Drop for AccessRecord<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let Response { status, refusal, .. } = &self.response;
        let (code, reason) = refusal.as_ref().map(|error| (error.code, error.reason)).unzip();
        let (method, path) = self.head.map_or(("-", "-"), |head| (&head.method, head.path()));
        self.metrics.request(self.route, method, *status, took);
        self.metrics.bytes_in.add(self.bytes_in);
        self.metrics.bytes_out.add(self.bytes_out);
        let path = without_secrets(path);
        let path: String = path.chars().take(LOG_PATH_CHARS_MAX).collect();
        log::event(
            Level::INFO,
            "request",
            &[
                ("method", method.into()),
                ("path", path.into()),
                ("status", (*status).into()),
                ("bytes_in", self.bytes_in.into()),
                ("bytes_out", self.bytes_out.into()),
                ("ms", (took.as_micros() as f64 / 1000.0).into()),
                ("user", self.user.into()),
                ("peer", self.peer.to_string().into()),
                ("request_id", self.id.to_string().into()),
                ("code", code.into()),
                ("reason", reason.flatten().into()),
            ],
        );
    }
}

/// Masks path segments that look like a credential, put there by mistake.
fn without_secrets(path: &str) -> String {
    let secret = |part: &str| part.contains("cs_") || part.contains("eyJ");
    let parts = path.split('/').map(|part| if secret(part) { "(secret)" } else { part });
    parts.collect::<Vec<_>>().join("/")
}
