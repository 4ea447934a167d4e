//! The Unix socket between the gate and the application.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::Store;
use super::data_dir::{RUN, SOCKET};
use super::dir::{Dir, TempFolder};
use super::error::Result;

/// The path of the socket; the socket is unlinked on drop.
pub struct PrivateSocket {
    /// Valid in this process, while this value lives.
    pub path: PathBuf,
    dir: Dir,
    /// A temporary folder that was made for the socket alone.
    _temp: Option<TempFolder>,
}

impl Store {
    /// Listens in `run/` or, if the file system has no sockets, in a new folder of mode 0700 in the
    /// system's temporary folder.
    pub fn listen_privately(&self) -> Result<(UnixListener, PrivateSocket)> {
        let root = &self.data.root;
        PrivateSocket::bind(root.dir(RUN)?, None).or_else(|reason| {
            let failed = |e| root.error("make a socket in", RUN, e);
            let Ok(temp) = TempFolder::new() else { return Err(failed(reason)) };
            PrivateSocket::bind(temp.0.dir(".")?, Some(temp)).map_err(failed)
        })
    }
}

impl PrivateSocket {
    fn bind(dir: Dir, temp: Option<TempFolder>) -> io::Result<(UnixListener, PrivateSocket)> {
        // Through the descriptor, since a socket address has no room for a long path.
        let path: PathBuf = format!("/proc/self/fd/{}/{SOCKET}", dir.file.as_raw_fd()).into();
        Ok((UnixListener::bind(&path)?, PrivateSocket { path, dir, _temp: temp }))
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        let _ = self.dir.unlink(SOCKET);
    }
}
