//! GET /metrics: the counters of this process, and what the data folder holds.

use std::fs;

use crate::app::App;
use crate::app::HandlerResult;
use crate::app::{Request, Response};
use crate::util::metrics::{describe, single};

/// Prometheus text. `vet` lets only this host itself ask.
pub fn metrics(app: &App, _request: &Request) -> HandlerResult {
    let store = &app.store;
    let (stored_bytes, snapshots) = store.totals()?;
    let mut out = app.metrics.text();
    for (name, help, value) in [
        ("configsync_stored_bytes", "Bytes of all stored files.", stored_bytes),
        ("configsync_snapshots", "Snapshots stored.", snapshots),
        (
            "configsync_database_bytes",
            "Bytes of the database and its write-ahead log.",
            store.database_bytes(),
        ),
        ("configsync_disk_free_bytes", "Free bytes of the disk.", store.free_bytes()?),
        ("process_resident_memory_bytes", "Resident memory.", resident_bytes()),
        (
            "process_open_fds",
            "Open files and sockets.",
            fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64),
        ),
    ] {
        single(&mut out, name, "gauge", help, value);
    }
    let version = env!("CARGO_PKG_VERSION");
    let name = "configsync_build_info";
    describe(&mut out, name, "gauge", "The version that runs.");
    out.push_str(&format!("{name}{{version=\"{version}\"}} 1\n"));
    Ok(Response::plain(200, "text/plain; version=0.0.4; charset=utf-8", out))
}

/// Resident memory, or 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}
