//! `backup` and `restore`: verified copies of a data folder.

use std::path::Path;

use super::args::Args;
use super::{CliError, Done, open_store, print, progress};
use crate::store::backup::{self, Copied, Plan};

pub const HELP: &str = "\
configsync-server backup DEST [--hard-link] [--incremental-from OLD] [--data DIR]

Copies the data folder to the new folder DEST, verified, while the server runs. DEST is a data
folder itself: serve and check take it, restore brings it back.
--hard-link               link the files instead of copying them, where DEST is on the same file
                          system; safe, since they never change, but no second copy of the bytes
--incremental-from OLD    link what an older backup has already
Exit code 1: nothing was made, or something in the source was damaged and is left out.
";

pub const RESTORE_HELP: &str = "\
configsync-server restore SRC --data DIR

Copies the backup SRC, verified, to DIR, which must be new or empty. SRC is only read.
";

pub fn run(mut args: Args) -> Done {
    let hard_link = args.flag("--hard-link");
    let older = args.value("--incremental-from")?;
    let dest = args.positional("DEST")?;
    args.finish()?;
    let older = older.as_ref().map(|older| Path::new(&older.text));
    let plan = Plan { dest: Path::new(&dest.text), hard_link, older };
    let copied = open_store(&args)?.backup(&plan, &mut progress("copied"))?;
    report(&copied, &dest.text)
}

pub fn restore(mut args: Args) -> Done {
    let from = args.positional("SRC")?;
    args.finish()?;
    let to = args.data();
    let copied = backup::restore(Path::new(&from.text), &to, &mut progress("restored"))?;
    report(&copied, &to.display().to_string())
}

fn report(copied: &Copied, dest: &str) -> Done {
    if copied.leftover {
        print(format_args!("an unfinished copy of an earlier run was removed\n"))?;
    }
    let Copied { files, linked, bytes, .. } = copied;
    print(format_args!("{files} files of {bytes} bytes in {dest}, {linked} of them linked\n"))?;
    for (what, reason) in &copied.damaged {
        print(format_args!("{what} is damaged and left out: {reason}\n"))?;
    }
    match copied.damaged.len() {
        0 => Ok(()),
        n => Err(CliError::Failed(format!("{n} damaged files were left out of the copy"))),
    }
}
