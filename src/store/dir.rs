//! A folder accessed through its descriptor. Another user may have write access to a data folder
//! that was left open, so nothing here follows a symbolic link inside one: every stat is an lstat,
//! every open has O_NOFOLLOW. A failed lookup is an error, never a "no".

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::{Result, StoreError};
use crate::util::types::RandomId;

/// An open folder. Its entries are accessed by name relative to the descriptor.
pub struct Dir {
    pub file: File,
    /// For messages, and for SQLite, which takes only paths. Contains no symbolic link.
    pub path: PathBuf,
}

impl Dir {
    /// Opens a folder that the operator names, possibly through a symbolic link.
    pub fn open(path: &Path) -> io::Result<Dir> {
        let path = path.canonicalize()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let file = fs::open(&path, flags, Mode::empty())?.into();
        Ok(Dir { file, path })
    }

    pub fn metadata(&self) -> Result<Metadata> {
        self.file.metadata().map_err(|e| self.error("look at", "", e))
    }

    /// Opens a folder in this folder.
    pub fn dir(&self, name: &str) -> Result<Dir> {
        self.open_dir(name).map_err(|e| self.error("open the folder", name, e))
    }

    /// As [`Dir::dir`], but with the system's error, which tells a missing file from a failing
    /// disk.
    pub fn open_dir(&self, name: &str) -> io::Result<Dir> {
        let file = self.open_at(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Dir { file, path: self.path.join(name) })
    }

    /// Opens a folder in this folder; creates it with mode 0700 if it is missing.
    pub fn make_dir(&self, name: &str) -> Result<Dir> {
        match fs::mkdirat(&self.file, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.dir(name),
            Err(e) => Err(self.error("create the folder", name, e.into())),
        }
    }

    /// Opens a file in this folder. If `flags` create it, its mode is 0600.
    pub fn open_file(&self, name: &str, flags: OFlags) -> Result<File> {
        self.open_at(name, flags).map_err(|e| self.error("open", name, e))
    }

    pub fn create(&self, name: &str) -> Result<File> {
        self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    /// Opens a regular file for reading; anything else is an error.
    pub fn open_regular(&self, name: &str) -> io::Result<File> {
        let file = self.open_at(name, OFlags::RDONLY)?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(ErrorKind::InvalidData, "it is not a regular file")),
        }
    }

    fn open_at(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // NONBLOCK: a FIFO in place of a file must not block the server.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(fs::openat(&self.file, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// The lstat of an entry; None if there is no such entry.
    pub fn lstat(&self, name: &str) -> Result<Option<Stat>> {
        match fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.error("look at", name, e.into())),
        }
    }

    /// The lstat of a regular file with a name of this program, 32 hexadecimal digits; else None.
    pub fn lstat_ours(&self, name: &str) -> Result<Option<Stat>> {
        let ours = RandomId::parse(name).is_some();
        Ok(self.lstat(name)?.filter(|stat| ours && is_file(stat)))
    }

    /// The names of all entries. A name that is not UTF-8 is not one of this program's names; it is
    /// returned lossily, for display.
    pub fn names(&self) -> Result<Vec<String>> {
        let listed = fs::Dir::read_from(&self.file).and_then(|dir| dir.collect());
        let entries: Vec<fs::DirEntry> = listed.map_err(|e| self.error("list", "", e.into()))?;
        let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name != "." && name != "..").collect())
    }

    /// Moves a file to another folder of the same file system.
    pub fn rename(&self, name: &str, to: &Dir, new_name: &str) -> Result<()> {
        fs::renameat(&self.file, name, &to.file, new_name)
            .map_err(|e| self.error("rename", name, e.into()))
    }

    /// Unlinks a file; returns false if it did not exist.
    pub fn unlink(&self, name: &str) -> Result<bool> {
        self.remove(name, AtFlags::empty())
    }

    /// Removes an empty folder; returns false if it did not exist.
    pub fn unlink_dir(&self, name: &str) -> Result<bool> {
        self.remove(name, AtFlags::REMOVEDIR)
    }

    fn remove(&self, name: &str, flags: AtFlags) -> Result<bool> {
        match fs::unlinkat(&self.file, name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(self.error("remove", name, e.into())),
        }
    }

    /// Makes created, renamed and removed entries of this folder durable.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| self.error("sync the folder", "", e))
    }

    /// An error that names the operation and the path.
    pub fn error(&self, doing: &str, name: &str, source: io::Error) -> StoreError {
        StoreError::io(doing, &self.path.join(name), source)
    }
}

/// A new folder of mode 0700 in the system's temporary folder; removed on drop with its contents.
pub struct TempFolder(pub Dir);

impl TempFolder {
    pub fn new() -> Result<TempFolder> {
        let path = std::env::temp_dir();
        let temp = Dir::open(&path).map_err(|e| StoreError::io("open the folder", &path, e))?;
        Ok(TempFolder(temp.make_dir(&format!("configsync-{}", RandomId::draw()?))?))
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0.path);
    }
}

/// True for a regular file, false for a folder, a link and everything else.
pub fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}
