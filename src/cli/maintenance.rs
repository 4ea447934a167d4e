//! `check`, `backup`, `restore`, `prune` and `audit`: commands on a whole data folder.

use std::path::Path;

use super::args::{Args, text};
use super::output::{print, print_lines, progress};
use super::settings::number;
use super::{CliError, CommandResult, open_store, open_to_read};
use crate::store::audit::{EVENTS, moment};
use crate::store::backup::{self, Copied};
use crate::store::prune::{Pruned, Retention};
use crate::util::time::rfc3339;
use crate::util::types::Email;

/// `check`: verifies a data folder.
pub fn check(args: Args) -> CommandResult {
    let report = open_to_read(args)?.check(&mut progress("verified"))?;
    let database = report.database.iter().map(|sentence| format!("database: {sentence}"));
    let orphans = report.orphans.iter().map(|path| format!("orphan without a row: {path}"));
    let found: Vec<_> = database.chain(report.damaged.iter().cloned()).chain(orphans).collect();
    print_lines(&found)?;
    let (count, bytes) = (report.snapshots, report.bytes);
    match found.len() {
        0 => print(format_args!("clean: {count} snapshots of {bytes} bytes verified\n")),
        n => Err(CliError::Failed(format!("damage found: {n} things, among {count} snapshots"))),
    }
}

/// `backup DEST`: makes a verified copy of a data folder.
pub fn backup(mut args: Args) -> CommandResult {
    let hard_link = args.flag("--hard-link");
    let older = args.value("--incremental-from", text)?;
    let dest = args.positional("DEST", text)?;
    let store = open_to_read(args)?;
    let older = older.as_deref().map(Path::new);
    let copied = store.backup(Path::new(&dest), older, hard_link, &mut progress("copied"))?;
    report(&copied, &dest)
}

/// `restore SRC`: copies a backup to `--data`.
pub fn restore(mut args: Args) -> CommandResult {
    let (from, to) = (args.positional("SRC", text)?, args.finish()?);
    let copied = backup::restore(Path::new(&from), &to, &mut progress("restored"))?;
    let at = copied.backup_time.map_or("an unknown time".into(), rfc3339);
    print(format_args!(
        "API tokens and passwords are again as they were at the backup, of {at}: what was revoked since \
         then works again. Look at `token list`, and revoke it again with `token revoke ID` and `user \
         disable EMAIL`; JWTs of before are void\n"
    ))?;
    report(&copied, &to.display().to_string())
}

fn report(copied: &Copied, dest: &str) -> CommandResult {
    let Copied { files, linked, bytes, .. } = copied;
    print(format_args!("{files} files of {bytes} bytes in {dest}, {linked} of them linked\n"))?;
    print_lines(&copied.damaged)?;
    match copied.damaged.len() {
        0 => Ok(()),
        n => Err(CliError::Failed(format!("{n} damaged files were left out of the copy"))),
    }
}

/// `prune`: deletes old snapshots, old soft-deleted rows and old orphans.
pub fn prune(mut args: Args) -> CommandResult {
    let keep = args.value("--keep", number("N", 1))?;
    let older_than_days = args.value("--older-than-days", number("N", 0))?;
    let dry_run = args.flag("--dry-run");
    if keep.is_none() && older_than_days.is_none() {
        let rule = "prune needs --keep N or --older-than-days N; see prune --help";
        return Err(CliError::Usage(rule.into()));
    }
    let retention = Retention { keep: keep.unwrap_or(0), older_than_days, audit_days: 0 };
    let store = if dry_run { open_to_read(args)? } else { open_store(args)? };
    let Pruned { snapshots, deleted, orphans, bytes, waiting, clock_in_doubt, .. } =
        store.prune(retention, dry_run)?;
    let what = format!(
        "{snapshots} snapshots, {deleted} deleted entities and environments and {orphans} files of \
         orphans/"
    );
    if clock_in_doubt {
        print(
            "what was deleted or set aside long ago stays: the clock is far from the newest row\n",
        )?;
    }
    if dry_run {
        return print(format_args!("would delete {what}, and free {bytes} bytes\n"));
    }
    print(format_args!("deleted {what}; {bytes} bytes freed\n"))?;
    match waiting {
        0 => Ok(()),
        n => print(format_args!(
            "{n} files stay until the next prune: a backup or another prune is at work\n"
        )),
    }
}

/// `audit`: prints the audit log.
pub fn audit(mut args: Args) -> CommandResult {
    let takes = "a time such as 2026-11-23T16:08:00Z, or a date";
    let time = |text: &str| moment(text).ok_or_else(|| takes.to_owned());
    let since = args.value("--since", time)?.unwrap_or(i64::MIN);
    let until = args.value("--until", time)?.unwrap_or(i64::MAX);
    let user = args.value("--user", Email::parse)?;
    let event = args.value("--event", |name| match EVENTS.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("one of {}", EVENTS.join(", "))),
    })?;
    let store = open_to_read(args)?;
    store.each_audit_row(since..=until, user.as_ref(), event.as_deref(), print_lines)
}
