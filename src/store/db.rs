//! SQLite connections: one writer behind a lock, a few readers beside it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
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
use rustix::fs::lstat;
use rustix::io::Errno;

use super::RowSink;
use super::data_dir::{DATABASE, DataDir, SHM, WAL, parent};
use super::error::{ErrorKind, Result, StoreError};
use super::migrations::{self, MAGIC};
use crate::util::limits::{READERS, SQLITE_BUSY_MS, SQLITE_CACHE_KIB, WAL_BYTES_MAX};
use crate::util::log;
use crate::util::sync::{Pool, PoolGuard, lock};
use crate::util::time::rfc3339;
use crate::util::types::RandomId;

/// The first SQLite without the WAL reset bug, which could lose committed pages of a database
/// that two connections write (https://sqlite.org/wal.html#walresetbug).
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long anybody waits for a connection of this process, as for another's lock.
const WAIT: Duration = Duration::from_millis(SQLITE_BUSY_MS);

/// What the API and the command line show, as temporary views.
const ROWS: &str = include_str!("rows.sql");

/// The connections of one process to one database.
pub struct Database {
    writer: Arc<Pool<Connection>>,
    readers: Arc<Pool<Connection>>,
    source: Source,
    /// Which files the database, its log and the index of that were when they were opened; None
    /// where nothing is written.
    opened: Option<[FileId; 3]>,
    /// Of a server: the database file as it was when it last had this run's mark.
    marked: Mutex<Option<Marked>>,
    condition: Mutex<Condition>,
}

/// How the database is, as far as the last write and any read found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The last write succeeded.
    Good,
    /// The last write found the disk full.
    DiskFull,
    /// The last write failed.
    Failed,
    /// Damage was found, or the file is not the one that was opened: this process writes no more.
    Lost,
}

/// Device and inode; None for a file that is not there.
type FileId = Option<(u64, u64)>;

/// Size, and time of the last change.
type Stamp = (i64, i64, u64);

/// How a database file is known that was written over in place.
#[derive(Clone)]
struct Marked {
    /// Stands in a row of the file itself, not only of its log, since this server started.
    mark: String,
    stamp: Stamp,
}

/// Where a database is opened.
enum Source {
    /// At its place, for reading and writing.
    InPlace(PathBuf),
    /// On a read-only medium, without a log.
    Immutable(PathBuf),
    /// A copy of it and its log, made in a folder that is removed on drop.
    Copy(PathBuf),
}

impl Database {
    /// Opens the database for a server or for a command that changes rows, and migrates it.
    pub fn open(data: &DataDir) -> Result<Database> {
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            return Err(StoreError::unusable(format!("SQLite {} is too old", rusqlite::version())));
        }
        migrations::refuse_foreign(data)?;
        let source = Source::InPlace(data.path().join(DATABASE));
        let mut writer = source.connect()?;
        let mode: String =
            writer.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            let path = data.path().display();
            let why = format!("SQLite can keep no log in {path}: use a local file system");
            return Err(StoreError::unusable(why));
        }
        migrations::migrate(&mut writer)?;
        let opened = Some(source.file_ids()?);
        Ok(Database::with(source, opened, Some(writer)))
    }

    /// Opens the database for a command that only reads, also on a read-only medium; changes
    /// nothing, and not its schema either.
    pub fn open_to_read(data: &DataDir) -> Result<Database> {
        let database = Database::open_to_copy(data)?;
        database.read(migrations::refuse_older)?;
        Ok(database)
    }

    /// The same for a copy, which gets the schema of today itself.
    pub fn open_to_copy(data: &DataDir) -> Result<Database> {
        migrations::refuse_foreign(data)?;
        let path = data.path().join(DATABASE);
        let log = data.root().look(WAL)?;
        let source = match (data.is_writable()?, log) {
            (true, _) => Source::InPlace(path),
            (false, Some(log)) if log.st_size > 0 => Source::copy(data)?,
            (false, _) => Source::Immutable(path),
        };
        Ok(Database::with(source, None, None))
    }

    fn with(source: Source, opened: Option<[FileId; 3]>, writer: Option<Connection>) -> Database {
        let (writer, readers) = (Pool::new([writer]), Pool::new([const { None }; READERS]));
        let condition = Mutex::new(Condition::Good);
        let marked = Mutex::default();
        Database { writer, readers, source, opened, marked, condition }
    }

    /// Marks the database file as that of this run of a server.
    pub fn mark(&self) -> Result<()> {
        let mark = RandomId::draw()?.to_string();
        let sql = "INSERT INTO server_state (name, value, updated_at) VALUES ('run', ?1, 0)
                   ON CONFLICT (name) DO UPDATE SET value = ?1";
        self.write(|tx| execute(tx, sql, [&mark]))?;
        // Into the file itself; where a reader holds that up, this run goes without.
        self.checkpoint("PASSIVE")?;
        *lock(&self.marked) = Some(Marked { mark, stamp: Stamp::default() });
        if !self.has_mark().unwrap_or(false) {
            *lock(&self.marked) = None;
        }
        Ok(())
    }

    /// True if what is written goes into the data folder.
    pub fn is_in_place(&self) -> bool {
        matches!(self.source, Source::InPlace(_))
    }

    /// How it is; looks at the files too.
    pub fn condition(&self) -> Condition {
        // A writer at work looks itself, and may be in the middle of a checkpoint.
        if self.writer.take(Duration::ZERO).is_some_and(|_held| self.refuse_if_lost().is_err()) {
            return Condition::Lost;
        }
        *lock(&self.condition)
    }

    /// Notes what a write found, or that damage was met, which is not forgotten.
    fn note(&self, found: Condition) {
        let mut condition = lock(&self.condition);
        if found == Condition::Lost && *condition != Condition::Lost {
            log::error(
                "the database was moved, replaced or damaged while it was in use: nothing is \
                 written any more; stop the server, run `configsync-server check`, put the right \
                 files back or restore a backup, and start it again",
            );
        }
        if *condition != Condition::Lost {
            *condition = found;
        }
    }

    /// Runs `work` on a reader connection; at most [`READERS`] run at once.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut place = self.readers.take(WAIT).ok_or_else(StoreError::busy)?;
        let done = work(self.connection(&mut place)?);
        if done.as_ref().is_err_and(|error| error.kind == ErrorKind::Corrupt) {
            self.note(Condition::Lost);
        }
        done
    }

    /// Runs `work` in a transaction that holds the write lock from its start, and commits it
    /// with full sync: when this returns Ok, the rows are on disk.
    pub fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let done = self.transact(work);
        match done.as_ref().map_err(|error| error.kind) {
            Ok(_) => self.note(Condition::Good),
            Err(ErrorKind::Corrupt) => self.note(Condition::Lost),
            Err(ErrorKind::DiskFull) => self.note(Condition::DiskFull),
            Err(ErrorKind::Internal) => self.note(Condition::Failed),
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
                // Where the disk was full before the last byte, or the log was locked, nothing of
                // it can be read after a crash.
                let undone = matches!(
                    e.sqlite_error_code(),
                    Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
                );
                Err(StoreError { in_doubt: !undone, ..e.into() })
            }
        }
    }

    /// What is written to a file that was moved away or replaced is lost with it.
    fn refuse_if_lost(&self) -> Result<()> {
        let other = match self.opened {
            Some(opened) => self.source.file_ids()? != opened,
            None => false,
        };
        if other || !self.has_mark()? {
            self.note(Condition::Lost);
        }
        match *lock(&self.condition) {
            Condition::Lost => Err(StoreError::unusable(
                "the server cannot write its database any more: its operator must look at the log",
            )),
            _ => Ok(()),
        }
    }

    /// From now on the writer waits no longer than this for another process.
    pub fn wait_at_most(&self, wait: Duration) -> Result<()> {
        let mut place = self.writer.take(wait).ok_or_else(StoreError::busy)?;
        Ok(self.connection(&mut place)?.busy_timeout(wait)?)
    }

    /// False if the file was written over in place. It changes by checkpoints, of whichever
    /// process; then its mark is looked at, without the log.
    fn has_mark(&self) -> Result<bool> {
        let mut marked = lock(&self.marked);
        let Some(Marked { mark, stamp }) = marked.as_mut() else { return Ok(true) };
        let now = self.source.stamp()?;
        if *stamp != now {
            let sql = "SELECT value FROM server_state WHERE name = 'run'";
            let found = connect_immutable(self.source.path())
                .and_then(|alone| query_opt(&alone, sql, [], |row| row.get(0)));
            match found {
                // A checkpoint that a reader held up leaves pages that fit only with the log's; the
                // next one mends that, and needs writes. Asked again at each until then.
                Err(e) if e.kind == ErrorKind::Corrupt && self.source.is_sqlite()? => {}
                Err(_) => return Err(StoreError::busy()),
                Ok(found) if found.as_ref() != Some(mark) => return Ok(false),
                Ok(_) => *stamp = now,
            }
        }
        Ok(true)
    }

    /// Copies the write-ahead log into the database; TRUNCATE waits for readers and empties it.
    pub fn checkpoint(&self, mode: &str) -> Result<()> {
        self.refuse_if_lost()?;
        let mut place = self.writer.take(WAIT).ok_or_else(StoreError::busy)?;
        let writer = self.connection(&mut place)?;
        Ok(writer.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?)
    }

    fn connection<'a>(&self, place: &'a mut PoolGuard<Connection>) -> Result<&'a mut Connection> {
        match &mut place.value {
            Some(connection) => Ok(connection),
            empty => Ok(empty.insert(self.source.connect()?)),
        }
    }
}

impl Source {
    /// The database of a read-only medium with its log, which must not be read apart.
    fn copy(data: &DataDir) -> Result<Source> {
        let dir = std::env::temp_dir().join(format!("configsync-{}", RandomId::draw()?));
        let failed = |e| StoreError::io("copy the database to", &dir, e);
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(failed)?;
        // From here on it is removed on drop.
        let copy = Source::Copy(dir.join(DATABASE));
        for name in [DATABASE, WAL] {
            fs::copy(data.path().join(name), dir.join(name)).map_err(failed)?;
        }
        Ok(copy)
    }

    fn path(&self) -> &Path {
        let (Source::InPlace(path) | Source::Immutable(path) | Source::Copy(path)) = self;
        path
    }

    fn connect(&self) -> Result<Connection> {
        match self {
            Source::Immutable(path) => connect_immutable(path),
            _ => connect(self.path()),
        }
    }

    /// A look at the paths, and not below the descriptor of the folder, since SQLite opens its
    /// files by them.
    fn file_ids(&self) -> Result<[FileId; 3]> {
        let id = |name: &str| {
            let stat = look(&self.path().with_file_name(name))?;
            Ok::<_, StoreError>(stat.map(|stat| (stat.st_dev, stat.st_ino)))
        };
        Ok([id(DATABASE)?, id(WAL)?, id(SHM)?])
    }

    /// Whether the file begins as SQLite's do, whatever follows.
    fn is_sqlite(&self) -> Result<bool> {
        let mut start = [0; MAGIC.len()];
        parent(self.path())
            .and_then(|dir| dir.open_regular(DATABASE)?.read_exact(&mut start))
            .map_err(|e| StoreError::io("read", self.path(), e))?;
        Ok(start == *MAGIC)
    }

    fn stamp(&self) -> Result<Stamp> {
        let stat = look(self.path())?;
        let missing = || StoreError::unusable(format!("{} is gone", self.path().display()));
        stat.map(|stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec)).ok_or_else(missing)
    }
}

fn look(path: &Path) -> Result<Option<rustix::fs::Stat>> {
    match lstat(path) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(StoreError::io("look at", path, e.into())),
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Source::Copy(path) = self
            && let Some(dir) = path.parent()
        {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

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
    connection: &Connection, what: &str, sql: &str, values: impl Params,
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
    connection: &Connection, what: &str, sql: &str, values: impl Params,
) -> Result<()> {
    match execute(connection, sql, values)? {
        0 => Err(StoreError::missing(what)),
        _ => Ok(()),
    }
}

/// A path as SQLite takes it.
pub fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| StoreError::unusable(format!("{} is not UTF-8", path.display())))
}

/// Opens a database for reading and writing, which no link may lead to.
pub fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let flags = flags | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    prepared(Connection::open_with_flags(path, flags)?)
}

/// Opens a database that nobody writes: needs no files for locks, which a read-only medium could
/// not take.
pub fn connect_immutable(path: &Path) -> Result<Connection> {
    let escaped = utf8(path)?.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    prepared(Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)?)
}

fn prepared(connection: Connection) -> Result<Connection> {
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
