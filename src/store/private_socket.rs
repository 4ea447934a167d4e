//! The Unix socket between the gate and the application.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::Store;
use super::data_dir::{RUN, SOCKET};
use super::dir::Dir;
use super::error::Result;
use crate::util::types::RandomId;

/// Where the socket is; it is removed on drop.
pub struct PrivateSocket {
    dir: Dir,
    path: PathBuf,
    /// A folder that was made for the socket alone.
    made: Option<PathBuf>,
}

impl Store {
    /// Listens in `run/`, or, where the file system has no sockets, in a new folder of mode 0700 in
    /// the system's temporary folder.
    pub fn listen_privately(&self) -> Result<(UnixListener, PrivateSocket)> {
        let run = self.data.root().dir(RUN)?;
        let reason = match PrivateSocket::bind(run, None) {
            Ok(bound) => return Ok(bound),
            Err(reason) => self.data.root().error("make a socket in", RUN, reason),
        };
        let temp = Dir::open(&std::env::temp_dir()).map_err(|_| reason)?;
        let name = format!("configsync-{}", RandomId::draw()?);
        let dir = temp.make_dir(&name)?;
        let made = dir.path().to_owned();
        PrivateSocket::bind(dir, Some(made)).map_err(|e| temp.error("make a socket in", &name, e))
    }
}

impl PrivateSocket {
    fn bind(dir: Dir, made: Option<PathBuf>) -> io::Result<(UnixListener, PrivateSocket)> {
        // By way of the descriptor, since the path of a socket has no room for a long one.
        let path: PathBuf = format!("/proc/self/fd/{}/{SOCKET}", dir.file().as_raw_fd()).into();
        let listener = UnixListener::bind(&path)?;
        Ok((listener, PrivateSocket { dir, path, made }))
    }

    /// Its path in this process, while this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        let _ = self.dir.unlink(SOCKET);
        if let Some(made) = &self.made {
            let _ = std::fs::remove_dir(made);
        }
    }
}
