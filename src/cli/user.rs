//! `user …`: adds, changes, lists and removes users.

use std::io::{BufRead, Read};

use super::args::Args;
use super::{CliError, Done, open_store, print, print_lines};
use crate::auth::password;
use crate::limits::PASSWORD_BYTES_MAX;
use crate::store::users::Change;

pub const HELP: &str = "\
configsync-server user COMMAND [--data DIR]

  add EMAIL [--password-stdin]     create a user; without a password it signs in by token only
  passwd EMAIL --password-stdin    set the password; every JWT issued before stops working
  list                             id, email, state, password, stored bytes, created
  disable EMAIL                    its tokens and JWTs stop working at once
  enable EMAIL                     undo that; JWTs issued before stay void
  remove EMAIL --yes               delete the user and everything it stored

--password-stdin reads the password from the first line of standard input.
";

pub fn run(mut args: Args) -> Done {
    match args.subcommand()?.as_deref() {
        Some("add") => add(args),
        Some("passwd") => passwd(args),
        Some("list") => list(args),
        Some("disable") => change(args, &Change::Disable, "disabled"),
        Some("enable") => change(args, &Change::Enable, "enabled"),
        Some("remove") => remove(args),
        other => Err(args.no_command("user", other)),
    }
}

fn add(mut args: Args) -> Done {
    let with_password = args.flag("--password-stdin");
    let email = args.email()?;
    args.finish()?;
    let store = open_store(&args)?;
    let hash = if with_password { Some(read_password()?) } else { None };
    let id = store.add_user(&email, hash.as_deref())?;
    print(format_args!("user {id} {email} added\n"))
}

fn passwd(mut args: Args) -> Done {
    let from_stdin = args.flag("--password-stdin");
    let email = args.email()?;
    args.finish()?;
    if !from_stdin {
        return Err(CliError::Usage("user passwd needs --password-stdin".into()));
    }
    let store = open_store(&args)?;
    store.change_user(&email, &Change::Password(&read_password()?))?;
    print(format_args!("password of {email} set; its JWTs are void\n"))
}

fn change(mut args: Args, change: &Change<'_>, done: &str) -> Done {
    let email = args.email()?;
    args.finish()?;
    open_store(&args)?.change_user(&email, change)?;
    print(format_args!("{email} {done}\n"))
}

fn remove(mut args: Args) -> Done {
    let sure = args.flag("--yes");
    let email = args.email()?;
    args.finish()?;
    if !sure {
        return Err(CliError::Usage(format!(
            "user remove deletes everything that {email} stored; add --yes to do it"
        )));
    }
    let files = open_store(&args)?.remove_user(&email)?;
    print(format_args!("{email} removed, with {files} stored files\n"))
}

fn list(mut args: Args) -> Done {
    args.finish()?;
    print_lines(&open_store(&args)?.user_lines()?)
}

/// The hash of the password on the first line of standard input, which is read no further.
fn read_password() -> Result<String, CliError> {
    let mut line = Vec::new();
    // Room for one byte too many and a line end, so that a longer one is noticed.
    let most = PASSWORD_BYTES_MAX as u64 + 3;
    std::io::stdin()
        .lock()
        .take(most)
        .read_until(b'\n', &mut line)
        .map_err(|e| CliError::Failed(format!("could not read the password: {e}")))?;
    let password = line.strip_suffix(b"\n").unwrap_or(&line);
    let password = password.strip_suffix(b"\r").unwrap_or(password);
    if !(1..=PASSWORD_BYTES_MAX).contains(&password.len()) || std::str::from_utf8(password).is_err()
    {
        return Err(CliError::Failed(format!(
            "the first line of standard input must be a password of 1 to {PASSWORD_BYTES_MAX} \
             bytes of UTF-8"
        )));
    }
    password::hash(password).map_err(|e| CliError::Failed(e.to_string()))
}
