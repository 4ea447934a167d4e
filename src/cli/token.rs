//! `token …`: creates, lists and revokes API tokens.

use super::args::Args;
use super::output::{print, print_table, write_out};
use super::settings::number;
use super::{CliError, Done, open_store, open_to_read};
use crate::auth::token::ApiToken;
use crate::store::Store;
use crate::store::users::NewToken;
use crate::util::time::{DAY_MS, now_ms};
use crate::util::types::{Email, Name};

/// `token create EMAIL`: prints the token, this once.
pub fn create(mut args: Args) -> Done {
    let name = args.value("--name", |name| Name::try_from(name.to_owned()))?;
    let name = name.ok_or_else(|| CliError::Usage("token create needs --name NAME".into()))?;
    let days = args.value("--expires-days", number::<u32>("DAYS", 1))?;
    let email = args.email()?;
    let expires_at = days.map(|days| now_ms().saturating_add(i64::from(days) * DAY_MS));
    new_token(&open_store(args)?, &email, &name, expires_at, false, |token| {
        write_out(format_args!("{token}\n"))
    })
}

/// Makes, shows and stores a token, and with `new_user` its user. Only its digest is kept; one that
/// could not be shown is not.
pub fn new_token(
    store: &Store, email: &Email, name: &str, expires_at: Option<i64>, new_user: bool,
    show: impl FnOnce(&str) -> std::io::Result<()>,
) -> Done {
    let failed = |e| CliError::Failed(format!("no random bytes: {e}"));
    let token = ApiToken::generate().map_err(failed)?;
    let new = NewToken { digest: token.digest(), prefix: token.prefix(), name, expires_at };
    store.add_token(email, &new, new_user, || show(token.as_str()))?;
    Ok(())
}

/// `token list`, of all users or of one.
pub fn list(mut args: Args) -> Done {
    let email = args.optional("EMAIL", Email::parse)?;
    print_table(&open_to_read(args)?.token_table(email.as_ref())?)
}

/// `token revoke ID`.
pub fn revoke(mut args: Args) -> Done {
    let id: i64 = args.positional("ID", number("ID", 0))?;
    open_store(args)?.revoke_token(id)?;
    print(format_args!("token {id} revoked\n"))
}
