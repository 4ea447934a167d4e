//! Uploads: bytes into `tmp/`, the file to its final place, then its row.
//!
//! Every push runs in the order bytes → fsync → rename → fsync of the folder → commit. Each step is
//! on disk before the next begins, so that after a crash at any moment a committed row always has
//! its whole file.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use rusqlite::Transaction;
use rustix::fs::{Advice, fadvise};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::audit::Event;
use super::blobs::Blob;
use super::data_dir::DataDir;
use super::error::{Result, StoreError};
use super::status::{Fact, insert_fact};
use super::{Store, User};
use crate::util::limits::{IN_DOUBT_MAX, RETRY_FREE_BYTES_MIN, WRITEBACK_BYTES};
use crate::util::log;
use crate::util::sync::{Share, lock};
use crate::util::types::{Digest, RandomId};

/// A file in `tmp/`, hashed as it is written. Drop removes it unless it was placed, also while a
/// panic unwinds.
pub struct Upload {
    data: Arc<DataDir>,
    file: File,
    name: RandomId,
    hash: Sha256,
    len: u64,
    /// Disk space that is reserved for this upload and not yet written.
    promised: Share,
}

impl Store {
    /// Begins an upload of at most `bytes_max` bytes, or fails if there is no room for it. Uploads
    /// in progress reserve their disk space, since several that each fit alone could overfill the
    /// disk together. If an upload may be a retry of the newest snapshot, which stores nothing, the
    /// transaction decides whether it fits; one that would leave the database no room is refused
    /// here all the same.
    pub fn upload(&self, user_id: i64, bytes_max: u64, may_be_retry: bool) -> Result<Upload> {
        if !may_be_retry {
            self.db.read(|c| self.check_room(c, user_id, 1))?;
        }
        let reserve = self.policy.free_bytes_min;
        let kept = if may_be_retry { reserve.min(RETRY_FREE_BYTES_MIN) } else { reserve };
        let free = self.free_bytes()?;
        let mut promised = Share::of(&self.promised);
        promised
            .grow(bytes_max, free.saturating_sub(kept))
            .map_err(|others| StoreError::low_disk(free.saturating_sub(others), reserve))?;
        let name = RandomId::draw()?;
        let file = self.data.tmp()?.create(&name.to_string())?;
        let data = Arc::clone(&self.data);
        Ok(Upload { data, file, name, hash: Sha256::new(), len: 0, promised })
    }

    /// An unlinked temporary file, for a response too long to wait in memory.
    pub fn response_file(&self) -> Result<File> {
        let (tmp, name) = (self.data.tmp()?, RandomId::draw()?.to_string());
        let file = tmp.create(&name)?;
        tmp.unlink(&name)?;
        Ok(file)
    }

    /// Makes an upload durable, then runs the transaction that inserts its row. `work` returns
    /// false if it needed no file (a retry). In that case, or if the transaction fails, the file is
    /// unlinked, unless the commit is in doubt. If there is no room, `event` goes to the audit log
    /// as refused.
    pub(super) fn store_blob<T>(
        &self, user: &User, upload: Upload, event: Event,
        work: impl FnOnce(&Transaction<'_>, Blob) -> Result<(T, bool)>,
    ) -> Result<(T, bool)> {
        if lock(&self.in_doubt).len() >= IN_DOUBT_MAX {
            return Err(StoreError::unusable(
                "no push is taken until the database can be written again",
            ));
        }
        let done = upload.place().and_then(|blob| {
            let committed = self.write_as(user, |tx| work(tx, blob));
            let has_no_row = || matches!(self.has_row(blob.file), Ok(false));
            match &committed {
                Ok((_, true)) => {}
                // After a crash, recovery may still find its row in the WAL; or the row is there in
                // spite of the error.
                Err(error) if error.in_doubt || !has_no_row() => {
                    lock(&self.in_doubt).push(blob.file);
                }
                Ok((_, false)) | Err(_) => self.unlink_placed(blob.file),
            }
            committed
        });
        done.inspect_err(|error| self.audit_refusal(event, error))
    }

    /// Runs `work` in a transaction. When this returns Ok, the transaction is on disk.
    pub(super) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.detect_clock_jump()?;
        let in_doubt = lock(&self.in_doubt).clone();
        let value = self.db.write(|tx| {
            let value = work(tx)?;
            if !in_doubt.is_empty() {
                // Makes sure of a change: a transaction without one writes nothing to the WAL.
                insert_fact(tx, Fact::IN_DOUBT, &json!({ "files": in_doubt.len() }))?;
            }
            Ok(value)
        })?;
        // This successful commit overwrote what earlier failed ones left in the WAL, so the
        // database itself now shows whether their rows exist.
        for file in in_doubt {
            match self.has_row(file) {
                Ok(true) => {}
                Ok(false) => self.unlink_placed(file),
                Err(_) => continue,
            }
            lock(&self.in_doubt).retain(|other| *other != file);
        }
        Ok(value)
    }

    /// Unlinks a placed file that has no row. If that fails, the next start moves it aside.
    fn unlink_placed(&self, file: RandomId) {
        if let Err(error) = self.unlink_stored(file) {
            log::warn(&format!("a file without a row stays until the next start: {error}"));
        }
    }
}

impl Upload {
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).or_else(|e| Err(self.data.tmp()?.error("write", "", e)))?;
        self.hash.update(bytes);
        let part = self.len / WRITEBACK_BYTES;
        self.len += bytes.len() as u64;
        self.promised.shrink(bytes.len() as u64);
        if self.len / WRITEBACK_BYTES > part {
            // Dropping the pages makes the kernel write them now, so that the final fsync has
            // little left to do. It is only a hint, so a failure is ignored.
            let _ = fadvise(&self.file, part * WRITEBACK_BYTES, None, Advice::DontNeed);
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Digest of the bytes written so far.
    pub fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }

    /// Makes the bytes durable and renames the file to its final place. The caller commits a row
    /// that names the file, or unlinks the file.
    ///
    /// If a sync fails, the push fails: after a failed fsync the kernel may have dropped the dirty
    /// pages, so a second fsync would succeed and prove nothing.
    pub fn place(self) -> Result<Blob> {
        let (tmp, name) = (self.data.tmp()?, self.name.to_string());
        self.file.sync_all().map_err(|e| tmp.error("sync", &name, e))?;
        let shard = self.data.shard(self.name)?;
        tmp.rename(&name, &shard, &name)?;
        if let Err(error) = shard.sync() {
            // No row names the file yet, and none will, so it is safe to unlink it here.
            let _ = shard.unlink(&name);
            return Err(error);
        }
        Ok(Blob { file: self.name, size: self.len, digest: self.digest() })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // A placed file is no longer in this folder.
        if let Ok(tmp) = self.data.tmp() {
            let _ = tmp.unlink(&self.name.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ErrorKind, Policy};
    use std::sync::atomic::Ordering;

    #[test]
    fn uploads_that_each_fit_are_refused_where_they_do_not_fit_together() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::start(scratch.path(), Policy::default()).unwrap();
        let email = "a@example.com".to_owned().try_into().unwrap();
        store.add_user(&email, None).unwrap();
        let most = store.free_bytes().unwrap() / 4 * 3;
        let mut first = store.upload(1, most, false).unwrap();
        for may_be_retry in [false, true] {
            let refused = store.upload(1, most, may_be_retry).err().unwrap();
            assert_eq!(refused.kind, ErrorKind::LowDisk);
        }
        // Written bytes are on the disk and no longer reserved.
        first.write(&[7; 1000]).unwrap();
        assert_eq!(store.promised.load(Ordering::Relaxed), most - 1000);
        drop(first);
        assert!(store.upload(1, most, false).is_ok());
        assert_eq!(store.promised.load(Ordering::Relaxed), 0);
    }
}
