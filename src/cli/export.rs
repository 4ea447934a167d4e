//! `export`: everything as plain files with a JSON index, so that nobody is locked in.

use std::fmt::Display;
use std::fs::{self, DirBuilder, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

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
    let (files, bytes, damaged, report) = (0, 0, Vec::new(), &mut progress("exported"));
    let mut export = Export { store: &store, root, files, bytes, damaged, report };
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
        let machines = array(&self.store.machines(who.id, true)?);
        let environments = array(&self.store.environments(who.id)?);
        write!(
            index,
            "{{\"user\":{user},\n\"machines\":{machines},\n\"environments\":{environments},\n\
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
                write(format!("{separator}{}", self.with_file(&row, opened, dir, name)?))?;
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
            versions.push(self.with_file(&version, opened, dir, name)?);
        }
        let mut row = with(row, "kind", json!(kind.0));
        row = with(&row, "wrapped_dek", json!(self.store.entity(target)?.wrapped_dek));
        row = with(&row, "versions", array(&versions));
        if kind == Kind::PROJECT {
            row = with(&row, "variables", array(&self.store.variables(target, None, None)?));
            row = with(&row, "layer_keys", array(&self.store.layer_keys(target, None)?));
        }
        Ok(row)
    }

    /// Copies a verified file and says its name in the row. The name is null if the file is
    /// damaged, which is noted, or was pruned since its row was read.
    fn with_file(
        &mut self, row: &str, opened: Result<(File, u64)>, dir: &Path, name: String,
    ) -> Result<String> {
        let (mut from, size) = match opened {
            Ok(opened) => opened,
            Err(StoreError::Missing(_)) => return Ok(with(row, "file", Value::Null)),
            Err(error @ StoreError::Damaged { .. }) => {
                self.damaged.push(error.to_string());
                return Ok(with(row, "file", Value::Null));
            }
            Err(error) => return Err(error),
        };
        let to = dir.join(&name);
        let copied = File::create_new(&to).and_then(|mut file| std::io::copy(&mut from, &mut file));
        copied.map_err(|e| StoreError::io("write", &to, e))?;
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        (self.report)(self.files, self.bytes);
        Ok(with(row, "file", json!(name)))
    }
}

/// A JSON array of rows that are JSON, one a line.
fn array(rows: &[String]) -> String {
    format!("[{}]", rows.join(",\n"))
}

/// The JSON object `row` with one more member, whose value is JSON too.
fn with(row: &str, member: &str, value: impl Display) -> String {
    format!("{},\"{member}\":{value}}}", row.strip_suffix('}').unwrap_or(row))
}

fn number(row: &str, member: &str) -> Option<i64> {
    serde_json::from_str::<Value>(row).ok()?.get(member)?.as_i64()
}

/// A folder that was not there.
fn make(dir: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(dir).map_err(|e| StoreError::io("create", dir, e))
}
