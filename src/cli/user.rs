//! `user …`: adds, changes, lists and removes users.

use std::io::{BufRead, Read};

use super::args::Args;
use super::output::{could_not, print, print_table};
use super::settings::{number, unless};
use super::{CliError, Done, open_store, open_to_read};
use crate::auth::password;
use crate::store::users::Change;
use crate::util::limits::PASSWORD_BYTES_MAX;

/// `user add EMAIL`.
pub fn add(mut args: Args) -> Done {
    let with_password = args.flag("--password-stdin");
    let email = args.email()?;
    let store = open_store(args)?;
    let hash = with_password.then(read_password).transpose()?;
    let id = store.add_user(&email, hash.as_deref())?;
    print(format_args!("user {id} {email} added\n"))
}

/// `user passwd EMAIL`.
pub fn passwd(mut args: Args) -> Done {
    if !args.flag("--password-stdin") {
        return Err(CliError::Usage("user passwd needs --password-stdin".into()));
    }
    let email = args.email()?;
    let store = open_store(args)?;
    store.change_user(&email, &Change::Password(&read_password()?))?;
    print(format_args!("password of {email} set; its JWTs are void\n"))
}

/// `user quota EMAIL BYTES`.
pub fn quota(mut args: Args) -> Done {
    const KIND: &str = "BYTES|default";
    let email = args.email()?;
    let quota = args.positional(KIND, unless("default", number(KIND, 0)))?;
    open_store(args)?.change_user(&email, &Change::Quota(quota))?;
    let quota = quota.map_or("default".to_owned(), |bytes: i64| bytes.to_string());
    print(format_args!("quota of {email} is {quota}\n"))
}

/// `user disable EMAIL`.
pub fn disable(args: Args) -> Done {
    change(args, &Change::Disable, "disabled")
}

/// `user enable EMAIL`.
pub fn enable(args: Args) -> Done {
    change(args, &Change::Enable, "enabled")
}

fn change(mut args: Args, change: &Change<'_>, done: &str) -> Done {
    let email = args.email()?;
    open_store(args)?.change_user(&email, change)?;
    print(format_args!("{email} {done}\n"))
}

/// `user remove EMAIL`.
pub fn remove(mut args: Args) -> Done {
    args.confirmed()?;
    let email = args.email()?;
    let files = open_store(args)?.remove_user(&email)?;
    print(format_args!("{email} removed, with {files} stored files\n"))
}

/// `user list`.
pub fn list(args: Args) -> Done {
    print_table(&open_to_read(args)?.user_table()?)
}

/// The hash of the password on the first line of standard input, which is read no further. A password
/// is never an argument: other users of the host could read it.
fn read_password() -> Result<String, CliError> {
    let mut line = String::new();
    // Room for one byte too many and a line end, so that a longer one is noticed.
    let most = PASSWORD_BYTES_MAX as u64 + 3;
    let read = std::io::stdin().lock().take(most).read_line(&mut line);
    read.map_err(could_not("read the password"))?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if !(1..=PASSWORD_BYTES_MAX).contains(&password.len()) {
        return Err(CliError::Failed(format!(
            "the first line must be a password of 1 to {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    password::hash(password.as_bytes()).map_err(|e| CliError::Failed(e.to_string()))
}
