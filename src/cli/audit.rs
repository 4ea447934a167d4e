//! `audit`: prints the audit log.

use super::args::Args;
use super::{Done, print_lines};
use crate::store::Store;
use crate::store::audit::{Filter, moment};

pub fn run(mut args: Args) -> Done {
    let since = args.value("--since")?;
    let user = args.value("--user")?;
    let event = args.value("--event")?.map(|event| event.text);
    let format = args.value("--format")?;
    let data = args.finish()?;
    let rule = "use a time such as 2026-11-23T16:08:00Z, or a date";
    let since = since.map(|since| moment(&since.text).ok_or_else(|| since.refuse(rule)));
    let since = since.transpose()?;
    let formats = [("jsonl", false), ("text", true)];
    let text = format.map_or(Ok(false), |format| format.choice(formats))?;
    let user = user.map(|user| user.email()).transpose()?;
    let mut printed = Ok(());
    Store::open(&data)?.each_audit_row(&Filter { since, user, event, text }, |rows| {
        printed = print_lines(rows);
        printed.is_ok()
    })?;
    printed
}
