//! What a server does beside answering: rows that wait, the watchdog, retention.

use std::sync::Arc;
use std::thread::{Builder, sleep};
use std::time::Duration;

use super::notify::notify;
use crate::app::App;
use crate::store::Store;
use crate::store::prune::{Pruned, Retention};
use crate::util::limits::{HOUSEKEEPING_MS, RETENTION_MS};
use crate::util::log;

/// Starts the two threads. Twice a second one writes what no request waits for, and tells systemd's
/// watchdog that the process lives; at first and once an hour the other deletes what retention says.
pub fn spawn(app: &Arc<App>, keep: u32, audit_days: u32) -> std::io::Result<()> {
    let of_retention = Arc::clone(app);
    Builder::new().name("retention".into()).spawn(move || {
        loop {
            apply_retention(&of_retention.store, keep, audit_days);
            sleep(Duration::from_millis(RETENTION_MS));
        }
    })?;
    let app = Arc::clone(app);
    Builder::new().name("housekeeper".into()).spawn(move || {
        let watched = std::env::var_os("WATCHDOG_USEC").is_some();
        loop {
            sleep(Duration::from_millis(HOUSEKEEPING_MS));
            app.store.write_pending();
            // What cannot be kept back now is tried again; only a full disk needs it.
            let _ = app.store.keep_reserve();
            if watched {
                notify("WATCHDOG=1");
            }
        }
    })?;
    Ok(())
}

fn apply_retention(store: &Store, keep: u32, audit_days: u32) {
    let retention = Retention { keep, older_than_days: None, audit_days };
    match store.prune(retention, false) {
        Ok(Pruned { snapshots: 0, deleted: 0, orphans: 0, audit_rows: 0, .. }) => {}
        Ok(Pruned { snapshots, deleted, orphans, audit_rows, bytes, .. }) => log::info(&format!(
            "retention (--keep {keep}, --audit-days {audit_days}) deleted {snapshots} snapshots, \
             {deleted} deleted entities and environments, {orphans} files of orphans/ and \
             {audit_rows} audit rows; {bytes} bytes are free again"
        )),
        Err(error) => log::error(&format!("what is old was not deleted: {error}")),
    }
}
