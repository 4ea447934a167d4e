//! `machine …`: lists and removes machines.

use super::args::Args;
use super::output::{print, print_table};
use super::{CliError, Done, open_to_read};
use crate::store::Store;
use crate::util::types::visible;

/// `machine list`, of all users or of one.
pub fn list(mut args: Args) -> Done {
    let email = args.optional_email()?;
    print_table(&open_to_read(args)?.machine_table(email.as_ref())?)
}

/// `machine remove EMAIL MACHINE_ID`.
pub fn remove(mut args: Args) -> Done {
    let sure = args.flag("--yes");
    let email = args.email()?;
    let machine = args.positional("MACHINE_ID")?.text;
    let data = args.finish()?;
    let shown = visible(&machine);
    if !sure {
        return Err(CliError::Usage(format!(
            "machine remove deletes everything that {shown} of {email} stored; add --yes to do it"
        )));
    }
    let files = Store::open(&data)?.remove_machine(&email, &machine)?;
    print(format_args!("machine {shown} of {email} removed, with {files} snapshots\n"))
}
