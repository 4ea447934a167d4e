//! The error type of the store: a kind, which `app::error` maps to a status, and a sentence for the
//! operator and, where it concerns the client, for the client too.

use std::fmt;
use std::io;
use std::path::Path;

pub type Result<T> = std::result::Result<T, StoreError>;

/// The kind of a failure, which is all that a caller may branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such row; another user's row counts as missing.
    NotFound,
    /// No such snapshot.
    NoSnapshot,
    /// The machine was never registered, or is hidden.
    MachineNotRegistered,
    /// The name is taken.
    Exists,
    /// A different key is stored and is not replaced.
    KeyExists,
    /// The condition of a push does not hold.
    PreconditionFailed,
    /// The request exceeds what the user may store.
    QuotaExceeded,
    /// The disk is full.
    DiskFull,
    /// Free disk space is down to the reserve.
    LowDisk,
    /// The credential is not valid, or no longer. The reason is for the log alone; the client gets
    /// the same message for each: `unknown` (also if the user was removed), `expired`, `revoked`
    /// (also if issued before the last password change) or `disabled`.
    Unauthorized(&'static str),
    /// A stored file is missing or does not match its digest.
    Damaged,
    /// A lock was not available in time.
    Busy,
    /// The database is damaged.
    Corrupt,
    /// SQLite, the file system or the random source failed, or the data folder cannot be used as it
    /// is.
    Internal,
}

#[derive(Debug)]
pub struct StoreError {
    pub kind: ErrorKind,
    /// COMMIT failed, but not before its last byte was written: after a crash the rows may or may
    /// not be there.
    pub in_doubt: bool,
    pub(super) sentence: String,
}

impl StoreError {
    pub fn new(kind: ErrorKind, sentence: impl Into<String>) -> StoreError {
        StoreError { kind, in_doubt: false, sentence: sentence.into() }
    }

    /// NotFound; `what` names the kind of row.
    pub fn missing(what: &str) -> StoreError {
        StoreError::new(ErrorKind::NotFound, format!("there is no such {what}"))
    }

    pub fn no_snapshot() -> StoreError {
        StoreError::new(ErrorKind::NoSnapshot, "there is no such snapshot")
    }

    pub fn key_exists(what: &str) -> StoreError {
        let sentence =
            format!("another {what} already exists and stays: what it encrypted needs it");
        StoreError::new(ErrorKind::KeyExists, sentence)
    }

    /// `why` is one of the reasons of [`ErrorKind::Unauthorized`].
    pub fn unauthorized(why: &'static str) -> StoreError {
        StoreError::new(
            ErrorKind::Unauthorized(why),
            "this token is revoked, expired or unknown: get a new one with `configsync-server \
             token create`, then `configsync login`",
        )
    }

    /// The push does not fit into the user's quota; both arguments are in bytes.
    pub fn over_quota(used: u64, allowed: u64) -> StoreError {
        let sentence = format!(
            "this does not fit: {used} of {allowed} bytes are used; ask the operator to raise the \
             quota or to prune old snapshots"
        );
        StoreError::new(ErrorKind::QuotaExceeded, sentence)
    }

    /// Less disk space would be free than the reserve; both arguments are in bytes.
    pub fn low_disk(free: u64, reserve: u64) -> StoreError {
        let sentence = format!(
            "the server is short of disk space: {free} bytes are free and {reserve} are kept \
             (--min-free); ask the operator to free some or to prune old snapshots"
        );
        StoreError::new(ErrorKind::LowDisk, sentence)
    }

    /// The file of a row, such as `snapshot 52`, does not match the row.
    pub fn damaged(what: &str, reason: &str) -> StoreError {
        let sentence = format!(
            "{what} is damaged and not served ({reason}): use another one, and have the operator \
             run `configsync-server check`"
        );
        StoreError::new(ErrorKind::Damaged, sentence)
    }

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

/// True if no block is free, the user's disk quota is used up, or the file may not grow.
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
            // SQLite reports ENOSPC as DiskFull for writes alone. For other calls errno still holds
            // the cause, since the system calls after it succeeded.
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
