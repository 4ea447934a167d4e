//! `check`: verifies a data folder.

use super::args::Args;
use super::output::{print, progress};
use super::{CliError, Done, open_to_read};

pub fn run(args: Args) -> Done {
    let store = open_to_read(args)?;
    let total = store.totals().map_or(0, |(bytes, _)| bytes);
    let report = store.check(&mut progress("verified", total))?;
    for sentence in &report.database {
        print(format_args!("database: {sentence}\n"))?;
    }
    for sentence in &report.damaged {
        print(format_args!("{sentence}\n"))?;
    }
    for path in &report.orphans {
        print(format_args!("orphan without a row: {path}\n"))?;
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
