//! All SQL and all files. Nothing above this module names a table or a path of the data folder.

pub mod audit;
pub mod backup;
mod blobs;
pub mod check;
pub mod credentials;
mod db;
pub mod entities;
pub mod environments;
mod error;
mod files;
mod folder;
pub mod keypairs;
pub mod links;
pub mod machines;
mod migrations;
mod pending;
pub mod prune;
pub mod snapshots;
pub mod space;
pub mod status;
pub mod tokens;
mod usage;
pub mod users;
pub mod variables;

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Transaction;

pub use error::{BadBearer, ErrorKind, Result, StoreError};
pub use files::Upload;
pub use folder::Folder;
pub use users::User;

use crate::util::log;
use crate::util::types::RandomId;
use db::Database;
use files::Memo;
use pending::Pending;

/// What `serve` was told about space; commands that store nothing need none of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy {
    /// Stored bytes per user; 0 is no limit.
    pub quota_bytes: u64,
    /// Free bytes of the disk below which pushes are refused.
    pub free_bytes_min: u64,
    /// Snapshots kept per machine; 0 keeps all.
    pub keep: u32,
}

impl Policy {
    /// Refuses to add anything with so many bytes of disk free.
    pub fn check_free(&self, free: u64) -> Result<()> {
        match self.free_bytes_min {
            reserve if free < reserve => Err(StoreError::low_disk(free, reserve)),
            _ => Ok(()),
        }
    }
}

/// Takes the rows of a list, each a JSON object, one after the other.
pub type RowSink<'a> = &'a mut dyn FnMut(&str) -> Result<()>;

/// Told now and then how many files and bytes are done.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// One data folder, open.
pub struct Store {
    folder: Folder,
    db: Database,
    memo: Memo,
    pending: Pending,
    policy: Policy,
    /// Bytes that uploads under way have written.
    uploaded: Arc<AtomicU64>,
    /// Held for the life of a server; None for commands.
    _lock: Option<File>,
}

impl Store {
    /// Opens an existing data folder for a command; a server may run on it.
    pub fn open(root: &Path) -> Result<Store> {
        let folder = Folder::existing(root)?;
        Store::with(folder, Policy::default(), None)
    }

    /// Makes or opens the data folder of a server: takes the one-server lock, empties what was
    /// under way when the last one ended, and sets files without a row aside; says how many.
    pub fn start(root: &Path, policy: Policy) -> Result<(Store, usize)> {
        Folder::at(root).refuse_to_start()?;
        let folder = Folder::create(root)?;
        let lock = folder.lock_server()?;
        folder.close_to_others()?;
        folder.empty_scratch()?;
        let store = Store::with(folder, policy, Some(lock))?;
        store.refuse_damage()?;
        let orphans = store.folder.move_orphans(&store.file_names()?)?;
        Ok((store, orphans))
    }

    fn with(folder: Folder, policy: Policy, lock: Option<File>) -> Result<Store> {
        let db = Database::open(&folder)?;
        let (memo, pending, uploaded) = (Memo::default(), Pending::default(), Arc::default());
        Ok(Store { folder, db, memo, pending, policy, uploaded, _lock: lock })
    }

    /// A server on a damaged database would make the damage worse. About 0.7 ms for a thousand rows.
    fn refuse_damage(&self) -> Result<()> {
        match self.db.read(|c| db::query_scalar::<String>(c, "PRAGMA quick_check(1)", []))? {
            ok if ok == "ok" => Ok(()),
            damage => Err(StoreError::unusable(format!(
                "the database is damaged ({damage}): run `configsync-server check` to see how much, \
                 and restore a backup (`configsync-server restore --help`)"
            ))),
        }
    }

    /// The data folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// True if the database answers and the data folder can be written.
    pub fn healthy(&self) -> bool {
        let answers = self.db.read(|c| db::query_scalar::<i64>(c, "SELECT 1", []));
        let stands = self.folder.snapshots().is_dir();
        answers.is_ok()
            && stands
            && self.upload().is_ok_and(|mut upload| upload.write(b"healthz").is_ok())
    }

    /// Writes all that waits, and brings the write-ahead log into the database: after a clean stop
    /// that is one whole file.
    pub fn settle(&self) {
        self.write_pending();
        if let Err(error) = self.db.checkpoint() {
            log::warn(&format!("the write-ahead log stays for the next start: {error}"));
        }
    }

    /// Begins an upload in `tmp/`.
    pub fn upload(&self) -> Result<Upload> {
        Upload::create(&self.folder, &self.uploaded)
    }

    /// An unlinked file in `tmp/` for a response that is too long to wait in memory.
    pub fn response_file(&self) -> Result<File> {
        let path = self.folder.tmp().join(RandomId::draw()?.to_string());
        let made = File::options().read(true).write(true).create_new(true).open(&path);
        let file = made.map_err(|e| StoreError::io("create", &path, e))?;
        std::fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
        Ok(file)
    }

    /// Free bytes of the disk for this process.
    pub fn free_bytes(&self) -> Result<u64> {
        let root = self.folder.root();
        let failed = |e: rustix::io::Errno| StoreError::io("look at", root, e.into());
        let stat = rustix::fs::statvfs(root).map_err(failed)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Free bytes as they would be without the uploads under way.
    pub fn free_bytes_before_uploads(&self) -> Result<u64> {
        Ok(self.free_bytes()?.saturating_add(self.uploaded.load(Ordering::Relaxed)))
    }

    /// Stored bytes and snapshots of all users.
    pub fn totals(&self) -> Result<(u64, u64)> {
        let sql = "SELECT (SELECT coalesce(sum(stored_bytes), 0) FROM users),
                          (SELECT coalesce(sum(snapshot_count), 0) FROM machines)";
        self.db.read(|c| db::query_one(c, "row", sql, [], |row| Ok((row.get(0)?, row.get(1)?))))
    }

    /// Bytes of the database with its write-ahead log.
    pub fn database_bytes(&self) -> u64 {
        let database = self.folder.database();
        let bytes = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
        bytes(&database).saturating_add(bytes(&database.with_extension("db-wal")))
    }

    /// Free bytes of the disk below which pushes are refused.
    pub fn free_bytes_min(&self) -> u64 {
        self.policy.free_bytes_min
    }

    /// Runs `work` in a transaction; when this returns Ok, it is on disk.
    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.db.write(work)
    }

    /// The names of all files that rows speak of, those that wait to be unlinked included.
    fn file_names(&self) -> Result<HashSet<RandomId>> {
        self.random_ids("SELECT file FROM stored_files UNION ALL SELECT file FROM deleted_files")
    }

    fn random_ids(&self, sql: &str) -> Result<HashSet<RandomId>> {
        let names = self.db.read(|c| db::query_strings(c, sql, []))?;
        Ok(names.iter().filter_map(|name| RandomId::parse(name)).collect())
    }
}

/// Asks for the plan of every statement; it needs what only the store sees.
#[cfg(test)]
mod tests;
