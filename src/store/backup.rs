//! Copies a data folder, verified, while its server works: a backup, and back again. What is
//! copied is a data folder itself.
//!
//! The database goes first, then the files that the copy names: they never change, and while
//! `backup.lock` is held none of them vanishes. All is written beside the destination and takes
//! its name in one rename, so that an unfinished copy is never mistaken for a whole one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::audit::Event;
use super::check::Expected;
use super::db::{utf8, vacuum_into};
use super::error::{Result, StoreError};
use super::files::{Flaw, hash_pieces, open_verified};
use super::folder::{Folder, make_dir, parent, private_file, sync_dir};
use super::{Progress, Store};
use crate::log;

/// How to copy.
pub struct Plan<'a> {
    /// The new folder.
    pub dest: &'a Path,
    /// Link the folder's own files instead of copying them, where the file system can.
    pub hard_link: bool,
    /// An older backup whose unchanged files are linked instead of copied.
    pub older: Option<&'a Path>,
}

/// What was copied.
#[derive(Debug, Default)]
pub struct Copied {
    /// Files in the copy.
    pub files: u64,
    /// Those of them that are links.
    pub linked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the source could not serve, with the reason: left out.
    pub damaged: Vec<(String, String)>,
    /// An unfinished copy of an earlier run was in the way and is gone.
    pub leftover: bool,
}

impl Store {
    /// Makes a backup while a server may write and prune.
    pub fn backup(&self, plan: &Plan<'_>, progress: Progress<'_>) -> Result<Copied> {
        let _lock = self.folder.lock_for_backup()?;
        let database = |path: &Path| self.db.read(|c| vacuum_into(c, path));
        let copied = copy(&self.folder, database, plan, progress)?;
        if let Err(error) = self.write(|tx| Event::new("backup", "ok").write(tx)) {
            log::warn(&format!("the backup is whole; its audit row was not written: {error}"));
        }
        Ok(copied)
    }
}

/// Copies a backup to the place of a new data folder. The backup is only read.
pub fn restore(from: &Path, dest: &Path, progress: Progress<'_>) -> Result<Copied> {
    let from = Folder::existing(from)?;
    let database = |path: &Path| {
        // Without a WAL nobody writes it: `immutable` needs no lock files, which a read-only
        // medium could not take.
        let source = from.database();
        let wal = source.with_extension("db-wal").exists();
        let uri = format!("file:{}?immutable={}", escaped(&source)?, u8::from(!wal));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        vacuum_into(&Connection::open_with_flags(uri, flags)?, path)
    };
    copy(&from, database, &Plan { dest, hard_link: false, older: None }, progress)
}

/// The path inside a URI of SQLite.
fn escaped(path: &Path) -> Result<String> {
    Ok(utf8(path)?.replace('%', "%25").replace('?', "%3f").replace('#', "%23"))
}

fn copy(
    from: &Folder, database: impl FnOnce(&Path) -> Result<()>, plan: &Plan<'_>,
    progress: Progress<'_>,
) -> Result<Copied> {
    let dest = plan.dest;
    refuse_destination(from, dest)?;
    let mut name = dest.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let leftover = partial.exists();
    let lock = begin(&partial)?;
    let done = fill(from, database, plan, &partial, progress).and_then(|copied| {
        let end = |doing, e: io::Error| StoreError::io(doing, &partial, e);
        let folder = File::open(&partial).map_err(|e| end("open", e))?;
        // One call for all files: a sync of each would wait for the disk a thousand times.
        rustix::fs::syncfs(&folder).map_err(|e| end("sync", e.into()))?;
        fs::rename(&partial, dest).map_err(|e| end("rename", e))?;
        sync_dir(parent(dest))?;
        Ok(Copied { leftover, ..copied })
    });
    drop(lock);
    if done.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    done
}

/// A destination must be new (or an empty folder), and not inside of what is copied.
fn refuse_destination(from: &Folder, dest: &Path) -> Result<()> {
    let empty = || fs::read_dir(dest).is_ok_and(|mut entries| entries.next().is_none());
    if dest.symlink_metadata().is_ok() && !empty() {
        let why = format!("{} exists and is not an empty folder: name a new one", dest.display());
        return Err(StoreError::Unusable(why));
    }
    let real = |path: &Path| path.canonicalize().map_err(|e| StoreError::io("look at", path, e));
    if real(parent(dest))?.starts_with(real(from.root())?) {
        let why = format!("{} is inside {}: name another", dest.display(), from.root().display());
        return Err(StoreError::Unusable(why));
    }
    Ok(())
}

/// Makes the folder to fill, in place of what a copy that was cut off left there.
fn begin(partial: &Path) -> Result<File> {
    if partial.exists() {
        let lock = Folder::at(partial).lock_server();
        if matches!(lock, Err(StoreError::Locked(_))) {
            let why = format!("another copy is being written to {}", partial.display());
            return Err(StoreError::Unusable(why));
        }
        fs::remove_dir_all(partial).map_err(|e| StoreError::io("remove", partial, e))?;
    }
    make_dir(partial)?;
    Folder::at(partial).lock_server()
}

fn fill(
    from: &Folder, database: impl FnOnce(&Path) -> Result<()>, plan: &Plan<'_>, partial: &Path,
    progress: Progress<'_>,
) -> Result<Copied> {
    let to = Folder::at(partial);
    database(&to.database())?;
    if from.jwt_key().is_file() {
        let key =
            fs::read(from.jwt_key()).map_err(|e| StoreError::io("read", &from.jwt_key(), e))?;
        let written = private_file(&to.jwt_key())?.write_all(&key);
        written.map_err(|e| StoreError::io("write", &to.jwt_key(), e))?;
    }
    make_dir(&to.snapshots())?;
    let copy = Store::open(partial)?;
    let mut copied = Copied::default();
    copy.each_row(|row| {
        let path = to.snapshot(row.blob.file);
        make_dir(path.parent().unwrap_or(partial))?;
        match transfer(from, plan, &row, &path)? {
            Ok(linked) => {
                copied.files += 1;
                copied.linked += u64::from(linked);
                copied.bytes = copied.bytes.saturating_add(row.blob.size);
            }
            Err(flaw) => copied.damaged.push((row.what, flaw.reason())),
        }
        progress(copied.files, copied.bytes);
        Ok(())
    })?;
    Ok(copied)
}

/// Links or copies one file; says whether it is a link, or why the source is no good.
fn transfer(
    from: &Folder, plan: &Plan<'_>, row: &Expected, to: &Path,
) -> Result<std::result::Result<bool, Flaw>> {
    let blob = row.blob;
    let source = from.snapshot(blob.file);
    let older = plan.older.map(|older| Folder::at(older).snapshot(blob.file));
    for link in older.iter().chain(plan.hard_link.then_some(&source)) {
        let good = open_verified(link, blob.size, blob.digest, None).is_ok();
        if good && fs::hard_link(link, to).is_ok() {
            return Ok(Ok(true));
        }
    }
    let mut file = match File::open(&source) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Err(Flaw::Missing)),
        Err(e) => return Ok(Err(Flaw::Unreadable(e))),
    };
    let failed = |e| StoreError::io("write", to, e);
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut out = new.map_err(failed)?;
    let mut written = Ok(());
    let read = hash_pieces(&mut file, |piece| {
        written = out.write_all(piece);
        written.is_ok()
    });
    written.map_err(failed)?;
    let flaw = match read {
        Ok(found) if found == (blob.size, blob.digest) => return Ok(Ok(false)),
        Ok(_) => Flaw::Differs("its length or SHA-256 differs".into()),
        Err(error) => Flaw::Unreadable(error),
    };
    fs::remove_file(to).map_err(failed)?;
    Ok(Err(flaw))
}
