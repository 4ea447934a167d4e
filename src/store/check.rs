//! Verifies a data folder: the database, and every file against its row. Changes no stored file.

use std::io::ErrorKind;

use rusqlite::Connection;
use rustix::fs::Stat;
use serde_json::json;

use super::blobs::{Blob, open_verified, reason};
use super::data_dir::{SNAPSHOTS, shard_of};
use super::db::query_rows;
use super::error::Result;
use super::status::Fact;
use super::{Progress, Store};
use crate::util::limits::ORPHAN_AGE_S;
use crate::util::time::now_ms;

/// The findings of a check.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows compared with their files.
    pub snapshots: u64,
    /// Bytes read and hashed.
    pub bytes: u64,
    /// Findings about the database, one sentence each.
    pub database: Vec<String>,
    /// Snapshots and versions that cannot be served: which, of which user, why, and the remedy.
    pub damaged: Vec<String>,
    /// Files without a row, as paths below the data folder.
    pub orphans: Vec<String>,
}

impl Store {
    /// Checks everything. A server may run, push and delete meanwhile. The outcome is recorded for
    /// `status` and metrics.
    pub fn check(&self, progress: Progress<'_>) -> Result<Report> {
        let mut report = Report { database: self.check_database(), ..Report::default() };
        let rows = self.check_rows(&mut report, progress);
        // Only with all rows is it known which files have none.
        if let Err(error) = rows.and_then(|()| self.find_orphans(&mut report)) {
            report.database.push(format!("not everything could be checked: {error}"));
        }
        let Report { damaged, orphans, database, .. } = &report;
        let found = json!({
            "damaged": damaged.len(), "orphans": orphans.len(), "database": database.len(),
        });
        self.record_fact(Fact::CHECK, &found, None);
        Ok(report)
    }

    /// Returns what SQLite finds, including an error that stops its check.
    fn check_database(&self) -> Vec<String> {
        let integrity =
            "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'";
        let references =
            "SELECT 'rows that refer to nothing: ' || \"table\" FROM pragma_foreign_key_check";
        let ask = |sql| {
            let found = self.db.read(|c| query_rows(c, sql, [], |row| row.get(0)));
            found.unwrap_or_else(|error| vec![error.to_string()])
        };
        [integrity, references].into_iter().flat_map(ask).collect()
    }

    /// Compares every row with its file.
    fn check_rows(&self, report: &mut Report, progress: Progress<'_>) -> Result<()> {
        let mut files = Vec::new();
        // All at once: a long read transaction would keep the WAL from being reset.
        self.db.read(|c| {
            each_stored_file(c, |what, origin, blob| {
                files.push((what, origin, blob));
                Ok(())
            })
        })?;
        let total = files.iter().fold(0, |sum, (.., blob)| blob.size.saturating_add(sum));
        for (what, origin, blob) in files {
            match open_verified(&self.data, blob, None) {
                Ok(_) => report.bytes += blob.size,
                // Deleted since its row was read, so not damaged.
                Err(corruption)
                    if corruption.kind() == ErrorKind::NotFound && !self.has_row(blob.file)? =>
                {
                    continue;
                }
                Err(corruption) => report.damaged.push(format!(
                    "{what} is damaged: {}; it is of {origin}; to mend it, put {SNAPSHOTS}/{}/{} \
                     back from a backup, or push from that machine again",
                    reason(&corruption),
                    shard_of(blob.file),
                    blob.file,
                )),
            }
            report.snapshots += 1;
            progress(report.bytes, total);
        }
        Ok(())
    }

    /// Finds files that no row names, among those with names of this program.
    fn find_orphans(&self, report: &mut Report) -> Result<()> {
        let server_runs = self.data.server_runs()?;
        self.each_unreferenced(|shard, name, path| {
            // While a server runs, a file may be between its rename and its commit.
            let young = |stat: Stat| now_ms() / 1000 - stat.st_mtime < ORPHAN_AGE_S;
            if shard.lstat_ours(name)?.is_some_and(|stat| !(server_runs && young(stat))) {
                report.orphans.push(path);
            }
            Ok(())
        })
    }
}

/// Calls `work` for every file that a row names, with a description of the row and its origin.
pub(super) fn each_stored_file(
    connection: &Connection, mut work: impl FnMut(String, String, Blob) -> Result<()>,
) -> Result<()> {
    let sql =
        "SELECT what, coalesce((SELECT origin FROM file_origins o WHERE o.file = f.file), ''),
                      file, size_bytes, sha256 FROM stored_files f ORDER BY file";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        work(row.get(0)?, row.get(1)?, Blob::from_row(row, 2)?)?;
    }
    Ok(())
}
