//! The schema, and the migration of older databases to it.

use std::io::Read;

use rusqlite::{Connection, TransactionBehavior};

use super::data_dir::{DATABASE, DataDir};
use super::error::{Result, StoreError};

/// The schema in parts, one per version; [`MARK`] begins each.
const SCHEMA: &str = include_str!("../../schema.sql");
const MARK: &str = "\n-- version ";

/// The version of [`SCHEMA`].
pub const VERSION: i64 = 5;
/// `PRAGMA application_id`: "cf", and two bytes that every start of a server draws at random.
pub const APPLICATION_ID: i32 = 0x6366_0000;
/// The offset of the application id in the database file.
pub const APPLICATION_ID_AT: u64 = 68;

/// Brings the database to [`VERSION`] in one transaction. A new database gets every part of the
/// schema, an older one the parts after its version; a newer one is refused untouched. Of several
/// processes that open it at once, one migrates it: the others must not remove a server's mark.
pub fn migrate(connection: &mut Connection) -> Result<()> {
    // Checked without the write lock, so as not to wait for a writer.
    if version(connection)? == VERSION {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&tx)?;
    if found == VERSION {
        return Ok(());
    }
    let (Ok(done), true) = (usize::try_from(found), found <= VERSION) else {
        return Err(newer(found));
    };
    for part in parts().skip(done) {
        tx.execute_batch(part)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()?;
    Ok(())
}

/// Refuses to read a database of an older schema, which would have to be migrated first.
pub fn refuse_older(connection: &Connection) -> Result<()> {
    match version(connection)? {
        found if found < VERSION => Err(StoreError::unusable(format!(
            "the database has schema version {found}, and reading does not bring it to version \
             {VERSION}: start `configsync-server serve` on it once, or restore it to a new folder"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a database that this program did not make, or that a newer version did, before it is
/// opened, which would change its file. Reads the database header
/// (https://sqlite.org/fileformat2.html#the_database_header): the schema cookie is 0 until there is
/// a table, and versions before 5 had no application id.
pub fn refuse_foreign(data: &DataDir) -> Result<()> {
    let mut header = Vec::new();
    let opened = data.root.open_regular(DATABASE);
    let read = opened.and_then(|file| file.take(APPLICATION_ID_AT + 4).read_to_end(&mut header));
    if read.map_err(|e| data.root.error("read", DATABASE, e))? == 0 {
        // A first start was interrupted at once.
        return Ok(());
    }
    let (words, _) = header.as_chunks();
    let [schema, version, application] =
        [40, 60, 68].map(|at| words.get(at / 4).map_or(-1, |word| i32::from_be_bytes(*word)));
    let ours = match version {
        0 => schema == 0,
        1..5 => true,
        _ => application & !0xffff == APPLICATION_ID,
    };
    match i64::from(version) {
        found if found > VERSION && ours => Err(newer(found)),
        _ if ours && header.starts_with(b"SQLite format 3\0") => Ok(()),
        _ => Err(StoreError::unusable(format!(
            "{} is not a database of configsync-server, or is damaged: name another folder with \
             --data, or restore a backup (see `configsync-server restore --help`)",
            data.root.path.join(DATABASE).display()
        ))),
    }
}

fn newer(found: i64) -> StoreError {
    StoreError::unusable(format!(
        "the database has schema version {found}, this program knows {VERSION}: \
         use the newer configsync-server that wrote it"
    ))
}

/// The SQL of each version, from 1 on, without the rest of the line that marks it.
fn parts() -> impl Iterator<Item = &'static str> {
    SCHEMA.split(MARK).skip(1).map(|part| part.split_once('\n').map_or("", |(_, sql)| sql))
}

fn version(connection: &Connection) -> Result<i64> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::util::types::Digest;

    fn words(connection: &Connection) -> Vec<(String, String, String)> {
        let sql = "SELECT type, name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| {
            let sql: String = row.get(2)?;
            let code = sql.lines().map(|line| line.split("--").next().unwrap_or(""));
            let plain = code.collect::<Vec<_>>().join(" ");
            Ok((row.get(0)?, row.get(1)?, plain.split_whitespace().collect::<Vec<_>>().join(" ")))
        });
        rows.unwrap().map(|row| row.unwrap()).collect()
    }

    #[test]
    fn an_older_database_reaches_the_schema_of_a_new_one_and_keeps_its_rows() {
        let mut old = Connection::open_in_memory().unwrap();
        old.execute_batch(parts().next().unwrap()).unwrap();
        // The schema of the first data folders: the SQL of version 1 never changes.
        let version_1 = Digest(Sha256::digest(format!("{:?}", words(&old))).into()).to_string();
        assert_eq!(version_1, "e8ca2005a134c8b6cdeceb7a83e82961569b5da10d5f139de51933d89913bde3");
        old.execute_batch(
            "INSERT INTO users (id, email, created_at, updated_at) VALUES (7, 'a@example.com', 1, 1);
             PRAGMA user_version = 1;",
        )
        .unwrap();
        migrate(&mut old).unwrap();
        let mut new = Connection::open_in_memory().unwrap();
        migrate(&mut new).unwrap();
        assert_eq!(words(&old), words(&new));
        assert_eq!(version(&old).unwrap(), VERSION);
        let email: String =
            old.query_row("SELECT email FROM users WHERE id = 7", [], |r| r.get(0)).unwrap();
        assert_eq!(email, "a@example.com");
        // Another process that opens it later leaves a running server's mark.
        old.pragma_update(None, "application_id", APPLICATION_ID | 7).unwrap();
        migrate(&mut old).unwrap();
        let mark: i32 = old.pragma_query_value(None, "application_id", |r| r.get(0)).unwrap();
        assert_eq!(mark, APPLICATION_ID | 7);
    }

    #[test]
    fn who_finds_the_schema_of_today_waits_for_nobody_who_writes() {
        let scratch = tempfile::tempdir().unwrap();
        let connect = || Connection::open(scratch.path().join(DATABASE)).unwrap();
        let (mut one, mut other) = (connect(), connect());
        migrate(&mut one).unwrap();
        let _writes = one.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        other.busy_timeout(std::time::Duration::ZERO).unwrap();
        migrate(&mut other).unwrap();
    }

    #[test]
    fn every_version_reaches_the_schema_of_a_new_one() {
        let mut new = Connection::open_in_memory().unwrap();
        migrate(&mut new).unwrap();
        for from in 1..VERSION {
            let mut old = Connection::open_in_memory().unwrap();
            let so_far = usize::try_from(from).unwrap();
            parts().take(so_far).for_each(|part| old.execute_batch(part).unwrap());
            old.pragma_update(None, "user_version", from).unwrap();
            migrate(&mut old).unwrap();
            assert_eq!(words(&old), words(&new), "{from}");
        }
    }

    #[test]
    fn the_schema_has_a_part_for_each_version() {
        assert_eq!(i64::try_from(parts().count()).unwrap(), VERSION);
        for (n, part) in SCHEMA.split(MARK).skip(1).enumerate() {
            assert!(part.starts_with(&format!("{} ", n + 1)), "{part}");
        }
    }

    #[test]
    fn a_newer_database_is_refused_untouched() {
        let mut newer = Connection::open_in_memory().unwrap();
        newer.pragma_update(None, "user_version", VERSION + 1).unwrap();
        let refusal = migrate(&mut newer).unwrap_err().to_string();
        assert!(refusal.contains("use the newer configsync-server that wrote it"), "{refusal}");
        assert_eq!(version(&newer).unwrap(), VERSION + 1);
        assert!(words(&newer).is_empty());
    }
}
