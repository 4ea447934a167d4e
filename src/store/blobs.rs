//! The one way of a file into the store and out of it, for snapshots and for versions of
//! entities.

use std::fs::{self, File};
use std::io;

use rusqlite::Transaction;

use super::db::query_scalar;
use super::error::{ErrorKind, Result, StoreError};
use super::files::{Upload, open_verified, reason};
use super::{Store, User};
use crate::util::types::{Digest, RandomId};

/// A file as its row names it.
#[derive(Debug, Clone, Copy)]
pub struct Blob {
    /// Its name.
    pub file: RandomId,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub digest: Digest,
}

impl Blob {
    /// From the columns file, size_bytes and sha256 that begin at `first`.
    pub(super) fn from_row(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Blob> {
        let file: String = row.get(first)?;
        Ok(Blob {
            // A name that is none finds no file: reported as missing, never served.
            file: RandomId::parse(&file).unwrap_or(RandomId(0)),
            size: row.get(first + 1)?,
            digest: Digest(row.get(first + 2)?),
        })
    }
}

impl Store {
    /// Makes an upload durable, then runs the transaction that names it. `work` says whether it
    /// did; if not, or if it failed, the file goes again.
    pub(super) fn store_blob<T>(
        &self, user: &User, upload: Upload,
        work: impl FnOnce(&Transaction<'_>, Blob) -> Result<(T, bool)>,
    ) -> Result<(T, bool)> {
        let blob = upload.place(&self.folder)?;
        // Whether a row that names the file went into COMMIT.
        let mut named = false;
        let done = self.write_as(user, |tx| {
            let done = work(tx, blob)?;
            named = done.1;
            Ok(done)
        });
        // If that failed, the file is known to be nobody's only where SQLite says that nothing was
        // committed, and a fresh read agrees; else the next start decides.
        let undone =
            done.as_ref().is_err_and(|e| matches!(e.kind, ErrorKind::DiskFull | ErrorKind::Busy))
                && matches!(self.has_row(blob.file), Ok(false));
        if !named || undone {
            let _ = fs::remove_file(self.folder.snapshot(blob.file));
        }
        done
    }

    /// Opens a file after its digest was compared; `what` names its row if it is damaged.
    pub(super) fn open_blob(&self, blob: Blob, what: impl Fn() -> String) -> Result<File> {
        open_verified(&self.folder, blob, Some(&self.memo)).map_err(|flaw| {
            // Its row is gone since it was read: pruned, not damaged.
            if flaw.kind() == io::ErrorKind::NotFound
                && matches!(self.has_row(blob.file), Ok(false))
            {
                return StoreError::missing("snapshot");
            }
            StoreError::damaged(&what(), &reason(&flaw))
        })
    }

    /// True if a row names this file.
    pub(super) fn has_row(&self, file: RandomId) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM stored_files WHERE file = ?1)";
        self.db.read(|c| query_scalar(c, sql, [file.to_string()]))
    }
}
