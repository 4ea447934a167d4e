//! `backup` and `restore`: verified copies of a data folder.

use std::path::Path;

use super::args::Args;
use super::output::{print, progress};
use super::{CliError, Done, open_to_read};
use crate::store::Store;
use crate::store::backup::{self, Copied};
use crate::util::time::rfc3339;

pub fn run(mut args: Args) -> Done {
    let hard_link = args.flag("--hard-link");
    let older = args.value("--incremental-from", "OLD")?;
    let dest = args.positional("DEST")?;
    let store = open_to_read(args)?;
    let older = older.as_ref().map(|older| Path::new(&older.text));
    let (to, mut told) = (Path::new(&dest.text), progress("copied", store.totals()?.0));
    let copied = store.backup(to, older, hard_link, &mut told)?;
    report(&copied, &dest.text)
}

pub fn restore(mut args: Args) -> Done {
    let (from, to) = (args.positional("SRC")?, args.finish()?);
    let from = Path::new(&from.text);
    let total = Store::open_to_read(from).and_then(|store| store.totals());
    let total = total.map_or(0, |(bytes, _)| bytes);
    let copied = backup::restore(from, &to, &mut progress("restored", total))?;
    let at = copied.backup_time.map_or("an unknown time".into(), rfc3339);
    print(format_args!(
        "API tokens and passwords are again as they were at the backup, of {at}: what was revoked since \
         then works again. Look at `token list`, and revoke it again with `token revoke ID` and `user \
         disable EMAIL`; JWTs of before are void\n"
    ))?;
    report(&copied, &to.display().to_string())
}

fn report(copied: &Copied, dest: &str) -> Done {
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
