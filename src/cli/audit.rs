//! `audit`: prints the audit log.

use super::Done;
use super::args::Args;
use super::output::print_lines;
use crate::store::Store;
use crate::store::audit::{EVENTS, moment};
use crate::util::types::Email;

pub fn run(mut args: Args) -> Done {
    let takes = "a time such as 2026-11-23T16:08:00Z, or a date";
    let time = |text: &str| moment(text).ok_or_else(|| takes.to_owned());
    let since = args.value("--since", time)?.unwrap_or(i64::MIN);
    let until = args.value("--until", time)?.unwrap_or(i64::MAX);
    let user = args.value("--user", Email::parse)?;
    let event = args.value("--event", |name| match EVENTS.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("one of {}", EVENTS.join(", "))),
    })?;
    let store = Store::open_to_read(&args.finish()?)?;
    store.each_audit_row(since..=until, user.as_ref(), event.as_deref(), print_lines)
}
