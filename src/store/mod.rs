//! All SQL and all file access. Nothing above this module names a table or a path of the data
//! folder.

pub mod audit;
pub mod backup;
mod blobs;
pub mod check;
mod clock;
pub mod credentials;
mod data_dir;
mod db;
mod deferred_rows;
mod dir;
pub mod entities;
pub mod environments;
mod error;
mod health;
mod jwt_key;
pub mod links;
pub mod machines;
mod migrations;
mod private_socket;
pub mod prune;
mod quota;
pub mod snapshots;
mod start;
pub mod status;
mod transactions;
mod upload;
pub mod users;
pub mod variables;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::fstatvfs;
use serde_json::Value;

pub use credentials::User;
pub use error::{ErrorKind, Result, StoreError};
pub use jwt_key::provided_jwt_key;
pub use upload::Upload;

use crate::util::log;
use crate::util::types::RandomId;
use audit::Event;
use blobs::VerifiedCache;
use data_dir::DataDir;
use db::Database;
use deferred_rows::DeferredRows;
use health::HealthCache;
use status::{Fact, insert_fact};

/// Space limits from the flags of `serve`; commands that store nothing need none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy {
    /// Stored bytes per user; 0: no limit.
    pub quota_bytes: u64,
    /// Free bytes of the disk below which pushes are refused.
    pub free_bytes_min: u64,
    /// Snapshots kept per machine; 0 keeps all.
    pub keep: u32,
}

impl Policy {
    /// Fails if fewer bytes of the disk are free than pushes require.
    pub fn check_free(&self, free: u64) -> Result<()> {
        match free < self.free_bytes_min {
            true => Err(StoreError::low_disk(free, self.free_bytes_min)),
            false => Ok(()),
        }
    }
}

/// Receives the rows of a list, each a JSON object, one after the other.
pub type RowSink<'a> = &'a mut dyn FnMut(&str) -> Result<()>;

/// Called from time to time with the bytes done and the total.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// An open data folder.
pub struct Store {
    data: Arc<DataDir>,
    db: Database,
    verified: VerifiedCache,
    deferred: Mutex<DeferredRows>,
    policy: Policy,
    /// Bytes that uploads in progress may still write.
    promised: Arc<AtomicU64>,
    /// The same of each user.
    promised_to_users: Mutex<HashMap<i64, Arc<AtomicU64>>>,
    /// Files of commits whose rows a crash may or may not bring back from the WAL.
    in_doubt: Mutex<Vec<RandomId>>,
    /// Both clocks at the last check; None before the first.
    clock: Mutex<Option<clock::Reading>>,
    health: HealthCache,
    /// This store holds the one-server lock.
    is_server: bool,
}

impl Store {
    /// Opens an existing data folder for a command that changes it; a server may run on it.
    pub fn open(root: &Path) -> Result<Store> {
        let data = DataDir::open(root)?;
        let db = data.with_reserve(|| Database::open(&data))?;
        Ok(Store::with(data, db))
    }

    /// Opens an existing data folder for a command that only reads, also on a read-only medium.
    pub fn open_to_read(root: &Path) -> Result<Store> {
        let data = DataDir::open(root)?;
        let db = Database::open_to_read(&data)?;
        db.read(migrations::refuse_older)?;
        Ok(Store::with(data, db))
    }

    fn with(data: DataDir, db: Database) -> Store {
        Store {
            is_server: false,
            data: Arc::new(data),
            db,
            policy: Policy::default(),
            verified: VerifiedCache::default(),
            deferred: Mutex::default(),
            promised: Arc::default(),
            promised_to_users: Mutex::default(),
            in_doubt: Mutex::default(),
            clock: Mutex::default(),
            health: Mutex::default(),
        }
    }

    /// Records a fact for `status` and metrics, and an audit row, unless the folder can only be
    /// read.
    pub fn record_fact(&self, fact: Fact, value: &Value, event: Option<Event>) {
        if !self.db.is_in_place() {
            return;
        }
        let left = self.write(|tx| {
            insert_fact(tx, fact, value)?;
            event.iter().try_for_each(|event| event.insert(tx))
        });
        if let Err(error) = left {
            log::warn(&format!("`status` will show an earlier state: {error}"));
        }
    }

    /// Writes all deferred rows and copies the WAL into the database: after a clean stop the
    /// database is one whole file. Waits at most `wait` for whoever holds the database; then the
    /// WAL stays for the next start, and nothing is lost.
    pub fn flush_and_checkpoint(&self, wait: Duration) {
        let settled = self.db.wait_at_most(wait).and_then(|()| {
            self.write_deferred_rows();
            self.db.checkpoint("TRUNCATE")
        });
        if let Err(error) = settled {
            log::warn(&format!(
                "the write-ahead log stays for the next start, which loses nothing: {error}"
            ));
        }
    }

    /// Stored bytes and snapshots of all users, and the bytes of the database.
    pub fn totals(&self) -> Result<(u64, u64, u64)> {
        let sql = "SELECT (SELECT coalesce(sum(stored_bytes), 0) FROM users),
                          (SELECT coalesce(sum(snapshot_count), 0) FROM machines),
                          page_count * page_size FROM pragma_page_count, pragma_page_size";
        self.db.read(|c| db::query_one(c, "row", sql, [], |row| row.try_into()))
    }

    /// Free bytes of the disk that this process may use.
    pub fn free_bytes(&self) -> Result<u64> {
        let root = &self.data.root;
        let stat = fstatvfs(&root.file).map_err(|e| root.error("look at", "", e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Tests that need the store's internals.
#[cfg(test)]
mod tests;
