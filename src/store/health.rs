//! Whether pushes would be taken and pulls be served, for who watches the server.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Store;
use super::db::{Condition, query_scalar};
use super::error::Result;
use crate::util::limits::{HEALTH_MS, HEALTHY_FREE_BYTES_MIN};
use crate::util::sync::lock;

/// How the data folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Good,
    /// A table cannot be read, the last write failed, or the database is not the one opened.
    Database,
    /// The last write found the disk full, or pushes are refused for lack of room.
    DiskFull,
    /// Files cannot be looked at.
    DataFolder,
}

/// The last look, so that whoever asks, and however often, costs one look a second.
#[derive(Default)]
pub struct HealthCache(Mutex<Option<(Instant, Health)>>);

impl Store {
    /// How the data folder is; looked at once a second at most.
    pub fn health(&self) -> Health {
        let mut cached = lock(&self.health.0);
        if let Some((at, health)) = *cached
            && at.elapsed() < Duration::from_millis(HEALTH_MS)
        {
            return health;
        }
        let health = self.look_at_health().unwrap_or(Health::DataFolder);
        *cached = Some((Instant::now(), health));
        health
    }

    fn look_at_health(&self) -> Result<Health> {
        let table = "SELECT count(*) FROM (SELECT 1 FROM users LIMIT 1)";
        let read = self.db.read(|c| query_scalar::<i64>(c, table, []));
        let condition = self.db.condition();
        if read.is_err() || matches!(condition, Condition::Failed | Condition::Lost) {
            return Ok(Health::Database);
        }
        self.data.snapshots()?;
        self.data.tmp()?;
        let free = self.free_bytes()?;
        let short = free < HEALTHY_FREE_BYTES_MIN || self.policy.check_free(free).is_err();
        match short || condition == Condition::DiskFull {
            true => Ok(Health::DiskFull),
            false => Ok(Health::Good),
        }
    }
}
