//! Backup and restore: copies a data folder, verified, while its server runs. The copy is itself a
//! data folder.
//!
//! The database is copied first, then the files that the copied database names: they never change,
//! and none is unlinked while `backup.lock` is held. The copied database gets its final name last,
//! when everything is on disk: without it, no command accepts a folder as a copy.

use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rustix::fs::{AtFlags, linkat, syncfs};
use serde_json::json;

use super::audit::Event;
use super::blobs::{Blob, open_verified, reason};
use super::check::each_stored_file;
use super::data_dir::{
    DATABASE, DataDir, LOST_AND_FOUND, SNAPSHOTS, make_folder, make_folders, make_private, shard_of,
};
use super::db::{Database, connect, execute, query_scalar, utf8};
use super::dir::Dir;
use super::error::{Result, StoreError};
use super::status::{Fact, insert_fact};
use super::{Progress, Store, migrations};
use crate::util::limits::PIECE_BYTES;

/// The database of an incomplete copy, and the file that SQLite creates beside it.
const PARTIAL: &str = "configsync.db.partial";
const PARTIAL_FILES: [&str; 2] = ["configsync.db.partial-journal", PARTIAL];

/// The result of a copy.
#[derive(Debug, Default)]
pub struct Copied {
    /// Files in the copy.
    pub files: u64,
    /// How many of them are hard links.
    pub linked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are damaged in the source and left out, one sentence each.
    pub damaged: Vec<String>,
    /// When the source was copied itself, if it is a backup, in milliseconds since 1970.
    pub backup_time: Option<i64>,
}

impl Store {
    /// Makes a backup in a new folder while a server may write and prune. Files that `older`, an
    /// earlier backup, has are hard-linked, and with `hard_link` the data folder's own too. The
    /// outcome is recorded for `status`, metrics and the audit log.
    pub fn backup(
        &self, dest: &Path, older: Option<&Path>, hard_link: bool, progress: Progress<'_>,
    ) -> Result<Copied> {
        let copied = older.map(DataDir::of_backup).transpose().and_then(|older| {
            let _lock = self.data.lock_for_backup()?;
            copy(&self.data, &self.db, dest, older.as_ref(), hard_link, progress)
        });
        let failed = |reason: &str| (Fact::FAILED_BACKUP, "failed", json!({ "reason": reason }));
        let (fact, outcome, value) = match &copied {
            Ok(Copied { files, bytes, damaged, .. }) if damaged.is_empty() => {
                (Fact::GOOD_BACKUP, "ok", json!({ "files": files, "bytes": bytes }))
            }
            Ok(_) => failed("damaged files were left out"),
            Err(error) => failed(&error.to_string()),
        };
        self.record_fact(fact, &value, Some(Event { outcome, ..Event::new("backup") }));
        copied
    }
}

/// Copies a backup to a new data folder. The backup is only read.
pub fn restore(from: &Path, dest: &Path, progress: Progress<'_>) -> Result<Copied> {
    let from = DataDir::of_backup(from)?;
    let database = Database::open_to_read(&from)?;
    refuse_inside(&from, dest)?;
    make_folders(dest.parent().unwrap_or(dest))?;
    copy(&from, &database, dest, None, false, progress)
}

/// Copies into a folder that is new, empty or left by an interrupted copy. On failure, removes what
/// was written. Files that `older` has are hard-linked, and with `hard_link` those of `from`.
fn copy(
    from: &DataDir, database: &Database, dest: &Path, older: Option<&DataDir>, hard_link: bool,
    progress: Progress<'_>,
) -> Result<Copied> {
    // Removes a trailing slash, which a shell may have added.
    let dest: std::path::PathBuf = dest.components().collect();
    refuse_inside(from, &dest)?;
    let made = make_folder(&dest)?;
    let copied = DataDir::at(&dest).and_then(|to| {
        to.refuse_foreign_root()?;
        refuse_other_things(&to)?;
        // Keeps out other copies, and servers that would start in the folder.
        to.lock_server(Duration::ZERO)?;
        // Checked again, now that the lock keeps others out.
        refuse_other_things(&to)?;
        make_private(&to.root)?;
        clear(&to)?;
        if hard_link && to.root.metadata()?.dev() != from.snapshots()?.metadata()?.dev() {
            return Err(StoreError::unusable(format!(
                "{} is on another file system, so nothing can be linked: leave out --hard-link",
                to.root.path.display()
            )));
        }
        let links: Vec<_> = older.into_iter().chain(hard_link.then_some(from)).collect();
        fill(from, &to, &links, database, progress).inspect_err(|_| {
            let _ = clear(&to);
        })
    });
    if made && copied.is_err() {
        let _ = std::fs::remove_dir(&dest);
    }
    copied
}

/// Refuses a destination inside the folder that is copied.
fn refuse_inside(from: &DataDir, dest: &Path) -> Result<()> {
    let above = dest.ancestors().find_map(|path| Dir::open(path).ok());
    match above.is_some_and(|above| above.path.starts_with(&from.root.path)) {
        true => Err(StoreError::unusable(format!(
            "{} is inside {}: name another",
            dest.display(),
            from.root.path.display()
        ))),
        false => Ok(()),
    }
}

/// Fails if the folder has anything but remains of an interrupted copy, or `lost+found`.
fn refuse_other_things(to: &DataDir) -> Result<()> {
    let unfinished = to.root.lstat(PARTIAL)?.is_some();
    let of_copy = |name: &str| name == SNAPSHOTS || PARTIAL_FILES.contains(&name);
    let known = |name: &String| name == LOST_AND_FOUND || (unfinished && of_copy(name));
    match to.root.names()?.iter().all(known) {
        true => Ok(()),
        false => Err(StoreError::unusable(format!(
            "{} exists and is not an empty folder: name a new one (restore takes it by --data)",
            to.root.path.display()
        ))),
    }
}

/// Removes what a copy wrote. The database, which marks a copy as complete, goes first; the partial
/// one, which marks the folder as ours, goes last.
fn clear(to: &DataDir) -> Result<()> {
    to.root.unlink(DATABASE)?;
    to.remove_stored()?;
    PARTIAL_FILES.iter().try_for_each(|name| to.root.unlink(name).map(drop))
}

/// Copies the database and all files that the copied database names.
fn fill(
    from: &DataDir, to: &DataDir, links: &[&DataDir], database: &Database, progress: Progress<'_>,
) -> Result<Copied> {
    let (root, mut copied) = (&to.root, Copied::default());
    let partial = to.root.path.join(PARTIAL);
    database.read(|c| execute(c, "VACUUM INTO ?1", [utf8(&partial)?]))?;
    let mut connection = connect(&partial)?;
    copied.backup_time = finish_database(&mut connection)?;
    root.make_dir(SNAPSHOTS)?;
    let total = "SELECT coalesce(sum(size_bytes), 0) FROM stored_files";
    let total = query_scalar(&connection, total, [])?;
    each_stored_file(&connection, |what, _, blob| {
        transfer(from, to, links, &what, blob, &mut copied)?;
        progress(copied.bytes, total);
        Ok(())
    })?;
    connection.close().map_err(|(_, e)| e)?;
    // One syncfs for all files: an fsync of each would wait for the disk a thousand times.
    syncfs(&root.file).map_err(|e| root.error("sync", "", e.into()))?;
    root.rename(PARTIAL, root, DATABASE)?;
    root.sync()?;
    Ok(copied)
}

/// Hard-links a file from one of `links` that has it intact, or copies it. A damaged file is left
/// out.
fn transfer(
    from: &DataDir, to: &DataDir, links: &[&DataDir], what: &str, blob: Blob, copied: &mut Copied,
) -> Result<()> {
    let name = blob.file.to_string();
    let shard = to.snapshots()?.make_dir(&shard_of(blob.file))?;
    let link = |folder: &&DataDir| {
        open_verified(folder, blob, None).ok()?;
        let source = folder.shard(blob.file).ok()?;
        linkat(&source.file, &*name, &shard.file, &*name, AtFlags::empty()).ok()
    };
    if links.iter().find_map(link).is_some() {
        copied.linked += 1;
    } else if let Some(corruption) = copy_file(from, to, blob, &shard, &name)? {
        copied.damaged.push(format!("{what} is damaged and left out: {}", reason(&corruption)));
        return Ok(());
    }
    copied.files += 1;
    copied.bytes = copied.bytes.saturating_add(blob.size);
    Ok(())
}

/// Copies a file and verifies the copy. If the original is damaged, returns what is wrong with it
/// and leaves no copy.
fn copy_file(
    from: &DataDir, to: &DataDir, blob: Blob, shard: &Dir, name: &str,
) -> Result<Option<io::Error>> {
    let mut out = BufWriter::with_capacity(PIECE_BYTES, shard.create(name)?);
    let copied = from.open_stored(blob.file).and_then(|mut file| {
        // `dyn Read` makes io::copy read and write: a reflink would share the blocks of the disk,
        // and their damage.
        io::copy(&mut file as &mut dyn Read, &mut out)?;
        out.flush()
    });
    let Err(failed) = copied.and_then(|_| open_verified(to, blob, None)) else { return Ok(None) };
    match open_verified(from, blob, None) {
        Ok(_) => Err(shard.error("write", name, failed)),
        Err(corruption) => shard.unlink(name).map(|_| Some(corruption)),
    }
}

/// Prepares a copied database: it accepts no earlier JWT, and assigns no id that the source may
/// have assigned since. Returns when the source was made, if it is itself a copy.
fn finish_database(connection: &mut Connection) -> Result<Option<i64>> {
    // Nothing opens this file before it is complete, so it needs no journal.
    connection.pragma_update(None, "journal_mode", "off")?;
    migrations::migrate(connection)?;
    let tx = connection.transaction()?;
    let time = "SELECT max(updated_at) FROM server_state WHERE name = 'last_backup'";
    let copied_at = tx.query_row(time, [], |row| row.get(0))?;
    tx.execute_batch(
        "UPDATE users SET generation = generation + 1;
         UPDATE sqlite_sequence SET seq = seq + 1000000;
         INSERT INTO sqlite_sequence (name, seq)
           SELECT name, 1000000 FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'
              AND name NOT IN (SELECT name FROM sqlite_sequence);
         DELETE FROM deleted_files;",
    )?;
    // If this file is written over a running server's database, that server must not recognize it
    // as its own.
    tx.pragma_update(None, "application_id", migrations::APPLICATION_ID)?;
    insert_fact(&tx, Fact::GOOD_BACKUP, &json!({}))?;
    tx.commit()?;
    Ok(copied_at)
}
