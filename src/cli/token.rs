//! `token …`: creates, lists and revokes API tokens.

use super::args::{Args, Value};
use super::{CliError, Done, open_store, print};
use crate::auth::token::ApiToken;
use crate::limits::NAME_CHARS_MAX;
use crate::store::Store;
use crate::store::tokens::NewToken;
use crate::time::{now_ms, rfc3339};
use crate::types::{Digest, Email, checked_name};

pub const HELP: &str = "\
configsync-server token COMMAND [--data DIR]

  create EMAIL --name NAME [--expires-days N]
                    print a new API token, and nothing else; it is shown this once
  list [EMAIL]      id, user, name, first characters, created, last used, expiry or revocation
  revoke ID         the token, and every JWT it was traded for, stop working at once
";

const DAY_MS: i64 = 86_400_000;
const EXPIRY_DAYS_MAX: i64 = 36_500;

pub fn run(mut args: Args) -> Done {
    match args.subcommand()?.as_deref() {
        Some("create") => create(args),
        Some("list") => list(args),
        Some("revoke") => revoke(args),
        other => Err(args.no_command("token", other)),
    }
}

fn create(mut args: Args) -> Done {
    let name = args.value("--name")?;
    let expires_days = args.value("--expires-days")?;
    let email = args.email()?;
    args.finish()?;
    let name = name.ok_or_else(|| CliError::Usage("token create needs --name NAME".into()))?;
    let checked = checked_name("name", &name.text, NAME_CHARS_MAX);
    let checked = checked.map_err(|rule| name.refuse(&rule))?;
    let expires_at = match expires_days {
        None => None,
        Some(days) => match days.parse::<i64>()? {
            n @ 1..=EXPIRY_DAYS_MAX => Some(now_ms() + n * DAY_MS),
            _ => return Err(days.refuse(&format!("use 1 to {EXPIRY_DAYS_MAX}"))),
        },
    };
    let token = new_token(&open_store(&args)?, &email, checked, expires_at)?;
    print(format_args!("{}\n", token.as_str()))
}

/// Makes and stores a token. Only its digest is kept.
pub fn new_token(
    store: &Store,
    email: &Email,
    name: &str,
    expires_at: Option<i64>,
) -> Result<ApiToken, CliError> {
    let failed = |e| CliError::Failed(format!("no random bytes: {e}"));
    let token = ApiToken::generate().map_err(failed)?;
    let digest = Digest(token.digest());
    store.add_token(email, &NewToken { digest, prefix: token.prefix(), name, expires_at })?;
    Ok(token)
}

fn list(mut args: Args) -> Done {
    let parse = |value: Value| Email::parse(&value.text).map_err(|rule| value.refuse(&rule));
    let email = args.optional("EMAIL")?.map(parse).transpose()?;
    args.finish()?;
    for token in open_store(&args)?.tokens(email.as_ref())? {
        let end = match (token.revoked_at, token.expires_at) {
            (Some(at), _) => format!("revoked {}", rfc3339(at)),
            (None, Some(at)) => format!("expires {}", rfc3339(at)),
            (None, None) => "never expires".to_owned(),
        };
        print(format_args!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{end}\n",
            token.id,
            token.email,
            token.name,
            token.prefix,
            rfc3339(token.created_at),
            token.last_used_at.map_or_else(|| "never used".to_owned(), rfc3339),
        ))?;
    }
    Ok(())
}

fn revoke(mut args: Args) -> Done {
    let id: i64 = args.positional("ID")?.parse()?;
    args.finish()?;
    open_store(&args)?.revoke_token(id)?;
    print(format_args!("token {id} revoked\n"))
}
