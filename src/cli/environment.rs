//! `environment …`: looks at environments and brings deleted ones back.

use super::args::{Args, text};
use super::output::{print, print_table};
use super::{Done, open_store, open_to_read};
use crate::util::types::visible;

/// `environment list EMAIL`.
pub fn list(mut args: Args) -> Done {
    let deleted = args.flag("--deleted");
    let email = args.email()?;
    print_table(&open_to_read(args)?.environment_table(&email, deleted)?)
}

/// `environment restore EMAIL NAME`.
pub fn restore(mut args: Args) -> Done {
    let email = args.email()?;
    let name = args.positional("NAME", text)?;
    open_store(args)?.restore_environment(&email, &name)?;
    print(format_args!("environment {} restored\n", visible(&name)))
}
