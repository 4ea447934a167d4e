//! `machine …`: lists and removes machines.

use super::args::{Args, text};
use super::output::{print, print_table};
use super::{Done, open_store, open_to_read};
use crate::util::types::{Email, visible};

/// `machine list`, of all users or of one.
pub fn list(mut args: Args) -> Done {
    let email = args.optional("EMAIL", Email::parse)?;
    print_table(&open_to_read(args)?.machine_table(email.as_ref())?)
}

/// `machine remove EMAIL MACHINE_ID`.
pub fn remove(mut args: Args) -> Done {
    args.confirmed()?;
    let email = args.email()?;
    let machine = args.positional("MACHINE_ID", text)?;
    let files = open_store(args)?.remove_machine(&email, &machine)?;
    let shown = visible(&machine);
    print(format_args!("machine {shown} of {email} removed, with {files} snapshots\n"))
}
