//! Verifies a data folder: the database, and every file against its row. Changes nothing.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Row, params};

use super::blobs::Blob;
use super::db::{query_rows, query_strings};

use super::error::Result;
use super::files::{open_verified, reason};
use super::{Progress, Store};
use crate::util::limits::{COPY_ROWS, ORPHAN_AGE_S};

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows compared with their files.
    pub snapshots: u64,
    /// Bytes read and hashed.
    pub bytes: u64,
    /// Sentences of SQLite's own check.
    pub database: Vec<String>,
    /// Snapshots and versions that cannot be served, with the reason.
    pub damaged: Vec<(String, String)>,
    /// Files without a row.
    pub orphans: Vec<PathBuf>,
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
    /// Checks everything; a server may run, and may push and delete meanwhile.
    pub fn check(&self, progress: Progress<'_>) -> Result<Report> {
        let mut report = Report { database: self.check_database(), ..Report::default() };
        let server_runs = self.folder.server_runs();
        // Files first: one that is pushed after this list was made cannot look like an orphan.
        let files = self.folder.snapshot_files()?;
        // Those that wait to be unlinked are nobody's, and no surprise.
        let deleted = self.random_ids("SELECT file FROM deleted_files");
        let mut known = deleted.unwrap_or_else(|error| {
            report.database.push(format!("deleted files cannot be read: {error}"));
            HashSet::new()
        });
        let read = self.each_page(|page| {
            for row in page {
                known.insert(row.blob.file);
                self.check_row(row, &mut report)?;
                progress(report.snapshots, report.bytes);
            }
            Ok(())
        });
        if let Err(error) = read {
            // Then nobody can say which files have rows.
            report.database.push(format!("the rows cannot all be read: {error}"));
            return Ok(report);
        }
        for (path, name) in files {
            let placed = name.is_some_and(|name| self.folder.snapshot(name) == path);
            if placed && name.is_some_and(|name| known.contains(&name)) {
                continue;
            }
            let young = || {
                let age =
                    path.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
                age.is_none_or(|age| age < Duration::from_secs(ORPHAN_AGE_S))
            };
            // With a server at work a file may be between its rename and its commit.
            let late = match name {
                Some(name) if placed => self.has_row(name)?,
                _ => false,
            };
            if !(late || server_runs && young()) && path.exists() {
                report.orphans.push(path);
            }
        }
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

    /// Runs `work` for every file that a row names, page by page: so a check of a large folder holds
    /// no long read transaction, which would keep the WAL from being cut back.
    pub(super) fn each_page(
        &self, mut work: impl FnMut(Vec<Expected>) -> Result<()>,
    ) -> Result<()> {
        let sql = "SELECT what, file, size_bytes, sha256 FROM stored_files WHERE file > ?1
                    ORDER BY file LIMIT ?2";
        let read = |row: &Row<'_>| {
            let (what, name) = (row.get(0)?, row.get(1)?);
            Ok(Expected { what, name, blob: Blob::from_row(row, 1)? })
        };
        let mut after = String::new();
        loop {
            let page = self.db.read(|c| query_rows(c, sql, params![after, COPY_ROWS], read))?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.name);
            work(page)?;
        }
    }

    fn check_row(&self, row: Expected, report: &mut Report) -> Result<()> {
        let blob = row.blob;
        report.snapshots += 1;
        match open_verified(&self.folder, blob, None) {
            Ok(_) => report.bytes += blob.size,
            // Deleted since its row was read: no damage.
            Err(flaw) if flaw.kind() == ErrorKind::NotFound && !self.has_row(blob.file)? => {
                report.snapshots -= 1;
            }
            Err(flaw) => report.damaged.push((row.what, reason(&flaw))),
        }
        Ok(())
    }
}
