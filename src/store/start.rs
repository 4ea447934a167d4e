//! How a server takes over its data folder: it changes nothing before the folder is known to be
//! ours, and serves nothing before it has cleaned up after the previous run.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::data_dir::{DataDir, ORPHANS, RESERVE};
use super::db::{Database, query_scalar};
use super::dir::Dir;
use super::error::{Result, StoreError};
use super::{Policy, Store};
use crate::util::limits::{NAMES_SHOWN_MAX, RESERVE_BYTES};
use crate::util::log;
use crate::util::types::RandomId;

impl Store {
    /// Opens or creates the data folder of a server; returns true if it was created. Logs what the
    /// operator should know.
    pub fn start(root: &Path, policy: Policy) -> Result<(Store, bool)> {
        let (data, new) = DataDir::start(root)?;
        // Opened before anything else is created, so that an interrupted first start leaves only
        // the database.
        let db = Database::open(&data)?;
        data.create_missing()?;
        let mut foreign = data.remove_leftovers()?;
        let mut store = Store { policy, is_server: true, ..Store::with(data, db) };
        store.refuse_damage()?;
        if let Err(error) = store.db.mark() {
            log::warn(&format!("a database that is written over will not be noticed: {error}"));
        }
        foreign.extend(store.set_orphans_aside()?);
        if !foreign.is_empty() {
            let shown: Vec<_> = foreign.iter().take(NAMES_SHOWN_MAX).cloned().collect();
            let more = foreign.len() - shown.len();
            let (path, shown) = (store.data.root.path.display(), shown.join(", "));
            log::warn(&format!("left alone in {path}, not made here: {shown} ({more} more)"));
        }
        if let Err(error) = store.keep_reserve() {
            log::warn(&format!("no room is kept for a command on a full disk: {error}"));
        }
        Ok((store, new))
    }

    /// A server on a damaged database would make the damage worse. The check takes about 0.7 ms for
    /// a thousand rows.
    fn refuse_damage(&self) -> Result<()> {
        match self.db.read(|c| query_scalar::<String>(c, "PRAGMA quick_check(1)", []))? {
            ok if ok == "ok" => Ok(()),
            damage => Err(StoreError::unusable(format!(
                "the database is damaged ({damage}): run `configsync-server check` to see how much, \
                 and restore a backup (`configsync-server restore --help`)"
            ))),
        }
    }

    /// Moves files that no row names to `orphans/`. Nothing is deleted: if the database is an older
    /// one, they may be a user's newest snapshots. Files with foreign names stay; returns their
    /// paths.
    fn set_orphans_aside(&self) -> Result<Vec<String>> {
        let orphans = self.data.root.dir(ORPHANS)?;
        let (mut moved, mut foreign) = (0, Vec::new());
        self.each_unreferenced(|shard, name, path| {
            if shard.lstat_ours(name)?.is_none() {
                foreign.push(path);
                return Ok(());
            }
            match set_aside(shard, name, &orphans) {
                Ok(()) => moved += 1,
                Err(error) => log::warn(&format!("a file without a row stays: {error}")),
            }
            Ok(())
        })?;
        orphans.sync()?;
        if moved > 0 {
            log::warn(&format!("{moved} files without a row moved from snapshots/ to orphans/"));
        }
        Ok(foreign)
    }

    /// Writes the reserve, which is given up for a command that frees space on a full disk. Not if
    /// less than twice `--min-free` (or twice the reserve) is free, since the space may be needed
    /// sooner.
    pub fn keep_reserve(&self) -> Result<()> {
        let root = &self.data.root;
        let least = self.policy.free_bytes_min.max(RESERVE_BYTES).saturating_mul(2);
        let there = root.lstat(RESERVE)?;
        let whole = there.is_some_and(|stat| stat.st_size.cast_unsigned() >= RESERVE_BYTES);
        if whole || self.free_bytes()? < least {
            return Ok(());
        }
        // Random bytes: on a file system that compresses, zeros would reserve no space.
        let mut bytes = vec![0; usize::try_from(RESERVE_BYTES).unwrap_or_default()];
        getrandom::fill(&mut bytes)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        root.open_file(RESERVE, flags)?.write_all(&bytes).map_err(|e| {
            let _ = root.unlink(RESERVE);
            root.error("write", RESERVE, e)
        })
    }
}

fn set_aside(shard: &Dir, name: &str, orphans: &Dir) -> Result<()> {
    // The thirty days in orphans/ count from now, not from the push.
    let dated = shard.open_regular(name).and_then(|file| file.set_modified(SystemTime::now()));
    dated.map_err(|e| shard.error("date", name, e))?;
    let taken = orphans.lstat(name)?.is_some();
    let target = if taken { RandomId::draw()?.to_string() } else { name.to_owned() };
    shard.rename(name, orphans, &target)
}
