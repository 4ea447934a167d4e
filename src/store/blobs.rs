//! Stored files of snapshots and of entity versions, and their verification before they are served.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::Store;
use super::data_dir::{DataDir, SNAPSHOTS};
use super::db::{query_opt, query_rows, query_scalar};
use super::dir::Dir;
use super::error::{Result, StoreError};
use crate::util::limits::{PIECE_BYTES, VERIFIED_AGE_S, VERIFIED_FILES_MAX, VERIFIED_S};
use crate::util::log;
use crate::util::sync::lock;
use crate::util::time::now_ms;
use crate::util::types::{Digest, RandomId};

/// A stored file, as its row describes it.
#[derive(Debug, Clone, Copy)]
pub struct Blob {
    pub file: RandomId,
    pub size: u64,
    pub digest: Digest,
}

impl Blob {
    /// Reads the columns file, size_bytes and sha256, beginning at column `first`.
    pub(super) fn from_row(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Blob> {
        let file: String = row.get(first)?;
        Ok(Blob {
            // An invalid name becomes an id without a file: reported as missing, never served.
            file: RandomId::parse(&file).unwrap_or(RandomId(0)),
            size: row.get(first + 1)?,
            digest: Digest(row.get(first + 2)?),
        })
    }
}

impl Store {
    /// Opens a file after verifying its digest. On failure, returns `missing` if its row was
    /// deleted since it was read: that is a prune, not damage.
    pub(super) fn open_blob(&self, blob: Blob, missing: StoreError) -> Result<File> {
        open_verified(&self.data, blob, Some(&self.verified)).or_else(|corruption| {
            let sql = "SELECT what FROM stored_files WHERE file = ?1";
            let file = [blob.file.to_string()];
            let what = self.db.read(|c| query_opt(c, sql, file, |row| row.get::<_, String>(0)))?;
            let Some(what) = what else { return Err(missing) };
            let mut why = reason(&corruption);
            if !matches!(corruption.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) {
                // The system's words are for the log alone.
                log::error(&format!("{what}: {why}"));
                why = "its file cannot be read".into();
            }
            Err(StoreError::damaged(&what, &why))
        })
    }

    /// Calls `work` for each entry of `snapshots/` that no row names, with its sub-folder, its name
    /// and its path below the data folder. A file that waits in `deleted_files` to be unlinked
    /// counts as named, since it is expected.
    pub(super) fn each_unreferenced(
        &self, mut work: impl FnMut(&Dir, &str, String) -> Result<()>,
    ) -> Result<()> {
        // Selects all names that begin with the sub-folder's name: a file in the wrong sub-folder
        // is unreferenced, since its row leads elsewhere.
        let sql = "SELECT file FROM stored_files WHERE file BETWEEN ?1 AND ?1 || 'g'
                   UNION ALL SELECT file FROM deleted_files WHERE file BETWEEN ?1 AND ?1 || 'g'";
        self.data.each_shard(|shard_name, shard, names| {
            // Queried after the folder is listed, so that a row committed in between counts.
            let known = self.db.read(|c| query_rows(c, sql, [shard_name], |row| row.get(0)))?;
            let known: HashSet<String> = known.into_iter().collect();
            for name in names.iter().filter(|name| !known.contains(*name)) {
                work(shard, name, format!("{SNAPSHOTS}/{shard_name}/{name}"))?;
            }
            Ok(())
        })
    }

    /// True if a row names this file.
    pub(super) fn has_row(&self, file: RandomId) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM stored_files WHERE file = ?1)";
        self.db.read(|c| query_scalar(c, sql, [file.to_string()]))
    }
}

/// Why a file cannot be served, in the words that `check` and the log use.
pub fn reason(corruption: &io::Error) -> String {
    match corruption.kind() {
        ErrorKind::NotFound => "its file is missing".into(),
        ErrorKind::InvalidData => corruption.to_string(),
        _ => format!("its file cannot be read: {corruption}"),
    }
}

/// The error for a file that does not match its row.
fn differs(how: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, how.into())
}

/// Opens a file after comparing its length and SHA-256 with its row. A file that `verified` holds
/// is not hashed again.
pub fn open_verified(
    data: &DataDir, blob: Blob, verified: Option<&VerifiedCache>,
) -> io::Result<File> {
    let mut file = data.open_stored(blob.file)?;
    let metadata = file.metadata()?;
    if metadata.len() != blob.size {
        return Err(differs(format!("its file has {} of {} bytes", metadata.len(), blob.size)));
    }
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    let state = FileState { file: blob.file, inode: metadata.ino(), changed };
    if verified.is_some_and(|verified| verified.contains(&state)) {
        return Ok(file);
    }
    let (mut hash, mut piece) = (Sha256::new(), Vec::with_capacity(PIECE_BYTES));
    while file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)? > 0 {
        hash.update(&piece);
        piece.clear();
    }
    if Digest(hash.finalize().into()) != blob.digest {
        return Err(differs("its SHA-256 differs"));
    }
    file.rewind()?;
    if let Some(verified) = verified {
        verified.insert(state);
    }
    Ok(file)
}

/// Remembers when files were verified, so that a pull of the same file within the hour does not
/// hash it again.
#[derive(Default)]
pub struct VerifiedCache(Mutex<HashMap<FileState, Instant>>);

/// The identity of a verified file. Any change to the file changes its ctime, which no program can
/// set back.
#[derive(PartialEq, Eq, Hash)]
struct FileState {
    file: RandomId,
    inode: u64,
    /// ctime: seconds and nanoseconds since 1970.
    changed: (i64, i64),
}

impl VerifiedCache {
    fn contains(&self, state: &FileState) -> bool {
        let verified = lock(&self.0).get(state).copied();
        verified.is_some_and(|at| at.elapsed() < Duration::from_secs(VERIFIED_S))
    }

    fn insert(&self, state: FileState) {
        // A file that changed a moment ago may change again within the same tick of its timestamps.
        if now_ms() / 1000 - state.changed.0 < VERIFIED_AGE_S {
            return;
        }
        let mut verified = lock(&self.0);
        if verified.len() >= VERIFIED_FILES_MAX {
            verified.clear();
        }
        verified.insert(state, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_as_verified_is_bounded_and_ends() {
        let cache = VerifiedCache::default();
        let state = |file: usize, changed_s| FileState {
            file: RandomId(file as u128),
            inode: 1,
            changed: (changed_s, 0),
        };
        for n in 0..=VERIFIED_FILES_MAX {
            cache.insert(state(n, 0));
        }
        assert!(lock(&cache.0).len() <= VERIFIED_FILES_MAX);
        let last = || state(VERIFIED_FILES_MAX, 0);
        assert!(cache.contains(&last()) && !cache.contains(&state(VERIFIED_FILES_MAX, 1)));
        // A file that changed a moment ago is not remembered.
        let young = || state(usize::MAX, now_ms() / 1000);
        cache.insert(young());
        assert!(!cache.contains(&young()));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(VERIFIED_S)).unwrap();
        lock(&cache.0).insert(last(), long_ago);
        assert!(!cache.contains(&last()));
    }
}
