//! Everything that can go wrong below HTTP, with the sentence an operator reads.

use std::fmt;
use std::io;
use std::path::Path;

/// Result of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// An error of the store. Its sentence is printed by the command line and, where it is the
/// client's business, sent by `http::error`, which maps each to a status.
#[derive(Debug)]
pub enum StoreError {
    /// No such user, token or snapshot; the word says which.
    Missing(&'static str),
    /// There is one already; the word says what.
    Exists(&'static str),
    /// A different key is there already, and must stay.
    KeyExists(&'static str),
    /// The machine was never registered, or is hidden.
    MachineNotRegistered,
    /// As many as there may be; the word says of what.
    TooMany(&'static str),
    /// The condition of a push does not hold.
    PreconditionFailed,
    /// The push does not fit into the user's quota; both in bytes.
    OverQuota {
        /// Bytes stored now.
        used: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// The disk is full.
    DiskFull,
    /// There would be less free disk than is kept in reserve; both in bytes.
    LowDisk {
        /// Bytes free now, without what uploads under way will need.
        free: u64,
        /// Bytes to be kept.
        reserve: u64,
    },
    /// A stored file is missing or does not match its digest.
    Damaged {
        /// The row, such as `snapshot 52`.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A lock was not to be had in time.
    Busy,
    /// The data folder cannot be used as it is; the sentence says why.
    Unusable(String),
    /// SQLite failed.
    Sqlite(rusqlite::Error),
    /// The file system or the random source failed.
    Io {
        /// What was being done.
        doing: String,
        /// The system's error.
        source: io::Error,
    },
}

impl StoreError {
    /// An I/O error while `doing` something with `path`; a full disk gets its own variant.
    pub fn io(doing: &str, path: &Path, source: io::Error) -> StoreError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull,
            _ => StoreError::Io { doing: format!("{doing} {}", path.display()), source },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
        match error.sqlite_error_code() {
            Some(DiskFull) => StoreError::DiskFull,
            Some(DatabaseBusy | DatabaseLocked) => StoreError::Busy,
            _ => StoreError::Sqlite(error),
        }
    }
}

impl From<getrandom::Error> for StoreError {
    fn from(error: getrandom::Error) -> StoreError {
        StoreError::Io { doing: "draw random bytes".into(), source: io::Error::other(error) }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Missing(what) => write!(f, "there is no such {what}"),
            StoreError::Exists(what) => write!(f, "a {what} of this name already exists"),
            StoreError::KeyExists(what) => {
                write!(f, "another {what} already exists and stays: what it encrypted needs it")
            }
            StoreError::MachineNotRegistered => f.write_str(
                "this machine is not registered: register it with POST /api/machines first",
            ),
            StoreError::TooMany(what) => {
                write!(f, "there are as many {what} as this server keeps")
            }
            StoreError::PreconditionFailed => f.write_str(
                "the newest snapshot is not the one the condition names: pull, then push again",
            ),
            StoreError::OverQuota { used, allowed } => write!(
                f,
                "this push does not fit: {used} of {allowed} bytes are used; ask the operator to \
                 prune old snapshots or to raise the quota"
            ),
            StoreError::DiskFull => f.write_str("the disk is full: free some space and try again"),
            StoreError::LowDisk { free, reserve } => write!(
                f,
                "the server is short of disk space: {free} bytes are free and {reserve} are kept \
                 (--min-free); ask the operator to free some or to prune old snapshots"
            ),
            StoreError::Damaged { what, reason } => write!(
                f,
                "{what} is damaged and not served ({reason}): use another one, and have the \
                 operator run `configsync-server check`"
            ),
            StoreError::Busy => f.write_str("the database is busy; try again"),
            StoreError::Unusable(reason) => f.write_str(reason),
            StoreError::Sqlite(error) => write!(
                f,
                "the database failed: {error}; if that stays, stop the server, run \
                 `configsync-server check`, and restore a backup if it reports damage"
            ),
            StoreError::Io { doing, source } => write!(f, "could not {doing}: {source}"),
        }
    }
}

impl std::error::Error for StoreError {}
