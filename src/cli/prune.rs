//! `prune`: deletes what nobody needs any more.

use super::args::Args;
use super::output::print;
use super::{CliError, Done};
use crate::store::Store;
use crate::store::prune::{Pruned, Retention};

pub fn run(mut args: Args) -> Done {
    let keep = args.value("--keep", "N")?.map(|n| n.at_least(1).number()).transpose()?;
    let older_than_days = args.value("--older-than-days", "N")?;
    let older_than_days = older_than_days.map(|n| n.number()).transpose()?;
    let dry_run = args.flag("--dry-run");
    let data = args.finish()?;
    if keep.is_none() && older_than_days.is_none() {
        let rule = "prune needs --keep N or --older-than-days N; see prune --help";
        return Err(CliError::Usage(rule.into()));
    }
    let retention = Retention { keep, older_than_days };
    let store = if dry_run { Store::open_to_read(&data)? } else { Store::open(&data)? };
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
