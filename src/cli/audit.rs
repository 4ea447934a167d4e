//! `audit`: prints the audit log.

use super::args::Args;
use super::{Done, open_store, print_lines};
use crate::store::audit::{Filter, moment};

pub fn run(mut args: Args) -> Done {
    let since = args.value("--since")?;
    let user = args.value("--user")?;
    let event = args.value("--event")?.map(|event| event.text);
    let format = args.value("--format")?;
    args.finish()?;
    let since = match since {
        None => None,
        Some(text) => Some(
            moment(&text.text)
                .ok_or_else(|| text.refuse("use a time such as 2026-11-23T16:08:00Z, or a date"))?,
        ),
    };
    let text = match format {
        None => false,
        Some(format) => match format.text.as_str() {
            "jsonl" => false,
            "text" => true,
            _ => return Err(format.refuse("use jsonl or text")),
        },
    };
    let user = user.map(|user| user.email()).transpose()?;
    let mut printed = Ok(());
    open_store(&args)?.each_audit_row(&Filter { since, user, event, text }, |rows| {
        printed = print_lines(rows);
        printed.is_ok()
    })?;
    printed
}
