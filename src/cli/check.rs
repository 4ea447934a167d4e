//! `check`: verifies a data folder and changes nothing.

use super::args::Args;
use super::{CliError, Done, open_store, print};

pub const HELP: &str = "\
configsync-server check [--data DIR]

Verifies the database, and the length and SHA-256 of every snapshot file; reports damaged
snapshots by id, and files without a row. Changes nothing; a server may run meanwhile.
Exit code 0: clean. 1: damage found.
";

pub fn run(mut args: Args) -> Done {
    args.finish()?;
    let report = open_store(&args)?.check()?;
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
