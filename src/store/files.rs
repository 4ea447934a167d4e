//! Snapshot files: how one is written, put into its place, verified and taken away.
//!
//! The order of every push is bytes → fsync → rename → fsync of the folder → commit. Each step
//! must be on disk before the next begins, so that after a crash at any moment a committed row
//! always finds its whole file.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};

use super::blobs::Blob;
use super::error::{Result, StoreError};
use super::folder::{Folder, make_dir, parent, sync_dir};
use crate::util::limits::{
    PIECE_BYTES, VERIFIED_AGE_NS, VERIFIED_FILES_MAX, VERIFIED_S, WRITEBACK_BYTES,
};
use crate::util::sync::lock;
use crate::util::types::{Digest, RandomId};

/// A body on its way into `tmp/`, hashed as it is written. Unless it is placed, the file goes
/// when this value goes, also in a panic.
pub struct Upload {
    file: File,
    path: PathBuf,
    name: RandomId,
    hash: Sha256,
    len: u64,
    written_back: u64,
    /// Bytes that all uploads under way have written.
    under_way: Arc<AtomicU64>,
}

impl Upload {
    /// Makes an empty file of a random name, mode 0600.
    pub fn create(folder: &Folder, under_way: &Arc<AtomicU64>) -> Result<Upload> {
        let name = RandomId::draw()?;
        let path = folder.tmp().join(name.to_string());
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| StoreError::io("create", &path, e))?;
        let hash = Sha256::new();
        let under_way = Arc::clone(under_way);
        Ok(Upload { file, path, name, hash, len: 0, written_back: 0, under_way })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| StoreError::io("write", &self.path, e))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        self.under_way.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if self.len - self.written_back >= WRITEBACK_BYTES {
            // Dropping the pages makes the kernel write them now, so that the fsync at the end
            // finds little to do. A hint only: its failure changes nothing.
            let _ = fadvise(&self.file, self.written_back, None, Advice::DontNeed);
            self.written_back = self.len;
        }
        Ok(())
    }

    /// True before the first byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Digest of the bytes written so far.
    pub fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }

    /// Makes the bytes durable and puts them into their place. The caller commits a row that
    /// names the file, or unlinks it.
    ///
    /// If a sync fails the push fails: after a failed fsync the kernel may have dropped the
    /// dirty pages, so a second one would succeed and mean nothing.
    pub fn place(self, folder: &Folder) -> Result<Blob> {
        self.file.sync_all().map_err(|e| StoreError::io("sync", &self.path, e))?;
        let target = folder.snapshot(self.name);
        let parent = parent(&target);
        // A new sub-folder is only there after a crash once its own parent was synced.
        if !parent.is_dir() {
            make_dir(parent)?;
        }
        fs::rename(&self.path, &target).map_err(|e| StoreError::io("rename", &self.path, e))?;
        if let Err(error) = sync_dir(parent) {
            // No row names it yet, and none will: this is the one safe moment to take it back.
            let _ = fs::remove_file(&target);
            return Err(error);
        }
        Ok(Blob { file: self.name, size: self.len, digest: self.digest() })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.under_way.fetch_sub(self.len, Ordering::Relaxed);
        // Once placed it has left this path.
        let _ = fs::remove_file(&self.path);
    }
}

/// Why a file cannot be served, in the words that `check` and the log use.
pub fn reason(flaw: &io::Error) -> String {
    match flaw.kind() {
        io::ErrorKind::NotFound => "its file is missing".into(),
        io::ErrorKind::InvalidData => flaw.to_string(),
        _ => format!("its file cannot be read: {flaw}"),
    }
}

/// The flaw of a file that is not what its row says.
pub fn differs(how: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, how.into())
}

/// Opens a file after its length and SHA-256 were compared with what its row says.
pub fn open_verified(folder: &Folder, blob: Blob, memo: Option<&Memo>) -> io::Result<File> {
    let path = folder.snapshot(blob.file);
    let mut file = File::open(&path)?;
    let metadata = file.metadata()?;
    if metadata.len() != blob.size {
        return Err(differs(format!("its file has {} of {} bytes", metadata.len(), blob.size)));
    }
    let state = FileState::of(&metadata);
    if memo.is_some_and(|memo| memo.knows(&path, &state)) {
        return Ok(file);
    }
    if hash_pieces(&mut file, |_| true)?.1 != blob.digest {
        return Err(differs("its SHA-256 differs"));
    }
    file.rewind()?;
    if let Some(memo) = memo {
        memo.remember(path, state);
    }
    Ok(file)
}

/// Length and SHA-256 of what is read from a file, each piece handed to `take` until that says
/// no.
pub fn hash_pieces(
    file: &mut File, mut take: impl FnMut(&[u8]) -> bool,
) -> io::Result<(u64, Digest)> {
    let (mut hash, mut len) = (Sha256::new(), 0);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let n = file.read(&mut piece)?;
        let piece = piece.get(..n).unwrap_or_default();
        if n == 0 || !take(piece) {
            return Ok((len, Digest(hash.finalize().into())));
        }
        hash.update(piece);
        len += n as u64;
    }
}

/// Remembers which files were verified, so that a pull of the same file within the hour need not
/// hash it again. Any change of the file changes its ctime, which no program can set back.
#[derive(Default)]
pub struct Memo {
    verified: Mutex<HashMap<PathBuf, (FileState, Instant)>>,
}

#[derive(PartialEq, Eq, Clone)]
struct FileState {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(metadata: &fs::Metadata) -> FileState {
        FileState {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// A file changed a moment ago may change again within the same tick of its times.
    fn settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = i128::from(self.changed.0) * 1_000_000_000 + i128::from(self.changed.1);
        i128::try_from(now.as_nanos()).is_ok_and(|now| now - changed >= VERIFIED_AGE_NS)
    }
}

impl Memo {
    fn knows(&self, path: &Path, state: &FileState) -> bool {
        lock(&self.verified).get(path).is_some_and(|(known, at)| {
            known == state && at.elapsed() < Duration::from_secs(VERIFIED_S)
        })
    }

    fn remember(&self, path: PathBuf, state: FileState) {
        if !state.settled() {
            return;
        }
        let mut verified = lock(&self.verified);
        if verified.len() >= VERIFIED_FILES_MAX {
            verified.clear();
        }
        verified.insert(path, (state, Instant::now()));
    }
}
