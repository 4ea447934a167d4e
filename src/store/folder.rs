//! The data folder: its layout, its modes, its one-server lock and what a start tidies up.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink,
};
use std::path::{Path, PathBuf};

use super::error::{Result, StoreError};
use super::migrations;
use crate::util::limits::SOCKET_PATH_BYTES_MAX;
use crate::util::types::RandomId;

/// A data folder by its root.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder at this path, whatever is there.
    pub(super) fn at(root: &Path) -> Folder {
        Folder { root: root.to_owned() }
    }

    /// An existing data folder: one that has a `configsync.db`.
    pub fn existing(root: &Path) -> Result<Folder> {
        let folder = Folder::at(root);
        match folder.has_database() {
            true => Ok(folder),
            false => Err(StoreError::unusable(format!(
                "{} is no data folder (it has no configsync.db): name one with --data, \
                 or make one with `configsync-server serve`",
                root.display()
            ))),
        }
    }

    /// True if there is a database that anything was ever written to.
    fn has_database(&self) -> bool {
        self.database().metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
    }

    /// Refuses what a server must not touch: a database of a newer schema, and snapshots whose
    /// database is gone, all of which a start would set aside.
    pub fn refuse_to_start(&self) -> Result<()> {
        if self.has_database() {
            return migrations::refuse_newer(&self.database());
        }
        let stored = self.snapshots().is_dir() && {
            let files = self.snapshot_files()?;
            files.iter().any(|(_, name)| name.is_some())
        };
        match stored {
            false => Ok(()),
            true => Err(StoreError::unusable(format!(
                "{} has snapshots but no database: put configsync.db back from a backup (see \
                 `configsync-server restore --help`), or move snapshots/ away to begin anew",
                self.root.display()
            ))),
        }
    }

    /// Makes what is missing. Uploads and snapshots must share a file system, or a rename is no
    /// rename.
    pub fn create(root: &Path) -> Result<Folder> {
        let folder = Folder::at(root);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|e| StoreError::io("create the data folder", root, e))?;
        // Synced together, below.
        for dir in [folder.snapshots(), folder.tmp(), folder.run(), folder.lost_and_found()] {
            ensure_dir(&dir)?;
        }
        sync_dir(root)?;
        let device = |path: &Path| {
            fs::metadata(path).map(|m| m.dev()).map_err(|e| StoreError::io("look at", path, e))
        };
        if device(&folder.tmp())? != device(&folder.snapshots())? {
            return Err(StoreError::unusable(format!(
                "{} and {} must be on one file system: an upload could not be renamed into place",
                folder.tmp().display(),
                folder.snapshots().display()
            )));
        }
        Ok(folder)
    }

    /// Closes to others what stands open to them: folders 0700, files 0600. What else lies here,
    /// perhaps by mistake, is left as it is.
    pub fn close_to_others(&self) -> Result<()> {
        const OURS: [&str; 8] = [
            "jwt.key", "server.lock", "backup.lock", "upgrade.lock", "snapshots", "tmp", "run",
            "lost+found",
        ];
        fs::set_permissions(&self.root, Permissions::from_mode(0o700))
            .map_err(|e| StoreError::io("close to others", &self.root, e))?;
        for entry in list(&self.root)? {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            if OURS.contains(&&*name) || name.starts_with("configsync.db") {
                close_to_others(&entry, name == "snapshots")?;
            }
        }
        Ok(())
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The SQLite database.
    pub fn database(&self) -> PathBuf {
        self.root.join("configsync.db")
    }

    /// Snapshot files, in 256 sub-folders.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Uploads under way.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Private sockets.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Files that a start found without a row.
    pub fn lost_and_found(&self) -> PathBuf {
        self.root.join("lost+found")
    }

    /// The key that signs JWTs.
    pub fn jwt_key(&self) -> PathBuf {
        self.root.join("jwt.key")
    }

    /// The file of a snapshot: `snapshots/3f/3f…`.
    pub fn snapshot(&self, name: RandomId) -> PathBuf {
        let name = name.to_string();
        self.snapshots().join(name.get(..2).unwrap_or_default()).join(name)
    }

    /// Takes the one-server lock; it lasts as long as the returned file is open, and ends with
    /// the process, however that ends.
    pub fn lock_server(&self) -> Result<File> {
        self.try_lock("server.lock")?.ok_or_else(|| {
            let root = self.root.display();
            StoreError::unusable(format!("another configsync-server is running on {root}"))
        })
    }

    /// Held by a backup while it copies, so that no file it is about to copy vanishes.
    pub fn lock_for_backup(&self) -> Result<File> {
        let path = self.root.join("backup.lock");
        let file = private_file(&path)?;
        file.lock_shared().map_err(|e| StoreError::io("lock", &path, e))?;
        Ok(file)
    }

    /// Held while files are unlinked; None while a backup copies.
    pub fn lock_for_unlink(&self) -> Result<Option<File>> {
        self.try_lock("backup.lock")
    }

    /// Held while the schema is upgraded.
    pub fn lock_for_upgrade(&self) -> Result<File> {
        let path = self.root.join("upgrade.lock");
        let file = private_file(&path)?;
        file.lock().map_err(|e| StoreError::io("lock", &path, e))?;
        Ok(file)
    }

    fn try_lock(&self, name: &str) -> Result<Option<File>> {
        let path = self.root.join(name);
        let file = private_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(StoreError::io("lock", &path, e)),
        }
    }

    /// True while another process holds the one-server lock.
    pub fn server_runs(&self) -> bool {
        matches!(self.try_lock("server.lock"), Ok(None))
    }

    /// Reads the JWT key, or makes it: 32 random bytes, on disk before they are used.
    pub fn load_jwt_key(&self) -> Result<[u8; 32]> {
        let path = self.jwt_key();
        if !path.exists() {
            let mut key = [0; 32];
            getrandom::fill(&mut key)?;
            let fresh = self.tmp().join("jwt.key");
            let mut file = private_file(&fresh)?;
            file.set_len(0)
                .and_then(|()| file.write_all(&key))
                .and_then(|()| file.sync_all())
                .and_then(|()| fs::rename(&fresh, &path))
                .map_err(|e| StoreError::io("write", &path, e))?;
            sync_dir(&self.root)?;
        }
        let bytes = fs::read(&path).map_err(|e| StoreError::io("read", &path, e))?;
        bytes.try_into().map_err(|_| {
            StoreError::unusable(format!(
                "{} must hold 32 bytes; remove it to make a new one (every JWT then ends)",
                path.display()
            ))
        })
    }

    /// Empties `tmp/` and `run/`: nothing there was ever acknowledged.
    pub fn empty_scratch(&self) -> Result<()> {
        for dir in [self.tmp(), self.run()] {
            for entry in list(&dir)? {
                let elsewhere = fs::read_link(&entry).ok().filter(|_| entry.ends_with("elsewhere"));
                if let Some(dir) = elsewhere {
                    let _ = fs::remove_dir_all(dir);
                }
                let done = if entry.is_dir() && !entry.is_symlink() {
                    fs::remove_dir_all(&entry)
                } else {
                    fs::remove_file(&entry)
                };
                done.map_err(|e| StoreError::io("remove", &entry, e))?;
            }
        }
        Ok(())
    }

    /// Every file under `snapshots/`; its name if it is one that this program gives.
    pub fn snapshot_files(&self) -> Result<Vec<(PathBuf, Option<RandomId>)>> {
        let mut files = Vec::new();
        for entry in list(&self.snapshots())? {
            let inner = if entry.is_dir() { list(&entry)? } else { vec![entry] };
            for path in inner {
                let name = path.file_name().and_then(|n| n.to_str()).and_then(RandomId::parse);
                files.push((path, name));
            }
        }
        Ok(files)
    }

    /// Moves what is in `snapshots/` and not in `known` to `lost+found/`; says how many.
    /// Nothing is deleted: with an older database these may be somebody's newest snapshots.
    pub fn move_orphans(&self, known: &HashSet<RandomId>) -> Result<usize> {
        let mut moved = 0;
        for (path, name) in self.snapshot_files()? {
            if name.is_some_and(|name| known.contains(&name) && path == self.snapshot(name)) {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut target = self.lost_and_found().join(&name);
            if target.exists() {
                target = self.lost_and_found().join(format!("{name}.{}", RandomId::draw()?));
            }
            fs::rename(&path, &target).map_err(|e| StoreError::io("move", &path, e))?;
            // Thirty days in lost+found/ count from now, not from the push.
            let now = std::time::SystemTime::now();
            let _ = close_to_others(&target, false);
            let _ = File::open(&target).and_then(|file| file.set_modified(now));
            moved += 1;
        }
        if moved > 0 {
            sync_dir(&self.lost_and_found())?;
        }
        Ok(moved)
    }

    /// A path for a private socket: in `run/`, or, where that is too long for the system, in a
    /// fresh folder of mode 0700 in the system's temporary folder.
    pub fn socket_path(&self, name: &str) -> Result<PathBuf> {
        let path = self.run().join(name);
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return Ok(path);
        }
        let dir = std::env::temp_dir().join(format!("configsync-{}", RandomId::draw()?));
        make_dir(&dir)?;
        // So that the next start finds it, should this one be killed.
        symlink(&dir, self.run().join("elsewhere")).map_err(|e| StoreError::io("link", &dir, e))?;
        Ok(dir.join(name))
    }
}

/// Makes a folder of mode 0700 unless it exists; its parent is synced, so that it stays.
pub fn make_dir(path: &Path) -> Result<()> {
    match ensure_dir(path)? {
        true => sync_dir(parent(path)),
        false => Ok(()),
    }
}

/// True if it was not there.
fn ensure_dir(path: &Path) -> Result<bool> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(e) => Err(StoreError::io("create", path, e)),
    }
}

/// The folder that holds this path.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a rename, creation or removal in `dir` durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| StoreError::io("sync the folder", dir, e))
}

/// Opens a file for writing, made with mode 0600 if it does not exist. One that root makes belongs
/// to the owner of its folder: a command run as root must not lock the server's own user out.
pub fn private_file(path: &Path) -> Result<File> {
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).truncate(false).mode(0o600);
    let failed = |e| StoreError::io("open", path, e);
    let file = open.open(path).map_err(failed)?;
    let (of_file, of_folder) = (file.metadata(), parent(path).metadata());
    if let (Ok(file_is), Ok(folder_is)) = (of_file, of_folder)
        && file_is.len() == 0
        && file_is.uid() != folder_is.uid()
    {
        // Only root may; for others it changes nothing.
        let _ = fchown(&file, Some(folder_is.uid()), Some(folder_is.gid()));
    }
    Ok(file)
}

/// The entries of a folder.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
        .map_err(|e| StoreError::io("list", dir, e))
}

/// Folders 0700 and files 0600. What is in a folder is looked at where `all` says so or the folder
/// stood open: a start must not look at a hundred thousand files. The root of a volume has a
/// `lost+found/` of the system's, closed to us.
fn close_to_others(path: &Path, all: bool) -> Result<()> {
    let tried = || -> io::Result<(bool, bool)> {
        let metadata = fs::symlink_metadata(path)?;
        let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
        let found = metadata.permissions().mode() & 0o777;
        if !metadata.is_symlink() && found != mode {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        Ok((metadata.is_dir(), found & 0o077 != 0))
    };
    let (is_dir, stood_open) = match tried() {
        Ok(found) => found,
        // SQLite takes its own files away when their last user closes them.
        Err(e) if io::ErrorKind::NotFound == e.kind() => return Ok(()),
        Err(e) => return Err(StoreError::io("close to others", path, e)),
    };
    match is_dir && (all || stood_open) {
        true => list(path)?.iter().try_for_each(|entry| close_to_others(entry, stood_open)),
        false => Ok(()),
    }
}
