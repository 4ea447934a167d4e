//! The schema and the steps that bring an older database to it.

use std::io::Read;

use rusqlite::{Connection, TransactionBehavior};

use super::data_dir::{DATABASE, DataDir};
use super::error::{Result, StoreError};

/// The schema in parts: [`MARK`] begins the part of the next version.
const SCHEMA: &str = include_str!("../../schema.sql");
const MARK: &str = "\n-- version ";

/// The version of [`SCHEMA`].
pub const VERSION: i64 = 5;

/// Brings the database to [`VERSION`] in one transaction: a new one gets every part of the
/// schema, an older one those after its version; a newer one is refused untouched. Of several
/// processes that open it at once, one does.
pub fn migrate(connection: &mut Connection) -> Result<()> {
    if version(connection)? == VERSION {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&tx)?;
    let (Ok(done), true) = (usize::try_from(found), found <= VERSION) else {
        return Err(newer(found));
    };
    for part in parts().skip(done) {
        tx.execute_batch(part)?;
    }
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()?;
    Ok(())
}

/// Refuses to read a database of an older schema, which would have to be changed first.
pub fn refuse_older(connection: &Connection) -> Result<()> {
    match version(connection)? {
        found if found < VERSION => Err(StoreError::unusable(format!(
            "the database has schema version {found}, and reading does not bring it to version \
             {VERSION}: start `configsync-server serve` on it once, or restore it to a new folder"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a database of a newer schema before it is opened, which would change its file: the
/// version stands in its header (https://sqlite.org/fileformat2.html#user_version_number).
pub fn refuse_newer(data: &DataDir) -> Result<()> {
    let mut header = Vec::new();
    let opened = data.root().open_regular(DATABASE);
    let read = opened.and_then(|file| file.take(64).read_to_end(&mut header));
    read.map_err(|e| data.root().error("read", DATABASE, e))?;
    // What is too short, SQLite refuses.
    match header.get(60..64).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes) {
        Some(found) if header.starts_with(b"SQLite") && i64::from(found) > VERSION => {
            Err(newer(found.into()))
        }
        _ => Ok(()),
    }
}

fn newer(found: i64) -> StoreError {
    StoreError::unusable(format!(
        "the database has schema version {found}, this program knows {VERSION}: \
         use the newer configsync-server that wrote it"
    ))
}

/// The part of each version, from 1 on; each begins with the rest of its marking comment.
fn parts() -> impl Iterator<Item = &'static str> {
    SCHEMA.split(MARK).skip(1).map(|part| part.split_once('\n').map_or("", |(_, sql)| sql))
}

fn version(connection: &Connection) -> Result<i64> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 was: the schema without what the later steps add.
    const VERSION_1: &str = include_str!("../../tests/data/schema-v1.sql");

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
        old.execute_batch(VERSION_1).unwrap();
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
