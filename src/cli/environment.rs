//! `environment …`: looks at environments and brings deleted ones back.

use super::args::Args;
use super::{Done, open_store, print, print_lines};

pub fn run(mut args: Args) -> Done {
    match args.subcommand()?.as_deref() {
        Some("list") => list(args),
        Some("restore") => restore(args),
        other => Err(args.no_command("environment", other)),
    }
}

fn list(mut args: Args) -> Done {
    let deleted = args.flag("--deleted");
    let email = args.email()?;
    args.finish()?;
    print_lines(&open_store(&args)?.environment_lines(&email, deleted)?)
}

fn restore(mut args: Args) -> Done {
    let email = args.email()?;
    let name = args.positional("NAME")?;
    args.finish()?;
    open_store(&args)?.restore_environment(&email, &name.text)?;
    print(format_args!("environment {} restored\n", name.text.escape_debug()))
}
