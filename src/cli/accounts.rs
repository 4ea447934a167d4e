//! `user …`, `token …`, `machine …` and `environment …`: users and the rows that they own.

use std::io::{BufRead, Read};

use super::args::{Args, text};
use super::output::{could_not, print, print_table, write_out};
use super::settings::{none_if, number};
use super::{CliError, CommandResult, open_store, open_to_read};
use crate::auth::password;
use crate::auth::token::ApiToken;
use crate::store::Store;
use crate::store::users::{Change, NewToken};
use crate::util::limits::PASSWORD_BYTES_MAX;
use crate::util::time::{DAY_MS, now_ms};
use crate::util::types::{Email, Name, visible};

/// `user add EMAIL`.
pub fn add_user(mut args: Args) -> CommandResult {
    let with_password = args.flag("--password-stdin");
    let email = args.email()?;
    let store = open_store(args)?;
    let hash = with_password.then(read_password).transpose()?;
    let id = store.add_user(&email, hash.as_deref())?;
    print(format_args!("user {id} {email} added\n"))
}

/// `user passwd EMAIL`.
pub fn set_password(mut args: Args) -> CommandResult {
    if !args.flag("--password-stdin") {
        return Err(CliError::Usage("user passwd needs --password-stdin".into()));
    }
    let email = args.email()?;
    let store = open_store(args)?;
    store.change_user(&email, &Change::Password(&read_password()?))?;
    print(format_args!("password of {email} set; its JWTs are void\n"))
}

/// `user quota EMAIL BYTES`.
pub fn set_quota(mut args: Args) -> CommandResult {
    const KIND: &str = "BYTES|default";
    let email = args.email()?;
    let quota = args.positional(KIND, none_if("default", number(KIND, 0)))?;
    open_store(args)?.change_user(&email, &Change::Quota(quota))?;
    let quota = quota.map_or("default".to_owned(), |bytes: i64| bytes.to_string());
    print(format_args!("quota of {email} is {quota}\n"))
}

/// `user disable EMAIL`.
pub fn disable_user(args: Args) -> CommandResult {
    change_user(args, &Change::Disable, "disabled")
}

/// `user enable EMAIL`.
pub fn enable_user(args: Args) -> CommandResult {
    change_user(args, &Change::Enable, "enabled")
}

fn change_user(mut args: Args, change: &Change<'_>, done: &str) -> CommandResult {
    let email = args.email()?;
    open_store(args)?.change_user(&email, change)?;
    print(format_args!("{email} {done}\n"))
}

/// `user remove EMAIL`.
pub fn remove_user(mut args: Args) -> CommandResult {
    args.confirmed()?;
    let email = args.email()?;
    let files = open_store(args)?.remove_user(&email)?;
    print(format_args!("{email} removed, with {files} stored files\n"))
}

/// `user list`.
pub fn list_users(args: Args) -> CommandResult {
    print_table(&open_to_read(args)?.user_table()?)
}

/// `token create EMAIL`: prints the token, which is never shown again.
pub fn create_token(mut args: Args) -> CommandResult {
    let name = args.value("--name", |name| Name::try_from(name.to_owned()))?;
    let name = name.ok_or_else(|| CliError::Usage("token create needs --name NAME".into()))?;
    let days = args.value("--expires-days", number::<u32>("DAYS", 1))?;
    let email = args.email()?;
    let expires_at = days.map(|days| now_ms().saturating_add(i64::from(days) * DAY_MS));
    new_token(&open_store(args)?, &email, &name, expires_at, false, |token| {
        write_out(format_args!("{token}\n"))
    })
}

/// Generates, shows and stores a token, and with `new_user` also its user. Only its digest and
/// prefix are stored, and nothing if the token could not be shown.
pub fn new_token(
    store: &Store, email: &Email, name: &str, expires_at: Option<i64>, new_user: bool,
    show: impl FnOnce(&str) -> std::io::Result<()>,
) -> CommandResult {
    let failed = |e| CliError::Failed(format!("no random bytes: {e}"));
    let token = ApiToken::generate().map_err(failed)?;
    let new = NewToken { digest: token.digest(), prefix: token.prefix(), name, expires_at };
    store.add_token(email, &new, new_user, || show(token.as_str()))?;
    Ok(())
}

/// `token list [EMAIL]`: of all users or of one.
pub fn list_tokens(mut args: Args) -> CommandResult {
    let email = args.optional("EMAIL", Email::parse)?;
    print_table(&open_to_read(args)?.token_table(email.as_ref())?)
}

/// `token revoke ID`.
pub fn revoke_token(mut args: Args) -> CommandResult {
    let id: i64 = args.positional("ID", number("ID", 0))?;
    open_store(args)?.revoke_token(id)?;
    print(format_args!("token {id} revoked\n"))
}

/// `machine list [EMAIL]`: of all users or of one.
pub fn list_machines(mut args: Args) -> CommandResult {
    let email = args.optional("EMAIL", Email::parse)?;
    print_table(&open_to_read(args)?.machine_table(email.as_ref())?)
}

/// `machine remove EMAIL MACHINE_ID`.
pub fn remove_machine(mut args: Args) -> CommandResult {
    args.confirmed()?;
    let email = args.email()?;
    let machine = args.positional("MACHINE_ID", text)?;
    let files = open_store(args)?.remove_machine(&email, &machine)?;
    let shown = visible(&machine);
    print(format_args!("machine {shown} of {email} removed, with {files} snapshots\n"))
}

/// `environment list EMAIL`.
pub fn list_environments(mut args: Args) -> CommandResult {
    let deleted = args.flag("--deleted");
    let email = args.email()?;
    print_table(&open_to_read(args)?.environment_table(&email, deleted)?)
}

/// `environment restore EMAIL NAME`.
pub fn restore_environment(mut args: Args) -> CommandResult {
    let email = args.email()?;
    let name = args.positional("NAME", text)?;
    open_store(args)?.restore_environment(&email, &name)?;
    print(format_args!("environment {} restored\n", visible(&name)))
}

/// Reads a password from the first line of standard input and returns its hash. A password is never
/// an argument: other users of the host could read it.
fn read_password() -> Result<String, CliError> {
    let mut line = String::new();
    // Room for one byte over the limit and a line end, so that a longer password is noticed.
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
