//! `export`: everything as plain files with a JSON index, so that nobody is locked in.

use std::fs::{self, DirBuilder, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::Args;
use super::{CliError, Done, open_store, print, progress};
use crate::store::backup::{partial_of, refuse_destination};
use crate::store::entities::{Kind, Target};
use crate::store::snapshots::Selector;
use crate::store::{Caller, Result, Store, StoreError};

/// Rows that are read at once.
const PAGE_ROWS: usize = 1000;

pub fn run(mut args: Args) -> Done {
    let only = args.value("--user")?.map(|user| user.email()).transpose()?;
    let dest = args.positional("DEST")?;
    let store = open_store(args)?;
    let users = store.users(only.as_ref())?;
    let to: PathBuf = Path::new(&dest.text).components().collect();
    refuse_destination(store.folder(), &to, false)?;
    // It takes its name when it is whole.
    let root = partial_of(&to);
    if root.exists() {
        return Err(CliError::Failed(format!(
            "{} is left of an export that was cut off: remove it",
            root.display()
        )));
    }
    make(&root)?;
    let mut report = progress("exported");
    let (files, bytes, damaged) = (0, 0, Vec::new());
    let mut export = Export { store: &store, root, files, bytes, damaged, report: &mut report };
    let done = users.iter().try_for_each(|who| export.user(who));
    let done = done.and_then(|()| {
        fs::rename(&export.root, &to).map_err(|e| StoreError::io("rename", &export.root, e))
    });
    if done.is_err() {
        let _ = fs::remove_dir_all(&export.root);
    }
    done?;
    let Export { files, bytes, damaged, .. } = export;
    print(format_args!("{files} files of {bytes} bytes in {}\n", dest.text))?;
    for sentence in &damaged {
        print(format_args!("left out: {sentence}\n"))?;
    }
    match damaged.len() {
        0 => Ok(()),
        n => Err(CliError::Failed(format!("{n} damaged files were left out"))),
    }
}

struct Export<'a> {
    store: &'a Store,
    root: PathBuf,
    files: u64,
    bytes: u64,
    damaged: Vec<String>,
    report: &'a mut dyn FnMut(u64, u64),
}

impl Export<'_> {
    /// One user: the files, and the index that speaks of them.
    fn user(&mut self, who: &Caller) -> Result<()> {
        let dir = self.root.join(format!("user-{}", who.id));
        make(&dir)?;
        make(&dir.join("snapshots"))?;
        let path = dir.join("index.json");
        let file = File::create_new(&path).map_err(|e| StoreError::io("create", &path, e))?;
        let mut index = BufWriter::new(file);
        let failed = |e| StoreError::io("write", &path, e);
        let user = json!({ "id": who.id, "email": who.email });
        let machines = self.store.machines(who.id, true)?.join(",\n");
        let environments = self.store.environments(who.id)?.join(",\n");
        write!(
            index,
            "{{\"user\":{user},\n\"machines\":[{machines}],\n\"environments\":[{environments}],\n\
             \"snapshots\":["
        )
        .map_err(failed)?;
        self.snapshots(who, &dir, |row| write!(index, "{row}").map_err(failed))?;
        write!(index, "],\n\"entities\":[").map_err(failed)?;
        let mut separator = "";
        for kind in Kind::ALL {
            for entity in self.store.entities(who.id, kind, None)? {
                let row = self.entity(who, kind, &entity, &dir)?;
                write!(index, "{separator}{row}").map_err(failed)?;
                separator = ",\n";
            }
        }
        writeln!(index, "]}}").map_err(failed)?;
        index.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)
    }

    fn snapshots(
        &mut self, who: &Caller, dir: &Path, mut write: impl FnMut(String) -> Result<()>,
    ) -> Result<()> {
        let mut which = Selector::default();
        let mut separator = "";
        loop {
            let (rows, next) = self.store.history(who.id, &which, PAGE_ROWS)?;
            for row in rows {
                let Some(id) = number(&row, "id") else { continue };
                let name = format!("snapshots/{id}.bin");
                let only = Selector { id: Some(id), ..Selector::default() };
                let opened = self.store.snapshot(who.id, &only).and_then(|snapshot| {
                    Ok((self.store.open_snapshot(&snapshot)?, snapshot.blob.size))
                });
                let file = self.save(opened, &dir.join(&name))?.then_some(name);
                write(format!("{separator}{}", with(&row, "file", &json!(file).to_string())))?;
                separator = ",\n";
            }
            match next {
                Some(_) => which.before = next,
                None => return Ok(()),
            }
        }
    }

    fn entity(&mut self, who: &Caller, kind: Kind, row: &str, dir: &Path) -> Result<String> {
        let id = number(row, "id").unwrap_or_default();
        let target = Target { who, kind, id };
        let folder = format!("{}-{id}", kind.0);
        make(&dir.join(&folder))?;
        let mut versions = Vec::new();
        for version in self.store.versions(target)? {
            let n = number(&version, "version");
            let name = format!("{folder}/v{}.bin", n.unwrap_or_default());
            let opened = self.store.open_version(target, n);
            let file = self.save(opened, &dir.join(&name))?.then_some(name);
            versions.push(with(&version, "file", &json!(file).to_string()));
        }
        let key = json!(self.store.entity(target)?.wrapped_dek).to_string();
        let mut row = with(&with(row, "kind", &json!(kind.0).to_string()), "wrapped_dek", &key);
        row = with(&row, "versions", &format!("[{}]", versions.join(",\n")));
        if kind == Kind::PROJECT {
            let variables = self.store.variables(target, None, None)?.join(",\n");
            let keys = self.store.layer_keys(target, None)?.join(",\n");
            row = with(&row, "variables", &format!("[{variables}]"));
            row = with(&row, "layer_keys", &format!("[{keys}]"));
        }
        Ok(row)
    }

    /// Copies a verified file. False if it is damaged, which is noted, or was pruned since its row
    /// was read.
    fn save(&mut self, opened: Result<(File, u64)>, to: &Path) -> Result<bool> {
        let (mut from, size) = match opened {
            Ok(opened) => opened,
            Err(StoreError::Missing(_)) => return Ok(false),
            Err(error @ StoreError::Damaged { .. }) => {
                self.damaged.push(error.to_string());
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let copied = File::create_new(to).and_then(|mut file| std::io::copy(&mut from, &mut file));
        copied.map_err(|e| StoreError::io("write", to, e))?;
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        (self.report)(self.files, self.bytes);
        Ok(true)
    }
}

/// The JSON object `row` with one more member, whose value is JSON too.
fn with(row: &str, member: &str, value: &str) -> String {
    format!("{},\"{member}\":{value}}}", row.strip_suffix('}').unwrap_or(row))
}

fn number(row: &str, member: &str) -> Option<i64> {
    serde_json::from_str::<serde_json::Value>(row).ok()?.get(member)?.as_i64()
}

fn make(dir: &Path) -> Result<()> {
    let made = match fs::symlink_metadata(dir) {
        Ok(_) => Err(std::io::ErrorKind::AlreadyExists.into()),
        Err(_) => DirBuilder::new().mode(0o700).create(dir),
    };
    made.map_err(|e| StoreError::io("create", dir, e))
}
