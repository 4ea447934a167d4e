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
use std::sync::Mutex;
use std::thread;

use rusqlite::{Connection, OpenFlags};

use super::audit::Event;
use super::check::Expected;
use super::db::{utf8, vacuum_into};
use super::error::{Result, StoreError};
use super::files::{Flaw, hash_pieces, open_verified};
use super::folder::{Folder, list, make_dir, parent, private_file, sync_dir};
use super::{Progress, Store};
use crate::limits::COPIES_AT_ONCE;
use crate::log;
use crate::sync::lock;

/// How to copy.
pub struct Plan<'a> {
    /// The new folder.
    pub dest: &'a Path,
    /// Link the folder's own files instead of copying them, where the file system can.
    pub hard_link: bool,
    /// An older backup whose unchanged files are linked instead of copied.
    pub older: Option<&'a Path>,
    /// The folder may exist if it is empty.
    pub within: bool,
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
        // A mistyped one would silently make a whole copy.
        plan.older.map(Folder::existing).transpose()?;
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
    copy(&from, database, &Plan { dest, hard_link: false, older: None, within: true }, progress)
}

/// The path inside a URI of SQLite.
fn escaped(path: &Path) -> Result<String> {
    Ok(utf8(path)?.replace('%', "%25").replace('?', "%3f").replace('#', "%23"))
}

fn copy(
    from: &Folder, database: impl FnOnce(&Path) -> Result<()>, plan: &Plan<'_>,
    progress: Progress<'_>,
) -> Result<Copied> {
    // Without a slash at its end, which a shell may have put there.
    let dest: PathBuf = plan.dest.components().collect();
    // No server may begin anew in the folder meanwhile.
    let _held = match plan.within && dest.is_dir() && !Folder::at(&dest).database().exists() {
        true => Some(Folder::at(&dest).lock_server()?),
        false => None,
    };
    let within = refuse_destination(from, &dest, plan.within)?;
    let partial = if within { dest.join(PARTIAL) } else { partial_of(&dest) };
    let leftover = partial.exists();
    let lock = begin(&partial)?;
    let filled = fill(from, database, plan, &partial, progress);
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
        return Err(StoreError::Unusable(why));
    }
    let real = |path: &Path| path.canonicalize().map_err(|e| StoreError::io("look at", path, e));
    let outer = if exists { dest } else { parent(dest) };
    if real(outer)?.starts_with(real(from.root())?) {
        let why = format!("{} is inside {}: name another", dest.display(), from.root().display());
        return Err(StoreError::Unusable(why));
    }
    Ok(exists)
}

/// Makes the folder to fill, in place of what a copy that was cut off left there.
fn begin(partial: &Path) -> Result<File> {
    if partial.exists() {
        let refuse = |why: &str| Err(StoreError::Unusable(format!("{} {why}", partial.display())));
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
    copy.each_page(|rows| {
        for (row, done) in transfer_all(from, plan, rows, &to)? {
            match done {
                Ok(linked) => {
                    copied.files += 1;
                    copied.linked += u64::from(linked);
                    copied.bytes = copied.bytes.saturating_add(row.blob.size);
                }
                Err(flaw) => copied.damaged.push((row.what, flaw.reason())),
            }
        }
        progress(copied.files, copied.bytes);
        Ok(())
    })?;
    Ok(copied)
}

type Transferred = std::result::Result<bool, Flaw>;

/// Transfers the files of these rows, several at once: to hash them takes as long as to copy them.
fn transfer_all(
    from: &Folder, plan: &Plan<'_>, rows: Vec<Expected>, to: &Folder,
) -> Result<Vec<(Expected, Transferred)>> {
    let next = Mutex::new(rows.into_iter());
    let work = || {
        let mut done = Vec::new();
        loop {
            let Some(row) = lock(&next).next() else { return Ok(done) };
            let path = to.snapshot(row.blob.file);
            make_dir(path.parent().unwrap_or(to.root()))?;
            let transferred = transfer(from, plan, &row, &path)?;
            done.push((row, transferred));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(COPIES_AT_ONCE);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let each = workers.into_iter().map(|worker| {
            let panicked = |_| StoreError::Unusable("a thread of the copy panicked".into());
            worker.join().map_err(panicked)?
        });
        Ok(each.collect::<Result<Vec<Vec<_>>>>()?.into_iter().flatten().collect())
    })
}

/// Links or copies one file; says whether it is a link, or why the source is no good.
fn transfer(from: &Folder, plan: &Plan<'_>, row: &Expected, to: &Path) -> Result<Transferred> {
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
