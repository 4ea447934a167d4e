//! The key that signs JWTs.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, fchmod};

use super::Store;
use super::data_dir::KEY;
use super::error::{Result, StoreError};
use crate::util::types::RandomId;

impl Store {
    /// Reads the key, or creates it: 32 random bytes, on disk before they are used.
    pub fn jwt_key(&self) -> Result<[u8; 32]> {
        let root = &self.data.root;
        if root.lstat(KEY)?.is_none() {
            let (mut key, name) = ([0; 32], RandomId::draw()?.to_string());
            getrandom::fill(&mut key)?;
            let tmp = self.data.tmp()?;
            let mut file = tmp.create(&name)?;
            let written = file.write_all(&key).and_then(|()| file.sync_all());
            written.map_err(|e| tmp.error("write", &name, e))?;
            tmp.rename(&name, root, KEY)?;
            root.sync()?;
        }
        let opened = root.open_regular(KEY).and_then(|file| {
            if file.metadata()?.mode() & 0o077 != 0 {
                fchmod(&file, Mode::RUSR | Mode::WUSR)?;
            }
            Ok(file)
        });
        let file = opened.map_err(|e| root.error("open", KEY, e))?;
        read_key(file, &root.path.join(KEY))
    }
}

/// Reads a signing key that the operator provides, in a file that is closed to other users.
pub fn provided_jwt_key(path: &Path) -> Result<[u8; 32]> {
    let failed = |e| StoreError::io("read the JWT key", path, e);
    let file = File::open(path).map_err(failed)?;
    match file.metadata().map_err(failed)?.mode() & 0o007 {
        0 => read_key(file, path),
        _ => Err(StoreError::unusable(format!(
            "{} is open to other users, who could sign in as anybody: chmod 600 it, and replace \
             its bytes",
            path.display()
        ))),
    }
}

/// Reads 32 bytes. If all are equal, they are not a key but left by a crash or a wrong command.
fn read_key(file: File, path: &Path) -> Result<[u8; 32]> {
    let mut bytes = Vec::new();
    file.take(33).read_to_end(&mut bytes).map_err(|e| StoreError::io("read", path, e))?;
    let key: Option<[u8; 32]> = bytes.try_into().ok();
    key.filter(|key| key.iter().any(|byte| Some(byte) != key.first())).ok_or_else(|| {
        StoreError::unusable(format!(
            "{} must hold 32 random bytes; remove it to have a new one made (every JWT then ends)",
            path.display()
        ))
    })
}
