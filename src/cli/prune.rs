//! `prune`: deletes what nobody needs any more.

use super::args::{Args, Value};
use super::output::print;
use super::{CliError, Done};
use crate::store::Store;
use crate::store::prune::{Pruned, Retention};

pub fn run(mut args: Args) -> Done {
    let number = |value: Option<Value>, least| {
        value.map(|value| value.number(least..=u64::from(u32::MAX))).transpose()
    };
    let keep = number(args.value("--keep", "N")?, 1)?;
    let older_than_days = number(args.value("--older-than-days", "N")?, 0)?;
    let dry_run = args.flag("--dry-run");
    let data = args.finish()?;
    if keep.is_none() && older_than_days.is_none() {
        let rule = "prune needs --keep N or --older-than-days N; see prune --help";
        return Err(CliError::Usage(rule.into()));
    }
    let retention = Retention { keep, older_than_days };
    let store = if dry_run { Store::open_to_read(&data)? } else { Store::open(&data)? };
    let Pruned { snapshots, deleted, orphans, bytes, waiting, .. } =
        store.prune(retention, dry_run)?;
    let what = format!(
        "{snapshots} snapshots, {deleted} deleted entities and environments and {orphans} files of \
         orphans/"
    );
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
