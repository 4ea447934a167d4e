//! `prune`: deletes what nobody needs any more.

use std::num::NonZeroU32;

use super::args::Args;
use super::{CliError, Done, print};
use crate::store::Store;
use crate::store::prune::{Pruned, Rules};

pub fn run(mut args: Args) -> Done {
    let keep = args.number::<NonZeroU32>("--keep")?.map(NonZeroU32::get);
    let older_than_days = args.number("--older-than-days")?;
    let dry_run = args.flag("--dry-run");
    let data = args.finish()?;
    if keep.is_none() && older_than_days.is_none() {
        let rule = "prune needs --keep N or --older-than-days N; see prune --help";
        return Err(CliError::Usage(rule.into()));
    }
    let rules = Rules { keep, older_than_days };
    let store = Store::open(&data)?;
    let pruned = if dry_run { store.prune_preview(rules)? } else { store.prune(rules)? };
    let Pruned { snapshots, deleted, lost, bytes, waiting } = pruned;
    let what = format!(
        "{snapshots} snapshots, {deleted} deleted entities and environments and {lost} files of \
         lost+found/"
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
