//! Whether pushes and pulls would succeed, for monitoring.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Store;
use super::db::query_scalar;
use super::error::{ErrorKind, Result};
use crate::util::limits::{HEALTH_MS, HEALTHY_FREE_BYTES_MIN};
use crate::util::sync::lock;

/// When health was last checked, and what failed, as `/healthz` words it.
pub type HealthCache = Mutex<Option<(Instant, Option<&'static str>)>>;

impl Store {
    /// Returns what fails, in one word; None if nothing does. However often it is called, it checks
    /// at most once a second.
    pub fn failing(&self) -> Option<&'static str> {
        let mut cached = lock(&self.health);
        if let Some((at, failing)) = *cached
            && at.elapsed() < Duration::from_millis(HEALTH_MS)
        {
            return failing;
        }
        let failing = self.look_at_health().unwrap_or(Some("data_folder"));
        *cached = Some((Instant::now(), failing));
        failing
    }

    fn look_at_health(&self) -> Result<Option<&'static str>> {
        let table = "SELECT count(*) FROM (SELECT 1 FROM users LIMIT 1)";
        let read = self.db.read(|c| query_scalar::<i64>(c, table, []));
        let failure = self.db.failure();
        let disk_full = failure == Some(ErrorKind::DiskFull);
        if read.is_err() || (failure.is_some() && !disk_full) {
            return Ok(Some("database"));
        }
        self.data.snapshots()?;
        self.data.tmp()?;
        let free = self.free_bytes()?;
        let short = free < HEALTHY_FREE_BYTES_MIN || self.policy.check_free(free).is_err();
        Ok((short || disk_full).then_some("disk_full"))
    }
}
