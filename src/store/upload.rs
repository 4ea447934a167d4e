//! Uploads: bytes into `tmp/`, the file to its final place, then its row.
//!
//! Every push runs in the order bytes → fsync → rename → fsync of the folder → commit. Each step is
//! on disk before the next begins, so that after a crash at any moment a committed row always has
//! its whole file. The commit itself is synced by SQLite (`synchronous` in `db.rs`). With `--keep`,
//! files of deleted rows are unlinked after it, before the response.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use rusqlite::Transaction;
use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};

use super::audit::Event;
use super::blobs::Blob;
use super::data_dir::DataDir;
use super::error::{ErrorKind, Result, StoreError};
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
    /// Disk space that is reserved for this upload and not yet written, among that of all uploads
    /// and among that of its user.
    promised: [Share; 2],
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
        let min_free = self.policy.free_bytes_min;
        let kept = if may_be_retry { min_free.min(RETRY_FREE_BYTES_MIN) } else { min_free };
        let free = self.free_bytes()?;
        let available = free.saturating_sub(kept);
        if bytes_max > available {
            return Err(StoreError::low_disk(free, min_free));
        }
        // A slow client holds its reservation for hours: several of one user's get half at most.
        let mut of_user = Share::of(lock(&self.promised_to_users).entry(user_id).or_default());
        let own = "with your other uploads in progress this one would reserve more than half of \
                   the free space; try again when they end";
        of_user
            .grow(bytes_max, (available / 2).max(bytes_max))
            .map_err(|_| StoreError::new(ErrorKind::Busy, own))?;
        let mut of_all = Share::of(&self.promised);
        of_all
            .grow(bytes_max, available)
            .map_err(|others| StoreError::low_disk(free.saturating_sub(others), min_free))?;
        let name = RandomId::draw()?;
        let file = self.data.tmp()?.create(&name.to_string())?;
        let data = Arc::clone(&self.data);
        let promised = [of_all, of_user];
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
            let kind = self.db.failure().unwrap_or(ErrorKind::Internal);
            let sentence = "no push is taken until the database can be written again";
            return Err(StoreError::new(kind, sentence));
        }
        let done = upload.move_into_place().and_then(|blob| {
            let committed = self.write_as_user(user, |tx| work(tx, blob));
            let may_have_row = || !matches!(self.has_row(blob.file), Ok(false));
            match &committed {
                Ok((_, true)) => {}
                // The row is there in spite of the error, or recovery from a crash may find it in
                // the WAL.
                Err(error) if error.in_doubt || may_have_row() => {
                    lock(&self.in_doubt).push(blob.file);
                }
                Ok((_, false)) | Err(_) => self.unlink_placed(blob.file),
            }
            committed
        });
        done.inspect_err(|error| self.audit_refusal(event, error))
    }

    /// Unlinks a placed file that has no row. If that fails, the next start moves it aside.
    pub(super) fn unlink_placed(&self, file: RandomId) {
        if let Err(error) = self.unlink_stored(file) {
            log::warn(&format!("a file without a row stays until the next start: {error}"));
        }
    }
}

impl Upload {
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).or_else(|e| Err(self.data.tmp()?.error("write", "", e)))?;
        self.hash.update(bytes);
        let part = self.len / WRITEBACK_BYTES;
        self.len += bytes.len() as u64;
        self.promised.iter_mut().for_each(|share| share.shrink(bytes.len() as u64));
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
    pub fn move_into_place(self) -> Result<Blob> {
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
    use crate::store::Policy;
    use std::sync::atomic::Ordering;

    #[test]
    fn uploads_that_each_fit_are_refused_where_they_do_not_fit_together() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::start(scratch.path(), Policy::default()).unwrap();
        for email in ["a@example.com", "b@example.com"] {
            store.add_user(&email.to_owned().try_into().unwrap(), None).unwrap();
        }
        let most = store.free_bytes().unwrap() / 4 * 3;
        let mut first = store.upload(1, most, false).unwrap();
        for may_be_retry in [false, true] {
            let refused = store.upload(2, most, may_be_retry).err().unwrap();
            assert_eq!(refused.kind, ErrorKind::LowDisk);
        }
        // Written bytes are on the disk and no longer reserved.
        first.append(&[7; 1000]).unwrap();
        assert_eq!(store.promised.load(Ordering::Relaxed), most - 1000);
        drop(first);
        assert!(store.upload(1, most, false).is_ok());
        assert_eq!(store.promised.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn several_uploads_of_one_user_reserve_half_of_the_space_at_most() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::start(scratch.path(), Policy::default()).unwrap();
        for email in ["a@example.com", "b@example.com"] {
            store.add_user(&email.to_owned().try_into().unwrap(), None).unwrap();
        }
        let part = store.free_bytes().unwrap() / 5;
        let mut held = [store.upload(1, part, true).unwrap(), store.upload(1, part, true).unwrap()];
        held[0].append(&[7; 1000]).unwrap();
        let of_user = Arc::clone(&lock(&store.promised_to_users)[&1]);
        assert_eq!(of_user.load(Ordering::Relaxed), 2 * part - 1000);
        assert_eq!(store.upload(1, part, true).err().unwrap().kind, ErrorKind::Busy);
        let other = store.upload(2, part, true).unwrap();
        drop(held);
        assert!(store.upload(1, part, true).is_ok());
        drop(other);
    }
}
