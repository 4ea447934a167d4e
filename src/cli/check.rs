//! `check`: verifies a data folder.

use super::args::Args;
use super::{CliError, Done, open_store, print, progress};

pub fn run(mut args: Args) -> Done {
    let repair = args.flag("--repair");
    let store = open_store(args)?;
    if repair {
        let moved = store.repair()?;
        print(format_args!("{moved} files without a row moved into lost+found/\n"))?;
    }
    let report = store.check(&mut progress("verified"))?;
    for sentence in &report.database {
        print(format_args!("database: {sentence}\n"))?;
    }
    for (what, reason) in &report.damaged {
        print(format_args!("{what} is damaged: {reason}\n"))?;
    }
    for path in &report.orphans {
        print(format_args!("orphan without a row: {}\n", path.display()))?;
    }
    if report.clean() {
        let (count, bytes) = (report.snapshots, report.bytes);
        return print(format_args!("clean: {count} snapshots of {bytes} bytes verified\n"));
    }
    Err(CliError::Failed(format!(
        "damage found: {} of {} snapshots damaged, {} orphans, {} findings in the database",
        report.damaged.len(),
        report.snapshots,
        report.orphans.len(),
        report.database.len()
    )))
}
