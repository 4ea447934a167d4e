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
use std::thread;

use rusqlite::{Connection, OpenFlags};

use super::audit::Event;
use super::blobs::Blob;
use super::check::Expected;
use super::db::{utf8, vacuum_into};
use super::error::{Result, StoreError};
use super::files::{differs, hash_pieces, open_verified, reason};
use super::folder::{Folder, list, make_dir, parent, private_file, sync_dir};
use super::{Progress, Store};
use crate::util::limits::COPIES_AT_ONCE;
use crate::util::log;

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
    /// Makes a backup in a new folder while a server may write and prune. Where the file system
    /// can, files are linked instead of copied: those that `older`, a backup too, has already, and
    /// with `hard_link` the folder's own.
    pub fn backup(
        &self, dest: &Path, older: Option<&Path>, hard_link: bool, progress: Progress<'_>,
    ) -> Result<Copied> {
        // A mistyped one would silently make a whole copy.
        let older = older.map(Folder::existing).transpose()?;
        let own = hard_link.then(|| self.folder.clone());
        let links: Vec<Folder> = older.into_iter().chain(own).collect();
        let _lock = self.folder.lock_for_backup()?;
        let database = |path: &Path| self.db.read(|c| vacuum_into(c, path));
        let copied = copy(&self.folder, database, dest, &links, false, progress)?;
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
    copy(&from, database, dest, &[], true, progress)
}

/// The path inside a URI of SQLite.
fn escaped(path: &Path) -> Result<String> {
    Ok(utf8(path)?.replace('%', "%25").replace('?', "%3f").replace('#', "%23"))
}

/// `links`: folders whose files are linked if they are good. `within`: the destination may exist
/// if it is empty.
fn copy(
    from: &Folder, database: impl FnOnce(&Path) -> Result<()>, dest: &Path, links: &[Folder],
    within: bool, progress: Progress<'_>,
) -> Result<Copied> {
    // Without a slash at its end, which a shell may have put there.
    let dest: PathBuf = dest.components().collect();
    // No server may begin anew in the folder meanwhile.
    let _held = match within && dest.is_dir() && !Folder::at(&dest).database().exists() {
        true => Some(Folder::at(&dest).lock_server()?),
        false => None,
    };
    let within = refuse_destination(from, &dest, within)?;
    let partial = if within { dest.join(PARTIAL) } else { partial_of(&dest) };
    let leftover = partial.exists();
    let lock = begin(&partial)?;
    let filled = fill(from, database, links, &partial, progress);
    drop(lock);
    let named = if filled.is_ok() { finish(&partial, &dest, within) } else { Ok(()) };
    // In a folder that is half filled it stays: it tells the next restore that nothing is whole.
    if filled.is_err() || named.is_err() && !within {
        let _ = fs::remove_dir_all(&partial);
    }
    named?;
    Ok(Copied { leftover, ..filled? })
}

/// Where a copy to this place stands until it is whole.
pub fn partial_of(dest: &Path) -> PathBuf {
    let mut name = dest.as_os_str().to_owned();
    name.push(PARTIAL);
    name.into()
}

/// The end of the name of what is not whole.
const PARTIAL: &str = ".partial";

/// Gives the copy its name, once it is on disk.
fn finish(partial: &Path, dest: &Path, within: bool) -> Result<()> {
    let end = |doing, e: io::Error| StoreError::io(doing, partial, e);
    let folder = File::open(partial).map_err(|e| end("open", e))?;
    // One call for all files: a sync of each would wait for the disk a thousand times.
    rustix::fs::syncfs(&folder).map_err(|e| end("sync", e.into()))?;
    if !within {
        fs::rename(partial, dest).map_err(|e| end("rename", e))?;
        return sync_dir(parent(dest));
    }
    // A folder that is there, perhaps the root of a volume: without its database, which comes last,
    // it is no data folder yet, and with `server.lock` still in the partial one it is known to be
    // unfinished.
    let database = Folder::at(partial).database();
    let mut entries = list(partial)?;
    entries.retain(|path| !path.ends_with("server.lock"));
    entries.sort_by_key(|path| *path == database);
    for path in entries {
        let to = dest.join(path.file_name().unwrap_or_default());
        if to.is_dir() {
            fs::remove_dir_all(&to).map_err(|e| StoreError::io("remove", &to, e))?;
        }
        sync_dir(dest)?;
        fs::rename(&path, &to).map_err(|e| end("rename", e))?;
    }
    sync_dir(dest)?;
    fs::remove_dir_all(partial).map_err(|e| end("remove", e))
}

/// A destination must be new, or, where `within` allows it, a folder with nothing in it but what an
/// unfinished copy left or a volume brings along; and it must not be inside of what is copied. True
/// if it is to be filled as it is.
pub fn refuse_destination(from: &Folder, dest: &Path, within: bool) -> Result<bool> {
    let exists = dest.symlink_metadata().is_ok();
    let unfinished = dest.join(PARTIAL).join("server.lock").exists();
    let may_be = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let of_copy = [PARTIAL, "snapshots", "jwt.key", "upgrade.lock"].contains(&&*name)
            || name.starts_with("configsync.db.before-");
        matches!(&*name, "lost+found" | "server.lock") || unfinished && of_copy
    };
    if exists && !(within && list(dest).is_ok_and(|entries| entries.iter().all(may_be))) {
        let only = if within { " and is not an empty folder" } else { "" };
        let why = format!("{} exists{only}: name a new one", dest.display());
        return Err(StoreError::unusable(why));
    }
    let real = |path: &Path| path.canonicalize().map_err(|e| StoreError::io("look at", path, e));
    let outer = if exists { dest } else { parent(dest) };
    if real(outer)?.starts_with(real(from.root())?) {
        let why = format!("{} is inside {}: name another", dest.display(), from.root().display());
        return Err(StoreError::unusable(why));
    }
    Ok(exists)
}

/// Makes the folder to fill, in place of what a copy that was cut off left there.
fn begin(partial: &Path) -> Result<File> {
    if partial.exists() {
        let refuse = |why: &str| Err(StoreError::unusable(format!("{} {why}", partial.display())));
        if !partial.join("server.lock").exists() && !list(partial)?.is_empty() {
            return refuse("is in the way and no unfinished copy: move it away");
        }
        if Folder::at(partial).server_runs() {
            return refuse("is being written by another copy");
        }
        fs::remove_dir_all(partial).map_err(|e| StoreError::io("remove", partial, e))?;
    }
    make_dir(partial)?;
    Folder::at(partial).lock_server()
}

fn fill(
    from: &Folder, database: impl FnOnce(&Path) -> Result<()>, links: &[Folder], partial: &Path,
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
    copy.each_page(|rows| {
        let done = transfer_all(from, links, &rows, &to)?;
        for (row, done) in rows.into_iter().zip(done) {
            match done {
                Ok(linked) => {
                    copied.files += 1;
                    copied.linked += u64::from(linked);
                    copied.bytes = copied.bytes.saturating_add(row.blob.size);
                }
                Err(flaw) => copied.damaged.push((row.what, reason(&flaw))),
            }
        }
        progress(copied.files, copied.bytes);
        Ok(())
    })?;
    Ok(copied)
}

/// Whether a file was linked, or what is wrong with the source.
type Transferred = io::Result<bool>;

/// Transfers the files of these rows, several at once: to hash them takes as long as to copy them.
fn transfer_all(
    from: &Folder, links: &[Folder], rows: &[Expected], to: &Folder,
) -> Result<Vec<Transferred>> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(COPIES_AT_ONCE);
    let some = |rows: &[Expected]| -> Result<Vec<_>> {
        rows.iter().map(|row| transfer(from, links, row.blob, to)).collect()
    };
    thread::scope(|scope| {
        let parts = rows.chunks(rows.len().div_ceil(threads).max(1));
        let workers: Vec<_> = parts.map(|part| scope.spawn(move || some(part))).collect();
        let each = workers.into_iter().map(|worker| {
            let panicked = |_| StoreError::unusable("a thread of the copy panicked");
            worker.join().map_err(panicked)?
        });
        Ok(each.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    })
}

fn transfer(from: &Folder, links: &[Folder], blob: Blob, to: &Folder) -> Result<Transferred> {
    let path = to.snapshot(blob.file);
    make_dir(parent(&path))?;
    for folder in links {
        let good = open_verified(folder, blob, None).is_ok();
        if good && fs::hard_link(folder.snapshot(blob.file), &path).is_ok() {
            return Ok(Ok(true));
        }
    }
    let mut file = match File::open(from.snapshot(blob.file)) {
        Ok(file) => file,
        Err(flaw) => return Ok(Err(flaw)),
    };
    let failed = |e| StoreError::io("write", &path, e);
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut out = new.map_err(failed)?;
    let mut written = Ok(());
    let read = hash_pieces(&mut file, |piece| {
        written = out.write_all(piece);
        written.is_ok()
    });
    written.map_err(failed)?;
    let flaw = match read {
        Ok(found) if found == (blob.size, blob.digest) => return Ok(Ok(false)),
        Ok(_) => differs("its length or SHA-256 differs"),
        Err(error) => error,
    };
    fs::remove_file(&path).map_err(failed)?;
    Ok(Err(flaw))
}
