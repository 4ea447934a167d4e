//! The data folder: its contents, its locks, and who may use it. Only what this program made is
//! ours: an entry with a name that this program does not give is never moved, changed or deleted.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::dir::{Dir, is_file};
use super::error::{Result, StoreError};
use crate::util::limits::SERVER_LOCK_WAIT_MS;
use crate::util::types::RandomId;

/// The SQLite database.
pub const DATABASE: &str = "configsync.db";
/// Its write-ahead log.
pub const WAL: &str = "configsync.db-wal";
/// The shared-memory index of the WAL, with the locks of every process that uses the database.
pub const SHM: &str = "configsync.db-shm";
/// Stored files, in 256 sub-folders.
pub const SNAPSHOTS: &str = "snapshots";
/// Uploads in progress, and responses that wait for their reader.
pub const TMP: &str = "tmp";
/// Files without a row, moved here by a start.
pub const ORPHANS: &str = "orphans";
/// Private sockets.
pub const RUN: &str = "run";
/// The socket between the gate and the application.
pub const SOCKET: &str = "http.sock";
/// Made by `mkfs` in the root of a volume; ignored.
pub const LOST_AND_FOUND: &str = "lost+found";
/// The time of the last off-site copy, written by its script.
pub const OFFSITE_LAST: &str = "offsite.last";
/// The key that signs JWTs.
pub const KEY: &str = "jwt.key";
/// Space kept back for a command on a full disk.
pub const RESERVE: &str = "reserve";
const BACKUP_LOCK: &str = "backup.lock";
/// All files that SQLite creates.
const DATABASE_FILES: [&str; 4] = [DATABASE, WAL, SHM, "configsync.db-journal"];
/// All other entries of a data folder.
const OTHERS: [&str; 9] =
    [SNAPSHOTS, TMP, ORPHANS, RUN, KEY, RESERVE, BACKUP_LOCK, OFFSITE_LAST, LOST_AND_FOUND];
/// Lock files of an earlier version.
const OLD_LOCKS: [&str; 2] = ["server.lock", "upgrade.lock"];

/// An open data folder.
pub struct DataDir {
    pub root: Dir,
}

impl DataDir {
    /// Opens an existing data folder for a command.
    pub fn open(root: &Path) -> Result<DataDir> {
        let data = DataDir::of_backup(root)?;
        data.refuse_foreign_root()?;
        Ok(data)
    }

    /// Opens a backup. It is only read, so any user may own it.
    pub fn of_backup(root: &Path) -> Result<DataDir> {
        let data = DataDir::at(root)?;
        data.refuse_links()?;
        match data.root.lstat(DATABASE)? {
            Some(stat) if stat.st_size > 0 => Ok(data),
            _ => Err(no_data_folder(root)),
        }
    }

    /// Opens a folder that may not be a data folder yet.
    pub fn at(root: &Path) -> Result<DataDir> {
        let root = Dir::open(root).map_err(|e| match e.kind() {
            ErrorKind::NotFound => no_data_folder(root),
            ErrorKind::PermissionDenied => {
                let owner = std::fs::metadata(root).map_or(0, |metadata| metadata.uid());
                let path = root.display();
                StoreError::unusable(match owner == 0 || owner == geteuid().as_raw() {
                    true => format!("could not open the data folder {path}: {e}"),
                    false => format!("{path} is another user's; run {}", command_of(owner)),
                })
            }
            _ => StoreError::io("open the data folder", root, e),
        })?;
        Ok(DataDir { root })
    }

    /// Opens a server's folder and locks it for the lifetime of this value. A missing or empty
    /// folder becomes a data folder; then this returns true.
    pub fn start(root: &Path) -> Result<(DataDir, bool)> {
        make_folders(root)?;
        let data = DataDir::at(root)?;
        data.refuse_foreign_root()?;
        data.refuse_links()?;
        let database = data.root.lstat(DATABASE)?;
        let new = database.is_none_or(|stat| stat.st_size == 0);
        if new {
            data.refuse_used(database.is_some())?;
        }
        data.lock_server(Duration::from_millis(SERVER_LOCK_WAIT_MS))?;
        if database.is_none() {
            // Created first: from here on the folder counts as a data folder.
            data.root.create(DATABASE)?;
            data.root.sync()?;
        }
        Ok((data, new))
    }

    /// Refuses a folder without a database, or with an empty one, that contains anything else. An
    /// interrupted first start leaves an empty database, with nothing beside it but files of
    /// SQLite. A volume may come with `lost+found`.
    fn refuse_used(&self, has_database: bool) -> Result<()> {
        let (why, ours) = match has_database {
            true => ("has files, but its configsync.db is empty", &DATABASE_FILES[..]),
            false => ("is not empty and has no configsync.db", &[][..]),
        };
        let is_known = |name: &String| name == LOST_AND_FOUND || ours.contains(&&**name);
        if self.root.names()?.iter().all(is_known) {
            return Ok(());
        }
        Err(StoreError::unusable(format!(
            "{} {why}: name a data folder, or an empty or new one, with --data; a lost database is \
             put back from a backup (see `configsync-server restore --help`)",
            self.root.path.display()
        )))
    }

    /// Refuses anything but regular files: SQLite opens its files by path, and follows a symbolic
    /// link in place of its WAL.
    fn refuse_links(&self) -> Result<()> {
        for name in DATABASE_FILES {
            if self.root.lstat(name)?.is_some_and(|stat| !is_file(&stat)) {
                let path = self.root.path.join(name);
                let why = format!("{} is not a regular file: move it away", path.display());
                return Err(StoreError::unusable(why));
            }
        }
        Ok(())
    }

    /// Refuses root in another user's folder: that user could not open the files that root creates.
    pub fn refuse_foreign_root(&self) -> Result<()> {
        let owner = self.root.metadata()?.uid();
        if owner == 0 || !geteuid().is_root() {
            return Ok(());
        }
        Err(StoreError::unusable(format!(
            "{} belongs to another user, whom root's files would lock out; run this instead: {}",
            self.root.path.display(),
            command_of(owner)
        )))
    }

    /// Creates missing folders, and closes all folders to other users.
    pub fn create_missing(&self) -> Result<()> {
        make_private(&self.root)?;
        for name in [SNAPSHOTS, TMP, ORPHANS, RUN] {
            make_private(&self.root.make_dir(name)?)?;
        }
        // All sub-folders are created and synced now, so that no push uses one that another push
        // has just created and not synced.
        let snapshots = self.snapshots()?;
        for shard in shards() {
            snapshots.make_dir(&shard)?;
        }
        snapshots.sync()?;
        self.root.sync()?;
        match snapshots.metadata()?.dev() == self.tmp()?.metadata()?.dev() {
            true => Ok(()),
            false => Err(StoreError::unusable(format!(
                "{TMP}/ and {SNAPSHOTS}/ in {} must be on one file system: an upload could not be \
                 renamed into its place",
                self.root.path.display()
            ))),
        }
    }

    /// Runs `work`, which frees space or only opens the database. If the disk is so full that not
    /// even the WAL or its index has room, deletes the reserve and runs `work` again.
    pub fn with_reserve<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        let done = work();
        let full = done.as_ref().is_err_and(|e| e.kind == super::ErrorKind::DiskFull);
        if full && self.root.unlink(RESERVE)? { work() } else { done }
    }

    /// Removes `snapshots/` with all files that have names of this program.
    pub fn remove_stored(&self) -> Result<()> {
        self.each_shard(|shard_name, shard, names| {
            for name in names.iter().filter(|name| RandomId::parse(name).is_some()) {
                shard.unlink(name)?;
            }
            self.snapshots()?.unlink_dir(shard_name).map(drop)
        })?;
        self.root.unlink_dir(SNAPSHOTS).map(drop)
    }

    /// Removes what was in progress when the last server ended: none of it was acknowledged.
    /// Foreign entries stay; returns their names.
    pub fn remove_leftovers(&self) -> Result<Vec<String>> {
        for lock in OLD_LOCKS {
            if self.root.lstat(lock)?.is_some_and(|stat| is_file(&stat)) {
                self.root.unlink(lock)?;
            }
        }
        let mut foreign = self.root.names()?;
        foreign.retain(|name| !DATABASE_FILES.contains(&&**name) && !OTHERS.contains(&&**name));
        let shards: Vec<_> = shards().collect();
        let beside = self.snapshots()?.names()?.into_iter().filter(|name| !shards.contains(name));
        foreign.extend(beside.map(|name| format!("{SNAPSHOTS}/{name}")));
        for folder in [TMP, RUN] {
            let dir = self.root.dir(folder)?;
            for name in dir.names()? {
                let is_socket = |stat: Stat| FileType::from_raw_mode(stat.st_mode).is_socket();
                let stale = name == SOCKET && dir.lstat(&name)?.is_some_and(is_socket);
                if stale || dir.lstat_ours(&name)?.is_some() {
                    dir.unlink(&name)?;
                } else {
                    foreign.push(format!("{folder}/{name}"));
                }
            }
        }
        Ok(foreign)
    }

    pub fn snapshots(&self) -> Result<Dir> {
        self.root.dir(SNAPSHOTS)
    }

    pub fn tmp(&self) -> Result<Dir> {
        self.root.dir(TMP)
    }

    /// The sub-folder that holds a file: `snapshots/3f`.
    pub fn shard(&self, file: RandomId) -> Result<Dir> {
        self.snapshots()?.dir(shard_of(file).as_str())
    }

    /// Opens a stored file; returns the system's error if that fails.
    pub fn open_stored(&self, file: RandomId) -> io::Result<File> {
        let snapshots = self.root.open_dir(SNAPSHOTS)?;
        snapshots.open_dir(&shard_of(file))?.open_regular(&file.to_string())
    }

    /// Calls `work` for each sub-folder of `snapshots/` with its name, its handle and the names in
    /// it.
    pub fn each_shard(
        &self, mut work: impl FnMut(&str, &Dir, Vec<String>) -> Result<()>,
    ) -> Result<()> {
        if self.root.lstat(SNAPSHOTS)?.is_none() {
            return Ok(());
        }
        let snapshots = self.snapshots()?;
        for name in shards() {
            if snapshots.lstat(&name)?.is_some() {
                let shard = snapshots.dir(&name)?;
                work(&name, &shard, shard.names()?)?;
            }
        }
        Ok(())
    }

    /// True if this process can change the folder; false on a read-only medium or without
    /// permission.
    pub fn is_writable(&self) -> Result<bool> {
        let access = rustix::fs::Access::WRITE_OK;
        for name in [".", DATABASE] {
            match rustix::fs::accessat(&self.root.file, name, access, AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => return Ok(false),
                Err(e) => return Err(self.root.error("look at", name, e.into())),
            }
        }
        Ok(true)
    }

    /// Takes the one-server lock. It is on the folder itself, since a lock file could be removed.
    /// It lasts as long as the folder is open, and ends with the process, however that ends.
    pub fn lock_server(&self, wait: Duration) -> Result<()> {
        let end = Instant::now() + wait;
        while !self.lock(&self.root.file, FlockOperation::NonBlockingLockExclusive)? {
            if Instant::now() >= end {
                let path = self.root.path.display();
                let why = format!("another configsync-server is running on {path}");
                return Err(StoreError::unusable(why));
            }
            std::thread::sleep(Duration::from_millis(SERVER_LOCK_WAIT_MS / 40));
        }
        Ok(())
    }

    /// True while another process holds the one-server lock. The probe is a shared lock that is
    /// dropped at once, so that a server that starts meanwhile gets its own.
    pub fn server_runs(&self) -> Result<bool> {
        let again = self.root.dir(".")?;
        Ok(!self.lock(&again.file, FlockOperation::NonBlockingLockShared)?)
    }

    /// Held by a backup while it copies, so that no file is unlinked before it is copied. None on a
    /// read-only medium without a lock file, where nothing is unlinked.
    pub fn lock_for_backup(&self) -> Result<Option<File>> {
        if !self.is_writable()? && self.root.lstat(BACKUP_LOCK)?.is_none() {
            return Ok(None);
        }
        self.lock_backup(FlockOperation::LockShared)
    }

    /// Held while files are unlinked; None while a backup copies or another process unlinks.
    pub fn lock_for_unlink(&self) -> Result<Option<File>> {
        self.lock_backup(FlockOperation::NonBlockingLockExclusive)
    }

    fn lock_backup(&self, operation: FlockOperation) -> Result<Option<File>> {
        let file = self.root.open_file(BACKUP_LOCK, OFlags::RDONLY | OFlags::CREATE)?;
        Ok(self.lock(&file, operation)?.then_some(file))
    }

    /// False if another process holds the lock.
    fn lock(&self, file: &File, operation: FlockOperation) -> Result<bool> {
        match rustix::io::retry_on_intr(|| flock(file, operation)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(StoreError::unusable(format!(
                "{} cannot be locked ({e}), so two servers could run on it: use a local file system",
                self.root.path.display()
            ))),
        }
    }
}

/// The names of the sub-folders of `snapshots/`.
fn shards() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|n| format!("{n:02x}"))
}

/// The name of the sub-folder that holds a file.
pub fn shard_of(file: RandomId) -> String {
    format!("{:02x}", file.0 >> 120)
}

pub fn make_private(dir: &Dir) -> Result<()> {
    match dir.metadata()?.mode() & 0o077 {
        0 => Ok(()),
        _ => fchmod(&dir.file, Mode::RWXU).map_err(|e| dir.error("close to others", "", e.into())),
    }
}

/// Creates a folder of mode 0700 and syncs its parent. Returns false if it already existed.
pub fn make_folder(path: &Path) -> Result<bool> {
    let failed = |e| StoreError::io("create the folder", path, e);
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(false),
        made => made.map_err(failed)?,
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let synced = File::open(parent.unwrap_or(Path::new("."))).and_then(|parent| parent.sync_all());
    synced.map_err(|e| {
        let _ = std::fs::remove_dir(path);
        failed(e)
    })?;
    Ok(true)
}

/// Creates a folder and its missing ancestors, each as [`make_folder`] does.
pub fn make_folders(path: &Path) -> Result<()> {
    let mut above: Vec<_> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
    while let Some(path) = above.pop() {
        make_folder(path)?;
    }
    Ok(())
}

/// The command line that runs this program as another user.
fn command_of(user: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == user.to_string()).then_some(name)
    });
    let name = name.map_or_else(|| format!("'#{user}'"), str::to_owned);
    format!("sudo -u {name} configsync-server …")
}

fn no_data_folder(root: &Path) -> StoreError {
    StoreError::unusable(format!(
        "{} is not a data folder, nor a backup (it has no {DATABASE}): name one with --data, or make \
         one with `configsync-server serve`",
        root.display()
    ))
}
