//! SQLite connections: one writer behind a lock, a few readers beside it.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{FromSql, ToSql, ToSqlOutput};
use rusqlite::{
    CachedStatement, Connection, OpenFlags, OptionalExtension, Params, Row, Transaction,
    TransactionBehavior,
};

use super::RowSink;
use super::error::{Result, StoreError};
use super::folder::{Folder, private_file};
use super::migrations;
use crate::util::limits::{READERS, SQLITE_BUSY_MS, SQLITE_CACHE_KIB, WAL_BYTES_MAX};
use crate::util::sync::{Pool, PoolGuard};
use crate::util::time::rfc3339;
use crate::util::types::{Base64, Email, Key, Long, MachineId, Message, Name, Short, Visibility};

/// The first SQLite without the WAL reset bug, which could lose committed pages of a database
/// that two connections write (https://sqlite.org/wal.html#walresetbug).
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long anybody waits for a connection of this process, as for another's lock.
const WAIT: Duration = Duration::from_millis(SQLITE_BUSY_MS);

/// What the API and the command line show, as temporary views.
const ROWS: &str = include_str!("rows.sql");

/// The connections of one process to one database.
pub struct Database {
    writer: Pool<Connection>,
    readers: Pool<Connection>,
    folder: Folder,
}

impl Database {
    /// Opens the database of `folder`, making it if it is missing, and migrates it.
    pub fn open(folder: &Folder) -> Result<Database> {
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            return Err(StoreError::unusable(format!("SQLite {} is too old", rusqlite::version())));
        }
        let path = folder.database();
        // Made here, so that it never exists with a looser mode; closed before SQLite opens it,
        // since closing any descriptor of a file drops the process's locks on it.
        drop(private_file(&path)?);
        migrations::refuse_newer(&path)?;
        let mut writer = connect(&path)?;
        writer.pragma_update(None, "journal_mode", "wal")?;
        migrations::upgrade(&mut writer, folder)?;
        let database =
            Database { writer: Pool::new(1), readers: Pool::new(READERS), folder: folder.clone() };
        if let Some(mut place) = database.writer.take(WAIT) {
            place.value = Some(writer);
        }
        Ok(database)
    }

    /// Runs `work` on a reader connection; at most [`READERS`] run at once.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut place = self.readers.take(WAIT).ok_or_else(StoreError::busy)?;
        work(self.connection(&mut place)?)
    }

    /// Runs `work` in a transaction that holds the write lock from its start, and commits it
    /// with full sync: when this returns Ok, the rows are on disk. If `work` did and this did not,
    /// COMMIT failed: the rows may or may not be there after a crash.
    pub fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut place = self.writer.take(WAIT).ok_or_else(StoreError::busy)?;
        let writer = self.connection(&mut place)?;
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&tx)?;
        tx.commit()?;
        Ok(value)
    }

    /// Copies the write-ahead log into the database and empties it.
    pub fn checkpoint(&self) -> Result<()> {
        let mut place = self.writer.take(WAIT).ok_or_else(StoreError::busy)?;
        let writer = self.connection(&mut place)?;
        Ok(writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    fn connection<'a>(
        &self, place: &'a mut PoolGuard<'_, Connection>,
    ) -> Result<&'a mut Connection> {
        match &mut place.value {
            Some(connection) => Ok(connection),
            empty => Ok(empty.insert(connect(&self.folder.database())?)),
        }
    }
}

/// Checked texts go into statements as they are.
macro_rules! bind_as_text {
    ($($name:ty)*) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok((&**self).into())
            }
        }
    )*};
}
bind_as_text!(Short Long Name Message Key Base64 Visibility MachineId Email);

/// All rows of a query.
pub fn query_rows<T>(
    connection: &Connection, sql: &str, values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = prepare(connection, sql)?;
    let rows = statement.query_map(values, read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// All rows of a query for one text column.
pub fn query_strings(
    connection: &Connection, sql: &str, values: impl Params,
) -> Result<Vec<String>> {
    query_rows(connection, sql, values, |row| row.get(0))
}

/// Hands the first column of each row, a text, to `rows`: a list of any length takes no memory.
pub fn query_each(
    connection: &Connection, sql: &str, values: impl Params, rows: RowSink<'_>,
) -> Result<()> {
    let mut statement = prepare(connection, sql)?;
    let mut found = statement.query(values)?;
    while let Some(row) = found.next()? {
        rows(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
    }
    Ok(())
}

/// The first row of a query, if there is one.
pub fn query_opt<T>(
    connection: &Connection, sql: &str, values: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>> {
    Ok(prepare(connection, sql)?.query_row(values, read).optional()?)
}

/// The first row of a query, or Missing: no such `what`.
pub fn query_one<T>(
    connection: &Connection, what: &'static str, sql: &str, values: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<T> {
    query_opt(connection, sql, values, read)?.ok_or_else(|| StoreError::missing(what))
}

/// The first column of the first row of a query that always has one.
pub fn query_scalar<T: FromSql>(
    connection: &Connection, sql: &str, values: impl Params,
) -> Result<T> {
    Ok(prepare(connection, sql)?.query_row(values, |row| row.get(0))?)
}

/// Runs a statement and says how many rows it changed.
pub fn execute(connection: &Connection, sql: &str, values: impl Params) -> Result<usize> {
    Ok(prepare(connection, sql)?.execute(values)?)
}

/// Runs a statement that changes one row, or says Missing: no such `what`.
pub fn execute_one(
    connection: &Connection, what: &'static str, sql: &str, values: impl Params,
) -> Result<()> {
    match execute(connection, sql, values)? {
        0 => Err(StoreError::missing(what)),
        _ => Ok(()),
    }
}

/// Writes a consistent copy of the whole database to a new file.
pub fn vacuum_into(connection: &Connection, path: &Path) -> Result<()> {
    connection.execute("VACUUM INTO ?1", [utf8(path)?])?;
    Ok(())
}

/// A path as SQLite takes it.
pub fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| StoreError::unusable(format!("{} is not UTF-8", path.display())))
}

fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_millis(SQLITE_BUSY_MS))?;
    connection.set_prepared_statement_cache_capacity(64);
    // Plans are made once, not anew for the values of each call: those would be found no better,
    // and parsing costs more than most of our queries.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    for (pragma, value) in [
        ("synchronous", "full"),
        ("foreign_keys", "on"),
        ("trusted_schema", "off"),
        ("cell_size_check", "on"),
        ("temp_store", "memory"),
    ] {
        connection.pragma_update(None, pragma, value)?;
    }
    connection.pragma_update(None, "cache_size", -SQLITE_CACHE_KIB)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    // The views of rows.sql, and the function that they call.
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("moment", 1, flags, |values| {
        Ok(values.get::<Option<i64>>(0)?.map(rfc3339))
    })?;
    connection.execute_batch(ROWS)?;
    Ok(connection)
}

/// Every statement of the store passes here, once for each connection.
fn prepare<'a>(connection: &'a Connection, sql: &str) -> Result<CachedStatement<'a>> {
    #[cfg(test)]
    super::tests::note(sql);
    Ok(connection.prepare_cached(sql)?)
}
