//! GET /metrics: the counters of this process, and gauges of the data folder.

use serde_json::Value;

use crate::app::{App, HandlerResult, Request, Response};
use crate::store::status::Fact;
use crate::util::metrics::Exposition;

/// Returns the Prometheus text format, on the `--metrics` listener only.
pub fn metrics(app: &App, _request: &Request) -> HandlerResult {
    let (mut out, store) = (Exposition::default(), &app.store);
    app.metrics.write(&mut out);
    let (stored_bytes, snapshots, database_bytes) = store.totals()?;
    out.gauge("configsync_stored_bytes", "Bytes of all stored files.", stored_bytes);
    out.gauge("configsync_snapshots", "Snapshots stored.", snapshots);
    out.gauge("configsync_database_bytes", "Bytes of the database.", database_bytes);
    out.gauge("configsync_disk_free_bytes", "Free bytes of the disk.", store.free_bytes()?);

    let name = "configsync_user_stored_bytes";
    out.describe(name, "gauge", "Bytes that a user stores.");
    for row in &store.stored_table()?.rows {
        if let [Value::String(user), _, bytes, _] = row.as_slice() {
            out.sample(name, &[("user", user)], bytes);
        }
    }
    let name = "configsync_last_push_timestamp_seconds";
    out.describe(name, "gauge", "When a machine last pushed; 0: never.");
    for row in &store.push_table()?.rows {
        if let [Value::String(user), Value::String(machine), at] = row.as_slice() {
            let seconds = at.as_f64().unwrap_or(0.0) / 1000.0;
            out.sample(name, &[("user", user), ("machine", machine)], seconds);
        }
    }

    // Facts that commands recorded; 0: never.
    for (name, help, moment) in [
        ("backup", "When the last good backup was made.", store.fact(Fact::GOOD_BACKUP, "at")?),
        ("check", "When the last check ended.", store.fact(Fact::CHECK, "at")?),
        ("offsite", "When the last off-site copy was made.", store.last_offsite()?),
    ] {
        let name = format!("configsync_last_{name}_timestamp_seconds");
        out.gauge(&name, help, moment.unwrap_or(0) as f64 / 1000.0);
    }
    let found = store.fact(Fact::CHECK, "damaged")?.unwrap_or(0);
    let help = "Snapshots that the last check found damaged.";
    out.gauge("configsync_damaged_snapshots", help, found);

    let name = "configsync_build_info";
    out.describe(name, "gauge", "The version that runs.");
    out.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    Ok(Response::text(200, "text/plain; version=0.0.4; charset=utf-8", out.0))
}
