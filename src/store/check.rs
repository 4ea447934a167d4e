//! Verifies a data folder: the database, and every file against its row. Changes no file.

use std::collections::HashSet;
use std::io::ErrorKind;

use rusqlite::Connection;
use serde_json::json;

use super::blobs::{Blob, open_verified, reason};
use super::data_dir::{SNAPSHOTS, shard_of};
use super::db::{query_opt, query_rows, query_strings};
use super::dir::is_file;
use super::error::Result;
use super::status::Fact;
use super::{Progress, Store};
use crate::util::limits::ORPHAN_AGE_S;
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

impl Store {
    /// Checks everything; a server may run, and may push and delete meanwhile. The outcome is kept
    /// for `status` and metrics.
    pub fn check(&self, progress: Progress<'_>) -> Result<Report> {
        let mut report = Report { database: self.check_database(), ..Report::default() };
        let known = self.check_rows(&mut report, progress).and_then(|()| self.known_files());
        match known {
            Ok(known) => self.check_files(&known, &mut report)?,
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

    /// Compares every row with its file.
    fn check_rows(&self, report: &mut Report, progress: Progress<'_>) -> Result<()> {
        let files = self.db.read(stored_files)?;
        let total = bytes_of(&files);
        for (what, blob) in files {
            match open_verified(&self.data, blob, None) {
                Ok(_) => report.bytes += blob.size,
                // Deleted since its row was read: no damage.
                Err(flaw) if flaw.kind() == ErrorKind::NotFound && !self.has_row(blob.file)? => {
                    continue;
                }
                Err(flaw) => {
                    let name = blob.file.to_string();
                    let sql = "SELECT origin FROM file_origins WHERE file = ?1";
                    let origin: Option<String> =
                        self.db.read(|c| query_opt(c, sql, [&name], |row| row.get(0)))?;
                    report.damaged.push(format!(
                        "{what} is damaged: {}; it is of {}; to mend it, put {SNAPSHOTS}/{}/{name} \
                         back from a backup, or push from that machine again",
                        reason(&flaw),
                        origin.unwrap_or_default(),
                        shard_of(blob.file),
                    ));
                }
            }
            report.snapshots += 1;
            progress(report.bytes, total);
        }
        Ok(())
    }

    /// Finds the files that no row names, among those whose names we give. Those that wait to be
    /// unlinked are known: nobody's, and no surprise.
    fn check_files(&self, known: &HashSet<String>, report: &mut Report) -> Result<()> {
        let server_runs = self.data.server_runs()?;
        self.data.each_shard(|shard_name, shard, names| {
            for name in names {
                let Some(file) = RandomId::parse(&name) else { continue };
                // Looked up again: its row may have come after the list was read.
                let placed = name.starts_with(shard_name);
                if placed && (known.contains(&name) || self.has_row(file)?) {
                    continue;
                }
                let Some(stat) = shard.look(&name)?.filter(is_file) else { continue };
                // With a server at work a file may be between its rename and its commit.
                let young = now_ms() / 1000 - stat.st_mtime < ORPHAN_AGE_S;
                if !(server_runs && young) {
                    report.orphans.push(format!("{SNAPSHOTS}/{shard_name}/{name}"));
                }
            }
            Ok(())
        })
    }
}

/// Every file that a row names, with the row in words.
pub(super) fn stored_files(connection: &Connection) -> Result<Vec<(String, Blob)>> {
    let sql = "SELECT what, file, size_bytes, sha256 FROM stored_files ORDER BY file";
    query_rows(connection, sql, [], |row| Ok((row.get(0)?, Blob::from_row(row, 1)?)))
}

/// The bytes of these files together.
pub(super) fn bytes_of(files: &[(String, Blob)]) -> u64 {
    files.iter().fold(0, |total, (_, blob)| total.saturating_add(blob.size))
}
