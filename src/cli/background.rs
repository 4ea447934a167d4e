//! What a server does beside answering: rows that wait, the watchdog, retention.

use std::sync::Arc;
use std::thread::{Builder, sleep};
use std::time::Duration;

use super::notify::notify;
use crate::app::App;
use crate::auth::password;
use crate::store::Store;
use crate::store::prune::{Pruned, Rules};
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
            password::release_memory();
            if watched {
                notify("WATCHDOG=1");
            }
        }
    })?;
    Ok(())
}

fn apply_retention(store: &Store, keep: u32, audit_days: u32) {
    let rules = Rules { keep: Some(keep), older_than_days: None };
    // Without a number to keep, what an earlier prune or a crash left to be unlinked.
    let pruned = match keep {
        0 => store.unlink_deleted(&mut Pruned::default()).map(|()| Pruned::default()),
        _ => store.prune(rules),
    };
    let aged = if audit_days > 0 { store.prune_audit(audit_days) } else { Ok(()) };
    match pruned {
        Ok(Pruned { snapshots: 0, .. }) => {}
        Ok(Pruned { snapshots, bytes, .. }) => log::info(&format!(
            "retention (--keep {keep}) deleted {snapshots} snapshots; {bytes} bytes are free again"
        )),
        Err(error) => log::error(&format!("old snapshots were not deleted: {error}")),
    }
    if let Err(error) = aged {
        log::error(&format!("old rows of the audit log were not deleted: {error}"));
    }
}
