//! The schema and the steps that bring an older database to it.

use rusqlite::{Connection, TransactionBehavior};

use super::error::{Result, StoreError};

/// The schema of a new data folder.
pub const SCHEMA: &str = include_str!("../../schema.sql");

/// Step `k` brings version `k + 1` to version `k + 2`. A released step is never changed.
const STEPS: [&str; 1] = [
    // 2: the audit log.
    "CREATE TABLE audit_log (
       id         INTEGER PRIMARY KEY AUTOINCREMENT,
       created_at INTEGER NOT NULL,
       event      TEXT    NOT NULL,
       user_id    INTEGER,
       user_email TEXT,
       machine    TEXT,
       peer       TEXT,
       outcome    TEXT    NOT NULL,
       subject_id INTEGER
     ) STRICT;
     CREATE INDEX audit_log_by_time ON audit_log (created_at);",
];

/// The version of [`SCHEMA`].
pub const VERSION: i64 = STEPS.len() as i64 + 1;

/// Brings the database to [`VERSION`] in one transaction: an empty one gets the schema, an older
/// one the missing steps, a newer one is refused untouched.
pub fn migrate(connection: &mut Connection) -> Result<()> {
    if version(connection)? == VERSION {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&tx)?;
    match found {
        VERSION => return Ok(()),
        0 => tx.execute_batch(SCHEMA)?,
        1..VERSION => {
            for step in STEPS.iter().skip(usize::try_from(found - 1).unwrap_or(0)) {
                tx.execute_batch(step)?;
            }
        }
        _ => return Err(StoreError::NewerSchema { found, known: VERSION }),
    }
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()?;
    Ok(())
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
    fn a_newer_database_is_refused_untouched() {
        let mut newer = Connection::open_in_memory().unwrap();
        newer.pragma_update(None, "user_version", VERSION + 1).unwrap();
        let refusal = migrate(&mut newer);
        assert!(matches!(refusal, Err(StoreError::NewerSchema { .. })));
        assert_eq!(version(&newer).unwrap(), VERSION + 1);
        assert!(words(&newer).is_empty());
    }
}
