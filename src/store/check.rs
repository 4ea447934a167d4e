//! Verifies a data folder: the database, and every file against its row. Changes no file.

use std::collections::HashSet;
use std::io::ErrorKind;

use rusqlite::{Connection, params};
use serde_json::json;

use super::blobs::{Blob, open_verified, reason};
use super::data_dir::{SNAPSHOTS, shard_of};
use super::db::{query_opt, query_rows, query_strings};
use super::dir::is_file;
use super::error::Result;
use super::status::Fact;
use super::{Progress, Store};
use crate::util::limits::{COPY_ROWS, ORPHAN_AGE_S};
use crate::util::time::now_ms;
use crate::util::types::RandomId;

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows compared with their files.
    pub snapshots: u64,
    /// Bytes read and hashed.
    pub bytes: u64,
    /// Sentences of SQLite's own check.
    pub database: Vec<String>,
    /// Snapshots and versions that cannot be served: which, of whom, why, and what mends it.
    pub damaged: Vec<String>,
    /// Files without a row, below the data folder.
    pub orphans: Vec<String>,
}

impl Report {
    /// True if nothing is wrong.
    pub fn clean(&self) -> bool {
        self.database.is_empty() && self.damaged.is_empty() && self.orphans.is_empty()
    }
}

/// A file as a row speaks of it.
pub(super) struct Expected {
    /// The row, in words.
    pub what: String,
    name: String,
    /// What the file must be.
    pub blob: Blob,
}

impl Store {
    /// Checks everything; a server may run, and may push and delete meanwhile. The outcome is kept
    /// for `status` and metrics.
    pub fn check(&self, progress: Progress<'_>) -> Result<Report> {
        let mut report = Report { database: self.check_database(), ..Report::default() };
        // Files first: one that is pushed after this list was made cannot look like an orphan.
        let files = self.files_found()?;
        let known = self.check_rows(&mut report, progress);
        match known {
            Ok(known) => self.check_files(files, &known, &mut report)?,
            // Then nobody can say which files have rows.
            Err(error) => report.database.push(format!("the rows cannot all be read: {error}")),
        }
        let Report { damaged, orphans, database, .. } = &report;
        let found = json!({
            "damaged": damaged.len(), "orphans": orphans.len(), "database": database.len(),
        });
        self.leave(Fact::CHECK, &found, None);
        Ok(report)
    }

    /// What SQLite finds, also where it cannot go on.
    fn check_database(&self) -> Vec<String> {
        let ask = |sql| {
            self.db.read(|c| query_strings(c, sql, [])).unwrap_or_else(|e| vec![e.to_string()])
        };
        let mut found = ask("PRAGMA integrity_check");
        found.retain(|sentence| sentence != "ok");
        let dangling = ask("PRAGMA foreign_key_check");
        found.extend(dangling.iter().map(|t| format!("rows that refer to nothing: {t}")));
        found
    }

    /// Every regular file in a sub-folder of `snapshots/` whose name we give.
    fn files_found(&self) -> Result<Vec<(RandomId, String)>> {
        let mut files = Vec::new();
        self.data.each_shard(|shard, _, names| {
            let ours = names.iter().filter_map(|name| RandomId::parse(name));
            files.extend(ours.map(|file| (file, shard.to_owned())));
            Ok(())
        })?;
        Ok(files)
    }

    /// Compares every row with its file; returns the files that rows name. Those that wait to be
    /// unlinked are among them: nobody's, and no surprise.
    fn check_rows(&self, report: &mut Report, progress: Progress<'_>) -> Result<HashSet<RandomId>> {
        let mut known = self.random_ids("SELECT file FROM deleted_files")?;
        let read = |after: &str| self.db.read(|c| page(c, after));
        each_row(read, |row| {
            known.insert(row.blob.file);
            self.check_row(&row, report)?;
            progress(report.snapshots, report.bytes);
            Ok(())
        })?;
        Ok(known)
    }

    fn check_row(&self, row: &Expected, report: &mut Report) -> Result<()> {
        report.snapshots += 1;
        match open_verified(&self.data, row.blob, None) {
            Ok(_) => report.bytes += row.blob.size,
            // Deleted since its row was read: no damage.
            Err(flaw) if flaw.kind() == ErrorKind::NotFound && !self.has_row(row.blob.file)? => {
                report.snapshots -= 1;
            }
            Err(flaw) => {
                let sql = "SELECT origin FROM file_origins WHERE file = ?1";
                let origin: Option<String> =
                    self.db.read(|c| query_opt(c, sql, [&row.name], |row| row.get(0)))?;
                report.damaged.push(format!(
                    "{} is damaged: {}; it is of {}; to mend it, put {SNAPSHOTS}/{}/{} back from a \
                     backup, or push from that machine again",
                    row.what,
                    reason(&flaw),
                    origin.unwrap_or_default(),
                    shard_of(row.blob.file),
                    row.name
                ));
            }
        }
        Ok(())
    }

    fn check_files(
        &self, files: Vec<(RandomId, String)>, known: &HashSet<RandomId>, report: &mut Report,
    ) -> Result<()> {
        let server_runs = self.data.server_runs()?;
        for (file, shard) in files {
            let (name, placed) = (file.to_string(), shard == shard_of(file));
            // Looked up again: its row may have come after the list was read.
            if placed && (known.contains(&file) || self.has_row(file)?) {
                continue;
            }
            let found = self.data.snapshots()?.dir(&shard)?.look(&name)?;
            let Some(stat) = found.filter(is_file) else { continue };
            // With a server at work a file may be between its rename and its commit.
            let young = now_ms() / 1000 - stat.st_mtime < ORPHAN_AGE_S;
            if !(server_runs && young) {
                report.orphans.push(format!("{SNAPSHOTS}/{shard}/{name}"));
            }
        }
        Ok(())
    }
}

/// Runs `work` for every file that a row names, page by page as `read` returns them: so a check of
/// a large folder holds no long read transaction, which would keep the log from being cut back.
pub(super) fn each_row(
    read: impl Fn(&str) -> Result<Vec<Expected>>, mut work: impl FnMut(Expected) -> Result<()>,
) -> Result<()> {
    let mut after = String::new();
    loop {
        let page = read(&after)?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.name);
        page.into_iter().try_for_each(&mut work)?;
    }
}

/// Some of the files that rows name: those after a name.
pub(super) fn page(connection: &Connection, after: &str) -> Result<Vec<Expected>> {
    let sql = "SELECT what, file, size_bytes, sha256 FROM stored_files WHERE file > ?1
                ORDER BY file LIMIT ?2";
    query_rows(connection, sql, params![after, COPY_ROWS], |row| {
        Ok(Expected { what: row.get(0)?, name: row.get(1)?, blob: Blob::from_row(row, 1)? })
    })
}
