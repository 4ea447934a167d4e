//! SQLite connections: one writer behind a lock, a few readers beside it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::FromSql;
use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row, Transaction,
    TransactionBehavior,
};
use rustix::fs::OFlags;

use super::RowSink;
use super::data_dir::{DATABASE, DataDir, SHM, WAL};
use super::dir::TempFolder;
use super::error::{ErrorKind, Result, StoreError};
use super::migrations::{self, APPLICATION_ID, APPLICATION_ID_AT};
use crate::util::limits::{READERS, SQLITE_BUSY_MS, SQLITE_CACHE_KIB, WAL_BYTES_MAX};
use crate::util::log;
use crate::util::sync::{Pool, PoolGuard, lock};
use crate::util::time::rfc3339;

// The first SQLite without the WAL reset bug, which could lose committed pages of a database with
// two writing connections (https://sqlite.org/wal.html#walresetbug).
const _: () = assert!(rusqlite::ffi::SQLITE_VERSION_NUMBER >= 3_051_003);

/// How long a caller waits for a free connection: as long as for another process's lock.
const WAIT: Duration = Duration::from_millis(SQLITE_BUSY_MS);

/// Temporary views that render the rows of the API and the command line.
const VIEWS: &str = include_str!("views.sql");

/// The connections of one process to one database.
pub struct Database {
    writer: Arc<Pool<Connection>>,
    readers: Arc<Pool<Connection>>,
    path: PathBuf,
    /// The database is on a read-only medium and has no WAL.
    immutable: bool,
    /// The folder of a temporary copy of the database and its WAL.
    copy: Option<TempFolder>,
    /// Set by [`Database::open`]: identifies the files. Closed after the connections.
    opened: Option<Opened>,
    /// Why the last write failed. [`ErrorKind::Corrupt`] is permanent and stops all writes: damage
    /// was found, or a file is not the one that was opened.
    failure: Mutex<Option<ErrorKind>>,
}

/// The database's files as they were opened.
struct Opened {
    /// The database, the WAL, and its shared-memory index.
    ids: [FileId; 3],
    /// The database. It stays open, since closing it would release SQLite's locks on the file.
    file: File,
    /// Only on a server: the application id that this run gave the database.
    mark: Option<i32>,
}

/// Device and inode; None for a missing file.
type FileId = Option<(u64, u64)>;

impl Database {
    /// Opens the database for a server or for a command that changes rows, and migrates it.
    pub fn open(data: &DataDir) -> Result<Database> {
        if !data.is_writable()? {
            let why =
                format!("{} cannot be written: it can only be read", data.root.path.display());
            return Err(StoreError::unusable(why));
        }
        migrations::refuse_foreign(data)?;
        let file = data.root.open_file(DATABASE, OFlags::RDONLY)?;
        let mut database = Database::at(&data.root.path);
        let mut writer = connect(&database.path)?;
        let mode: String =
            writer.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            let path = data.root.path.display();
            let why = format!("SQLite can keep no log in {path}: use a local file system");
            return Err(StoreError::unusable(why));
        }
        migrations::migrate(&mut writer)?;
        database.writer = Pool::new([Some(writer)]);
        database.opened = Some(Opened { ids: database.file_ids()?, file, mark: None });
        Ok(database)
    }

    /// Opens the database for a command that only reads, also on a read-only medium. Changes
    /// nothing, not even the schema.
    pub fn open_to_read(data: &DataDir) -> Result<Database> {
        migrations::refuse_foreign(data)?;
        if data.is_writable()? {
            return Ok(Database::at(&data.root.path));
        }
        if data.root.lstat(WAL)?.is_none_or(|log| log.st_size == 0) {
            return Ok(Database { immutable: true, ..Database::at(&data.root.path) });
        }
        // The database must not be read without its WAL, and SQLite must write the WAL's index.
        let copy = TempFolder::new()?;
        for name in [DATABASE, WAL] {
            let copied = fs::copy(data.root.path.join(name), copy.0.path.join(name));
            copied.map_err(|e| data.root.error("copy", name, e))?;
        }
        let database = Database::at(&copy.0.path);
        Ok(Database { copy: Some(copy), ..database })
    }

    fn at(folder: &Path) -> Database {
        Database {
            writer: Pool::new([None]),
            readers: Pool::new([const { None }; READERS]),
            path: folder.join(DATABASE),
            immutable: false,
            copy: None,
            opened: None,
            failure: Mutex::default(),
        }
    }

    /// Marks the database file as this server run's own: an older copy that is written over it has
    /// another mark.
    pub fn mark(&mut self) -> Result<()> {
        let mut drawn = [0; 2];
        getrandom::fill(&mut drawn)?;
        let mark = APPLICATION_ID | i32::from(u16::from_be_bytes(drawn));
        self.write(|tx| Ok(tx.pragma_update(None, "application_id", mark)?))?;
        // Writes the mark into the file itself. If a reader holds that up, this run has no mark.
        self.checkpoint("PASSIVE")?;
        if let Some(opened) = &mut self.opened
            && opened.application_id()? == mark
        {
            opened.mark = Some(mark);
        }
        Ok(())
    }

    /// True if writes go to the data folder.
    pub fn is_in_place(&self) -> bool {
        !self.immutable && self.copy.is_none()
    }

    /// Returns why the last write failed, or the next one would; checks the files too.
    pub fn failure(&self) -> Option<ErrorKind> {
        // A busy writer checks the files itself, and may be in the middle of a checkpoint.
        if self.writer.take(Duration::ZERO).is_some_and(|_held| self.refuse_if_lost().is_err()) {
            return Some(ErrorKind::Corrupt);
        }
        *lock(&self.failure)
    }

    /// Records how a write ended, or that corruption was found, which is permanent.
    fn record_outcome(&self, found: Option<ErrorKind>) {
        let mut failure = lock(&self.failure);
        if *failure == Some(ErrorKind::Corrupt) {
            return;
        }
        if found == Some(ErrorKind::Corrupt) {
            log::error(
                "the database was moved, replaced or damaged while it was in use: nothing is \
                 written any more; stop the server, run `configsync-server check`, put the right \
                 files back or restore a backup, and start it again",
            );
        }
        *failure = found;
    }

    /// Runs `work` on a reader connection; at most [`READERS`] run at once.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut place = self.readers.take(WAIT).ok_or_else(StoreError::busy)?;
        let done = work(self.connection(&mut place)?);
        if done.as_ref().is_err_and(|error| error.kind == ErrorKind::Corrupt) {
            self.record_outcome(Some(ErrorKind::Corrupt));
        }
        done
    }

    /// Runs `work` in a transaction that holds the write lock from its start, and commits it with a
    /// full sync: when this returns Ok, the rows are on disk.
    pub fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let done = self.transact(work);
        match done.as_ref().map_err(|error| error.kind) {
            Ok(_) => self.record_outcome(None),
            Err(kind @ (ErrorKind::Corrupt | ErrorKind::DiskFull | ErrorKind::Internal)) => {
                self.record_outcome(Some(kind));
            }
            Err(_) => {}
        }
        done
    }

    fn transact<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut place = self.writer.take(WAIT).ok_or_else(StoreError::busy)?;
        let writer = self.connection(&mut place)?;
        self.refuse_if_lost()?;
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&tx)?;
        match tx.commit() {
            Ok(()) => Ok(value),
            Err(e) => {
                // If the disk was full before the last byte, or the WAL was locked, a crash cannot
                // bring back any of the transaction.
                let undone = matches!(
                    e.sqlite_error_code(),
                    Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
                );
                Err(StoreError { in_doubt: !undone, ..e.into() })
            }
        }
    }

    /// Fails if the files are not those that were opened: writes to a file that was moved away,
    /// replaced or overwritten would be lost.
    fn refuse_if_lost(&self) -> Result<()> {
        if let Some(opened) = &self.opened {
            let other = self.file_ids()? != opened.ids;
            let mark = opened.mark;
            if other || mark.is_some() && mark != Some(opened.application_id()?) {
                self.record_outcome(Some(ErrorKind::Corrupt));
            }
        }
        if *lock(&self.failure) == Some(ErrorKind::Corrupt) {
            return Err(StoreError::unusable(
                "the server cannot write its database any more: its operator must look at the log",
            ));
        }
        Ok(())
    }

    /// Sets how long the writer waits for another process from now on.
    pub fn wait_at_most(&self, wait: Duration) -> Result<()> {
        let mut place = self.writer.take(wait).ok_or_else(StoreError::busy)?;
        Ok(self.connection(&mut place)?.busy_timeout(wait)?)
    }

    /// Copies the WAL into the database; TRUNCATE waits for readers and then empties the WAL.
    pub fn checkpoint(&self, mode: &str) -> Result<()> {
        let mut place = self.writer.take(WAIT).ok_or_else(StoreError::busy)?;
        self.refuse_if_lost()?;
        let writer = self.connection(&mut place)?;
        // SQLite reports a reader in the way in the first column, not as an error.
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        let busy = writer.query_row(&sql, [], |row| row.get(0))?;
        if busy { Err(StoreError::busy()) } else { Ok(()) }
    }

    fn connection<'a>(&self, place: &'a mut PoolGuard<Connection>) -> Result<&'a mut Connection> {
        match &mut place.value {
            Some(connection) => Ok(connection),
            empty if self.immutable => Ok(empty.insert(connect_immutable(&self.path)?)),
            empty => Ok(empty.insert(connect(&self.path)?)),
        }
    }

    /// Looks up the paths, not names below the folder's descriptor, since SQLite opens its files by
    /// path.
    fn file_ids(&self) -> Result<[FileId; 3]> {
        let id = |name: &str| {
            let path = self.path.with_file_name(name);
            match path.symlink_metadata() {
                Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(StoreError::io("look at", &path, e)),
            }
        };
        Ok([id(DATABASE)?, id(WAL)?, id(SHM)?])
    }
}

impl Opened {
    /// Reads the application id in the file itself, whatever the WAL holds; 0 if the file is too
    /// short.
    fn application_id(&self) -> Result<i32> {
        let mut id = [0; 4];
        let read = self.file.read_at(&mut id, APPLICATION_ID_AT);
        read.map_err(|e| StoreError::io("read", Path::new(DATABASE), e))?;
        Ok(i32::from_be_bytes(id))
    }
}

/// Returns all rows of a query.
pub fn query_rows<T>(
    connection: &Connection, sql: &str, values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = prepare(connection, sql)?;
    let rows = statement.query_map(values, read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Passes the first column of each row, a text, to `rows`, so that a list of any length needs no
/// memory.
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

/// Returns the first row of a query, if there is one.
pub fn query_opt<T>(
    connection: &Connection, sql: &str, values: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>> {
    Ok(prepare(connection, sql)?.query_row(values, read).optional()?)
}

/// Returns the first row of a query, or NotFound: no such `what`.
pub fn query_one<T>(
    connection: &Connection, what: &str, sql: &str, values: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<T> {
    query_opt(connection, sql, values, read)?.ok_or_else(|| StoreError::missing(what))
}

/// Returns the first column of the first row of a query that always has a row.
pub fn query_scalar<T: FromSql>(
    connection: &Connection, sql: &str, values: impl Params,
) -> Result<T> {
    Ok(prepare(connection, sql)?.query_row(values, |row| row.get(0))?)
}

/// Runs a statement and returns how many rows it changed.
pub fn execute(connection: &Connection, sql: &str, values: impl Params) -> Result<usize> {
    Ok(prepare(connection, sql)?.execute(values)?)
}

/// Runs a statement that changes one row, or returns NotFound: no such `what`.
pub fn execute_one(
    connection: &Connection, what: &str, sql: &str, values: impl Params,
) -> Result<()> {
    match execute(connection, sql, values)? {
        0 => Err(StoreError::missing(what)),
        _ => Ok(()),
    }
}

/// The path as UTF-8, the only form that SQLite takes.
pub fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| StoreError::unusable(format!("{} is not UTF-8", path.display())))
}

/// Opens a database for reading and writing. No symbolic link may be in its path.
pub fn connect(path: &Path) -> Result<Connection> {
    connect_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// Opens a database that no process writes. It needs no lock files, which a read-only medium could
/// not hold.
pub fn connect_immutable(path: &Path) -> Result<Connection> {
    let escaped = utf8(path)?.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    connect_with(format!("file:{escaped}?immutable=1").as_ref(), flags)
}

fn connect_with(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_millis(SQLITE_BUSY_MS))?;
    connection.set_prepared_statement_cache_capacity(64);
    // Query plans do not depend on bound values, so no statement is prepared again for the values
    // of each call: the plans would be no better, and parsing costs more than most queries here.
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
    // The views of views.sql, and the function that they call.
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("moment", 1, flags, |values| {
        Ok(values.get::<Option<i64>>(0)?.map(rfc3339))
    })?;
    connection.execute_batch(VIEWS)?;
    Ok(connection)
}

/// Every statement of a request is prepared here, once per connection.
fn prepare<'a>(connection: &'a Connection, sql: &str) -> Result<CachedStatement<'a>> {
    #[cfg(test)]
    super::tests::note(sql);
    Ok(connection.prepare_cached(sql)?)
}
