//! The one error of the store: its kind, which `app::error` maps to a status, and a sentence that
//! the operator reads and, where it is the client's business, the client too.

use std::fmt;
use std::io;
use std::path::Path;

/// Result of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// What kind of failure it is: all that a caller may decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such row; another user's row does not exist either.
    NotFound,
    /// No such snapshot.
    NoSnapshot,
    /// The machine was never registered, or is hidden.
    MachineNotRegistered,
    /// The name is taken.
    Exists,
    /// A different key is stored and stays.
    KeyExists,
    /// The condition of a push does not hold.
    PreconditionFailed,
    /// It does not fit into what the user may store.
    QuotaExceeded,
    /// The disk is full.
    DiskFull,
    /// The disk is down to what is kept free.
    LowDisk,
    /// The credential does not count, or no longer. Why is for the log alone, the client is told
    /// the same about each: `unknown` (also of a user who was removed), `expired`, `revoked` (also
    /// issued before the last change of the password) or `disabled`.
    Unauthorized(&'static str),
    /// A stored file is missing or does not match its digest.
    Damaged,
    /// A lock was not to be had in time.
    Busy,
    /// The database is damaged.
    Corrupt,
    /// SQLite, the file system or the random source failed, or the data folder cannot be used as it
    /// is.
    Internal,
}

#[derive(Debug)]
pub struct StoreError {
    /// What callers decide by.
    pub kind: ErrorKind,
    /// COMMIT failed, and not before its last byte was written: the rows may or may not be there
    /// after a crash.
    pub in_doubt: bool,
    pub(super) sentence: String,
}

impl StoreError {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, sentence: impl Into<String>) -> StoreError {
        StoreError { kind, in_doubt: false, sentence: sentence.into() }
    }

    /// There is no such row; the word says of what.
    pub fn missing(what: &str) -> StoreError {
        StoreError::new(ErrorKind::NotFound, format!("there is no such {what}"))
    }

    /// There is no such snapshot.
    pub fn no_snapshot() -> StoreError {
        StoreError::new(ErrorKind::NoSnapshot, "there is no such snapshot")
    }

    /// A different key is stored and stays.
    pub fn key_exists(what: &str) -> StoreError {
        let sentence =
            format!("another {what} already exists and stays: what it encrypted needs it");
        StoreError::new(ErrorKind::KeyExists, sentence)
    }

    /// The credential does not count.
    pub fn unauthorized(why: &'static str) -> StoreError {
        StoreError::new(
            ErrorKind::Unauthorized(why),
            "this token is revoked, expired or unknown: get a new one with `configsync-server \
             token create`, then `configsync login`",
        )
    }

    /// The push does not fit into the user's quota; both in bytes.
    pub fn over_quota(used: u64, allowed: u64) -> StoreError {
        let sentence = format!(
            "this does not fit: {used} of {allowed} bytes are used; ask the operator to prune old \
             snapshots or to raise the quota"
        );
        StoreError::new(ErrorKind::QuotaExceeded, sentence)
    }

    /// There would be less free disk than is kept in reserve; both in bytes.
    pub fn low_disk(free: u64, reserve: u64) -> StoreError {
        let sentence = format!(
            "the server is short of disk space: {free} bytes are free and {reserve} are kept \
             (--min-free); ask the operator to free some or to prune old snapshots"
        );
        StoreError::new(ErrorKind::LowDisk, sentence)
    }

    /// The file of a row, such as `snapshot 52`, is not what the row says.
    pub fn damaged(what: &str, reason: &str) -> StoreError {
        let sentence = format!(
            "{what} is damaged and not served ({reason}): use another one, and have the operator \
             run `configsync-server check`"
        );
        StoreError::new(ErrorKind::Damaged, sentence)
    }

    /// A lock was not to be had in time.
    pub fn busy() -> StoreError {
        StoreError::new(ErrorKind::Busy, "the database is busy; try again")
    }

    /// The data folder cannot be used as it is; the sentence says why.
    pub fn unusable(sentence: impl Into<String>) -> StoreError {
        StoreError::new(ErrorKind::Internal, sentence)
    }

    /// An I/O error while `doing` something with `path`.
    pub fn io(doing: &str, path: &Path, source: io::Error) -> StoreError {
        if is_full(&source) {
            return disk_full();
        }
        let sentence = format!("could not {doing} {}: {source}", path.display());
        StoreError::new(ErrorKind::Internal, sentence)
    }
}

/// No block is free, none for this user, or the file may not grow.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn disk_full() -> StoreError {
    StoreError::new(ErrorKind::DiskFull, "the disk is full: free some space and try again")
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode::{
            DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase, SystemIoFailure,
        };
        let kind = match error.sqlite_error_code() {
            Some(DiskFull) => return disk_full(),
            // SQLite knows ENOSPC of a write alone. The system's number is still the one that it
            // met: what it did since then went well.
            Some(SystemIoFailure) if is_full(&io::Error::last_os_error()) => return disk_full(),
            Some(DatabaseBusy | DatabaseLocked) => return StoreError::busy(),
            Some(DatabaseCorrupt | NotADatabase) => ErrorKind::Corrupt,
            _ => ErrorKind::Internal,
        };
        let sentence = format!(
            "the database failed: {error}; if that stays, stop the server, run \
             `configsync-server check`, and restore a backup if it reports damage"
        );
        StoreError::new(kind, sentence)
    }
}

impl From<getrandom::Error> for StoreError {
    fn from(error: getrandom::Error) -> StoreError {
        StoreError::new(ErrorKind::Internal, format!("could not draw random bytes: {error}"))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for StoreError {}
